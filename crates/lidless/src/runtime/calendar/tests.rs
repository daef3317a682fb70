//! Does a calendar fire what has come, once, and catch up what was missed?

use super::*;

const HOUR: i64 = 3_600_000;
/// 2026-11-25, midnight in UTC.
const DAY: i64 = 1_795_564_800_000;

fn page(catch_up: CatchUp, last_ms: i64) -> Page {
    let cron = Cron { expression: "0 * * * *".to_owned(), zone: "UTC".to_owned(), catch_up };
    Page { pipeline: "vault".to_owned(), last_ms, unfinished: 0, at_once: 1, crons: vec![cron] }
}

/// Looks once, and writes down what is ordered; the page goes on as the journal would have it.
fn look(calendar: &mut Calendar, page: &mut Page, now_ms: i64) -> String {
    let orders = calendar.due(std::slice::from_ref(page), now_ms);
    let shown = orders.iter().map(|Order { at_ms, what, .. }| {
        page.last_ms = page.last_ms.max(*at_ms);
        let at = (at_ms - DAY) / HOUR;
        match what {
            What::Run { by } => {
                assert_eq!(by, "cron 0 * * * *");
                format!("run {at}")
            }
            What::Miss { count, .. } => format!("miss {count} to {at}"),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[test]
fn what_was_missed_is_caught_up_as_it_says() {
    let at = DAY + 5 * HOUR;
    for (catch_up, now, wanted) in [
        (CatchUp::None, at, "miss 4 to 4, run 5"),
        (CatchUp::None, at + LATE_MS, "miss 4 to 4, run 5"),
        (CatchUp::None, at + LATE_MS + 1, "miss 5 to 5"),
        (CatchUp::One, at + LATE_MS + 1, "miss 4 to 4, run 5"),
        (CatchUp::One, at, "miss 3 to 3, run 4, run 5"),
        (CatchUp::All, at + 9_000_000 / 100, "run 1, run 2, run 3, run 4, run 5"),
        (CatchUp::All, at - 1, "run 1, run 2, run 3, run 4"),
    ] {
        let (mut calendar, mut page) = (Calendar::default(), page(catch_up, DAY));
        assert_eq!(look(&mut calendar, &mut page, now), wanted, "{catch_up:?} at {now}");
        assert_eq!(look(&mut calendar, &mut page, now), "", "nothing twice");
        assert_eq!(calendar.next(&[page], now), Some((now / HOUR + 1) * HOUR));
    }
}

#[test]
fn far_too_many_are_not_all_caught_up_and_come_in_portions() {
    let (mut calendar, mut page) = (Calendar::default(), page(CatchUp::All, DAY - 2_000 * HOUR));
    let first = look(&mut calendar, &mut page, DAY + LATE_MS);
    assert!(first.starts_with("miss 999 to -1001, run -1000, run -999"), "{first}");
    let (mut runs, mut portions) = (0, 0);
    page.last_ms = DAY - 2_000 * HOUR;
    loop {
        let more = look(&mut calendar, &mut page, DAY + 2 * LATE_MS);
        if more.is_empty() {
            break;
        }
        (runs, portions) = (runs + more.matches("run").count(), portions + 1);
    }
    assert_eq!((runs, portions), (1_000, 11));
}

#[test]
fn a_clock_set_back_brings_nothing_twice_and_is_not_silent_for_years() {
    let (mut calendar, mut page) = (Calendar::default(), page(CatchUp::All, DAY));
    assert_eq!(look(&mut calendar, &mut page, DAY + HOUR), "run 1");
    assert_eq!(look(&mut calendar, &mut page, DAY + HOUR - 1), "");
    assert_eq!(look(&mut calendar, &mut page, DAY + HOUR), "");
    assert_eq!(look(&mut calendar, &mut page, DAY + 2 * HOUR), "run 2");
    // It was years ahead, and is right now.
    page.last_ms = DAY + 90_000 * HOUR;
    assert_eq!(look(&mut calendar, &mut page, DAY + 3 * HOUR), "");
    assert_eq!(look(&mut calendar, &mut page, DAY + 4 * HOUR), "run 4");
    assert_eq!(look(&mut calendar, &mut page, DAY + 4 * HOUR), "");
    assert_eq!(look(&mut calendar, &mut page, DAY + 5 * HOUR), "run 5");
}

#[test]
fn runs_do_not_pile_up_behind_one_that_takes_long() {
    let (mut calendar, mut slow) = (Calendar::default(), page(CatchUp::None, DAY));
    slow.unfinished = 1;
    assert_eq!(look(&mut calendar, &mut slow, DAY + HOUR), "run 1");
    slow.unfinished = 2;
    assert_eq!(look(&mut calendar, &mut slow, DAY + 2 * HOUR), "miss 1 to 2");
    let mut all = page(CatchUp::All, DAY);
    all.unfinished = 2;
    assert_eq!(look(&mut calendar, &mut all, DAY + HOUR), "run 1");
}

#[test]
fn two_expressions_for_one_moment_are_one_run() {
    let mut both = page(CatchUp::None, DAY);
    both.crons.push(Cron { expression: "0 */2 * * *".to_owned(), ..both.crons[0].clone() });
    both.crons[1].catch_up = CatchUp::All;
    let orders = Calendar::default().due(&[both], DAY + 4 * HOUR + 2 * LATE_MS);
    let runs = orders.iter().filter(|order| matches!(order.what, What::Run { .. }));
    assert_eq!(runs.map(|order| (order.at_ms - DAY) / HOUR).collect::<Vec<_>>(), [2, 4]);
}
