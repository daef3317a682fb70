//! How did each step go, and how long did it take? Header, output as it comes, then one table.

use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::shell;

/// How a step ended.
pub(crate) enum Done {
    /// It did what it should.
    Passed,
    /// It did not apply here, and why.
    Skipped(String),
    /// It failed, and how.
    Failed(String),
    /// An earlier step failed first.
    NotRun,
}

impl Done {
    /// A step that does not apply here.
    pub(crate) fn skipped(why: &str) -> Done {
        Done::Skipped(why.to_owned())
    }

    /// Runs a command with its output passed through.
    pub(crate) fn of(command: &mut Command) -> Done {
        match command.status() {
            Ok(status) if status.success() => Done::Passed,
            Ok(status) => Done::Failed(status.to_string()),
            Err(err) => Done::Failed(format!("cannot be run: {err}")),
        }
    }
}

impl From<Result<(), String>> for Done {
    fn from(result: Result<(), String>) -> Done {
        result.map_or_else(Done::Failed, |()| Done::Passed)
    }
}

/// The steps so far.
pub(crate) struct Steps {
    rows: Vec<Row>,
    keep_going: bool,
    colour: bool,
}

struct Row {
    name: String,
    alone: String,
    done: Done,
    took: Duration,
}

impl Steps {
    /// No steps yet.
    pub(crate) fn new(keep_going: bool) -> Steps {
        let wanted = !shell::in_ci() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Steps { rows: Vec::new(), keep_going, colour: wanted && std::io::stdout().is_terminal() }
    }

    /// Runs a command as a step; the command itself is how to run the step alone.
    pub(crate) fn command(&mut self, name: &str, line: &[&str]) {
        let quoted: Vec<String> = line.iter().map(|word| quote(word)).collect();
        let coloured = self.colour;
        self.run(name, &quoted.join(" "), || match line.split_first() {
            Some((program, args)) => {
                let mut command = shell::command(program);
                if !coloured {
                    command.env("CARGO_TERM_COLOR", "never").env("NO_COLOR", "1");
                }
                Done::of(command.args(args))
            }
            None => Done::Failed("there is no command".to_owned()),
        });
    }

    /// Runs one step; `alone` is the command that runs it by itself.
    pub(crate) fn run(&mut self, name: &str, alone: &str, step: impl FnOnce() -> Done) {
        let (name, alone) = (name.to_owned(), alone.to_owned());
        if !self.keep_going && self.has_failed() {
            self.rows.push(Row { name, alone, done: Done::NotRun, took: Duration::ZERO });
            return;
        }
        self.say(&format!("\n{} {name}: {alone}", self.paint("1;34", "==>")));
        let start = Instant::now();
        let done = step();
        let took = start.elapsed();
        match &done {
            Done::Passed => self.say(&format!("{} {name}, {}", self.paint("32", "ok"), seconds(took))),
            Done::Skipped(why) => self.say(&format!("{} {name}: {why}", self.paint("33", "skipped"))),
            Done::Failed(how) => self.say(&format!("{} {name}: {how}", self.paint("1;31", "FAILED"))),
            Done::NotRun => {}
        }
        self.rows.push(Row { name, alone, done, took });
    }

    /// Prints the table, and what to type next when something failed.
    pub(crate) fn finish(self) -> ExitCode {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        self.say("");
        for row in &self.rows {
            let (word, note) = match &row.done {
                Done::Passed => (self.paint("32", "ok     "), ""),
                Done::Skipped(why) => (self.paint("33", "skipped"), why.as_str()),
                Done::Failed(how) => (self.paint("1;31", "FAILED "), how.as_str()),
                Done::NotRun => ("not run".to_owned(), ""),
            };
            let line = format!("  {:<width$}  {word}  {:>9}  {note}", row.name, seconds(row.took));
            self.say(line.trim_end());
        }
        let total = self.rows.iter().map(|row| row.took).sum();
        self.say(&format!("  {:<width$}           {:>9}", "total", seconds(total)));

        let failed = |row: &&Row| matches!(row.done, Done::Failed(_));
        for row in self.rows.iter().filter(failed) {
            self.say(&format!("\n`{}` failed. Run it alone:\n  {}", row.name, row.alone));
        }
        if self.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn has_failed(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.done, Done::Failed(_)))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// One line, out at once: what the children print must come after it. A reader that has gone away is no failure.
    fn say(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// The word as a shell wants it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_the_rest_is_not_run_unless_asked_to() {
        for (keep_going, runs) in [(false, 0), (true, 1)] {
            let mut steps = Steps::new(keep_going);
            let mut count = 0;
            steps.run("first", "false", || Done::Failed("on purpose".to_owned()));
            steps.run("second", "true", || {
                count += 1;
                Done::Passed
            });
            assert_eq!(count, runs);
            assert!(steps.has_failed());
        }
    }

    #[test]
    fn a_filter_is_quoted_so_that_it_can_be_pasted() {
        assert_eq!(quote("--workspace"), "--workspace");
        assert_eq!(quote("not (binary(/^kill/))"), "'not (binary(/^kill/))'");
    }
}
