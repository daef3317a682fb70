//! Does a Rust file say what it answers, stay small, and test without sleeping or ignoring?

use super::{File, Findings};

const LINES_MAX: usize = 450;
const LINES_GOOD: usize = 400;

/// Looks at one `.rs` file. Its own patterns are written in two parts, so that it does not find itself.
pub(super) fn check(file: &File, found: &mut Findings) {
    let first = file.text.lines().next().unwrap_or_default();
    if !first.starts_with("//!") && !first.starts_with("#!") {
        found.error(&file.path, 1, "the first line must be `//!` and the question that this file answers");
    }
    let lines = file.text.lines().count();
    let in_src = file.path.starts_with("src/") || file.path.contains("/src/");
    let in_tests = file.path.starts_with("tests/") || file.path.contains("/tests/");
    if in_src && lines > LINES_MAX {
        found.error(&file.path, 0, format!("{lines} lines, {LINES_MAX} is the limit: split it by question"));
    } else if in_src && lines > LINES_GOOD {
        found.warning(
            &file.path,
            0,
            format!("{lines} lines, {LINES_GOOD} is where a split by question is due"),
        );
    }

    for (at, line) in file.lines() {
        let code = line.trim_start();
        if code.starts_with(concat!("#[", "ignore")) {
            found.error(
                &file.path,
                at,
                "no ignored tests: assert the wrong behaviour with a FIXME, or skip with a reason",
            );
        }
        if code.contains(concat!("to", "do!(")) || code.contains(concat!("unimple", "mented!(")) {
            found.error(&file.path, at, "not written yet: write it, or return an error that says so");
        }
        let sleeps = [concat!("thread::", "sleep"), concat!("time::", "sleep")];
        if in_tests && sleeps.iter().any(|sleep| code.contains(sleep)) {
            found.error(
                &file.path,
                at,
                "tests wait for a condition with a deadline, not for a duration (a pause between two looks: \
                 `// tidy-allow: pause between two looks`)",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::errors_in;

    #[test]
    fn a_file_must_say_which_question_it_answers() {
        assert!(errors_in("a/src/x.rs", "//! When?\n").is_empty());
        assert!(errors_in("a/src/x.rs", "#![forbid(unsafe_code)]\n").is_empty());
        assert_eq!(errors_in("a/src/x.rs", "use std::fmt;\n").len(), 1);
    }

    #[test]
    fn a_source_file_has_at_most_450_lines() {
        let lines = |count: usize| format!("//! Q\n{}", "\n".repeat(count - 1));
        assert!(errors_in("a/src/x.rs", &lines(450)).is_empty());
        assert_eq!(errors_in("a/src/x.rs", &lines(451)).len(), 1);
        assert!(errors_in("a/tests/x.rs", &lines(451)).is_empty());
    }

    #[test]
    fn ignored_tests_and_holes_are_refused() {
        for bad in [concat!("    #[", "ignore]"), concat!("to", "do!()"), concat!("unimple", "mented!()")] {
            assert_eq!(errors_in("a/src/x.rs", &format!("//! Q\n{bad}\n")).len(), 1, "{bad}");
        }
    }

    #[test]
    fn tests_do_not_sleep_but_the_product_may() {
        let text = concat!("//! Q\ntokio::time::", "sleep(backoff).await;\n");
        assert!(errors_in("a/src/x.rs", text).is_empty());
        assert_eq!(errors_in("a/tests/x.rs", text).len(), 1);
    }
}
