//! Are the pages true? ARCHITECTURE.md has every crate and names tests that exist; docs/config.md has every key.

use std::collections::BTreeSet;

use super::{File, Findings};

const PAGE: &str = "ARCHITECTURE.md";

/// Where the keys of the configuration are, and the page that explains them.
const KEYS: &str = "crates/lidless/src/config/shape.rs";
const KEYS_PAGE: &str = "docs/config.md";

/// Looks at the pages that are there.
pub(super) fn check(files: &[File], found: &mut Findings) {
    architecture(files, found);
    keys(files, found);
}

/// Every key that a configuration may have is on its page.
fn keys(files: &[File], found: &mut Findings) {
    let named = |path: &str| files.iter().find(|file| file.path == path);
    let (Some(shape), Some(page)) = (named(KEYS), named(KEYS_PAGE)) else { return };
    // `key("every", ..)` and `required("url", ..)`, perhaps with the name on the next line.
    for opening in ["key(", "required("] {
        for (start, _) in shape.text.match_indices(opening) {
            let rest = shape.text[start + opening.len()..].trim_start();
            let Some(key) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
            let forms = [format!("`{key}`"), format!("`{key}."), format!(".{key}`"), format!("{{ {key}: ")];
            if !forms.iter().any(|form| page.text.contains(form.as_str())) {
                let at = shape.text[..start].lines().count();
                found.error(&shape.path, at, format!("the key `{key}` is not in {KEYS_PAGE}"));
            }
        }
    }
}

fn architecture(files: &[File], found: &mut Findings) {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else { return };
    for manifest in files {
        let Some(name) =
            manifest.path.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml"))
        else {
            continue;
        };
        if !page.text.contains(&format!("`{name}`")) && !page.text.contains(&format!("{name}/")) {
            found.error(PAGE, 0, format!("`{name}` is not on the page"));
        }
    }

    let functions = functions(files);
    for (at, holder) in holders(page) {
        match kind(holder) {
            Holder::Test(name) if !functions.contains(name) => {
                found.error(PAGE, at, format!("no test is named `{name}`"));
            }
            Holder::Path(path)
                if !files
                    .iter()
                    .any(|file| file.path == path || file.path.starts_with(&format!("{path}/"))) =>
            {
                found.error(PAGE, at, format!("there is no file `{path}`"));
            }
            Holder::Test(_) | Holder::Path(_) | Holder::Word => {}
        }
    }
}

/// What a name in the column can be.
enum Holder<'a> {
    Test(&'a str),
    Path(&'a str),
    /// A command, a lint: nothing that can be looked up here.
    Word,
}

fn kind(name: &str) -> Holder<'_> {
    let is_identifier = |word: &str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let last = name.rsplit("::").next().unwrap_or(name);
    if name.contains(' ') {
        Holder::Word
    } else if name.contains('/') {
        Holder::Path(name.trim_end_matches('/'))
    } else if is_identifier(last) {
        Holder::Test(last)
    } else {
        Holder::Word
    }
}

/// The names in backticks in each table column headed "held by", with their lines.
fn holders(page: &File) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    let mut column = None;
    for (at, line) in page.text.lines().enumerate() {
        if !line.trim_start().starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        match column {
            None => column = cells.iter().position(|cell| cell.trim().eq_ignore_ascii_case("held by")),
            Some(column) => {
                let cell = cells.get(column).copied().unwrap_or_default();
                names.extend(cell.split('`').skip(1).step_by(2).map(|name| (at + 1, name)));
            }
        }
    }
    names
}

/// The name of every function in the tree.
fn functions(files: &[File]) -> BTreeSet<&str> {
    let lines = files.iter().filter(|file| file.is("rs")).flat_map(|file| file.text.lines());
    lines
        .filter_map(|line| {
            let (before, rest) = line.split_once("fn ")?;
            let begins = before.is_empty() || before.ends_with(' ');
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            (begins && end > 0).then(|| &rest[..end])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(page: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file(PAGE, page),
            file("crates/lidless-core/Cargo.toml", ""),
            file(
                "crates/lidless-core/src/engine.rs",
                "    #[test]\n    async fn one_effect_one_record() {\n",
            ),
        ];
        let mut found = Findings::default();
        check(&files, &mut found);
        found.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_named_test_must_exist() {
        let table = |cell: &str| {
            format!("`lidless-core`\n\n| # | invariant | held by |\n|---|---|---|\n| 1 | x | {cell} |\n")
        };
        for good in [
            "`one_effect_one_record`",
            "`engine::one_effect_one_record`",
            "`cargo xtask tidy`, `disallowed-methods`",
        ] {
            assert!(errors(&table(good)).is_empty(), "{good}");
        }
        assert!(errors(&table("`crates/lidless-core/src/engine.rs`, `crates/lidless-core`")).is_empty());
        assert_eq!(errors(&table("`crates/lidless-core/src/gone.rs`")).len(), 1);
        assert_eq!(errors(&table("`one_effect_one_record`, `nobody_wrote_this`")).len(), 1);
        assert_eq!(
            errors("`lidless-core`\n\n| # | says |\n|---|---|\n| 1 | `nobody_wrote_this` |\n").len(),
            0
        );
    }

    #[test]
    fn every_key_of_the_configuration_is_explained() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let shape = file(KEYS, "    keys: &[key(\"every\", X), required(\"url\", X), key(\"secret\", X)],\n");
        let mut found = Findings::default();
        keys(&[shape, file(KEYS_PAGE, "| `every` | x |\n| `http.url` | x |\n")], &mut found);
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, [format!("{KEYS}:1: the key `secret` is not in {KEYS_PAGE}")]);
    }

    #[test]
    fn every_crate_is_on_the_page() {
        assert_eq!(errors("nothing here\n").len(), 1);
    }
}
