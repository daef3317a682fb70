//! Does a step stay within its time and its memory, and leave nobody behind?

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use lidless_drivers::child::{CommandSpec, Leftovers};
use lidless_drivers::step::exec::{ExecStep, ExecStepSettings};
use lidless_drivers::step::{Call, Step};
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::{Kept, PLENTY, call, count, eventually, perform, python, settings, sh, shown, step};

/// The most memory that we ever had, in KiB.
fn memory_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_overdue_step_leaves_doubt_and_nobody() {
    let marker = format!("lidless-overdue-{}", std::process::id());
    let argv =
        ["sh", "-c", "sleep 1000 & echo '{\"ok\":true}'; sleep 1000; :", &marker].map(str::to_owned).into();
    let step = step(CommandSpec { argv, ..CommandSpec::default() }, false);
    let begun = Instant::now();
    let answer = step.perform(&call(), Duration::from_secs(1), &Kept::default()).await;
    assert_eq!(shown(&answer), "unknown: not done within 1 s");
    assert!(begun.elapsed() >= Duration::from_secs(1), "ended early: {:?}", begun.elapsed());
    eventually("nobody is left", || count(&marker) == 0).await;
}

#[tokio::test]
async fn an_overdue_step_names_the_time_that_it_was_given_whatever_was_left_of_it() {
    let step = step(sh("sleep 1000"), false);
    let call = Call { allotted: Some(Duration::from_secs(10)), ..call() };
    let answer = step.perform(&call, Duration::from_millis(100), &Kept::default()).await;
    assert_eq!(shown(&answer), "unknown: not done within 10 s");
}

#[tokio::test]
async fn a_fork_bomb_is_killed_with_its_group() {
    // A number of seconds that no other test sleeps for.
    let marker = format!("1001.{}", std::process::id());
    let script = format!("for i in $(seq 200); do sleep {marker} & done; echo forked >&2; wait");
    let step = step(sh(&script), true);
    let log = Kept::default();
    let call = call();
    let mut attempt = step.perform(&call, Duration::from_secs(5), &log);
    let mut seen = 0;
    let answer = loop {
        tokio::select! {
            answer = &mut attempt => break answer,
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(50)), if seen < 200 => seen = seen.max(count(&marker)),
        }
    };
    assert_eq!(shown(&answer), "unknown: not done within 5 s");
    assert!(log.has("forked") && seen >= 200, "only {seen} were there");
    eventually("all are gone", || count(&marker) == 0).await;
}

/// Leaves so many sleepers, each in a session of its own and nobody's child any more; then says so and goes on.
fn runaways(marker: &str, count: usize, then: &str) -> CommandSpec {
    sh(&format!("for i in $(seq {count}); do (setsid sleep {marker} &) ; done; echo gone >&2; {then}"))
}

#[tokio::test]
async fn who_leaves_the_group_is_ended_at_the_deadline() {
    let marker = format!("1005.{}", std::process::id());
    let step = step(runaways(&marker, 50, "sleep 1000"), true);
    let (call, log) = (call(), Kept::default());
    let mut attempt = step.perform(&call, Duration::from_secs(5), &log);
    let mut seen = 0;
    let answer = loop {
        tokio::select! {
            answer = &mut attempt => break answer,
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(50)), if seen < 51 => seen = seen.max(count(&marker)),
        }
    };
    // At once, and not only soon: somebody is asked next whether it took effect.
    assert_eq!((shown(&answer), count(&marker)), ("unknown: not done within 5 s".to_owned(), 0));
    assert!(log.has("gone") && seen >= 51, "only {seen} were there");
}

#[tokio::test]
async fn who_leaves_the_group_is_ended_when_the_step_fails_and_stays_when_it_succeeds() {
    let marker = format!("1006.{}", std::process::id());
    for (then, answer) in [
        ("exit 1", "unknown: gone"),
        ("kill -KILL $$", "unknown: ended by signal 9"),
        (r#"echo '{"ok":false,"error":"no"}'"#, "transient: no"),
    ] {
        assert_eq!(perform(runaways(&marker, 5, then), true).await, answer);
        assert_eq!(count(&marker), 0, "{then}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid").display().to_string();
    let stays = format!(
        "(setsid sh -c 'echo $$ > {pid}; exec sleep {marker}' &); while ! test -s {pid}; do sleep 0.01; done; cat {pid}"
    );
    let answer = perform(sh(&stays), true).await;
    eventually("it sleeps", || count(&format!("sleep\0{marker}")) == 1).await;
    let pid = answer.trim_start_matches("applied {\"text\":\"").trim_end_matches("\"}");
    assert_eq!(perform(sh(&format!("kill -KILL {pid}")), true).await, "applied {}");
    eventually("nobody is there", || count(&marker) == 0).await;
}

#[tokio::test]
async fn who_leaves_the_group_is_ended_when_the_step_is_given_up() {
    let marker = format!("1007.{}", std::process::id());
    let step = step(runaways(&marker, 5, "sleep 1000"), true);
    let (call, log) = (call(), Kept::default());
    let mut attempt = step.perform(&call, PLENTY, &log);
    while count(&marker) < 6 {
        tokio::select! {
            answer = &mut attempt => panic!("ended by itself: {answer:?}"),
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    drop(attempt);
    eventually("all are gone", || count(&marker) == 0).await;
}

fn beating(script: &str, every: Duration) -> ExecStep {
    ExecStep::new(ExecStepSettings { heartbeat: Some(every), ..settings(sh(script), false) })
}

#[tokio::test]
async fn a_step_without_a_sign_of_life_is_killed() {
    let marker = format!("1008.{}", std::process::id());
    let every = Duration::from_millis(500);
    for script in ["", "echo begun;", "echo begun >&2; echo begun;", "while printf x; do sleep 0.1; done;"] {
        let begun = Instant::now();
        let step = beating(&format!("{script} sleep {marker} & sleep {marker}"), every);
        let answer = step.perform(&call(), PLENTY, &Kept::default()).await;
        assert_eq!(shown(&answer), "unknown: no sign of life for 500 ms", "{script}");
        assert!(begun.elapsed() >= every, "ended early: {:?}", begun.elapsed());
        eventually("nobody is left", || count(&marker) == 0).await;
    }
    // The deadline stands above it.
    let step = beating("while echo x; do sleep 0.1; done", every);
    let answer = step.perform(&call(), Duration::from_secs(1), &Kept::default()).await;
    assert_eq!(shown(&answer), "unknown: not done within 1 s");
}

#[tokio::test]
async fn a_step_that_writes_lines_lives() {
    // Longer than the heartbeat in all, on either stream; the silence at the beginning and at the end counts, too.
    let every = Duration::from_secs(2);
    let script =
        "for i in 1 2 3 4 5; do sleep 0.3; echo $i; sleep 0.3; echo $i >&2; done; echo '{\"ok\":true}'";
    let answer = beating(script, every).perform(&call(), PLENTY, &Kept::default()).await;
    assert_eq!(shown(&answer), "applied {}");
}

#[tokio::test]
async fn a_step_may_close_its_streams_and_work_on() {
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    let script = |end: &str| format!("exec <&- >&- 2>&-; sleep 0.3; echo > {}; {end}", done.display());
    assert_eq!(perform(sh(&script("exit 0")), true).await, "applied {}");
    assert!(done.exists());
    assert_eq!(perform(sh(&script("exit 3")), true).await, "unknown: exit code 3");
    let early = r#"echo '{"ok":true,"output":{"n":7}}'; exec >&-; sleep 0.3"#;
    assert_eq!(perform(sh(early), true).await, r#"applied {"n":7}"#);
    // With its input closed, a question of a megabyte is for nobody.
    let call = Call { inputs: json!({ "much": "x".repeat(1_000_000) }), ..call() };
    let deaf = step(sh("exec <&-; sleep 0.3; exec >&-; exit 3"), false);
    let answer = deaf.perform(&call, PLENTY, &Kept::default()).await;
    assert_eq!(shown(&answer), "transient: exit code 3");
}

#[tokio::test]
async fn garbage_is_survived_and_shown_as_text() {
    let log = Kept::default();
    let script = "head -c 3000000 /dev/urandom; head -c 3000000 /dev/urandom >&2; echo; echo '{\"ok\":true}'";
    let answer = step(sh(script), true).perform(&call(), PLENTY, &log).await;
    assert_eq!(shown(&answer), "applied {}");
    assert!(log.lines().iter().all(|line| line.len() <= 4096 && !line.contains(char::is_control)));
    let answer = perform(sh("head -c 3000000 /dev/urandom; exit 1"), true).await;
    assert!(answer.starts_with("unknown: ") && !answer.contains(char::is_control), "{answer}");
}

#[tokio::test]
async fn a_line_of_ten_megabytes_is_one_line_of_four_kibibytes() {
    let before = memory_peak();
    let log = Kept::default();
    let script = "head -c 10000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2; exit 1";
    let answer = step(sh(script), true).perform(&call(), PLENTY, &log).await;
    assert_eq!(shown(&answer), format!("unknown: {}", "x".repeat(300)));
    assert_eq!(log.lines(), ["x".repeat(4096), "end".to_owned()]);
    assert!(memory_peak() - before < 8 * 1024);
}

#[tokio::test]
async fn a_step_that_is_given_up_takes_its_group_along() {
    let marker = format!("1002.{}", std::process::id());
    let step = step(sh(&format!("sleep {marker} & sleep {marker} & wait")), true);
    let (call, log) = (call(), Kept::default());
    let mut attempt = step.perform(&call, PLENTY, &log);
    // The two, and the script itself, which has the number in its text.
    while count(&marker) < 3 {
        tokio::select! {
            answer = &mut attempt => panic!("ended by itself: {answer:?}"),
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    drop(attempt);
    eventually("all are gone", || count(&marker) == 0).await;
}

#[tokio::test]
async fn who_is_left_behind_holds_no_answer_up() {
    for (number, leftovers, stay) in [("1003", Leftovers::Kill, 0), ("1004", Leftovers::Leave, 1)] {
        let marker = format!("{number}.{}", std::process::id());
        let command = CommandSpec { leftovers, ..sh(&format!("sleep {marker} & echo $!")) };
        let answer = perform(command, true).await;
        eventually("only who may stay is there", || count(&marker) == stay).await;
        if stay > 0 {
            let pid = answer.trim_start_matches("applied {\"text\":\"").trim_end_matches("\"}");
            assert_eq!(perform(sh(&format!("kill -KILL {pid}")), true).await, "applied {}");
        }
        eventually("nobody is there", || count(&marker) == 0).await;
    }
}

#[tokio::test]
async fn a_flood_takes_up_no_memory_and_the_answer_is_found_behind_it() {
    let before = memory_peak();
    let flood = "head -c 100000000 /dev/zero | tr '\\0' x";
    let answer = r#"echo; echo '{"ok":true,"output":{"n":7}}'"#;
    assert_eq!(perform(sh(&format!("echo begin; {flood}; {answer}")), true).await, r#"applied {"n":7}"#);
    let text = perform(sh(&format!("echo begin; {flood}")), true).await;
    assert_eq!(text, r#"applied {"text":"begin"}"#);
    assert_eq!(perform(sh(&format!("yes | head -c 30000000; {answer}")), true).await, r#"applied {"n":7}"#);
    assert_eq!(perform(sh(&format!("{flood} >&2; {answer}")), true).await, r#"applied {"n":7}"#);
    let grown = memory_peak() - before;
    assert!(grown < 16 * 1024, "{grown} KiB more than before");
}

#[tokio::test]
async fn endless_output_ends_at_the_deadline() {
    for script in ["exec yes", "exec yes >&2"] {
        let answer =
            step(sh(script), true).perform(&call(), Duration::from_millis(300), &Kept::default()).await;
        assert_eq!(shown(&answer), "unknown: not done within 300 ms");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused() {
    let answer = |size: usize| {
        format!("import json; print(json.dumps({{'ok': True, 'output': {{'x': 'x' * {size}}}}}))")
    };
    let refused = |error: &str| [format!("permanent: {error}"), format!("unknown: {error}")];
    // 33 bytes stand around it.
    let fits = perform(python(&answer(64 * 1024 - 33)), true).await;
    assert!(fits.starts_with("applied "), "{:.100}", fits);
    for (size, error) in [
        (64 * 1024 - 32, "its answer is 65537 bytes long, and 64 KiB is the most"),
        (1_000_000, "its answer is over 256 KiB long, and 64 KiB is the most"),
    ] {
        let both = [perform(python(&answer(size)), false).await, perform(python(&answer(size)), true).await];
        assert_eq!(both, refused(error));
    }
}

#[tokio::test]
async fn complaints_are_passed_on_line_by_line_while_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    // It waits for the test, which waits for its line: were lines held back, neither would go on.
    let script =
        format!("echo one >&2; while ! test -e {}; do sleep 0.01; done; printf two >&2", go.display());
    let step = step(sh(&script), true);
    let (call, log) = (call(), Kept::default());
    let mut attempt = step.perform(&call, PLENTY, &log);
    while !log.has("one") {
        tokio::select! {
            answer = &mut attempt => panic!("ended by itself: {answer:?}"),
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    fs::write(&go, "").unwrap();
    assert_eq!(shown(&attempt.await), "applied {}");
    assert_eq!(log.lines(), ["one", "two"]);
}

#[tokio::test]
async fn a_log_has_an_end() {
    let log = Kept::default();
    let script = "head -c 10000 /dev/zero | tr '\\0' x >&2; echo >&2; yes | head -n 20000 >&2";
    let answer = step(sh(script), true).perform(&call(), PLENTY, &log).await;
    assert_eq!(shown(&answer), "applied {}");
    let lines = log.lines();
    assert_eq!((lines.len(), lines[0].len(), &*lines[9_999]), (10_001, 4096, "y"));
    assert_eq!(lines[10_000], "more than 10000 lines: the rest is not shown");
}

#[tokio::test]
async fn the_last_words_of_a_step_are_never_lost() {
    // A race between the end of the process and its last bytes would show here, now and then.
    let script = r#"echo complaint >&2; echo '{"ok":true,"output":{"n":7}}'"#;
    for _ in 0..100 {
        let log = Kept::default();
        let answer = step(sh(script), true).perform(&call(), PLENTY, &log).await;
        assert_eq!(
            (shown(&answer), log.lines()),
            (r#"applied {"n":7}"#.to_owned(), vec!["complaint".to_owned()])
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_bytes_get_an_answer(stdout: Vec<u8>, stderr: Vec<u8>, code in 0..3) {
        let mut files = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        files[0].write_all(&stdout).unwrap();
        files[1].write_all(&stderr).unwrap();
        let [out, err] = files.each_ref().map(|file| file.path().display().to_string());
        let script = format!("cat {out}; cat {err} >&2; exit {code}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(perform(sh(&script), true));
        prop_assert!(answer.starts_with(if code == 0 { "applied {" } else { "unknown: " }), "{}", answer);
    }
}
