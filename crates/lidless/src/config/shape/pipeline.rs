//! What may a pipeline say? The part of the table below `pipelines`.

use super::{Accepts, NONZERO, Shape, key, required};

/// One entry of `pipelines`.
pub static PIPELINE: Shape = Shape {
    noun: "a pipeline",
    keys: &[
        key("title", Accepts::Text, "Compound the vault", "A longer name, for people."),
        required(
            "steps",
            Accepts::Steps(&STEP),
            "[{ COMPOUND: { call: { exec: [/usr/local/bin/compound] } } }]",
            "What is done, in this order: a list of maps with one key each, the step's name.",
        ),
    ],
    one_of: &[],
    later: &["every", "cron", "on_incident", "after", "deadline", "lock", "on_failure"],
};

/// One step.
pub static STEP: Shape = Shape {
    noun: "a step",
    keys: &[
        key(
            "call",
            Accepts::Map(&CALL),
            "{ exec: [/usr/local/bin/compound] }",
            "What the step does, outside lidless.",
        ),
        key(
            "require",
            Accepts::Map(&REQUIRE),
            "{ healthy: [api] }",
            "What must be so, else the run ends here.",
        ),
        key(
            "retry",
            Accepts::Map(&RETRY),
            "{ attempts: 3, backoff: 2s..1m }",
            "How often it may be done again, after a proven failure.",
        ),
        key("timeout", NONZERO, "2m", "The longest that one attempt may take. Default: 1m."),
        key(
            "confirm",
            Accepts::Map(&CONFIRM),
            "{ exec: [/usr/local/bin/compound, --look] }",
            "Who is asked whether it took effect, after a crash or a time-out.",
        ),
        key(
            "class",
            Accepts::Words(&["pure", "idempotent", "confirmable", "one_shot"]),
            "one_shot",
            "What may be done when nobody knows whether it took effect. Default: confirmable with `confirm`, else idempotent.",
        ),
        key(
            "value",
            Accepts::Map(&VALUE),
            "{}",
            "It moves value: it waits while the journal cannot be trusted, and needs `confirm` or `class: one_shot`.",
        ),
    ],
    one_of: &["call", "require"],
    later: &["undo", "approve", "when", "after", "once"],
};

/// `require`.
pub static REQUIRE: Shape = Shape {
    noun: "a map of requirements",
    keys: &[required("healthy", Accepts::Texts, "[api]", "Services that must all be up.")],
    one_of: &[],
    later: &["objective"],
};

/// `call`.
pub static CALL: Shape = Shape {
    noun: "a map that says what is called",
    keys: &[key(
        "exec",
        Accepts::ArgvOrMap(&CALL_EXEC),
        "[/usr/local/bin/compound]",
        "Runs a command: exit code 0 is success.",
    )],
    one_of: &["exec"],
    later: &["http", "plugin", "evm", "service", "pipeline", "wait"],
};

/// `call.exec`, where it says more than the command.
pub static CALL_EXEC: Shape = Shape {
    noun: "a map with a command",
    keys: &[
        required(
            "command",
            Accepts::Argv,
            "[/usr/local/bin/compound]",
            "The program and its arguments. `lidless` alone is this very binary.",
        ),
        key(
            "dir",
            Accepts::Text,
            "/srv/vault",
            "The working directory. Default: that of the configuration file.",
        ),
        key(
            "env",
            Accepts::TextsByName,
            "{ LANG: C }",
            "Environment variables beside lidless's own. They are kept in the journal, so no secrets.",
        ),
        key(
            "unit",
            Accepts::Words(&["auto", "never"]),
            "never",
            "Whether systemd runs it, where it can, so that it outlives lidless. Default: auto.",
        ),
    ],
    one_of: &[],
    later: &["user"],
};

/// `retry`.
pub static RETRY: Shape = Shape {
    noun: "a map that says how often",
    keys: &[
        key("attempts", Accepts::Whole(1), "3", "Attempts in all. Default: 1."),
        key(
            "backoff",
            Accepts::DurationRange,
            "1s..1m",
            "The first and the longest wait before another attempt. Default: 1s..1m.",
        ),
    ],
    one_of: &[],
    later: &[],
};

/// `confirm`.
pub static CONFIRM: Shape = Shape {
    noun: "a map that says who is asked",
    keys: &[
        key(
            "exec",
            Accepts::Argv,
            "[/usr/local/bin/compound, --look]",
            "A command that only looks; it runs where the step's own does.",
        ),
        key("tries", Accepts::Whole(1), "10", "How often it is asked before a person is. Default: 10."),
    ],
    one_of: &["exec"],
    later: &["blocks", "within"],
};

/// `value`.
pub static VALUE: Shape =
    Shape { noun: "an empty map", keys: &[], one_of: &[], later: &["limit", "per_day", "max_fee"] };
