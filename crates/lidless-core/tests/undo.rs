//! How does a run turn round, and what waits for whom? Undo, pivots, groups, conditions, a person's yes.

// Each test binary compiles the whole of it and uses a part.
#[allow(dead_code)]
mod script;

use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::{Approve, Class, Plan, StepSpec};
use lidless_core::spec::{PipelineSpec, Spec};

use script::{Story, check, spec, step};

const S: Duration = Duration::from_secs(1);

/// A step that comes after others, by their place.
fn after(step: StepSpec, after: &[u32]) -> StepSpec {
    StepSpec { after: after.to_vec(), ..step }
}

/// A step that takes another back, by its place.
fn undo(name: &str, undoes: u32) -> StepSpec {
    StepSpec { undoes: Some(undoes), ..step(name, Class::Confirmable) }
}

fn plan(steps: Vec<StepSpec>) -> Spec {
    let plan = Arc::new(Plan::new(steps).expect("steps stand in order"));
    let pipeline = PipelineSpec { name: "pay".to_owned(), plan, ..PipelineSpec::default() };
    Spec { pipelines: vec![pipeline], ..spec(&["db"]) }
}

/// A → B → C, of which A and B can be taken back.
fn there_and_back() -> Vec<StepSpec> {
    vec![
        after(step("A", Class::Confirmable), &[]),
        after(step("B", Class::Confirmable), &[0]),
        after(step("C", Class::Confirmable), &[1]),
        undo("A/undo", 0),
        undo("B/undo", 1),
    ]
}

const AB: &str = "run1:pipeline A?1 >A started(run-1) A=applied B?1 >B B=applied C?1 >C";

#[test]
fn what_was_applied_is_taken_back_in_reverse() {
    check(
        &plan(there_and_back()),
        "run applied applied | no | applied | applied | resume",
        &format!(
            "{AB} | C=refused undo B/undo?1 >B/undo | B/undo=applied A/undo?1 >A/undo \
             | A/undo=applied undone(C) | not-now(it was undone: begin a new one)"
        ),
    );
}

#[test]
fn an_undo_in_doubt_is_confirmed_before_anything_else_and_one_that_fails_waits_for_a_person() {
    check(
        &plan(there_and_back()),
        "run applied applied | no | crash | denied | +2s | no | resume | applied applied",
        &format!(
            "{AB} | C=refused undo B/undo?1 >B/undo | started B/undo=unknown >confirm \
             | B/undo~not-applied retry | B/undo?2 >B/undo \
             | B/undo=refused stuck(B/undo) owe(run-held) | resumed B/undo?3 >B/undo started(run-1) \
             | B/undo=applied A/undo?1 >A/undo A/undo=applied undone(C)"
        ),
    );
}

#[test]
fn a_person_may_leave_a_stuck_undo_and_it_is_named() {
    let mut story = Story::begin(&plan(there_and_back()));
    story.tell("run applied applied no no");
    assert_eq!(story.tell("cancel"), "cancel gave-up(B/undo) A/undo?1 >A/undo started(run-1)");
    assert_eq!(story.tell("applied"), "A/undo=applied failed");
    let ended = story.engine.state().ended.back().expect("it ended");
    assert!(format!("{:?}", ended.verdict).contains("not undone: B"), "{:?}", ended.verdict);
    story.end();
}

#[test]
fn a_person_may_undo_it_by_hand_and_say_so() {
    check(
        &plan(there_and_back()),
        "run applied applied no no | was-not-done | was-done | applied",
        &format!(
            "{AB} C=refused undo B/undo?1 >B/undo B/undo=refused stuck(B/undo) owe(run-held) \
             | not-now(that it had no effect is known: resume the run, or cancel it) \
             | resolved(true) A/undo?1 >A/undo started(run-1) | A/undo=applied undone(C)"
        ),
    );
}

#[test]
fn after_a_step_that_cannot_be_taken_back_there_is_only_the_way_forward_or_a_person() {
    let mut steps = there_and_back();
    steps[1].pivot = true;
    steps.pop();
    check(
        &plan(steps.clone()),
        "run applied applied | no | crash | resume | applied",
        &format!(
            "{AB} | C=refused stuck(C) owe(run-held) | started | resumed C?2 >C started(run-1) | C=applied done"
        ),
    );
    check(
        &plan(steps.clone()),
        "run applied applied no | cancel",
        &format!("{AB} C=refused stuck(C) owe(run-held) | cancel gave-up(C) cancelled(C) started(run-1)"),
    );
    // Value that nothing brings back is one as well.
    steps[1].pivot = false;
    steps[1].value = true;
    check(&plan(steps), "run applied applied no", &format!("{AB} C=refused stuck(C) owe(run-held)"));
}

#[test]
fn a_cancelled_run_is_taken_back_and_what_is_in_doubt_is_settled_first() {
    check(
        &plan(there_and_back()),
        "run applied | cancel | unknown | confirmed | applied | applied",
        "run1:pipeline A?1 >A started(run-1) A=applied B?1 >B | cancel >stop(B) started(run-1) \
         | B=unknown >confirm | B~applied undo B/undo?1 >B/undo | B/undo=applied A/undo?1 >A/undo \
         | A/undo=applied cancelled(C)",
    );
}

/// LEFT and RIGHT side by side, then JOIN.
fn side_by_side() -> Vec<StepSpec> {
    vec![
        after(step("LEFT", Class::Confirmable), &[]),
        after(step("RIGHT", Class::Confirmable), &[]),
        after(step("JOIN", Class::Confirmable), &[0, 1]),
        undo("LEFT/undo", 0),
        undo("RIGHT/undo", 1),
    ]
}

#[test]
fn independent_steps_run_side_by_side_and_what_needs_both_waits_for_both() {
    check(
        &plan(side_by_side()),
        "run | RIGHT:applied | LEFT:applied | applied",
        "run1:pipeline LEFT?1 RIGHT?1 >LEFT >RIGHT started(run-1) | RIGHT=applied \
         | LEFT=applied JOIN?1 >JOIN | JOIN=applied done",
    );
}

#[test]
fn a_failure_waits_for_what_is_under_way_beside_it_and_takes_back_what_that_did() {
    check(
        &plan(side_by_side()),
        "run | LEFT:no | RIGHT:unknown | crash | confirmed | applied",
        "run1:pipeline LEFT?1 RIGHT?1 >LEFT >RIGHT started(run-1) | LEFT=refused turned \
         | RIGHT=unknown >confirm | started >confirm | RIGHT~applied undo RIGHT/undo?1 >RIGHT/undo \
         | RIGHT/undo=applied undone(LEFT)",
    );
    // Nothing applied: nothing to take back, and a resumed run tries both again.
    check(
        &plan(side_by_side()),
        "run LEFT:no | RIGHT:no | resume | RIGHT:applied LEFT:applied applied",
        "run1:pipeline LEFT?1 RIGHT?1 >LEFT >RIGHT started(run-1) LEFT=refused turned \
         | RIGHT=refused failed | resumed LEFT?2 RIGHT?2 >LEFT >RIGHT started(run-1) \
         | RIGHT=applied LEFT=applied JOIN?1 >JOIN JOIN=applied done",
    );
}

#[test]
fn a_step_is_skipped_where_its_condition_does_not_hold() {
    let mut steps = there_and_back();
    steps[1].when = Some(Arc::from("outputs.A.amount > 0"));
    check(
        &plan(steps.clone()),
        "run applied | holds-not | applied",
        "run1:pipeline A?1 >A started(run-1) A=applied >weigh | skip(B) C?1 >C | C=applied done",
    );
    check(
        &plan(steps.clone()),
        "run applied | crash | holds | applied",
        "run1:pipeline A?1 >A started(run-1) A=applied >weigh | started >weigh | B?1 >B | B=applied C?1 >C",
    );
    check(
        &plan(steps),
        "run applied | broken | applied",
        "run1:pipeline A?1 >A started(run-1) A=applied >weigh | gave-up(B) undo A/undo?1 >A/undo \
         | A/undo=applied undone(B)",
    );
}

#[test]
fn a_step_waits_for_a_persons_yes_and_not_for_ever() {
    let mut steps = there_and_back();
    steps[1].approve = Some(Approve { within: 60 * S, ask: "1 ETH?".to_owned() });
    let begun = "run1:pipeline A?1 >A started(run-1) A=applied awaits(B) owe(approval)";
    check(
        &plan(steps.clone()),
        "run applied | crash | yes | yes | applied",
        &format!(
            "{begun} | started | approved(B) B?1 >B started(run-1) | not-now(no such step of it waits for a yes) \
             | B=applied C?1 >C"
        ),
    );
    check(
        &plan(steps.clone()),
        "run applied | B:nay | applied",
        &format!("{begun} | gave-up(B) undo A/undo?1 >A/undo started(run-1) | A/undo=applied undone(B)"),
    );
    check(
        &plan(steps.clone()),
        "run applied | +59s | +2s | yes",
        &format!(
            "{begun} | | gave-up(B) undo A/undo?1 >A/undo | not-now(no such step of it waits for a yes)"
        ),
    );
    check(
        &plan(steps),
        "run applied | cancel | applied",
        &format!(
            "{begun} | cancel turned undo A/undo?1 >A/undo started(run-1) | A/undo=applied cancelled(B)"
        ),
    );
}

#[test]
fn what_an_effect_is_found_by_is_durable_and_only_while_it_may_still_go_on() {
    check(
        &plan(there_and_back()),
        "run | handle | +15s handle",
        "run1:pipeline A?1 >A started(run-1) | handle | A=unknown >confirm",
    );
    let mut story = Story::begin(&plan(there_and_back()));
    assert_eq!(story.tell("run full handle"), "run1:pipeline A?1 >A started(run-1) degraded owe(degraded)");
    story.end();
}

/// LEFT and RIGHT side by side after A; RIGHT may simply be done again, and can be taken back.
fn doubtful_beside() -> Vec<StepSpec> {
    vec![
        after(step("A", Class::Confirmable), &[]),
        after(step("LEFT", Class::Confirmable), &[0]),
        after(step("RIGHT", Class::Idempotent), &[0]),
        undo("A/undo", 0),
        undo("RIGHT/undo", 2),
    ]
}

#[test]
fn doubt_beside_a_failure_is_settled_before_anything_is_taken_back() {
    check(
        &plan(doubtful_beside()),
        "run applied | RIGHT:unknown | RIGHT:unknown | LEFT:no | applied | applied applied",
        "run1:pipeline A?1 >A started(run-1) A=applied LEFT?1 RIGHT?1 >LEFT >RIGHT \
         | RIGHT=unknown retry RIGHT?2 >RIGHT | RIGHT=unknown retry | LEFT=refused turned RIGHT?3 >RIGHT \
         | RIGHT=applied undo RIGHT/undo?1 >RIGHT/undo \
         | RIGHT/undo=applied A/undo?1 >A/undo A/undo=applied undone(LEFT)",
    );
    // Also where the next attempt finds nobody to do it.
    check(
        &plan(doubtful_beside()),
        "run applied | RIGHT:unknown | RIGHT:missing | LEFT:no | resume | reload | RIGHT:applied",
        "run1:pipeline A?1 >A started(run-1) A=applied LEFT?1 RIGHT?1 >LEFT >RIGHT \
         | RIGHT=unknown retry RIGHT?2 >RIGHT | RIGHT=missing owe(run-held) | LEFT=refused turned \
         | not-now(it is ending) | retry RIGHT?3 >RIGHT | RIGHT=applied undo RIGHT/undo?1 >RIGHT/undo",
    );
}

#[test]
fn a_resumed_run_drops_no_doubt() {
    let mut steps = there_and_back();
    steps[1].class = Class::Idempotent;
    steps[1].approve = Some(Approve { within: 60 * S, ask: String::new() });
    check(
        &plan(steps),
        "run applied yes | unknown | missing | resume | B:nay",
        "run1:pipeline A?1 >A started(run-1) A=applied awaits(B) owe(approval) approved(B) B?1 >B started(run-1) \
         | B=unknown retry B?2 >B | B=missing owe(run-held) | resumed B?3 >B started(run-1) \
         | not-now(no such step of it waits for a yes)",
    );
}

#[test]
fn a_condition_that_has_held_is_not_weighed_again_for_an_implementation_that_was_missing() {
    let mut steps = there_and_back();
    steps[0].when = Some(Arc::from("inputs.go"));
    check(
        &plan(steps),
        "run | holds | missing | crash | applied",
        "run1:pipeline >weigh started(run-1) | A?1 >A | A=missing owe(run-held) | started retry A?2 >A \
         | A=applied B?1 >B",
    );
}

#[test]
fn an_undo_that_nobody_can_do_any_more_can_be_left_or_done_by_hand() {
    let begun = "run1:pipeline A?1 >A started(run-1) A=applied B?1 >B B=refused undo A/undo?1 >A/undo \
                 A/undo=missing owe(run-held)";
    for (word, then) in [
        ("cancel", "cancel gave-up(A/undo) failed started(run-1)"),
        ("was-done", "resolved(true) undone(B) started(run-1)"),
    ] {
        check(
            &plan(there_and_back()),
            &format!("run applied no missing | {word}"),
            &format!("{begun} | {then}"),
        );
    }
}

#[test]
fn what_takes_a_step_back_is_called_outside_and_at_once() {
    let refused = |change: fn(&mut StepSpec)| {
        let mut steps = there_and_back();
        change(&mut steps[3]);
        Plan::new(steps).expect_err("it is refused")
    };
    assert_eq!(
        refused(|step| step.class = Class::Pure),
        "what takes a step back changes something: it is not pure"
    );
    assert_eq!(
        refused(|step| step.when = Some("inputs.a".into())),
        "what takes a step back waits for no condition and for nobody"
    );
    assert_eq!(
        refused(|step| step.call = lidless_core::pipeline::plan::StepCall::Nothing),
        "what takes a step back is called outside"
    );
}
