//! How is a story told to the engine? Words go in, short words for events and effects come out.
//!
//! Words: `pass`, `fail`, `dead(EXIT)`, `maybe` answer for the first check of the first service, `api.pass` and
//! `db/1.fail` for others; `applied`, `refused`, `unavailable`, `unknown` answer the last act; `confirmed`, `denied`,
//! `unsure` the last question; `taken`, `nottaken` every message on its way; `+5s` lets time go by; `crash`, `reboot`,
//! `full`, `mended`, `restart`, `force`, `run`, `resume`, `cancel`, `yes`, `nay`, `was-done`, `was-not-done`, `wall(SECONDS)`
//! happen; `queue(N)` asks for a run of the Nth pipeline that waits its turn. `PAY:applied` answers for one step of several.
//! `|` goes from the script to the expectation.

mod specs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};
use lidless_core::effect::{Command, Effect, Input, Refusal, Reply, Turn};
use lidless_core::engine::Engine;
use lidless_core::event::{Because, Confirmation, Event, Notice, Outcome, Record, Verdict};
use lidless_core::health::Health;
use lidless_core::id::{CheckId, RunId, ServiceId};
use lidless_core::pipeline::plan::{Plan, Purpose};
use lidless_core::report::{Report, Uptime};
use lidless_core::spec::Spec;
use lidless_core::time::Now;

// Each test binary compiles the whole of it and uses a part.
#[allow(unused_imports)]
pub(crate) use specs::{external, pipeline, row, second_check, spec, step, three_steps};

const S: Duration = Duration::from_secs(1);

/// Tells a script to a fresh engine and compares what it leads to; then replays the journal from its text.
pub(crate) fn check(spec: &Spec, script: &str, expected: &str) {
    let mut story = Story::begin(spec);
    let found: Vec<_> = script.split('|').map(|part| story.tell(part)).collect();
    let wanted: Vec<_> =
        expected.split('|').map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(found.join(" | "), wanted.join(" | "), "{script}");
    story.end();
}

/// Tells a script and returns how often a message was handed out.
pub(crate) fn told(spec: &Spec, script: &str) -> usize {
    let mut story = Story::begin(spec);
    story.tell(script);
    story.deliveries
}

/// One engine, its journal, and what it waits for.
pub(crate) struct Story {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
    journal: Vec<Record>,
    spec: Arc<Spec>,
    steps: BTreeMap<RunId, Arc<Plan>>,
    performing: Vec<(RunId, u32, u32)>,
    confirming: Vec<(RunId, u32, u32)>,
    weighing: Vec<(RunId, u32)>,
    delivering: Vec<lidless_core::id::NoticeId>,
    deliveries: usize,
    boots: usize,
    said: Vec<String>,
}

impl Story {
    pub(crate) fn begin(spec: &Spec) -> Story {
        let mut story = Story {
            engine: Engine::new(7),
            now: Now { monotonic: S, wall_ms: 1_800_000_000_000 },
            journal: Vec::new(),
            spec: Arc::new(spec.clone()),
            steps: BTreeMap::new(),
            performing: Vec::new(),
            confirming: Vec::new(),
            weighing: Vec::new(),
            delivering: Vec::new(),
            deliveries: 0,
            boots: 0,
            said: Vec::new(),
        };
        story.start();
        story.said.clear();
        story
    }

    /// Tells a part of a script; returns what it led to.
    pub(crate) fn tell(&mut self, script: &str) -> String {
        for word in script.split_whitespace() {
            self.word(word);
        }
        std::mem::take(&mut self.said).join(" ")
    }

    pub(crate) fn reload(&mut self, spec: &Spec) -> String {
        self.spec = Arc::new(spec.clone());
        self.feed(Input::ConfigLoaded(Arc::clone(&self.spec)));
        self.tell("")
    }

    /// What a report makes of the journal so far, as of now.
    pub(crate) fn uptime(&self, service: u32) -> Uptime {
        let mut report = Report::default();
        for record in &self.journal {
            report.apply(record).expect("the engine's own events are legal");
        }
        report.uptime(ServiceId(service), self.now)
    }

    /// Lets time go by while lidless is stopped or the machine sleeps.
    pub(crate) fn sleep(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.feed(Input::Tick);
    }

    /// Answers the open question with "I don't know", and when to ask again.
    pub(crate) fn still_unknown(&mut self, retry_after: Duration) {
        let reason = "as told".to_owned();
        self.confirmed(Confirmation::StillUnknown { reason, retry_after });
        self.said.clear();
    }

    /// Forgets what was journalled after the last such event.
    pub(crate) fn cut_after(&mut self, last: impl Fn(&Event) -> bool) {
        let at = self.journal.iter().rposition(|record| last(&record.event)).expect("there is one");
        self.journal.truncate(at + 1);
    }

    /// Answers the act that waits longest.
    pub(crate) fn answer_first(&mut self, word: &str) {
        let first = self.performing.remove(0);
        self.performing.push(first);
        self.tell(word);
    }

    /// Reads the journal back from its text, and expects the same state.
    pub(crate) fn end(self) {
        let mut again = Engine::new(7);
        for record in &self.journal {
            let text = serde_json::to_string(record).expect("records are JSON");
            let back: Record = serde_json::from_str(&text).expect("records read back");
            again.apply(&back).expect("the engine's own events are legal");
        }
        assert_eq!(again.state(), self.engine.state(), "the journal, replayed, is the state");
    }

    pub(crate) fn feed(&mut self, input: Input) {
        let Turn { events, effects, reply } = self.engine.handle(self.now, input);
        for record in &events {
            let text = self.event(&record.event);
            self.said.extend(text);
        }
        self.journal.extend(events);
        for effect in effects {
            self.effect(effect);
        }
        self.said.extend(reply.map(|reply| match reply {
            Reply::Started(run) => format!("started({run})"),
            Reply::Noted => "noted".to_owned(),
            Reply::Refused(Refusal::Busy(run)) => format!("busy({run})"),
            Reply::Refused(Refusal::BudgetSpent { .. }) => "budget-spent".to_owned(),
            Reply::Refused(Refusal::NotFound) => "not-found".to_owned(),
            Reply::Refused(Refusal::NoActuator) => "no-actuator".to_owned(),
            Reply::Refused(Refusal::NotNow(why)) => format!("not-now({why})"),
        }));
    }

    fn start(&mut self) {
        // As the runtime writes it: the boot's id and the clock's offset, which changes within a boot too.
        let boot = format!("b-{}-7{:+}", self.boots, self.journal.len());
        self.feed(Input::Started { boot, version: "0".to_owned() });
        self.feed(Input::ConfigLoaded(Arc::clone(&self.spec)));
    }

    fn word(&mut self, word: &str) {
        if let Some(time) = word.strip_prefix('+') {
            return self.go_by(time);
        }
        let (step, word) = match word.split_once(':') {
            Some((step, word)) => (Some(step), word),
            None => (None, word),
        };
        if let Some(step) = step {
            self.turn_to(step);
        }
        let (word, argument) = match word.split_once('(') {
            Some((word, argument)) => (word, argument.trim_end_matches(')').parse().expect("a number")),
            None => (word, 0_i32),
        };
        let text = || String::from("as told");
        match word {
            "crash" | "reboot" => {
                self.boots += usize::from(word == "reboot");
                let mut engine = Engine::new(7);
                for record in &self.journal {
                    engine.apply(record).expect("the engine's own events are legal");
                }
                self.engine = engine;
                self.performing.clear();
                self.confirming.clear();
                self.weighing.clear();
                self.delivering.clear();
                self.start();
            }
            "wall" => self.now.wall_ms += i64::from(argument) * 1_000,
            "full" => self.feed(Input::StoreFailed { reason: text() }),
            "mended" => self.feed(Input::StoreMended),
            "restart" | "force" => {
                let force = word == "force";
                self.feed(Input::Command(Command::Restart { service: ServiceId(0), by: text(), force }));
            }
            "run" | "queue" | "again" => self.feed(Input::Command(Command::Run {
                pipeline: self.spec.pipelines[usize::try_from(argument).expect("an index")].name.clone(),
                by: text(),
                inputs: String::new(),
                from: None,
                key: (word == "again").then(text),
                due: None,
                wait: word != "run",
            })),
            "from" => self.feed(Input::Command(Command::Run {
                pipeline: self.spec.pipelines[0].name.clone(),
                by: text(),
                inputs: String::new(),
                from: Some(step.unwrap_or_default().to_owned()),
                key: None,
                due: None,
                wait: false,
            })),
            "yes" | "nay" => {
                let (no, by) = ((word == "nay").then(text), text());
                let step = step.map(str::to_owned);
                self.feed(Input::Command(Command::Approve { run: RunId(1), step, no, by }));
            }
            "holds" | "holds-not" | "broken" => {
                let (run, step) = self.weighing.pop().expect("a `when` is being weighed");
                let holds = if word == "broken" { Err(text()) } else { Ok(word == "holds") };
                self.feed(Input::Weighed { run, step, holds });
            }
            "handle" => {
                let (run, step, attempt) = *self.performing.last().expect("an act is under way");
                self.feed(Input::Handle { run, step, attempt, handle: "\"tx\"".to_owned() });
            }
            "reload" => self.feed(Input::ConfigLoaded(Arc::clone(&self.spec))),
            "resume" => self.feed(Input::Command(Command::Resume { run: RunId(1), by: text() })),
            "cancel" => self.feed(Input::Command(Command::Cancel { run: RunId(1), by: text() })),
            "was-done" | "was-not-done" => {
                let run = &self.engine.state().runs[&RunId(1)];
                let step = run.focus_spec().map(|step| step.name.clone()).unwrap_or_default();
                let (applied, by, evidence) = (word == "was-done", text(), text());
                let command = Command::Resolve { run: RunId(1), step, applied, evidence, by };
                self.feed(Input::Command(command));
            }
            "applied" => self.performed(Outcome::Applied { output: text() }),
            "refused" => self.performed(Outcome::NotApplied { reason: text() }),
            "no" => self.performed(Outcome::Refused { reason: text() }),
            "missing" => self.performed(Outcome::Missing { reason: text() }),
            "unavailable" => self.performed(Outcome::Unavailable { reason: text() }),
            "unknown" => self.performed(Outcome::Unknown { reason: text() }),
            "confirmed" => self.confirmed(Confirmation::Applied { evidence: text(), output: None }),
            "denied" => self.confirmed(Confirmation::NotApplied { evidence: text() }),
            "failed" => self.confirmed(Confirmation::Failed { reason: text(), for_good: argument == 0 }),
            "unsure" => self.confirmed(Confirmation::StillUnknown { reason: text(), retry_after: 5 * S }),
            "taken" | "nottaken" => {
                for notice in std::mem::take(&mut self.delivering) {
                    let result = if word == "taken" { Ok(()) } else { Err(text()) };
                    self.feed(Input::Delivered { notice, result });
                }
            }
            answer => self.probed(answer, argument),
        }
    }

    /// Makes the next answer one about this step.
    fn turn_to(&mut self, name: &str) {
        let steps = &self.steps;
        let is = |run: &RunId, step: u32| {
            steps.get(run).is_some_and(|plan| plan.step(step).is_some_and(|spec| spec.name == name))
        };
        self.performing.sort_by_key(|(run, step, _)| is(run, *step));
        self.confirming.sort_by_key(|(run, step, _)| is(run, *step));
        self.weighing.sort_by_key(|(run, step)| is(run, *step));
    }

    fn go_by(&mut self, time: &str) {
        let (number, unit) = time.split_at(time.find(char::is_alphabetic).expect("a unit"));
        let unit = match unit {
            "ms" => S / 1_000,
            "s" => S,
            "m" => 60 * S,
            other => panic!("no such unit: {other}"),
        };
        let until = self.now.monotonic + unit * number.parse::<u32>().expect("a number");
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake <= until) {
            self.now.monotonic = self.now.monotonic.max(wake);
            self.feed(Input::Tick);
        }
        self.now.monotonic = until;
    }

    fn probed(&mut self, word: &str, argument: i32) {
        let (whose, answer) = word.split_once('.').unwrap_or(("", word));
        let (name, index) = whose.split_once('/').unwrap_or((whose, "0"));
        let state = self.engine.state();
        let service =
            if name.is_empty() { ServiceId(0) } else { state.service_named(name).expect("a service") };
        let check = state.services[service.index()].checks[index.parse::<usize>().expect("an index")];
        let latency = S / 100;
        let outcome = match answer {
            "pass" => CheckOutcome::Pass { latency },
            "fail" => {
                CheckOutcome::Fail { latency, failure: CheckFailure::new(FailureKind::Status, "status 500") }
            }
            "dead" => {
                let failure = CheckFailure::new(FailureKind::NotRunning, "it ended").certain();
                CheckOutcome::Fail { latency, failure: failure.with_exit_code(Some(argument)) }
            }
            "maybe" => CheckOutcome::Inconclusive { reason: "no resolver".to_owned() },
            other => panic!("no such word: {other}"),
        };
        self.feed(Input::Probed { check, began: self.now.monotonic, outcome });
    }

    fn performed(&mut self, outcome: Outcome) {
        let (run, step, attempt) = self.performing.pop().expect("an act is under way");
        self.feed(Input::Performed { run, step, attempt, outcome });
    }

    fn confirmed(&mut self, answer: Confirmation) {
        let (run, step, attempt) = self.confirming.pop().expect("a question is open");
        self.feed(Input::Confirmed { run, step, attempt, answer });
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Perform { run, step, attempt, name, .. } => {
                self.said.push(format!(">{name}"));
                self.performing.push((run, step, attempt));
            }
            Effect::Confirm { run, step, attempt, .. } => {
                self.said.push(">confirm".to_owned());
                self.confirming.push((run, step, attempt));
            }
            Effect::Deliver { notice } => {
                self.deliveries += 1;
                self.delivering.push(notice);
            }
            Effect::Weigh { run, step, .. } => {
                self.said.push(">weigh".to_owned());
                self.weighing.push((run, step));
            }
            Effect::Interrupt { run, step, .. } => {
                let text = format!(">stop({})", self.step_name(run, step));
                self.said.push(text);
            }
            Effect::ProbeAt { .. } => {}
        }
    }

    fn step_name(&self, run: RunId, step: u32) -> &str {
        &self.steps[&run].steps()[step as usize].name
    }

    fn check_name(&self, check: CheckId) -> String {
        let state = self.engine.state();
        let service = &state.services[state.checks[check.index()].service.index()];
        match service.checks.iter().position(|known| *known == check) {
            Some(0) | None => service.name.clone(),
            Some(index) => format!("{}/{index}", service.name),
        }
    }

    fn event(&mut self, event: &Event) -> Option<String> {
        if let Event::RunCreated { run, plan, .. } = event {
            self.steps.insert(*run, Arc::clone(plan));
        }
        Some(match event {
            Event::Started { .. } => "started".to_owned(),
            Event::Stopped { .. } => "stopped".to_owned(),
            Event::Marked => return None,
            Event::ConfigApplied { .. } => "config".to_owned(),
            Event::HealthChanged { check, to, .. } => format!("{}={}", self.check_name(*check), health(*to)),
            Event::IncidentOpened { incident, .. } => format!("open#{}", incident.0),
            Event::IncidentMerged { incident, .. } => format!("merge#{}", incident.0),
            Event::IncidentClosed { incident, healed_by: Some(run), .. } => {
                format!("close#{}({run})", incident.0)
            }
            Event::IncidentClosed { incident, healed_by: None, .. } => format!("close#{}", incident.0),
            Event::HealHeld { incident, because } => {
                let because = match because {
                    Because::DependencyDown { .. } => "dependency".to_owned(),
                    Because::HostBudgetSpent => "host budget".to_owned(),
                    Because::NoHeal => "no heal".to_owned(),
                    Because::ExitCode { code } => format!("exit {code}"),
                };
                format!("hold#{}({because})", incident.0)
            }
            Event::BackedOff { .. } => "backoff".to_owned(),
            Event::GaveUp { incident, attempts, .. } => format!("gave-up#{}({attempts})", incident.0),
            Event::RunCreated { run, purpose, .. } => {
                let purpose = match purpose {
                    Purpose::BringUp { .. } => "bring-up",
                    Purpose::Heal { .. } => "heal",
                    Purpose::Manual { .. } => "manual",
                    Purpose::Pipeline { .. } => "pipeline",
                    Purpose::Step { .. } => "step",
                };
                format!("run{}:{purpose}", run.0)
            }
            Event::StepIntent { run, step, attempt, .. } => {
                format!("{}?{attempt}", self.step_name(*run, *step))
            }
            Event::StepOutcome { run, step, outcome, .. } => {
                let outcome = match outcome {
                    Outcome::Applied { .. } => "applied",
                    Outcome::Found { .. } => "found",
                    Outcome::NotApplied { .. } => "not-applied",
                    Outcome::Refused { .. } => "refused",
                    Outcome::Unavailable { .. } => "unavailable",
                    Outcome::Missing { .. } => "missing",
                    Outcome::Unknown { .. } => "unknown",
                };
                format!("{}={outcome}", self.step_name(*run, *step))
            }
            Event::StepConfirmed { run, step, answer, .. } => {
                let answer = match answer {
                    Confirmation::Applied { .. } => "applied",
                    Confirmation::NotApplied { .. } => "not-applied",
                    Confirmation::Failed { .. } => "failed",
                    Confirmation::StillUnknown { .. } => "unsure",
                };
                format!("{}~{answer}", self.step_name(*run, *step))
            }
            Event::StepRetry { .. } => "retry".to_owned(),
            Event::StepLeftToVerify { .. } => "left".to_owned(),
            Event::StepHeld { .. } => "held".to_owned(),
            Event::StepHandle { .. } => "handle".to_owned(),
            Event::StepStuck { run, step, .. } => format!("stuck({})", self.step_name(*run, *step)),
            Event::StepFailed { run, step, .. } => format!("gave-up({})", self.step_name(*run, *step)),
            Event::StepSkipped { run, step, .. } => format!("skip({})", self.step_name(*run, *step)),
            Event::StepAwaits { run, step, .. } => format!("awaits({})", self.step_name(*run, *step)),
            Event::StepApproved { run, step, .. } => format!("approved({})", self.step_name(*run, *step)),
            Event::RunTurned { undo: true, .. } => "undo".to_owned(),
            Event::RunTurned { undo: false, .. } => "turned".to_owned(),
            Event::TriggerMissed { count, .. } => format!("missed({count})"),
            Event::StepResolved { applied, .. } => format!("resolved({applied})"),
            Event::CancelAsked { .. } => "cancel".to_owned(),
            Event::RunResumed { .. } => "resumed".to_owned(),
            Event::RunFinished { verdict: Verdict::Cancelled { name, .. }, .. } => {
                format!("cancelled({name})")
            }
            Event::RunFinished { verdict: Verdict::Done, .. } => "done".to_owned(),
            Event::RunFinished { verdict: Verdict::Failed { .. }, .. } => "failed".to_owned(),
            Event::RunFinished { verdict: Verdict::Undone { name, .. }, .. } => format!("undone({name})"),
            Event::NoticeOwed { what, .. } => {
                let what = match what {
                    Notice::GaveUp { .. } => "gave-up",
                    Notice::WillNotHeal { .. } => "will-not-heal",
                    Notice::ActuatorUnavailable { .. } => "unavailable",
                    Notice::Resolved { .. } => "resolved",
                    Notice::RunHeld { .. } => "run-held",
                    Notice::ApprovalAsked { .. } => "approval",
                    Notice::StoreDegraded { .. } => "degraded",
                };
                format!("owe({what})")
            }
            Event::NoticeDelivered { .. } => "told".to_owned(),
            Event::NoticeFailed { .. } => "not-told".to_owned(),
            Event::Intervention { .. } => "by-hand".to_owned(),
            Event::StoreDegraded { .. } => "degraded".to_owned(),
            Event::StoreRecovered => "recovered".to_owned(),
        })
    }
}

fn health(health: Health) -> String {
    match health {
        Health::Suspect { fails } => format!("suspect({fails})"),
        Health::Recovering { passes } => format!("recovering({passes})"),
        Health::Unknown | Health::Up | Health::Down => health.word().to_owned(),
    }
}
