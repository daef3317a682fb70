//! What may a file say? One table of keys, from which the reader refuses the unknown and the JSON Schema is made.
//!
//! A key that is not here does not exist; a key in `later` is known to come, and is refused with those words.

mod call;
mod check;
mod pipeline;
mod service;
mod step;

pub use call::*;
pub use check::*;
pub use pipeline::*;
pub use service::*;
pub use step::*;

/// What a map may hold.
#[derive(Debug)]
pub struct Shape {
    /// How a message calls such a map: "a check".
    pub noun: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// Exactly one of these must be there; empty for no such rule.
    pub one_of: &'static [&'static str],
    /// Keys of the design that this version does not have.
    pub later: &'static [&'static str],
}

/// One key of a map.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub accepts: Accepts,
    /// Whether it must be there.
    pub required: bool,
    /// Whether it may stand where none of the shape's `one_of` does.
    pub alone: bool,
    /// A value that works, in YAML.
    pub example: &'static str,
    /// One sentence for an editor.
    pub doc: &'static str,
}

/// The types of values.
#[derive(Clone, Copy, Debug)]
pub enum Accepts {
    /// Any one line of text.
    Text,
    /// A whole number of at least this.
    Whole(u32),
    /// `true` or `false`.
    Bool,
    /// `5s`.
    Duration {
        /// Whether `0s` makes sense.
        zero: bool,
    },
    /// `5s..2m`.
    DurationRange,
    /// `64KiB`.
    Size,
    /// `TERM`.
    Signal,
    /// A program and its arguments.
    Argv,
    /// Any one line of text, or a map of this shape.
    TextOrMap(&'static Shape),
    /// A program and its arguments, or a map of this shape.
    ArgvOrMap(&'static Shape),
    /// A list of texts.
    Texts,
    /// A list of exit codes.
    ExitCodes,
    /// `200`, `200..299` or a list of these.
    Statuses,
    /// Names to texts or secrets.
    Secrets,
    /// Names to texts, none of them secret.
    TextsByName,
    /// Whatever JSON can hold.
    Json,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A map of this shape.
    Map(&'static Shape),
    /// A map of this shape, or `off`.
    MapOrOff(&'static Shape),
    /// Names to maps of this shape.
    Named(&'static Shape),
    /// A list of maps, each with one name to a map of this shape.
    Steps(&'static Shape),
}

impl Accepts {
    /// Returns how a message calls such a value.
    pub fn noun(self) -> &'static str {
        match self {
            Accepts::Text => "a text",
            Accepts::TextOrMap(_) => "a text or a map",
            Accepts::Json => "a value of JSON",
            Accepts::Whole(_) => "a whole number",
            Accepts::Bool => "`true` or `false`",
            Accepts::Duration { .. } => "a duration",
            Accepts::DurationRange => "a range of durations",
            Accepts::Size => "a size",
            Accepts::Signal => "a signal",
            Accepts::Argv | Accepts::ArgvOrMap(_) => "a list: the program, then its arguments",
            Accepts::Texts => "a list of texts",
            Accepts::ExitCodes => "a list of exit codes",
            Accepts::Statuses => "a status, a range of statuses or a list of these",
            Accepts::Secrets | Accepts::TextsByName => "a map of names to texts",
            Accepts::Words(_) => "one of a few words",
            Accepts::Map(shape) => shape.noun,
            Accepts::MapOrOff(_) => "a map or `off`",
            Accepts::Named(_) => "a map by name",
            Accepts::Steps(_) => "a list of steps",
        }
    }
}

const fn key(name: &'static str, accepts: Accepts, example: &'static str, doc: &'static str) -> Key {
    Key { name, accepts, required: false, alone: false, example, doc }
}

const fn required(name: &'static str, accepts: Accepts, example: &'static str, doc: &'static str) -> Key {
    Key { name, accepts, required: true, alone: false, example, doc }
}

const fn alone(name: &'static str, accepts: Accepts, example: &'static str, doc: &'static str) -> Key {
    Key { name, accepts, required: false, alone: true, example, doc }
}

const ANY: Accepts = Accepts::Duration { zero: true };
const NONZERO: Accepts = Accepts::Duration { zero: false };

/// The whole file.
pub static TOP: Shape = Shape {
    noun: "the file",
    keys: &[
        key("version", Accepts::Whole(1), "1", "The version of this format: 1. Required in the main file."),
        key("site", Accepts::Text, "acme-prod", "The name of the installation, for people."),
        key(
            "include",
            Accepts::Texts,
            "[conf.d/*.yaml]",
            "Further files, beside this one. Maps merge by name; a name twice is an error.",
        ),
        key(
            "store",
            Accepts::Map(&STORE),
            "{ path: /var/lib/lidless/lidless.db }",
            "Where the journal is kept.",
        ),
        key(
            "web",
            Accepts::MapOrOff(&WEB),
            "{ listen: 127.0.0.1:7433 }",
            "Where /metrics and /healthz are served, or `off`.",
        ),
        key(
            "limits",
            Accepts::Map(&LIMITS),
            "{ heals: { attempts: 60, per: 5m } }",
            "Limits over all services together.",
        ),
        key(
            "defaults",
            Accepts::Map(&DEFAULTS),
            "{ every: 15s }",
            "Settings of every check that does not say otherwise.",
        ),
        key(
            "notify",
            Accepts::Named(&NOTIFY),
            "{ oncall: { exec: [/usr/local/bin/tell] } }",
            "Who is told, by name.",
        ),
        key(
            "services",
            Accepts::Named(&SERVICE),
            "{ api: { checks: { up: { tcp: { address: 127.0.0.1:80 } } } } }",
            "What is looked after, by name.",
        ),
        key(
            "pipelines",
            Accepts::Named(&PIPELINE),
            "{ vault: { steps: [{ COMPOUND: { call: { exec: [/usr/local/bin/compound] } } }] } }",
            "Runs of named steps, by name.",
        ),
    ],
    one_of: &[],
    later: &[
        "timezone",
        "escalation",
        "heartbeats",
        "objectives",
        "planned",
        "plugins",
        "chains",
        "learning",
    ],
};

/// `store`.
pub static STORE: Shape = Shape {
    noun: "a map of store settings",
    keys: &[key(
        "path",
        Accepts::Text,
        "/var/lib/lidless/lidless.db",
        "The database file. Default: /var/lib/lidless/lidless.db.",
    )],
    one_of: &[],
    later: &["keep", "etcd"],
};

/// `web`.
pub static WEB: Shape = Shape {
    noun: "a map of web settings",
    keys: &[key(
        "listen",
        Accepts::Text,
        "127.0.0.1:7433",
        "A loopback address and port. Default: 127.0.0.1:7433.",
    )],
    one_of: &[],
    later: &["auth", "status_page", "tls"],
};

/// `limits`.
pub static LIMITS: Shape = Shape {
    noun: "a map of limits",
    keys: &[key(
        "heals",
        Accepts::Map(&BUDGET),
        "{ attempts: 60, per: 5m }",
        "Heals of all services together. Default: 60 per 5m.",
    )],
    one_of: &[],
    later: &[],
};

/// `limits.heals`.
pub static BUDGET: Shape = Shape {
    noun: "a budget",
    keys: &[
        required("attempts", Accepts::Whole(1), "60", "How many heals."),
        required("per", NONZERO, "5m", "In a sliding window of this length."),
    ],
    one_of: &[],
    later: &[],
};

/// `defaults`.
pub static DEFAULTS: Shape = Shape {
    noun: "a map of defaults",
    keys: &[EVERY, TIMEOUT, FAIL_AFTER, RECOVER_AFTER, CONFIRM_EVERY],
    one_of: &[],
    later: &[],
};

const EVERY: Key = key(
    "every",
    NONZERO,
    "15s",
    "From the start of one probe to the start of the next. Default: 15s; of a process: at most 5s.",
);
const TIMEOUT: Key = key("timeout", NONZERO, "3s", "The deadline over the whole probe. Default: 3s.");
const FAIL_AFTER: Key = key(
    "fail_after",
    Accepts::Whole(1),
    "3",
    "Consecutive failures until down. Default: 3; of a process: 1.",
);
const RECOVER_AFTER: Key = key(
    "recover_after",
    Accepts::Whole(1),
    "2",
    "Consecutive passes until up again. Default: 2; of a process: 1.",
);
const CONFIRM_EVERY: Key = key(
    "confirm_every",
    NONZERO,
    "100ms",
    "From probe to probe while health is in question. Default: 100ms.",
);

/// One entry of `notify`.
pub static NOTIFY: Shape = Shape {
    noun: "a notifier",
    keys: &[key(
        "exec",
        Accepts::Argv,
        "[/usr/local/bin/tell]",
        "A program that gets each message as JSON on its standard input.",
    )],
    one_of: &["exec"],
    later: &["pagerduty", "slack", "email", "webhook", "ntfy", "telegram", "opsgenie"],
};

/// A secret in place of a text.
pub static SECRET: Shape = Shape {
    noun: "a secret",
    keys: &[
        key("credential", Accepts::Text, "api-token", "The name of a systemd credential."),
        key("file", Accepts::Text, "/run/secrets/api-token", "A file that only its owner may read."),
        key("env", Accepts::Text, "API_TOKEN", "An environment variable of lidless."),
    ],
    one_of: &["credential", "file", "env"],
    later: &["vault", "exec"],
};
