//! How is systemd reached? One connection to the system bus, shared by all drivers, and made anew after it broke.
//!
//! D-Bus or systemd may be dead, or hang, in the very hour in which a heal is due. So each call has a deadline, and after
//! an error or a silence the connection is given up rather than trusted again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};
use zbus::message::Message;
use zbus::{Connection, DBusError, MatchRule, MessageStream};

pub(crate) const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// The longest that one attempt at connecting may take, however patient the caller is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after a failed attempt at connecting, doubling up to the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The way to systemd.
#[derive(Debug)]
pub struct Bus {
    /// `None` is the system bus, wherever the environment says that it is.
    address: Option<String>,
    /// Held while connecting: all others wait for that one attempt, each until its own deadline.
    link: Mutex<Link>,
}

#[derive(Debug, Default)]
struct Link {
    line: Option<Line>,
    backoff: Option<Backoff>,
}

#[derive(Debug)]
struct Backoff {
    failures: u32,
    until: Instant,
    reason: String,
}

/// A connection as it was when it was handed out.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    connection: Connection,
    /// Set by whoever finds out first; the next caller connects anew.
    broken: Arc<AtomicBool>,
}

/// One method of one object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    path: &'a str,
    interface: &'a str,
    method: &'a str,
}

/// Why systemd could not be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no connection: nothing was sent.
    #[error("no connection to systemd over D-Bus: {reason}")]
    Unreachable {
        /// Why not.
        reason: String,
    },
    /// The call was sent, and then nothing came.
    #[error("no answer from systemd over D-Bus within {} ms", waited.as_millis())]
    Silent {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The call may have been sent; then the connection ended.
    #[error("the connection to systemd over D-Bus broke")]
    Broken {
        /// How it showed.
        #[source]
        err: zbus::Error,
    },
    /// systemd, or the bus in its place, said no.
    #[error("{text}")]
    Refused {
        /// The name of the D-Bus error.
        name: String,
        /// What came with it.
        text: String,
    },
    /// The answer does not have the form that systemd documents.
    #[error("the answer to {method} cannot be read")]
    Garbled {
        /// The method that was called.
        method: String,
        /// What is wrong with it.
        #[source]
        err: zbus::Error,
    },
}

impl Bus {
    /// Returns the way to the systemd of this machine. Connects when first used.
    pub fn system() -> Bus {
        Bus { address: None, link: Mutex::default() }
    }

    /// Returns the way to the systemd behind a D-Bus address such as `unix:path=/run/dbus/system_bus_socket`.
    pub fn at(address: impl Into<String>) -> Bus {
        Bus { address: Some(address.into()), link: Mutex::default() }
    }

    /// Asks something that changes nothing, and once more if the connection turns out to have ended since its last use.
    pub(crate) async fn ask<B>(
        &self,
        call: Call<'_>,
        body: &B,
        deadline: Instant,
    ) -> Result<Message, BusError>
    where
        B: serde::Serialize + zbus::DynamicType + Sync,
    {
        match self.line(deadline).await?.call(call, body, deadline).await {
            Err(BusError::Broken { .. }) => self.line(deadline).await?.call(call, body, deadline).await,
            answer => answer,
        }
    }

    /// Returns the connection that is, or makes one.
    pub(crate) async fn line(&self, deadline: Instant) -> Result<Line, BusError> {
        let Ok(mut link) = timeout_at(deadline, self.link.lock()).await else {
            return Err(BusError::Unreachable {
                reason: "an attempt at connecting is still under way".into(),
            });
        };
        if let Some(line) = &link.line
            && line.is_whole()
        {
            return Ok(line.clone());
        }
        link.line = None;
        if let Some(backoff) = &link.backoff {
            if backoff.until >= deadline {
                return Err(BusError::Unreachable { reason: backoff.reason.clone() });
            }
            sleep_until(backoff.until).await;
        }
        let began = Instant::now();
        let connected = timeout_at(deadline.min(began + CONNECT_TIMEOUT), self.connect()).await;
        let reason = match connected {
            Ok(Ok(connection)) => {
                let line = Line { connection, broken: Arc::default() };
                *link = Link { line: Some(line.clone()), backoff: None };
                return Ok(line);
            }
            Ok(Err(err)) => err.to_string(),
            Err(_) => format!("no answer within {} ms", began.elapsed().as_millis()),
        };
        let failures = link.backoff.as_ref().map_or(0, |backoff| backoff.failures);
        let wait = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
        let until = Instant::now() + wait;
        link.backoff = Some(Backoff { failures: failures + 1, until, reason: reason.clone() });
        Err(BusError::Unreachable { reason })
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        let builder = match &self.address {
            Some(address) => zbus::connection::Builder::address(address.as_str()),
            None => zbus::connection::Builder::system(),
        };
        let connection = builder.build().await?;
        // Without it systemd sends no signals. It also proves that systemd answers and not only the bus.
        connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Subscribe", &()).await?;
        Ok(connection)
    }
}

impl Line {
    /// Calls a method, and gives the connection up if no answer comes.
    pub(crate) async fn call<B>(
        &self,
        call: Call<'_>,
        body: &B,
        deadline: Instant,
    ) -> Result<Message, BusError>
    where
        B: serde::Serialize + zbus::DynamicType + Sync,
    {
        let Call { path, interface, method } = call;
        let answer = self.connection.call_method(Some(SYSTEMD), path, Some(interface), method, body);
        self.watched(answer, deadline).await
    }

    /// Receives the signals that a rule describes, from now on.
    pub(crate) async fn signals(
        &self,
        rule: MatchRule<'_>,
        deadline: Instant,
    ) -> Result<MessageStream, BusError> {
        self.watched(MessageStream::for_match_rule(rule.to_owned(), &self.connection, None), deadline).await
    }

    fn is_whole(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.connection.is_closed()
    }

    async fn watched<T>(
        &self,
        answer: impl Future<Output = zbus::Result<T>>,
        deadline: Instant,
    ) -> Result<T, BusError> {
        let began = Instant::now();
        let told = match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(err)) => sorted(err),
            Err(_) => BusError::Silent { waited: began.elapsed() },
        };
        if !matches!(told, BusError::Refused { .. }) {
            self.broken.store(true, Ordering::Relaxed);
        }
        Err(told)
    }
}

impl<'a> Call<'a> {
    /// A method of systemd's manager.
    pub(crate) fn manager(method: &'a str) -> Self {
        Call { path: MANAGER_PATH, interface: MANAGER, method }
    }

    /// The method's name.
    pub(crate) fn method(&self) -> &'a str {
        self.method
    }

    /// The reading of a property of a unit.
    pub(crate) fn property_of(path: &'a str) -> Self {
        Call { path, interface: "org.freedesktop.DBus.Properties", method: "Get" }
    }
}

impl BusError {
    /// Returns the text with its cause, for people.
    pub(crate) fn reason(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// Tells an answer that says no from a connection that ended, and from a bus on which there is no systemd.
fn sorted(err: zbus::Error) -> BusError {
    let (name, text) = match &err {
        zbus::Error::MethodError(name, text, _) => (name.to_string(), text.clone().unwrap_or_default()),
        zbus::Error::FDO(err) => (err.name().to_string(), err.description().unwrap_or_default().to_owned()),
        _ => return BusError::Broken { err },
    };
    match name.strip_prefix("org.freedesktop.DBus.Error.") {
        // systemd went away with the call in its hands.
        Some("NoReply" | "Disconnected") => BusError::Broken { err },
        Some(absent)
            if absent == "ServiceUnknown" || absent == "NameHasNoOwner" || absent.starts_with("Spawn.") =>
        {
            BusError::Unreachable { reason: format!("systemd is not on this bus ({text})") }
        }
        _ if text.is_empty() => BusError::Refused { text: name.clone(), name },
        _ => BusError::Refused { name, text },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::net::UnixListener;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(300);

    /// Counts who connects to a bus that takes them all, and either keeps silent or hangs up.
    fn bad_bus(hangs_up: bool) -> (tempfile::TempDir, Arc<Bus>, Arc<AtomicUsize>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("bus");
        let listener = UnixListener::bind(&path).expect("a new socket");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                if !hangs_up {
                    kept.push(stream);
                }
            }
        });
        (dir, Arc::new(Bus::at(format!("unix:path={}", path.display()))), count)
    }

    async fn ask(bus: &Bus) -> String {
        let deadline = Instant::now() + DEADLINE;
        bus.ask(Call::manager("Version"), &(), deadline).await.expect_err("nobody answers").reason()
    }

    #[tokio::test]
    async fn a_silent_bus_keeps_nobody_longer_than_the_deadline() {
        let (_dir, bus, count) = bad_bus(false);
        let began = Instant::now();
        let asked = futures_util::future::join_all((0..50).map(|_| ask(&bus))).await;
        assert!(began.elapsed() < DEADLINE * 3, "{:?}", began.elapsed());
        assert!(
            asked.iter().all(|reason| reason.starts_with("no connection to systemd over D-Bus: ")),
            "{asked:?}"
        );
        assert_eq!(count.load(Ordering::Relaxed), 1, "one attempt at a time");
    }

    #[tokio::test]
    async fn a_bus_that_hangs_up_is_tried_again_at_growing_distances() {
        let (_dir, bus, count) = bad_bus(true);
        let began = Instant::now();
        let asking = |_| async {
            while began.elapsed() < DEADLINE {
                ask(&bus).await;
            }
        };
        futures_util::future::join_all((0..20).map(asking)).await;
        // At 0, 25, 75, 175 and 375 ms, and at least that late.
        let count = count.load(Ordering::Relaxed);
        assert!((1..=6).contains(&count), "{count} attempts");
    }
}
