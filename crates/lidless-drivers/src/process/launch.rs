//! How does a process become the service? The launcher: a second role of our own binary.
//!
//! lidless starts itself as `lidless __launch SLOT`, with a `LaunchRequest` on stdin. The launcher takes the slot's lock,
//! makes sure that no instance lives, records *itself* as the instance, and then becomes the service by `exec`, which keeps
//! pid and start time. Nothing of lidless needs to be alive for that; and whoever comes second finds the first one's record.
//!
//! It reports on its first stdout, a pipe: nothing but the end of the file means that `exec` succeeded, for the pipe's
//! other end closes on `exec`. Anything else is one `Report`. No runtime, no threads: it is done in about a millisecond.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use lidless_core::time::micros;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Pid, geteuid, setsid, test_kill_process_group};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use serde::{Deserialize, Serialize};

use super::family::Kinship;
use super::instance::{Instance, PID_VARIABLE, SLOT_VARIABLE, boot_id, boottime};
use super::log;
use super::orphan::fingerprint_of;
use super::slot::{Record, Slot, SlotLock};
use super::user::{self, Account};

/// The hidden subcommand: `lidless __launch SLOT`.
pub const LAUNCH_COMMAND: &str = "__launch";

/// Variables that the service manager meant for lidless, and not for what lidless runs.
const NOT_INHERITED: [&str; 10] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MANAGERPID",
    "CREDENTIALS_DIRECTORY",
];

/// What the launcher is asked to become. Comes through a pipe: it may hold secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaunchRequest {
    /// The generation that the record must still have.
    pub(crate) after_generation: u64,
    /// CLOCK_BOOTTIME after which it is too late to start.
    #[serde(rename = "not_after_us", with = "micros")]
    pub(crate) not_after: Duration,
    pub(crate) command: Vec<String>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) user: Option<String>,
    pub(crate) output: PathBuf,
}

/// Why the launcher did not become the service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum Report {
    /// An instance lives.
    AlreadyRunning { pid: i32 },
    /// Another launch or a stop came in between.
    Superseded,
    /// Something that the last instance started still lives.
    FamilyLives { pids: Vec<i32> },
    /// The deadline has passed.
    Late,
    /// Something is wrong with the machine or the slot: trying again may help.
    Broken { reason: String },
    /// Something is wrong with what was asked for: no such command, directory, user.
    Refused { reason: String },
}

impl Report {
    fn exit_code(&self) -> u8 {
        // As in sysexits.h: temporary failure, configuration error, operating system error.
        match self {
            Report::AlreadyRunning { .. }
            | Report::Superseded
            | Report::FamilyLives { .. }
            | Report::Late => 75,
            Report::Refused { .. } => 78,
            Report::Broken { .. } => 71,
        }
    }
}

/// Is the whole program when it was started as `lidless __launch SLOT`; `args` are those after `__launch`.
///
/// To be called first of all in `main`, before any thread exists.
pub fn launch_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let slot = args.into_iter().next().map(PathBuf::from);
    // Kept apart from descriptor 1, which becomes the log before `exec` has succeeded.
    let Ok(result) = fcntl_dupfd_cloexec(io::stdout(), 3) else { return ExitCode::from(71) };
    let report = match slot {
        Some(slot) => become_service(&slot),
        None => Report::Refused { reason: format!("{LAUNCH_COMMAND} needs a slot directory") },
    };
    if let Ok(text) = serde_json::to_vec(&report) {
        // Nobody may be listening any more; then nobody misses it.
        let _ = File::from(result).write_all(&text);
    }
    ExitCode::from(report.exit_code())
}

/// Returns only if it did not work out.
fn become_service(slot: &Path) -> Report {
    match try_become_service(slot) {
        Ok(never) => match never {},
        Err(report) => report,
    }
}

fn try_become_service(slot: &Path) -> Result<std::convert::Infallible, Report> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text).map_err(broken("cannot read the request"))?;
    // Half a request: lidless died while it wrote.
    let request: LaunchRequest = serde_json::from_slice(&text)
        .map_err(|err| Report::Broken { reason: format!("not a request: {err}") })?;
    if !slot.is_dir() {
        // Removed since: whoever sent us wants this service no more.
        return Err(Report::Broken { reason: format!("the slot `{}` is gone", slot.display()) });
    }
    let slot = Slot::open(slot).map_err(|err| Report::Broken { reason: chain(&err) })?;
    let boot_id = boot_id().map_err(broken("cannot tell one boot from another"))?;

    let lock = wait_for_lock(&slot, request.not_after)?;
    let record = slot.read_or_find(&boot_id).map_err(|err| Report::Broken { reason: chain(&err) })?;
    refuse_second_instance(&record, &slot, &boot_id)?;
    if record.generation != request.after_generation {
        return Err(Report::Superseded);
    }

    // Whatever can go wrong goes wrong before the record is written.
    // A session of its own: no terminal, no signals of ours, and its group can be signalled as one.
    setsid().map_err(|err| broken("cannot make a session")(err.into()))?;
    let account = request.user.as_deref().map(account_of).transpose()?.flatten();
    let output = log::open(&request.output, account.as_ref()).map_err(|err| Report::Refused {
        reason: format!("cannot write to `{}`: {err}", request.output.display()),
    })?;
    if let Some(dir) = &request.dir {
        std::env::set_current_dir(dir).map_err(|err| Report::Refused {
            reason: format!("cannot enter directory `{}`: {err}", dir.display()),
        })?;
    }
    let instance = Instance::of_self(&boot_id).map_err(broken("cannot read /proc"))?;
    let mut command = command_of(&request, &slot, &instance, account.as_ref(), output)?;
    if boottime() > request.not_after {
        return Err(Report::Late);
    }
    let record = Record {
        generation: record.generation + 1,
        instance: Some(instance),
        fingerprint: Some(fingerprint_of(&request.command, request.dir.as_deref())),
    };
    slot.write(&lock, &record).map_err(|err| Report::Broken { reason: chain(&err) })?;
    if let Some(account) = &account {
        become_account(account)?;
    }
    // The lock is released by `exec` itself. If `exec` fails, the record names a process that is about to end.
    let err = command.exec();
    Err(Report::Refused { reason: why_not_executed(&request.command, &err) })
}

fn wait_for_lock(slot: &Slot, not_after: Duration) -> Result<SlotLock, Report> {
    loop {
        match slot.try_lock() {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) if boottime() > not_after => return Err(Report::Late),
            Ok(None) => thread::sleep(Duration::from_micros(500)),
            Err(err) => return Err(Report::Broken { reason: chain(&err) }),
        }
    }
}

/// **Invariant:** no instance is recorded while another one, or anything of its family, lives.
fn refuse_second_instance(record: &Record, slot: &Slot, boot_id: &str) -> Result<(), Report> {
    let Some(old) = &record.instance else { return Ok(()) };
    if old.is_alive(boot_id).map_err(broken("cannot tell whether the last instance lives"))? {
        return Err(Report::AlreadyRunning { pid: old.pid });
    }
    // One system call in place of a walk through /proc. What left the group was looked for by the lidless that sent us, and
    // who is of the last generation has been gone since: its record would be another one.
    let group = Pid::from_raw(old.pid).filter(|_| old.boot_id == boot_id);
    if !group.is_some_and(|group| test_kill_process_group(group) != Err(rustix::io::Errno::SRCH)) {
        return Ok(());
    }
    let kin = Kinship::new(old, slot.dir(), Vec::new());
    let family = kin.living(boot_id).map_err(broken("cannot look at the processes"))?;
    if family.is_empty() {
        return Ok(());
    }
    Err(Report::FamilyLives { pids: family.iter().map(|member| member.pid).collect() })
}

/// Returns `None` where we are that user already.
fn account_of(user: &str) -> Result<Option<Account>, Report> {
    let account =
        user::find(user).ok_or_else(|| Report::Refused { reason: format!("there is no user `{user}`") })?;
    if geteuid().is_root() {
        return Ok((!account.uid.is_root()).then_some(account));
    }
    if account.uid == geteuid() {
        return Ok(None);
    }
    Err(Report::Refused { reason: format!("only root can run a process as user `{user}`") })
}

fn become_account(account: &Account) -> Result<(), Report> {
    let drop = || -> rustix::io::Result<()> {
        // This order: after the last one we may not do the others.
        set_thread_groups(&account.groups)?;
        set_thread_gid(account.gid)?;
        set_thread_uid(account.uid)
    };
    drop().map_err(|err| broken(&format!("cannot become user `{}`", account.name))(err.into()))
}

fn command_of(
    request: &LaunchRequest,
    slot: &Slot,
    instance: &Instance,
    account: Option<&Account>,
    output: File,
) -> Result<Command, Report> {
    let Some((program, arguments)) = request.command.split_first() else {
        return Err(Report::Refused { reason: "the command is empty".to_owned() });
    };
    let mut command = Command::new(program);
    command.args(arguments);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    if let Some(account) = account {
        command.env("USER", &account.name).env("LOGNAME", &account.name);
        command.env("HOME", account.home.as_deref().unwrap_or("/"));
        command.env("SHELL", account.shell.as_deref().unwrap_or("/bin/sh"));
    }
    command.envs(request.env.iter().map(|(name, value)| (name, value)));
    command.env(SLOT_VARIABLE, slot.dir()).env(PID_VARIABLE, instance.pid.to_string());
    let errors = output.try_clone().map_err(broken("cannot copy a descriptor"))?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    Ok(command)
}

fn why_not_executed(command: &[String], err: &io::Error) -> String {
    let program = command.first().map(String::as_str).unwrap_or_default();
    match err.kind() {
        // The kernel says so, too, of a script whose interpreter is missing.
        io::ErrorKind::NotFound => format!("command `{program}` was not found"),
        io::ErrorKind::PermissionDenied => format!("command `{program}` may not be executed: {err}"),
        _ => format!("cannot execute `{program}`: {err}"),
    }
}

fn broken(what: &str) -> impl FnOnce(io::Error) -> Report {
    move |err| Report::Broken { reason: format!("{what}: {err}") }
}

/// Writes an error with its causes in one line.
pub(crate) fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
