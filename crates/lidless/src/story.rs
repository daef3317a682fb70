//! What became of a run? Its story, told by templates over the journal's facts: nothing in it is guessed.

mod facts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::event::{Event, Verdict};
use lidless_core::id::RunId;
use lidless_core::pipeline::plan::{Plan, Purpose};
use lidless_core::time::Now;
use serde::Serialize;

use crate::api::EventLine;
use crate::words::span;

/// A run, as far as it is told.
#[derive(Clone, Debug)]
pub struct Story {
    /// Which one.
    pub run: RunId,
    /// Why it exists.
    pub purpose: Purpose,
    /// What it was given, as a JSON object; empty for nothing.
    pub inputs: Arc<str>,
    /// When it was created.
    pub created: Now,
    /// What happened, in order.
    pub facts: Vec<Fact>,
    /// By step of the plan.
    pub steps: Vec<StepStory>,
    /// How it ended, and when; none while it goes on.
    pub end: Option<(Verdict, Now)>,
    plan: Arc<Plan>,
    undoing: bool,
    /// When the attempt under way at each step began.
    began: BTreeMap<u32, Duration>,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// The record's position in the journal.
    pub seq: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The step that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// One line for people.
    pub text: String,
    /// What it means.
    pub tone: Tone,
}

/// What a fact means for the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// It goes on.
    Plain,
    /// Something is done.
    Good,
    /// Something failed.
    Bad,
    /// Nobody knows.
    Doubt,
    /// Somebody is waited for.
    Waits,
}

/// How one step of a run stands.
#[derive(Clone, Debug, Serialize)]
pub struct StepStory {
    /// Its name.
    pub name: String,
    /// The words of `lidless runs --json`.
    pub state: &'static str,
    /// Attempts begun.
    pub attempts: u32,
    /// From the first attempt to where it is settled, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// What it put out, or why it stands where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The step that it takes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
    #[serde(skip)]
    first: Option<Duration>,
}

/// Whether an event is of the story of a run; also that lidless started, which matters while the run goes on.
pub fn is_about(event: &Event, run: RunId) -> bool {
    match event {
        Event::RunCreated { purpose: Purpose::Step { of, .. }, .. } if *of == run => true,
        Event::Started { .. } => true,
        _ => event.run() == Some(run),
    }
}

impl Story {
    /// Begins a story with the creation of its run; none where this is something else.
    pub fn begin(line: &EventLine, wanted: RunId) -> Option<Story> {
        let Event::RunCreated { run, purpose, plan, inputs, key, from, .. } = &line.record.event else {
            return None;
        };
        if *run != wanted {
            return None;
        }
        let steps = plan.steps().iter().map(|step| StepStory {
            name: step.name.clone(),
            state: "idle",
            attempts: 0,
            took_ms: None,
            reason: None,
            undoes: step.undoes.and_then(|of| Some(plan.step(of)?.name.clone())),
            first: None,
        });
        let mut story = Story {
            run: *run,
            purpose: purpose.clone(),
            inputs: Arc::clone(inputs),
            created: line.record.at,
            facts: Vec::new(),
            steps: steps.collect(),
            end: None,
            plan: Arc::clone(plan),
            undoing: false,
            began: BTreeMap::new(),
        };
        let mut text = match purpose {
            Purpose::Pipeline { by, .. } | Purpose::Manual { by, .. } => format!("begun by {by}"),
            Purpose::BringUp { .. } => "begun to bring the service up".to_owned(),
            Purpose::Heal { incident, .. } => format!("begun to heal {incident}"),
            Purpose::Step { of, .. } => format!("begun for a step of {of}"),
        };
        if let Some(key) = key {
            text.push_str(&format!(", once for `{key}`"));
        }
        if let Some(from) = from {
            let name = story.name(*from).to_owned();
            text.push_str(&format!(", at {name}"));
            for step in &mut story.steps[..*from as usize] {
                (step.state, step.reason) = ("skipped", Some(format!("the run began at {name}")));
            }
        }
        story.tell(line, None, Tone::Plain, text);
        Some(story)
    }

    fn tell(&mut self, line: &EventLine, step: Option<u32>, tone: Tone, text: String) {
        let step = step.map(|step| self.name(step).to_owned());
        self.facts.push(Fact { seq: line.seq, time: line.time.clone(), step, text, tone });
    }

    fn name(&self, step: u32) -> &str {
        self.steps.get(step as usize).map_or("?", |step| step.name.as_str())
    }

    /// The pipeline that it runs.
    pub fn pipeline(&self) -> Option<&str> {
        self.purpose.pipeline()
    }

    /// One line: how it stands.
    pub fn headline(&self) -> String {
        let of = self.pipeline().map_or_else(String::new, |name| format!(" of {name}"));
        let stands = match &self.end {
            Some((verdict, at)) => {
                let took = span(at.monotonic.saturating_sub(self.created.monotonic));
                match verdict {
                    Verdict::Done => format!("done in {took}"),
                    Verdict::Failed { name, reason, .. } => {
                        format!("failed at {name} after {took}: {reason}")
                    }
                    Verdict::Undone { name, reason, .. } => {
                        format!("failed at {name}, and undone after {took}: {reason}")
                    }
                    Verdict::Cancelled { name, .. } => format!("cancelled before {name} after {took}"),
                }
            }
            None => match self.waits() {
                Some(step) => format!("{} at {}", words_of(step.state), step.name),
                None if self.undoing => "being undone".to_owned(),
                None => "under way".to_owned(),
            },
        };
        format!("{}{of}: {stands}", self.run)
    }

    fn waits(&self) -> Option<&StepStory> {
        let mut open = self.steps.iter();
        open.find(|step| matches!(step.state, "held" | "stuck" | "parked" | "approval" | "in_doubt"))
    }

    /// The steps that are still to be done.
    pub fn remains(&self) -> Vec<&str> {
        let over =
            matches!(self.end, Some((Verdict::Done | Verdict::Undone { .. } | Verdict::Cancelled { .. }, _)));
        let left =
            |step: &&StepStory| step.undoes.is_none() && !matches!(step.state, "done" | "skipped" | "undone");
        self.steps.iter().filter(|_| !over).filter(left).map(|step| step.name.as_str()).collect()
    }

    /// What can be typed next.
    pub fn next(&self) -> Vec<String> {
        let (run, Some(pipeline)) = (self.run, self.pipeline()) else { return Vec::new() };
        match &self.end {
            Some((Verdict::Done, _)) => Vec::new(),
            Some((Verdict::Failed { .. }, _)) if !self.undoing => vec![format!("lidless resume {run}")],
            Some(_) => vec![format!("lidless run {pipeline}")],
            None => match self.waits().map(|step| (step.state, step.name.as_str())) {
                Some(("held", step)) => vec![
                    format!("lidless resolve {run} {step} --applied --evidence 'how you know'"),
                    format!("lidless resolve {run} {step} --not-applied --evidence 'how you know'"),
                ],
                Some(("stuck", step)) => vec![
                    format!("lidless resume {run}"),
                    format!("lidless resolve {run} {step} --applied --evidence 'how you know'"),
                    format!("lidless cancel {run}"),
                ],
                Some(("approval", step)) => vec![format!("lidless approve {run} {step}")],
                Some(("parked", _)) => vec![format!("lidless resume {run}")],
                Some(_) | None => vec![format!("lidless runs {run}")],
            },
        }
    }
}

/// The word for a state, for people.
pub fn words_of(state: &str) -> &str {
    match state {
        "in_doubt" => "in doubt",
        "approval" => "waiting for a yes",
        "held" => "held",
        other => other,
    }
}
