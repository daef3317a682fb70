//! Does the tree keep its own rules? Each rule lives in the file named after what it looks at.
//!
//! `cargo xtask tidy` and `cargo test` run the same checks. A line that must break a text rule carries, on itself or
//! on the line above, `tidy-allow:` and a reason.

mod crates;
mod pages;
mod rust;
mod text;

use std::fmt;
use std::path::Path;

use crate::shell;

/// What one look at the tree found.
#[derive(Default)]
pub(crate) struct Findings {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

struct Finding {
    path: String,
    /// From 1; 0 is the file as a whole.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

impl Findings {
    fn error(&mut self, path: &str, line: usize, message: impl Into<String>) {
        self.errors.push(Finding { path: path.to_owned(), line, message: message.into() });
    }

    fn warning(&mut self, path: &str, line: usize, message: impl Into<String>) {
        self.warnings.push(Finding { path: path.to_owned(), line, message: message.into() });
    }
}

/// A file of the tree whose content is text.
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Each line with its number from 1, without those that are excused.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut excused = false;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let reason = line.split_once("tidy-allow:").map(|(_, reason)| reason.trim());
            let here = reason.is_some_and(|reason| !reason.is_empty());
            let skip = here || excused;
            excused = here;
            (!skip).then_some((at + 1, line))
        })
    }
}

/// Looks, prints what it found, and sums it up when that is an error.
pub(crate) fn check_and_print() -> Result<(), String> {
    if !shell::root().join(".git").exists() {
        println!("tidy: skipped, for this is not a git checkout and so there is no list of files");
        return Ok(());
    }
    let files = files()?;
    let found = check(&files);
    for warning in &found.warnings {
        println!("warning: {warning}");
    }
    for error in &found.errors {
        println!("error: {error}");
    }
    match found.errors.len() {
        0 => {
            println!("tidy: {} files, {} warnings", files.len(), found.warnings.len());
            Ok(())
        }
        1 => Err("the tree breaks one of its rules".to_owned()),
        many => Err(format!("the tree breaks its rules in {many} places")),
    }
}

fn check(files: &[File]) -> Findings {
    let mut found = Findings::default();
    for file in files {
        if file.is("rs") {
            rust::check(file, &mut found);
        }
        text::check(file, files, &mut found);
    }
    crates::check(files, &mut found);
    pages::check(files, &mut found);
    found
}

/// Every text file that git tracks or would track.
fn files() -> Result<Vec<File>, String> {
    let root = shell::root();
    // In a container the checkout often belongs to another user; listing names is harmless.
    let trust = format!("safe.directory={}", root.display());
    let listing = ["-c", &trust, "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let names = shell::output("git", &listing)?;
    let mut files: Vec<File> = names
        .split('\0')
        .filter(|name| !name.is_empty())
        // Deleted but not yet staged, or not text: nothing to look at.
        .filter_map(|name| {
            Some(File { path: name.to_owned(), text: std::fs::read_to_string(root.join(name)).ok()? })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors that one file alone causes, as text.
    pub(super) fn errors_in(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        let mut found = Findings::default();
        if file.is("rs") {
            rust::check(&file, &mut found);
        }
        text::check(&file, std::slice::from_ref(&file), &mut found);
        found.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_tree_is_tidy() {
        check_and_print().expect("the rules are listed above");
    }

    #[test]
    fn a_reason_excuses_its_own_line_and_the_next() {
        let pause = concat!("thread::", "sleep(step);");
        let path = "crates/x/tests/wait.rs";
        let excused = format!("//! Q\n// tidy-allow: pause between two looks\n{pause}\n");
        assert!(errors_in(path, &excused).is_empty());
        let beside = format!("//! Q\n{pause} // tidy-allow: pause between two looks\n");
        assert!(errors_in(path, &beside).is_empty());
        let no_reason = format!("//! Q\n// tidy-allow:\n{pause}\n");
        assert_eq!(errors_in(path, &no_reason).len(), 1);
        let two_later = format!("//! Q\n// tidy-allow: pause\nlet a = 1;\n{pause}\n");
        assert_eq!(errors_in(path, &two_later).len(), 1);
    }
}
