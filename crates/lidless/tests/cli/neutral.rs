//! What differs from run to run? Times, lengths of time, process numbers, ports and folders, taken out by hand.

use std::path::Path;

const UNITS: [&str; 7] = ["µs", "us", "ms", "s", "min", "h", "d"];

/// Returns the text as it is in every run.
pub(super) fn neutral(text: &str, dir: &Path) -> String {
    let text = text.replace(&*dir.to_string_lossy(), "DIR");
    let lines: Vec<String> = text.lines().map(line).collect();
    lines.join("\n")
}

fn line(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = words[at];
        let next = words.get(at + 1).copied().unwrap_or("");
        let before = out.last().map_or("", String::as_str);
        if is_date(word) && words.len() > at + 2 && next.contains(':') {
            out.push("TIME".to_owned());
            at += 3;
        } else if is_number(bare(word)) && UNITS.contains(&bare(next)) {
            let open: String = word.chars().take_while(|c| *c == '(').collect();
            // "4 min 10 s" is one span.
            let mut end = at + 2;
            while is_number(words.get(end).copied().unwrap_or(""))
                && UNITS.contains(&bare(words.get(end + 1).copied().unwrap_or("")))
            {
                end += 2;
            }
            let last = words[end - 1];
            out.push(format!("{open}SPAN{}", &last[bare_len(last)..]));
            at = end;
        } else if is_number(bare(word)) && matches!(before, "process" | "pid" | "uid" | "(old") {
            out.push(format!("PID{}", &word[bare_len(word)..]));
            at += 1;
        } else if is_number(word) && next.starts_with("probes") {
            out.push("N".to_owned());
            at += 1;
        } else {
            out.push(word.to_owned());
            at += 1;
        }
    }
    let out = out.join(" ");
    if out == text { out } else { collapse(&out) }
}

/// Columns are as wide as what was in them: more than two blanks say nothing, except at the beginning.
fn collapse(text: &str) -> String {
    let indent = text.len() - text.trim_start_matches(' ').len();
    let mut out = text[..indent].to_owned();
    let mut blanks = 0;
    for c in text[indent..].chars() {
        blanks = if c == ' ' { blanks + 1 } else { 0 };
        if blanks <= 2 {
            out.push(c);
        }
    }
    out
}

/// The word without brackets before it and marks behind it.
fn bare(word: &str) -> &str {
    word.trim_start_matches('(').trim_end_matches([',', ';', ')', ':', '.'])
}

fn bare_len(word: &str) -> usize {
    word.trim_end_matches([',', ';', ')', ':', '.']).len()
}

fn is_number(word: &str) -> bool {
    !word.is_empty()
        && word.chars().all(|c| c.is_ascii_digit() || c == '.')
        && word.starts_with(|c: char| c.is_ascii_digit())
}

fn is_date(word: &str) -> bool {
    word.len() == 10 && word.matches('-').count() == 2 && word.chars().all(|c| c.is_ascii_digit() || c == '-')
}
