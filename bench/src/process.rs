//! How does a bench start and end processes, and find those that others started for it?
//!
//! Everything is ended by pid, and on the way out of a panic too: a bench must leave nothing running.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::Problem;

/// A child that is killed when it goes out of scope.
#[derive(Debug)]
pub struct Guarded {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Guarded {
    /// Starts it with its output in `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Guarded, Problem> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|err| format!("cannot start {name} ({}): {err}", command.get_program().display()))?;
        if let Ok(pid) = i32::try_from(child.id())
            && let Some(started) = started(pid)
        {
            debts().instances.push(Instance { pid, started });
        }
        Ok(Guarded { name: name.to_owned(), child, log: log.to_path_buf() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says with the end of its log that it ended where it should not have.
    pub fn must_live(&mut self) -> Result<(), Problem> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                Err(format!("{} ended ({status}); its last words:\n{}", self.name, self.last_words()).into())
            }
        }
    }

    /// The end of its output.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Ends it by SIGKILL and reaps it.
    pub fn kill(&mut self) -> Result<(), Problem> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end by SIGTERM; SIGKILL after `within`.
    pub fn stop(&mut self, within: Duration) -> Result<ExitStatus, Problem> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let mut status = None;
        wait_until(within, Duration::from_millis(5), || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        match status {
            Some(status) => Ok(status),
            None => {
                self.kill()?;
                Err(format!("{} did not end within {within:?} after SIGTERM", self.name).into())
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Processes that somebody else starts for us, known by a text in their command line; killed when it goes out of scope.
///
/// Declare it before whoever starts them, so that it is dropped after.
#[derive(Clone, Debug)]
pub struct Marked(String);

impl Marked {
    /// Looks after processes whose command line holds `marker`.
    pub fn new(marker: impl Into<String>) -> Marked {
        let marker = marker.into();
        debts().markers.push(marker.clone());
        Marked(marker)
    }

    /// Those that live right now.
    pub fn find(&self) -> Vec<Instance> {
        find(&self.0)
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        // More than once: one may just be starting.
        let gone = wait_until(Duration::from_secs(2), Duration::from_millis(20), || {
            let found = self.find();
            found.iter().for_each(Instance::kill);
            found.is_empty()
        });
        if !gone {
            eprintln!("warning: processes with `{}` in their command line are still there", self.0);
        }
    }
}

/// What has to be killed should a signal end the bench: `Drop` does not run then.
#[derive(Debug, Default)]
struct Debts {
    instances: Vec<Instance>,
    markers: Vec<String>,
}

static DEBTS: Mutex<Debts> = Mutex::new(Debts { instances: Vec::new(), markers: Vec::new() });

fn debts() -> MutexGuard<'static, Debts> {
    DEBTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT and SIGTERM kill what the bench has started, then the bench.
pub fn clean_up_on_signals() -> Result<(), Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(entered);
    // Ends with the process, as it must: there is nothing to join it for.
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let debts = debts();
        debts.instances.iter().for_each(Instance::kill);
        // Twice: the first of them may have been starting another one.
        for _ in 0..2 {
            debts.markers.iter().flat_map(|marker| find(marker)).for_each(|found| found.kill());
            std::thread::sleep(Duration::from_millis(50));
        }
        std::process::exit(130);
    });
    Ok(())
}

/// Lets orphans of those whom we start come to us, and `reap` bury them: the first process of a container may be slow to.
pub fn adopt_orphans() -> Result<(), Problem> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Buries a process if it is ours and dead.
pub fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Whoever is not our child is not ours to bury: the error says just that.
        let _buried = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// A live process: the pid alone could be somebody else's by now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Instance {
    /// Its process id.
    pub pid: i32,
    /// Its start, in clock ticks since boot.
    pub started: u64,
}

impl Instance {
    /// Whether this very process still runs its program; a zombie does not.
    pub fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
            && std::fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|c| !c.is_empty())
    }

    fn kill(&self) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // Gone in between is as good.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

/// Finds the live processes with `marker` in their command line, this one excepted.
pub fn find(marker: &str) -> Vec<Instance> {
    find_lines(marker).into_iter().map(|(instance, _)| instance).collect()
}

/// Finds the live processes with `marker` in their command line, this one excepted, in the order in which they were seen.
pub fn find_lines(marker: &str) -> Vec<(Instance, String)> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut found = Vec::new();
    for pid in pids.filter(|pid| *pid != own) {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line);
        if line.contains(marker)
            && let Some(started) = started(pid)
        {
            found.push((Instance { pid, started }, line.into_owned()));
        }
    }
    found
}

/// The fields of /proc/PID/stat after the name, which may hold anything: field 3 has index 0.
pub fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_ascii_whitespace().map(str::to_owned).collect())
}

fn started(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Looks every `pause` until the condition is met; false at the deadline.
pub fn wait_until(within: Duration, pause: Duration, mut met: impl FnMut() -> bool) -> bool {
    let ends = Instant::now() + within;
    loop {
        if met() {
            return true;
        }
        if Instant::now() >= ends {
            return false;
        }
        std::thread::sleep(pause);
    }
}
