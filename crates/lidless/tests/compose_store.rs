//! Does a composed pipeline survive its program? The examples, killed in the middle and not; stores that are taken up again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lidless::{Class, Context, Found, Pipeline, PipelineError, StepError, StepOutcome, opts};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Builds an example, which cargo does not do for a test that is built alone, and runs it.
fn example(name: &str, args: &[&str]) -> Output {
    // TARGET/PROFILE/deps/TEST
    let test = std::env::current_exe().unwrap();
    let [profile, target] = [2, 3].map(|up| test.ancestors().nth(up).unwrap());
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "lidless", "--example", name]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo says of this test is not for the one that builds: some crates are built anew whenever it changes.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|of| name.starts_with(of))
        {
            cargo.env_remove(name.as_ref());
        }
    }
    let built = cargo.arg("--target-dir").arg(target).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    Command::new(profile.join("examples").join(name)).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_example_prints_each_step_and_how_it_ended() {
    let output = example("compose", &[]);
    let steps = "→ HEALTH_CHECK\n→ REBALANCE\n→ COMPOUND\n→ HARVEST\n";
    assert_eq!(text(&output.stdout), format!("{steps}{{ success: true }}\n"), "{output:?}");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for (step, begun, reason) in [
        ("HEALTH_CHECK", 1, "the node is 40 blocks behind"),
        ("REBALANCE", 2, "no route below the highest slippage"),
        ("COMPOUND", 3, "nothing to compound"),
        ("HARVEST", 4, "gas is above max_fee"),
    ] {
        let output = example("compose", &[step]);
        let begun: String = steps.split_inclusive('\n').take(begun).collect();
        let wanted = format!("{begun}✗ {step} failed: {reason}\n{{ success: false, failedAt: {step} }}\n");
        assert_eq!((text(&output.stdout), output.status.code()), (wanted, Some(1)));
    }
}

#[test]
fn the_page_shows_the_example() {
    let page = std::fs::read_to_string("../../docs/pipelines.md").unwrap();
    let shown = page.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    let example = std::fs::read_to_string("examples/compose.rs").unwrap();
    assert!(shown.lines().count() > 4 && example.contains(shown), "{shown}");
}

fn ledger(folder: &Path) -> Vec<String> {
    let ledger = std::fs::read_to_string(folder.join("ledger")).unwrap_or_default();
    ledger.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_program_killed_around_an_effect_is_followed_by_one_that_finishes_its_run_and_pays_once() {
    let settled = [
        ("after", "run-1 ✓ PAY\n"),
        ("before", "run-1 ✗ PAY: the key is not in the ledger\nrun-1 → PAY (attempt 2)\nrun-1 ✓ PAY\n"),
    ];
    for (when, settled) in settled {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let killed = example("durable", &[path, when]);
        assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
        assert_eq!(text(&killed.stdout), "run-1 → QUOTE\nrun-1 ✓ QUOTE\nrun-1 → PAY\n");
        assert_eq!(ledger(folder.path()).len(), usize::from(when == "after"));
        let next = example("durable", &[path]);
        let wanted = format!(
            "run-1 ? PAY: lidless ended while it was under way\n{settled}run-1 → TELL\nrun-1 ✓ TELL\n\
             run-2 → QUOTE\nrun-2 ✓ QUOTE\nrun-2 → PAY\nrun-2 ✓ PAY\nrun-2 → TELL\nrun-2 ✓ TELL\n\
             {{ success: true }}\n"
        );
        assert_eq!(text(&next.stdout), wanted, "{next:?}");
        assert_eq!(ledger(folder.path()), ["run-1", "run-2"], "{when}");
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("l.db")
    }

    /// Leaves a run in the middle of its step PAY, as a crash of the program does: its runtime is gone at once.
    fn crash(&self, options: lidless::StepOptions) {
        let (begun, mut begins) = mpsc::channel(1);
        let hang = move |_: Context| {
            let begun = begun.clone();
            async move {
                begun.send(()).await.unwrap();
                std::future::pending::<Result<(), StepError>>().await
            }
        };
        let runtime = Runtime::new().unwrap();
        let pipeline = Pipeline::new("a").step_with("PAY", options, hang).store(self.store());
        runtime.spawn(pipeline.run());
        runtime.block_on(begins.recv()).unwrap();
        drop(runtime);
    }
}

async fn fine(_: Context) -> Result<(), StepError> {
    Ok(())
}

#[test]
fn a_one_shot_step_that_was_under_way_is_never_done_again_and_bars_the_next_run() {
    let place = Place::new();
    let one_shot = || opts().class(Class::OneShot).value();
    place.crash(one_shot());
    let count = Arc::new(AtomicU32::new(0));
    let pipeline = || {
        let count = Arc::clone(&count);
        let pay = move |_: Context| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, StepError>(()) }
        };
        Pipeline::new("a").step_with("PAY", one_shot(), pay).store(place.store())
    };
    let runtime = Runtime::new().unwrap();
    for _ in 0..2 {
        let refused = runtime.block_on(pipeline().run()).unwrap_err();
        let text = "run-1 waits for a person at PAY: lidless ended while it was under way";
        assert_eq!(refused.to_string(), text);
    }
    assert_eq!(count.load(Ordering::Relaxed), 0);
    runtime.block_on(async {
        let composed = pipeline().open().await.unwrap();
        let PipelineError::Held(report) = composed
            .settled()
            .await
            .map(|mut reports| PipelineError::Held(Box::new(reports.remove(0))))
            .unwrap()
        else {
            unreachable!("just made")
        };
        assert_eq!(report.steps[0].outcome, StepOutcome::Unknown);
        let report = composed.resolve(report.run, "PAY", true, "in block 7", "ops").await.unwrap();
        assert!(report.success, "{report:?}");
        composed.close().await.unwrap();
        assert!(pipeline().run().await.unwrap().success);
    });
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn an_idempotent_step_that_was_under_way_is_done_again_with_the_same_key() {
    let place = Place::new();
    place.crash(opts());
    let runtime = Runtime::new().unwrap();
    let again = async |context: Context| {
        assert!(context.run() != "run-1" || context.attempt() == 2);
        Ok::<_, StepError>(context.idempotency_key().to_owned())
    };
    runtime.block_on(async {
        let composed = Pipeline::new("a").step("PAY", again).store(place.store()).open().await.unwrap();
        let reports = composed.settled().await.unwrap();
        assert!(reports.len() == 1 && reports[0].success, "{reports:?}");
        let other = composed.run(()).await.unwrap();
        assert_ne!(other.steps[0].output, reports[0].steps[0].output, "two runs are two orders");
        composed.close().await.unwrap();
    });
}

#[tokio::test]
async fn a_run_that_failed_is_resumed_by_a_later_program_and_what_is_done_stays_done() {
    let place = Place::new();
    let pipeline = |fails: bool| {
        let first = move |_: Context| async move { if fails { Ok("first") } else { Err("done twice") } };
        let second = move |context: Context| async move {
            let before: String = context.output("FIRST")?;
            if fails { Err(StepError::from("not yet")) } else { Ok(format!("{before}, second")) }
        };
        Pipeline::new("a").step("FIRST", first).step("SECOND", second).store(place.store())
    };
    let failed = pipeline(true).run().await.unwrap();
    assert_eq!(failed.failed_at.as_deref(), Some("SECOND"));
    let resumed = pipeline(false).resume(failed.run).await.unwrap();
    assert!(resumed.success, "{resumed:?}");
    let outputs: Vec<_> = resumed.steps.iter().map(|step| step.output.clone().unwrap()).collect();
    assert_eq!(outputs, [json!("first"), json!("first, second")]);
    let again = pipeline(false).resume(failed.run).await;
    assert!(matches!(again, Err(PipelineError::NotNow("it is done"))), "{again:?}");
}

#[test]
fn a_store_of_another_pipeline_is_left_alone_while_something_of_it_is_unfinished() {
    let place = Place::new();
    place.crash(opts().class(Class::OneShot));
    let runtime = Runtime::new().unwrap();
    let other = runtime.block_on(Pipeline::new("b").step("PAY", fine).store(place.store()).run());
    let text = other.unwrap_err().to_string();
    assert_eq!(
        text,
        "the store belongs to pipeline `a`, of which run-1 is unfinished; give pipeline `b` one of its own"
    );
    // A step that the program has no more is waited for, and named.
    let place = Place::new();
    place.crash(opts());
    let settled = |step| {
        let pipeline = Pipeline::new("a").step(step, fine).store(place.store());
        runtime.block_on(async {
            let composed = pipeline.open().await.unwrap();
            let report = composed.settled().await.unwrap().remove(0);
            composed.close().await.unwrap();
            report
        })
    };
    let report = settled("PAID");
    assert!(report.held, "{report:?}");
    assert_eq!(report.error.as_deref(), Some("this program has no step PAY in pipeline `a`"));
    assert!(settled("PAY").success);
}

#[tokio::test]
async fn a_handle_that_was_kept_is_there_for_whoever_asks_about_the_step() {
    let place = Place::new();
    let pay = async |context: Context| {
        context.keep(json!({ "tx": "0xabc" })).await?;
        Err::<(), _>(StepError::unknown("no answer"))
    };
    let look = async |context: Context| {
        Ok::<_, StepError>(Found::applied(context.handles(), "its transaction is in block 7"))
    };
    let pipeline =
        Pipeline::new("a").step_with("PAY", opts().value().confirm(look), pay).store(place.store());
    let report = pipeline.run().await.unwrap();
    assert_eq!(report.steps[0].output, Some(json!([{ "tx": "0xabc" }])), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_at_once_are_durable_together() {
    let place = Place::new();
    let composed = Pipeline::new("a")
        .step("ONE", async |context: Context| context.input::<u64>("number"))
        .step("TWO", async |context: Context| {
            context.log(format!("number {}", context.output::<u64>("ONE")?));
            context.output::<u64>("ONE")
        })
        .store(place.store())
        .open()
        .await
        .unwrap();
    let runs: Vec<_> = (0..64)
        .map(|number| {
            let composed = composed.clone();
            tokio::spawn(async move { composed.run(json!({ "number": number })).await.unwrap() })
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let report = run.await.unwrap();
        assert_eq!(report.steps[1].output, Some(json!(number)), "{report:?}");
        let said = std::fs::read_to_string(place.0.path().join(format!("runs/{}.log", report.run))).unwrap();
        assert_eq!(said, format!("TWO number {number}\n"));
    }
    composed.close().await.unwrap();
}
