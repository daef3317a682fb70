//! What does an event add to the story of a run?

use std::time::Duration;

use lidless_core::event::{Confirmation, Event, Outcome, Verdict};
use lidless_core::pipeline::plan::Purpose;

use super::{Story, Tone, is_about};
use crate::api::EventLine;
use crate::words::{self, span};

impl Story {
    /// Takes the next event; those of others, and those after its end, are not its own.
    pub fn take(&mut self, line: &EventLine) {
        let at = line.record.at.monotonic;
        if !is_about(&line.record.event, self.run) {
            return;
        }
        match &line.record.event {
            Event::Started { version, .. } if self.end.is_none() => {
                self.tell(line, None, Tone::Plain, format!("lidless {version} started again"));
            }
            Event::RunCreated { run, purpose: Purpose::Step { step, .. }, .. } if *run != self.run => {
                let text = format!("{run} acts for {}: lidless explain {run}", self.name(*step));
                self.tell(line, Some(*step), Tone::Plain, text);
            }
            Event::StepIntent { step, attempt, .. } => {
                let (name, max) =
                    (self.name(*step), self.plan.step(*step).map_or(1, |spec| spec.attempts_max));
                let text = match self.steps.get(*step as usize).and_then(|step| step.undoes.as_deref()) {
                    Some(undone) => format!("{name} takes {undone} back"),
                    None if *attempt == 1 => format!("{name} begins"),
                    None if *attempt <= max => format!("{name} begins again: attempt {attempt} of {max}"),
                    None => format!("{name} begins again: attempt {attempt}"),
                };
                self.began.insert(*step, at);
                if let Some(state) = self.steps.get_mut(*step as usize) {
                    (state.state, state.attempts) = ("running", *attempt);
                    state.first = state.first.or(Some(at));
                }
                self.tell(line, Some(*step), Tone::Plain, text);
            }
            Event::StepHandle { step, handle, .. } => {
                let text = format!("{} is about to let out {handle}", self.name(*step));
                self.tell(line, Some(*step), Tone::Plain, text);
            }
            Event::StepOutcome { step, outcome, .. } => self.outcome(line, *step, outcome),
            Event::StepConfirmed { step, answer, .. } => self.confirmed(line, *step, answer),
            Event::StepRetry { step, not_before, .. } => {
                self.stand(*step, "waiting", None, at);
                let wait = not_before.saturating_sub(at);
                let when = if wait.is_zero() { "at once".to_owned() } else { format!("in {}", span(wait)) };
                let text = format!("{} is tried again {when}", self.name(*step));
                self.tell(line, Some(*step), Tone::Plain, text);
            }
            Event::StepLeftToVerify { step, .. } => {
                self.stand(*step, "done", None, at);
                let text = format!("nobody knows what {} did: the checks will tell", self.name(*step));
                self.tell(line, Some(*step), Tone::Doubt, text);
            }
            Event::StepHeld { step, reason, .. } => {
                self.stand(*step, "held", Some(reason), at);
                let text = format!("{} is held until a person finds out: {reason}", self.name(*step));
                self.tell(line, Some(*step), Tone::Waits, text);
            }
            Event::StepStuck { step, reason, .. } => {
                self.stand(*step, "stuck", Some(reason), at);
                let text = format!("{} is stuck until a person helps: {reason}", self.name(*step));
                self.tell(line, Some(*step), Tone::Waits, text);
            }
            Event::StepFailed { step, reason, .. } => {
                self.stand(*step, "failed", Some(reason), at);
                let text = format!("{} is given up: {reason}", self.name(*step));
                self.tell(line, Some(*step), Tone::Bad, text);
            }
            Event::StepSkipped { step, reason, .. } => {
                self.stand(*step, "skipped", Some(reason), at);
                let text = format!("{} is skipped: {reason}", self.name(*step));
                self.tell(line, Some(*step), Tone::Plain, text);
            }
            Event::StepAwaits { step, until, .. } => {
                self.stand(*step, "approval", None, at);
                let time = span(until.saturating_sub(at));
                let text = format!("{} waits for a person's yes, for {time}", self.name(*step));
                self.tell(line, Some(*step), Tone::Waits, text);
            }
            Event::StepApproved { step, by, .. } => {
                self.stand(*step, "idle", None, at);
                let text = format!("{by} said yes to {}", self.name(*step));
                self.tell(line, Some(*step), Tone::Good, text);
            }
            Event::StepResolved { step, applied, evidence, by, .. } => {
                let (state, what, tone) = if *applied {
                    ("done", "was done", Tone::Good)
                } else {
                    ("failed", "had no effect", Tone::Bad)
                };
                let text = format!("{by} says that {} {what}: {evidence}", self.name(*step));
                self.stand(*step, state, Some(&text.clone()), at);
                self.tell(line, Some(*step), tone, text);
            }
            Event::CancelAsked { by, .. } => {
                self.tell(line, None, Tone::Waits, format!("{by} cancels it: no further step begins"));
            }
            Event::RunTurned { step, reason, undo, .. } => self.turned(line, *step, reason.as_deref(), *undo),
            Event::RunResumed { by, .. } => {
                self.end = None;
                for step in &mut self.steps {
                    if matches!(step.state, "failed" | "waiting" | "stuck" | "parked") {
                        (step.state, step.reason) = ("idle", None);
                    }
                }
                self.tell(line, None, Tone::Plain, format!("{by} lets it go on"));
            }
            Event::RunFinished { verdict, .. } => {
                let (tone, text) = match verdict {
                    Verdict::Done => (Tone::Good, "every step is done".to_owned()),
                    Verdict::Failed { name, .. } => (Tone::Bad, format!("it failed at {name}")),
                    Verdict::Undone { name, .. } => {
                        (Tone::Bad, format!("what was done before {name} is undone"))
                    }
                    Verdict::Cancelled { name, .. } => (Tone::Bad, format!("it was cancelled before {name}")),
                };
                self.end = Some((verdict.clone(), line.record.at));
                self.tell(line, None, tone, text);
            }
            _ => {}
        }
    }

    fn outcome(&mut self, line: &EventLine, step: u32, outcome: &Outcome) {
        let (at, name) = (line.record.at.monotonic, self.name(step).to_owned());
        let (state, tone, reason) = match outcome {
            Outcome::Applied { output } | Outcome::Found { output } => {
                ("done", Tone::Good, words::output_text(output))
            }
            Outcome::NotApplied { reason }
            | Outcome::Refused { reason }
            | Outcome::Unavailable { reason } => ("failed", Tone::Bad, reason.clone()),
            Outcome::Missing { reason } => ("parked", Tone::Waits, reason.clone()),
            Outcome::Unknown { reason } => ("in_doubt", Tone::Doubt, reason.clone()),
        };
        let took = self.began.get(&step).map_or_else(String::new, |began| {
            let took = at.saturating_sub(*began);
            format!(", after {}", span(took))
        });
        let text = match outcome {
            Outcome::Applied { .. } | Outcome::Found { .. } if matches!(reason.as_str(), "" | "done") => {
                format!("{name} is done{took}")
            }
            Outcome::Applied { .. } | Outcome::Found { .. } => format!("{name} is done{took}: {reason}"),
            Outcome::NotApplied { .. } => format!("{name} failed{took}, without effect: {reason}"),
            Outcome::Refused { .. } => format!("{name} failed{took}, and would fail again: {reason}"),
            Outcome::Unavailable { .. } => format!("{name} could not be tried: {reason}"),
            Outcome::Missing { .. } => format!("{name} is parked, for nothing here can do it: {reason}"),
            Outcome::Unknown { .. } => format!("nobody knows whether {name} took effect: {reason}"),
        };
        self.stand(step, state, Some(&reason), at);
        self.tell(line, Some(step), tone, text);
    }

    fn confirmed(&mut self, line: &EventLine, step: u32, answer: &Confirmation) {
        let (at, name) = (line.record.at.monotonic, self.name(step).to_owned());
        let (tone, text) = match answer {
            Confirmation::Applied { evidence, .. } => {
                self.stand(step, "done", Some(evidence), at);
                (Tone::Good, format!("asked whether {name} took effect: it did ({evidence})"))
            }
            Confirmation::NotApplied { evidence } => {
                self.stand(step, "failed", Some(evidence), at);
                (Tone::Plain, format!("asked whether {name} took effect: it did not ({evidence})"))
            }
            Confirmation::Failed { reason, .. } => {
                self.stand(step, "failed", Some(reason), at);
                (Tone::Plain, format!("asked what became of {name}: it failed ({reason})"))
            }
            Confirmation::StillUnknown { reason, .. } => {
                self.stand(step, "in_doubt", Some(reason), at);
                (Tone::Doubt, format!("asked whether {name} took effect: nobody knows yet ({reason})"))
            }
        };
        self.tell(line, Some(step), tone, text);
    }

    fn turned(&mut self, line: &EventLine, step: u32, reason: Option<&str>, undo: bool) {
        self.undoing = undo;
        for step in &mut self.steps {
            if matches!(step.state, "approval" | "parked" | "waiting") {
                step.state = "idle";
            }
        }
        let why = match reason {
            Some(_) => format!("since {} failed", self.name(step)),
            None => "as it was cancelled".to_owned(),
        };
        let text = if undo {
            format!("{why}, what was done is taken back")
        } else {
            format!("{why}, nothing more begins")
        };
        self.tell(line, Some(step), Tone::Plain, text);
    }

    fn stand(&mut self, step: u32, state: &'static str, reason: Option<&str>, at: Duration) {
        let Some(stands) = self.steps.get_mut(step as usize) else { return };
        (stands.state, stands.reason) =
            (state, reason.filter(|reason| !reason.is_empty()).map(str::to_owned));
        if matches!(state, "done" | "failed" | "held" | "stuck") {
            let took = stands.first.map(|first| at.saturating_sub(first).as_millis());
            stands.took_ms = took.map(|took| u64::try_from(took).unwrap_or(u64::MAX));
        }
        if state == "done"
            && let Some(undone) = stands.undoes.clone()
            && let Some(other) = self.steps.iter_mut().find(|other| other.name == undone)
        {
            other.state = "undone";
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lidless_core::event::Record;
    use lidless_core::id::{RunId, Seq};
    use lidless_core::pipeline::plan::{Plan, StepCall, StepSpec};
    use lidless_core::time::Now;

    use super::*;
    use crate::words::Told;

    const RUN: RunId = RunId(7);

    /// The story of a run of PAY, TELL, and PAY's way back.
    fn story(events: impl IntoIterator<Item = Event>) -> Story {
        let step = |name: &str, undoes| StepSpec {
            name: name.to_owned(),
            call: StepCall::External { kind: "exec".to_owned(), settings: Arc::from("{}") },
            attempts_max: 3,
            undoes,
            ..StepSpec::default()
        };
        let plan = Plan::new(vec![step("PAY", None), step("TELL", None), step("REFUND", Some(0))]);
        let created = Event::RunCreated {
            run: RUN,
            purpose: Purpose::Pipeline { name: "vault".to_owned(), by: "cron 0 4 * * *".to_owned() },
            plan: Arc::new(plan.expect("it is sound")),
            inputs: Arc::from("{\"amount\":5}"),
            key: Some(Arc::from("vault/monday")),
            due: None,
            from: None,
        };
        let lines = std::iter::once(created).chain(events).zip(1..).map(|(event, seq)| {
            let at = Now { monotonic: Duration::from_secs(seq), wall_ms: 0 };
            let record = Record { seq: Seq(seq), at, event };
            EventLine::from(Told { record, service: None, check: None, text: String::new() })
        });
        let lines: Vec<EventLine> = lines.collect();
        let mut story = Story::begin(&lines[0], RUN).expect("it begins with its creation");
        lines[1..].iter().for_each(|line| story.take(line));
        story
    }

    fn texts(story: &Story) -> Vec<&str> {
        story.facts.iter().map(|fact| fact.text.as_str()).collect()
    }

    fn intent(step: u32, attempt: u32) -> Event {
        Event::StepIntent { run: RUN, step, attempt, deadline: Duration::from_secs(60) }
    }

    fn outcome(step: u32, outcome: Outcome) -> Event {
        Event::StepOutcome { run: RUN, step, attempt: 1, outcome }
    }

    #[test]
    fn a_doubt_and_who_ended_it_are_told() {
        let until = Duration::from_secs(62);
        let (by, reason) = ("uid 0".to_owned(), "killed".to_owned());
        let mut events = vec![
            Event::StepAwaits { run: RUN, step: 0, until },
            Event::StepApproved { run: RUN, step: 0, by: by.clone() },
            intent(0, 1),
            outcome(0, Outcome::Unknown { reason: reason.clone() }),
            Event::StepHeld { run: RUN, step: 0, reason },
        ];
        let held = story(events.clone());
        assert_eq!(held.headline(), "run-7 of vault: held at PAY");
        assert_eq!(held.next().len(), 2);
        assert!(held.next()[0].starts_with("lidless resolve run-7 PAY --applied"), "{:?}", held.next());
        assert_eq!(held.remains(), ["PAY", "TELL"]);
        let waits = story(events[..1].to_vec());
        assert_eq!(waits.next(), ["lidless approve run-7 PAY"]);
        let evidence = "seen".to_owned();
        events.push(Event::StepResolved { run: RUN, step: 0, applied: true, evidence, by });
        let resolved = story(events);
        assert_eq!(
            texts(&resolved),
            [
                "begun by cron 0 4 * * *, once for `vault/monday`",
                "PAY waits for a person's yes, for 1 min",
                "uid 0 said yes to PAY",
                "PAY begins",
                "nobody knows whether PAY took effect: killed",
                "PAY is held until a person finds out: killed",
                "uid 0 says that PAY was done: seen",
            ]
        );
        assert_eq!(
            (resolved.remains(), resolved.next()),
            (vec!["TELL"], vec!["lidless runs run-7".to_owned()])
        );
    }

    #[test]
    fn a_way_back_is_told_and_ends_with_a_new_beginning() {
        let reason = "no".to_owned();
        let undone = story([
            intent(0, 1),
            outcome(0, Outcome::Applied { output: "{\"amount\":5}".to_owned() }),
            intent(1, 1),
            outcome(1, Outcome::NotApplied { reason: reason.clone() }),
            Event::StepRetry { run: RUN, step: 1, not_before: Duration::from_secs(8) },
            intent(1, 2),
            outcome(1, Outcome::Refused { reason: reason.clone() }),
            Event::RunTurned { run: RUN, step: 1, reason: Some(reason.clone()), undo: true },
            intent(2, 1),
            outcome(2, Outcome::Applied { output: String::new() }),
            Event::RunFinished {
                run: RUN,
                verdict: Verdict::Undone { step: 1, name: "TELL".to_owned(), reason },
            },
        ]);
        assert_eq!(
            texts(&undone)[1..],
            [
                "PAY begins",
                "PAY is done, after 1.0 s: amount=5",
                "TELL begins",
                "TELL failed, after 1.0 s, without effect: no",
                "TELL is tried again in 2.0 s",
                "TELL begins again: attempt 2 of 3",
                "TELL failed, after 1.0 s, and would fail again: no",
                "since TELL failed, what was done is taken back",
                "REFUND takes PAY back",
                "REFUND is done, after 1.0 s",
                "what was done before TELL is undone",
            ]
        );
        let states: Vec<_> =
            undone.steps.iter().map(|step| (step.state, step.attempts, step.took_ms)).collect();
        assert_eq!(
            states,
            [("undone", 1, Some(1_000)), ("failed", 2, Some(4_000)), ("done", 1, Some(1_000))]
        );
        assert_eq!((undone.remains(), undone.next()), (vec![], vec!["lidless run vault".to_owned()]));
        assert_eq!(undone.headline(), "run-7 of vault: failed at TELL, and undone after 11 s: no");
    }
}
