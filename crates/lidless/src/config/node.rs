//! What did a file say, before anybody asks what it means? A tree of text in which each piece knows its place.

/// A piece of one source file, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// An index into the list of sources.
    pub file: u32,
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Place {
    /// Makes a place of byte offsets; a file is at most 16 MiB, so that the offsets always fit.
    pub fn new(file: u32, start: usize, end: usize) -> Place {
        let offset = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Place { file, start: offset(start), end: offset(end.max(start)) }
    }

    /// Returns the part of this place that begins `from` bytes in and ends `to` bytes in.
    pub fn part(self, from: usize, to: usize) -> Place {
        let part = Place::new(self.file, self.start as usize + from, self.start as usize + to);
        Place { start: part.start.min(self.end), end: part.end.min(self.end), ..part }
    }

    /// Returns the length in bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Returns whether the place is a point between two bytes.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A value and where it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sp<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub at: Place,
}

/// One node of the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// What it holds.
    pub value: Value,
    /// Where to point when something is wrong with it: itself if it is on one line, else the key that it belongs to.
    pub at: Place,
}

/// What a node holds. Scalars stay text: only the reader knows which type is wanted, so `no` is never a boolean by accident.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar, as written.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the file; keys are unique.
    Map(Vec<Entry>),
    /// Something that is refused and already reported: nothing more should be said about it.
    Broken,
}

/// One key of a map with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: Sp<String>,
    /// The value.
    pub node: Node,
}

impl Value {
    /// Returns how a message calls it: "a list".
    pub fn noun(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Broken => "something that is refused",
        }
    }
}
