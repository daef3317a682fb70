//! What of an attempt still runs after it has failed? It is ended before anybody asks whether the attempt took effect.
//!
//! A command outlives a killed lidless, and what leaves its process group (`setsid`) outlives the command; either could take
//! effect after somebody was told that it had not. Each carries its idempotency key in its environment, and so does what it
//! started: that is how it is found, also by a lidless that died before it could write down a pid.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Call;
use super::exec::KEY_VARIABLE;

/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(2);
/// How long what an attempt left behind may take to be gone once it is killed.
const LEFTOVERS_MAX: Duration = Duration::from_secs(1);

/// What carries the key of an attempt. Dropped, it is killed.
pub(super) struct Carriers {
    keys: Vec<String>,
}

impl Carriers {
    pub(super) fn of(call: &Call) -> Self {
        Carriers { keys: vec![call.idempotency_key.clone()] }
    }

    /// Lets it live.
    pub(super) fn spare(&mut self) {
        self.keys.clear();
    }

    /// Ends it, and returns the pids of what cannot be ended.
    pub(super) async fn end(&mut self) -> Vec<i32> {
        let keys = std::mem::take(&mut self.keys);
        // It fails only where the runtime shuts down.
        let ending = tokio::task::spawn_blocking(move || end(&keys, LEFTOVERS_MAX));
        ending.await.unwrap_or_default()
    }
}

impl Drop for Carriers {
    fn drop(&mut self) {
        kill_all(&self.keys);
    }
}

/// Kills whatever carries one of the keys, and waits until it is gone. Returns the pids of what is still there after `patience`.
///
/// Blocks: to be called before there is anything that could be held up.
pub fn end(keys: &[String], patience: Duration) -> Vec<i32> {
    end_marked(&marks(keys), patience)
}

/// The same, of whatever carries one of these pairs in its environment: "NAME=value".
///
/// A plugin serves many keys and carries none. It ends with its input, but may first do what it was at: who must know that it
/// is gone gives its command a pair that no other lidless of this machine uses, and looks for that.
pub fn end_marked(marks: &[String], patience: Duration) -> Vec<i32> {
    let deadline = Instant::now() + patience;
    loop {
        let left = carriers(marks);
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        for pid in &left {
            kill(*pid, marks);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Kills whatever carries one of the keys, once, and waits for nobody.
fn kill_all(keys: &[String]) {
    let marks = marks(keys);
    for pid in carriers(&marks) {
        kill(pid, &marks);
    }
}

fn marks(keys: &[String]) -> Vec<String> {
    let keys = keys.iter().filter(|key| !key.is_empty());
    keys.map(|key| format!("{KEY_VARIABLE}={key}")).collect()
}

/// The processes whose environment has one of the marks. A zombie has none any more.
fn carriers(marks: &[String]) -> Vec<i32> {
    if marks.is_empty() {
        return Vec::new();
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // A lidless that such a step has started carries its key as well.
    let own = i32::try_from(std::process::id()).ok();
    pids.filter(|pid| Some(*pid) != own && carries(*pid, marks)).collect()
}

fn carries(pid: i32, marks: &[String]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|pair| marks.iter().any(|mark| mark.as_bytes() == pair))
}

/// The handle is opened first and the process looked at again: its number may have been given away meanwhile.
fn kill(pid: i32, marks: &[String]) {
    let handle = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(handle) = handle.filter(|_| carries(pid, marks)) {
        // It may just have ended: then the next look does not find it.
        let _ = pidfd_send_signal(handle, Signal::KILL);
    }
}
