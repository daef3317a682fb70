//! Who waits when nobody reads the log? Nobody: a thread writes it, and lines that find no room are counted.
//!
//! The log is written wherever something happens, also on the thread that decides. A stuck reader of stderr must never
//! stop that.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for a reader.
const LINES_MAX: usize = 4096;
/// How long the end may wait for a reader.
const END_WITHIN: Duration = Duration::from_millis(500);
/// Between two looks at whether everything is written.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Takes lines and hands them to the thread that writes them.
#[derive(Clone, Debug)]
pub(super) struct Log {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines that wait or are being written.
    pending: AtomicU64,
    /// Lines that found no room, not yet told.
    dropped: AtomicU64,
}

impl Log {
    /// Begins to write to stderr.
    pub(super) fn to_stderr() -> io::Result<Log> {
        // A descriptor of its own: while a write hangs, the lock of `std::io::stderr` stays free for a panic's words.
        Log::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    fn to(to: impl Write + Send + 'static) -> io::Result<Log> {
        let (send, receive) = sync_channel(LINES_MAX);
        let counts = Arc::new(Counts::default());
        let log = Log { lines: send, counts: Arc::clone(&counts) };
        // Nobody joins it: a write that hangs never ends, and the end of the process must not wait for it.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(to, &receive, &counts))?;
        Ok(log)
    }

    /// Takes a line, unless too many wait already.
    pub(super) fn line(&self, line: Vec<u8>) {
        self.counts.pending.fetch_add(1, Ordering::AcqRel);
        if self.lines.try_send(line).is_err() {
            self.counts.pending.fetch_sub(1, Ordering::AcqRel);
            self.counts.dropped.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Waits until everything is written, but not for long.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + END_WITHIN;
        while self.counts.pending.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn write_all(mut to: impl Write, lines: &Receiver<Vec<u8>>, counts: &Counts) {
    while let Ok(line) = lines.recv() {
        // A log that cannot be written can be complained about nowhere.
        drop(to.write_all(&line));
        let dropped = counts.dropped.swap(0, Ordering::AcqRel);
        if dropped > 0 {
            drop(writeln!(to, "lidless: {dropped} lines of the log were dropped: nobody read them"));
        }
        counts.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Write for Log {
    /// Takes a whole line: the formatter writes each in one go.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_reader_that_stalls_delays_nobody_and_is_told_what_it_missed() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let log = Log::to(writer).expect("a thread");
        let began = Instant::now();
        for _ in 0..20_000 {
            log.line(b"a line that nobody reads\n".to_vec());
        }
        log.flush();
        assert!(began.elapsed() < Duration::from_secs(10), "it waited for the reader");
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        log.flush();
        drop(log);
        let text = read.join().expect("the reader ends").expect("it is text");
        let told = text.lines().filter(|line| line.contains("were dropped")).count();
        assert!(told >= 1 && text.lines().count() < 20_000, "{} lines", text.lines().count());
    }
}
