//! What may a step say? The part of the table below `steps`, calls apart.

use super::{Accepts, CALL, CALL_EXEC, CALL_HTTP, CONFIRM_HTTP, Key, NONZERO, Shape, alone, key, required};

/// One step.
pub static STEP: Shape = Shape {
    noun: "a step",
    keys: &[
        key("call", Accepts::Map(&CALL), "{ exec: [/usr/local/bin/compound] }", "What the step does."),
        key(
            "require",
            Accepts::Map(&REQUIRE),
            "{ healthy: [api] }",
            "What must be so, else the run ends here.",
        ),
        alone(
            "approve",
            Accepts::Map(&APPROVE),
            "{ within: 12h }",
            "It begins only with a person's yes. Without `call`, the yes is all there is to it.",
        ),
        key(
            "after",
            Accepts::Texts,
            "[REBALANCE]",
            "Steps above that it comes after. Default: the one right above; `[]`: it begins at once.",
        ),
        key(
            "when",
            Accepts::Text,
            "inputs.amount > 0",
            "It is skipped where this does not hold; over `inputs` and `outputs` of steps before it.",
        ),
        RETRY_KEY,
        TIMEOUT_KEY,
        CONFIRM_KEY,
        CLASS_KEY,
        ONCE_KEY,
        key(
            "value",
            Accepts::Map(&VALUE),
            "{}",
            "It moves value: it waits while the journal cannot be trusted, and needs `confirm` or `once: true`.",
        ),
        key(
            "undo",
            Accepts::Map(&UNDO),
            "{ exec: [/usr/local/bin/compound, --back] }",
            "What takes it back when a later step has failed.",
        ),
        key(
            "pivot",
            Accepts::Bool,
            "true",
            "Once it is done there is no way back: nothing is undone after it. Default: false.",
        ),
    ],
    one_of: &["call", "require"],
    later: &[],
};

const RETRY_KEY: Key = key(
    "retry",
    Accepts::Map(&RETRY),
    "{ attempts: 3, backoff: 2s..1m }",
    "How often it may be done again, after a proven failure.",
);
const TIMEOUT_KEY: Key = key("timeout", NONZERO, "2m", "The longest that one attempt may take. Default: 1m.");
const CONFIRM_KEY: Key = key(
    "confirm",
    Accepts::Map(&CONFIRM),
    "{ exec: [/usr/local/bin/compound, --look] }",
    "Who is asked whether it took effect, after a crash or a time-out.",
);
const CLASS_KEY: Key = key(
    "class",
    Accepts::Words(&["pure", "idempotent", "confirmable", "one_shot"]),
    "one_shot",
    "What may be done when nobody knows whether it took effect. Default: confirmable with `confirm`, else idempotent.",
);
const ONCE_KEY: Key = key(
    "once",
    Accepts::Bool,
    "true",
    "It is never blindly done again: with `confirm` it is looked up, else a person decides. Default: false.",
);

/// `undo`: what it calls, and the same as a step about being lost half way.
pub static UNDO: Shape = Shape {
    noun: "a map that says how it is taken back",
    keys: &[
        key(
            "exec",
            Accepts::ArgvOrMap(&CALL_EXEC),
            "[/usr/local/bin/compound, --back]",
            "Short for `call: { exec: ... }`.",
        ),
        key(
            "http",
            Accepts::Map(&CALL_HTTP),
            "{ url: \"http://127.0.0.1:8080/refunds/{{ undoes.output.id }}\" }",
            "Short for `call: { http: ... }`.",
        ),
        key(
            "call",
            Accepts::Map(&UNDO_CALL),
            "{ exec: [/usr/local/bin/compound, --back] }",
            "What takes it back.",
        ),
        RETRY_KEY,
        TIMEOUT_KEY,
        CONFIRM_KEY,
        CLASS_KEY,
        ONCE_KEY,
    ],
    one_of: &["exec", "http", "call"],
    later: &[],
};

/// `undo.call`.
pub static UNDO_CALL: Shape = Shape {
    noun: "a map that says what is called",
    keys: &[
        key("exec", Accepts::ArgvOrMap(&CALL_EXEC), "[/usr/local/bin/compound, --back]", "Runs a command."),
        key("http", Accepts::Map(&CALL_HTTP), "{ url: http://127.0.0.1:8080/refunds }", "Sends a request."),
    ],
    one_of: &["exec", "http"],
    later: &["plugin", "evm"],
};

/// `require`.
pub static REQUIRE: Shape = Shape {
    noun: "a map of requirements",
    keys: &[required("healthy", Accepts::Texts, "[api]", "Services that must all be up.")],
    one_of: &[],
    later: &["objective"],
};

/// `approve`.
pub static APPROVE: Shape = Shape {
    noun: "a map that says who is asked, and for how long",
    keys: &[
        required("within", NONZERO, "12h", "The yes counts only if it comes within this time."),
        key("ask", Accepts::Text, "Move 2 ETH to the exchange?", "What the person is asked."),
    ],
    one_of: &[],
    later: &["by", "above"],
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
        key("within", NONZERO, "10m", "No attempt begins later than this after the first."),
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
            "A command that only looks; it runs where the step's own does. For a step that is a command.",
        ),
        key(
            "http",
            Accepts::Map(&CONFIRM_HTTP),
            "{ url: \"http://127.0.0.1:8080/payments/{{ key }}\" }",
            "A request that changes nothing. For a step over HTTP.",
        ),
        key("tries", Accepts::Whole(1), "10", "How often it is asked before a person is. Default: 10."),
    ],
    one_of: &["exec", "http"],
    later: &["blocks", "within"],
};

/// `value`.
pub static VALUE: Shape =
    Shape { noun: "an empty map", keys: &[], one_of: &[], later: &["limit", "per_day", "max_fee"] };
