//! What does a command read? What it is told at once, and then perhaps more, for as long as it wants to hear it.

use std::future::pending;

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;

/// What is still to be written to a command.
pub(super) struct Input {
    pipe: Option<ChildStdin>,
    rest: Bytes,
    more: Option<mpsc::Receiver<Bytes>>,
}

impl Input {
    /// Writes this, and then what comes; without any `more`, the pipe is closed after the first.
    pub(super) fn new(pipe: Option<ChildStdin>, first: Bytes, more: Option<mpsc::Receiver<Bytes>>) -> Self {
        Input { pipe, rest: first, more }
    }

    /// Writes a piece, or takes what is to be written next. Waits for ever once nothing more can come. Cancel-safe.
    pub(super) async fn write(&mut self) {
        match (&mut self.pipe, &mut self.more) {
            (Some(pipe), _) if self.rest.has_remaining() => match pipe.write(&self.rest).await {
                Ok(written) if written > 0 => self.rest.advance(written),
                // A command that closes its input has read enough: that is its right.
                Ok(_) | Err(_) => self.pipe = None,
            },
            // Also where nobody reads it, or whoever says it would wait for ever.
            (_, Some(more)) => match more.recv().await {
                Some(next) => self.rest = next,
                None => self.more = None,
            },
            (pipe, None) => {
                *pipe = None;
                pending().await
            }
        }
    }
}
