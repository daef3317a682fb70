//! How does a pipeline's run go on, end, or wait for somebody? Each test is a script and what it leads to.

// Each test binary compiles the whole of it and uses a part.
#[allow(dead_code)]
mod script;

use std::time::Duration;

use lidless_core::pipeline::plan::{Class, StepSpec};
use lidless_core::spec::Spec;

use script::{Story, check, row, spec, three_steps};

const BEGUN: &str = "run1:pipeline LOOK?1 LOOK=applied PAY?1 >PAY started(run-1)";

fn vault(class: Class) -> Spec {
    Spec { pipelines: vec![three_steps(class)], ..spec(&["db"]) }
}

/// Changes the steps of the pipeline.
fn change(spec: &mut Spec, change: impl FnOnce(&mut Vec<StepSpec>)) {
    let mut steps = spec.pipelines[0].plan.steps().to_vec();
    change(&mut steps);
    spec.pipelines[0] = row("pay", steps);
}

#[test]
fn steps_follow_each_other_and_the_last_ends_the_run() {
    check(
        &vault(Class::Confirmable),
        "pass run | applied | applied",
        &format!("db=up {BEGUN} | PAY=applied TELL?1 >TELL | TELL=applied done"),
    );
}

#[test]
fn a_requirement_that_is_not_met_fails_the_run_before_anything_is_done() {
    check(
        &vault(Class::Confirmable),
        "run | pass resume",
        "run1:pipeline LOOK?1 LOOK=not-applied failed started(run-1) \
         | db=up resumed LOOK?2 LOOK=applied PAY?1 >PAY started(run-1)",
    );
}

#[test]
fn a_refusal_is_not_tried_again_and_a_resumed_run_goes_on_at_that_step() {
    check(
        &vault(Class::Confirmable),
        "pass run | no | resume | applied | applied | resume",
        &format!(
            "db=up {BEGUN} | PAY=refused failed | resumed PAY?2 >PAY started(run-1) \
             | PAY=applied TELL?1 >TELL | TELL=applied done | not-now(it is done)"
        ),
    );
}

#[test]
fn a_one_shot_step_in_doubt_waits_and_a_persons_word_lets_it_go_on() {
    for (word, then) in
        [("was-done", "resolved(true) TELL?1 >TELL"), ("was-not-done", "resolved(false) retry")]
    {
        let mut story = Story::begin(&vault(Class::OneShot));
        story.tell("pass run");
        assert_eq!(story.tell("crash"), "started PAY=unknown held owe(run-held)");
        assert_eq!(story.tell("crash +1m"), "started", "nothing is done again meanwhile");
        assert_eq!(story.tell(word), format!("{then} started(run-1)"));
        assert_eq!(story.tell(word), "not-now(nobody is in doubt about the step)");
        story.end();
    }
}

#[test]
fn an_idempotent_step_in_doubt_is_done_again_although_it_has_one_attempt() {
    let mut spec = vault(Class::Confirmable);
    change(&mut spec, |steps| steps[2].attempts_max = 1);
    check(
        &spec,
        "pass run applied | crash | applied",
        &format!(
            "db=up {BEGUN} PAY=applied TELL?1 >TELL | started TELL=unknown retry TELL?2 >TELL | TELL=applied done"
        ),
    );
}

#[test]
fn a_cancelled_run_ends_before_its_next_step_and_no_sooner() {
    check(
        &vault(Class::Confirmable),
        "pass run | cancel | cancel | applied",
        &format!(
            "db=up {BEGUN} | cancel >stop(PAY) started(run-1) | not-now(it is being cancelled already) \
             | PAY=applied cancelled(TELL)"
        ),
    );
    // In doubt it is asked about first, and then not tried again.
    check(
        &vault(Class::Confirmable),
        "pass run | cancel | crash | denied",
        &format!(
            "db=up {BEGUN} | cancel >stop(PAY) started(run-1) | started PAY=unknown >confirm | PAY~not-applied cancelled(PAY)"
        ),
    );
}

#[test]
fn one_run_of_a_pipeline_at_a_time() {
    let mut story = Story::begin(&vault(Class::Confirmable));
    story.tell("pass run");
    assert_eq!(story.tell("run"), "busy(run-1)");
    story.tell("no run");
    assert_eq!(story.tell("resume"), "busy(run-2)", "a resumed one counts as well");
    story.end();
}

#[test]
fn a_step_in_doubt_can_be_resolved_before_the_last_question_was_asked() {
    let mut story = Story::begin(&vault(Class::Confirmable));
    story.tell("pass run unknown unsure");
    assert_eq!(story.tell("was-done"), "resolved(true) TELL?1 >TELL started(run-1)");
    story.end();
}

#[test]
fn thousands_of_requirements_in_a_row_need_no_stack() {
    let mut spec = vault(Class::Confirmable);
    change(&mut spec, |steps| {
        let look = steps[0].clone();
        let names = (0..20_000).map(|index| format!("LOOK-{index}"));
        *steps = names.map(|name| StepSpec { name, ..look.clone() }).collect();
    });
    let mut story = Story::begin(&spec);
    assert!(story.tell("pass run").ends_with("done started(run-1)"));
    change(&mut spec, |steps| {
        steps.truncate(1);
        steps[0].attempts_max = 100_000;
    });
    let mut story = Story::begin(&spec);
    assert!(story.tell("run +10s").split_whitespace().filter(|word| *word == "retry").count() < 50);
}

#[test]
fn a_cancelled_step_in_doubt_is_not_called_undone() {
    let mut spec = vault(Class::Confirmable);
    change(&mut spec, |steps| drop(steps.remove(1)));
    check(
        &spec,
        "pass run | cancel | crash",
        "db=up run1:pipeline LOOK?1 LOOK=applied TELL?1 >TELL started(run-1) | cancel >stop(TELL) started(run-1) \
         | started TELL=unknown gave-up(TELL) failed",
    );
}

#[test]
fn an_absurd_wait_before_the_next_question_is_cut() {
    let mut story = Story::begin(&vault(Class::Confirmable));
    story.tell("pass run unknown");
    story.still_unknown(Duration::MAX);
    assert_eq!(story.tell("+60m"), ">confirm");
    story.end();
}
