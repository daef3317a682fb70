//! What begins a run, when has it its turn, and when is its time over? Locks, triggers, deadlines, acts on services.

// Each test binary compiles the whole of it and uses a part.
#[allow(dead_code)]
mod script;

use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::{Class, Plan, StepCall, StepSpec};
use lidless_core::spec::{Action, PipelineSpec, Spec};
use lidless_core::trigger::{IncidentMoment, RunEnd, Trigger};

use script::{check, row, spec, step};

const S: Duration = Duration::from_secs(1);

/// A pipeline of steps that follow each other, changed.
fn pipeline(name: &str, steps: &[&str], change: impl FnOnce(&mut Plan)) -> PipelineSpec {
    let mut plan = Plan::in_a_row(steps.iter().map(|name| step(name, Class::Idempotent)).collect());
    change(&mut plan);
    PipelineSpec { name: name.to_owned(), plan: Arc::new(plan), ..PipelineSpec::default() }
}

fn with(pipelines: Vec<PipelineSpec>) -> Spec {
    Spec { pipelines, ..spec(&["db"]) }
}

fn triggered(name: &str, triggers: Vec<Trigger>) -> PipelineSpec {
    PipelineSpec { triggers, ..pipeline(name, &[name], |_| {}) }
}

#[test]
fn runs_with_one_lock_follow_each_other_also_over_a_crash_and_a_resumption() {
    let lock = |plan: &mut Plan| plan.lock = Some("treasury".to_owned());
    check(
        &with(vec![pipeline("a", &["A"], lock), pipeline("b", &["B"], lock)]),
        "run(0) | run(1) | crash | no | resume | applied | applied",
        "run1:pipeline A?1 >A started(run-1) | run2:pipeline started(run-2) | started A=unknown retry A?2 >A \
         | A=refused failed B?1 >B | resumed started(run-1) | B=applied done A?3 >A | A=applied done",
    );
}

#[test]
fn no_more_runs_of_a_pipeline_are_under_way_than_may_be_and_the_others_wait_or_are_refused() {
    let two = PipelineSpec { concurrency: 2, ..pipeline("a", &["A"], |_| {}) };
    check(
        &with(vec![two]),
        "run run | run | queue | applied",
        "run1:pipeline A?1 >A started(run-1) run2:pipeline A?1 >A started(run-2) | busy(run-2) \
         | run3:pipeline started(run-3) | A=applied done A?1 >A",
    );
}

#[test]
fn the_same_trigger_twice_is_one_run_also_when_it_is_over() {
    check(
        &with(vec![pipeline("a", &["A"], |_| {})]),
        "again | again | applied | crash again",
        "run1:pipeline A?1 >A started(run-1) | started(run-1) | A=applied done | started started(run-1)",
    );
}

#[test]
fn a_run_may_begin_at_a_later_step() {
    check(
        &with(vec![pipeline("a", &["A", "B", "C"], |_| {})]),
        "B:from | applied | applied | D:from",
        "run1:pipeline B?1 >B started(run-1) | B=applied C?1 >C | C=applied done \
         | not-now(it has no step of that name to begin at)",
    );
}

#[test]
fn every_so_often_means_once_also_after_a_long_sleep_and_never_beside_itself() {
    let spec = with(vec![triggered("a", vec![Trigger::Every { every: 30 * S }])]);
    check(
        &spec,
        "+29s | +2s | applied | +30s | +20s +20s | applied +20s",
        "| run1:pipeline a?1 >a | a=applied done | run2:pipeline a?1 >a | a=unknown retry a?2 >a a=unknown retry \
         missed(1) a?3 >a | a=applied done run3:pipeline a?1 >a",
    );
}

#[test]
fn an_incident_has_one_run_of_its_remedy_and_the_end_of_a_run_may_begin_another() {
    let opened = Trigger::Incident { services: vec!["db".to_owned()], when: IncidentMoment::Opened };
    let done = Trigger::Run { pipeline: "a".to_owned(), when: RunEnd::Done };
    let failed = Trigger::Run { pipeline: "a".to_owned(), when: RunEnd::Failed };
    let mut spec =
        with(vec![triggered("a", vec![opened]), triggered("b", vec![done]), triggered("c", vec![failed])]);
    spec.services[0].heal = None;
    check(
        &spec,
        "fail fail fail | crash | a:applied | applied",
        "db=suspect(1) db=suspect(2) db=down open#1 hold#1(no heal) owe(will-not-heal) run1:pipeline a?1 >a \
         | started a=unknown retry a?2 >a | a=applied done run2:pipeline b?1 >b | b=applied done",
    );
}

#[test]
fn a_runs_time_is_over_before_its_next_step_and_for_what_waits() {
    let short = |plan: &mut Plan| plan.deadline = Some(15 * S);
    check(
        &with(vec![pipeline("a", &["A", "B"], short)]),
        "run +14s | applied | +1s | unknown",
        "run1:pipeline A?1 >A started(run-1) | A=applied B?1 >B | | B=unknown retry gave-up(B) failed",
    );
    let lock = |plan: &mut Plan| (plan.lock, plan.deadline) = (Some("x".to_owned()), Some(15 * S));
    check(
        &with(vec![
            pipeline("a", &["A"], |plan| plan.lock = Some("x".to_owned())),
            pipeline("b", &["B"], lock),
        ]),
        "run(0) run(1) | +14s | +2s",
        "run1:pipeline A?1 >A started(run-1) run2:pipeline started(run-2) | | A=unknown retry A?2 gave-up(B) failed >A",
    );
}

#[test]
fn a_steps_time_over_all_its_attempts_is_over() {
    let within = StepSpec { within: Some(3 * S), attempts_max: 9, ..step("A", Class::Idempotent) };
    check(
        &with(vec![row("a", vec![within])]),
        "run | refused | +2s | refused | +5s",
        "run1:pipeline A?1 >A started(run-1) | A=not-applied retry | A?2 >A | A=not-applied retry | gave-up(A) failed",
    );
}

#[test]
fn a_step_may_let_time_go_by_also_over_a_crash() {
    let wait = StepSpec { call: StepCall::Wait { time: 60 * S }, ..step("WAIT", Class::Pure) };
    let spec = with(vec![row("a", vec![wait, step("B", Class::Idempotent)])]);
    check(
        &spec,
        "run +30s | crash | +29s | +2s",
        "run1:pipeline WAIT?1 started(run-1) | started | | WAIT=applied B?1 >B",
    );
}

#[test]
fn a_step_whose_implementation_is_missing_is_parked_until_it_is_there() {
    check(
        &with(vec![pipeline("a", &["A"], |_| {})]),
        "run | missing | crash | missing | reload | applied",
        "run1:pipeline A?1 >A started(run-1) | A=missing owe(run-held) | started retry A?2 >A | A=missing owe(run-held) | retry A?3 >A | A=applied done",
    );
    check(
        &with(vec![pipeline("a", &["A"], |_| {})]),
        "run | missing | cancel",
        "run1:pipeline A?1 >A started(run-1) | A=missing owe(run-held) | cancel turned cancelled(A) started(run-1)",
    );
}

#[test]
fn a_step_that_acts_on_a_service_is_a_run_of_its_own_within_the_budget() {
    let call = StepCall::Service { service: "db".to_owned(), action: Action::Restart };
    let restart = StepSpec { call, attempts_max: 1, ..step("BOUNCE", Class::Idempotent) };
    let spec = with(vec![row("a", vec![restart, step("B", Class::Idempotent)])]);
    check(
        &spec,
        "pass run | applied | +2s pass | applied",
        "db=up run1:pipeline BOUNCE?1 run2:step RESTART?1 >RESTART started(run-1) | RESTART=applied VERIFY?1 | VERIFY=applied done BOUNCE=applied B?1 >B | B=applied done",
    );
    // It has its turn once whoever acts on the service is done.
    check(
        &spec,
        "pass restart | run | applied +2s pass | crash | confirmed +2s pass",
        "db=up by-hand run1:manual RESTART?1 >RESTART started(run-1) | run2:pipeline started(run-2) \
         | RESTART=applied VERIFY?1 VERIFY=applied done BOUNCE?1 run3:step RESTART?1 >RESTART \
         | started RESTART=unknown >confirm | RESTART~applied VERIFY?1 VERIFY=applied done BOUNCE=applied B?1 >B",
    );
    let mut spec = spec;
    spec.services[0].heal.as_mut().expect("it heals").budget.attempts = 1;
    check(
        &spec,
        "pass restart applied +2s pass | run",
        "db=up by-hand run1:manual RESTART?1 >RESTART started(run-1) RESTART=applied VERIFY?1 VERIFY=applied done \
         | run2:pipeline BOUNCE?1 BOUNCE=not-applied failed started(run-2)",
    );
}

#[test]
fn a_lock_is_held_by_one_also_where_conditions_are_weighed() {
    let locked = |name: &str, first: &str| {
        let mut steps = vec![step(first, Class::Idempotent), step("C", Class::Idempotent)];
        steps[0].when = Some("inputs.go".into());
        let mut plan = Plan::in_a_row(steps);
        plan.lock = Some("treasury".to_owned());
        PipelineSpec { name: name.to_owned(), plan: Arc::new(plan), ..PipelineSpec::default() }
    };
    check(
        &with(vec![locked("a", "A"), locked("b", "B")]),
        "run(0) run(1) | A:holds | B:holds-not | A:applied applied | B:holds-not",
        "run1:pipeline >weigh started(run-1) run2:pipeline >weigh started(run-2) | A?1 >A | \
         | A=applied C?1 >C C=applied done >weigh | skip(B) C?1 >C",
    );
}

#[test]
fn every_end_of_a_run_triggers_what_waits_for_it_also_when_many_end_at_once() {
    let short = |plan: &mut Plan| plan.deadline = Some(5 * S);
    let any = Trigger::Run { pipeline: "a".to_owned(), when: RunEnd::Any };
    let spec = with(vec![pipeline("a", &["A"], short), triggered("b", vec![any])]);
    let script = format!("{} | +30s", "queue ".repeat(40));
    let mut story = script::Story::begin(&spec);
    let said: Vec<_> = script.split('|').map(|part| story.tell(part)).collect();
    assert_eq!(said[1].matches(":pipeline").count(), 40, "{}", said[1]);
    story.end();
}

#[test]
fn a_restart_that_did_not_help_is_not_done_again() {
    let call = StepCall::Service { service: "db".to_owned(), action: Action::Restart };
    let restart = StepSpec { call, attempts_max: 3, ..step("BOUNCE", Class::Idempotent) };
    check(
        &with(vec![row("a", vec![restart])]),
        "pass run | applied | crash +60s",
        "db=up run1:pipeline BOUNCE?1 run2:step RESTART?1 >RESTART started(run-1) | RESTART=applied VERIFY?1 \
         | started retry VERIFY?2 VERIFY=unknown failed BOUNCE=refused failed",
    );
}

#[test]
fn where_only_orders_count_nothing_is_healed_scheduled_or_triggered() {
    let opened = Trigger::Incident { services: vec!["db".to_owned()], when: IncidentMoment::Opened };
    let spec = with(vec![
        triggered("a", vec![Trigger::Every { every: 30 * S }, opened]),
        pipeline("b", &["B"], |_| {}),
    ]);
    let mut story = script::Story::begin(&spec);
    story.feed(lidless_core::effect::Input::OrdersOnly);
    assert_eq!(story.tell("fail fail fail"), "db=suspect(1) db=suspect(2) db=down open#1");
    assert_eq!(story.tell("+40s"), "");
    assert_eq!(story.tell("run(1)"), "run1:pipeline B?1 >B started(run-1)");
    // The next lidless does what this one left.
    assert_eq!(story.tell("crash"), "started B=unknown retry B?2 >B");
    assert_eq!(story.tell("+1s"), "run2:pipeline a?1 >a");
    assert_eq!(story.tell("fail"), "run3:heal RESTART?1 >RESTART");
    story.end();
}
