//! What did a Nagios plugin say? Its line of text, and its performance data.
//!
//! `OK - load 0.5 | load1=0.5;4;8;0; 'disk /'=93%` - the text stands before the bar, the data behind it. A plugin may write
//! anything: what cannot be read is left out, never guessed, and never an error.

use super::wording;

/// The most values that are kept of one answer.
const VALUES_MAX: usize = 1_000;

/// What a plugin wrote.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PluginOutput {
    /// The first line, up to the bar.
    pub text: String,
    /// The values behind the bars.
    pub values: Vec<PluginValue>,
}

/// One value of the performance data: `label=value[unit];[warn];[crit];[min];[max]`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PluginValue {
    /// Its name.
    pub label: String,
    /// The value; `None` where the plugin could not determine it (`U`). Always finite.
    pub value: Option<f64>,
    /// Its unit: empty, `s`, `ms`, `%`, `B`, `c` ..
    pub unit: String,
    /// The range that is fine without a warning, in the plugin's notation.
    pub warn: Option<String>,
    /// The range that is not critical, in the plugin's notation.
    pub crit: Option<String>,
    /// The least possible value.
    pub min: Option<f64>,
    /// The greatest possible value.
    pub max: Option<f64>,
}

impl PluginOutput {
    /// Reads what a plugin wrote to its standard output.
    pub fn parse(stdout: &[u8]) -> Self {
        let mut lines = stdout.split(|byte| *byte == b'\n');
        let (text, data) = at_bar(lines.next().unwrap_or_default());
        let mut output = PluginOutput { text: wording::first_line(text), values: Vec::new() };
        output.read(data);
        // Then comes long text up to the next bar, and all that follows the bar is data.
        let mut behind_bar = false;
        for line in lines {
            if behind_bar {
                output.read(line);
            } else if line.contains(&b'|') {
                behind_bar = true;
                output.read(at_bar(line).1);
            }
        }
        output
    }

    fn read(&mut self, data: &[u8]) {
        let data = String::from_utf8_lossy(data);
        let mut rest = data.trim();
        while !rest.is_empty() && self.values.len() < VALUES_MAX {
            let Some((label, after)) = label(rest) else {
                // Not a label: go on behind the next blank.
                rest = rest.split_once(char::is_whitespace).map_or("", |(_, after)| after.trim_start());
                continue;
            };
            let (value, after) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
            rest = after.trim_start();
            self.values.extend(PluginValue::parse(label, value));
        }
    }
}

impl PluginValue {
    fn parse(label: String, text: &str) -> Option<Self> {
        let mut fields = text.split(';');
        let (value, unit) = quantity(fields.next().unwrap_or_default())?;
        let mut threshold = || fields.next().filter(|field| !field.is_empty()).map(str::to_owned);
        let (warn, crit) = (threshold(), threshold());
        let mut bound = || fields.next().and_then(number);
        let (min, max) = (bound(), bound());
        Some(PluginValue { label, value, unit: unit.to_owned(), warn, crit, min, max })
    }
}

fn at_bar(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b'|') {
        Some(bar) => (&line[..bar], &line[bar + 1..]),
        None => (line, b""),
    }
}

/// Reads a label up to its equals sign. A quoted one may hold blanks, equals signs, and quotes that are written twice.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let end = text.find(|character: char| character == '=' || character.is_whitespace())?;
        let after = text[end..].strip_prefix('=')?;
        return (end > 0).then(|| (text[..end].to_owned(), after));
    };
    let mut label = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('\'')?;
        label.push_str(before);
        match after.strip_prefix('\'') {
            Some(more) => {
                label.push('\'');
                rest = more;
            }
            None => return after.strip_prefix('=').filter(|_| !label.is_empty()).map(|after| (label, after)),
        }
    }
}

/// Splits `93.5%` into its number and its unit. `U` is an answer without a number.
fn quantity(text: &str) -> Option<(Option<f64>, &str)> {
    if text == "U" {
        return Some((None, ""));
    }
    let end = text
        .find(|character: char| !matches!(character, '0'..='9' | '-' | '+' | '.' | ','))
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    number(digits).map(|value| (Some(value), unit))
}

/// Reads a number. Some plugins write it with the decimal comma of their locale.
fn number(text: &str) -> Option<f64> {
    let value: f64 = if text.contains(',') { text.replace(',', ".").parse() } else { text.parse() }.ok()?;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(data: &str) -> Vec<(String, Option<f64>, String)> {
        let parsed = PluginOutput::parse(format!("OK | {data}").as_bytes());
        parsed.values.into_iter().map(|value| (value.label, value.value, value.unit)).collect()
    }

    fn value(label: &str, value: impl Into<Option<f64>>, unit: &str) -> (String, Option<f64>, String) {
        (label.into(), value.into(), unit.into())
    }

    #[test]
    fn a_full_answer_is_read_over_its_lines() {
        let output =
            PluginOutput::parse(b"DISK OK - free | /=2643MB;5948;5958;0;5968\nlong\ntext | 'a b'=1\nc=3s");
        assert_eq!(output.text, "DISK OK - free");
        assert_eq!(
            output.values[0],
            PluginValue {
                label: "/".into(),
                value: Some(2643.0),
                unit: "MB".into(),
                warn: Some("5948".into()),
                crit: Some("5958".into()),
                min: Some(0.0),
                max: Some(5968.0),
            }
        );
        assert_eq!(output.values[1..].iter().map(|v| &*v.label).collect::<Vec<_>>(), ["a b", "c"]);
    }

    #[test]
    fn values_come_in_every_notation_that_plugins_use() {
        assert_eq!(
            values("a=1 'b c'=-2.5% 'it''s=x'=3ms d=U;;;0 e=1,5s f=.5;@10:20;~:5"),
            [
                value("a", 1.0, ""),
                value("b c", -2.5, "%"),
                value("it's=x", 3.0, "ms"),
                value("d", None, ""),
                value("e", 1.5, "s"),
                value("f", 0.5, ""),
            ]
        );
        assert_eq!(values("junk =3 a=x 'open=1 b=2"), [value("b", 2.0, "")]);
        assert_eq!(values("a=1e999 b=- c=nan d=inf"), [value("a", 1.0, "e999")]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            PluginOutput::parse(&bytes);
        }

        #[test]
        fn no_mixture_of_its_own_signs_makes_it_panic(text in "[|'=; \n0-9.,U%a-]{0,200}") {
            let output = PluginOutput::parse(text.as_bytes());
            prop_assert!(output.values.iter().all(|value| !value.label.is_empty()));
            prop_assert!(output.values.iter().filter_map(|value| value.value).all(f64::is_finite));
        }

        #[test]
        fn what_is_written_by_the_book_is_read_back(label in "[ -~]{1,20}", number in -1e6..1e6f64, unit in "[a-zA-Z%]{0,3}") {
            prop_assume!(!label.contains('|'));
            let number = (number * 1e3).round() / 1e3;
            let written = format!("text | '{}'={number}{unit};1;2;0;9", label.replace('\'', "''"));
            let output = PluginOutput::parse(written.as_bytes());
            prop_assert_eq!(output.values.len(), 1);
            prop_assert_eq!(&output.values[0].label, &label);
            prop_assert_eq!(output.values[0].value, Some(number));
            prop_assert_eq!(&output.values[0].unit, &unit);
        }
    }
}
