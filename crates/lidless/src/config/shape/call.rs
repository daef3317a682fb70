//! What may a step call? The part of the table below `call`.

use super::{Accepts, CALL_PLUGIN, NONZERO, Shape, TLS, key, required};

/// `call`.
pub static CALL: Shape = Shape {
    noun: "a map that says what is called",
    keys: &[
        key(
            "exec",
            Accepts::ArgvOrMap(&CALL_EXEC),
            "[/usr/local/bin/compound]",
            "Runs a command: exit code 0 is success.",
        ),
        key(
            "http",
            Accepts::Map(&CALL_HTTP),
            "{ url: http://127.0.0.1:8080/payments }",
            "Sends one request with the idempotency key: a status of 2xx is success.",
        ),
        key(
            "plugin",
            Accepts::Map(&CALL_PLUGIN),
            "{ name: ledger, kind: book }",
            "Asks a program that stays: one of `plugins`. It is itself asked whether it took effect.",
        ),
        key(
            "service",
            Accepts::Map(&CALL_SERVICE),
            "{ restart: api }",
            "Acts on a service, within its budget, and waits until its checks pass.",
        ),
        key("wait", NONZERO, "5m", "Lets time go by, also over a restart of lidless."),
        key(
            "pipeline",
            Accepts::Text,
            "vault",
            "The steps of another pipeline, in this one's run: they are named STEP/INNER.",
        ),
    ],
    one_of: &["exec", "http", "plugin", "service", "wait", "pipeline"],
    later: &["evm"],
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
            Accepts::Secrets,
            "{ LANG: C }",
            "Environment variables beside lidless's own. Of a secret, the journal keeps only where it is.",
        ),
        key(
            "heartbeat",
            NONZERO,
            "30s",
            "It must write a line at least this often, or it is killed and in doubt. Default: never.",
        ),
        key(
            "handles",
            Accepts::Bool,
            "true",
            "Whether it has handles kept while it works, by which its effect can be found. Default: false.",
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

/// `call.service`.
pub static CALL_SERVICE: Shape = Shape {
    noun: "a map with an act and a service",
    keys: &[
        key("restart", Accepts::Text, "api", "Stops this service and starts it anew."),
        key("reload", Accepts::Text, "api", "Makes this service read its configuration anew."),
        key("start", Accepts::Text, "api", "Starts this service, if it does not run."),
    ],
    one_of: &["restart", "reload", "start"],
    later: &["stop"],
};

/// `call.http`.
pub static CALL_HTTP: Shape = Shape {
    noun: "a map that describes the request",
    keys: &[
        required("url", Accepts::Text, "http://127.0.0.1:8080/payments", "Where it is sent, http or https."),
        key("method", Accepts::Text, "POST", "The request method. Default: POST."),
        key(
            "headers",
            Accepts::Secrets,
            "{ Accept: application/json }",
            "Request headers. Of a secret, the journal keeps only where it is.",
        ),
        key("body", Accepts::Text, "\"{{ inputs.amount }}\"", "The request body, as a text."),
        key(
            "json",
            Accepts::Json,
            "{ amount: \"{{ inputs.amount }}\" }",
            "The request body, as JSON. A text that is nothing but a placeholder becomes the value itself.",
        ),
        key(
            "form",
            Accepts::TextsByName,
            "{ amount: \"{{ inputs.amount }}\" }",
            "The request body, as a form.",
        ),
        key(
            "key_header",
            Accepts::Text,
            "Idempotency-Key",
            "The header that carries the idempotency key, or `off`. Default: Idempotency-Key.",
        ),
        key("expect", Accepts::Map(&ANSWER), "{ status: 200..299 }", "What an answer is that says \"done\"."),
        key(
            "not_applied_on",
            Accepts::Statuses,
            "[429]",
            "Statuses by which this server says that it did nothing.",
        ),
        key(
            "output",
            Accepts::TextsByName,
            "{ id: body.id }",
            "What later steps may use of the answer: names to places in it. Default: its body.",
        ),
        key("tls", Accepts::Map(&TLS), "{ verify: true }", "How the server proves itself."),
    ],
    one_of: &[],
    later: &["follow", "proxy"],
};

/// `confirm.http`.
pub static CONFIRM_HTTP: Shape = Shape {
    noun: "a map that describes the question",
    keys: &[
        required(
            "url",
            Accepts::Text,
            "\"http://127.0.0.1:8080/payments/{{ key }}\"",
            "Where it is sent, http or https.",
        ),
        key("method", Accepts::Text, "GET", "The request method. Default: GET."),
        key(
            "headers",
            Accepts::Secrets,
            "{ Accept: application/json }",
            "Request headers. Of a secret, the journal keeps only where it is.",
        ),
        key("body", Accepts::Text, "\"{{ key }}\"", "The request body, as a text."),
        key("json", Accepts::Json, "{ key: \"{{ key }}\" }", "The request body, as JSON."),
        key("form", Accepts::TextsByName, "{ key: \"{{ key }}\" }", "The request body, as a form."),
        key(
            "applied",
            Accepts::Map(&ANSWER),
            "{ status: 200 }",
            "What an answer is that says \"it took effect\". Default, without both: `{\"applied\": true}` in the body.",
        ),
        key(
            "not_applied",
            Accepts::Map(&ANSWER),
            "{ status: 404 }",
            "What an answer is that says \"it had no effect, and never will\".",
        ),
        key(
            "output",
            Accepts::TextsByName,
            "{ id: body.id }",
            "What later steps may use of the answer. Default: its body.",
        ),
    ],
    one_of: &[],
    later: &[],
};

/// `expect`, `applied` and `not_applied`.
pub static ANSWER: Shape = Shape {
    noun: "a map of expectations",
    keys: &[
        key("status", Accepts::Statuses, "200..299", "The status codes. Default: 200..299."),
        key("contains", Accepts::Text, "booked", "A text that the body must contain."),
    ],
    one_of: &[],
    later: &["json", "matches", "headers"],
};
