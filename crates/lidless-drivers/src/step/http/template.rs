//! What is written with placeholders, and what stands in their place in one call?
//!
//! `{{ inputs.amount }}` is a way to a value. `{{ "text" }}` is the text itself: so `{{ "{{" }}` is two braces.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use crate::step::Call;

/// Why a template cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Misread {
    /// At which byte of the text.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) reason: String,
}

/// Where a way begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Root {
    Inputs,
    Outputs,
    Handles,
    UndoesOutput,
    UndoesHandles,
    UndoesStep,
    UndoesKey,
    Key,
    Run,
    Pipeline,
    Step,
    Attempt,
}

/// How each begins, and whether it leads further.
const ROOTS: [(&str, Root, bool); 12] = [
    ("inputs", Root::Inputs, true),
    ("outputs", Root::Outputs, true),
    ("handles", Root::Handles, true),
    ("undoes.output", Root::UndoesOutput, true),
    ("undoes.handles", Root::UndoesHandles, true),
    ("undoes.step", Root::UndoesStep, false),
    ("undoes.key", Root::UndoesKey, false),
    ("key", Root::Key, false),
    ("run", Root::Run, false),
    ("pipeline", Root::Pipeline, false),
    ("step", Root::Step, false),
    ("attempt", Root::Attempt, false),
];

/// A way to a value of a call: `outputs.REBALANCE.shifted`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Way {
    written: String,
    root: Root,
    rest: Vec<String>,
}

impl Way {
    fn parse(written: &str) -> Result<Way, String> {
        let known = ROOTS.iter().find_map(|(name, root, leads)| {
            let rest = written.strip_prefix(name)?;
            let rest = if rest.is_empty() { "" } else { rest.strip_prefix('.').filter(|_| *leads)? };
            Some((*root, rest, written.len() > name.len()))
        });
        let Some((root, rest, leads)) = known else {
            let names: Vec<&str> = ROOTS.iter().map(|(name, ..)| *name).collect();
            return Err(format!("`{written}` is unknown: it is one of {}", names.join(", ")));
        };
        let rest =
            if leads { parts(rest).map_err(|what| format!("`{written}` {what}"))? } else { Vec::new() };
        Ok(Way { written: written.to_owned(), root, rest })
    }

    /// Returns the value in a call. `null` is none.
    pub(super) fn value<'a>(&self, call: &'a Call) -> Result<Cow<'a, Value>, String> {
        let missing = || format!("`{}` has no value", self.written);
        let undoes = || call.undoes.as_ref().ok_or_else(missing);
        let text = |text: &str| Some(Cow::Owned(Value::from(text)));
        let found = match self.root {
            Root::Inputs => follow(&call.inputs, &self.rest).map(Cow::Borrowed),
            Root::Outputs => follow(&call.outputs, &self.rest).map(Cow::Borrowed),
            Root::Handles => follow_list(&call.handles, &self.rest),
            Root::UndoesOutput => follow(&undoes()?.output, &self.rest).map(Cow::Borrowed),
            Root::UndoesHandles => follow_list(&undoes()?.handles, &self.rest),
            Root::UndoesStep => text(&undoes()?.step),
            Root::UndoesKey => text(&undoes()?.idempotency_key),
            Root::Key => text(&call.idempotency_key),
            Root::Run => text(&call.run),
            Root::Pipeline => text(&call.pipeline),
            Root::Step => text(&call.step),
            Root::Attempt => Some(Cow::Owned(Value::from(call.attempt))),
        };
        found.filter(|value| !value.is_null()).ok_or_else(missing)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Cuts `a.b.0` into its parts.
pub(super) fn parts(written: &str) -> Result<Vec<String>, String> {
    let parts: Vec<String> = written.split('.').map(str::to_owned).collect();
    let is_good = |part: &String| !part.is_empty() && !part.contains(char::is_whitespace);
    if parts.iter().all(is_good) { Ok(parts) } else { Err("has an empty part or a blank".to_owned()) }
}

/// Goes from a value to one within it: by name in an object, by number, from 0, in a list.
pub(super) fn follow<'a>(value: &'a Value, parts: &[String]) -> Option<&'a Value> {
    parts.iter().try_fold(value, |value, part| match value {
        Value::Object(object) => object.get(part),
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

fn follow_list<'a>(list: &'a [Value], parts: &[String]) -> Option<Cow<'a, Value>> {
    match parts {
        [] => Some(Cow::Owned(Value::Array(list.to_vec()))),
        [place, rest @ ..] => follow(list.get(place.parse::<usize>().ok()?)?, rest).map(Cow::Borrowed),
    }
}

/// A text with placeholders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Value(Way),
}

/// How a value is written into a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// As it is.
    Plainly,
    /// As a part of a URL or of a form: no sign in it means anything.
    Encoded,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Template, Misread> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(begin) = text[at..].find("{{").map(|found| at + found) {
            if begin > at {
                parts.push(Part::Text(text[at..begin].to_owned()));
            }
            let misread = |reason: &str| Misread { at: begin, reason: reason.to_owned() };
            let inside = text[begin + 2..].trim_start();
            let from = text.len() - inside.len();
            if inside.starts_with('"') {
                let mut values = serde_json::Deserializer::from_str(inside).into_iter::<String>();
                let Some(Ok(quoted)) = values.next() else {
                    return Err(misread("the text in quotes has no end or a wrong escape"));
                };
                let rest = inside[values.byte_offset()..].trim_start();
                let rest = rest.strip_prefix("}}").ok_or_else(|| misread("`}}` must follow the text"))?;
                parts.push(Part::Text(quoted));
                at = text.len() - rest.len();
            } else {
                let length = inside.find("}}").ok_or_else(|| misread("`{{` has no `}}`"))?;
                let way = Way::parse(inside[..length].trim_end()).map_err(|reason| misread(&reason))?;
                parts.push(Part::Value(way));
                at = from + length + 2;
            }
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        Ok(Template(parts))
    }

    /// Returns the way, where there is one placeholder and nothing else.
    pub(super) fn sole(&self) -> Option<&Way> {
        match &*self.0 {
            [Part::Value(way)] => Some(way),
            [] | [Part::Text(_)] | [_, _, ..] => None,
        }
    }

    /// Returns the text before the first placeholder.
    pub(super) fn beginning(&self) -> &str {
        match self.0.first() {
            Some(Part::Text(text)) => text,
            Some(Part::Value(_)) | None => "",
        }
    }

    /// Says whether there are placeholders at all.
    pub(super) fn is_fixed(&self) -> bool {
        self.ways().next().is_none()
    }

    /// Puts another beginning in place of so many bytes of the text before the first placeholder.
    pub(super) fn with_beginning(mut self, beginning: &str, bytes: usize) -> Template {
        match self.0.first_mut() {
            Some(Part::Text(text)) => text.replace_range(..bytes, beginning),
            Some(Part::Value(_)) | None => self.0.insert(0, Part::Text(beginning.to_owned())),
        }
        self
    }

    /// Returns what it asks of a call.
    pub(super) fn ways(&self) -> impl Iterator<Item = &Way> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(way) => Some(way),
        })
    }

    /// Puts a call's values in.
    pub(super) fn fill(&self, call: &Call, written: Written) -> Result<String, String> {
        self.fill_with(|way, _| Ok(write(&text_of(way, &*way.value(call)?)?, written)))
    }

    /// Puts a sign in that may stand anywhere, so that the rest can be tried.
    pub(super) fn try_out(&self) -> String {
        self.fill_with(|_, _| Ok("0".to_owned())).unwrap_or_default()
    }

    /// Puts values in; each is made from its way and from what stands before it.
    pub(super) fn fill_with(
        &self,
        value: impl Fn(&Way, &str) -> Result<String, String>,
    ) -> Result<String, String> {
        self.0.iter().try_fold(String::new(), |mut filled, part| {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Value(way) => {
                    let value = value(way, &filled)?;
                    filled.push_str(&value);
                }
            }
            Ok(filled)
        })
    }
}

/// Returns a value as it stands in a text. Lists and objects stand in none: nobody could tell how they are meant.
pub(super) fn text_of(way: &Way, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null => Err(format!("`{way}` has no value")),
        Value::Array(_) => Err(format!("`{way}` is a list, and cannot stand in a text")),
        Value::Object(_) => Err(format!("`{way}` is an object, and cannot stand in a text")),
    }
}

/// Writes a value; encoded, only what RFC 3986 calls unreserved stays as it is.
pub(super) fn write(text: &str, written: Written) -> String {
    match written {
        Written::Plainly => text.to_owned(),
        Written::Encoded => text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
            encoded
        }),
    }
}

#[cfg(test)]
mod tests;
