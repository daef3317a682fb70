//! How are lists and names read: texts, commands, one of a few words, maps by name?

use super::super::node::{Entry, Sp, Value};
use super::super::problem::Problem;
use super::super::shape::Accepts;
use super::super::units::{Refused, nearest};
use super::fields::{Fields, Reader};

impl Reader<'_> {
    /// Reads a list of texts.
    pub(super) fn texts(&mut self, fields: &Fields<'_>, name: &str) -> Option<Vec<Sp<String>>> {
        let key = fields.key(name)?;
        let node = fields.get(name)?;
        let items = match &node.value {
            Value::List(items) => items,
            Value::Text(text) => {
                let help = if matches!(key.accepts, Accepts::Argv | Accepts::ArgvOrMap(_)) {
                    argv_help(name, text)
                } else {
                    format!("write `{name}: [{text}]`")
                };
                self.wrong_type(node, name, key.accepts.noun(), &help);
                return None;
            }
            Value::Null | Value::Map(_) | Value::Broken => {
                self.wrong_type(node, name, key.accepts.noun(), &format!("write `{name}: {}`", key.example));
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        let mut whole = true;
        for item in items {
            match &item.value {
                Value::Text(text) if !text.contains('\0') => {
                    texts.push(Sp { value: text.clone(), at: item.at })
                }
                Value::Broken => whole = false,
                Value::Text(_) | Value::Null | Value::List(_) | Value::Map(_) => {
                    whole = false;
                    self.report(
                        Problem::error("config::wrong_type", format!("each part of `{name}` must be a text"))
                            .at(item.at, format!("{} stands here", item.value.noun()))
                            .help(format!("write `{name}: {}`; quote an empty text: `\"\"`", key.example)),
                    );
                }
            }
        }
        whole.then_some(texts)
    }

    /// Reads a list of names, at least one.
    pub(super) fn names(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        none: &str,
        help: &str,
    ) -> Option<Vec<Sp<String>>> {
        let names = self.texts(fields, name)?;
        if names.is_empty() {
            let at = fields.get(name)?.at;
            self.refused(at, name, Refused::new("is empty", none, help));
            return None;
        }
        Some(names)
    }

    /// Reads one of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let known = || words.iter().map(|(word, _)| *word);
        let parse = |text: &str| match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let help = match nearest(text, known()) {
                    Some(near) => format!("write `{near}`"),
                    None => format!("write one of {}", known().collect::<Vec<_>>().join(", ")),
                };
                Err(Refused::new("is none of the words that it may be", "not known", help))
            }
        };
        self.parsed(fields, name, parse).map(|value| value.value)
    }

    /// Reads a program and its arguments.
    pub(super) fn argv(&mut self, fields: &Fields<'_>, name: &str) -> Option<Vec<Sp<String>>> {
        let argv = self.texts(fields, name)?;
        let key = fields.key(name)?;
        let blame = match argv.first() {
            None => fields.get(name).map(|node| (node.at, "is empty", "no program")),
            Some(program) if program.value.trim().is_empty() => {
                Some((program.at, "names no program", "an empty name"))
            }
            Some(_) => None,
        };
        let Some((at, message, label)) = blame else { return Some(argv) };
        self.refused(
            at,
            name,
            Refused::new(
                message,
                label,
                format!("write the program and its arguments: `{name}: {}`", key.example),
            ),
        );
        None
    }

    /// Returns the entries of a map by name, each name checked.
    pub(super) fn named<'n>(&mut self, fields: &Fields<'n>, name: &str) -> &'n [Entry] {
        let (Some(key), Some(node)) = (fields.key(name), fields.get(name)) else { return &[] };
        match &node.value {
            Value::Null => &[],
            Value::Map(entries) => {
                for entry in entries {
                    super::check_name(self, &entry.key.value, entry.key.at);
                }
                entries
            }
            Value::Text(_) | Value::List(_) | Value::Broken => {
                self.wrong_type(
                    node,
                    name,
                    key.accepts.noun(),
                    &format!("write a name in front of each: `{}`", key.example),
                );
                &[]
            }
        }
    }
}

fn argv_help(name: &str, text: &str) -> String {
    if text.contains(['|', ';', '&', '$', '>', '<', '*', '"', '\'', '\\', '\n', '`']) {
        return format!(
            "no shell is involved; if you want one, write `{name}: [sh, -c, ...]` with this text as the last part"
        );
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    format!("write each word by itself: `{name}: [{}]`", words.join(", "))
}
