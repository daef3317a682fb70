//! How is what a command writes handed on as it comes, whatever its size?

use std::future::pending;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::{
    CommandSpec, Ended, Input, Leftovers, SpawnError, Started, Streams, ended, program, reap, start_by,
};

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

/// As [`super::run`], but nothing is kept: `sink` gets each piece as it comes, in the order of its stream.
///
/// `stdout` and `stderr` of what is returned are empty. `sink` must not block: it is called between two reads. Pieces still
/// come after the deadline, since what the command wrote before it counts.
///
/// Who is left behind by a command that may leave somebody gets `SIGPIPE` if he writes to what he inherited: a stream that is
/// followed has to be a pipe.
pub(crate) async fn run_streamed(
    spec: &CommandSpec,
    stdin: &[u8],
    timeout: Duration,
    mut sink: impl FnMut(Stream, &[u8]),
) -> Result<Ended, SpawnError> {
    let started = Instant::now();
    let streams = Streams { files: None, with_input: true };
    // In this order: what is bound last is dropped first.
    let Started { mut child, mut group } = start_by(started + timeout, spec, streams, |_| {}).await?;
    let exit = group.exit().map_err(|err| SpawnError::Watch { program: program(spec), err })?;
    let mut input = Input { pipe: child.stdin.take(), rest: stdin };
    let mut stdout = Pipe::new(child.stdout.take());
    let mut stderr = Pipe::new(child.stderr.take());

    let left = timeout.saturating_sub(started.elapsed());
    let overdue = tokio::time::timeout(left, async {
        loop {
            // Each branch is cancel-safe: bytes are taken and handed on without a wait in between.
            tokio::select! {
                () = ended(&exit) => break,
                read = stdout.read() => sink(Stream::Stdout, &stdout.piece[..read]),
                read = stderr.read() => sink(Stream::Stderr, &stderr.piece[..read]),
                () = input.write() => {}
            }
        }
    })
    .await
    .is_err();
    if overdue || spec.leftovers == Leftovers::Kill {
        group.kill();
    }
    let status = reap(&mut child).await;
    if status.is_some() {
        group.forget();
    }
    stdout.drain(|piece| sink(Stream::Stdout, piece));
    stderr.drain(|piece| sink(Stream::Stderr, piece));
    let code = status.and_then(|status| status.code());
    Ok(Ended {
        code,
        signal: status.and_then(|status| status.signal()),
        stdout: Vec::new(),
        stderr: Vec::new(),
        took: started.elapsed(),
        // It may have ended by itself in the very moment of the deadline: an exit code is an answer.
        timed_out: overdue && code.is_none(),
    })
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
