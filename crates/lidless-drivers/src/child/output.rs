//! What did a command write? Its beginning is kept, whatever follows, and nobody waits for the rest.
//!
//! It comes through a pipe, or, where something may be left behind that goes on writing, through a file without a name: a
//! pipe that nobody reads any more would kill the writer.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// A file that holds more than this while the command runs is emptied.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// So often is looked how large it is. The quickest writer fills some tens of mebibytes meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a command writes: the beginning is kept, the rest is dropped, so that the command never waits for us.
pub(super) struct Output<P> {
    from: From<P>,
    pub(super) kept: Vec<u8>,
    max: usize,
}

enum From<P> {
    Pipe { pipe: P, piece: Box<[u8]> },
    File { file: File, look: Interval },
    Nothing,
}

/// Makes a file in memory for a command to write to. No full disk is in its way.
pub(super) fn nameless_file() -> io::Result<File> {
    let file = memfd_create("lidless-output", MemfdFlags::CLOEXEC)?;
    // Whoever writes goes on at the end, also once the file was emptied.
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(File::from(file))
}

impl<P: AsyncRead + AsFd + Unpin> Output<P> {
    /// Takes it from a pipe.
    pub(super) fn of_pipe(pipe: Option<P>, max: usize) -> Self {
        let from = pipe
            .map_or(From::Nothing, |pipe| From::Pipe { pipe, piece: vec![0; 16 * 1024].into_boxed_slice() });
        Output { from, kept: Vec::new(), max }
    }

    /// Takes it from a file that the command was given.
    pub(super) fn of_file(file: File, max: usize) -> Self {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Output { from: From::File { file, look }, kept: Vec::new(), max }
    }

    /// Takes a piece. Waits for ever once the pipe is closed.
    pub(super) async fn read(&mut self) {
        match &mut self.from {
            From::Pipe { pipe, piece } => match pipe.read(piece).await {
                Ok(read) if read > 0 => keep(&mut self.kept, &piece[..read], self.max),
                Ok(_) | Err(_) => self.from = From::Nothing,
            },
            From::File { file, look } => {
                look.tick().await;
                if file.metadata().is_ok_and(|meta| meta.len() > FILE_BYTES_MAX) {
                    keep_beginning(&mut self.kept, file, self.max);
                }
            }
            From::Nothing => pending().await,
        }
    }

    /// Takes what is left, without waiting.
    ///
    /// All that the command wrote is there when it has ended; to wait for the end of the stream would be to wait for whoever
    /// inherited it.
    pub(super) fn drain(&mut self) {
        match std::mem::replace(&mut self.from, From::Nothing) {
            From::Pipe { pipe, mut piece } => {
                // Past tokio, which may not know yet that there is something to read. No pipe holds more than a mebibyte by
                // default; somebody left behind may fill it as fast as we read.
                for _ in 0..(1 << 20) / piece.len() {
                    match rustix::io::read(&pipe, &mut *piece) {
                        Ok(read) if read > 0 => keep(&mut self.kept, &piece[..read], self.max),
                        Err(rustix::io::Errno::INTR) => {}
                        Ok(_) | Err(_) => return,
                    }
                }
            }
            From::File { file, .. } => keep_beginning(&mut self.kept, &file, self.max),
            From::Nothing => {}
        }
    }
}

fn keep(kept: &mut Vec<u8>, piece: &[u8], max: usize) {
    let room = max.saturating_sub(kept.len());
    kept.extend_from_slice(&piece[..piece.len().min(room)]);
}

/// Keeps the beginning of a file, unless an earlier one is kept already, and empties it: nobody reads it again, and who was
/// left behind holds it for as long as it lives.
fn keep_beginning(kept: &mut Vec<u8>, file: &File, max: usize) {
    if kept.is_empty() {
        let mut piece = vec![0; max];
        let mut read = 0;
        while let Some(rest) = piece.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, read as u64) {
                Ok(more) if more > 0 => read += more,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        keep(kept, &piece[..read], max);
    }
    // It cannot fail on a file of our own; if it did, only memory would be lost.
    drop(file.set_len(0));
}
