//! What is this signal called, and how did this process end?

use std::fmt;

use rustix::process::{Signal, WaitIdStatus};

/// Signals by name, without the `SIG`.
const NAMES: [(&str, Signal); 19] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("XCPU", Signal::XCPU),
    ("WINCH", Signal::WINCH),
    ("SYS", Signal::SYS),
];

/// Returns the signal that a configuration names: "TERM" or "SIGTERM".
pub fn parse_signal(name: &str) -> Option<Signal> {
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    NAMES.iter().find(|(known, _)| *known == bare).map(|(_, signal)| *signal)
}

/// Returns the names that [`parse_signal`] knows, for "did you mean".
pub fn signal_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// Returns "SIGTERM", or "signal 34" where there is no name.
pub fn signal_name(number: i32) -> String {
    match NAMES.iter().find(|(_, signal)| signal.as_raw() == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It ended itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was not our child (adopted), so that nobody told us.
    Unknown,
}

impl Exit {
    /// The exit code, where it had one.
    pub fn code(self) -> Option<i32> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) | Exit::Unknown => None,
        }
    }

    /// Reads what the kernel says of a child that ended.
    pub(crate) fn of(status: &WaitIdStatus) -> Exit {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "ended: exit code {code}"),
            Exit::Signal(signal) => write!(f, "was killed by {}", signal_name(*signal)),
            Exit::Unknown => write!(f, "ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_with_or_without_their_prefix() {
        assert_eq!(parse_signal("TERM"), Some(Signal::TERM));
        assert_eq!(parse_signal("SIGUSR1"), Some(Signal::USR1));
        assert_eq!(parse_signal("TREM"), None);
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(34), "signal 34");
    }
}
