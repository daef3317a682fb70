//! Is the command line what it promises? The real binary, in an environment of its own, its whole output in snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "cli/daemon.rs"]
mod daemon;
#[path = "cli/hermetic.rs"]
mod hermetic;
#[path = "cli/neutral.rs"]
mod neutral;
#[path = "cli/nobody.rs"]
mod nobody;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use hermetic::Hermetic;
use insta::assert_snapshot;

const GOOD: &str = "version: 1\nstore: { path: lidless.db }\nweb: off\nservices:\n  api:\n    checks:\n      port: { tcp: { address: \"127.0.0.1:1\" } }\n";
const BAD: &str = "version: 1\nservices:\n  postgres:\n    checks: { port: { tcp: { address: \"127.0.0.1:1\" } } }\n  api:\n    depends_on: [postgers]\n    checks: { port: { tcp: { address: \"127.0.0.1:1\", evry: 1s } } }\n";

#[test]
fn the_help_alone_suffices() {
    let env = Hermetic::new();
    assert_snapshot!("help", env.show(&["--help"]));
    assert_snapshot!("help_short", env.show(&["-h"]));
    for verb in [
        "status",
        "events",
        "incidents",
        "restart",
        "check",
        "serve",
        "watch",
        "demo",
        "schema",
        "completions",
        "man",
    ] {
        assert_snapshot!(format!("help_{verb}"), env.show(&[verb, "--help"]));
    }
    assert_snapshot!("help_store_verify", env.show(&["store", "verify", "--help"]));
}

#[test]
fn a_mistake_in_usage_is_exit_2_and_names_what_was_meant() {
    let env = Hermetic::new();
    let shown = [
        &["statsu"][..],
        &["status", "--jso"],
        &["restart"],
        &["events", "--since", "soonish"],
        &["--connect", "https://host", "status"],
    ];
    assert_snapshot!("usage", shown.map(|args| env.show(args)).join("\n"));
    assert_eq!(env.run(&[]).code, Some(2), "no verb at all");
}

#[test]
fn an_invalid_configuration_is_exit_3_with_every_problem() {
    let env = Hermetic::new();
    env.write("lidless.yaml", BAD);
    assert_snapshot!("check_invalid", env.show(&["check"]));
    let json = env.run(&["check", "--json", "lidless.yaml"]);
    assert_eq!(json.code, Some(3));
    assert_snapshot!("check_invalid_json", json.stdout);
    assert_snapshot!("check_invalid_ascii", env.show_with(&["check", "lidless.yaml"], &[("LANG", "C")]));
    let served = env.run(&["serve", "--json", "lidless.yaml"]);
    assert_eq!(served.code, Some(3), "it is not served either");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let error: serde_json::Value = serde_json::from_str(&served.stderr).unwrap();
    assert_eq!((&error["schema"], &error["problems"]), (&"lidless/error/1".into(), &json["problems"]));
    assert_eq!(error["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn a_valid_configuration_is_exit_0_and_live_it_depends() {
    let env = Hermetic::new();
    env.write("lidless.yaml", GOOD);
    assert_snapshot!("check_valid", env.show(&["check"]));
    assert_snapshot!("check_ascii", env.show_with(&["check"], &[("LC_ALL", "C")]));
    assert_snapshot!("check_live_fails", env.show(&["check", "--live", "lidless.yaml"]));
    env.write(
        "managed.yaml",
        "version: 1\nstore: { path: s/lidless.db }\nweb: off\nservices:\n  hello:\n    run:\n      process: { command: [lidless, demo-service, --port, \"1\"], user: no-such-user }\n    checks: { http: { http: { url: \"http://127.0.0.1:1/\" } } }\n  shell:\n    run: { exec: { restart: [no-such-command] } }\n    checks: { yes: { exec: { command: [\"true\"] } }, odd: { exec: { command: [sh, -c, \"echo no idea; exit 3\"] } } }\n",
    );
    assert_snapshot!("check_live_of_the_machine", env.show(&["check", "--live", "managed.yaml"]));
    assert!(!env.path("s").exists(), "nothing was left behind");
}

#[test]
fn a_path_that_is_not_utf8_is_shown_as_well_as_can_be() {
    let env = Hermetic::new();
    let name = OsStr::from_bytes(b"caf\xe9.yaml");
    fs::write(env.path("").join(name), GOOD).unwrap();
    let output = env.command(&["check", "--json"]).arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = json["files"][0].as_str().unwrap();
    assert!(file.ends_with("caf\u{fffd}.yaml"), "{file}");
}

#[test]
fn without_a_daemon_every_client_is_exit_4_and_says_where_it_looked() {
    let env = Hermetic::new();
    assert_snapshot!("unreachable", env.show(&["--connect", "unix:nothing.sock", "status"]));
    env.write("lidless.yaml", GOOD);
    assert_snapshot!("unreachable_of_config", env.show(&["status", "--config", "lidless.yaml"]));
    assert_snapshot!("unreachable_json", env.show(&["--connect", "nothing.sock", "incidents", "--json"]));
    for verb in [&["events"][..], &["restart", "api"], &["events", "-f"]] {
        let run = env.run_with(verb, &[("LIDLESS_SOCKET", "nothing.sock")]);
        assert_eq!(run.code, Some(4), "{verb:?}: {}", run.stderr);
    }
}

#[test]
fn a_killed_daemon_leaves_a_socket_that_nobody_listens_on() {
    let env = Hermetic::new();
    drop(std::os::unix::net::UnixListener::bind(env.path("stale.sock")).unwrap());
    assert_snapshot!("stale_socket", env.show(&["--connect", "unix:stale.sock", "status"]));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let env = Hermetic::new();
    let mut child = env.command(&["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_full_disk_is_not_hidden_behind_exit_0() {
    let env = Hermetic::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = env.command(&["schema"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_snapshot!("full_disk", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn schema_completions_and_manual_pages_are_written() {
    let env = Hermetic::new();
    let schema = env.run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(schema["title"], "lidless configuration, version 1");
    for shell in ["bash", "zsh", "fish"] {
        let script = env.run(&["completions", shell]);
        assert_eq!(script.code, Some(0));
        assert!(script.stdout.contains("restart"), "{shell}");
    }
    assert!(env.run(&["man"]).stdout.contains(".TH lidless 1"));
    assert_eq!(env.run(&["man", "pages"]).code, Some(0));
    for page in ["lidless.1", "lidless-status.1", "lidless-store-verify.1"] {
        assert!(env.path("pages").join(page).is_file(), "{page}");
    }
    env.write("file", "");
    assert_eq!(env.run(&["man", "file"]).code, Some(1), "a file is no folder");
}

#[test]
fn the_demo_writes_one_document_and_its_words_to_stderr() {
    let env = Hermetic::new();
    let demo = env.run(&["demo", "--pause", "0s", "--json"]);
    assert_eq!(demo.code, Some(0), "{}", demo.stderr);
    let json: serde_json::Value = serde_json::from_str(&demo.stdout).unwrap();
    assert_eq!((&json["schema"], &json["all_healed"]), (&"lidless/demo/1".into(), &true.into()));
    let faults = json["faults"].as_array().unwrap();
    assert!(faults.len() == 6 && faults.iter().all(|fault| fault["healed_ms"].is_u64()), "{json}");
    assert!(demo.stderr.contains("kill -9 of the service"), "{}", demo.stderr);
}

#[test]
fn a_store_that_is_none_is_exit_4() {
    let env = Hermetic::new();
    assert_snapshot!("verify_nothing", env.show(&["store", "verify", "nothing.db"]));
    env.write("other.db", "this is no journal of lidless, and it is longer than a hundred bytes, so that it could be a file header of some kind");
    assert_snapshot!("verify_other", env.show(&["store", "verify", "other.db"]));
    assert_eq!(env.run(&["events", "--store", "nothing.db"]).code, Some(4));
}
