//! How does a command have a handle kept while it works? It writes a line, and waits for ours.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::answer::exact;
use super::last::ANSWER_MAX;
use super::output::Tail;
use super::{Host, Log};

/// How many handles may wait: a command that waits for its answers never has a second one.
const WAITING_MAX: usize = 16;

/// Finds the handles in what a command writes; all else goes to its tail.
pub(super) struct Handles<'a> {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// Whether that line is too long for a handle, and has gone to the tail already.
    is_passed: bool,
    waiting: mpsc::Sender<Value>,
    log: &'a dyn Log,
}

/// Keeps what is found, and answers.
pub(super) struct Keeper<'a> {
    host: &'a dyn Host,
    waiting: mpsc::Receiver<Value>,
    answers: mpsc::Sender<Bytes>,
}

/// Returns who finds handles, who keeps them, and what the command is to read.
pub(super) fn talk(host: &dyn Host) -> (Handles<'_>, Keeper<'_>, mpsc::Receiver<Bytes>) {
    let (found, waiting) = mpsc::channel(WAITING_MAX);
    let (answers, more) = mpsc::channel(1);
    let handles = Handles { line: Vec::new(), is_passed: false, waiting: found, log: host };
    (handles, Keeper { host, waiting, answers }, more)
}

impl Handles<'_> {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8], tail: &mut Tail) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let is_end = part.ends_with(b"\n");
            if self.is_passed {
                tail.push(part);
            } else {
                self.line.extend_from_slice(part);
                if self.line.len() > ANSWER_MAX {
                    self.pass(tail);
                    self.is_passed = true;
                } else if is_end {
                    self.line_is_complete(tail);
                }
            }
            self.is_passed &= !is_end;
        }
    }

    /// Takes a last line without an end. No handle can be found any more.
    pub(super) fn end(mut self, tail: &mut Tail) {
        self.line_is_complete(tail);
    }

    fn line_is_complete(&mut self, tail: &mut Tail) {
        match handle(&self.line) {
            None => self.pass(tail),
            Some(handle) => {
                self.line.clear();
                if self.waiting.try_send(handle).is_err() {
                    self.log.line("a handle is lost: it did not wait until those before it were kept");
                }
            }
        }
    }

    fn pass(&mut self, tail: &mut Tail) {
        tail.push(&self.line);
        self.line.clear();
    }
}

/// Reads `{"handle": ...}`. What says `ok` as well is an answer.
fn handle(line: &[u8]) -> Option<Value> {
    let line = line.trim_ascii();
    if !line.starts_with(b"{") {
        return None;
    }
    let mut object: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let handle = object.remove("handle").filter(|handle| !handle.is_null());
    handle.filter(|_| !object.contains_key("ok"))
}

impl Keeper<'_> {
    /// Keeps one handle after the other, until no more can be found and each has its answer.
    pub(super) async fn keep_all(mut self) {
        while let Some(handle) = self.waiting.recv().await {
            let kept = match exact(&handle) {
                Ok(()) => self.host.keep(&handle).await,
                Err(error) => Err(error),
            };
            let answer = match kept {
                Ok(()) => json!({ "kept": true }),
                Err(error) => {
                    self.host.line(&format!("a handle was not kept: {error}"));
                    json!({ "kept": false, "error": error })
                }
            };
            // It may have ended meanwhile: the handle is kept all the same.
            let _ = self.answers.send(Bytes::from(format!("{answer}\n"))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Log for Nobody {
        fn line(&self, _: &str) {}
    }

    /// Returns the handles that are found, and the rest.
    fn found(pieces: &[&[u8]]) -> (Vec<Value>, Vec<u8>) {
        let (waiting, mut handles) = mpsc::channel(WAITING_MAX);
        let mut finder = Handles { line: Vec::new(), is_passed: false, waiting, log: &Nobody };
        let mut tail = Tail::default();
        for piece in pieces {
            finder.push(piece, &mut tail);
            assert!(finder.line.len() <= ANSWER_MAX);
        }
        finder.end(&mut tail);
        (std::iter::from_fn(|| handles.try_recv().ok()).collect(), tail.text().to_vec())
    }

    #[test]
    fn handles_are_found_however_they_come_and_the_rest_stays() {
        let (handles, rest) = found(&[b"a\n {\"han", b"dle\": 7} \r\nb\n{\"handle\":\"0x\"}"]);
        assert_eq!((handles, &*rest), (vec![json!(7), json!("0x")], &b"a\nb\n"[..]));
        let others =
            b"{\"handle\": null}\n{\"ok\": true, \"handle\": 1}\n[{\"handle\": 1}]\n{\"handle\": \n1}\n";
        assert_eq!(found(&[others]), (vec![], others.to_vec()));
    }

    #[test]
    fn a_line_of_any_length_takes_up_little_memory() {
        let long = [b"{\"handle\": \"", &vec![b'x'; ANSWER_MAX][..], b"\"}\n"].concat();
        let (handles, rest) =
            found(&long.chunks(1000).chain([&b"{\"handle\": 7}\n"[..]]).collect::<Vec<_>>());
        assert_eq!((handles, rest), (vec![json!(7)], long));
    }

    #[test]
    fn who_does_not_wait_for_an_answer_takes_up_little_memory() {
        let (handles, rest) = found(&[&b"{\"handle\": 7}\n".repeat(1000)]);
        assert_eq!((handles.len(), rest.len()), (WAITING_MAX, 0));
    }
}
