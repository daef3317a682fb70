//! What does a step's command say it did? Its last JSON object is the answer; without one, its exit code is.

use std::time::Duration;

use serde_json::{Map, Value};

use super::last::{ANSWER_MAX, Last, last_object, too_long};
use super::output::Tail;
use super::time::parse_delay;
use super::{Amount, Answer, FailureClass, Found};
use crate::check::wording::Short;
use crate::child::Ended;

/// The most characters of an error, and of what was found where something else belongs.
const ERROR_MAX: usize = 1000;
const FOUND_MAX: usize = 60;

/// What a command said while it ran.
pub(crate) struct Said {
    /// Its standard output.
    pub(crate) stdout: Tail,
    /// The first line of its standard error that is not blank.
    pub(crate) complaint: Option<String>,
}

/// How much an attempt may have done when it failed without a word about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Strict(pub(crate) bool);

impl Strict {
    /// Takes a class, unless nobody can vouch for it.
    pub(crate) fn or(self, class: FailureClass) -> FailureClass {
        if self.0 { FailureClass::Unknown } else { class }
    }
}

/// Reads what became of an attempt.
pub(crate) fn judge(ended: &Ended, mut said: Said, strict: Strict, timeout: Duration) -> Answer {
    let code = match exit_code(ended, timeout) {
        Ok(code) => code,
        // Whatever it said before: it was not done, or it would have ended by itself.
        Err(error) => return Answer::Failed { error, class: FailureClass::Unknown },
    };
    let malformed = |error| Answer::Failed { error, class: strict.or(FailureClass::Permanent) };
    let Last { object, length } = match last_object(&mut said.stdout) {
        Ok(Some(last)) => last,
        Ok(None) => return by_exit_code(code, None, &said, strict),
        Err(error) => return malformed(error),
    };
    match object.get("ok") {
        None if code != 0 => by_exit_code(code, None, &said, strict),
        Some(Value::Bool(true)) if code != 0 => {
            let error = format!("said ok but ended with code {code}");
            Answer::Failed { error, class: FailureClass::Unknown }
        }
        _ if length > ANSWER_MAX => malformed(too_long(length)),
        None => by_exit_code(code, Some(object), &said, strict),
        Some(Value::Bool(true)) => applied(object).unwrap_or_else(malformed),
        Some(Value::Bool(false)) => failed(&object, said.complaint).unwrap_or_else(malformed),
        Some(other) => malformed(wrong("ok", other, "true or false")),
    }
}

/// Reads what became of an attempt where all that was said is one object: it must say `ok`.
pub(crate) fn judge_object(object: Map<String, Value>, strict: Strict) -> Answer {
    let answer = match object.get("ok") {
        Some(Value::Bool(true)) => applied(object),
        Some(Value::Bool(false)) => failed(&object, None),
        Some(other) => Err(wrong("ok", other, "true or false")),
        None => Err(wrong("ok", &Value::Null, "true or false")),
    };
    answer.unwrap_or_else(|error| Answer::Failed { error, class: strict.or(FailureClass::Permanent) })
}

/// Reads what a command found out about an attempt in doubt.
pub(crate) fn find(ended: &Ended, mut said: Said, timeout: Duration) -> Found {
    found(ended, &mut said, timeout)
        .unwrap_or_else(|reason| Found::StillUnknown { reason, retry_after: None })
}

fn found(ended: &Ended, said: &mut Said, timeout: Duration) -> Result<Found, String> {
    match exit_code(ended, timeout)? {
        0 => {}
        code => return Err(with_words(how(code), said)),
    }
    let Some(Last { object, length }) = last_object(&mut said.stdout)? else {
        return Err("its output has no JSON object".to_owned());
    };
    if length > ANSWER_MAX {
        return Err(too_long(length));
    }
    settle(object)
}

/// Reads what was found out about an attempt in doubt, where all that was said is one object.
pub(crate) fn find_object(object: Map<String, Value>) -> Found {
    settle(object).unwrap_or_else(|reason| Found::StillUnknown { reason, retry_after: None })
}

/// Reads `{"applied": true, "evidence": "..."}`. An `Err` says why it tells nothing.
pub(super) fn settle(mut object: Map<String, Value>) -> Result<Found, String> {
    match object.get("applied") {
        Some(Value::Bool(true)) => {
            let evidence = evidence(&mut object)?;
            Ok(Found::Applied { output: output(&mut object)?, evidence })
        }
        Some(Value::Bool(false)) => Ok(Found::NotApplied { evidence: evidence(&mut object)? }),
        Some(Value::Null) => {
            let reason = text(&mut object, "reason")?.unwrap_or_else(|| "it cannot tell yet".to_owned());
            let retry_after = match text(&mut object, "retry_after")? {
                None => None,
                Some(delay) => Some(parse_delay(&delay).ok_or_else(|| {
                    wrong("retry_after", &Value::String(delay), "a delay such as \"500ms\", \"5s\" or \"2m\"")
                })?),
            };
            Ok(Found::StillUnknown { reason, retry_after })
        }
        Some(other) => Err(wrong("applied", other, "true, false or null")),
        None => Err("its answer has no `applied`".to_owned()),
    }
}

/// Returns the exit code of a command that ended by itself, or else how it ended.
fn exit_code(ended: &Ended, timeout: Duration) -> Result<i32, String> {
    match (ended.timed_out, ended.code, ended.signal) {
        (true, ..) => Err(format!("not done within {}", Short(timeout))),
        (false, Some(code), _) => Ok(code),
        (false, None, Some(signal)) => Err(format!("ended by signal {signal}")),
        (false, None, None) => Err("ended nobody knows how".to_owned()),
    }
}

/// Judges a command that gave no answer. An object without `ok` is what it has to give, not an answer.
fn by_exit_code(code: i32, object: Option<Map<String, Value>>, said: &Said, strict: Strict) -> Answer {
    let class = match code {
        0 => {
            let text = || said.stdout.first_line().map(|line| ("text".to_owned(), Value::String(line)));
            let output = object.unwrap_or_else(|| text().into_iter().collect());
            return Answer::Applied { output: Value::Object(output), amounts: Vec::new(), handle: None };
        }
        // By custom of shells: not executable, and not found. A script may have done half its work before it came to that.
        126 | 127 => {
            let error = with_words(how(code), said);
            return Answer::Failed { error, class: strict.or(FailureClass::Permanent) };
        }
        _ => strict.or(FailureClass::Transient),
    };
    Answer::Failed { error: words(said).unwrap_or_else(|| how(code)), class }
}

fn how(code: i32) -> String {
    match code {
        126 => "exit code 126: cannot be executed".to_owned(),
        127 => "exit code 127: command not found".to_owned(),
        code => format!("exit code {code}"),
    }
}

fn words(said: &Said) -> Option<String> {
    said.complaint.clone().or_else(|| said.stdout.first_line())
}

fn with_words(how: String, said: &Said) -> String {
    match words(said) {
        Some(words) => format!("{words} ({how})"),
        None => how,
    }
}

fn applied(mut object: Map<String, Value>) -> Result<Answer, String> {
    let output = output(&mut object)?;
    let amounts = match take(&mut object, "amounts") {
        None => Vec::new(),
        Some(Value::Array(amounts)) => amounts
            .into_iter()
            .enumerate()
            .map(|(at, amount)| self::amount(at, amount))
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(wrong("amounts", &other, "a list")),
    };
    Ok(Answer::Applied { output, amounts, handle: take(&mut object, "handle") })
}

fn failed(object: &Map<String, Value>, complaint: Option<String>) -> Result<Answer, String> {
    let class = match object.get("class") {
        None | Some(Value::Null) => FailureClass::Transient,
        Some(Value::String(class)) if class == "transient" => FailureClass::Transient,
        Some(Value::String(class)) if class == "permanent" => FailureClass::Permanent,
        Some(Value::String(class)) if class == "unknown" => FailureClass::Unknown,
        Some(other) => return Err(wrong("class", other, "\"transient\", \"permanent\" or \"unknown\"")),
    };
    let error = match object.get("error") {
        Some(Value::String(error)) if !error.trim().is_empty() => one_line(error, ERROR_MAX),
        None | Some(Value::Null | Value::String(_)) => {
            complaint.unwrap_or_else(|| "it did not say why".to_owned())
        }
        Some(other) => return Err(wrong("error", other, "a text")),
    };
    Ok(Answer::Failed { error, class })
}

/// Reads `{"asset": "EUR", "minor": -1250}`. A number too large for JSON's readers may be a text of digits.
fn amount(at: usize, amount: Value) -> Result<Amount, String> {
    let name = |field| format!("amounts[{at}].{field}");
    let Value::Object(mut amount) = amount else {
        return Err(wrong(&format!("amounts[{at}]"), &amount, "an object"));
    };
    let asset = match amount.remove("asset") {
        Some(Value::String(asset)) if !asset.trim().is_empty() => asset,
        other => return Err(wrong(&name("asset"), &other.unwrap_or_default(), "a name")),
    };
    let minor = amount.remove("minor").unwrap_or_default();
    let number = match &minor {
        // A fraction, and what the reader had to round, is no `i128`.
        Value::Number(number) => number.as_i128(),
        Value::String(digits) => digits.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match number {
        Some(minor) => Ok(Amount { asset, minor }),
        None => Err(wrong(&name("minor"), &minor, "a whole number, as a text where it has over 64 bits")),
    }
}

/// Takes a field; `null` is none.
pub(crate) fn take(object: &mut Map<String, Value>, field: &str) -> Option<Value> {
    object.remove(field).filter(|value| !value.is_null())
}

fn output(object: &mut Map<String, Value>) -> Result<Value, String> {
    match take(object, "output") {
        None => Ok(Value::Object(Map::new())),
        Some(output @ Value::Object(_)) => exact(&output).map(|()| output),
        Some(other) => Err(wrong("output", &other, "an object")),
    }
}

/// Refuses numbers that were rounded while they were read: an amount in the smallest unit easily has over 64 bits.
pub fn exact(value: &Value) -> Result<(), String> {
    // From here on not every whole number is a double.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|n| n.abs() >= EXACT_MAX) => {
            Err(format!("the number {number} is too large to be kept exactly; write it as a text"))
        }
        Value::Array(values) => values.iter().try_for_each(exact),
        Value::Object(object) => object.values().try_for_each(exact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

pub(crate) fn text(object: &mut Map<String, Value>, field: &str) -> Result<Option<String>, String> {
    match take(object, field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(field, &other, "a text")),
    }
}

/// Takes the evidence. Who has none does not know: on its word a payment is repeated, or never made.
fn evidence(object: &mut Map<String, Value>) -> Result<String, String> {
    match take(object, "evidence") {
        Some(Value::String(evidence)) if !evidence.trim().is_empty() => Ok(evidence),
        None | Some(Value::String(_)) => Err("its answer has no `evidence`".to_owned()),
        Some(other) => Ok(other.to_string()),
    }
}

pub(crate) fn wrong(field: &str, found: &Value, expected: &str) -> String {
    let found = match found {
        Value::Null => "missing".to_owned(),
        other => format!("`{}`", one_line(&other.to_string(), FOUND_MAX)),
    };
    format!("its answer's `{field}` is {found}, and must be {expected}")
}

/// Makes foreign text fit for a log or a terminal.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let shown = |character: char| if character.is_control() { ' ' } else { character };
    let mut line: String = text.trim().chars().take(max).map(shown).collect();
    if text.trim().chars().nth(max).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(stdout: &[u8], code: i32, strict: bool) -> Answer {
        let (mut said, ended) = said(stdout, code);
        said.complaint = Some("complaint".to_owned());
        judge(&ended, said, Strict(strict), Duration::from_secs(5))
    }

    fn said(stdout: &[u8], code: i32) -> (Said, Ended) {
        let mut tail = Tail::default();
        stdout.chunks(1000).for_each(|piece| tail.push(piece));
        let ended = Ended {
            code: Some(code),
            signal: None,
            stdout: Vec::new(),
            stderr: Vec::new(),
            took: Duration::ZERO,
            timed_out: false,
        };
        (Said { stdout: tail, complaint: None }, ended)
    }

    /// Bits of answers, right and wrong, in any order.
    fn almost_answers() -> impl Strategy<Value = Vec<u8>> {
        const BITS: [&str; 20] = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\n",
            "\"",
            "\\u",
            "\"ok\"",
            "true",
            "false",
            "null",
            "-1e999",
            "\"class\"",
            "\"amounts\"",
            "{\"ok\":true}",
            "{\"ok\":false}",
            "{\"applied\":",
            "é",
        ];
        prop::collection::vec(prop::sample::select(&BITS[..]), 0..40)
            .prop_map(|bits| bits.concat().into_bytes())
    }

    fn anything() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![almost_answers(), prop::collection::vec(any::<u8>(), 0..400)]
    }

    proptest! {
        #[test]
        fn whatever_a_command_writes_there_is_an_answer(bytes in anything(), code in 0..4) {
            let (said, ended) = said(&bytes, code);
            let found = find(&ended, said, Duration::from_secs(5));
            let knows = !matches!(found, Found::StillUnknown { .. });
            prop_assert!(code == 0 || !knows);

            let lenient = answer(&bytes, code, false);
            match answer(&bytes, code, true) {
                Answer::Applied { output, .. } => prop_assert!(code == 0 && output.is_object()),
                Answer::Failed { class: FailureClass::Unknown, .. } => {
                    let fails = matches!(lenient, Answer::Failed { .. });
                    prop_assert!(fails);
                }
                // Only its own word tells that nothing happened.
                failed @ Answer::Failed { .. } => {
                    prop_assert!(String::from_utf8_lossy(&bytes).contains("\"ok\":false"));
                    prop_assert_eq!(failed, lenient);
                }
            }
        }

        #[test]
        fn an_answer_is_found_behind_any_noise(mut noise in anything()) {
            // Noise that is the beginning of an object takes the answer in, as a list would.
            noise.retain(|byte| *byte != b'{');
            let bytes = [&noise, &b"\n{\"ok\":false,\"error\":\"full\"}\n"[..]].concat();
            let failed = Answer::Failed { error: "full".to_owned(), class: FailureClass::Transient };
            prop_assert_eq!(answer(&bytes, 0, true), failed);
        }
    }
}
