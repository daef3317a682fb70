//! Does the command check read every ending right, and leave nothing behind?

use std::fs;
use std::time::Duration;

use lidless_drivers::check::Check;
use lidless_drivers::check::exec::{ExecCheck, ExecSettings, Warning};
use lidless_drivers::child::{self, CommandSpec, Leftovers};

use rustix::process::{Pid, Signal, kill_process};

use super::{PLENTY, SHORT, assert_took, eventually, shown};

fn sh(script: impl Into<String>) -> CommandSpec {
    CommandSpec { argv: vec!["sh".into(), "-c".into(), script.into()], ..CommandSpec::default() }
}

fn check(command: CommandSpec, warning: Warning) -> ExecCheck {
    ExecCheck::new(ExecSettings { command, warning })
}

async fn probe(script: &str, warning: Warning) -> String {
    shown(&check(sh(script), warning).probe(PLENTY).await)
}

/// Counts the processes with this text among their arguments. A zombie has no arguments.
fn count(marker: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let has =
        |path: std::path::PathBuf| fs::read(path.join("cmdline")).is_ok_and(|line| contains(&line, marker));
    processes.filter(|process| has(process.path())).count()
}

fn contains(line: &[u8], marker: &str) -> bool {
    line.windows(marker.len()).any(|window| window == marker.as_bytes())
}

/// Counts our own children that ended and were not reaped.
fn zombies() -> usize {
    let us = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let is_one = |stat: String| {
        // State and parent stand behind the name, which is in parentheses and may hold anything.
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        fields.next() == Some("Z") && fields.next() == Some(&us)
    };
    processes.filter(|process| fs::read_to_string(process.path().join("stat")).is_ok_and(is_one)).count()
}

#[tokio::test]
async fn exit_codes_mean_what_the_plugin_protocol_says() {
    assert_eq!(probe("echo 'OK - fine'", Warning::Pass).await, "pass");
    assert_eq!(probe("echo 'WARNING - load 5'; exit 1", Warning::Pass).await, "pass");
    assert_eq!(
        probe("echo 'WARNING - load 5 | load=5'; exit 1", Warning::Fail).await,
        "command: WARNING - load 5 (exit code 1)"
    );
    assert_eq!(
        probe("echo 'CRITICAL - gone'; exit 2", Warning::Pass).await,
        "command: CRITICAL - gone (exit code 2)"
    );
    assert_eq!(
        probe("echo 'no such host' >&2; exit 2", Warning::Pass).await,
        "command: no such host (exit code 2)"
    );
    assert_eq!(probe("echo UNKNOWN; exit 3", Warning::Pass).await, "inconclusive: UNKNOWN (exit code 3)");
    assert_eq!(probe("exit 4", Warning::Pass).await, "command: exit code 4");
    assert_eq!(probe("exit 126", Warning::Pass).await, "inconclusive: exit code 126: cannot be executed");
    assert_eq!(probe("exit 127", Warning::Pass).await, "inconclusive: exit code 127: command not found");
    assert_eq!(probe("kill -SEGV $$", Warning::Pass).await, "command: ended by signal 11");
}

#[tokio::test]
async fn a_plain_command_fails_with_whatever_code_it_has() {
    assert_eq!(probe("echo CRITICAL", Warning::Fail).await, "pass");
    assert_eq!(probe("exit 1", Warning::Fail).await, "command: exit code 1");
    assert_eq!(probe("echo busy; exit 7", Warning::Fail).await, "command: busy (exit code 7)");
    for code in [5, 22, 28, 125, 128, 137, 255] {
        let told = format!("command: exit code {code}");
        for warning in [Warning::Pass, Warning::Fail] {
            assert_eq!(probe(&format!("exit {code}"), warning).await, told);
        }
    }
    assert_eq!(probe("exit 3", Warning::Fail).await, "inconclusive: exit code 3");
    assert_eq!(probe("kill -KILL $$", Warning::Fail).await, "command: ended by signal 9");
}

#[tokio::test]
async fn a_plugins_values_are_kept() {
    let check = check(sh("echo \"DISK WARNING | '/ x'=93%;90;95\"; exit 1"), Warning::Pass);
    let (outcome, details) = check.probe_detailed(PLENTY).await;
    assert_eq!(shown(&outcome), "pass");
    assert_eq!((details.exit_code, &*details.output.text), (Some(1), "DISK WARNING"));
    assert_eq!(details.output.values[0].label, "/ x");
    assert_eq!(details.output.values[0].value, Some(93.0));
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_inconclusive() {
    let missing = CommandSpec { argv: vec!["/nonexistent/plugin".into()], ..CommandSpec::default() };
    assert_eq!(
        shown(&check(missing, Warning::Pass).probe(PLENTY).await),
        "inconclusive: cannot run `/nonexistent/plugin`: No such file or directory (os error 2)"
    );
    let nowhere = CommandSpec { dir: Some("/nonexistent".into()), ..sh("true") };
    assert_eq!(
        shown(&check(nowhere, Warning::Fail).probe(PLENTY).await),
        "inconclusive: cannot run `sh`: its directory `/nonexistent` is not there"
    );
    let empty = check(CommandSpec::default(), Warning::Fail);
    assert_eq!(shown(&empty.probe(PLENTY).await), "inconclusive: the command is empty");
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let marker = format!("lidless-hang-{}", std::process::id());
    // The marker stands behind the script as `$0`, and so among the arguments of each shell.
    let script = "sh -c 'sleep 1000; :' \"$0\" & sleep 1000; :";
    let argv = ["sh", "-c", script, &marker].map(str::to_owned).into();
    let command = CommandSpec { argv, ..CommandSpec::default() };
    let check = check(command, Warning::Pass);
    let mut probe = check.probe(SHORT);
    let mut seen = 0;
    let outcome = loop {
        tokio::select! {
            outcome = &mut probe => break outcome,
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(20)) => seen = seen.max(count(&marker)),
        }
    };
    // A shell that has not yet become its `sleep` counts as one more.
    assert!(seen >= 2, "the command and its child were not both there");
    assert_took(&outcome, SHORT);
    assert_eq!(shown(&outcome), "timeout: no answer within 300 ms; process group killed");
    eventually("both are gone", || count(&marker) == 0).await;
    eventually("no zombie is left", || zombies() == 0).await;
}

#[tokio::test]
async fn a_child_left_behind_with_the_pipe_open_does_not_hold_up_the_answer() {
    // A number of seconds that no other test sleeps for.
    let marker = format!("1000.{}", std::process::id());
    for (leftovers, stay) in [(Leftovers::Kill, 0), (Leftovers::Leave, 1)] {
        let command = CommandSpec { leftovers, ..sh(format!("sleep {marker} & echo $!")) };
        let ended = child::run(&command, None, PLENTY, 1000).await.unwrap();
        assert_eq!((ended.code, ended.timed_out), (Some(0), false));
        let left =
            String::from_utf8(ended.stdout).unwrap().trim().parse().map(Pid::from_raw).unwrap().unwrap();
        eventually("only who may stay is there", || count(&marker) == stay).await;
        if stay > 0 {
            kill_process(left, Signal::KILL).unwrap();
        }
        eventually("it is gone", || count(&marker) == 0).await;
    }
}

#[tokio::test]
async fn a_probe_that_is_given_up_takes_its_command_along() {
    let marker = format!("lidless-dropped-{}", std::process::id());
    let argv = ["sh", "-c", "sleep 1000; :", &marker].map(str::to_owned).into();
    let check = check(CommandSpec { argv, ..CommandSpec::default() }, Warning::Pass);
    let mut probe = check.probe(PLENTY);
    while count(&marker) == 0 {
        tokio::select! {
            outcome = &mut probe => panic!("ended by itself: {outcome:?}"),
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    drop(probe);
    eventually("it is gone", || count(&marker) == 0).await;
    eventually("no zombie is left", || zombies() == 0).await;
}

#[tokio::test]
async fn a_flood_of_output_is_read_and_only_its_beginning_is_kept() {
    let flood = sh("head -c 100000000 /dev/zero | tr '\\0' x; echo err >&2");
    let ended = child::run(&flood, None, PLENTY, 64 * 1024).await.unwrap();
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 64 * 1024));
    assert_eq!(ended.stderr, b"err\n");
}

#[tokio::test]
async fn what_a_restart_leaves_running_may_write_when_nobody_listens_any_more() {
    let dir = tempfile::tempdir().unwrap();
    // Both streams, and only after the command itself is over.
    let script = "(while ! test -e go; do sleep 0.02; done; echo out; echo err >&2; sh -c 'echo out; echo err >&2'; touch alive) & echo started; echo how >&2";
    let command = CommandSpec { leftovers: Leftovers::Leave, dir: Some(dir.path().into()), ..sh(script) };
    let ended = child::run(&command, None, PLENTY, 1000).await.unwrap();
    assert_eq!((&*ended.stdout, &*ended.stderr), (&b"started\n"[..], &b"how\n"[..]));
    fs::write(dir.path().join("go"), "").unwrap();
    eventually("it wrote and lives", || dir.path().join("alive").exists()).await;
}

#[tokio::test]
async fn a_restart_that_floods_its_output_costs_no_more_memory_than_is_kept() {
    // It ends once what it wrote is held no longer.
    let script = "exec 3>&1; head -c 300000000 /dev/zero; \
                  while test $(stat -Lc %s /proc/self/fd/3) -gt 1048576; do sleep 0.02; done";
    let command = CommandSpec { leftovers: Leftovers::Leave, ..sh(script) };
    let ended = child::run(&command, None, PLENTY, 1000).await.unwrap();
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 1000));
}

#[tokio::test]
async fn endless_output_ends_at_the_deadline() {
    let outcome = check(sh("exec yes"), Warning::Pass).probe(SHORT).await;
    assert_took(&outcome, SHORT);
}

#[tokio::test]
async fn input_is_given_whole_and_may_be_left_unread() {
    let input = vec![b'x'; 1_000_000];
    let ended = child::run(&sh("wc -c"), Some(&input), PLENTY, 100).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout).trim(), "1000000");
    let ended = child::run(&sh("echo done"), Some(&input), PLENTY, 100).await.unwrap();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), &b"done\n"[..]));
    let ended = child::run(&sh("exec <&-; echo done"), Some(&input), PLENTY, 100).await.unwrap();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), &b"done\n"[..]));
    let ended = child::run(&sh("cat"), None, PLENTY, 100).await.unwrap();
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 0));
}

#[tokio::test]
async fn a_command_runs_where_and_with_what_its_spec_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = sh("pwd; echo $COLOUR; exit 9");
    command.dir = Some(dir.path().into());
    command.env.insert("COLOUR".into(), "green".into());
    let ended = child::run(&command, None, PLENTY, 1000).await.unwrap();
    let path = dir.path().canonicalize().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), format!("{}\ngreen\n", path.display()));
    assert_eq!((ended.code, ended.signal, ended.timed_out), (Some(9), None, false));
}

#[tokio::test]
async fn the_last_words_of_a_command_are_never_lost() {
    // A race between the end of the process and its last bytes would show here, now and then.
    for _ in 0..200 {
        let ended = child::run(&sh("echo last words"), None, PLENTY, 100).await.unwrap();
        assert_eq!(ended.stdout, b"last words\n");
    }
}
