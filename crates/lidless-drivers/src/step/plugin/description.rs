//! What does a plugin say of itself? Its name, and the kinds of steps that it offers.

use lidless_core::pipeline::plan::Class;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::answer::wrong;
use super::PROTOCOL;

/// What a plugin is and can.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Description {
    /// What it calls itself.
    pub name: String,
    /// Its own version, in its own words.
    pub version: String,
    /// The kinds of steps that it offers.
    pub kinds: Vec<Kind>,
}

/// A kind of step. What it does not say that it can, it cannot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kind {
    /// What it is called.
    pub name: String,
    /// What may be done with an attempt in doubt.
    pub class: Class,
    /// It can say whether an attempt took effect.
    #[serde(default)]
    pub confirms: bool,
    /// It can take back what it did.
    #[serde(default)]
    pub undoes: bool,
    /// It can say what it would do.
    #[serde(default)]
    pub plans: bool,
    /// It makes ready what it will do, under a handle, before it does it.
    #[serde(default)]
    pub prepares: bool,
    /// It can say how often a key took effect: a help for the conformance test.
    #[serde(default)]
    pub counts: bool,
}

/// What is wrong with the settings of a step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SettingProblem {
    /// Where: `accounts[0].iban`. Empty: the settings as a whole.
    #[serde(default)]
    pub path: String,
    /// What is wrong, as a lower-case fragment.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Why a description is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unfit {
    /// It speaks another version.
    Protocol(String),
    /// It breaks the protocol.
    Malformed(String),
}

impl Description {
    /// Reads the answer to `describe`.
    pub(super) fn read(body: &Map<String, Value>) -> Result<Description, Unfit> {
        // First, for the rest may look different in another version.
        match body.get("protocol") {
            Some(version) if version.as_u64() == Some(PROTOCOL) => {}
            Some(version @ Value::Number(_)) => return Err(Unfit::Protocol(version.to_string())),
            other => {
                let other = other.unwrap_or(&Value::Null);
                return Err(Unfit::Malformed(wrong("protocol", other, "a number")));
            }
        }
        let description = Value::Object(body.clone());
        let description: Description = serde_json::from_value(description)
            .map_err(|err| Unfit::Malformed(format!("its description cannot be read: {err}")))?;
        let kinds = &description.kinds;
        for (at, kind) in kinds.iter().enumerate() {
            if kind.class == Class::Confirmable && !kind.confirms {
                let problem = format!("its kind `{}` is confirmable and does not confirm", kind.name);
                return Err(Unfit::Malformed(problem));
            }
            if kinds[..at].iter().any(|other| other.name == kind.name) {
                return Err(Unfit::Malformed(format!("it offers the kind `{}` twice", kind.name)));
            }
        }
        Ok(description)
    }

    /// Returns a kind by its name.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }
}

/// Reads what a description says is wrong with the settings that came with the question.
pub(super) fn problems(body: &mut Map<String, Value>) -> Result<Vec<SettingProblem>, String> {
    match body.remove("problems") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(problems) => {
            serde_json::from_value(problems).map_err(|err| format!("its `problems` cannot be read: {err}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Description, Unfit> {
        Description::read(body.as_object().expect("an object"))
    }

    #[test]
    fn another_version_is_told_from_no_version() {
        assert_eq!(read(&json!({ "protocol": 2, "new": [] })), Err(Unfit::Protocol("2".to_owned())));
        assert_eq!(read(&json!({ "protocol": 1.5 })), Err(Unfit::Protocol("1.5".to_owned())));
        for body in [json!({}), json!({ "protocol": "1" }), json!({ "protocol": 1 })] {
            assert!(matches!(read(&body), Err(Unfit::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn a_kind_can_what_it_says_and_no_more() {
        let describe = |kinds| read(&json!({ "protocol": 1, "name": "x", "version": "1", "kinds": kinds }));
        let pure = json!({ "name": "a", "class": "pure", "unheard_of": 7 });
        let described = describe(json!([pure])).expect("it is well-formed");
        let kind = described.kind("a").expect("it is offered");
        assert!(!(kind.confirms || kind.undoes || kind.plans || kind.prepares || kind.counts));
        assert_eq!(described.kind("b"), None);
        for kinds in [
            json!([pure, pure]),
            json!([{ "name": "a", "class": "confirmable" }]),
            json!([{ "name": "a", "class": "perfect" }]),
        ] {
            assert!(matches!(describe(kinds.clone()), Err(Unfit::Malformed(_))), "{kinds}");
        }
    }
}
