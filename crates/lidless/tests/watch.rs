//! Does `lidless watch` do the job of the watchdog script? Exit codes, the lines that scripts look for, and the counts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::time::{Duration, Instant};

use support::{Folder, free_port, lidless};

fn watch(args: &[&str]) -> Output {
    lidless().arg("watch").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_service_that_never_recovers_is_restarted_twice_then_critical() {
    let folder = Folder::new();
    let log = folder.path().join("restarts");
    let url = format!("http://127.0.0.1:{}/health", free_port());
    let heal = format!("echo restarted >> {}", log.display());
    let output = watch(&[&url, "--heal", &heal, "--tries", "3", "--settle", "10ms", "--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "restarted\nrestarted\n");
    let said = text(&output.stderr);
    let critical = said.lines().find(|line| line.contains("CRITICAL")).unwrap_or_default();
    assert!(critical.ends_with(&format!("CRITICAL: {url} failed after 3 retries")), "{said}");
    assert_eq!(critical.as_bytes()[2], b':', "a time stamp first: {critical}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_heal_that_fails_is_judged_by_the_check_after_the_settle_time() {
    for code in [1, 127] {
        let folder = Folder::new();
        let log = folder.path().join("heals");
        let url = format!("http://127.0.0.1:{}/health", free_port());
        let heal = format!("echo healed >> {}; exit {code}", log.display());
        let began = Instant::now();
        let output = watch(&[&url, "--heal", &heal, "--tries", "3", "--settle", "300ms", "--once"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(began.elapsed() >= Duration::from_millis(600), "after {:?}", began.elapsed());
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "healed\nhealed\n", "exit {code}");
        assert!(text(&output.stderr).contains("failed after 3 retries"), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(&format!("exit {code}")), "{}", text(&output.stderr));
        // It did its work and says that it failed: what counts is the work.
        let well = folder.path().join("well").display().to_string();
        let heal = format!("touch {well}; exit {code}");
        let settle = ["--settle", "10ms", "--once", "--name", "svc"];
        let output = watch(&[&["--heal", &heal][..], &settle, &["--", "test", "-f", &well]].concat());
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "svc is healthy\n"));
    }
}

#[test]
fn a_healthy_service_is_said_to_be_so_and_left_alone() {
    let folder = Folder::new();
    let log = folder.path().join("restarts");
    let output =
        watch(&["--name", "svc", "--heal", &format!("touch {}", log.display()), "--once", "--", "true"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "svc is healthy\n"));
    assert!(!log.exists());
}

#[test]
fn a_service_that_the_restart_mends_ends_well() {
    let folder = Folder::new();
    let file = folder.path().join("well").display().to_string();
    let output = watch(&[
        "--name",
        "svc",
        "--heal",
        &format!("touch {file}"),
        "--settle",
        "10ms",
        "--once",
        "--",
        "test",
        "-f",
        &file,
    ]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "svc is healthy\n"));
}

#[test]
fn one_try_restarts_nothing() {
    let folder = Folder::new();
    let log = folder.path().join("restarts");
    let heal = format!("touch {}", log.display());
    let output = watch(&["--name", "svc", "--heal", &heal, "--tries", "1", "--once", "--", "false"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("CRITICAL: svc failed after 1 retries"));
    assert!(!log.exists());
}

#[test]
fn without_a_heal_it_is_asked_as_often_before_it_is_critical() {
    let folder = Folder::new();
    let log = folder.path().join("asked");
    let asked = || std::fs::read_to_string(&log).unwrap().lines().count();
    let script = format!("echo asked >> {}; echo no answer; exit 2", log.display());
    let began = Instant::now();
    let common = ["--name", "svc", "--tries", "3", "--settle", "400ms", "--once", "--", "sh", "-c"];
    let output = watch(&[&common[..], &[&script]].concat());
    assert_eq!((output.status.code(), asked()), (Some(1), 3), "{}", text(&output.stderr));
    assert!(began.elapsed() >= Duration::from_millis(780), "after {:?}", began.elapsed());
    let said = text(&output.stderr);
    assert!(said.contains("CRITICAL: svc failed after 3 retries\n  no answer"), "{said}");
    // One that comes back by itself in time is well.
    std::fs::remove_file(&log).unwrap();
    let script = format!("echo asked >> {0}; test $(wc -l < {0}) -ge 3", log.display());
    let output = watch(&[&common[..], &[&script]].concat());
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "svc is healthy\n"));
    assert_eq!(asked(), 3);
}

#[test]
fn what_cannot_be_asked_is_critical_but_restarts_nothing() {
    let folder = Folder::new();
    let log = folder.path().join("restarts");
    let heal = format!("touch {}", log.display());
    let output = watch(&["http://nonexistent.invalid/", "--heal", &heal, "--settle", "10ms", "--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot resolve"), "{}", text(&output.stderr));
    assert!(!log.exists(), "a broken resolver is not the service's fault");
}

#[test]
fn a_mistake_in_a_flag_is_a_usage_error_with_an_example() {
    for args in
        [&["tcp://127.0.0.1:1", "--tries", "many"][..], &["tcp://127.0.0.1:1", "--every", "5"], &["--once"]]
    {
        let output = watch(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(!text(&output.stderr).is_empty());
    }
    let output = watch(&["http://127.0.0.1:port/", "--once"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn without_once_it_stays_and_heals_again_and_again() {
    let folder = Folder::new();
    let file = folder.path().join("well");
    let child = lidless()
        .args([
            "watch",
            "--every",
            "50ms",
            "--settle",
            "10ms",
            "--tries",
            "100/1h",
            "--fail-after",
            "1",
            "--heal",
        ])
        .arg(format!("touch {}", file.display()))
        .args(["--", "test", "-f"])
        .arg(&file)
        .stdout(std::fs::File::create(folder.path().join("lines")).unwrap())
        .spawn()
        .unwrap();
    let mut child = support::Guarded(child);
    let lines = folder.path().join("lines");
    let closed = || std::fs::read_to_string(&lines).unwrap().matches("\"incident_closed\"").count();
    for heals in 1..=3 {
        support::wait_until(Duration::from_secs(20), "it is healed", || closed() == heals);
        std::fs::remove_file(&file).unwrap();
    }
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    let text = std::fs::read_to_string(&lines).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
}

#[test]
fn save_keeps_the_same_thing_as_configuration() {
    let folder = Folder::new();
    let file = folder.path().join("lidless.yaml");
    let save = |args: &[&str]| {
        let output = lidless().arg("watch").args(args).arg("--save").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    save(&[
        "http://127.0.0.1:8080/health",
        "--name",
        "api",
        "--heal",
        "systemctl restart api",
        "--every",
        "5s",
    ]);
    save(&["--unit", "worker"]);
    let output = lidless().arg("check").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let before = std::fs::read_to_string(&file).unwrap();
    let again = lidless().args(["watch", "--unit", "worker", "--save"]).arg(&file).output().unwrap();
    assert_eq!(again.status.code(), Some(3), "the same name twice");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before, "a file that would be bad is left as it was");
}

#[test]
fn what_is_saved_elsewhere_finds_the_same_files_again() {
    let folder = Folder::new();
    // The quote is for the shell that heals.
    let here = folder.path().join("the owner's");
    std::fs::create_dir_all(here.join("sub")).unwrap();
    let script = here.join("check.sh");
    std::fs::write(&script, "#!/bin/sh\ntest -f \"$1\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut save = lidless();
    save.current_dir(&here).args([
        "watch",
        "--heal",
        "echo healed > marker",
        "--name",
        "svc",
        "--every",
        "50ms",
    ]);
    save.args(["--fail-after", "1", "--settle", "10ms"]);
    let output = save.args(["--save", "sub/lidless.yaml", "--", "./check.sh", "marker"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let saved = here.join("sub/lidless.yaml");
    let yaml = std::fs::read_to_string(&saved).unwrap();
    let daemon = support::Daemon::serve(&folder, &format!("store: {{ path: s.db }}\nweb: off\n{yaml}"));
    daemon.wait_up(Duration::from_secs(20));
    assert_eq!(std::fs::read_to_string(here.join("marker")).unwrap(), "healed\n");
    daemon.end();
    let mut beside = lidless();
    beside.current_dir(&here).args([
        "watch",
        "--name",
        "two",
        "--heal",
        "./heal.sh",
        "--save",
        "--",
        "./check.sh",
    ]);
    assert!(beside.output().unwrap().status.success());
    let yaml = std::fs::read_to_string(here.join("lidless.yaml")).unwrap();
    assert!(!yaml.contains("owner"), "beside the file nothing need be said of the folder: {yaml}");
}

#[test]
fn a_token_in_a_url_is_no_part_of_the_name() {
    let folder = Folder::new();
    let file = folder.path().join("lidless.yaml");
    let url = "http://127.0.0.1:1/health?token=s3cret";
    let output = lidless().args(["watch", url, "--save"]).arg(&file).output().unwrap();
    assert!(output.status.success() && !text(&output.stderr).contains("s3cret"), "{}", text(&output.stderr));
    let yaml = std::fs::read_to_string(&file).unwrap();
    assert_eq!(yaml.matches("s3cret").count(), 1, "only in the URL that is asked: {yaml}");
    let output = watch(&[url, "--once", "--tries", "1"]);
    assert!(!text(&output.stderr).contains("s3cret"), "{}", text(&output.stderr));
}

#[test]
fn once_ends_when_a_first_failure_passes_before_it_counts() {
    let folder = Folder::new();
    let file = folder.path().join("asked").display().to_string();
    // The first question fails, every later one is answered well: it never is down.
    let script = format!("test -f {file} || {{ touch {file}; exit 1; }}");
    let output = watch(&[
        "--name",
        "svc",
        "--once",
        "--fail-after",
        "3",
        "--every",
        "50ms",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "svc is healthy\n"));
}

#[test]
fn once_in_json_writes_nothing_but_json_and_says_how_it_ended() {
    for (command, code, healthy) in [("true", 0, true), ("false", 1, false)] {
        let output = watch(&["--json", "--name", "svc", "--tries", "1", "--once", "--", command]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let lines: Vec<serde_json::Value> =
            text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = lines.last().unwrap();
        assert_eq!((&last["schema"], &last["name"]), (&"lidless/watch/1".into(), &"svc".into()));
        assert_eq!((last["healthy"].as_bool(), last["error"].is_null()), (Some(healthy), healthy));
        assert_eq!(text(&output.stderr).contains("CRITICAL"), !healthy);
    }
}

#[test]
fn a_reader_that_has_enough_ends_it() {
    let mut child = lidless()
        .args(["watch", "--every", "50ms", "--", "true"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut code = None;
    support::wait_until(Duration::from_secs(20), "it ends", || {
        code = child.try_wait().unwrap().map(|status| status.code());
        code.is_some()
    });
    assert_eq!(code.flatten(), Some(0));
}

#[test]
fn a_name_of_which_no_key_can_be_made_is_still_a_name() {
    let output = watch(&["--name", "日本", "--once", "--", "true"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "日本 is healthy\n"));
}
