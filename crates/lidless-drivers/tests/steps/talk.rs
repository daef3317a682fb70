//! Is a handle kept before the thing that it names is let out?

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lidless_drivers::check::BoxFuture;
use lidless_drivers::step::exec::{ExecStep, ExecStepSettings};
use lidless_drivers::step::{Call, Host, Log, Step};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Kept, PLENTY, call, eventually, python, settings, sh, shown};

/// Keeps what it is given, one for each permit.
struct Keeper {
    log: Kept,
    kept: Mutex<Vec<Value>>,
    asked: AtomicU32,
    permits: Semaphore,
    answer: Result<(), String>,
}

impl Keeper {
    fn new(permits: usize) -> Self {
        Keeper {
            log: Kept::default(),
            kept: Mutex::default(),
            asked: AtomicU32::new(0),
            permits: Semaphore::new(permits),
            answer: Ok(()),
        }
    }

    fn kept(&self) -> Vec<Value> {
        self.kept.lock().unwrap().clone()
    }
}

impl Log for Keeper {
    fn line(&self, line: &str) {
        self.log.line(line);
    }
}

impl Host for Keeper {
    fn keep<'a>(&'a self, handle: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.permits.acquire().await.unwrap().forget();
            self.kept.lock().unwrap().push(handle.clone());
            self.answer.clone()
        })
    }
}

fn talking(script: &str) -> ExecStep {
    ExecStep::new(ExecStepSettings { handles: true, ..settings(sh(script), true) })
}

const SEND: &str = r#"read -r call; echo signing; echo '{"handle": {"hash": "0xabc", "nonce": 7}}'; read -r answer
    case $answer in '{"kept":true}') echo sent >&2; echo '{"ok": true, "output": {"hash": "0xabc"}}';;
        *) echo "$answer" >&2; echo '{"ok": false, "error": "not kept"}';; esac"#;

#[tokio::test]
async fn nothing_is_sent_before_its_handle_is_kept() {
    let host = Keeper::new(0);
    let (step, call) = (talking(SEND), call());
    let mut attempt = step.perform(&call, PLENTY, &host);
    tokio::select! {
        answer = &mut attempt => panic!("ended by itself: {answer:?}"),
        () = eventually("somebody is asked to keep it", || host.asked.load(Ordering::Relaxed) > 0) => {}
    }
    assert_eq!((host.kept(), host.log.lines()), (vec![], vec![]));
    host.permits.add_permits(1);
    assert_eq!(shown(&attempt.await), r#"applied {"hash":"0xabc"}"#);
    assert_eq!(
        (host.kept(), host.log.lines()),
        (vec![json!({ "hash": "0xabc", "nonce": 7 })], vec!["sent".into()])
    );
}

#[tokio::test]
async fn a_handle_that_cannot_be_kept_is_told() {
    let host = Keeper { answer: Err("the disk is full".to_owned()), ..Keeper::new(1) };
    let answer = talking(SEND).perform(&call(), PLENTY, &host).await;
    assert_eq!(shown(&answer), "transient: not kept");
    let told = r#"{"error":"the disk is full","kept":false}"#;
    assert_eq!(host.log.lines(), ["a handle was not kept: the disk is full", told]);
    // A rounded number would find another transaction, or none.
    let host = Keeper::new(1);
    let rounded = r#"echo '{"handle": 100000000000000000000}'; read -r call; read -r answer; echo "$answer""#;
    let answer = talking(rounded).perform(&call(), PLENTY, &host).await;
    assert!(shown(&answer).contains("too large to be kept exactly"), "{answer:?}");
    assert_eq!(host.kept(), [Value::Null; 0]);
}

#[tokio::test]
async fn several_handles_are_kept_one_after_the_other() {
    let script = "import sys, json\ncall = sys.stdin.readline()\n\
                  for nonce in range(100):\n print(json.dumps({'handle': nonce}), flush=True)\n \
                  assert json.loads(sys.stdin.readline()) == {'kept': True}\nprint('done')";
    let host = Keeper::new(100);
    let step = ExecStep::new(ExecStepSettings { handles: true, ..settings(python(script), true) });
    let answer = step.perform(&call(), PLENTY, &host).await;
    assert_eq!(shown(&answer), r#"applied {"text":"done"}"#, "{:?}", host.log.lines());
    assert_eq!(host.kept(), (0..100).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_handle_is_kept_though_the_command_dies_at_once() {
    for end in ["exit 1", "kill -KILL $$", "exec >&-; exit 1"] {
        let host = Keeper::new(1);
        let answer = talking(&format!("printf '{{\"handle\": \"0xabc\"}}'; {end}"))
            .perform(&call(), PLENTY, &host)
            .await;
        assert!(shown(&answer).starts_with("unknown: "), "{answer:?}");
        assert_eq!(host.kept(), ["0xabc"]);
    }
}

#[tokio::test]
async fn who_never_keeps_it_holds_nobody_up_beyond_the_deadline() {
    let host = Keeper::new(0);
    let answer = talking(SEND).perform(&call(), Duration::from_secs(1), &host).await;
    assert_eq!((shown(&answer), host.kept()), ("unknown: not done within 1 s".to_owned(), vec![]));
    assert!(host.log.has("a handle could not be kept in time"));
}

#[tokio::test]
async fn a_command_that_reads_to_the_end_is_answered_as_before_where_it_did_not_ask() {
    // With handles it would wait for ever, until its deadline.
    let answer =
        talking("cat >/dev/null").perform(&call(), Duration::from_millis(500), &Keeper::new(0)).await;
    assert_eq!(shown(&answer), "unknown: not done within 500 ms");
    let without = ExecStep::new(settings(sh("cat >/dev/null; echo '{\"handle\": 7}'"), true));
    let host = Keeper::new(1);
    assert_eq!(shown(&without.perform(&call(), PLENTY, &host).await), r#"applied {"handle":7}"#);
    assert_eq!(host.kept(), [Value::Null; 0]);
}

#[tokio::test]
async fn a_question_of_any_size_is_told_before_the_answers() {
    let call = Call { inputs: json!({ "much": "x".repeat(1_000_000) }), ..call() };
    let script = r#"echo '{"handle": 7}'; read -r call; read -r answer; echo "${#call} $answer""#;
    let host = Keeper::new(1);
    let answer = shown(&talking(script).perform(&call, PLENTY, &host).await);
    assert!(
        answer.contains(r#"{\"kept\":true}"#) && answer.starts_with(r#"applied {"text":"1000"#),
        "{answer}"
    );
    // Who closes his input is not answered; his handles are kept.
    let host = Keeper::new(20);
    let step = talking("exec <&-; for i in 1 2 3; do echo '{\"handle\": 7}'; sleep 0.1; done");
    let answer = step.perform(&call, PLENTY, &host).await;
    assert_eq!((shown(&answer), host.kept().len()), ("applied {}".to_owned(), 3));
}
