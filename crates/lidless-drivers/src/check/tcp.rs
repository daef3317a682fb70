//! Does anybody accept connections there? Connects, and hangs up.

use std::time::Duration;

use lidless_core::check::{CheckOutcome, FailureKind};
use tokio::time::Instant;

use super::reach::{self, Target};
use super::verdict::{self, Trouble};
use super::wording::Short;
use super::{BoxFuture, Check};

/// Asks whether a TCP port accepts connections.
///
/// The kernel accepts on behalf of a process that hangs: a pass says that somebody listens, not that somebody works.
#[derive(Debug)]
pub struct TcpCheck {
    target: Target,
}

impl TcpCheck {
    /// Returns a check of a host (a name, or an IP address with or without brackets) and a port.
    pub fn new(host: &str, port: u16) -> Self {
        TcpCheck { target: Target::new(host, port) }
    }
}

impl Check for TcpCheck {
    fn probe(&self, timeout: Duration) -> BoxFuture<'_, CheckOutcome> {
        Box::pin(async move {
            let started = Instant::now();
            let mut resolved = false;
            let asked = self.ask(started, timeout, &mut resolved);
            let found = match tokio::time::timeout(timeout, asked).await {
                Ok(found) => found,
                Err(_) if resolved => {
                    let detail = format!("no connection within {}", Short(timeout));
                    Err(Trouble::target(FailureKind::Timeout, detail))
                }
                Err(_) => Err(Trouble::ours(format!("name not resolved within {}", Short(timeout)))),
            };
            verdict::conclude(found, started.elapsed(), timeout)
        })
    }
}

impl TcpCheck {
    async fn ask(&self, started: Instant, timeout: Duration, resolved: &mut bool) -> Result<(), Trouble> {
        let addresses = self.target.addresses().await?;
        *resolved = true;
        // Dropping the stream resets it: see `reach`.
        reach::connect(&addresses, started, timeout).await.map(drop)
    }
}
