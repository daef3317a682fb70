//! Is a text file clean: no machine's own paths or registries, no note without its issue, no stray blanks, no dead links?

use std::path::Path;

use super::{File, Findings};

/// Looks at one file; `all` is there for links.
pub(super) fn check(file: &File, all: &[File], found: &mut Findings) {
    let is_code =
        ["rs", "sh", "toml", "yml", "yaml", "py", "js", "css", "html"].iter().any(|kind| file.is(kind));
    for (at, line) in file.lines() {
        if let Some(path) = machine_path(line) {
            found.error(&file.path, at, format!("`{path}` is a path of one machine"));
        }
        if is_code && has_nameless_note(line) {
            found.error(&file.path, at, concat!("a TO", "DO names its issue: `#12`"));
        }
        if file.is("md") && line.ends_with([' ', '\t']) {
            found.error(&file.path, at, "blanks at the end of the line");
        }
        if file.is("md") && line.contains('\t') {
            found.error(&file.path, at, "a tab: use spaces");
        }
        if names_a_registry(file, line) {
            found.error(
                &file.path,
                at,
                "a registry other than the ecosystem's own; that belongs into a user's settings",
            );
        }
    }
    if file.is("md") {
        links(file, all, found);
    }
}

/// A path that exists on one machine only. It must begin a word: `$dir/root/x` is somebody else's.
fn machine_path(line: &str) -> Option<&str> {
    let begins_word = |at: usize| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| {
            c.is_whitespace() || "'=:(`[,<".contains(c) || c == '"' && !is_closing_quote(line, at)
        })
    };
    let word_from = |at: usize| {
        let rest = &line[at..];
        let end = rest.find(|c: char| c.is_whitespace() || "'\"`),;:>]".contains(c)).unwrap_or(rest.len());
        &rest[..end]
    };
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")].iter().find_map(|prefix| {
        let hit = line.match_indices(prefix).map(|(at, _)| at).find(|at| begins_word(*at))?;
        Some(word_from(hit))
    })
}

/// Whether the quote just before `at` closes a string, as in `"$root"/etc`.
fn is_closing_quote(line: &str, at: usize) -> bool {
    line[..at].matches('"').count().is_multiple_of(2)
}

fn has_nameless_note(line: &str) -> bool {
    line.match_indices(concat!("TO", "DO")).any(|(at, word)| {
        let rest = &line[at + word.len()..];
        let names_issue =
            rest.split('#').skip(1).any(|after| after.starts_with(|c: char| c.is_ascii_digit()));
        let is_word = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        is_word && !names_issue
    })
}

/// Settings that send a package manager elsewhere, and lock files that came from elsewhere.
fn names_a_registry(file: &File, line: &str) -> bool {
    let line = line.trim_start();
    if file.path.ends_with("Cargo.lock") {
        let ours = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        return line.starts_with("source = ") && line != ours;
    }
    let elsewhere = [
        concat!("replace-", "with"),
        concat!("index-", "url"),
        concat!("INDEX_", "URL="),
        concat!("[source", ".crates-io]"),
        concat!("[regis", "tries"),
        concat!("GO", "PROXY="),
    ];
    elsewhere.iter().any(|setting| line.contains(setting))
}

/// Every relative link leads to a file or folder of the tree.
fn links(file: &File, all: &[File], found: &mut Findings) {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let mut fenced = false;
    for (at, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        for after in line.split("](").skip(1).filter(|_| !fenced) {
            let target = after.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains(':') {
                continue;
            }
            let path = resolve(folder, target);
            let leads =
                all.iter().any(|other| other.path == path || other.path.starts_with(&format!("{path}/")));
            if !leads {
                found.error(&file.path, at, format!("the link `{target}` leads nowhere in the tree"));
            }
        }
    }
}

/// `folder` and a relative link, without `.` and `..`.
fn resolve(folder: &Path, link: &str) -> String {
    let mut parts: Vec<&str> =
        folder.to_str().unwrap_or_default().split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::tests::errors_in;
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found_where_it_begins() {
        for bad in [
            concat!("cd /wo", "rk/main"),
            concat!("path = \"/ro", "ot/.cargo\""),
            concat!("see `/ho", "me/ana/notes`"),
        ] {
            assert!(machine_path(bad).is_some(), "{bad}");
        }
        for good in [
            concat!("mkdir $r/ro", "ot/x"),
            concat!("cp a \"$r\"/ro", "ot/x"),
            concat!("https://host/wo", "rk/x"),
            "/var/lib/lidless",
        ] {
            assert!(machine_path(good).is_none(), "{good}");
        }
    }

    #[test]
    fn a_note_names_its_issue() {
        assert!(has_nameless_note(concat!("// TO", "DO: later")));
        assert!(!has_nameless_note(concat!("// TO", "DO(#12): later")));
        assert!(!has_nameless_note(concat!("let MASTO", "DON = 1;")));
    }

    #[test]
    fn markdown_has_no_stray_blanks_and_no_dead_links() {
        assert_eq!(errors_in("a.md", "word \n").len(), 1);
        assert_eq!(errors_in("a.md", "a\tb\n").len(), 1);
        assert_eq!(errors_in("docs/a.md", "[x](../gone.md#part)\n").len(), 1);
        assert!(errors_in("docs/a.md", "[x](../docs/a.md) [y](https://a.b) [z](#here)\n").is_empty());
        assert!(errors_in("docs/a.md", "```\n[x](gone.md)\n```\n").is_empty());
    }

    #[test]
    fn a_lock_file_from_another_registry_is_refused() {
        let ours = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert!(errors_in("Cargo.lock", ours).is_empty());
        assert_eq!(errors_in("Cargo.lock", "source = \"registry+https://example.com/index\"\n").len(), 1);
        assert_eq!(errors_in("Cargo.lock", "source = \"git+https://example.com/x\"\n").len(), 1);
    }
}
