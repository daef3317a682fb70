//! How far did a probe get, and when? The phases of one probe, and the words for one that did not end in time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lidless_core::check::FailureKind;
use tokio::time::Instant;

use crate::check::verdict::Trouble;
use crate::check::wording::Short;

/// How long each phase of a probe took. A phase that did not take place, or did not end, is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HttpPhases {
    /// Name to addresses; `None` where there is no name.
    pub dns: Option<Duration>,
    /// Addresses to a connection, failed attempts included.
    pub connect: Option<Duration>,
    /// The TLS handshake; `None` for plain HTTP.
    pub tls: Option<Duration>,
    /// Connection (or handshake) to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// First byte to the last one that was wanted; `None` where the status alone decided.
    pub body: Option<Duration>,
}

/// What a probe waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Name,
    Connection,
    Handshake,
    Header,
    Body,
}

/// How far a probe got. Lives outside the probe's deadline, so that it can tell what the deadline cut.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(super) steps: Steps,
    pub(super) wire: Wire,
}

/// What a probe has behind it.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) started: Instant,
    /// The end of the last phase that ended, from the start.
    mark: Duration,
    stage: Stage,
    phases: HttpPhases,
    body_read: u64,
    body_length: Option<u64>,
}

/// What passed over the wire.
#[derive(Debug)]
pub(super) struct Wire {
    started: Instant,
    /// Whether anything of the request may have left.
    sent: AtomicBool,
    /// When the first byte of the answer came, in nanoseconds from the start, at least one; zero: not yet. Atomic only so that
    /// the probe's future is `Send`.
    after_nanos: AtomicU64,
}

impl Wire {
    /// Notes that bytes are about to leave.
    pub(super) fn note_sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Notes that bytes came.
    pub(super) fn note_received(&self) {
        if self.after_nanos.load(Ordering::Relaxed) == 0 {
            let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
            self.after_nanos.store(nanos, Ordering::Relaxed);
        }
    }

    fn first_byte(&self) -> Option<Duration> {
        match self.after_nanos.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

impl Progress {
    pub(crate) fn start() -> Self {
        let started = Instant::now();
        let steps = Steps {
            started,
            mark: Duration::ZERO,
            stage: Stage::Name,
            phases: HttpPhases::default(),
            body_read: 0,
            body_length: None,
        };
        let wire = Wire { started, sent: AtomicBool::new(false), after_nanos: AtomicU64::new(0) };
        Progress { steps, wire }
    }

    /// Says whether anything of the request may have left this host.
    pub(crate) fn is_sent(&self) -> bool {
        self.wire.sent.load(Ordering::Relaxed)
    }

    /// Returns how long each phase took, as far as they got.
    pub(super) fn phases(&self) -> HttpPhases {
        let HttpPhases { dns, connect, tls, body, .. } = self.steps.phases;
        let first_byte = self.wire.first_byte().map(|after| after.saturating_sub(self.steps.mark));
        // Until here, `body` holds the time from the start: the tap alone knows when the body could begin.
        let body = body.map(|end| end.saturating_sub(self.wire.first_byte().unwrap_or(self.steps.mark)));
        HttpPhases { dns, connect, tls, first_byte, body }
    }

    /// Says what was still missing when the deadline came.
    pub(crate) fn overdue(&self, timeout: Duration) -> Trouble {
        let Steps { stage, phases, body_read, body_length, .. } = &self.steps;
        let (timeout, connect) = (Short(timeout), Short(phases.connect.unwrap_or_default()));
        let detail = match (stage, self.wire.first_byte(), body_length) {
            // The target was not asked yet: its name server's failure is not its own.
            (Stage::Name, _, _) => return Trouble::ours(format!("name not resolved within {timeout}")),
            (Stage::Connection, _, _) => format!("no connection within {timeout}"),
            (Stage::Handshake, _, _) => {
                format!("no answer within {timeout} (connected after {connect}, TLS handshake not complete)")
            }
            (Stage::Header, None, _) => {
                format!("no answer within {timeout} (connected after {connect}, no first byte)")
            }
            (Stage::Header, Some(after), _) => {
                format!("no answer within {timeout} (first byte after {}, header not complete)", Short(after))
            }
            (Stage::Body, _, Some(length)) => {
                format!("body not complete within {timeout}: {body_read} of {length} bytes")
            }
            (Stage::Body, _, None) => format!("body not complete within {timeout}: {body_read} bytes so far"),
        };
        Trouble::target(FailureKind::Timeout, detail)
    }
}

impl Steps {
    /// Notes that the addresses are known, and whether they had to be looked up.
    pub(super) fn resolved(&mut self, looked_up: bool) {
        if looked_up {
            self.phases.dns = Some(self.lap());
        }
        self.stage = Stage::Connection;
    }

    /// Notes that the connection stands.
    pub(super) fn connected(&mut self) {
        self.phases.connect = Some(self.lap());
        self.stage = Stage::Handshake;
    }

    /// Notes that the TLS handshake is complete.
    pub(super) fn secured(&mut self) {
        self.phases.tls = Some(self.lap());
    }

    /// Notes that the request is on its way.
    pub(super) fn asked(&mut self) {
        self.stage = Stage::Header;
    }

    /// Notes that the header is there, and how long it says that the body will be.
    pub(super) fn answered(&mut self, body_length: Option<u64>) {
        self.body_length = body_length;
        self.stage = Stage::Body;
    }

    /// Notes that more of the body came.
    pub(super) fn received(&mut self, bytes: usize) {
        self.body_read += bytes as u64;
    }

    /// Notes that as much of the body is there as was wanted.
    pub(super) fn complete(&mut self) {
        self.phases.body = Some(self.started.elapsed());
    }

    fn lap(&mut self) -> Duration {
        let now = self.started.elapsed();
        now.saturating_sub(std::mem::replace(&mut self.mark, now))
    }
}
