//! What does the engine do with the stories that matter? Each test is a script, and the events and effects it leads to.

// Each test binary compiles the whole of it and uses a part.
#[allow(dead_code)]
mod script;

use std::time::Duration;

use lidless_core::check::{CheckOutcome, FailureKind};
use lidless_core::effect::Input;
use lidless_core::id::CheckId;
use lidless_core::spec::{Action, Backoff, Budget, Spec};

use script::{Story, check, pipeline, second_check, spec, told};

const S: Duration = Duration::from_secs(1);

#[test]
fn three_failures_open_an_incident_and_heal_it_in_the_same_turn() {
    check(
        &spec(&["db"]),
        "pass fail fail | fail",
        "db=up db=suspect(1) db=suspect(2) | db=down open#1 run1:heal RESTART?1 >RESTART",
    );
}

#[test]
fn a_certain_failure_heals_at_once() {
    check(&spec(&["db"]), "pass | dead(1)", "db=up | db=down open#1 run1:heal RESTART?1 >RESTART");
}

#[test]
fn a_heal_that_is_verified_closes_its_incident() {
    check(
        &spec(&["db"]),
        "dead(1) | applied | pass | +1s pass",
        "db=down open#1 run1:heal RESTART?1 >RESTART | RESTART=applied VERIFY?1 | \
         | db=up VERIFY=applied done backoff close#1(run-1)",
    );
}

#[test]
fn a_heal_that_does_not_help_is_repeated_with_a_wait_then_given_up_then_tried_slowly() {
    let one_heal = "RESTART=applied VERIFY?1";
    check(
        &spec(&["db"]),
        "dead(1) | applied | +1s dead(1) | +1s dead(1) | +6s dead(1) | applied | +1s dead(1) | taken \
         | +59m dead(1) | +1m dead(1) | applied | +1s dead(1) | +59m dead(1) | +1m dead(1) \
         | applied | +1s pass | taken",
        &format!(
            "db=down open#1 run1:heal RESTART?1 >RESTART | {one_heal} | VERIFY=not-applied failed backoff \
             | | run2:heal RESTART?1 >RESTART | {one_heal} | VERIFY=not-applied failed gave-up#1(2) owe(gave-up) \
             | told | | run3:heal RESTART?1 >RESTART | {one_heal} | VERIFY=not-applied failed gave-up#1(1) \
             | | run4:heal RESTART?1 >RESTART | {one_heal} \
             | db=up VERIFY=applied done backoff owe(resolved) close#1(run-4) | told"
        ),
    );
}

#[test]
fn an_actuator_that_is_not_available_costs_no_attempt() {
    let turn = "run{}:heal RESTART?1 >RESTART | RESTART=unavailable failed backoff";
    let turn = |run: u32| turn.replace("{}", &run.to_string());
    check(
        &spec(&["db"]),
        "dead(1) | unavailable | +2s dead(1) | unavailable | +3s dead(1) | unavailable | +6s dead(1)",
        &format!(
            "db=down open#1 {} | {} | {} owe(unavailable) | run4:heal RESTART?1 >RESTART",
            turn(1),
            turn(2),
            turn(3)
        ),
    );
}

#[test]
fn a_dependency_that_is_down_holds_a_heal_and_its_recovery_lets_it_go() {
    let mut spec = spec(&["db", "api"]);
    spec.services[1].depends_on = vec!["db".to_owned()];
    check(
        &spec,
        "dead(1) | api.dead(1) | api.dead(1) | applied +1s | pass | api.dead(1)",
        "db=down open#1 run1:heal RESTART?1 >RESTART | api=down open#2 hold#2(dependency) | \
         | RESTART=applied VERIFY?1 | db=up VERIFY=applied done backoff close#1(run-1) \
         | run2:heal RESTART?1 >RESTART",
    );
}

#[test]
fn a_service_that_says_do_not_restart_me_is_left_alone() {
    check(
        &spec(&["db"]),
        "dead(42) | dead(42) | pass",
        "db=down open#1 hold#1(exit 42) owe(will-not-heal) | | db=up owe(resolved) close#1",
    );
}

#[test]
fn the_host_budget_holds_heals_of_all_services() {
    let mut spec = spec(&["db", "api"]);
    spec.host_budget = Some(Budget { attempts: 1, per: 60 * S });
    check(
        &spec,
        "dead(1) applied +1s pass | api.dead(1) | +30s api.dead(1) | +30s api.dead(1)",
        "db=down open#1 run1:heal RESTART?1 >RESTART RESTART=applied VERIFY?1 \
         db=up VERIFY=applied done backoff close#1(run-1) \
         | api=down open#2 hold#2(host budget) owe(will-not-heal) | | run2:heal RESTART?1 >RESTART",
    );
}

#[test]
fn not_being_able_to_ask_is_neither_up_nor_down() {
    check(
        &spec(&["db"]),
        "pass maybe maybe | maybe | maybe maybe maybe maybe | pass",
        "db=up | db=unknown | | db=up",
    );
}

#[test]
fn a_crash_between_intent_and_outcome_asks_and_restarts_nothing_twice() {
    check(
        &spec(&["db"]),
        "dead(1) | crash | confirmed | +1s pass",
        "db=down open#1 run1:heal RESTART?1 >RESTART | started RESTART=unknown >confirm \
         | RESTART~applied VERIFY?1 | db=up VERIFY=applied done backoff close#1(run-1)",
    );
}

#[test]
fn a_restart_that_proved_to_have_had_no_effect_is_decided_anew_on_a_fresh_answer() {
    check(
        &spec(&["db"]),
        "dead(1) | unknown | denied | dead(1) | applied | +1s pass",
        "db=down open#1 run1:heal RESTART?1 >RESTART | RESTART=unknown >confirm | RESTART~not-applied failed \
         | run2:heal RESTART?1 >RESTART | RESTART=applied VERIFY?1 \
         | db=up VERIFY=applied done backoff close#1(run-2)",
    );
}

#[test]
fn a_restart_that_nobody_can_tell_about_is_judged_by_its_symptom() {
    check(
        &spec(&["db"]),
        "dead(1) | unknown | unsure | +5s unsure | +5s unsure | +1s pass",
        "db=down open#1 run1:heal RESTART?1 >RESTART | RESTART=unknown >confirm | RESTART~unsure \
         | >confirm RESTART~unsure | >confirm RESTART~unsure left VERIFY?1 \
         | db=up VERIFY=applied done backoff close#1(run-1)",
    );
}

#[test]
fn a_restart_by_hand_is_on_record_and_refused_when_the_budget_is_spent() {
    check(
        &spec(&["db"]),
        "pass | restart | restart | applied +1s pass | restart applied +1s pass | restart | force",
        "db=up | by-hand run1:manual RESTART?1 >RESTART started(run-1) | busy(run-1) \
         | RESTART=applied VERIFY?1 VERIFY=applied done \
         | by-hand run2:manual RESTART?1 >RESTART started(run-2) RESTART=applied VERIFY?1 VERIFY=applied done \
         | budget-spent | by-hand run3:manual RESTART?1 >RESTART started(run-3)",
    );
}

#[test]
fn a_new_configuration_keeps_incidents_and_ids() {
    let mut story = Story::begin(&spec(&["db", "api"]));
    assert_eq!(story.tell("api.dead(1)"), "api=down open#1 run1:heal RESTART?1 >RESTART");
    // Another order, another service in front: the names keep their ids.
    let mut other = spec(&["web", "api", "db"]);
    other.services[1].verify.within = 5 * S;
    assert_eq!(story.reload(&other), "config");
    assert_eq!(story.tell("applied"), "RESTART=applied VERIFY?1");
    assert_eq!(story.tell("+1s api.pass"), "api=up VERIFY=applied done backoff close#1(run-1)");
    let names: Vec<_> = story.engine.state().services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["db", "api", "web"]);
    story.end();
}

#[test]
fn a_service_that_leaves_the_configuration_takes_its_incident_with_it() {
    let mut story = Story::begin(&spec(&["db", "api"]));
    story.tell("dead(42)");
    assert_eq!(story.reload(&spec(&["api"])), "owe(resolved) close#1 config");
    // It comes back, still down: what it said before is forgotten, so that it opens an incident again.
    assert_eq!(story.reload(&spec(&["db", "api"])), "config");
    assert_eq!(story.tell("dead(1)"), "db=down open#2 run1:heal RESTART?1 >RESTART");
    story.end();
}

#[test]
fn an_act_under_way_outlives_a_configuration_without_its_service_so_that_none_overlaps_it() {
    let (with, without) = (spec(&["db", "api"]), spec(&["api"]));
    let mut story = Story::begin(&with);
    story.tell("dead(1)");
    assert_eq!(story.reload(&without), "close#1 config");
    assert_eq!(story.reload(&with), "config");
    // The old act may still start a process: a second one must not begin beside it.
    assert_eq!(story.tell("dead(1)"), "");
    assert_eq!(story.tell("applied +1s pass"), "RESTART=applied VERIFY?1 db=up VERIFY=applied done");
    // Gone for good, it does nothing more than end.
    story.tell("+1s dead(1)");
    assert_eq!(story.reload(&without), "close#2 config");
    assert_eq!(story.tell("applied"), "RESTART=applied failed");
    story.end();
}

#[test]
fn an_incident_whose_failing_check_leaves_the_configuration_is_over() {
    let mut before = spec(&["db"]);
    second_check(&mut before);
    before.services[0].heal = None;
    let mut after = before.clone();
    after.services[0].checks.truncate(1);
    let mut story = Story::begin(&before);
    assert_eq!(story.tell("pass db/1.dead(1)"), "db=up db/1=down open#1 hold#1(no heal) owe(will-not-heal)");
    assert_eq!(story.reload(&after), "config owe(resolved) close#1");
    story.end();
}

#[test]
fn an_incident_closes_after_a_failed_heal_that_left_all_checks_up() {
    let mut spec = spec(&["db"]);
    second_check(&mut spec);
    check(
        &spec,
        "pass db/1.pass dead(1) applied | +1s pass | +60s | db/1.pass",
        "db=up db/1=up db=down open#1 run1:heal RESTART?1 >RESTART RESTART=applied VERIFY?1 | db=up \
         | VERIFY=unknown failed backoff | close#1",
    );
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let script = "pass fail {} fail fail | applied +1s {} pass";
    let expected = "db=up db=suspect(1) db=suspect(2) db=down open#1 run1:heal RESTART?1 >RESTART \
                    | RESTART=applied VERIFY?1 db=up VERIFY=applied done backoff close#1(run-1)";
    for jump in ["", "wall(-3600)", "wall(3600)"] {
        check(&spec(&["db"]), &script.replace("{}", jump), expected);
    }
}

#[test]
fn the_first_failure_is_followed_by_quick_probes_and_by_hedges_when_the_answer_is_late() {
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("pass");
    let plan = |story: &Story| story.engine.probe_plan(CheckId(0), story.now.monotonic);
    let (every, quick) = (5 * S, Duration::from_millis(100));
    assert_eq!((plan(&story).after, plan(&story).hedges), (every, 2), "a hang is confirmed by two more");
    story.tell("fail");
    assert_eq!((plan(&story).after, plan(&story).hedges), (quick, 1));
    story.tell("fail");
    assert_eq!((plan(&story).after, plan(&story).hedges), (quick, 0));
    story.tell("fail");
    assert_eq!(plan(&story).after, every, "nobody asks while the act is under way");
    story.tell("applied");
    assert!(plan(&story).after <= quick, "the verdict is awaited eagerly");
    story.end();
}

#[test]
fn a_value_step_waits_while_the_journal_fails_and_never_spins() {
    let mut spec = spec(&[]);
    spec.pipelines = vec![pipeline()];
    let mut story = Story::begin(&spec);
    assert_eq!(story.tell("run"), "run1:pipeline PAY?1 >PAY started(run-1)");
    assert_eq!(story.tell("full"), "degraded owe(degraded)");
    assert_eq!(story.tell("refused +1m"), "PAY=not-applied retry");
    let wake = story.engine.next_wake();
    assert!(wake.is_none_or(|wake| wake > story.now.monotonic), "it would be woken at {wake:?} for nothing");
    assert_eq!(story.tell("mended"), "recovered PAY?2 >PAY");
    story.end();
}

#[test]
fn a_start_after_a_crash_ends_the_degraded_mode_that_the_crash_cut_off() {
    let mut spec = spec(&[]);
    spec.pipelines = vec![pipeline()];
    check(
        &spec,
        "full | crash | run",
        "degraded owe(degraded) | started recovered | run1:pipeline PAY?1 >PAY started(run-1)",
    );
}

#[test]
fn an_unavailable_act_takes_no_other_services_heal_out_of_the_host_budget() {
    let mut story = Story::begin(&spec(&["db", "api"]));
    story.tell("dead(1)");
    let mut limited = spec(&["db", "api"]);
    limited.host_budget = Some(Budget { attempts: 1, per: 600 * S });
    story.reload(&limited);
    // The heal of `db` began before there was a host budget, so only that of `api` counts in it.
    story.tell("+1s api.dead(1) applied +1s api.pass");
    story.answer_first("unavailable");
    assert_eq!(story.tell("+10s dead(1)"), "hold#1(host budget) owe(will-not-heal)");
    story.end();
}

#[test]
fn times_finer_than_a_microsecond_are_cut_before_they_are_journalled() {
    let mut story = Story::begin(&spec(&["db"]));
    story.now.monotonic += Duration::from_nanos(1_234_567);
    let failure = lidless_core::check::CheckFailure {
        latency: Duration::from_nanos(777),
        ..lidless_core::check::CheckFailure::new(FailureKind::Status, "status 500").certain()
    };
    let outcome = CheckOutcome::Fail { latency: Duration::from_nanos(777), failure };
    story.feed(Input::Probed { check: CheckId(0), began: story.now.monotonic, outcome });
    // `end` reads the journal back from its text and compares.
    story.end();
}

#[test]
fn a_managed_service_is_brought_up_and_a_start_that_is_lost_is_repeated() {
    let mut spec = spec(&["db"]);
    spec.services[0].managed = true;
    let mut story = Story::begin(&Spec::default());
    assert_eq!(story.reload(&spec), "config run1:bring-up START?1 >START");
    assert_eq!(story.tell("unknown"), "START=unknown retry START?2 >START");
    assert_eq!(story.tell("applied +1s pass"), "START=applied VERIFY?1 db=up VERIFY=applied done");
    story.end();
}

#[test]
fn what_is_owed_stays_owed_until_it_is_taken() {
    check(
        &spec(&["db"]),
        "dead(42) | nottaken | +2s nottaken | crash | taken",
        "db=down open#1 hold#1(exit 42) owe(will-not-heal) | not-told | not-told | started | told",
    );
    assert_eq!(told(&spec(&["db"]), "dead(42) nottaken +2s nottaken crash taken"), 3);
}

#[test]
fn a_reload_is_an_act_like_a_restart_and_zero_backoff_still_waits_after_a_failed_heal() {
    let mut spec = spec(&["db"]);
    if let Some(heal) = &mut spec.services[0].heal {
        heal.action = Action::Reload;
        heal.backoff = Backoff { min: Duration::ZERO, max: S };
    }
    check(
        &spec,
        "dead(1) | applied | +1s dead(1) | +60s dead(1)",
        "db=down open#1 run1:heal RELOAD?1 >RELOAD | RELOAD=applied VERIFY?1 \
         | VERIFY=not-applied failed backoff | run2:heal RELOAD?1 >RELOAD",
    );
}

#[test]
fn a_question_that_is_never_answered_counts_as_asked() {
    check(
        &spec(&["db"]),
        "dead(1) | unknown | +15s | +30s",
        "db=down open#1 run1:heal RESTART?1 >RESTART | RESTART=unknown >confirm | RESTART~unsure >confirm \
         | RESTART~unsure >confirm RESTART~unsure left VERIFY?1",
    );
}

#[test]
fn a_message_that_nobody_answers_for_is_sent_again() {
    assert_eq!(told(&spec(&["db"]), "dead(42) +119s"), 1);
    assert_eq!(told(&spec(&["db"]), "dead(42) +123s"), 2);
}
