//! How does the service manager know that we live? sd_notify: READY, STATUS, WATCHDOG, STOPPING. A no-op elsewhere.

use std::convert::Infallible;
use std::time::Duration;

use lidless_core::health::Health;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::handle::Handle;

/// Without a watchdog the status line is still renewed so often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Says that lidless watches now.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Pats the watchdog, through the dispatcher: one that hangs is not alive. Says so when lidless is told to end, and pats on:
/// what is under way then may take longer than the watchdog's patience, and its own deadlines stand over it.
pub async fn pat(handle: Handle, stop: CancellationToken) -> Infallible {
    let every = sd_notify::watchdog_enabled().map_or(STATUS_EVERY, |limit| limit / 3);
    let mut is_ending = false;
    loop {
        tokio::select! {
            () = stop.cancelled(), if !is_ending => {
                is_ending = true;
                send(&[NotifyState::Stopping]);
            }
            () = tokio::time::sleep(every) => {}
        }
        let counts = handle.query(|view| {
            let state = view.engine.state();
            let down = state.configured().filter(|(id, ..)| state.service_health(*id).is_down()).count();
            let up = state.configured().filter(|(id, ..)| state.service_health(*id) == Health::Up).count();
            (up, down, state.incidents.len(), state.degraded.is_some())
        });
        let Ok((up, down, incidents, degraded)) = counts.await else {
            send(&[NotifyState::Watchdog, NotifyState::Status("ending")]);
            continue;
        };
        let journal = if degraded { "; the journal cannot be written" } else { "" };
        let status = format!("{up} up, {down} down, {incidents} incidents open{journal}");
        send(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(err) = sd_notify::notify(states) {
        tracing::debug!(error = %err, "The service manager was not told.");
    }
}
