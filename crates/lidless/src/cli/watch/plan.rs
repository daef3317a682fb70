//! What do the flags of `lidless watch` come to? A small configuration, which `--save` keeps and `--once` narrows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lidless_core::spec::Backoff;
use serde_json::json;

use super::WatchArgs;
use super::once::EVERY_MIN;
use crate::config::{Resolved, units};

/// The window of a budget given without one.
const WINDOW: &str = "15m";

/// What the flags come to.
pub(super) struct Plan {
    /// What people call it.
    pub(super) label: String,
    /// Its name in a configuration.
    pub(super) key: String,
    pub(super) tries: u32,
    pub(super) per: String,
    pub(super) heals: Option<String>,
}

impl Plan {
    pub(super) fn of(args: &WatchArgs) -> Result<Plan, String> {
        let (tries, per) = args.tries.split_once('/').unwrap_or((&args.tries, WINDOW));
        let tries: u32 = tries.parse().map_err(|_| format!("--tries {}: write 3 or 3/15m", args.tries))?;
        if tries == 0 {
            return Err("--tries 0: at least one check must be allowed to fail".to_owned());
        }
        for (flag, value) in [("settle", &args.settle), ("every", &args.every), ("timeout", &args.timeout)] {
            units::duration(value).map_err(|why| format!("--{flag} {value}: {}", why.message))?;
        }
        let label = match (&args.name, &args.unit, &args.target) {
            (Some(name), ..) => name.clone(),
            (None, Some(unit), _) => unit.clone(),
            (None, None, Some(target)) => without_secrets(target),
            (None, None, None) => args.command.first().cloned().unwrap_or_default(),
        };
        let heals = args.heal.clone().or_else(|| args.unit.as_ref().map(|unit| format!("restart of {unit}")));
        let key: String = label
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
            .collect();
        let key: String = key.trim_matches(['-', '.', '_']).chars().take(60).collect();
        let key = key.trim_end_matches(['-', '.', '_']);
        // Of a label in another script nothing may be left.
        let key = if key.is_empty() { "watch".to_owned() } else { key.to_owned() };
        Ok(Plan { label, key, tries, per: per.to_owned(), heals })
    }

    /// Returns the document that says how `--once` ended.
    pub(super) fn verdict_line(&self, error: Option<&str>) -> String {
        let healthy = error.is_none();
        json!({ "schema": "lidless/watch/1", "name": self.label, "healthy": healthy, "error": error })
            .to_string()
            + "\n"
    }

    /// Writes the flags as a whole configuration.
    pub(super) fn yaml(&self, args: &WatchArgs, here: Option<&str>) -> String {
        format!("version: 1\nweb: off\nservices:\n{}", self.service_yaml(args, here))
    }

    /// Writes the flags as a service. Texts are JSON strings, which YAML reads as they are.
    ///
    /// `here` is the working directory, for a file that is kept elsewhere: commands run there, as they were typed.
    pub(super) fn service_yaml(&self, args: &WatchArgs, here: Option<&str>) -> String {
        let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let fail_after = args.fail_after.unwrap_or(if args.once { 1 } else { 3 });
        let recover_after = args.recover_after.unwrap_or(if args.once { 1 } else { 2 });
        let kind = match (&args.unit, &args.target) {
            (Some(unit), _) => format!("systemd: {{ unit: {} }}", text(unit)),
            (None, Some(target)) => match target.strip_prefix("tcp://") {
                Some(address) => format!("tcp: {{ address: {} }}", text(address)),
                None => format!("http: {{ url: {} }}", text(target)),
            },
            (None, None) => {
                let mut words = args.command.clone();
                if let (Some(here), Some(program)) =
                    (here, words.first_mut().filter(|word| word.contains('/')))
                {
                    // `components` drops the `./` in front.
                    let path: PathBuf = Path::new(here).join(&*program).components().collect();
                    *program = path.to_string_lossy().into_owned();
                }
                let words: Vec<_> = words.iter().map(|word| text(word)).collect();
                let dir = here.map_or_else(String::new, |here| format!(", dir: {}", text(here)));
                format!("exec: {{ command: [{}], warning: fail{dir} }}", words.join(", "))
            }
        };
        let mut yaml = format!("  {}:\n", text(&self.key));
        match (&args.heal, &args.unit) {
            (Some(heal), _) => {
                let heal = match here {
                    Some(here) => format!("cd {} || exit 126\n{heal}", quoted(here)),
                    None => heal.clone(),
                };
                yaml += &format!("    run: {{ exec: {{ restart: [sh, -c, {}] }} }}\n", text(&heal));
            }
            (None, Some(unit)) => yaml += &format!("    run: {{ systemd: {} }}\n", text(unit)),
            (None, None) => {}
        }
        yaml += &format!(
            "    checks:\n      watch: {{ {kind}, every: {}, timeout: {}, fail_after: {fail_after}, recover_after: {recover_after} }}\n",
            args.every, args.timeout
        );
        if self.heals.is_some() {
            yaml += &format!(
                "    heal:\n      restart: {{ attempts: {}, per: {} }}\n      verify: {{ settle: {}, within: 30s }}\n",
                self.tries, self.per, args.settle
            );
        }
        yaml
    }

    /// The script counts before it restarts, waits once, and looks once: so does `--once`.
    pub(super) fn adjust(&self, resolved: &mut Resolved, args: &WatchArgs) {
        let Some(service) = resolved.spec.services.first_mut() else { return };
        if !args.once {
            return;
        }
        (service.verify.within, service.verify.stay) = (Duration::ZERO, Duration::ZERO);
        let heals = self.heals.is_some() && self.tries > 1;
        let settle = units::duration(&args.settle).unwrap_or(service.verify.settle);
        for check in &mut service.checks {
            // With heals between them the checks that count are those that judge a heal; without, each of them counts.
            check.every = if heals {
                settle.max(Duration::from_secs(1)).min(check.every)
            } else {
                settle.max(EVERY_MIN)
            };
        }
        if !heals {
            service.heal = None;
        }
        if let Some(heal) = &mut service.heal {
            heal.budget.attempts = self.tries - 1;
            heal.budget.per = Duration::from_secs(365 * 86_400);
            heal.backoff = Backoff { min: Duration::ZERO, max: Duration::ZERO };
        }
    }
}

/// Writes a text as one word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A URL may carry a password before its host and a token in its query; a name goes to metrics and the journal.
fn without_secrets(target: &str) -> String {
    let Some((scheme, rest)) = target.split_once("://") else { return target.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::{quoted, without_secrets};

    #[test]
    fn a_name_has_no_secret_of_the_url() {
        for (url, name) in [
            ("http://a:8080/health", "http://a:8080/health"),
            ("http://user:pass@a/x?token=abc#d", "http://a/x"),
            ("https://a?token=abc", "https://a"),
            ("https://a/b#token=abc", "https://a/b"),
            ("https://a/@b?c@d", "https://a/@b"),
            ("tcp://127.0.0.1:5432", "tcp://127.0.0.1:5432"),
        ] {
            assert_eq!(without_secrets(url), name, "{url}");
        }
    }

    #[test]
    fn a_quote_in_a_path_stays_one_word() {
        assert_eq!(quoted("/a b's"), r"'/a b'\''s'");
    }
}
