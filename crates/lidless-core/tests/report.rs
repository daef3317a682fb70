//! Does the report say what happened, and no more than anybody saw? Each test is a script and its figures.

// Each test binary compiles the whole of it and uses a part.
#[allow(dead_code)]
mod script;

use std::time::Duration;

use script::{Story, spec};

const S: Duration = Duration::from_secs(1);

#[test]
fn downtime_begins_with_the_first_failure_and_ends_with_the_recovery() {
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("pass +10s fail +1s fail +1s fail applied +3s pass +20s");
    let sums = story.uptime(0);
    assert_eq!((sums.up, sums.down, sums.unmeasured), (30 * S, 5 * S, Duration::ZERO));
    assert_eq!((sums.incidents, sums.healed, sums.heals_failed), (1, 1, 0));
}

#[test]
fn time_in_which_the_machine_slept_is_neither_up_nor_down() {
    for (answers, up, down) in [("pass", 60, 0), ("dead(1) applied +1s dead(1)", 0, 61)] {
        let mut story = Story::begin(&spec(&["db"]));
        story.tell(answers);
        story.sleep(8 * 3_600 * S);
        let sums = story.uptime(0);
        assert_eq!((sums.up, sums.down), (up * S, down * S), "{answers}");
        assert_eq!(sums.unmeasured, (8 * 3_600 - 60) * S, "{answers}");
    }
}

#[test]
fn what_could_not_be_tried_or_judged_is_no_failed_heal() {
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("dead(1) unavailable +2s dead(1) unavailable +4s dead(1)");
    assert_eq!(story.uptime(0).heals_failed, 0);
    assert!(story.engine.state().incidents.values().all(|incident| incident.heals == 1), "the one under way");
    story.tell("unknown denied");
    assert_eq!(story.uptime(0).heals_failed, 0);
    story.tell("+7s dead(1) applied +9s maybe +9s");
    assert_eq!(story.uptime(0).heals_failed, 0);
    let mut story = Story::begin(&spec(&["db"]));
    story.tell("dead(1) applied +1s dead(1)");
    assert_eq!(story.uptime(0).heals_failed, 1);
}
