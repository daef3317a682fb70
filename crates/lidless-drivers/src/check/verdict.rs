//! Whose fault is it? Sorts what went wrong in a probe into the target's trouble and our own.

use std::io;
use std::time::Duration;

use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};
use rustix::io::Errno;

use super::wording::Short;

/// What went wrong in a probe.
///
/// **Invariant:** what the target did is `Target`; what we, our kernel or our resolver could not do is `Ours`, and never
/// counts against the target.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The target failed the probe.
    Target {
        /// Its kind.
        kind: FailureKind,
        /// One line for people.
        detail: String,
    },
    /// The question could not be asked.
    Ours {
        /// One line for people.
        reason: String,
    },
}

impl Trouble {
    /// Blames the target.
    pub(crate) fn target(kind: FailureKind, detail: impl Into<String>) -> Self {
        Trouble::Target { kind, detail: detail.into() }
    }

    /// Blames us.
    pub(crate) fn ours(reason: impl Into<String>) -> Self {
        Trouble::Ours { reason: reason.into() }
    }

    /// How much it tells of the target beside what another of its addresses said: a refusal says most.
    pub(crate) fn tells(&self) -> u8 {
        match self {
            Trouble::Target { kind: FailureKind::Refused, .. } => 3,
            Trouble::Target { kind: FailureKind::Timeout, .. } => 2,
            Trouble::Target {
                kind:
                    FailureKind::Network
                    | FailureKind::Tls
                    | FailureKind::Protocol
                    | FailureKind::Status
                    | FailureKind::Content
                    | FailureKind::Command
                    | FailureKind::NotRunning
                    | FailureKind::Unit,
                ..
            } => 1,
            // What this host could not do (no IPv6, say) tells nothing.
            Trouble::Ours { .. } => 0,
        }
    }

    /// Sorts an error of the socket.
    pub(crate) fn from_io(err: &io::Error) -> Self {
        if is_ours(err) {
            return Trouble::ours(format!("cannot ask from this host: {err}"));
        }
        let (kind, detail) = match err.kind() {
            io::ErrorKind::ConnectionRefused => (FailureKind::Refused, "connection refused"),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                (FailureKind::Network, "connection reset")
            }
            io::ErrorKind::UnexpectedEof => (FailureKind::Network, "connection closed early"),
            io::ErrorKind::HostUnreachable => (FailureKind::Network, "host unreachable"),
            io::ErrorKind::TimedOut => (FailureKind::Timeout, "the network gave up waiting for an answer"),
            _ => return Trouble::target(FailureKind::Network, err.to_string()),
        };
        Trouble::target(kind, detail)
    }
}

/// Says whether an error speaks of this host's limits rather than of the target.
fn is_ours(err: &io::Error) -> bool {
    let Some(errno) = Errno::from_io_error(err) else { return false };
    // EPERM and EACCES at a connect come from a firewall or a security module of this host; EADDRNOTAVAIL says that the
    // local ports are used up, or that this host has no such address family; ENETUNREACH and ENETDOWN that it has no route
    // or lost its link, and a service that others reach must not be restarted for that. A host that does not answer on a
    // network that is there (EHOSTUNREACH) is the target's trouble.
    [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::AGAIN,
        Errno::ADDRNOTAVAIL,
        Errno::AFNOSUPPORT,
        Errno::NETUNREACH,
        Errno::NETDOWN,
        Errno::PERM,
        Errno::ACCESS,
    ]
    .contains(&errno)
}

/// Turns what a probe found into its outcome.
pub(crate) fn conclude(found: Result<(), Trouble>, took: Duration, timeout: Duration) -> CheckOutcome {
    match found {
        Ok(()) => CheckOutcome::Pass { latency: took },
        Err(Trouble::Ours { reason }) => CheckOutcome::Inconclusive { reason },
        Err(Trouble::Target { kind: FailureKind::Timeout, .. }) if was_late(took, timeout) => {
            CheckOutcome::Inconclusive {
                reason: format!(
                    "this host was too busy to ask: a wait of {} took {}",
                    Short(timeout),
                    Short(took)
                ),
            }
        }
        Err(Trouble::Target { kind, detail }) => {
            let mut failure = CheckFailure::new(kind, detail);
            failure.latency = took;
            CheckOutcome::Fail { latency: took, failure }
        }
    }
}

/// Says whether a deadline passed so long before we noticed that we were starved ourselves.
///
/// A starved watcher that blames its targets kills healthy services, which starves the host further.
pub(crate) fn was_late(took: Duration, timeout: Duration) -> bool {
    took.saturating_sub(timeout) > (timeout / 2).max(Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(errno: Errno) -> Option<FailureKind> {
        match Trouble::from_io(&io::Error::from(errno)) {
            Trouble::Target { kind, .. } => Some(kind),
            Trouble::Ours { .. } => None,
        }
    }

    #[test]
    fn limits_of_this_host_are_never_blamed_on_the_target() {
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::NOBUFS,
            Errno::ADDRNOTAVAIL,
            Errno::PERM,
            Errno::NETUNREACH,
            Errno::NETDOWN,
        ] {
            assert_eq!(kind_of(errno), None, "{errno}");
        }
        assert_eq!(kind_of(Errno::CONNREFUSED), Some(FailureKind::Refused));
        assert_eq!(kind_of(Errno::CONNRESET), Some(FailureKind::Network));
        assert_eq!(kind_of(Errno::HOSTUNREACH), Some(FailureKind::Network));
        assert_eq!(kind_of(Errno::TIMEDOUT), Some(FailureKind::Timeout));
    }

    #[test]
    fn a_refusal_tells_more_than_silence_and_that_more_than_a_lost_way() {
        let told = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::TIMEDOUT, Errno::CONNREFUSED]
            .map(|errno| Trouble::from_io(&io::Error::from(errno)).tells());
        assert!(told.is_sorted_by(|less, more| less < more), "{told:?}");
    }

    #[test]
    fn a_deadline_noticed_far_too_late_is_our_own_trouble() {
        let overdue = || Err(Trouble::target(FailureKind::Timeout, "no answer"));
        let second = Duration::from_secs(1);
        assert!(matches!(conclude(overdue(), second, second), CheckOutcome::Fail { .. }));
        assert!(matches!(conclude(overdue(), second * 2, second), CheckOutcome::Inconclusive { .. }));
    }
}
