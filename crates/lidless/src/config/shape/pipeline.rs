//! What may a pipeline say? The part of the table below `pipelines`, steps apart.

use super::{Accepts, NONZERO, SECRET, STEP, Shape, key, required};

/// One entry of `pipelines`.
pub static PIPELINE: Shape = Shape {
    noun: "a pipeline",
    keys: &[
        key("title", Accepts::Text, "Compound the vault", "A longer name, for people."),
        required(
            "steps",
            Accepts::Steps(&STEP),
            "[{ COMPOUND: { call: { exec: [/usr/local/bin/compound] } } }]",
            "What is done: a list of maps with one key each, the step's name.",
        ),
        key("lock", Accepts::Text, "treasury", "One run at a time across all pipelines that name this lock."),
        key("deadline", NONZERO, "20m", "From a run's creation: no step begins later."),
        key("concurrency", Accepts::Whole(1), "1", "Runs of it under way at once. Default: 1."),
        key("every", NONZERO, "6h", "A run begins so long after the last one began."),
        key(
            "cron",
            Accepts::TextOrMap(&CRON),
            "\"0 4 * * *\"",
            "A run begins when this calendar says so, in the machine's zone unless it names one.",
        ),
        key(
            "on_incident",
            Accepts::Map(&ON_INCIDENT),
            "{ services: [api] }",
            "A run begins with an incident of one of these services.",
        ),
        key(
            "after",
            Accepts::Map(&AFTER_RUN),
            "{ pipeline: vault }",
            "A run begins when one of another pipeline has ended.",
        ),
        key(
            "hook",
            Accepts::Map(&HOOK),
            "{ secret: { credential: vault-hook } }",
            "A run begins when somebody who knows the secret asks for it over HTTP.",
        ),
    ],
    one_of: &[],
    later: &["on_failure"],
};

/// `cron`, where it says more than the expression.
pub static CRON: Shape = Shape {
    noun: "a map with a calendar",
    keys: &[
        required(
            "at",
            Accepts::Text,
            "\"0 4 * * *\"",
            "Minute, hour, day, month and weekday; with a sixth field in front, seconds.",
        ),
        key("zone", Accepts::Text, "Europe/Lisbon", "By which clock. Default: the machine's."),
        key(
            "catch_up",
            Accepts::Words(&["none", "one", "all"]),
            "one",
            "What becomes of moments in which lidless did not run. Default: none.",
        ),
    ],
    one_of: &[],
    later: &[],
};

/// `on_incident`.
pub static ON_INCIDENT: Shape = Shape {
    noun: "a map that says which incidents",
    keys: &[
        required("services", Accepts::Texts, "[api]", "Names of services; one of them is enough."),
        key(
            "when",
            Accepts::Words(&["opened", "given_up", "closed"]),
            "given_up",
            "At which moment of the incident. Default: opened.",
        ),
    ],
    one_of: &[],
    later: &["check"],
};

/// `after`.
pub static AFTER_RUN: Shape = Shape {
    noun: "a map that says after what",
    keys: &[
        required("pipeline", Accepts::Text, "vault", "The other pipeline."),
        key(
            "when",
            Accepts::Words(&["done", "failed", "any"]),
            "done",
            "Which ends of its runs count. Default: done.",
        ),
    ],
    one_of: &[],
    later: &[],
};

/// `hook`.
pub static HOOK: Shape = Shape {
    noun: "a map with a secret",
    keys: &[required(
        "secret",
        Accepts::Map(&SECRET),
        "{ credential: vault-hook }",
        "What requests are signed with.",
    )],
    one_of: &[],
    later: &[],
};
