//! How does a run turn round, and how does it end? What was applied is taken back in reverse, unless there is no way back.

use crate::event::{Event, Notice, Verdict};
use crate::id::RunId;
use crate::pipeline::drive;
use crate::pipeline::run::{Phase, Run};
use crate::turning::Turning;

/// Gives a step up that had no effect, or one that does no harm. Whoever calls takes the run on.
pub(crate) fn give_up(t: &mut Turning<'_>, id: RunId, step: u32, reason: String) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let Some(spec) = run.spec(step) else { return };
    if run.purpose.pipeline().is_none() {
        return finish(t, id, step, Some(reason));
    }
    if spec.undoes.is_some() {
        return stuck(t, id, step, reason);
    }
    let failed = matches!(run.phase(step), Phase::Failed { .. });
    let stuck = |step: &u32| matches!(run.phase(*step), Phase::Stuck { .. });
    let others = run.open.iter().any(|open| *open != step && !stuck(open))
        || run.waits_to_tell().is_some_and(|waits| waits != step);
    let turned = run.turned.is_some();
    if !failed {
        t.emit(Event::StepFailed { run: id, step, reason: reason.clone() });
    }
    match (turned, others) {
        (true, _) => {}
        // What is under way beside it is settled first.
        (false, true) => t.emit(Event::RunTurned { run: id, step, reason: Some(reason), undo: false }),
        (false, false) => decide(t, id, step, Some(reason)),
    }
}

/// Takes a run on that goes forward no more; false while it must wait for something, or is over.
pub(crate) fn turn(t: &mut Turning<'_>, id: RunId) -> bool {
    let Some(run) = t.state.runs.get(&id) else { return false };
    let turned = run.turned.as_ref().map(|turned| (turned.step, turned.reason.clone(), turned.undoing));
    if let Some(step) = run.waits_to_tell().filter(|_| run.goes_nowhere()) {
        let before = t.state.seq;
        drive::again(t, id, step);
        return t.state.seq != before;
    }
    match turned {
        None => {
            if !run.open.iter().all(|step| run.can_be_left(*step)) {
                return false;
            }
            let Some(step) = first_unsettled(run) else { return false };
            if !run.open.is_empty() {
                t.emit(Event::RunTurned { run: id, step, reason: None, undo: false });
                return true;
            }
            decide(t, id, step, None);
            true
        }
        Some((step, reason, false)) => {
            if !run.open.iter().all(|step| run.can_be_left(*step)) {
                return false;
            }
            decide(t, id, step, reason);
            true
        }
        Some((step, reason, true)) => match run.next_undo() {
            None => {
                finish(t, id, step, reason);
                false
            }
            Some(undo) if run.open.contains(&undo) => false,
            Some(undo) => {
                let before = t.state.seq;
                drive::begin(t, id, undo);
                let waits = t.state.runs.get(&id).is_none_or(|run| run.open.contains(&undo));
                t.state.seq != before && !waits
            }
        },
    }
}

/// Decides what becomes of a run in which nothing is under way any more, and which goes forward no more.
fn decide(t: &mut Turning<'_>, id: RunId, step: u32, reason: Option<String>) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (something, pivot) = run.way_back();
    let pivot = pivot.and_then(|pivot| Some(run.spec(pivot)?.name.clone()));
    match (something, pivot, reason) {
        (true, None, reason) => t.emit(Event::RunTurned { run: id, step, reason, undo: true }),
        // Invariant: after a step that cannot be taken back there is only the way forward, or a person.
        (true, Some(pivot), Some(reason)) if !run.cancelled => {
            stuck(t, id, step, format!("{reason}; there is no way back: {pivot} cannot be undone"));
        }
        (true, Some(_), None) | (false, _, None) => finish(t, id, step, None),
        (true, Some(_), Some(reason)) | (false, _, Some(reason)) => finish(t, id, step, Some(reason)),
    }
}

fn stuck(t: &mut Turning<'_>, id: RunId, step: u32, reason: String) {
    let Some(name) = t.state.runs.get(&id).and_then(|run| Some(run.spec(step)?.name.clone())) else { return };
    t.emit(Event::StepStuck { run: id, step, reason: reason.clone() });
    t.owe(Notice::RunHeld { run: id, step: name, reason });
}

/// Ends a run that did not do everything.
fn finish(t: &mut Turning<'_>, id: RunId, step: u32, reason: Option<String>) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let name = run.spec(step).map_or_else(String::new, |step| step.name.clone());
    let undoing = run.turned.as_ref().is_some_and(|turned| turned.undoing);
    let kept = if undoing { not_taken_back(run) } else { Vec::new() };
    let verdict = match reason {
        Some(reason) if undoing && kept.is_empty() => Verdict::Undone { step, name, reason },
        Some(reason) if kept.is_empty() => Verdict::Failed { step, name, reason },
        Some(reason) => {
            let reason = format!("{reason}; not undone: {}", kept.join(", "));
            Verdict::Failed { step, name, reason }
        }
        None => Verdict::Cancelled { step, name },
    };
    t.emit(Event::RunFinished { run: id, verdict });
}

fn not_taken_back(run: &Run) -> Vec<&str> {
    let steps = run.plan.forward().iter().enumerate().filter(|(index, _)| {
        let index = u32::try_from(*index).unwrap_or(u32::MAX);
        run.plan.undone_by(index).is_some() && matches!(run.phase(index), Phase::Applied)
    });
    steps.map(|(_, spec)| spec.name.as_str()).collect()
}

fn first_unsettled(run: &Run) -> Option<u32> {
    let steps = 0..u32::try_from(run.plan.forward().len()).unwrap_or(u32::MAX);
    steps.into_iter().find(|step| !run.phase(*step).is_settled())
}
