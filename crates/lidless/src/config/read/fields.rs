//! How is one map read against its shape? Unknown, missing and conflicting keys, and values of the wrong type.

use std::time::Duration;

use super::super::node::{Entry, Node, Place, Sp, Value};
use super::super::problem::Problem;
use super::super::shape::{Accepts, Key, Shape};
use super::super::units::{self, Refused, nearest};

/// Reads one file and gathers what is wrong with it.
pub(super) struct Reader<'a> {
    /// The file.
    pub(super) text: &'a str,
    /// What is wrong so far.
    pub(super) problems: &'a mut Vec<Problem>,
}

/// A map whose keys were held against its shape.
pub(super) struct Fields<'n> {
    shape: &'static Shape,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// Returns the entry of a key that the shape has.
    pub(super) fn entry(&self, name: &str) -> Option<&'n Entry> {
        debug_assert!(self.shape.keys.iter().any(|key| key.name == name), "`{name}` is in no shape");
        self.entries.iter().find(|entry| entry.key.value == name)
    }

    /// Returns the value of a key that the shape has.
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// Returns which of the shape's `one_of` keys are there; exactly one, unless a problem was reported.
    pub(super) fn chosen(&self) -> Vec<&'n Entry> {
        self.entries.iter().filter(|entry| self.shape.one_of.contains(&entry.key.value.as_str())).collect()
    }

    /// Returns the key's row in the table.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.shape.keys.iter().find(|key| key.name == name)
    }
}

impl Reader<'_> {
    /// Adds a problem.
    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Opens a map: `called` names it in messages. `None` if it is no map.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        shape: &'static Shape,
        called: &str,
    ) -> Option<Fields<'n>> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            // `api:` with nothing after it is a map without keys.
            Value::Null => &[],
            Value::Text(_) | Value::List(_) | Value::Broken => {
                self.wrong_type(node, called, shape.noun, &map_help(shape));
                return None;
            }
        };
        let mut meant = Vec::new();
        for entry in entries {
            if !shape.keys.iter().any(|key| key.name == entry.key.value) {
                meant.extend(self.unknown_key(entry, shape, called));
            }
        }
        // A key that is there with a slip in its name is not missing too.
        let missing = |key: &&Key| {
            key.required
                && !meant.contains(&key.name)
                && !entries.iter().any(|entry| entry.key.value == key.name)
        };
        for key in shape.keys.iter().filter(missing) {
            self.report(
                Problem::error("config::missing_key", format!("{} has no `{}`", quoted(called), key.name))
                    .at(node.at, format!("needs `{}`", key.name))
                    .help(format!("add `{}: {}`", key.name, key.example)),
            );
        }
        let fields = Fields { shape, entries };
        self.one_of(&fields, node, called);
        Some(fields)
    }

    fn one_of(&mut self, fields: &Fields<'_>, node: &Node, called: &str) {
        let shape = fields.shape;
        let list = || shape.one_of.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match fields.chosen().as_slice() {
            [] if shape.one_of.is_empty() => {}
            [] if fields
                .entries
                .iter()
                .any(|entry| fields.key(&entry.key.value).is_some_and(|key| key.alone)) => {}
            // An unknown key is probably the misspelt choice, and its problem says so already.
            [] if fields.entries.iter().any(|entry| fields.key(&entry.key.value).is_none()) => {}
            [] => {
                let example = fields.key(shape.one_of[0]).map_or("", |key| key.example);
                let (what, help) = match shape.one_of {
                    [only] => (format!("`{called}` has no `{only}`"), format!("add `{only}: {example}`")),
                    [first, ..] => (
                        format!("`{called}` has none of {}", list()),
                        format!("add one of them, as `{first}: {example}`"),
                    ),
                    [] => return,
                };
                self.report(
                    Problem::error("config::missing_kind", what).at(node.at, "needs exactly one").help(help),
                );
            }
            [_] => {}
            [first, second, ..] => self.report(
                Problem::error(
                    "config::two_kinds",
                    format!("`{called}` has both `{}` and `{}`", first.key.value, second.key.value),
                )
                .at(second.key.at, "and this one")
                .at(first.key.at, "this one")
                .help(format!("keep exactly one of {}", list())),
            ),
        }
    }

    /// Reports a key that the shape does not have, and returns the one that was probably meant.
    fn unknown_key(&mut self, entry: &Entry, shape: &'static Shape, called: &str) -> Option<&'static str> {
        let name = entry.key.value.as_str();
        let list = shape.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
        if shape.later.contains(&name) {
            let help = if list.is_empty() {
                "not supported yet; remove it".to_owned()
            } else {
                format!("not supported yet; remove it. This version knows: {list}")
            };
            let problem =
                Problem::error("config::not_supported_yet", format!("`{name}` is not supported yet"));
            self.report(problem.at(entry.key.at, "comes with a later version").help(help));
            return None;
        }
        let meant = nearest(name, shape.keys.iter().map(|key| key.name));
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if list.is_empty() => "it takes no settings: write `{}`".to_owned(),
            None => format!("{} knows: {list}", shape.noun),
        };
        let problem =
            Problem::error("config::unknown_key", format!("there is no key `{name}` in {}", quoted(called)));
        self.report(problem.at(entry.key.at, "unknown").help(help));
        meant
    }

    /// Reports a value of the wrong type.
    pub(super) fn wrong_type(&mut self, node: &Node, called: &str, wanted: &str, help: &str) {
        if node.value == Value::Broken {
            return;
        }
        self.report(
            Problem::error("config::wrong_type", format!("`{called}` must be {wanted}"))
                .at(node.at, format!("{} stands here", node.value.noun()))
                .help(help),
        );
    }

    /// Reports a text that its type refuses.
    pub(super) fn refused(&mut self, at: Place, called: &str, refused: Refused) {
        let at = refused.part.clone().map_or(at, |part| self.inside(at, part));
        let problem = Problem::error("config::bad_value", format!("`{called}` {}", refused.message));
        let problem = problem.at(at, refused.label).help(refused.help);
        self.report(if refused.secret { problem.conceal(at) } else { problem });
    }

    /// Points into a scalar, where its text stands in the file as it is.
    fn inside(&self, at: Place, part: std::ops::Range<usize>) -> Place {
        let written = self.text.get(at.start as usize..at.end as usize).unwrap_or_default();
        let quote = usize::from(written.starts_with(['"', '\'']));
        let escaped = written.contains('\\') || written.contains("''") || written.contains('\n');
        let place = at.part(part.start + quote, part.end + quote);
        let exact = self.text.is_char_boundary(place.start as usize)
            && self.text.is_char_boundary(place.end as usize);
        if escaped || !exact { at } else { place }
    }

    /// Whether a text stands in the file without quotes.
    pub(super) fn is_bare(&self, node: &Node, text: &str) -> bool {
        self.text.get(node.at.start as usize..node.at.end as usize) == Some(text)
    }

    /// Reads the text of a node, whatever it is called.
    pub(super) fn text_of<'n>(&mut self, node: &'n Node, called: &str, key: &Key) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) | Value::Broken => {
                let help = format!("write `{}: {}`", key.name, key.example);
                let noun = key.accepts.noun();
                self.wrong_type(node, called, noun, &help);
                None
            }
        }
    }

    /// Reads a text through a parser.
    pub(super) fn parsed<T>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Refused>,
    ) -> Option<Sp<T>> {
        let node = fields.get(name)?;
        let text = self.text_of(node, name, fields.key(name)?)?;
        match parse(text) {
            Ok(value) => Some(Sp { value, at: node.at }),
            Err(refused) => {
                self.refused(node.at, name, refused);
                None
            }
        }
    }

    /// Reads a text that is not empty.
    pub(super) fn text(&mut self, fields: &Fields<'_>, name: &str) -> Option<Sp<String>> {
        let example = fields.key(name)?.example;
        self.parsed(fields, name, |text| match text {
            "" => Err(Refused::new(
                "is empty",
                "nothing between the quotes",
                format!("write `{name}: {example}`"),
            )),
            _ if text.contains('\0') => Err(Refused::new("holds a zero byte", "here", "remove it")),
            _ => Ok(text.to_owned()),
        })
    }

    /// Reads a duration; whether zero is allowed stands in the shape.
    pub(super) fn duration(&mut self, fields: &Fields<'_>, name: &str) -> Option<Duration> {
        let key = fields.key(name)?;
        let zero = matches!(key.accepts, Accepts::Duration { zero: true });
        let parse = |text: &str| match units::duration(text)? {
            Duration::ZERO if !zero => Err(Refused::new(
                "must be longer than zero",
                "zero",
                format!("write a duration, as `{}`", key.example),
            )),
            value => Ok(value),
        };
        self.parsed(fields, name, parse).map(|duration| duration.value)
    }

    /// Reads a whole number; its minimum stands in the shape.
    pub(super) fn whole(&mut self, fields: &Fields<'_>, name: &str) -> Option<Sp<u32>> {
        let key = fields.key(name)?;
        let min = if let Accepts::Whole(min) = key.accepts { min } else { 0 };
        self.parsed(fields, name, |text| match text.parse::<u32>() {
            Ok(number) if number >= min && !text.starts_with('+') => Ok(number),
            Ok(_) => Err(Refused::new(
                format!("must be at least {min}"),
                "too low",
                format!("write a whole number, as `{}`", key.example),
            )),
            Err(_) => Err(Refused::new(
                "is not a whole number",
                "expected a whole number",
                format!("write a whole number, as `{}`", key.example),
            )),
        })
    }

    /// Reads `true` or `false`, and nothing that YAML 1.1 took for them.
    pub(super) fn boolean(&mut self, fields: &Fields<'_>, name: &str) -> Option<bool> {
        let parse = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => {
                let meant = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" | "1" | "true" => "`true`",
                    "no" | "off" | "n" | "0" | "false" => "`false`",
                    _ => "`true` or `false`",
                };
                Err(Refused::new("must be `true` or `false`", "neither", format!("write {meant}")))
            }
        };
        self.parsed(fields, name, parse).map(|value| value.value)
    }
}

/// Quotes a name; `the file` is none.
fn quoted(called: &str) -> String {
    if called == super::THE_FILE { called.to_owned() } else { format!("`{called}`") }
}

fn map_help(shape: &'static Shape) -> String {
    let chosen = |key: &&Key| key.required || shape.one_of.first() == Some(&key.name);
    match shape.keys.iter().find(chosen).or(shape.keys.first()) {
        Some(key) => format!("write a map, as `{{ {}: {} }}`", key.name, key.example),
        None => "write `{}`".to_owned(),
    }
}
