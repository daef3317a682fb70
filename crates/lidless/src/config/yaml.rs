//! How does YAML become a tree of text? The only file that knows the YAML library.
//!
//! We build on its events rather than on serde: serde stops at the first error and loses spans inside maps with a choice,
//! and every problem must be reported at once. Anchors, aliases, merge keys and tags are refused: a reader of the file
//! should see what it says, and without aliases no small file can grow large.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{self, ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::node::{Entry, Node, Place, Sp, Value};
use super::problem::Problem;

/// More than a file of 10,000 services needs, and little enough memory.
const NODES_MAX: usize = 2_000_000;
/// Our deepest key is nine levels down.
const DEPTH_MAX: usize = 32;
/// From this many keys on, duplicates are looked up rather than searched for.
const INDEX_FROM: usize = 16;

/// Parses one document. `None` stands for a text that holds nothing or cannot be read further than its problems say.
pub fn parse(file: u32, text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    options.set_emit_comments(false);
    let mut builder = Builder { file, text, problems, open: Vec::new(), root: None, nodes: 0, documents: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        let done = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(err) => {
                let mut problem = syntax(&err, file, text);
                if let Some(opened) = builder.bracket() {
                    problem = problem.at(opened, "opened here");
                }
                builder.problems.push(problem);
                return None;
            }
        };
        if !done {
            return None;
        }
    }
    builder.root
}

struct Builder<'a> {
    file: u32,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
}

/// A collection whose end has not come yet.
enum Open {
    List { at: Place, items: Vec<Node> },
    Map(OpenMap),
}

struct OpenMap {
    at: Place,
    entries: Vec<Entry>,
    /// Where each key is in `entries`; empty while they are few.
    index: HashMap<String, usize>,
    /// The key whose value comes next; `Some(None)` is one that was refused.
    key: Option<Option<Sp<String>>>,
    /// Whether something is missing in it, so that nothing should be said about what it lacks.
    broken: bool,
}

impl OpenMap {
    fn insert(&mut self, key: Sp<String>, mut node: Node, text: &str, problems: &mut Vec<Problem>) {
        if key.value == "<<" {
            self.broken = true;
            problems.push(
                Problem::error("config::yaml_feature", "merge keys are not used here")
                    .at(key.at, "a merge key")
                    .help("write the keys out; common settings go under `defaults`"),
            );
            return;
        }
        let written = text.get(node.at.start as usize..node.at.end as usize).unwrap_or_default().trim_end();
        if written.is_empty() || written.contains('\n') {
            node.at = key.at;
        } else {
            // A block ends where the next thing begins, perhaps lines further down.
            node.at = node.at.part(0, written.len());
        }
        let earlier = if self.entries.len() < INDEX_FROM {
            self.entries.iter().find(|entry| entry.key.value == key.value)
        } else {
            if self.index.is_empty() {
                self.index
                    .extend(self.entries.iter().enumerate().map(|(at, entry)| (entry.key.value.clone(), at)));
            }
            self.index.get(&key.value).and_then(|&at| self.entries.get(at))
        };
        if let Some(earlier) = earlier {
            problems.push(
                Problem::error("config::duplicate_key", format!("`{}` is given twice", key.value))
                    .at(key.at, "the second time")
                    .at(earlier.key.at, "the first time")
                    .help("remove one of them, or give it another name"),
            );
            return;
        }
        if !self.index.is_empty() {
            self.index.insert(key.value.clone(), self.entries.len());
        }
        self.entries.push(Entry { key, node });
    }
}

/// Takes a node for a key; `None` is one that was refused.
fn as_key(text: &str, node: &Node, problems: &mut Vec<Problem>) -> Option<Sp<String>> {
    let at = first_line(text, node.at);
    match &node.value {
        Value::Text(name) => Some(Sp { value: name.clone(), at }),
        Value::Broken => None,
        Value::Null | Value::List(_) | Value::Map(_) => {
            problems.push(
                Problem::error("config::bad_key", "a key must be a plain name")
                    .at(at, format!("{} stands here", node.value.noun()))
                    .help("write `name: value`; a text with `{` or `[` in front needs quotes"),
            );
            None
        }
    }
}

impl Builder<'_> {
    /// Takes one event; `false` ends the parse.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        let at = self.place(span);
        if let Some(tag) = span.tag_span() {
            self.refuse(
                self.place(tag),
                "tags are not used here",
                "a tag",
                "remove the tag; the type follows from the key",
            );
        }
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problems.push(
                        Problem::error("config::many_documents", "a file holds one document")
                            .at(self.first_line(at), "a second document starts here")
                            .help("remove the `---`, or put the rest into another file and name it under `include`"),
                    );
                    return false;
                }
            }
            Event::Anchor(..) => {
                self.refuse(
                    at,
                    "anchors are not used here",
                    "an anchor",
                    "write the value out where it is needed",
                );
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.refuse(
                    at,
                    "aliases are not used here",
                    "an alias",
                    "write the value out; a text that starts with `*` needs quotes",
                );
                return self.node(Node { value: Value::Broken, at });
            }
            Event::Scalar(text, style, ..) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Text(text.into_owned()) };
                return self.node(Node { value, at });
            }
            Event::SequenceStart(..) => self.open.push(Open::List { at, items: Vec::new() }),
            Event::MappingStart(..) => {
                self.open.push(Open::Map(OpenMap {
                    at,
                    entries: Vec::new(),
                    index: HashMap::new(),
                    key: None,
                    broken: false,
                }));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (start, value) = match self.open.pop() {
                    Some(Open::List { at, items }) => (at, Value::List(items)),
                    Some(Open::Map(OpenMap { at, broken: true, .. })) => (at, Value::Broken),
                    Some(Open::Map(OpenMap { at, entries, .. })) => (at, Value::Map(entries)),
                    None => return false,
                };
                let hull = Place { end: at.end.max(start.end), ..start };
                return self.node(Node { value, at: hull });
            }
            // The enum is the library's and may grow; an event that we don't know cannot be a part of a simple document.
            _ => {}
        }
        true
    }

    /// Puts a finished node where it belongs.
    fn node(&mut self, mut node: Node) -> bool {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.problems.push(
                Problem::error("config::too_large", format!("the file holds more than {NODES_MAX} values"))
                    .at(self.first_line(node.at), "reading stopped here")
                    .help("split it, and name the parts under `include`"),
            );
            return false;
        }
        let text = self.text;
        match self.open.last_mut() {
            None => {
                node.at = first_line(text, node.at);
                self.root = Some(node);
            }
            Some(Open::List { items, .. }) => {
                node.at = first_line(text, node.at);
                items.push(node);
            }
            Some(Open::Map(map)) => {
                let value = map.key.take();
                match value {
                    None => map.key = Some(as_key(text, &node, self.problems)),
                    Some(Some(key)) => map.insert(key, node, text, self.problems),
                    // The key was refused, and its value goes with it.
                    Some(None) => {}
                }
            }
        }
        true
    }

    /// Returns the innermost bracket that is open: what goes wrong within it is often that it was not closed.
    fn bracket(&self) -> Option<Place> {
        let (Open::List { at, .. } | Open::Map(OpenMap { at, .. })) = self.open.last()?;
        let start = at.start as usize;
        self.text.get(start..start + 1).filter(|c| matches!(*c, "[" | "{"))?;
        Some(Place::new(self.file, start, start + 1))
    }

    fn refuse(&mut self, at: Place, message: &str, label: &str, help: &str) {
        self.problems.push(Problem::error("config::yaml_feature", message).at(at, label).help(help));
    }

    fn place(&self, span: Span) -> Place {
        let (start, end) = (offset(span.start, self.text), offset(span.end, self.text));
        Place::new(self.file, start, end)
    }

    fn first_line(&self, at: Place) -> Place {
        first_line(self.text, at)
    }
}

/// Cuts a place at the end of its first line: a label over many lines hides what it is about.
fn first_line(text: &str, at: Place) -> Place {
    let Some(slice) = text.get(at.start as usize..at.end as usize) else { return at };
    let line = slice.split('\n').next().unwrap_or_default().trim_end();
    at.part(0, line.len())
}

fn offset(mark: Marker, text: &str) -> usize {
    let bytes = mark
        .byte_offset()
        .unwrap_or_else(|| text.char_indices().nth(mark.index()).map_or(text.len(), |(at, _)| at));
    floor_char_boundary(text, bytes)
}

fn floor_char_boundary(text: &str, bytes: usize) -> usize {
    (0..=bytes.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Says a syntax error in words that name the remedy. The library stops there, so there is one such problem a file.
fn syntax(err: &ScanError, file: u32, text: &str) -> Problem {
    let mut start = offset(*err.marker(), text);
    // At the very end there is nothing to point at: point at the last thing written.
    if text[start..].trim().is_empty() {
        let written = text.trim_end();
        start = written.char_indices().next_back().map_or(0, |(at, _)| at);
    }
    let here = &text[start..];
    let end = start + here.chars().next().map_or(0, char::len_utf8);
    let mut at = Place::new(file, start, end);
    let (message, label, help) = match err.kind() {
        ErrorKind::TabInIndentation
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => {
            let line = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
            let line_end = text[line..].find('\n').map_or(text.len(), |len| line + len);
            if let Some(tab) = text[line..line_end].find('\t') {
                let tabs = text[line + tab..].len() - text[line + tab..].trim_start_matches('\t').len();
                at = Place::new(file, line + tab, line + tab + tabs);
            }
            ("a tab is used for indentation".to_owned(), "a tab", "indent with spaces")
        }
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            ("a quote is opened but never closed".to_owned(), "missed by here", "add the closing quote")
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            (format!("`{open}` is opened but never closed"), "missed by here", "add the closing bracket")
        }
        ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => (
            "a list or map in brackets goes wrong before this".to_owned(),
            "not expected",
            "put `,` between the parts and close the bracket; quote texts with brackets or commas in them",
        ),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "a `:` stands where no value can begin".to_owned(),
            "this `:`",
            "put the key on a line of its own, or quote a text that has `: ` in it",
        ),
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("`{character}` cannot begin a value"), "here", "put quotes around the value")
        }
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            ("a key is not followed by `:`".to_owned(), "here", "write `key: value`")
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockSequenceEntry => (
            "the indentation does not fit what comes before".to_owned(),
            "this belongs to nothing above",
            "align it with its neighbours, in spaces",
        ),
        ErrorKind::RecursionLimitExceeded => (
            format!("nested more than {DEPTH_MAX} levels deep"),
            "here",
            "no key is that deep; is a bracket missing?",
        ),
        ErrorKind::DirectiveDisallowed => {
            ("directives are not used here".to_owned(), "a directive", "remove the line")
        }
        other => {
            (other.to_string(), "here", "this is not YAML; check brackets, quotes and indentation near here")
        }
    };
    Problem::error("config::syntax", message).at(at, label).help(help)
}
