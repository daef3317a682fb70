//! What does the engine make of evidence that is old, late or missing? Each test is a script and what it leads to.

#![allow(clippy::unwrap_used)]

// Each test binary compiles the whole of it and uses a part.
#[allow(dead_code)]
mod script;

use std::time::Duration;

use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};
use lidless_core::effect::{Effect, Input};
use lidless_core::event::Event;
use lidless_core::health::Health;
use lidless_core::id::{CheckId, RunId};
use lidless_core::spec::Budget;

use script::{Story, check, external, pipeline, second_check, spec};

const S: Duration = Duration::from_secs(1);
const HEAL: &str = "db=down open#1 run1:heal RESTART?1 >RESTART";

#[test]
fn a_later_death_in_the_same_incident_may_say_do_not_restart_me() {
    let script = "dead(1) | applied | +1s dead(42) | +60s dead(42)";
    let held = "merge#1 VERIFY=not-applied failed backoff hold#1(exit 42) owe(will-not-heal)";
    check(&spec(&["db"]), script, &format!("{HEAL} | RESTART=applied VERIFY?1 | {held} |"));
}

#[test]
fn the_last_exit_code_of_an_incident_is_the_one_that_counts() {
    check(
        &spec(&["db"]),
        "dead(42) | dead(42) | dead(1)",
        "db=down open#1 hold#1(exit 42) owe(will-not-heal) | | merge#1 run1:heal RESTART?1 >RESTART",
    );
}

#[test]
fn an_actuator_that_stays_unavailable_is_told_of_in_the_next_incident_too() {
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("dead(1) unavailable +2s dead(1) unavailable +3s dead(1) unavailable pass +60s");
    assert_eq!(story.tell("dead(1)"), "db=down open#2 run4:heal RESTART?1 >RESTART");
    assert_eq!(story.tell("unavailable"), "RESTART=unavailable failed backoff owe(unavailable)");
    assert_eq!(
        story.tell("taken +60s dead(1) unavailable"),
        "told told told run5:heal RESTART?1 >RESTART RESTART=unavailable failed backoff",
        "once per incident"
    );
    story.end();
}

#[test]
fn an_answer_from_before_the_act_says_nothing_even_once_the_act_is_judged() {
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("dead(1)");
    let began = story.now.monotonic;
    assert!(story.tell("+1s applied +1s pass").ends_with("close#1(run-1)"));
    let failure = CheckFailure::new(FailureKind::NotRunning, "it ended").certain();
    let outcome = CheckOutcome::Fail { latency: S, failure };
    story.feed(Input::Probed { check: CheckId(0), began, outcome });
    assert_eq!(story.tell(""), "");
    story.end();
}

#[test]
fn a_heal_proved_undone_costs_no_attempt_but_only_the_first_in_a_row() {
    let undone = "RESTART=unknown >confirm RESTART~not-applied failed";
    check(
        &spec(&["db"]),
        "dead(1) | unknown denied | dead(1) | unknown denied | dead(1) | +7s dead(1) | unknown denied | dead(1)",
        &format!(
            "{HEAL} | {undone} | run2:heal RESTART?1 >RESTART | {undone} backoff | \
             | run3:heal RESTART?1 >RESTART | {undone} gave-up#1(2) owe(gave-up) | "
        ),
    );
}

#[test]
fn not_being_able_to_ask_after_an_act_is_no_verdict_on_it() {
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("fail fail fail");
    let unjudged = "VERIFY=unknown failed backoff";
    assert_eq!(story.tell("applied +9s maybe +9s"), format!("RESTART=applied VERIFY?1 {unjudged}"));
    // It counts as done. The second one as well; what then gives up is a failing answer, not the time that went by.
    assert_eq!(story.tell("+7s fail"), "run2:heal RESTART?1 >RESTART");
    assert_eq!(story.tell("applied +9s maybe +9s"), format!("RESTART=applied VERIFY?1 {unjudged}"));
    assert_eq!(story.tell("maybe maybe maybe"), "db=unknown");
    assert_eq!(story.tell("dead(1)"), "db=down merge#1 gave-up#1(2) owe(gave-up)");
    story.end();
}

#[test]
fn giving_up_is_told_also_to_whoever_was_told_something_else() {
    let mut spec = spec(&["db"]);
    spec.services[0].depends_on = Vec::new();
    spec.host_budget = Some(Budget { attempts: 1, per: 60 * S });
    spec.services[0].heal.as_mut().unwrap().budget.attempts = 1;
    let mut story = Story::begin(&spec);
    story.tell("restart applied +1s pass +30s");
    assert_eq!(story.tell("dead(1)"), "db=down open#1 gave-up#1(1) owe(gave-up)");
    spec.services[0].heal.as_mut().unwrap().budget.attempts = 2;
    let mut story = Story::begin(&spec);
    story.tell("restart applied +1s pass +30s");
    assert_eq!(story.tell("dead(1)"), "db=down open#1 hold#1(host budget) owe(will-not-heal)");
    assert_eq!(story.tell("+40s dead(1)"), "run2:heal RESTART?1 >RESTART");
    let said = story.tell("applied +1s dead(1)");
    assert!(said.ends_with("gave-up#1(2) owe(gave-up)"), "{said}");
    story.end();
}

#[test]
fn a_restart_by_hand_is_within_the_budget_of_the_host() {
    let mut spec = spec(&["db", "api"]);
    spec.host_budget = Some(Budget { attempts: 1, per: 60 * S });
    let mut story = Story::begin(&spec);
    story.tell("api.dead(1) applied +1s api.pass");
    assert_eq!(story.tell("restart"), "budget-spent");
    assert_eq!(story.tell("force"), "by-hand run2:manual RESTART?1 >RESTART started(run-2)");
    story.end();
}

#[test]
fn a_restart_that_nobody_can_tell_about_or_judge_leaves_the_service_free() {
    let mut spec = spec(&["db"]);
    spec.services[0].checks.clear();
    let mut story = Story::begin(&spec);
    story.tell("restart unknown unsure +5s unsure +5s");
    assert_eq!(story.tell("unsure"), "RESTART~unsure failed");
    assert_eq!(story.tell("restart"), "by-hand run2:manual RESTART?1 >RESTART started(run-2)");
    story.end();
}

#[test]
fn an_effect_that_had_to_wait_is_not_wanted_any_more_once_the_step_went_on() {
    let mut spec = spec(&[]);
    spec.pipelines = vec![pipeline()];
    let mut story = Story::begin(&spec);
    story.tell("run");
    let first = Effect::Perform {
        run: RunId(1),
        step: 0,
        attempt: 1,
        name: "PAY".to_owned(),
        call: external(),
        deadline: story.now.monotonic + 10 * S,
    };
    assert!(story.engine.still_wanted(&first, story.now.monotonic));
    assert!(!story.engine.still_wanted(&first, story.now.monotonic + 10 * S), "past its deadline");
    assert_eq!(story.tell("+16s denied +2s"), "PAY=unknown >confirm PAY~not-applied retry PAY?2 >PAY");
    assert!(!story.engine.still_wanted(&first, story.now.monotonic), "another attempt is under way");
    story.end();
}

#[test]
fn a_check_that_is_down_without_an_incident_is_asked_anew_at_the_next_start() {
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("dead(1)");
    // Half a turn, as a journal cut by a lesser lidless would have it.
    story.cut_after(|event| matches!(event, Event::HealthChanged { .. }));
    assert_eq!(story.tell("crash"), "started");
    assert_eq!(story.tell("dead(1)"), HEAL);
    story.end();
}

#[test]
fn a_managed_service_that_only_is_watched_is_brought_up_by_the_next_lidless() {
    let mut spec = spec(&["db"]);
    (spec.services[0].managed, spec.services[0].heal) = (true, None);
    check(
        &spec,
        "applied +1s pass | dead(1) | crash | applied +1s pass",
        "START=applied VERIFY?1 db=up VERIFY=applied done | db=down open#1 hold#1(no heal) owe(will-not-heal) \
         | started run2:bring-up START?1 >START \
         | START=applied VERIFY?1 db=up VERIFY=applied done owe(resolved) close#1(run-2)",
    );
}

#[test]
fn a_managed_service_that_is_left_alone_is_brought_up_by_the_next_boot_only() {
    let mut spec = spec(&["db"]);
    spec.services[0].managed = true;
    check(
        &spec,
        "applied +1s pass | dead(42) | crash | reboot",
        "START=applied VERIFY?1 db=up VERIFY=applied done | db=down open#1 hold#1(exit 42) owe(will-not-heal) \
         | started | started run2:bring-up START?1 >START",
    );
}

#[test]
fn a_boot_of_the_machine_lets_go_of_having_given_up() {
    for (next, healed) in [("crash", ""), ("reboot", "run3:heal RESTART?1 >RESTART")] {
        let mut story = Story::begin(&spec(&["db"]));
        story.tell("dead(1) applied +1s dead(1) +7s dead(1) applied +1s dead(1)");
        assert!(story.engine.state().services[0].given_up.is_some());
        story.tell("+11m");
        story.tell(next);
        assert_eq!(story.tell("dead(1)"), healed, "{next}");
        story.end();
    }
}

#[test]
fn a_row_of_failures_does_not_go_on_over_a_time_in_which_nobody_asked() {
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("pass fail fail crash");
    assert_eq!(story.engine.state().checks[0].health, Health::Unknown);
    assert_eq!(story.engine.state().checks[0].first_sign, Duration::ZERO);
    assert_eq!(story.tell("fail fail"), "db=suspect(1) db=suspect(2)");
    story.end();
}

#[test]
fn a_verification_whose_time_ran_out_while_nobody_looked_has_one_more_look() {
    let begun = format!("{HEAL} RESTART=applied VERIFY?1");
    // Settle, time to verify, slowest probe and grace: 18 s; then one more look of 7 s.
    check(
        &spec(&["db"]),
        "dead(1) applied | +20s | pass",
        &format!("{begun} | | db=up VERIFY=applied done backoff close#1(run-1)"),
    );
    check(
        &spec(&["db"]),
        "dead(1) applied | +20s | +6s",
        &format!("{begun} | | VERIFY=unknown failed backoff"),
    );
}

#[test]
fn a_verification_that_was_looked_at_ends_in_time() {
    let mut spec = spec(&["db"]);
    second_check(&mut spec);
    check(
        &spec,
        "pass db/1.pass dead(1) applied | +10s pass db/1.fail | +8s",
        "db=up db/1=up db=down open#1 run1:heal RESTART?1 >RESTART RESTART=applied VERIFY?1 | db=up \
         | VERIFY=not-applied failed backoff",
    );
}

#[test]
fn what_starts_and_dies_was_not_healed_and_what_fails_again_is_noticed_at_once() {
    let mut spec = spec(&["db"]);
    spec.services[0].verify.stay = 2 * S;
    let mut story = Story::begin(&spec);
    story.tell("dead(1) applied");
    assert_eq!(story.tell("+1s pass"), "db=up", "well, but not proved to be");
    assert_eq!(story.tell("+1s dead(1)"), "db=down VERIFY=not-applied failed backoff");
    assert_eq!(
        story.tell("+7s dead(1) applied +1s pass +1s fail fail"),
        "run2:heal RESTART?1 >RESTART RESTART=applied VERIFY?1 db=up db=suspect(1) db=suspect(2)"
    );
    assert_eq!(story.tell("fail"), "db=down VERIFY=not-applied failed gave-up#1(2) owe(gave-up)");
    let mut story = Story::begin(&spec);
    story.tell("dead(1) applied +1s pass +1s");
    assert_eq!(story.tell("pass"), "", "it has not stayed for long enough");
    assert_eq!(story.tell("+1s pass"), "VERIFY=applied done backoff close#1(run-1)");
    story.end();
}

#[test]
fn every_check_has_to_stay_well_by_an_answer_of_its_own() {
    let mut spec = spec(&["db"]);
    second_check(&mut spec);
    spec.services[0].verify.stay = 2 * S;
    let mut story = Story::begin(&spec);
    story.tell("pass db/1.pass dead(1) applied +1s pass db/1.pass");
    assert_eq!(story.tell("+3s pass"), "", "the other one was asked too early");
    assert_eq!(story.tell("db/1.pass"), "VERIFY=applied done backoff close#1(run-1)");
    story.end();
}
