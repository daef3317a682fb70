//! Does a run survive a cut at every single point, and another one during its recovery? Exhaustively, not by chance: the crash
//! matrix K0 to K13.
//!
//! Four steps, each with a way back, of every class and of all classes mixed; to the end, or back from the last one. At every
//! append and every effect lidless is cut off in each way that there is, and after that once more at every point. The world
//! counts what took effect: for each key at most once; the journal must add up to the same; every run ends, and names the step
//! that failed.

mod life;
mod outside;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use lidless_core::event::{Event, Verdict};
use lidless_core::pipeline::plan::{Class, Plan, StepCall, StepSpec};
use lidless_core::spec::{Backoff, PipelineSpec, Spec};

use life::{Case, Cuts};
pub use outside::Kind;
use outside::{KINDS, Outside, ledger};

/// How much of the matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// One cut at every point; with a crash at every point after it for the plan of mixed classes.
    Quick,
    /// Two cuts at every pair of points, for every plan.
    Full,
}

/// What the matrix came to.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// Cases played.
    pub cases: u64,
    /// Turns of the engine in all of them.
    pub turns: u64,
    /// Effects in all of them.
    pub effects: u64,
    /// How the runs ended.
    pub ends: BTreeMap<&'static str, u64>,
    /// Cases in which a person was asked for.
    pub held: u64,
    /// The first cases that broke something: the plan, the cuts, and what.
    pub broken: Vec<String>,
}

impl Matrix {
    fn add(&mut self, other: Matrix) {
        self.cases += other.cases;
        self.turns += other.turns;
        self.effects += other.effects;
        self.held += other.held;
        for (end, count) in other.ends {
            *self.ends.entry(end).or_default() += count;
        }
        self.broken.extend(other.broken);
        self.broken.truncate(20);
    }
}

/// A mutation of lidless or of its world that the matrix must catch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mutation {
    /// As it is.
    #[default]
    None,
    /// The plan declares steps repeatable that are not.
    Repeatable,
    /// What a handle names is let out before the handle is durable.
    HandleLast,
}

/// The classes of the four steps.
type Classes = [Class; 4];

/// How the steps follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Row,
    /// The two in the middle are side by side.
    Grouped,
}

/// The plans of the matrix.
fn plans() -> Vec<(&'static str, Classes, Shape)> {
    use Class::{Confirmable, Idempotent, OneShot, Pure};
    vec![
        ("pure", [Pure; 4], Shape::Row),
        ("idempotent", [Idempotent; 4], Shape::Row),
        ("confirmable", [Confirmable; 4], Shape::Row),
        ("one-shot", [OneShot; 4], Shape::Row),
        ("mixed", [Pure, Idempotent, Confirmable, OneShot], Shape::Row),
        ("grouped", [Pure, Idempotent, Confirmable, OneShot], Shape::Grouped),
        ("grouped-inside", [Pure, Confirmable, Idempotent, OneShot], Shape::Grouped),
    ]
}

const NAMES: [&str; 4] = ["HEALTH_CHECK", "REBALANCE", "COMPOUND", "HARVEST"];
const UNDO: [&str; 4] = ["HEALTH_CHECK/undo", "REBALANCE/undo", "COMPOUND/undo", "HARVEST/undo"];

fn back(class: Class) -> Class {
    if class == Class::Pure { Class::Idempotent } else { class }
}

fn spec(classes: Classes, kind: &str, shape: Shape) -> Arc<Spec> {
    let step = |name: &str, class| StepSpec {
        name: name.to_owned(),
        call: StepCall::External { kind: kind.to_owned(), settings: Arc::from("{}") },
        class,
        value: matches!(class, Class::Confirmable | Class::OneShot),
        attempts_max: 2,
        backoff: Backoff { min: Duration::from_secs(1), max: Duration::from_secs(1) },
        timeout: Duration::from_secs(10),
        confirms_max: 5,
        ..StepSpec::default()
    };
    let forward = (0_u32..).zip(NAMES).zip(classes).map(|((index, name), class)| StepSpec {
        after: match (shape, index) {
            (Shape::Grouped, 2) => vec![0],
            (Shape::Grouped, 3) => vec![1, 2],
            _ => index.checked_sub(1).into_iter().collect(),
        },
        ..step(name, class)
    });
    // What takes back even a step that changes nothing is something that changes.
    let back = (0_u32..)
        .zip(UNDO)
        .zip(classes.map(back))
        .map(|((index, name), class)| StepSpec { undoes: Some(index), ..step(name, class) });
    let plan = Plan::new(forward.chain(back).collect()).expect("the steps stand in order");
    let pipeline = PipelineSpec { name: "pay".to_owned(), plan: Arc::new(plan), ..PipelineSpec::default() };
    Arc::new(Spec { pipelines: vec![pipeline], ..Spec::default() })
}

/// One column of the matrix: a plan and a way.
#[derive(Clone)]
struct Column {
    name: &'static str,
    declared: Arc<Spec>,
    upgraded: Arc<Spec>,
    classes: Classes,
    back: bool,
    handle_last: bool,
}

/// Plays the matrix; `report` is told of each column that is done.
pub fn matrix(extent: Extent, mutation: Mutation, report: &(dyn Fn(&str) + Sync)) -> Matrix {
    let columns: Vec<Column> = plans()
        .into_iter()
        .flat_map(|(name, classes, shape)| [false, true].map(|back| (name, classes, shape, back)))
        .map(|(name, classes, shape, back)| {
            let declared = match mutation {
                Mutation::None | Mutation::HandleLast => classes,
                Mutation::Repeatable => [Class::Idempotent; 4],
            };
            // Another version names another kind of step: a run under way must not be touched by that.
            let (declared, upgraded) = (spec(declared, "v1", shape), spec([Class::OneShot; 4], "v2", shape));
            Column { name, declared, upgraded, classes, back, handle_last: mutation == Mutation::HandleLast }
        })
        .collect();
    let mut jobs = Vec::new();
    for column in &columns {
        for kind in KINDS {
            jobs.push((column, kind));
        }
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let total = std::sync::Mutex::new(Matrix::default());
    let work = || {
        while let Some((column, kind)) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let found = column.play(*kind, extent);
            let back = if column.back { "back" } else { "forward" };
            report(&format!("{} {back} {kind:?}: {} cases, {} turns", column.name, found.cases, found.turns));
            if let Ok(mut total) = total.lock() {
                total.add(found);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap_or_default()
}

impl Column {
    /// Cuts once in this way at every point, and then once more.
    fn play(&self, kind: Kind, extent: Extent) -> Matrix {
        let mut found = Matrix::default();
        let points = self.case(&mut found, Vec::new()).passed;
        for first in 0..points {
            let after = self.case(&mut found, vec![(first, kind)]);
            let seconds: &[Kind] = match extent {
                Extent::Quick if self.name == "mixed" => &[Kind::Crash],
                Extent::Quick => &[],
                Extent::Full => &[
                    Kind::Crash,
                    Kind::Takeover,
                    Kind::LostAck,
                    Kind::LostAppend,
                    Kind::DiskFull,
                    Kind::Cancel,
                ],
            };
            for second in first + 1..after.passed {
                for again in seconds {
                    self.case(&mut found, vec![(first, kind), (second, *again)]);
                }
            }
            if found.broken.len() >= 20 {
                break;
            }
        }
        found
    }

    fn case(&self, found: &mut Matrix, planned: Vec<(u32, Kind)>) -> Cuts {
        let told = format!("{} {} {planned:?}", self.name, if self.back { "back" } else { "forward" });
        let cancels = planned.iter().any(|(_, kind)| *kind == Kind::Cancel);
        let mut out = Outside { now: Duration::from_secs(1), ..Outside::default() };
        out.world.refuses = self.refuses();
        let cuts = Cuts { planned, ..Cuts::default() };
        let mut case = Case {
            out,
            cuts,
            specs: [&self.declared, &self.upgraded],
            classes: std::array::from_fn(|step| self.class_of(u32::try_from(step).unwrap_or_default())),
            turns: 0,
            held: false,
            handle_last: self.handle_last,
        };
        // A panic of the engine is a broken promise like any other.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case.play())) {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            case.out.broken = Some(format!("panicked: {text}"));
        }
        found.cases += 1;
        found.turns += u64::from(case.turns);
        found.effects += case.out.world.effects;
        found.held += u64::from(case.held);
        match self.judge(&mut case, cancels) {
            Ok(end) => *found.ends.entry(end).or_default() += 1,
            Err(what) => found.broken.push(format!("{told}: {what}")),
        }
        case.cuts
    }

    /// The step that is refused, on the way that turns back: the last one, or one beside another.
    fn refuses(&self) -> Option<&'static str> {
        let last = if self.name == "grouped-inside" { NAMES[1] } else { NAMES[3] };
        self.back.then_some(last)
    }

    /// Whether everything that took effect was taken back.
    fn is_even(&self, real: &std::collections::BTreeSet<(lidless_core::id::RunId, u32)>) -> bool {
        let taken_back =
            |(run, step): &(lidless_core::id::RunId, u32)| *step >= 4 || real.contains(&(*run, step + 4));
        real.iter().all(taken_back)
    }

    /// What a step really is: one of the four, or what takes it back.
    fn class_of(&self, step: u32) -> Class {
        let class = self.classes[step as usize % 4];
        if step < 4 { class } else { back(class) }
    }

    /// Says how the run ended, or what is wrong.
    fn judge(&self, case: &mut Case<'_>, cancelled: bool) -> Result<&'static str, String> {
        if let Some(what) = case.out.broken.take() {
            return Err(what);
        }
        case.out.now += Duration::from_secs(3_600);
        case.out.world.lands(case.out.now);
        if let Some(what) = case.out.world.twice() {
            return Err(what);
        }
        let created = |event: &Event| matches!(event, Event::RunCreated { .. });
        let runs = case.out.journal.iter().filter(|record| created(&record.event)).count();
        if runs != 1 {
            return Err(format!("one order became {runs} runs"));
        }
        let counts = |step: u32| self.class_of(step) != Class::Pure;
        let (known, real) = (ledger(&case.out.journal, counts), case.out.world.took_effect());
        if known != real {
            return Err(format!("the ledger has {known:?}, the world {real:?}"));
        }
        let verdicts = case.out.journal.iter().rev().find_map(|record| match &record.event {
            Event::RunFinished { verdict, .. } => Some(verdict),
            _ => None,
        });
        match verdicts {
            Some(Verdict::Done) if !self.back => Ok("done"),
            Some(Verdict::Undone { name, reason, .. })
                if self.back
                    && Some(name.as_str()) == self.refuses()
                    && reason.contains("the limit is reached") =>
            {
                if self.is_even(&real) {
                    Ok("undone")
                } else {
                    Err(format!("it left {real:?}"))
                }
            }
            // Nothing leaves under a handle that the disk has no room for; a step that has no attempt left then fails.
            Some(Verdict::Failed { name, reason, .. } | Verdict::Undone { name, reason, .. })
                if reason.contains("could not be kept") && NAMES.contains(&name.as_str()) =>
            {
                if self.is_even(&real) { Ok("failed") } else { Err(format!("it left {real:?}")) }
            }
            // Whoever cancels a run whose undo cannot be done now leaves that step, and it is named.
            Some(Verdict::Failed { reason, .. }) if cancelled && reason.contains("not undone: ") => {
                Ok("left by a person")
            }
            Some(Verdict::Cancelled { .. }) if cancelled => Ok("cancelled"),
            Some(Verdict::Failed { reason, .. }) if cancelled && reason.contains("cancelled") => {
                Ok("cancelled")
            }
            other => Err(format!("it ended as {other:?}")),
        }
    }
}
