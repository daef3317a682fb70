//! What did a command write? Its beginning is kept, whatever follows, and nobody waits for the rest.

use std::future::pending;
use std::os::fd::AsFd;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What a command writes: the beginning is kept, the rest is read and dropped, so that the command never waits for us.
pub(super) struct Output<P> {
    pipe: Option<P>,
    pub(super) kept: Vec<u8>,
    max: usize,
    piece: Box<[u8]>,
}

impl<P: AsyncRead + AsFd + Unpin> Output<P> {
    pub(super) fn new(pipe: Option<P>, max: usize) -> Self {
        Output { pipe, kept: Vec::new(), max, piece: vec![0; 16 * 1024].into_boxed_slice() }
    }

    /// Reads a piece. Waits for ever once the pipe is closed.
    pub(super) async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return pending().await };
        match pipe.read(&mut self.piece).await {
            Ok(read) if read > 0 => self.keep(read),
            Ok(_) | Err(_) => self.pipe = None,
        }
    }

    /// Takes what is left in the pipe, without waiting.
    ///
    /// All that the command wrote is there when it has ended; to wait for the end of the stream would be to wait for whoever
    /// inherited it. Past tokio, which may not know yet that there is something to read.
    pub(super) fn drain(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        // No pipe holds more than a mebibyte by default; somebody left behind may fill it as fast as we read.
        for _ in 0..(1 << 20) / self.piece.len() {
            match rustix::io::read(&pipe, &mut *self.piece) {
                Ok(read) if read > 0 => self.keep(read),
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn keep(&mut self, read: usize) {
        let room = self.max.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&self.piece[..read.min(room)]);
    }
}
