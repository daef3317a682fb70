//! What do people and scripts see? Words and shapes beside every colour; ASCII, plain and quiet where that is all there is.
//!
//! The one place that writes to stdout: a reader that went away is no error, and what cannot be written is said once.

use std::io::{self, Write};

use lidless_core::health::Health;

/// The form of what is written to stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// Text for people
    #[default]
    Human,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
}

/// When to use colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also in a pipe
    Always,
    /// Nowhere
    Never,
}

/// What one stream can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// Whether colours are wanted.
    pub color: bool,
    /// Whether the locale is UTF-8.
    pub utf8: bool,
    /// Whether a person looks at it.
    pub terminal: bool,
    /// How wide it is; lines to a pipe are never cut.
    pub width: usize,
}

/// A shape that says the same as its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Well.
    Up,
    /// Failing, not yet believed.
    Suspect,
    /// Not well.
    Down,
    /// Passing again, not yet believed.
    Recovering,
    /// Nobody knows.
    Unknown,
    /// A step of a run.
    Step,
    /// Nothing to be said.
    None,
}

impl Mark {
    /// Returns the mark of a health word, as the daemon's documents have it.
    pub fn of_word(word: &str) -> Mark {
        match word {
            "up" => Mark::Up,
            "suspect" => Mark::Suspect,
            "down" => Mark::Down,
            "recovering" => Mark::Recovering,
            _ => Mark::Unknown,
        }
    }

    /// Returns the shape and its ASCII stand-in, equally wide within each of the two.
    fn shapes(self) -> (&'static str, &'static str) {
        match self {
            Mark::Up => ("●", "ok  "),
            Mark::Suspect => ("▲", "warn"),
            Mark::Down => ("✗", "FAIL"),
            Mark::Recovering => ("↻", "..  "),
            Mark::Unknown => ("?", "?   "),
            Mark::Step => ("→", "->  "),
            Mark::None => (" ", "    "),
        }
    }

    fn ansi(self) -> &'static str {
        match self {
            Mark::Up => "32",
            Mark::Suspect | Mark::Recovering => "33",
            Mark::Down => "31;1",
            Mark::Unknown => "35",
            Mark::Step => "36",
            Mark::None => "0",
        }
    }
}

impl From<Health> for Mark {
    fn from(health: Health) -> Mark {
        match health {
            Health::Unknown => Mark::Unknown,
            Health::Up => Mark::Up,
            Health::Suspect { .. } => Mark::Suspect,
            Health::Down => Mark::Down,
            Health::Recovering { .. } => Mark::Recovering,
        }
    }
}

impl Style {
    /// Looks at stdout.
    pub fn of_stdout(color: Color) -> Style {
        Style::of(&io::stdout(), color)
    }

    /// Looks at stderr.
    pub fn of_stderr(color: Color) -> Style {
        Style::of(&io::stderr(), color)
    }

    fn of(stream: &(impl std::os::fd::AsFd + io::IsTerminal), color: Color) -> Style {
        let terminal = stream.is_terminal();
        let variable = |name: &str| std::env::var(name).ok();
        let size = rustix::termios::tcgetwinsize(stream).ok().map(|size| usize::from(size.ws_col));
        let columns = variable("COLUMNS").and_then(|text| text.parse().ok());
        Style {
            color: wants_color(color, terminal, &variable),
            utf8: is_utf8(&variable),
            terminal,
            width: columns.or(size).filter(|width| *width >= 20).unwrap_or(100),
        }
    }

    /// Returns the mark's shape, coloured if colours are wanted.
    pub fn mark(&self, mark: Mark) -> String {
        let (shape, ascii) = mark.shapes();
        self.paint(mark, if self.utf8 { shape } else { ascii })
    }

    /// Returns the text in the mark's colour, if colours are wanted.
    pub fn paint(&self, mark: Mark, text: &str) -> String {
        let plain = !self.color || mark == Mark::None;
        if plain { text.to_owned() } else { format!("\x1b[{}m{text}\x1b[0m", mark.ansi()) }
    }

    /// Returns the text dimmed, if colours are wanted.
    pub fn dim(&self, text: &str) -> String {
        if self.color { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Returns the text bold, if colours are wanted.
    pub fn bold(&self, text: &str) -> String {
        if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Cuts a line of plain text that a terminal would wrap, beginning `indent` columns in. A pipe gets all of it.
    pub fn fit(&self, text: &str, indent: usize) -> String {
        let room = self.width.saturating_sub(indent).max(10);
        if !self.terminal || text.chars().count() <= room {
            return text.to_owned();
        }
        text.chars().take(room - 1).chain(['…']).collect()
    }

    /// Returns the text in what the locale can show. JSON is UTF-8 by definition and does not come here.
    pub fn fold(&self, text: &str) -> String {
        if self.utf8 || text.is_ascii() {
            return text.to_owned();
        }
        let mut folded = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '→' => folded.push_str("->"),
                '…' => folded.push_str("..."),
                'µ' => folded.push('u'),
                '×' | '✗' => folded.push('x'),
                '✓' => folded.push_str("ok"),
                c if c.is_ascii() => folded.push(c),
                _ => folded.push('?'),
            }
        }
        folded
    }
}

fn wants_color(color: Color, terminal: bool, variable: &impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| variable(name).is_some_and(|value| !value.is_empty());
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if set("NO_COLOR") => false,
        Color::Auto
            if variable("CLICOLOR_FORCE").is_some_and(|value| !matches!(value.as_str(), "" | "0")) =>
        {
            true
        }
        Color::Auto => terminal && variable("TERM").is_none_or(|term| term != "dumb"),
    }
}

/// The first of these variables that is not empty decides, as for every program. None of them set is the C locale by the
/// letter, but in containers and units it only means that nobody said; UTF-8 is then what the other end reads.
fn is_utf8(variable: &impl Fn(&str) -> Option<String>) -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = names.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty());
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// stdout. Remembers what became of it.
#[derive(Debug)]
pub(super) struct Out {
    to: io::BufWriter<io::Stdout>,
    failed: Option<io::Error>,
}

impl Out {
    pub(super) fn new() -> Out {
        Out { to: io::BufWriter::with_capacity(32 * 1024, io::stdout()), failed: None }
    }

    /// Writes; what follows a failure is dropped.
    pub(super) fn write(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = self.to.write_all(text.as_bytes()).err();
        }
    }

    /// Hands everything over to the reader.
    pub(super) fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.to.flush().err();
        }
    }

    /// Whether anybody still reads.
    pub(super) fn is_open(&self) -> bool {
        self.failed.is_none()
    }

    /// Returns why something could not be written; a reader that had enough is no failure.
    pub(super) fn failure(&self) -> Option<&io::Error> {
        self.failed.as_ref().filter(|err| err.kind() != io::ErrorKind::BrokenPipe)
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // After a failure the buffer would be tried again, and on a reader that is gone for nothing.
        if self.failed.is_none() {
            self.flush();
        }
    }
}

/// One field of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    /// A shape; what follows stands close to it.
    Shape(Mark),
    /// Plain text.
    Text(String),
    /// Text in the colour of a mark.
    Painted(Mark, String),
}

impl Cell {
    fn plain(&self, style: &Style) -> String {
        match self {
            Cell::Shape(mark) => Style { color: false, ..*style }.mark(*mark),
            Cell::Text(text) | Cell::Painted(_, text) => text.clone(),
        }
    }
}

/// Lines of equal columns. The widths are those of the plain text; paint is put on afterwards.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Adds a line.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Returns the lines; the last column is cut at the width of the terminal.
    pub fn lines(&self, style: &Style, indent: &str) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells =
                self.rows.iter().filter(|row| column + 1 < row.len()).filter_map(|row| row.get(column));
            cells.map(|cell| cell.plain(style).chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<Cell>| {
            let mut line = indent.to_owned();
            let mut used = indent.chars().count();
            for (column, cell) in row.iter().enumerate() {
                let (last, text) = (column + 1 == row.len(), cell.plain(style));
                let text = if last { style.fit(&text, used) } else { text };
                let length = text.chars().count();
                let (gap, shown) = match cell {
                    Cell::Shape(mark) => (1, style.paint(*mark, &text)),
                    Cell::Text(_) => (2, text),
                    Cell::Painted(mark, _) => (2, style.paint(*mark, &text)),
                };
                let pad = if last { 0 } else { widths[column] - length + gap };
                used += length + pad;
                line.push_str(&shown);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn color(choice: Color, terminal: bool, set: &[(&str, &str)]) -> bool {
        wants_color(choice, terminal, &|name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        assert!(color(Color::Auto, true, &[("TERM", "xterm")]));
        assert!(!color(Color::Auto, true, &[("TERM", "dumb")]));
        assert!(!color(Color::Auto, true, &[("NO_COLOR", "1")]));
        assert!(color(Color::Auto, true, &[("NO_COLOR", "")]), "an empty NO_COLOR is none");
        assert!(!color(Color::Auto, false, &[]));
        assert!(color(Color::Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!color(Color::Auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!color(Color::Auto, true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
        assert!(color(Color::Always, false, &[("NO_COLOR", "1")]), "a flag is more than a variable");
        assert!(!color(Color::Never, true, &[("CLICOLOR_FORCE", "1")]));
    }

    #[test]
    fn the_locale_is_what_the_first_variable_says() {
        let utf8 = |set: &[(&str, &str)]| {
            is_utf8(&|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(utf8(&[("LANG", "de_DE.UTF-8")]));
        assert!(utf8(&[("LC_ALL", "C.utf8"), ("LANG", "C")]));
        assert!(!utf8(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")]));
        assert!(!utf8(&[("LC_ALL", ""), ("LC_CTYPE", "POSIX"), ("LANG", "C.UTF-8")]));
        assert!(utf8(&[]), "nobody said");
    }

    const PLAIN: Style = Style { color: false, utf8: true, terminal: false, width: 40 };

    #[test]
    fn columns_line_up_and_only_a_terminal_cuts() {
        let text = |text: &str| Cell::Text(text.to_owned());
        let mut table = Table::default();
        table.row(vec![Cell::Shape(Mark::Up), text("a"), text(&"x".repeat(50))]);
        table.row(vec![Cell::Shape(Mark::Down), Cell::Painted(Mark::Down, "long".to_owned()), text("y")]);
        assert_eq!(
            table.lines(&PLAIN, " "),
            [format!(" ● a     {}", "x".repeat(50)), " ✗ long  y".to_owned()]
        );
        let terminal = Style { terminal: true, ..PLAIN };
        assert_eq!(table.lines(&terminal, " ")[0], format!(" ● a     {}…", "x".repeat(30)));
        let painted = Style { color: true, ..PLAIN };
        assert_eq!(table.lines(&painted, "")[1], "\x1b[31;1m✗\x1b[0m \x1b[31;1mlong\x1b[0m  y");
        let ascii = Style { utf8: false, ..PLAIN };
        assert_eq!(table.lines(&ascii, "")[1], "FAIL long  y");
    }

    #[test]
    fn ascii_keeps_the_meaning() {
        let ascii = Style { utf8: false, ..PLAIN };
        assert_eq!(ascii.fold("→ RESTART … 12 µs Straße"), "-> RESTART ... 12 us Stra?e");
        assert_eq!(ascii.mark(Mark::Down), "FAIL");
        assert_eq!(PLAIN.mark(Mark::Down), "✗");
    }
}
