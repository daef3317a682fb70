//! What may a plugin say, and a step that one does?

use super::{Accepts, NONZERO, Shape, key, required};

/// One entry of `plugins`.
pub static PLUGIN: Shape = Shape {
    noun: "a plugin",
    keys: &[
        required(
            "command",
            Accepts::Argv,
            "[./ledger.py]",
            "The program and its arguments. It speaks the step protocol, and is started when it is first needed.",
        ),
        key(
            "dir",
            Accepts::Text,
            "/srv/ledger",
            "The working directory. Default: that of the configuration file.",
        ),
        key(
            "env",
            Accepts::Secrets,
            "{ LANG: C }",
            "Environment variables beside lidless's own. Of a secret, the journal keeps only where it is.",
        ),
        key(
            "heartbeat",
            NONZERO,
            "30s",
            "While it owes an answer it must write a line at least this often, or it is killed. Default: never.",
        ),
    ],
    one_of: &[],
    later: &["user"],
};

/// `call.plugin`.
pub static CALL_PLUGIN: Shape = Shape {
    noun: "a map with a plugin's name and a kind of step",
    keys: &[
        required("name", Accepts::Text, "ledger", "Which of `plugins`."),
        required("kind", Accepts::Text, "book", "Which kind of step, of those that it offers."),
        key(
            "settings",
            Accepts::Json,
            "{ file: ledger.jsonl, account: cash }",
            "Whatever the plugin wants to know. No secrets: the journal keeps it.",
        ),
    ],
    one_of: &[],
    later: &[],
};
