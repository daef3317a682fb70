//! Where is the answer in what a command wrote? It is the last JSON object, whatever stands around it.

use serde_json::{Map, Value};

use super::output::{TAIL_MAX, Tail};
use crate::check::wording::Bytes;

/// The longest answer that is taken.
pub(crate) const ANSWER_MAX: usize = 64 * 1024;

/// How many bytes may be read in vain: what begins like an object and is none is read again from its next line on.
const PATIENCE: usize = 4 * TAIL_MAX;

/// The last object on standard output.
pub(crate) struct Last {
    /// The object.
    pub(crate) object: Map<String, Value>,
    /// How many bytes it was written in.
    pub(crate) length: usize,
}

/// Returns the last JSON object that begins a line and ends one; on its way it may take several, as `jq` writes it.
///
/// What stands inside an object is not looked at: a line of `{"ok":true}` in a list is not the answer. `Err` where the last
/// thing on an output that is longer than what we hold looks like the end of an object: its beginning is lost.
pub(crate) fn last_object(stdout: &mut Tail) -> Result<Option<Last>, String> {
    let is_cut = stdout.is_cut();
    let text = stdout.text().trim_ascii_end();
    // A line whose beginning is lost begins nothing.
    let mut at = if is_cut { line_end(text, 0) + 1 } else { 0 };
    let is_one_line = at > text.len();
    let mut patience = PATIENCE;
    let mut last = None;
    let mut last_end = 0;
    while at < text.len() {
        let begin = at + text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match object_at(text, begin) {
            Ok((object, end)) => {
                last = Some(Last { object, length: end - begin });
                last_end = end;
                at = line_end(text, end) + 1;
            }
            Err(read) => {
                patience = patience.checked_sub(read).ok_or("its output is full of JSON that never ends")?;
                at = line_end(text, begin) + 1;
            }
        }
    }
    let is_brace = is_one_line || text.ends_with(b"\n}");
    if is_cut && last_end < text.len() && text.ends_with(b"}") && is_brace {
        return Err(format!(
            "its answer is over {} long, and {} is the most",
            Bytes(TAIL_MAX),
            Bytes(ANSWER_MAX)
        ));
    }
    Ok(last)
}

/// Reads an object that begins here, if nothing else follows on the line in which it ends. Else returns how much was read.
fn object_at(text: &[u8], begin: usize) -> Result<(Map<String, Value>, usize), usize> {
    if text.get(begin) != Some(&b'{') {
        return Err(0);
    }
    let mut values = serde_json::Deserializer::from_slice(&text[begin..]).into_iter();
    match values.next() {
        Some(Ok(object)) => {
            let end = begin + values.byte_offset();
            let rest = &text[end..line_end(text, end)];
            if rest.trim_ascii().is_empty() { Ok((object, end)) } else { Err(end - begin) }
        }
        Some(Err(err)) => {
            let lines = (0..err.line()).fold(begin, |at, _| line_end(text, at) + 1);
            Err(lines.min(text.len()) - begin)
        }
        None => Err(0),
    }
}

/// Says how much too long an answer is.
pub(crate) fn too_long(length: usize) -> String {
    format!("its answer is {length} bytes long, and {} is the most", Bytes(ANSWER_MAX))
}

fn line_end(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(text: &str) -> Option<String> {
        let mut tail = Tail::default();
        tail.push(text.as_bytes());
        let last = last_object(&mut tail).expect("it is short")?;
        Some(Value::Object(last.object).to_string())
    }

    #[test]
    fn the_last_object_is_found_wherever_it_stands() {
        let found = Some(r#"{"a":1}"#.to_owned());
        assert_eq!(last("noise\n{\"b\":1}\n  {\"a\":1}  \r\n"), found);
        assert_eq!(last("{\"a\":1}\nnoise\n\n"), found);
        assert_eq!(last("{\n  \"a\":\n 1\n}\nnoise\n"), found);
        assert_eq!(last("{\"a\":1}\n{\"b\":\n"), found);
        assert_eq!(last("{\"a\":1}\nsee {\"b\":1}\n{\"b\":1} more\n[{\"b\":1}]\n"), found);
        assert_eq!(last(""), None);
        assert_eq!(last("[1]\n\"{}\"\n{é\n{a:1}\n"), None);
    }

    #[test]
    fn what_stands_inside_an_object_is_not_the_answer() {
        let text = "{\"list\": [\n{\"ok\":true}\n],\n\"in\":\n{\"ok\":true}\n}\n";
        assert_eq!(last(text).as_deref(), Some(r#"{"in":{"ok":true},"list":[{"ok":true}]}"#));
    }

    #[test]
    fn an_answer_whose_beginning_is_lost_is_too_long() {
        let too_long = |text: String| {
            let mut tail = Tail::default();
            tail.push(text.as_bytes());
            last_object(&mut tail).map(|last| last.map(|last| last.length))
        };
        let much = "x".repeat(TAIL_MAX);
        let lines = "  {\"ok\":true},\n  {\"ok\":true}\n".repeat(TAIL_MAX / 28);
        let error = Err("its answer is over 256 KiB long, and 64 KiB is the most".to_owned());
        assert_eq!(too_long(format!("{{\"a\":\"{much}\"}}\n")), error);
        assert_eq!(too_long(format!("{{\"a\":[\n{lines}]\n}}\n")), error);
        assert_eq!(too_long(format!("{much}\nset {{x}}\n")), Ok(None));
        assert_eq!(too_long(much.clone()), Ok(None));
        assert_eq!(too_long(format!("{much}\n{{\n\"ok\":true\n}}\n")), Ok(Some(13)));
        assert_eq!(too_long(format!("{{\"a\":\"{}\"}}", &much[..100_000])), Ok(Some(100_008)));
    }

    #[test]
    fn hostile_input_is_given_up() {
        let given_up = |text: String| {
            let mut tail = Tail::default();
            tail.push(text.as_bytes());
            last_object(&mut tail).is_err_and(|error| error.contains("never ends"))
        };
        assert!(given_up("{\"a\":\n".repeat(30_000)));
        assert!(given_up("{\"a\":[\n".repeat(60) + &"{\"b\":1},\n".repeat(10_000)));
        // What people really write is not.
        assert_eq!(last(&"{\"a\":".repeat(30_000)), None);
        let objects = "{\n  a: 1,\n  b: {\n    c: 1\n  }\n}\n".repeat(7_000);
        assert_eq!(last(&(objects + "{\"a\":1}")).as_deref(), Some(r#"{"a":1}"#));
    }
}
