//! How does lidless end? One code per meaning: a contract with scripts, written down in `docs/exit-codes.md`.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use lidless_store::{JournalError, VerifyError};

use crate::api::client::ClientError;
use crate::config::Problems;

/// What the process answers with. A code never changes its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// 0: done; everything asked about is healthy.
    Ok,
    /// 1: the thing asked about is not healthy, or what was asked for was tried and failed.
    Unhealthy,
    /// 2: an unknown verb, flag or name.
    Usage,
    /// 3: the configuration is invalid.
    Config,
    /// 4: the daemon cannot be reached, or the store is in use.
    Unreachable,
    /// 5: permission denied.
    Permission,
    /// 6: refused by a guard; nothing was done.
    Refused,
    /// 7: nobody knows whether it took effect; look before you do it again.
    Unknown,
    /// 75: not now, but soon.
    TryAgain,
    /// 128+N: ended by signal N.
    Signal(i32),
}

impl Exit {
    /// Returns the number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Unhealthy => 1,
            Exit::Usage => 2,
            Exit::Config => 3,
            Exit::Unreachable => 4,
            Exit::Permission => 5,
            Exit::Refused => 6,
            Exit::Unknown => 7,
            Exit::TryAgain => 75,
            Exit::Signal(number) => u8::try_from(number).map_or(u8::MAX, |number| number.saturating_add(128)),
        }
    }

    /// Returns the code for a configuration that cannot be used.
    pub fn of_config(problems: &Problems) -> Exit {
        if problems.are_denied() { Exit::Permission } else { Exit::Config }
    }

    /// Returns the code for an error of the file system; `other` where it is not about permission.
    pub fn of_io(err: &io::Error, other: Exit) -> Exit {
        if err.kind() == io::ErrorKind::PermissionDenied { Exit::Permission } else { other }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a verb could not do as it was told: the code for scripts, the words for people, and what to type next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// One line, lower case, no full stop; may go on below with indented lines.
    pub message: String,
    /// What lies behind it, outermost first.
    pub causes: Vec<String>,
    /// What to do, best a command to type.
    pub hint: Option<String>,
}

impl Failure {
    /// Says that it failed, and with which code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Takes the words of an error, with everything behind it.
    pub fn of(exit: Exit, err: &dyn Error) -> Failure {
        let mut failure = Failure::new(exit, err.to_string());
        let mut source = err.source();
        while let Some(err) = source {
            failure.causes.push(err.to_string());
            source = err.source();
        }
        failure
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ClientError> for Failure {
    fn from(err: ClientError) -> Failure {
        let exit = match &err {
            ClientError::Unreachable { err, .. } => Exit::of_io(err, Exit::Unreachable),
            ClientError::Broken { .. } => Exit::Unreachable,
            // The routes' word for a daemon that drains.
            ClientError::Refused(said) if said == "lidless is ending" => Exit::TryAgain,
            ClientError::Refused(_) => Exit::Unhealthy,
        };
        let hint = match exit {
            Exit::Permission => "the socket belongs to another user: run this as that user, or as root",
            Exit::TryAgain => "wait for the next lidless: `lidless status`",
            _ => "does it run? `lidless serve` starts it, `lidless status` shows it",
        };
        Failure::of(exit, &err).hint(hint)
    }
}

impl From<JournalError> for Failure {
    fn from(err: JournalError) -> Failure {
        let exit = match &err {
            JournalError::Permission { .. } | JournalError::ReadOnly { .. } => Exit::Permission,
            JournalError::Corrupt { .. } | JournalError::Truncated { .. } => Exit::Unhealthy,
            JournalError::Locked { .. }
            | JournalError::Full { .. }
            | JournalError::Io { .. }
            | JournalError::SchemaTooNew { .. }
            | JournalError::OutOfSequence { .. }
            | JournalError::Conflict { .. }
            | JournalError::AckLost { .. }
            | JournalError::NotFound { .. }
            | JournalError::NotAJournal { .. }
            | JournalError::Encode { .. } => Exit::Unreachable,
        };
        let failure = Failure::of(exit, &err);
        match err.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(err: VerifyError) -> Failure {
        let VerifyError::Read { source, .. } = err;
        Failure::from(source)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_code_is_as_documented() {
        let documented = include_str!("../../../../docs/exit-codes.md");
        let exits = [
            (Exit::Ok, 0),
            (Exit::Unhealthy, 1),
            (Exit::Usage, 2),
            (Exit::Config, 3),
            (Exit::Unreachable, 4),
            (Exit::Permission, 5),
            (Exit::Refused, 6),
            (Exit::TryAgain, 75),
        ];
        for (exit, code) in exits {
            assert_eq!(exit.code(), code);
            assert!(documented.contains(&format!("| {code} | ")), "{code} is not in docs/exit-codes.md");
        }
        assert_eq!(Exit::Signal(2).code(), 130);
        assert_eq!(Exit::Signal(15).code(), 143);
        assert_eq!(Exit::Signal(4711).code(), 255);
    }

    #[test]
    fn an_unreachable_daemon_and_a_forbidden_one_are_told_apart() {
        let unreachable = |kind| {
            let err = io::Error::from(kind);
            Failure::from(ClientError::Unreachable { path: PathBuf::from("s"), err }).exit
        };
        assert_eq!(unreachable(io::ErrorKind::NotFound), Exit::Unreachable);
        assert_eq!(unreachable(io::ErrorKind::ConnectionRefused), Exit::Unreachable);
        assert_eq!(unreachable(io::ErrorKind::PermissionDenied), Exit::Permission);
    }

    #[test]
    fn a_draining_daemon_is_worth_another_try() {
        let failure = Failure::from(ClientError::Refused("lidless is ending".to_owned()));
        assert_eq!(failure.exit, Exit::TryAgain);
        assert_eq!(Failure::from(ClientError::Refused("no".to_owned())).exit, Exit::Unhealthy);
    }

    #[test]
    fn a_journal_in_use_and_a_broken_one_are_told_apart() {
        let path = || PathBuf::from("j");
        let locked = JournalError::Locked { path: path(), holder: lidless_store::Holder::default() };
        let corrupt = JournalError::Corrupt { path: path(), seq: None, why: "x".to_owned() };
        let permission = JournalError::Permission { path: path() };
        let exits = [locked, corrupt, permission].map(|err| Failure::from(err).exit);
        assert_eq!(exits, [Exit::Unreachable, Exit::Unhealthy, Exit::Permission]);
    }

    #[test]
    fn a_failure_keeps_every_cause() {
        let err = ClientError::Unreachable { path: PathBuf::from("s"), err: io::Error::other("why") };
        let failure = Failure::from(err);
        assert_eq!(failure.message, "cannot reach lidless at s");
        assert_eq!(failure.causes, ["why"]);
        assert!(failure.hint.is_some());
    }
}
