//! What may a service say? The part of the table below `services`, checks apart.

use super::{ANY, Accepts, CHECK, NONZERO, Shape, key, required};

/// One entry of `services`.
pub static SERVICE: Shape = Shape {
    noun: "a service",
    keys: &[
        key("title", Accepts::Text, "Web shop", "A longer name, for people."),
        key(
            "run",
            Accepts::Map(&RUN),
            "{ systemd: api.service }",
            "What runs it, so that lidless can start or heal it.",
        ),
        key(
            "depends_on",
            Accepts::Texts,
            "[postgres]",
            "Services that it needs: while one of them is down, this one is not healed.",
        ),
        key(
            "checks",
            Accepts::Named(&CHECK),
            "{ up: { tcp: { address: 127.0.0.1:80 } } }",
            "What is asked of it, by name.",
        ),
        key(
            "heal",
            Accepts::MapOrOff(&HEAL),
            "{ restart: { attempts: 3, per: 15m } }",
            "What may be done when it is down, or `off`. Default: restart for `run.process`, else nothing.",
        ),
    ],
    one_of: &[],
    later: &["escalate", "planned"],
};

/// `run`.
pub static RUN: Shape = Shape {
    noun: "a map that says what runs the service",
    keys: &[
        key(
            "process",
            Accepts::Map(&PROCESS),
            "{ command: [/usr/local/bin/api] }",
            "A process of lidless's own. It outlives lidless, and the next lidless adopts it.",
        ),
        key("systemd", Accepts::Text, "api.service", "A unit of systemd."),
        key(
            "exec",
            Accepts::Map(&RUN_EXEC),
            "{ restart: [/usr/local/bin/restart-api] }",
            "Commands that restart it.",
        ),
    ],
    one_of: &["process", "systemd", "exec"],
    later: &["docker", "podman"],
};

/// `run.process`.
pub static PROCESS: Shape = Shape {
    noun: "a map that describes the process",
    keys: &[
        required(
            "command",
            Accepts::Argv,
            "[/usr/local/bin/api, --port, \"8080\"]",
            "The program and its arguments. `lidless` alone is this very binary.",
        ),
        key(
            "dir",
            Accepts::Text,
            "/srv/api",
            "The working directory. Default: that of the configuration file.",
        ),
        key("user", Accepts::Text, "api", "The user to run as. Default: lidless's own."),
        key("env", Accepts::Secrets, "{ LOG: info }", "Environment variables beside lidless's own."),
        key(
            "log",
            Accepts::Text,
            "/var/log/api.log",
            "Where its output is appended. Default: logs/NAME.log beside the store.",
        ),
        key("stop", Accepts::Map(&STOP), "{ signal: TERM, within: 10s }", "How it is stopped."),
        key("dead_for", ANY, "0s", "How long it must be gone before a new one starts. Default: 0s."),
        key(
            "reload_signal",
            Accepts::Signal,
            "HUP",
            "What makes it read its configuration anew. Default: HUP.",
        ),
    ],
    one_of: &[],
    later: &["limits", "group", "umask"],
};

/// `run.process.stop`.
pub static STOP: Shape = Shape {
    noun: "a map that says how to stop",
    keys: &[
        key("signal", Accepts::Signal, "TERM", "What is sent first. Default: TERM."),
        key("within", NONZERO, "10s", "How long it may take. Default: 10s."),
        key(
            "kill",
            Accepts::Bool,
            "true",
            "Whether it is killed after that; `false` means never kill -9. Default: true.",
        ),
    ],
    one_of: &[],
    later: &[],
};

/// `run.exec`.
pub static RUN_EXEC: Shape = Shape {
    noun: "a map of commands",
    keys: &[
        required(
            "restart",
            Accepts::Argv,
            "[/usr/local/bin/restart-api]",
            "Stops the old instance and starts a new one.",
        ),
        key("reload", Accepts::Argv, "[/usr/local/bin/reload-api]", "Makes it read its configuration anew."),
        key("timeout", NONZERO, "60s", "The longest that such a command may take. Default: 60s."),
    ],
    one_of: &[],
    later: &[],
};

/// `heal`.
pub static HEAL: Shape = Shape {
    noun: "a map that says how to heal",
    keys: &[
        key("restart", Accepts::Map(&ATTEMPTS), "{ attempts: 3, per: 15m }", "Stops it and starts it anew."),
        key(
            "reload",
            Accepts::Map(&ATTEMPTS),
            "{ attempts: 2, per: 30m }",
            "Makes it read its configuration anew.",
        ),
        key("verify", Accepts::Map(&VERIFY), "{ within: 30s }", "When a heal counts: its checks pass again."),
    ],
    one_of: &["restart", "reload"],
    later: &["on_give_up", "pipeline", "run"],
};

/// `heal.restart` and `heal.reload`.
pub static ATTEMPTS: Shape = Shape {
    noun: "a map of limits",
    keys: &[
        key("attempts", Accepts::Whole(1), "3", "How many in the window. Default: 3."),
        key("per", NONZERO, "15m", "The length of the sliding window. Default: 15m."),
        key(
            "backoff",
            Accepts::DurationRange,
            "1s..1m",
            "The first and the longest wait before another attempt. Default: 1s..1m.",
        ),
        key("retry_after", NONZERO, "1h", "After giving up, one more attempt each such time. Default: 1h."),
        key(
            "never_on_exit",
            Accepts::ExitCodes,
            "[78]",
            "Exit codes by which the process says: do not restart me.",
        ),
    ],
    one_of: &[],
    later: &[],
};

/// `heal.verify`.
pub static VERIFY: Shape = Shape {
    noun: "a map of times",
    keys: &[
        key("settle", ANY, "0s", "Answers are looked at only this long after the act. Default: 0s."),
        key(
            "stay",
            ANY,
            "1s",
            "Once all checks pass they must go on for this long, or the heal did not work. Default: 1s.",
        ),
        key("within", NONZERO, "30s", "All checks must pass within this time after that. Default: 30s."),
    ],
    one_of: &[],
    later: &[],
};
