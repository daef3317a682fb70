//! Which process is it? A pid together with its start time and the boot; a pid alone may be anybody's tomorrow.
//!
//! Residual risk, accepted: a process group whose leader is gone is told by its number alone. A foreign group could have
//! that number only if all pids had wrapped round and that group had lost its own leader as well.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lidless_core::time::micros;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The variable by which an instance carries the path of its slot.
pub(crate) const SLOT_VARIABLE: &str = "LIDLESS_SLOT";
/// The variable by which the main process is told from its children, which inherit the other one.
pub(crate) const PID_VARIABLE: &str = "LIDLESS_PID";

/// One life of a service's main process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// The boot that it lived in.
    pub boot_id: String,
    /// Its pid; also the number of its session and process group.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: start time in clock ticks since the boot. `exec` keeps it.
    pub start_ticks: u64,
    /// When it was launched, by CLOCK_BOOTTIME.
    #[serde(rename = "started_us", with = "micros")]
    pub started: Duration,
    /// The slot that its environment names, where it is recorded in another one now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<PathBuf>,
}

impl Instance {
    /// Describes the calling process.
    pub(crate) fn of_self(boot_id: &str) -> io::Result<Instance> {
        Instance::of_child(i32::try_from(std::process::id()).map_err(io::Error::other)?, boot_id)
    }

    /// Describes a process whose pid is surely its own: a child that nobody has reaped.
    pub(crate) fn of_child(pid: i32, boot_id: &str) -> io::Result<Instance> {
        let stat = stat(pid)?.ok_or_else(|| io::Error::other(format!("process {pid} is not in /proc")))?;
        Ok(Instance {
            boot_id: boot_id.to_owned(),
            pid,
            start_ticks: stat.start_ticks,
            started: boottime(),
            slot: None,
        })
    }

    /// Whether this very process still lives. A zombie does not.
    ///
    /// An error (no more file descriptors, say) means that nobody knows; it must not be taken for "dead".
    pub fn is_alive(&self, boot_id: &str) -> io::Result<bool> {
        Ok(self.open(boot_id)?.is_some())
    }

    /// Opens a handle to this very process; `None` when it is gone.
    pub(crate) fn open(&self, boot_id: &str) -> io::Result<Option<OwnedFd>> {
        if self.boot_id != boot_id {
            return Ok(None);
        }
        open_verified(self.pid, self.start_ticks)
    }
}

/// A process that belongs to an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
}

impl Member {
    /// Opens a handle to this very process; `None` when it is gone.
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        open_verified(self.pid, self.start_ticks)
    }
}

/// The order matters: a handle is opened first, and then the start time read. If it is right now, the pid cannot have
/// been anybody else's a moment before.
fn open_verified(pid: i32, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    let Some(number) = Pid::from_raw(pid) else { return Ok(None) };
    let handle = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        // A thread that is no process: the number is somebody else's now.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(None),
        Err(err) => return Err(err.into()),
    };
    let stat = stat(pid)?;
    Ok(is_same(pid, start_ticks, stat, || has_ended(&handle))?.then_some(handle))
}

/// Whether the process behind an open handle lives, and is the one that was started then.
///
/// The handle knows whether it lives; /proc only says who it is, and may hide it (`hidepid`): that is no death.
fn is_same(
    pid: i32,
    start_ticks: u64,
    stat: Option<Stat>,
    has_ended: impl FnOnce() -> bool,
) -> io::Result<bool> {
    match stat {
        Some(stat) if stat.start_ticks != start_ticks => Ok(false),
        Some(_) => Ok(!has_ended()),
        None if has_ended() => Ok(false),
        None => Err(io::Error::other(format!("process {pid} lives, and /proc does not show it"))),
    }
}

/// Whether the process behind a handle has ended.
pub(crate) fn has_ended(handle: impl AsFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(ready) if ready > 0)
}

/// What `/proc/PID/stat` says, as far as we need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) threads: u32,
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// A main thread that ended before the others looks like a zombie, and its process goes on.
    fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }
}

/// Reads `/proc/PID/stat`; `None` when there is no such process.
pub(crate) fn stat(pid: i32) -> io::Result<Option<Stat>> {
    // 52 numbers and a name of at most 64 bytes.
    let mut text = [0_u8; 2048];
    let read = fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut text));
    match read {
        Ok(length) => parse_stat(&text[..length]).map(Some),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) if err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(err) => Err(err),
    }
}

/// As [`stat`]; `None` also for a process that has ended and was not reaped yet.
pub(crate) fn living(pid: i32) -> io::Result<Option<Stat>> {
    Ok(stat(pid)?.filter(Stat::lives))
}

/// The name may hold spaces, brackets and anything else: fields are counted from the last closing bracket.
fn parse_stat(text: &[u8]) -> io::Result<Stat> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has an unknown form");
    let end = text.iter().rposition(|byte| *byte == b')').ok_or_else(odd)?;
    let rest = std::str::from_utf8(&text[end + 1..]).map_err(|_| odd())?;
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3).ok_or_else(odd);
    Ok(Stat {
        state: *field(3)?.as_bytes().first().ok_or_else(odd)?,
        parent: field(4)?.parse().map_err(|_| odd())?,
        group: field(5)?.parse().map_err(|_| odd())?,
        session: field(6)?.parse().map_err(|_| odd())?,
        threads: field(20)?.parse().map_err(|_| odd())?,
        start_ticks: field(22)?.parse().map_err(|_| odd())?,
    })
}

pub(crate) fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Looks for a living instance whose record was lost: its environment names the slot, and its own pid.
///
/// A second proof, for a state directory that was deleted or damaged under a running service. Processes that overwrite
/// their environment (some set their title so) are not found.
pub(crate) fn find_unrecorded(slot: &Path, boot_id: &str) -> io::Result<Option<Instance>> {
    let Some(slot) = slot.to_str() else { return Ok(None) };
    let slot = format!("{SLOT_VARIABLE}={slot}");
    for pid in pids()? {
        // Other users' environments cannot be read; they are not ours either.
        let Some(environment) = environment(pid) else { continue };
        let own_pid = format!("{PID_VARIABLE}={pid}");
        let has = |wanted: &str| environment.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes());
        if !has(&slot) || !has(&own_pid) {
            continue;
        }
        let Some(stat) = stat(pid)? else { continue };
        if stat.lives() && stat.group == pid {
            let boot_id = boot_id.to_owned();
            let tick_ms = 1000 / rustix::param::clock_ticks_per_second().max(1);
            let started = Duration::from_millis(stat.start_ticks.saturating_mul(tick_ms));
            return Ok(Some(Instance { boot_id, pid, start_ticks: stat.start_ticks, started, slot: None }));
        }
    }
    Ok(None)
}

/// Reads the environment of a process; `None` where we may not. A main thread that ended has none; its others still show it.
fn environment(pid: i32) -> Option<Vec<u8>> {
    let ended = match fs::read(format!("/proc/{pid}/environ")) {
        Ok(environment) if !environment.is_empty() => return Some(environment),
        Ok(_) => true,
        Err(err) => err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()),
    };
    let threads = ended.then(|| fs::read_dir(format!("/proc/{pid}/task")).ok())??.flatten();
    threads.filter_map(|thread| fs::read(thread.path().join("environ")).ok()).find(|text| !text.is_empty())
}

/// Identifies this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Returns CLOCK_BOOTTIME: it also counts while the machine sleeps, and is one clock for all processes.
pub(crate) fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) b (c)) S 1 42 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 7777 1000 10 0\n";
        let stat = parse_stat(line).expect("well-formed");
        assert_eq!(
            (stat.state, stat.parent, stat.group, stat.session, stat.start_ticks),
            (b'S', 1, 42, 40, 7777)
        );
    }

    #[test]
    fn a_cut_line_is_an_error_and_not_a_dead_process() {
        assert!(parse_stat(b"42 (a) S 1 42").is_err());
        assert!(parse_stat(b"").is_err());
    }

    #[test]
    fn a_zombie_with_other_threads_lives() {
        let line = |state: &str, threads: u32| {
            let line =
                format!("42 (a) {state} 1 42 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 {threads} 0 7777 0 0 0\n");
            parse_stat(line.as_bytes()).expect("well-formed")
        };
        assert!(line("S", 1).lives());
        assert!(line("Z", 2).lives());
        assert!(!line("Z", 1).lives());
        assert!(!line("X", 0).lives());
    }

    #[test]
    fn a_process_that_proc_hides_is_not_dead() {
        let (alive, ended) = (|| false, || true);
        let stat = Stat { state: b'Z', parent: 1, group: 42, session: 42, threads: 2, start_ticks: 7 };
        assert!(is_same(42, 7, Some(stat), alive).expect("known"));
        assert!(!is_same(42, 8, Some(stat), alive).expect("known"));
        assert!(!is_same(42, 7, Some(stat), ended).expect("known"));
        assert!(!is_same(42, 7, None, ended).expect("known"));
        let err = is_same(42, 7, None, alive).expect_err("nobody knows");
        assert_eq!(err.to_string(), "process 42 lives, and /proc does not show it");
    }

    #[test]
    fn a_pid_with_another_start_time_is_another_process() {
        let boot = boot_id().expect("boot id");
        let me = Instance::of_self(&boot).expect("self");
        assert!(me.is_alive(&boot).expect("stat"));
        let other = Instance { start_ticks: me.start_ticks + 1, ..me.clone() };
        assert!(!other.is_alive(&boot).expect("stat"));
        assert!(other.open(&boot).expect("open").is_none());
        assert!(!me.is_alive("another boot").expect("stat"));
    }
}
