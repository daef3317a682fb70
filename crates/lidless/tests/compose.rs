//! Does a program that composes its own pipeline get what the daemon gives: an order, a name for a failure, and no step twice?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lidless::{
    Class, Composed, Context, Found, Pipeline, PipelineError, Report, Seen, Step, StepError, StepOutcome,
    opts,
};
use serde_json::json;
use tokio::sync::{Barrier, Notify};

type Done = Result<(), StepError>;

/// A step that is done, and counts how often.
fn counts(count: &Arc<AtomicU32>) -> impl Fn(Context) -> std::future::Ready<Done> + Send + Sync + 'static {
    let count = Arc::clone(count);
    move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(()))
    }
}

/// A step that fails so often before it is done.
fn fails(times: u32, error: fn() -> StepError) -> impl Fn(Context) -> std::future::Ready<Done> {
    let left = AtomicU32::new(times);
    move |_| {
        let failing = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        std::future::ready(if failing.is_ok() { Err(error()) } else { Ok(()) })
    }
}

async fn fine(_: Context) -> Done {
    Ok(())
}

async fn run(pipeline: Pipeline) -> Report {
    pipeline.run().await.unwrap()
}

/// "HEALTH_CHECK: why" of a report that names a failure.
fn failure(report: &Report) -> String {
    assert!(!report.success, "{report:?}");
    format!("{}: {}", report.failed_at.as_deref().unwrap(), report.error.as_deref().unwrap())
}

#[tokio::test]
async fn steps_follow_each_other_and_each_hears_what_the_others_put_out() {
    let report = run(Pipeline::new("vault")
        .input("amount", 5)
        .step("QUOTE", async |context: Context| context.input::<u64>("amount").map(|amount| amount * 3))
        .step("SWAP", async |context: Context| {
            Ok::<_, StepError>(json!({ "got": context.output::<u64>("QUOTE")? + 1 }))
        })
        .step("TELL", |context: Context| async move {
            assert_eq!((context.run(), context.step(), context.attempt()), ("run-1", "TELL", 1));
            assert_eq!(context.idempotency_key().len(), 32);
            Ok::<_, StepError>(format!("{}", context.outputs()["SWAP"]["got"]))
        }))
    .await;
    assert!(report.success && report.failed_at.is_none() && !report.held, "{report:?}");
    assert_eq!((report.run.to_string(), report.to_string()), ("run-1".into(), "{ success: true }".into()));
    let outputs: Vec<_> = report.steps.iter().map(|step| step.output.clone().unwrap()).collect();
    assert_eq!(outputs, [json!(15), json!({ "got": 16 }), json!("16")]);
    assert!(report.steps.iter().all(|step| step.outcome == StepOutcome::Done && step.attempts == 1));
}

#[tokio::test]
async fn a_failure_names_the_step_and_gives_the_whole_reason() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot quote")]
    struct Quote(#[source] std::io::Error);
    let count = Arc::default();
    let report = run(Pipeline::new("vault")
        .step("A", fine)
        .step("B", async |_: Context| Err::<(), _>(Quote(std::io::Error::other("the router is gone"))))
        .step("C", counts(&count)))
    .await;
    assert_eq!(failure(&report), "B: cannot quote: the router is gone");
    assert_eq!(report.to_string(), "{ success: false, failedAt: B }");
    let outcomes: Vec<_> = report.steps.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [StepOutcome::Done, StepOutcome::Failed, StepOutcome::NotBegun]);
    assert_eq!(count.load(Ordering::Relaxed), 0);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["failedAt"], &json["run"]), (&json!("B"), &json!(1)));
}

#[tokio::test]
async fn a_plain_text_is_an_error_too() {
    let report =
        run(Pipeline::new("vault").step("A", async |_: Context| Err::<(), _>("gas is above max_fee"))).await;
    assert_eq!(failure(&report), "A: gas is above max_fee");
}

#[tokio::test]
async fn what_is_transient_is_tried_again_and_what_is_permanent_is_not() {
    let again = || opts().attempts(3).backoff(Duration::ZERO, Duration::ZERO);
    let report = run(Pipeline::new("a").step_with("A", again(), fails(2, || StepError::from("busy")))).await;
    assert!(report.success, "{report:?}");
    assert_eq!(report.step("A").unwrap().attempts, 3);
    let report = run(Pipeline::new("a").step_with("A", again(), fails(3, || StepError::from("busy")))).await;
    assert_eq!((failure(&report), report.steps[0].attempts), ("A: busy".to_owned(), 3));
    let permanent = fails(1, || StepError::permanent("no such pool"));
    let report = run(Pipeline::new("a").step_with("A", again(), permanent)).await;
    assert_eq!((failure(&report), report.steps[0].attempts), ("A: no such pool".to_owned(), 1));
}

#[tokio::test]
async fn a_panic_is_a_failure_with_its_message() {
    let report =
        run(Pipeline::new("a").step("A", async |_: Context| -> Done { panic!("slot {} is empty", 4) })).await;
    assert_eq!((failure(&report), report.steps[0].attempts), ("A: panicked: slot 4 is empty".to_owned(), 1));
    // Also before the first await, and within its attempts.
    let before = |_: Context| -> std::future::Ready<Done> { panic!("early") };
    let again = opts().attempts(2).backoff(Duration::ZERO, Duration::ZERO);
    let report = run(Pipeline::new("a").step_with("A", again, before)).await;
    assert_eq!((failure(&report), report.steps[0].attempts), ("A: panicked: early".to_owned(), 2));
    // Where it must not be done twice, a panic says nothing of the effect.
    let panics = async |_: Context| -> Done { panic!("after the transfer?") };
    let report = run(Pipeline::new("a").step_with("A", opts().class(Class::OneShot).value(), panics)).await;
    assert!(report.held, "{report:?}");
    assert_eq!(failure(&report), "A: panicked: after the transfer?");
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_dropped_and_what_it_started_is_told() {
    let over = Arc::new(Notify::new());
    let told = Arc::clone(&over);
    let hangs = move |context: Context| {
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            context.cancelled().await;
            told.notify_one();
        });
        std::future::pending::<Done>()
    };
    let report =
        run(Pipeline::new("a").step_with("A", opts().timeout(Duration::from_millis(20)), hangs)).await;
    assert_eq!((failure(&report), report.steps[0].attempts), ("A: not done within 20 ms".to_owned(), 1));
    over.notified().await;
}

#[tokio::test]
async fn a_step_in_doubt_is_looked_up_and_goes_on_or_is_done_once_more() {
    for applied in [true, false] {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let first_unknown = move |_: Context| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            std::future::ready(if first { Err(StepError::unknown("no answer")) } else { Ok("paid") })
        };
        let look = move |context: Context| async move {
            assert_eq!(context.step(), "PAY");
            let found = Found::not_applied("the nonce is spent by another");
            Ok::<_, StepError>(if applied { Found::applied("seen", "in block 7") } else { found })
        };
        let options = opts().value().confirm(look).backoff(Duration::ZERO, Duration::ZERO);
        let report =
            run(Pipeline::new("a").step_with("PAY", options, first_unknown).step("TELL", fine)).await;
        assert!(report.success, "{report:?}");
        let wanted = if applied { (json!("seen"), 1) } else { (json!("paid"), 2) };
        assert_eq!((report.steps[0].output.clone().unwrap(), report.steps[0].attempts), wanted);
        assert_eq!(count.load(Ordering::Relaxed), wanted.1);
    }
}

#[tokio::test]
async fn an_error_of_a_step_that_must_not_be_done_twice_leaves_it_in_doubt_unless_it_says_more() {
    let io = || StepError::from(std::io::Error::other("connection reset"));
    let held = run(Pipeline::new("a").step_with("PAY", opts().class(Class::OneShot), fails(1, io))).await;
    assert!(held.held, "{held:?}");
    assert_eq!(held.steps[0].outcome, StepOutcome::Unknown);
    let says = || StepError::transient("refused before it was sent");
    let failed = run(Pipeline::new("a").step_with("PAY", opts().class(Class::OneShot), fails(1, says))).await;
    assert!(!failed.held, "{failed:?}");
    assert_eq!(failure(&failed), "PAY: refused before it was sent");
}

#[tokio::test]
async fn a_one_shot_step_in_doubt_is_held_until_somebody_says_what_became_of_it() {
    let count = Arc::default();
    let pay = fails(9, || StepError::unknown("no answer"));
    let pipeline = Pipeline::new("a").step_with("PAY", opts().class(Class::OneShot).value(), pay);
    let composed = pipeline.step("TELL", counts(&count)).open().await.unwrap();
    let report = composed.run(()).await.unwrap();
    assert!(report.held && !report.success, "{report:?}");
    assert_eq!(failure(&report), "PAY: no answer");
    assert_eq!((report.steps[0].outcome, report.steps[0].attempts), (StepOutcome::Unknown, 1));
    assert_eq!(count.load(Ordering::Relaxed), 0);
    let wrong = composed.resolve(report.run, "TELL", true, "seen", "ops").await;
    assert!(matches!(wrong, Err(PipelineError::NotNow(_))), "{wrong:?}");
    let report = composed.resolve(report.run, "PAY", true, "seen in block 7", "ops").await.unwrap();
    assert!(report.success, "{report:?}");
    assert_eq!(count.load(Ordering::Relaxed), 1);
    composed.close().await.unwrap();
}

#[tokio::test]
async fn a_pipeline_that_could_not_be_settled_is_refused_before_anything_is_done() {
    let check = |options| Pipeline::new("vault").step_with("PAY", options, fine).check();
    let value = check(opts().value()).unwrap_err().to_string();
    assert!(value.starts_with("step PAY of pipeline `vault` moves value, so it needs `confirm`"), "{value}");
    assert!(matches!(check(opts().value().class(Class::Idempotent)), Err(PipelineError::Value { .. })));
    assert!(matches!(check(opts().class(Class::Confirmable)), Err(PipelineError::NoConfirm { .. })));
    check(opts().value().class(Class::OneShot)).unwrap();
    let look = async |_: Context| Ok::<_, StepError>(Found::unknown("-"));
    check(opts().value().confirm(look)).unwrap();
    let twice = Pipeline::new("vault").step("A", fine).step("A", fine).run().await;
    assert!(matches!(twice, Err(PipelineError::SameName { .. })), "{twice:?}");
    let refused = Pipeline::new("vault").step_with("PAY", opts().value(), fine).run().await;
    assert!(matches!(refused, Err(PipelineError::Value { .. })), "{refused:?}");
    assert!(matches!(Pipeline::new("vault").run().await, Err(PipelineError::NoSteps { .. })));
    let composed = Pipeline::new("vault").step("A", fine).open().await.unwrap();
    assert!(matches!(composed.run([1]).await, Err(PipelineError::Inputs { .. })));
}

#[tokio::test]
async fn what_was_done_before_a_failure_is_taken_back_in_reverse() {
    let (send, seen) = std::sync::mpsc::channel();
    let lend = async |_: Context| Ok::<_, StepError>("loan 7");
    let repay = move |context: Context| {
        let what = context.undoes().map(|undoes| format!("{} {}", undoes.step, undoes.output));
        send.send(what.unwrap()).unwrap();
        std::future::ready(Ok::<_, StepError>(()))
    };
    let undoable = || opts().undo(repay.clone());
    let pipeline = |last| {
        Pipeline::new("a")
            .step_with("LEND", undoable().class(Class::OneShot).value(), lend)
            .step("LOOK", fine)
            .step_with("SWAP", undoable(), lend)
            .step("LAST", fails(last, || StepError::from("no route")))
    };
    let report = run(pipeline(1)).await;
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["SWAP \"loan 7\"", "LEND \"loan 7\""]);
    assert_eq!((failure(&report), report.undone), ("LAST: no route".to_owned(), true));
    let outcomes: Vec<_> =
        report.steps.iter().map(|step| format!("{} {:?}", step.name, step.outcome)).collect();
    let wanted =
        ["LEND Undone", "LOOK Done", "SWAP Undone", "LAST Failed", "undo LEND Done", "undo SWAP Done"];
    assert_eq!(outcomes, wanted);
    let report = run(pipeline(0)).await;
    assert!(report.success && !report.undone && report.steps.len() == 4, "{report:?}");
    assert_eq!(seen.try_iter().count(), 0);
}

/// Compounds, and is sure of it.
struct Compound {
    factor: u64,
}

impl Step for Compound {
    type Output = u64;

    fn class(&self) -> Class {
        Class::Confirmable
    }

    async fn perform(&self, context: Context) -> Result<u64, StepError> {
        context.log("compounding\nall");
        Err(StepError::unknown("no answer"))
    }

    async fn confirm(&self, context: Context) -> Result<Found, StepError> {
        Ok(Found::applied(context.input::<u64>("amount")? * self.factor, "in block 7"))
    }
}

#[tokio::test]
async fn a_type_is_a_step_and_can_be_asked_and_tried_alone() {
    let pipeline = Pipeline::new("a").step_with("COMPOUND", opts().value(), Compound { factor: 2 });
    let report = run(pipeline.input("amount", 21)).await;
    assert_eq!(report.steps[0].output, Some(json!(42)));
    let compound = Compound { factor: 3 };
    let context = Context::test();
    assert_eq!(compound.perform(context.clone()).await.unwrap_err().reason(), "no answer");
    assert_eq!(context.said(), ["compounding all"]);
    let context = Context::test().with_input("amount", 2);
    assert_eq!(compound.confirm(context).await.unwrap(), Found::applied(6, "in block 7"));
    let context = Context::test().with_attempt(2);
    context.keep("0xabc").await.unwrap();
    assert_eq!((context.handles(), context.attempt()), (vec![json!("0xabc")], 2));
}

#[tokio::test]
async fn what_happens_is_seen_in_order_and_before_it_has_consequences() {
    let (send, seen) = std::sync::mpsc::channel();
    let said = send.clone();
    let pipeline = Pipeline::new("a")
        .step("A", fine)
        .step_with("B", opts().attempts(2).backoff(Duration::ZERO, Duration::ZERO), move |_: Context| {
            said.send("B itself".to_owned()).unwrap();
            std::future::ready(Err::<(), _>("busy"))
        })
        .watch(move |run, seen| send.send(format!("{run} {seen}")).unwrap());
    run(pipeline).await;
    let seen: Vec<_> = seen.try_iter().collect();
    let wanted = [
        "run-1 → A",
        "run-1 ✓ A",
        "run-1 → B",
        "B itself",
        "run-1 ✗ B: busy",
        "run-1 → B (attempt 2)",
        "B itself",
        "run-1 ✗ B failed: busy",
    ];
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_watcher_that_panics_takes_nothing_with_it() {
    let pipeline = Pipeline::new("a").step("A", fine).watch(|_, seen| {
        assert!(!matches!(seen, Seen::Done { .. }), "the watcher's own trouble");
    });
    assert!(run(pipeline).await.success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_runs_go_on_at_once() {
    const RUNS: usize = 1_000;
    // Nobody passes before all are there: they are under way at once, or this never ends.
    let barrier = Arc::new(Barrier::new(RUNS));
    let meet = move |context: Context| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            context.input::<usize>("number")
        }
    };
    let composed = Pipeline::new("a")
        .step("MEET", meet)
        .step("ECHO", async |context: Context| context.output::<usize>("MEET"))
        .open()
        .await
        .unwrap();
    let runs = (0..RUNS).map(|number| {
        let composed = composed.clone();
        tokio::spawn(async move { composed.run(json!({ "number": number })).await.unwrap() })
    });
    let runs: Vec<_> = runs.collect();
    for (number, run) in runs.into_iter().enumerate() {
        let report = run.await.unwrap();
        assert_eq!(report.steps[1].output, Some(json!(number)), "{report:?}");
    }
    composed.close().await.unwrap();
}

/// A pipeline whose first step waits until it is let go.
async fn gated(max: u32) -> (Composed, Arc<Notify>, Arc<Notify>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let step = move |_: Context| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            tell.notify_one();
            wait.notified().await;
            Ok::<_, StepError>(())
        }
    };
    let pipeline = Pipeline::new("a").concurrency(max).step("WAIT", step).step("LAST", fine);
    (pipeline.open().await.unwrap(), begun, go)
}

#[tokio::test]
async fn no_more_runs_at_once_than_there_may_be_and_a_cancelled_one_begins_no_further_step() {
    let (composed, begun, go) = gated(1).await;
    let other = composed.clone();
    let first = tokio::spawn(async move { other.run(()).await.unwrap() });
    begun.notified().await;
    let refused = composed.run(()).await.unwrap_err();
    let PipelineError::Busy(run) = refused else { panic!("{refused}") };
    composed.cancel(run).await.unwrap();
    go.notify_one();
    let report = first.await.unwrap();
    assert_eq!(failure(&report), "LAST: cancelled");
    assert_eq!(report.steps[1].outcome, StepOutcome::NotBegun);
}

#[tokio::test]
async fn whoever_waits_for_a_run_is_told_when_the_engine_ends() {
    let (composed, begun, go) = gated(1).await;
    let other = composed.clone();
    let first = tokio::spawn(async move { other.run(()).await });
    begun.notified().await;
    let closing = tokio::spawn(composed.clone().close());
    go.notify_one();
    closing.await.unwrap().unwrap();
    let ended = first.await.unwrap();
    // It may just have come to its end.
    assert!(matches!(ended, Err(PipelineError::Lost)) || ended.is_ok_and(|report| report.success));
    assert!(matches!(composed.run(()).await, Err(PipelineError::Lost)));
}
