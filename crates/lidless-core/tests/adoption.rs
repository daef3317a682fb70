//! What becomes of an attempt that outlives lidless? It is asked for its own answer, once, whatever its class.

// Each test binary compiles the whole of it and uses a part.
#[allow(dead_code)]
mod script;

use lidless_core::pipeline::plan::Class;
use lidless_core::spec::Spec;

use script::{Story, row, spec, three_steps};

const CLASSES: [Class; 4] = [Class::Pure, Class::Idempotent, Class::Confirmable, Class::OneShot];

/// A pipeline whose second step, of this class and with one attempt, outlives lidless.
fn vault(class: Class) -> Spec {
    let mut steps = three_steps(class).plan.steps().to_vec();
    (steps[1].adoptable, steps[1].attempts_max) = (true, 1);
    Spec { pipelines: vec![row("pay", steps)], ..spec(&["db"]) }
}

fn crashed(class: Class) -> Story {
    let mut story = Story::begin(&vault(class));
    story.tell("pass run");
    assert_eq!(
        story.tell("crash"),
        "started PAY=unknown >confirm",
        "{class:?}: nothing is decided before it is asked"
    );
    story
}

#[test]
fn an_attempt_that_went_on_is_counted_as_it_ended_whatever_its_class() {
    for class in CLASSES {
        let mut story = crashed(class);
        assert_eq!(story.tell("confirmed"), "PAY~applied TELL?1 >TELL", "{class:?}");
        story.end();
    }
}

#[test]
fn its_own_failure_is_one_like_any_other() {
    for class in CLASSES {
        for word in ["failed", "failed(1)"] {
            let mut story = crashed(class);
            assert_eq!(story.tell(word), "PAY~failed failed", "{class:?}: it had one attempt");
            story.end();
        }
    }
}

#[test]
fn a_failure_for_good_is_not_tried_again_and_another_is() {
    for (word, then) in [("failed", "PAY~failed failed"), ("failed(1)", "PAY~failed retry PAY?2 >PAY")] {
        let mut spec = vault(Class::OneShot);
        let mut steps = spec.pipelines[0].plan.steps().to_vec();
        (steps[1].attempts_max, steps[1].backoff.min, steps[1].backoff.max) =
            (2, Default::default(), Default::default());
        spec.pipelines[0] = row("pay", steps);
        let mut story = Story::begin(&spec);
        story.tell("pass run");
        story.tell("crash");
        assert_eq!(story.tell(word), then);
        story.end();
    }
}

#[test]
fn where_nothing_is_left_of_it_its_class_decides() {
    for (class, then) in [
        (Class::Pure, "PAY~unsure retry PAY?2 >PAY"),
        (Class::Idempotent, "PAY~unsure retry PAY?2 >PAY"),
        (Class::Confirmable, "PAY~unsure"),
        (Class::OneShot, "PAY~unsure held owe(run-held)"),
    ] {
        let mut story = crashed(class);
        assert_eq!(story.tell("unsure"), then, "{class:?}");
        story.end();
    }
}

#[test]
fn a_second_crash_asks_again() {
    for class in CLASSES {
        let mut story = crashed(class);
        assert_eq!(story.tell("crash"), "started >confirm", "{class:?}");
        assert_eq!(story.tell("confirmed"), "PAY~applied TELL?1 >TELL", "{class:?}");
        story.end();
    }
}

#[test]
fn a_question_that_nobody_answers_ends_too() {
    let mut story = crashed(Class::OneShot);
    assert_eq!(story.tell("+2m"), "PAY~unsure held owe(run-held)");
    story.end();
}

#[test]
fn a_cancelled_run_waits_for_what_went_on() {
    for class in CLASSES {
        let mut story = Story::begin(&vault(class));
        story.tell("pass run cancel");
        assert_eq!(story.tell("crash"), "started PAY=unknown >confirm", "{class:?}");
        assert_eq!(story.tell("confirmed"), "PAY~applied cancelled(TELL)", "{class:?}");
        story.end();
    }
}
