//! Is there one child for all, started when it is needed, ended when it is not, and never in a spin?

use std::fs;
use std::path::Path;
use std::time::Duration;

use lidless_drivers::step::leftovers;
use lidless_drivers::step::plugin::{PluginError, PluginStep, Plugins};
use lidless_drivers::step::{Call, Step};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Kept, PLENTY, answering, call, count, eventually, has_python, python, settings, shown, shown_found, step,
};

fn named(step: &str) -> Call {
    Call { step: step.to_owned(), idempotency_key: format!("k-{step}"), ..call() }
}

/// Answers each request when a file of its step's name is there, in whatever order.
fn patient(dir: &Path, marker: &str) -> PluginStep {
    let script = format!(
        "import threading\nmarker = '{marker}'\ndef wait(r):\n    while not os.path.exists(os.path.join('{}', \
         r['call']['step'])): time.sleep(0.005)\n    say(r, ok=True, output={{'for': r['call']['step'], 'pid': os.getpid()}})\n\
         for r in requests():\n    if r['op'] == 'describe': describe(r, prepares=False)\n    else:\n        \
         print('begun ' + r['call']['step'], file=sys.stderr, flush=True)\n        \
         threading.Thread(target=wait, args=(r,), daemon=True).start()\n",
        dir.display()
    );
    step(python(&script))
}

#[tokio::test]
async fn many_are_served_by_one_child_each_by_its_own_answer() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let step = patient(dir.path(), "many");
    let (first, second) = (named("first"), named("second"));
    let (log, other_log) = (Kept::default(), Kept::default());
    let mut slow = step.perform(&first, PLENTY, &log);
    let mut quick = step.perform(&second, PLENTY, &other_log);
    while !(log.has("begun first") && other_log.has("begun second")) {
        tokio::select! {
            _ = &mut slow => panic!("nobody let it"),
            _ = &mut quick => panic!("nobody let it"),
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    fs::write(dir.path().join("second"), "").unwrap();
    let quick = tokio::select! {
        _ = &mut slow => panic!("nobody let it"),
        quick = &mut quick => shown(&quick),
    };
    fs::write(dir.path().join("first"), "").unwrap();
    let slow = shown(&slow.await);
    assert!(quick.starts_with(r#"applied {"for":"second","#), "{quick}");
    assert_eq!(slow.replace("first", "second"), quick, "of the same pid");
}

#[tokio::test]
async fn who_is_killed_for_another_learns_why() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let marker = format!("lidless-other-{}", std::process::id());
    let step = patient(dir.path(), &marker);
    step.plugin().describe(PLENTY).await.unwrap();
    let (log, overdue, other) = (Kept::default(), named("overdue"), named("other"));
    let (overdue, other) = tokio::join!(
        step.perform(&overdue, Duration::from_secs(1), &log),
        step.perform(&other, PLENTY, &log)
    );
    assert_eq!(shown(&overdue), "unknown: not done within 1 s");
    let why = "plugin `test` was killed, for step `overdue` of run-7 was not done within 1 s";
    assert_eq!(shown(&other), format!("unknown: {why}"));
    assert_eq!(count(&marker), 0, "it is gone before anybody asks whether it took effect");
    // The next one gets a child of its own.
    fs::write(dir.path().join("next"), "").unwrap();
    let answer = step.perform(&named("next"), PLENTY, &log).await;
    assert!(shown(&answer).starts_with("applied "), "{}", shown(&answer));
}

#[tokio::test]
async fn an_attempt_that_is_given_up_does_not_go_on() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let marker = format!("lidless-given-up-{}", std::process::id());
    let step = patient(dir.path(), &marker);
    let (log, call) = (Kept::default(), named("dropped"));
    let mut attempt = step.perform(&call, PLENTY, &log);
    while !log.has("begun dropped") {
        tokio::select! {
            _ = &mut attempt => panic!("nobody let it"),
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    assert_eq!(count(&marker), 1);
    drop(attempt);
    // Asked at once, as somebody does who must know what became of it: by another child, since this one is killed.
    fs::write(dir.path().join("at-once"), "").unwrap();
    let answer = shown(&step.perform(&named("at-once"), PLENTY, &log).await);
    assert!(answer.starts_with("applied "), "{answer}");
    eventually("the first is killed", || count(&marker) == 1).await;

    // A question that nobody waits for any more hurts nobody.
    let (log, asked) = (Kept::default(), named("asked"));
    let mut question = step.confirm(&asked, PLENTY, &log);
    while !log.has("begun asked") {
        tokio::select! {
            _ = &mut question => panic!("nobody let it"),
            // tidy-allow: between two looks at a condition
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    drop(question);
    fs::write(dir.path().join("asked"), "").unwrap();
    fs::write(dir.path().join("after"), "").unwrap();
    let answer = step.perform(&named("after"), PLENTY, &log).await;
    assert!(shown(&answer).starts_with("applied "), "{}", shown(&answer));
    assert_eq!(count(&marker), 1);
}

#[tokio::test]
async fn a_child_that_crashes_is_started_anew_and_does_not_spin() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let starts = dir.path().join("starts");
    let script = format!("print(1, file=open('{}', 'a'))\nsys.exit('no licence')", starts.display());
    let step = step(python(&script));
    let begun = Instant::now();
    let mut answers = Vec::new();
    // It would be started hundreds of times in this time.
    while begun.elapsed() < Duration::from_secs(2) {
        let answer = step.perform(&call(), Duration::from_millis(100), &Kept::default()).await;
        answers.push(shown(&answer));
        // tidy-allow: between two looks at a condition
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let count = fs::read_to_string(&starts).unwrap().lines().count();
    assert!((1..=6).contains(&count), "{count} starts");
    let crashed = "transient: plugin `test` ended with exit code 1: no licence";
    let pausing = "transient: plugin `test` is started again in ";
    for answer in answers {
        let is_expected = answer == crashed
            || answer.starts_with(pausing) && answer.ends_with("ended with exit code 1: no licence")
            || answer == "transient: plugin `test` was not ready within 100 ms";
        assert!(is_expected, "{answer}");
    }
    // Who asks about an attempt learns when it is worth while to ask again.
    loop {
        let found = shown_found(&step.confirm(&call(), Duration::ZERO, &Kept::default()).await);
        if found.starts_with("unknown for ") {
            return;
        }
        // It is just being started once more, or has just ended.
        assert!(
            found.contains("was not ready within 0 ms") || found.contains("ended with exit code 1"),
            "{found}"
        );
        assert!(begun.elapsed() < PLENTY, "never told when to ask again");
        // tidy-allow: between two looks at a condition
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_crash_in_one_attempt_costs_the_next_one_a_short_pause() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let crashed = dir.path().join("crashed").display().to_string();
    let step = step(answering(&format!(
        "if r['op'] == 'prepare': say(r, ok=True, handle='h')\n\
         elif os.path.exists('{crashed}'): say(r, ok=True, handle=r['handle'])\n\
         else: open('{crashed}', 'w'); sys.exit(1)"
    )));
    let host = Kept::default();
    let answer = step.perform(&call(), PLENTY, &host).await;
    assert_eq!(shown(&answer), "unknown: plugin `test` ended with exit code 1");
    assert_eq!(host.handles(), [json!("h")]);
    let answer = step.perform(&call(), PLENTY, &host).await;
    assert_eq!(shown(&answer), r#"applied {} by "h""#);
}

#[tokio::test]
async fn steps_that_name_the_same_plugin_share_it() {
    if !has_python() {
        return;
    }
    let plugins = Plugins::new();
    let command = answering("say(r, ok=True, output={'pid': os.getpid()})");
    let pid = async |name: &str| {
        let mut settings = settings(command.clone());
        settings.name = name.to_owned();
        shown(&plugins.step(settings).perform(&call(), PLENTY, &Kept::default()).await)
    };
    let first = pid("one").await;
    assert!(first.starts_with("applied "), "{first}");
    assert_eq!(pid("one").await, first);
    assert_ne!(pid("another").await, first);
}

#[tokio::test]
async fn a_plugin_ends_with_its_registry() {
    if !has_python() {
        return;
    }
    let marker = format!("lidless-ends-{}", std::process::id());
    let plugins = Plugins::new();
    let step = plugins.step(settings(answering(&format!("say(r, ok=True) # {marker}"))));
    assert_eq!(shown(&step.perform(&call(), PLENTY, &Kept::default()).await), "applied {}");
    assert_eq!(count(&marker), 1);
    plugins.stop().await;
    assert_eq!(count(&marker), 0);
    let answer = step.perform(&call(), PLENTY, &Kept::default()).await;
    assert_eq!(shown(&answer), "transient: plugin `test` was stopped");
    assert_eq!(step.plugin().describe(PLENTY).await, Err(PluginError::Stopped { plugin: "test".to_owned() }));
}

#[tokio::test]
async fn a_plugin_that_is_dropped_is_asked_to_end_and_then_made_to() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let notes = dir.path().join("notes");
    let marker = format!("lidless-dropped-{}", std::process::id());
    let stubborn = format!(
        "def note(what): print(what, file=open('{}', 'a'), flush=True)\n\
         signal.signal(signal.SIGTERM, lambda *_: note('terminated'))\n\
         for r in requests(): describe(r) # {marker}\n\
         note('closed')\n\
         while True: time.sleep(0.01)",
        notes.display()
    );
    let step = step(python(&stubborn));
    step.plugin().describe(PLENTY).await.unwrap();
    drop(step);
    eventually("it is killed", || count(&marker) == 0).await;
    assert_eq!(fs::read_to_string(&notes).unwrap(), "closed\nterminated\n");
}

#[tokio::test]
async fn what_a_plugin_says_reaches_who_waits() {
    if !has_python() {
        return;
    }
    let step = step(answering(
        "if r['op'] == 'prepare': print('one', file=sys.stderr, flush=True)\n\
         else:\n    raw('{\"log\": \"two\\\\u001b\"}\\n'); raw(json.dumps({'id': r['id'], 'log': 'three'}) + '\\n')\n    \
         raw(json.dumps({'id': 99, 'log': 'for nobody'}) + '\\n'); raw('\\n')\n\
         say(r, ok=True)",
    ));
    let host = Kept::default();
    assert_eq!(shown(&step.perform(&call(), PLENTY, &host).await), "applied {}");
    assert_eq!(host.lines(), ["one", "two ", "three"]);
}

#[tokio::test]
async fn what_a_killed_lidless_left_is_found_by_its_mark() {
    if !has_python() {
        return;
    }
    let marker = format!("lidless-left-{}", std::process::id());
    let mark = format!("LIDLESS_TEST_MARK={marker}");
    let command = answering(&format!("time.sleep(1000) # {marker}"));
    // Nobody holds its input any more, and it does not look: it is at work.
    let mut left = std::process::Command::new("setsid");
    left.args(&command.argv).env("LIDLESS_TEST_MARK", &marker).stdin(std::process::Stdio::piped());
    let mut left = left.spawn().unwrap();
    let request = json!({ "id": 1, "op": "perform" });
    std::io::Write::write_all(&mut left.stdin.take().unwrap(), format!("{request}\n").as_bytes()).unwrap();
    eventually("it is at work", || count(&marker) == 1).await;
    assert!(leftovers::end_marked(&["LIDLESS_TEST_MARK=other".to_owned()], Duration::ZERO).is_empty());
    assert_eq!(count(&marker), 1);
    // It is our child, and carries its mark until it is reaped; a zombie has no environment.
    assert!(leftovers::end_marked(&[mark], PLENTY).is_empty());
    left.wait().unwrap();
    assert_eq!(count(&marker), 0);
}
