//! What runs a composed pipeline? The daemon's own dispatcher, on a task of its own; many runs at once share its fsyncs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lidless_core::effect::{Command, Refusal, Reply};
use lidless_core::engine::Engine;
use lidless_core::id::RunId;
use lidless_core::spec::Spec;
use lidless_core::state::State;
use lidless_store::{Journal, SqliteJournal};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pipeline::inputs;
use super::progress::{Progress, Watcher};
use super::{Pipeline, PipelineError, Report};
use crate::runtime::{Clock, Daemon, Drained, Drivers, Handle, Options, Recovered, recover};

/// Who a run is asked for by, in the journal.
const BY: &str = "the program";

/// A pipeline that is ready to run. Clones are the same one: share it between tasks.
///
/// Once the last clone is dropped no further step begins; [`Composed::close`] waits for that, too.
#[derive(Clone)]
pub struct Composed(Arc<Inner>);

struct Inner {
    pipeline: String,
    handle: Handle,
    watcher: Option<Watcher>,
    /// Runs that an earlier program left unfinished.
    recovered: Mutex<Vec<End>>,
    stop: DropGuard,
    daemon: Mutex<Option<JoinHandle<Drained>>>,
}

/// What is said of a run at its end.
type End = oneshot::Receiver<Result<Report, Refusal>>;

impl Composed {
    pub(super) async fn open(pipeline: Pipeline) -> Result<Composed, PipelineError> {
        pipeline.check()?;
        let (name, spec, watcher) = (pipeline.name().to_owned(), pipeline.spec(), pipeline.watcher.clone());
        let store = pipeline.store.clone();
        let (recovered, journal, words) = match store {
            None => (nothing(), None, PathBuf::new()),
            Some(path) => {
                let (recovered, journal) = opened(path.clone()).await?;
                let folder = path.parent().unwrap_or(Path::new("")).join("runs");
                (recovered, Some(journal), folder)
            }
        };
        ours(&name, recovered.engine.state())?;
        let known = recovered.engine.state().seq;
        let unfinished: Vec<RunId> = recovered.engine.state().runs.keys().copied().collect();
        let spec = Spec { site: name.clone(), pipelines: vec![spec], ..Spec::default() };
        let drivers = Drivers::of_code(pipeline.code(), words);
        let options = Options { spec: Arc::new(spec), drivers, recovered, journal, orders_only: false };
        let (mut daemon, handle) = Daemon::new(options).map_err(PipelineError::Thread)?;
        let mut ends = Vec::new();
        for run in unfinished {
            let (progress, end) = Progress::new(watcher.clone());
            daemon.follow(run, known, Box::new(progress));
            ends.push(end);
        }
        let stop = CancellationToken::new();
        let daemon = tokio::spawn(daemon.run(stop.clone()));
        Ok(Composed(Arc::new(Inner {
            pipeline: name,
            handle,
            watcher,
            recovered: Mutex::new(ends),
            stop: stop.drop_guard(),
            daemon: Mutex::new(Some(daemon)),
        })))
    }

    /// Runs it with these inputs, an object of names and values or `()`, and waits for the end. A run that nobody waits for any
    /// more goes on.
    pub async fn run(&self, given: impl Serialize) -> Result<Report, PipelineError> {
        let pipeline = self.0.pipeline.clone();
        let inputs = inputs(&pipeline, given)?;
        let by = BY.to_owned();
        self.follow(Command::Run { pipeline, by, inputs, from: None, key: None, due: None, wait: false })
            .await
    }

    /// Goes on with a run at the step at which it failed, and waits for its end.
    pub async fn resume(&self, run: RunId) -> Result<Report, PipelineError> {
        self.follow(Command::Resume { run, by: BY.to_owned() }).await
    }

    /// Takes a person's word on whether the step of a run that waits for one took effect, and waits for the run's end. `by` says
    /// whose word, and `evidence` how they know: both are in the journal.
    pub async fn resolve(
        &self,
        run: RunId,
        step: &str,
        applied: bool,
        evidence: &str,
        by: &str,
    ) -> Result<Report, PipelineError> {
        let (step, evidence, by) = (step.to_owned(), evidence.to_owned(), by.to_owned());
        self.follow(Command::Resolve { run, step, applied, evidence, by }).await
    }

    /// Begins no further step of a run. Its own report says so at its end.
    pub async fn cancel(&self, run: RunId) -> Result<(), PipelineError> {
        match self.0.handle.command(Command::Cancel { run, by: BY.to_owned() }).await? {
            Reply::Started(_) | Reply::Noted => Ok(()),
            Reply::Refused(why) => Err(why.into()),
        }
    }

    /// Waits for the runs that an earlier program left unfinished, and says how they ended; once.
    pub async fn settled(&self) -> Result<Vec<Report>, PipelineError> {
        let recovered = self.0.recovered.lock();
        let ends = std::mem::take(&mut *recovered.unwrap_or_else(PoisonError::into_inner));
        let mut reports = Vec::with_capacity(ends.len());
        for end in ends {
            reports.push(told(end).await?);
        }
        Ok(reports)
    }

    /// As `settled`; an `Err` where one of them waits for a person.
    pub(super) async fn settled_or_held(&self) -> Result<(), PipelineError> {
        match self.settled().await?.into_iter().find(|report| report.held) {
            Some(report) => Err(PipelineError::Held(Box::new(report))),
            None => Ok(()),
        }
    }

    /// Ends: steps under way have some seconds to end, the store is closed and another program may open it. What is unfinished is
    /// finished by that one.
    pub async fn close(self) -> Result<(), PipelineError> {
        let daemon = self.0.daemon.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(daemon) = daemon else { return Ok(()) };
        self.0.stop_now();
        let drained = daemon.await.map_err(|_| PipelineError::Lost)?;
        drained.close().await.map_or(Ok(()), |why| Err(PipelineError::Close(why)))
    }

    async fn follow(&self, command: Command) -> Result<Report, PipelineError> {
        let (progress, end) = Progress::new(self.0.watcher.clone());
        self.0.handle.follow(command, Box::new(progress)).await?;
        told(end).await
    }
}

impl Inner {
    fn stop_now(&self) {
        self.stop.token().cancel();
    }
}

async fn told(end: End) -> Result<Report, PipelineError> {
    // The follower goes with the daemon.
    Ok(end.await.map_err(|_| PipelineError::Lost)??)
}

fn nothing() -> Recovered {
    Recovered { engine: Engine::new(seed()), clock: Clock::resume(None), replayed: 0 }
}

/// Only spreads jitter.
fn seed() -> u64 {
    u64::from(std::process::id())
}

async fn opened(path: PathBuf) -> Result<(Recovered, Box<dyn Journal>), PipelineError> {
    let opening = tokio::task::spawn_blocking(move || {
        let mut journal = SqliteJournal::open(&path)?;
        let recovered = recover(&mut journal, seed())?;
        Ok((recovered, Box::new(journal) as Box<dyn Journal>))
    });
    opening.await.map_err(|_| PipelineError::Lost)?
}

/// What is unfinished in the store of somebody else would fail here, for want of their steps.
fn ours(pipeline: &str, state: &State) -> Result<(), PipelineError> {
    let not_ours = |whose| Err(PipelineError::NotOurs { pipeline: pipeline.to_owned(), whose });
    if !state.spec.services.is_empty() {
        return not_ours("a daemon with services".to_owned());
    }
    for run in state.runs.values() {
        match run.purpose.pipeline() {
            Some(name) if name == pipeline => {}
            Some(name) => {
                return not_ours(format!("pipeline `{name}`, of which {} is unfinished", run.id));
            }
            None => return not_ours(format!("a daemon, of which {} is unfinished", run.id)),
        }
    }
    Ok(())
}
