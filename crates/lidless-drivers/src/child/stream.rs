//! How is what a command writes handed on as it comes, whatever its size?

use std::future::pending;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::input::Input;
use super::{CommandSpec, Ended, Leftovers, SpawnError, Started, Streams, ended, program, reap, start_by};

/// How much is read at once.
const PIECE: usize = 16 * 1024;

/// Where a command wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// How long a command may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From before its start to its end.
    pub(crate) timeout: Duration,
    /// From its start to its first line, and from each line to the next.
    pub(crate) heartbeat: Option<Duration>,
}

/// What a command reads.
pub(crate) struct Said {
    /// At once.
    pub(crate) first: Bytes,
    /// As it comes; its input stays open until nothing more can come. Without any, it is closed after what was said first.
    pub(crate) more: Option<mpsc::Receiver<Bytes>>,
}

/// How a command that was followed ended.
#[derive(Debug)]
pub(crate) struct Followed {
    /// With nothing in `stdout` and `stderr`.
    pub(crate) ended: Ended,
    /// Whether it was ended because it gave no sign of life.
    pub(crate) was_silent: bool,
}

/// As [`super::run`], but nothing is kept: `sink` gets each piece as it comes, in the order of its stream.
///
/// `sink` must not block: it is called between two reads. Pieces still come after the deadline, since what the command wrote
/// before it counts. All time is monotonic: no clock that is set ends a command, or lets it live.
///
/// Who is left behind by a command that may leave somebody gets `SIGPIPE` if he writes to what he inherited: a stream that is
/// followed has to be a pipe.
pub(crate) async fn run_streamed(
    spec: &CommandSpec,
    said: Said,
    limits: Limits,
    mut sink: impl FnMut(Stream, &[u8]),
) -> Result<Followed, SpawnError> {
    let started = Instant::now();
    let streams = Streams { files: None, with_input: true };
    // In this order: what is bound last is dropped first.
    let Started { mut child, mut group } = start_by(started + limits.timeout, spec, streams, |_| {}).await?;
    let exit = group.exit().map_err(|err| SpawnError::Watch { program: program(spec), err })?;
    let mut input = Input::new(child.stdin.take(), said.first, said.more);
    let mut stdout = Pipe::new(child.stdout.take());
    let mut stderr = Pipe::new(child.stderr.take());

    let mut sign_of_life = Instant::now();
    let mut heard = |stream, piece: &[u8], sign_of_life: &mut Instant| {
        if piece.contains(&b'\n') {
            *sign_of_life = Instant::now();
        }
        sink(stream, piece);
    };
    let left = limits.timeout.saturating_sub(started.elapsed());
    let ending = tokio::time::timeout(left, async {
        loop {
            let happened = async {
                // Each branch is cancel-safe: bytes are taken and handed on without a wait in between.
                tokio::select! {
                    () = ended(&exit) => Happened::Ended,
                    read = stdout.read() => Happened::Read(Stream::Stdout, read),
                    read = stderr.read() => Happened::Read(Stream::Stderr, read),
                    () = input.write() => Happened::Wrote,
                }
            };
            let silence =
                quiet_until(limits.heartbeat.and_then(|heartbeat| sign_of_life.checked_add(heartbeat)));
            // In this order: when we were held up ourselves, what it wrote meanwhile counts.
            let happened = tokio::select! {
                biased;
                happened = happened => happened,
                () = silence => return Ending::Silent,
            };
            match happened {
                Happened::Ended => return Ending::ByItself,
                Happened::Read(Stream::Stdout, read) => {
                    heard(Stream::Stdout, &stdout.piece[..read], &mut sign_of_life);
                }
                Happened::Read(Stream::Stderr, read) => {
                    heard(Stream::Stderr, &stderr.piece[..read], &mut sign_of_life);
                }
                Happened::Wrote => {}
            }
        }
    })
    .await
    .unwrap_or(Ending::Overdue);
    if ending != Ending::ByItself || spec.leftovers == Leftovers::Kill {
        group.kill();
    }
    let status = reap(&mut child).await;
    if status.is_some() {
        group.forget();
    }
    stdout.drain(|piece| sink(Stream::Stdout, piece));
    stderr.drain(|piece| sink(Stream::Stderr, piece));
    let code = status.and_then(|status| status.code());
    let ended = Ended {
        code,
        signal: status.and_then(|status| status.signal()),
        stdout: Vec::new(),
        stderr: Vec::new(),
        took: started.elapsed(),
        // It may have ended by itself in the very moment of the deadline: an exit code is an answer.
        timed_out: ending == Ending::Overdue && code.is_none(),
    };
    Ok(Followed { ended, was_silent: ending == Ending::Silent && code.is_none() })
}

/// What happened last.
enum Happened {
    Ended,
    Read(Stream, usize),
    Wrote,
}

/// What ended a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    ByItself,
    Overdue,
    Silent,
}

async fn quiet_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => pending().await,
    }
}

/// One stream of a command.
pub(super) struct Pipe<P> {
    pipe: Option<P>,
    piece: Box<[u8]>,
}

impl<P: AsyncRead + AsFd + Unpin> Pipe<P> {
    pub(super) fn new(pipe: Option<P>) -> Self {
        Pipe { pipe, piece: vec![0; PIECE].into_boxed_slice() }
    }

    /// Reads the next piece, and says how long it is. Waits for ever once the pipe is closed.
    pub(super) async fn read(&mut self) -> usize {
        let Some(pipe) = &mut self.pipe else { return pending().await };
        match pipe.read(&mut self.piece).await {
            Ok(read) if read > 0 => read,
            Ok(_) | Err(_) => {
                self.pipe = None;
                0
            }
        }
    }

    /// The piece that was read last: so many bytes.
    pub(super) fn piece(&self, length: usize) -> &[u8] {
        &self.piece[..length]
    }

    /// Takes what is left in the pipe, without waiting: see `Output::drain`, which does the same for [`super::run`].
    pub(super) fn drain(&mut self, mut sink: impl FnMut(&[u8])) {
        let Some(pipe) = &self.pipe else { return };
        // No pipe holds more than a mebibyte by default; somebody left behind may fill it as fast as we read.
        for _ in 0..(1 << 20) / PIECE {
            match rustix::io::read(pipe, &mut *self.piece) {
                Ok(read) if read > 0 => sink(&self.piece[..read]),
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}
