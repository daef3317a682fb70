//! Does the whole way of a step go right with a right plugin: prepare, keep, perform, confirm, undo?

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use lidless_drivers::check::BoxFuture;
use lidless_drivers::step::plugin::{PluginSettings, PluginStep, Plugins, SettingProblem};
use lidless_drivers::step::{Answer, Call, Host, Log, Step, Undoes};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::{
    Kept, PLENTY, answering, call, describing, has_python, ledger, settings, shown, shown_found, step,
};

struct Books {
    dir: TempDir,
    plugins: Plugins,
}

impl Books {
    fn new() -> Option<Books> {
        has_python().then(|| Books { dir: tempfile::tempdir().unwrap(), plugins: Plugins::new() })
    }

    fn step(&self) -> PluginStep {
        self.plugins.step(PluginSettings {
            kind: "book".to_owned(),
            settings: json!({ "file": self.dir.path().join("ledger"), "account": "cash" }),
            ..settings(ledger())
        })
    }

    fn amounts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("ledger")).unwrap_or_default();
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        entries.map(|entry| entry["amount"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn a_step_is_planned_done_found_and_taken_back_once() {
    let Some(books) = Books::new() else { return };
    let (step, host, mut call) = (books.step(), Kept::default(), call());
    let plan = step.plan(&call, PLENTY, &host).await;
    assert_eq!(plan, Ok(Some("would book 12.50 for cash".to_owned())));
    let found = step.confirm(&call, PLENTY, &host).await;
    assert_eq!(shown_found(&found), "not applied: the key is not in the ledger");
    assert!(books.amounts().is_empty() && host.handles().is_empty());

    let answer = step.perform(&call, PLENTY, &host).await;
    let handle = json!({ "key": "k-7f", "account": "cash", "amount": "12.50" });
    assert_eq!(shown(&answer), format!(r#"applied {{"amount":"12.50","line":1}} by {handle}"#));
    assert_eq!(host.handles(), std::slice::from_ref(&handle));
    call.handles = host.handles();
    // Done again by the same key, also where another account was set meanwhile.
    assert_eq!(step.perform(&call, PLENTY, &host).await, answer);
    assert_eq!(books.amounts(), ["12.50"]);
    let found = shown_found(&step.confirm(&call, PLENTY, &host).await);
    assert!(found.starts_with(r#"applied {"amount":"12.50"}: booked as "#), "{found}");

    let Answer::Applied { output, .. } = answer else { panic!("it was applied") };
    let undoes =
        Undoes { step: "send".to_owned(), idempotency_key: "k-7f".to_owned(), output, handles: vec![handle] };
    let undo = Call { idempotency_key: "u-7f".to_owned(), handles: vec![], undoes: Some(undoes), ..call };
    for _ in 0..2 {
        let answer = shown(&step.perform(&undo, PLENTY, &host).await);
        assert!(answer.starts_with(r#"applied {"amount":"-12.50","line":2}"#), "{answer}");
    }
    assert_eq!(books.amounts(), ["12.50", "-12.50"]);
}

#[tokio::test]
async fn nothing_is_performed_under_a_handle_that_is_not_durable() {
    let Some(books) = Books::new() else { return };
    let full = Kept { is_full: true, ..Kept::default() };
    let answer = books.step().perform(&call(), PLENTY, &full).await;
    let told = "transient: its handle could not be kept, so nothing was done: the disk is full";
    assert_eq!(shown(&answer), told);
    assert!(books.amounts().is_empty());
}

/// A host that keeps nothing until it is let.
#[derive(Default)]
struct Slow {
    asked: Notify,
    let_go: Notify,
}

impl Log for Slow {
    fn line(&self, _: &str) {}
}

impl Host for Slow {
    fn keep<'a>(&'a self, _: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            self.asked.notify_one();
            self.let_go.notified().await;
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_handle_is_durable_before_anything_is_performed() {
    let Some(books) = Books::new() else { return };
    let (step, host) = (books.step(), Arc::new(Slow::default()));
    let attempt = tokio::spawn({
        let (step, host) = (step.clone(), Arc::clone(&host));
        async move { step.perform(&call(), PLENTY, &*host).await }
    });
    host.asked.notified().await;
    // The plugin answers to others while the first waits: it has been told nothing yet, or it would be in the ledger.
    let found = step.confirm(&call(), PLENTY, &Kept::default()).await;
    assert_eq!(shown_found(&found), "not applied: the key is not in the ledger");
    host.let_go.notify_one();
    assert!(shown(&attempt.await.unwrap()).starts_with("applied "));
    assert_eq!(books.amounts(), ["12.50"]);

    let late = step.perform(&call(), Duration::from_secs(2), &Slow::default()).await;
    assert_eq!(shown(&late), "transient: its handle was not kept within 2 s, so nothing was done");
}

#[tokio::test]
async fn settings_are_checked_by_who_knows_them() {
    let Some(books) = Books::new() else { return };
    let step = books.step();
    let log = Kept::default();
    let check = async |settings: Value| step.plugin().check("book", &settings, PLENTY, &log).await.unwrap();
    let right = check(json!({ "file": "ledger", "account": "cash" })).await;
    assert_eq!(right, []);
    let wrong = check(json!({ "file": "ledger", "acount": "cash" })).await;
    let problem = |path: &str, message: &str, help: &str| SettingProblem {
        path: path.to_owned(),
        message: message.to_owned(),
        help: Some(help.to_owned()),
    };
    assert_eq!(
        wrong,
        [
            problem("account", "a text is needed here", "whose amounts these are"),
            problem("acount", "there is no such setting", "there are file and account"),
        ]
    );
    let err = step.plugin().check("cook", &json!({}), PLENTY, &log).await.unwrap_err();
    assert_eq!(err.to_string(), "plugin `test` has no kind `cook`; it has `book`");
}

#[tokio::test]
async fn what_the_plugin_refuses_is_refused() {
    let Some(books) = Books::new() else { return };
    let call = Call { inputs: json!({ "amount": 12.5 }), ..call() };
    let answer = books.step().perform(&call, PLENTY, &Kept::default()).await;
    assert_eq!(shown(&answer), r#"permanent: the input `amount` must be a text such as "12.50""#);
}

#[tokio::test]
async fn a_plugin_is_told_what_there_is_to_know() {
    if !has_python() {
        return;
    }
    let call = Call { handles: vec![json!("h0")], attempt: 2, ..call() };
    let step = step(answering(
        "c = r['call']\n\
         if r['op'] == 'prepare': say(r, ok=True, handle='h1')\n\
         else: say(r, ok=True, output={'op': r['op'], 'kind': r['kind'], 'settings': r['settings'], 'handle': r['handle'],\n    \
         'handles': c['handles'], 'run': c['run'], 'attempt': c['attempt'], 'name': os.environ['LIDLESS_PLUGIN']})",
    ));
    let Answer::Applied { output, handle, .. } = step.perform(&call, PLENTY, &Kept::default()).await else {
        panic!("it is applied");
    };
    assert_eq!(
        output,
        json!({ "op": "perform", "kind": "do", "settings": {}, "handle": "h1", "handles": ["h0", "h1"], "run": "run-7",
                "attempt": 2, "name": "test" })
    );
    // It did not say by which handle; it was told which.
    assert_eq!(handle, Some(json!("h1")));
}

#[tokio::test]
async fn what_is_done_already_is_not_performed() {
    if !has_python() {
        return;
    }
    let done = step(answering(
        "if r['op'] == 'prepare': say(r, ok=True, done=True, output={'n': 7}, handle='h')\nelse: sys.exit('told to act')",
    ));
    let host = Kept::default();
    assert_eq!(shown(&done.perform(&call(), PLENTY, &host).await), r#"applied {"n":7} by "h""#);
    assert!(host.handles().is_empty());
    let undo = Call {
        undoes: Some(Undoes {
            step: "send".to_owned(),
            idempotency_key: "k".to_owned(),
            output: json!({}),
            handles: vec![],
        }),
        ..call()
    };
    let cannot = step(describing(", undoes=False", "sys.exit('told to act')"));
    let answer = cannot.perform(&undo, PLENTY, &host).await;
    assert_eq!(shown(&answer), "permanent: plugin `test` cannot undo a `do`");
}
