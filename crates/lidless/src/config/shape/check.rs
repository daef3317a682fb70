//! What may a check say? The part of the table below `checks`.

use super::{Accepts, CONFIRM_EVERY, EVERY, FAIL_AFTER, RECOVER_AFTER, Shape, TIMEOUT, key, required};

/// One entry of `checks`.
pub static CHECK: Shape = Shape {
    noun: "a check",
    keys: &[
        key("http", Accepts::Map(&HTTP), "{ url: http://127.0.0.1:8080/healthz }", "Asks over HTTP."),
        key("tcp", Accepts::Map(&TCP), "{ address: 127.0.0.1:5432 }", "Connects to a port."),
        key(
            "exec",
            Accepts::Map(&CHECK_EXEC),
            "{ command: [/usr/local/bin/check-api] }",
            "Runs a command: exit code 0 passes (Nagios plugin protocol).",
        ),
        key("process", Accepts::Map(&CHECK_PROCESS), "{}", "Whether the process of `run.process` lives."),
        key("systemd", Accepts::Map(&CHECK_SYSTEMD), "{ unit: api.service }", "Whether a unit is active."),
        EVERY,
        TIMEOUT,
        FAIL_AFTER,
        RECOVER_AFTER,
        CONFIRM_EVERY,
    ],
    one_of: &["http", "tcp", "exec", "process", "systemd"],
    later: &[
        "tls", "dns", "icmp", "disk", "memory", "cpu", "postgres", "mysql", "redis", "haproxy", "docker",
        "file", "log", "evm",
    ],
};

/// `http` of a check.
pub static HTTP: Shape = Shape {
    noun: "a map that describes the request",
    keys: &[
        required("url", Accepts::Text, "http://127.0.0.1:8080/healthz", "What is asked, http or https."),
        key("method", Accepts::Text, "GET", "The request method. Default: GET."),
        key(
            "headers",
            Accepts::Secrets,
            "{ Accept: application/json }",
            "Request headers; secret ones as { credential: NAME }, { file: PATH } or { env: NAME }.",
        ),
        key("body", Accepts::Text, "\"{}\"", "The request body."),
        key("expect", Accepts::Map(&EXPECT), "{ status: 200..299 }", "What a good answer is."),
        key("tls", Accepts::Map(&TLS), "{ verify: true }", "How the server proves itself."),
        key("max_body", Accepts::Size, "1MiB", "How much of the answer is read. Default: 1MiB."),
    ],
    one_of: &[],
    later: &["follow", "proxy", "resolve"],
};

/// `http.expect`.
pub static EXPECT: Shape = Shape {
    noun: "a map of expectations",
    keys: &[
        key("status", Accepts::Statuses, "200..299", "The status codes that pass. Default: 200..399."),
        key("contains", Accepts::Text, "ready", "A text that the body must contain."),
    ],
    one_of: &[],
    later: &["json", "matches", "headers"],
};

/// `http.tls`.
pub static TLS: Shape = Shape {
    noun: "a map of TLS settings",
    keys: &[
        key("verify", Accepts::Bool, "true", "Whether the certificate must be valid. Default: true."),
        key(
            "ca_file",
            Accepts::Text,
            "/etc/ssl/acme-ca.pem",
            "Trusted certificates, in place of the system's.",
        ),
    ],
    one_of: &[],
    later: &["expires_after", "client_cert"],
};

/// `tcp` of a check.
pub static TCP: Shape = Shape {
    noun: "a map with an address",
    keys: &[required("address", Accepts::Text, "127.0.0.1:5432", "HOST:PORT or [IPv6]:PORT.")],
    one_of: &[],
    later: &["send", "expect"],
};

/// `exec` of a check.
pub static CHECK_EXEC: Shape = Shape {
    noun: "a map with a command",
    keys: &[
        required("command", Accepts::Argv, "[/usr/local/bin/check-api]", "The program and its arguments."),
        key(
            "warning",
            Accepts::Words(&["pass", "fail"]),
            "fail",
            "What exit code 1 means: `fail` for a plain script, `pass` for a plugin that warns. Default: fail.",
        ),
        key("env", Accepts::Secrets, "{ LANG: C }", "Environment variables beside lidless's own."),
        key(
            "dir",
            Accepts::Text,
            "/srv/api",
            "The working directory. Default: that of the configuration file.",
        ),
    ],
    one_of: &[],
    later: &["user"],
};

/// `process` of a check.
pub static CHECK_PROCESS: Shape =
    Shape { noun: "an empty map", keys: &[], one_of: &[], later: &["memory", "cpu", "files"] };

/// `systemd` of a check.
pub static CHECK_SYSTEMD: Shape = Shape {
    noun: "a map with a unit",
    keys: &[key("unit", Accepts::Text, "api.service", "The unit. Default: that of `run.systemd`.")],
    one_of: &[],
    later: &[],
};
