//! What does the driver make of a plugin that does wrong, before it is told to act and after?

use std::io::Write as _;
use std::time::Duration;

use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::Step;
use lidless_drivers::step::plugin::Plugins;

use proptest::prelude::*;

use super::{
    Kept, PLENTY, answering, call, count, describing, eventually, has_python, python, settings, shown,
    shown_found, step,
};

async fn perform(command: CommandSpec) -> String {
    shown(&step(command).perform(&call(), PLENTY, &Kept::default()).await)
}

/// Performs by a plugin that does this when it is told to prepare, and by one that does it when it is told to perform.
async fn both(what: &str) -> [String; 2] {
    let early = answering(&format!("if r['op'] == 'prepare':\n    {what}"));
    let late =
        answering(&format!("if r['op'] == 'prepare':\n    say(r, ok=True, handle='h')\nelse:\n    {what}"));
    [perform(early).await, perform(late).await]
}

#[tokio::test]
async fn who_breaks_the_protocol_leaves_doubt_only_once_he_was_told_to_act() {
    if !has_python() {
        return;
    }
    for (what, told) in [
        ("sys.exit(3)", "ended with exit code 3"),
        ("sys.exit('no money')", "ended with exit code 1: no money"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal 9"),
        ("os.close(1); time.sleep(1000)", "was killed, for it closed its standard output"),
        ("raw('hello\\n')", "was killed, for it wrote a line that is no JSON object: `hello`"),
        ("raw('{\"ok\": true}\\n')", "was killed, for it wrote a line that has no `id`: `{\"ok\": true}`"),
        ("raw('x' * 70000)", "was killed, for it wrote a line of over 64 KiB"),
        ("r['id'] += 1; say(r, ok=True)", "was killed, for it answered request ID+1, which there is not"),
        ("r['id'] -= 1; say(r, ok=True)", "was killed, for it answered request ID-1 twice"),
        (
            "text = json.dumps({'id': r['id'], 'ok': True}) + '\\n'; raw(text + text)",
            "was killed, for it answered request ID twice",
        ),
    ] {
        // The first request is `describe`, the second `prepare`, the third `perform`.
        let told = |id: u32| {
            let told = told.replace("ID+1", &(id + 1).to_string()).replace("ID-1", &(id - 1).to_string());
            format!("plugin `test` {}", told.replace("ID", &id.to_string()))
        };
        let expected = [format!("transient: {}", told(2)), format!("unknown: {}", told(3))];
        assert_eq!(both(what).await, expected, "{what}");
    }
}

#[tokio::test]
async fn who_is_overdue_is_killed_with_all_that_he_started() {
    if !has_python() {
        return;
    }
    let marker = format!("1017.{}", std::process::id());
    let hang = format!("os.system('sleep {marker} & sleep {marker}')");
    let early = answering(&hang);
    let late = answering(&format!("if r['op'] == 'prepare':\n    say(r, ok=True)\nelse:\n    {hang}"));
    for (command, class) in [(early, "transient"), (late, "unknown")] {
        let step = step(command);
        step.plugin().describe(PLENTY).await.unwrap();
        let answer = step.perform(&call(), Duration::from_secs(1), &Kept::default()).await;
        assert_eq!(shown(&answer), format!("{class}: not done within 1 s"));
        // It is dead when we are told; the kernel may take a moment for what it had started.
        eventually("nobody is left", || count(&marker) == 0).await;
    }
}

#[tokio::test]
async fn who_is_silent_is_given_up_at_his_heartbeat() {
    if !has_python() {
        return;
    }
    let script = "say(r, ok=True) if r['op'] == 'prepare' else time.sleep(1000)";
    let mut quiet = settings(answering(script));
    quiet.heartbeat = Some(Duration::from_millis(500));
    let step = Plugins::new().step(quiet);
    let answer = step.perform(&call(), PLENTY, &Kept::default()).await;
    assert_eq!(shown(&answer), "unknown: plugin `test` was killed, for it gave no sign of life for 500 ms");

    // It works for longer than that, and says so.
    let script = "for _ in range(30 if r['op'] == 'perform' else 0):\n    raw('{\"heartbeat\": true}\\n')\n    \
                  time.sleep(0.05)\nsay(r, ok=True)";
    let mut alive = settings(answering(script));
    alive.heartbeat = Some(Duration::from_secs(1));
    let step = Plugins::new().step(alive);
    assert_eq!(shown(&step.perform(&call(), PLENTY, &Kept::default()).await), "applied {}");
}

#[tokio::test]
async fn who_never_says_who_he_is_has_done_nothing() {
    if !has_python() {
        return;
    }
    let step = step(python("time.sleep(1000)"));
    let answer = step.perform(&call(), Duration::from_millis(300), &Kept::default()).await;
    assert_eq!(shown(&answer), "transient: plugin `test` was not ready within 300 ms");
    let found = step.confirm(&call(), Duration::from_millis(300), &Kept::default()).await;
    assert_eq!(shown_found(&found), "unknown: plugin `test` was not ready within 300 ms");
}

#[tokio::test]
async fn who_cannot_be_worked_with_is_refused() {
    if !has_python() {
        return;
    }
    let nowhere = CommandSpec { argv: vec!["/no/such/plugin".to_owned()], ..CommandSpec::default() };
    assert_eq!(
        perform(nowhere).await,
        "permanent: plugin `test`: cannot run `/no/such/plugin`: No such file or directory (os error 2)"
    );
    let describes = |body: &str| python(&format!("for r in requests():\n    say(r, {body})"));
    for (body, told) in [
        (
            "protocol=2",
            "permanent: plugin `test` speaks protocol 2, and this lidless speaks 1; they must be of one age",
        ),
        ("ok=True", "permanent: plugin `test`: its answer's `protocol` is missing, and must be a number"),
        (
            "protocol=1, name='x', version='1'",
            "permanent: plugin `test`: its description cannot be read: missing field `kinds`",
        ),
        ("protocol=1, name='x', version='1', kinds=[]", "permanent: plugin `test` has no kind `do`; it has "),
        ("ok=False, error='no licence'", "transient: plugin `test`: no licence"),
        ("ok=False, error='expired', **{'class': 'permanent'}", "permanent: plugin `test`: expired"),
    ] {
        assert_eq!(perform(describes(body)).await, told, "{body}");
    }
}

#[tokio::test]
async fn answers_are_read_by_the_rules_of_exec() {
    if !has_python() {
        return;
    }
    let answers = |body: &str| describing(", prepares=False", &format!("say(r, {body})"));
    for (body, told) in [
        ("ok=True, output={'n': 7}, handle='h'", r#"applied {"n":7} by "h""#),
        ("ok=True, amounts=[{'asset': 'EUR', 'minor': -1250}]", "applied {} EUR-1250"),
        ("ok=False, error='full'", "transient: full"),
        ("ok=False, error='gone', **{'class': 'permanent'}", "permanent: gone"),
        ("ok=False, **{'class': 'unknown'}", "unknown: it did not say why"),
        ("ok=7", "unknown: its answer's `ok` is `7`, and must be true or false"),
        ("output={}", "unknown: its answer's `ok` is missing, and must be true or false"),
        ("ok=True, output=7", "unknown: its answer's `output` is `7`, and must be an object"),
    ] {
        assert_eq!(perform(answers(body)).await, told, "{body}");
    }
    // A step that may be repeated fails for good where its plugin cannot be understood.
    let mut lenient = settings(answers("ok=7"));
    lenient.strict = false;
    let answer = Plugins::new().step(lenient).perform(&call(), PLENTY, &Kept::default()).await;
    assert_eq!(shown(&answer), "permanent: its answer's `ok` is `7`, and must be true or false");
    // A description that is not followed: nothing was performed.
    let answer = perform(answering("say(r, ok=True, done='perhaps')")).await;
    assert_eq!(answer, "permanent: its answer's `done` is `\"perhaps\"`, and must be true or false");
}

#[tokio::test]
async fn only_an_answer_with_evidence_settles_a_doubt() {
    if !has_python() {
        return;
    }
    for (what, told) in [
        ("say(r, applied=True, evidence='order 7')", "applied {}: order 7"),
        ("say(r, applied=False, evidence='unknown to the bank')", "not applied: unknown to the bank"),
        ("say(r, applied=False)", "unknown: its answer has no `evidence`"),
        ("say(r, applied=None, retry_after='5s', reason='not final')", "unknown for 5s: not final"),
        ("say(r, ok=False, error='the bank is closed')", "unknown: the bank is closed"),
        ("say(r, ok=True)", "unknown: its answer has no `applied`"),
        ("sys.exit(3)", "unknown: plugin `test` ended with exit code 3"),
    ] {
        let found = step(answering(what)).confirm(&call(), PLENTY, &Kept::default()).await;
        assert_eq!(shown_found(&found), told, "{what}");
    }
    let mute = step(describing(", confirms=False, **{'class': 'one_shot'}", "sys.exit(3)"));
    assert!(mute.can_confirm());
    let found = mute.confirm(&call(), PLENTY, &Kept::default()).await;
    assert_eq!(shown_found(&found), "unknown: plugin `test` cannot tell of a `do`");
    assert!(!mute.can_confirm());
}

#[tokio::test]
async fn an_answer_counts_once_it_came_whole_whatever_follows() {
    if !has_python() {
        return;
    }
    let answers = |then: &str| describing(", prepares=False", then);
    // A race between its last word and its end would show here, now and then.
    for _ in 0..10 {
        assert_eq!(
            perform(answers("say(r, ok=True, output={'n': 7}); os._exit(1)")).await,
            r#"applied {"n":7}"#
        );
    }
    let half = "raw(json.dumps({'id': r['id'], 'ok': True})); os._exit(1)";
    assert_eq!(perform(answers(half)).await, "unknown: plugin `test` ended with exit code 1");
    let more = "raw(json.dumps({'id': r['id'], 'ok': True}) + '\\n{\"id\": '); os._exit(1)";
    assert_eq!(perform(answers(more)).await, "applied {}");
    let mute = "os.close(0); say(r, ok=True, output={'n': 7}); time.sleep(1000)";
    assert_eq!(perform(answers(mute)).await, r#"applied {"n":7}"#);
}

#[tokio::test]
async fn who_closes_his_input_is_followed_by_another() {
    if !has_python() {
        return;
    }
    // What was under way can still be answered. Of the next request nothing has left: it may go to the next child.
    let script = "os.close(0); say(r, ok=True, output={'pid': os.getpid()}); time.sleep(1000)";
    let deaf = step(describing(", prepares=False", script));
    let first = shown(&deaf.perform(&call(), PLENTY, &Kept::default()).await);
    let second = shown(&deaf.perform(&call(), PLENTY, &Kept::default()).await);
    assert!(first.starts_with("applied ") && second.starts_with("applied "), "{first}, {second}");
    assert_ne!(first, second);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn any_bytes_leave_doubt(bytes: Vec<u8>) {
        if has_python() {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&bytes).unwrap();
            let script = format!("os.write(1, open('{}', 'rb').read()); os._exit(1)", file.path().display());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let answer = runtime.block_on(perform(describing(", prepares=False", &script)));
            prop_assert!(answer.starts_with("unknown: plugin `test` "), "{}", answer);
        }
    }
}
