//! Does a plugin keep the protocol? It is run, asked, killed and started again, and each promise is looked at by itself.
//!
//! What it is asked to do it really does: several times, with keys of its own. Give it settings of a place made for that.

mod bench;
mod cases;
mod effects;
mod talk;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::description::{Description, Kind};
use crate::check::BoxFuture;
use crate::child::CommandSpec;
use bench::Bench;

/// What came of one case.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// The promise is kept.
    Pass,
    /// It is broken: how.
    Fail(String),
    /// It does not apply, or could not be looked at: why.
    Skip(String),
}

/// One promise, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Case {
    /// Its name: "describes-itself".
    pub name: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What came of all cases. Shown, it is a line for each and one for the sum.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// What the plugin says it is, if it says so.
    pub plugin: Option<Description>,
    /// The kind of step that was looked at.
    pub kind: String,
    /// All cases, in the order in which they were looked at.
    pub cases: Vec<Case>,
}

impl Report {
    /// Says whether no promise is broken.
    pub fn is_passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// Returns the promises that are broken.
    pub fn failed(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Fail(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.plugin {
            Some(plugin) => writeln!(f, "plugin {} {}, kind `{}`", plugin.name, plugin.version, self.kind)?,
            None => writeln!(f, "a plugin that does not say what it is, kind `{}`", self.kind)?,
        }
        let [mut passed, mut failed, mut skipped] = [0_u32; 3];
        for Case { name, promise, verdict } in &self.cases {
            match verdict {
                Verdict::Pass => {
                    passed += 1;
                    writeln!(f, "  pass  {name}")?;
                }
                Verdict::Fail(reason) => {
                    failed += 1;
                    writeln!(f, "  FAIL  {name}: {reason}\n        it must: {promise}")?;
                }
                Verdict::Skip(reason) => {
                    skipped += 1;
                    writeln!(f, "  skip  {name}: {reason}")?;
                }
            }
        }
        writeln!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// How a case ends that is not passed.
enum Short {
    Fail(String),
    Skip(String),
}

impl From<String> for Short {
    fn from(reason: String) -> Self {
        Short::Fail(reason)
    }
}

type Checked = Result<(), Short>;

fn skip(reason: impl Into<String>) -> Checked {
    Err(Short::Skip(reason.into()))
}

/// A case's name, its promise, and how it is looked at.
type Look = (&'static str, &'static str, for<'a> fn(&'a Bench<'a>) -> BoxFuture<'a, Checked>);

const LOOKS: [Look; 13] = [
    ("accepts-its-settings", "find nothing wrong with settings that it can work with", |b| {
        Box::pin(cases::accepts_its_settings(b))
    }),
    (
        "unknown-op-is-refused",
        "answer an operation that it does not know with `ok: false` and an error",
        |b| Box::pin(cases::unknown_op_is_refused(b)),
    ),
    ("garbage-is-survived", "ignore lines that are no requests, and go on", |b| {
        Box::pin(cases::garbage_is_survived(b))
    }),
    (
        "two-at-once-are-told-apart",
        "answer each of two requests that come at once, once and by its id",
        |b| Box::pin(cases::two_at_once_are_told_apart(b)),
    ),
    ("unknown-key-is-not-applied", "never confirm as applied what was never performed", |b| {
        Box::pin(cases::unknown_key_is_not_applied(b))
    }),
    ("prepare-has-no-effect", "let nothing out before it is told to perform", |b| {
        Box::pin(effects::prepare_has_no_effect(b))
    }),
    ("prepared-handle-is-used", "perform what was prepared under the handle that it is given", |b| {
        Box::pin(effects::prepared_handle_is_used(b))
    }),
    ("killed-before-perform", "perform under a handle that was prepared before it was killed, once", |b| {
        Box::pin(effects::killed_before_perform(b))
    }),
    ("performed-key-is-applied", "confirm as applied what it performed", |b| {
        Box::pin(effects::performed_key_is_applied(b))
    }),
    ("killed-after-perform", "still know what it performed before it was killed", |b| {
        Box::pin(effects::killed_after_perform(b))
    }),
    ("same-key-twice-is-one-effect", "have one effect where it performs twice with one key", |b| {
        Box::pin(effects::same_key_twice_is_one_effect(b))
    }),
    ("undo-is-repeatable", "take back once where it is told to undo twice with one key", |b| {
        Box::pin(effects::undo_is_repeatable(b))
    }),
    ("ends-with-its-input", "end when its standard input is closed", |b| {
        Box::pin(cases::ends_with_its_input(b))
    }),
];

/// Looks at everything that a kind of step of a plugin promises: some seconds, and more for each promise broken by silence.
///
/// `settings` are those of a step, and `inputs` those of a run, that it can work with.
pub async fn run(command: CommandSpec, kind: &str, settings: &Value, inputs: &Value) -> Report {
    let (described, verdict) = match described(&command, kind).await {
        Ok((plugin, kind)) => (Some((plugin, kind)), Verdict::Pass),
        Err(reason) => (None, Verdict::Fail(reason)),
    };
    let promise = "say who it is, in protocol 1, and offer this kind";
    let mut cases = vec![Case { name: "describes-itself", promise, verdict }];
    let bench = described.as_ref().map(|(_, kind)| Bench::new(&command, kind, settings, inputs));
    for (name, promise, look) in LOOKS {
        let verdict = match &bench {
            None => Verdict::Skip("it does not describe itself".to_owned()),
            Some(bench) => match look(bench).await {
                Ok(()) => Verdict::Pass,
                Err(Short::Fail(reason)) => Verdict::Fail(reason),
                Err(Short::Skip(reason)) => Verdict::Skip(reason),
            },
        };
        cases.push(Case { name, promise, verdict });
    }
    Report { plugin: described.map(|(plugin, _)| plugin), kind: kind.to_owned(), cases }
}

async fn described(command: &CommandSpec, kind: &str) -> Result<(Description, Kind), String> {
    let mut talk = talk::Talk::begin(command).await?;
    let body = talk.describe(None).await?;
    let plugin = bench::description(&body)?;
    talk.is_in_order().await?;
    let offers: Vec<&str> = plugin.kinds.iter().map(|kind| &*kind.name).collect();
    let kind = plugin.kind(kind).ok_or_else(|| format!("it has no kind `{kind}`; it has {offers:?}"))?;
    Ok((plugin.clone(), kind.clone()))
}
