//! Is an attempt in doubt settled only by an answer that says how it knows?

use std::time::Duration;

use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::Step;
use lidless_drivers::step::exec::{ExecStep, ExecStepSettings};

use super::{Kept, PLENTY, call, settings, sh, shown_found, step};

fn asking(confirm: CommandSpec) -> ExecStep {
    ExecStep::new(ExecStepSettings { confirm: Some(confirm), ..settings(sh("exit 1"), true) })
}

async fn confirm(script: &str) -> String {
    shown_found(&asking(sh(script)).confirm(&call(), PLENTY, &Kept::default()).await)
}

async fn says(answer: &str) -> String {
    confirm(&format!("echo noise; echo '{answer}'")).await
}

#[tokio::test]
async fn an_answer_with_evidence_settles_it() {
    assert_eq!(
        says(r#"{"applied":true,"evidence":"order 7 is booked"}"#).await,
        "applied {}: order 7 is booked"
    );
    let answer = says(r#"{"applied":true,"evidence":{"block": 7},"output":{"hash":"0xabc"}}"#).await;
    assert_eq!(answer, r#"applied {"hash":"0xabc"}: {"block":7}"#);
    assert_eq!(says(r#"{"applied":false,"evidence":[1, "a"]}"#).await, r#"not applied: [1,"a"]"#);
}

#[tokio::test]
async fn not_yet_says_when_to_ask_again() {
    assert_eq!(says(r#"{"applied":null}"#).await, "unknown: it cannot tell yet");
    let answer = says(r#"{"applied":null,"retry_after":"5s","reason":"not final"}"#).await;
    assert_eq!(answer, "unknown for 5s: not final");
    assert_eq!(
        says(r#"{"applied":null,"retry_after":"500ms"}"#).await,
        "unknown for 500ms: it cannot tell yet"
    );
    assert_eq!(says(r#"{"applied":null,"retry_after":"2m"}"#).await, "unknown for 120s: it cannot tell yet");
}

#[tokio::test]
async fn anything_else_tells_nothing() {
    let known = r#"echo '{"applied":false,"evidence":"sure"}'"#;
    for (answer, reason) in [
        (
            r#"{"applied":"no","evidence":"x"}"#,
            "its answer's `applied` is `\"no\"`, and must be true, false or null",
        ),
        (r#"{"ok":true}"#, "its answer has no `applied`"),
        (r#"{"applied":false}"#, "its answer has no `evidence`"),
        (r#"{"applied":true,"evidence":" "}"#, "its answer has no `evidence`"),
        (
            r#"{"applied":true,"evidence":"x","output":7}"#,
            "its answer's `output` is `7`, and must be an object",
        ),
        (
            r#"{"applied":null,"retry_after":"soon"}"#,
            "its answer's `retry_after` is `\"soon\"`, and must be a delay such as \"500ms\", \"5s\" or \"2m\"",
        ),
        (r#"{"applied":null,"retry_after":5}"#, "its answer's `retry_after` is `5`, and must be a text"),
        ("no", "its output has no JSON object"),
    ] {
        assert_eq!(says(answer).await, format!("unknown: {reason}"));
    }
    assert_eq!(confirm("true").await, "unknown: its output has no JSON object");
    assert_eq!(
        confirm(&format!("{known}; exit 1")).await,
        format!("unknown: {} (exit code 1)", &known[6..known.len() - 1])
    );
    assert_eq!(confirm(&format!("{known}; echo down >&2; exit 2")).await, "unknown: down (exit code 2)");
    assert_eq!(confirm(&format!("{known}; kill -KILL $$")).await, "unknown: ended by signal 9");
    let long = "head -c 70000 /dev/zero | tr '\\0' x";
    let answer = confirm(&format!(r#"printf '{{"applied":false,"evidence":"'; {long}; echo '"}}'"#)).await;
    assert_eq!(answer, "unknown: its answer is 70031 bytes long, and 64 KiB is the most");
}

#[tokio::test]
async fn a_question_that_takes_too_long_or_cannot_be_asked_tells_nothing() {
    let slow = asking(sh(r#"echo '{"applied":false,"evidence":"sure"}'; sleep 1000"#));
    let found = slow.confirm(&call(), Duration::from_millis(300), &Kept::default()).await;
    assert_eq!(shown_found(&found), "unknown: not done within 300 ms");
    let missing = asking(CommandSpec { argv: vec!["/nonexistent/ask".into()], ..CommandSpec::default() });
    let found = missing.confirm(&call(), PLENTY, &Kept::default()).await;
    let reason = "cannot run `/nonexistent/ask`: No such file or directory (os error 2)";
    assert_eq!(shown_found(&found), format!("unknown: {reason}"));
}

#[tokio::test]
async fn it_is_asked_with_the_same_call() {
    let call = call();
    let script = r#"read -r call; case $call in *"\"idempotency_key\":\"$LIDLESS_IDEMPOTENCY_KEY\""*) ;; *) exit 1;; esac
        echo "asking about $LIDLESS_IDEMPOTENCY_KEY" >&2
        echo '{"applied":true,"evidence":"seen"}'"#;
    let log = Kept::default();
    let found = asking(sh(script)).confirm(&call, PLENTY, &log).await;
    assert_eq!(shown_found(&found), "applied {}: seen");
    assert_eq!(log.lines(), [format!("asking about {}", call.idempotency_key)]);
    assert!(asking(sh(script)).can_confirm());
}

#[tokio::test]
async fn a_step_that_cannot_be_asked_says_so() {
    let step = step(sh("true"), true);
    assert!(!step.can_confirm());
    let found = step.confirm(&call(), PLENTY, &Kept::default()).await;
    assert_eq!(shown_found(&found), "unknown: it has no command that could tell");
}
