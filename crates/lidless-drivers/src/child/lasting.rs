//! How is a command kept that goes on, and is talked to, until it is told to end?
//!
//! As with [`super::run`] it leads a process group of its own, and whatever is left of the group is killed with it.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Signal, kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::Instant;

use super::stream::{Pipe, Stream};
use super::{CommandSpec, Group, REAP_MAX, SpawnError, Started, Streams, ended, program, reap, start_by};

/// A command that runs. Dropped, it is killed with its group.
pub(crate) struct Lasting {
    // In this order: see `Group`.
    group: Group,
    child: Child,
    exit: AsyncFd<OwnedFd>,
    input: Option<ChildStdin>,
    stdout: Pipe<ChildStdout>,
    stderr: Pipe<ChildStderr>,
}

/// What happens to a command that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Happening {
    /// It has ended. What it wrote before is still to be drained.
    Exited,
    /// It wrote so many bytes: see [`Lasting::said`]. None: it closed this stream.
    Said(Stream, usize),
    /// It took so many bytes of its input.
    Took(usize),
    /// It closed its input.
    Deaf,
}

impl Lasting {
    /// Starts a command, which may take so long.
    pub(crate) async fn start(spec: &CommandSpec, timeout: Duration) -> Result<Lasting, SpawnError> {
        let streams = Streams { files: None, with_input: true };
        let Started { mut child, group } = start_by(Instant::now() + timeout, spec, streams, |_| {}).await?;
        let exit = group.exit().map_err(|err| SpawnError::Watch { program: program(spec), err })?;
        let input = child.stdin.take();
        let stdout = Pipe::new(child.stdout.take());
        let stderr = Pipe::new(child.stderr.take());
        Ok(Lasting { group, child, exit, input, stdout, stderr })
    }

    /// Waits for what happens next; offers it these bytes meanwhile.
    ///
    /// Cancel-safe: bytes are read or written, and told, without a wait in between. Not to be called again after `Exited`.
    pub(crate) async fn happens(&mut self, outgoing: &[u8]) -> Happening {
        tokio::select! {
            () = ended(&self.exit) => Happening::Exited,
            read = self.stdout.read() => Happening::Said(Stream::Stdout, read),
            read = self.stderr.read() => Happening::Said(Stream::Stderr, read),
            happening = write(&mut self.input, outgoing) => happening,
        }
    }

    /// What it wrote last to this stream: so many bytes.
    pub(crate) fn said(&self, stream: Stream, length: usize) -> &[u8] {
        match stream {
            Stream::Stdout => self.stdout.piece(length),
            Stream::Stderr => self.stderr.piece(length),
        }
    }

    /// Takes what is in a stream now, without waiting.
    pub(crate) fn drain(&mut self, stream: Stream, sink: impl FnMut(&[u8])) {
        match stream {
            Stream::Stdout => self.stdout.drain(sink),
            Stream::Stderr => self.stderr.drain(sink),
        }
    }

    /// Closes its input: it is to end by itself.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Says whether it ends by itself in a moment, as one does that has closed its streams.
    pub(crate) async fn ends_now(&self) -> bool {
        tokio::time::timeout(REAP_MAX, ended(&self.exit)).await.is_ok()
    }

    /// Asks its whole group to end.
    pub(crate) fn terminate(&self) {
        if let Some(leader) = self.group.leader {
            // It fails as `Group::kill` does.
            let _ = kill_process_group(leader, Signal::TERM);
        }
    }

    /// Ends what is left of it and its group, and says how it ended; `None` where it is still not gone.
    pub(crate) async fn end(mut self) -> Option<ExitStatus> {
        self.group.kill();
        let status = reap(&mut self.child).await;
        if status.is_some() {
            self.group.forget();
        }
        status
    }
}

/// Says how a command ended: "ended with exit code 1".
pub(crate) fn how(status: Option<ExitStatus>) -> String {
    match (status.and_then(|status| status.code()), status.and_then(|status| status.signal())) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended nobody knows how".to_owned(),
    }
}

/// Writes a piece. Waits for ever where there is nothing to write, or nobody who reads.
async fn write(input: &mut Option<ChildStdin>, bytes: &[u8]) -> Happening {
    let Some(pipe) = input.as_mut().filter(|_| !bytes.is_empty()) else {
        return std::future::pending().await;
    };
    match pipe.write(bytes).await {
        Ok(written) if written > 0 => Happening::Took(written),
        Ok(_) | Err(_) => {
            *input = None;
            Happening::Deaf
        }
    }
}
