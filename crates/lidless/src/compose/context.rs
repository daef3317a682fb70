//! What is a step told, and what may it ask for?

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lidless_drivers::step::{Call, Undoes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::StepError;

/// Lines of one attempt that wait to be written; what is said beyond them is lost, and counted.
const LINES_MAX: usize = 1_000;
/// A longer line is cut.
const LINE_MAX: usize = 4_096;
/// How long an attempt under test may take.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// One attempt at a step: what it is told, and what it may ask for. Clones are the same attempt.
#[derive(Clone)]
pub struct Context(Arc<Attempt>);

struct Attempt {
    call: Call,
    deadline: Instant,
    over: CancellationToken,
    lines: Mutex<Lines>,
    handles: Mutex<Vec<Value>>,
    /// None in a test.
    keeper: Option<mpsc::Sender<Keep>>,
}

/// A handle that is to be made durable.
pub(super) struct Keep {
    pub(super) handle: Value,
    pub(super) kept: oneshot::Sender<Result<(), String>>,
}

#[derive(Default)]
pub(super) struct Lines {
    pub(super) said: VecDeque<String>,
    pub(super) lost: usize,
}

impl Context {
    /// Returns a context to try a step with alone: nothing is kept, there are no inputs, and no step was before.
    ///
    /// ```
    /// use lidless::{Context, StepError};
    ///
    /// async fn compound(context: Context) -> Result<u64, StepError> {
    ///     let harvested: u64 = context.output("HARVEST")?;
    ///     Ok(harvested * context.input::<u64>("factor")?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let context = Context::test().with_input("factor", 2).with_output("HARVEST", 21);
    /// assert_eq!(compound(context).await.unwrap(), 42);
    /// let error = compound(Context::test()).await.unwrap_err();
    /// assert_eq!(error.reason(), "no step HARVEST has put anything out");
    /// # }
    /// ```
    pub fn test() -> Context {
        let call = Call {
            run: "run-1".to_owned(),
            pipeline: "test".to_owned(),
            step: "TEST".to_owned(),
            attempt: 1,
            idempotency_key: "test".to_owned(),
            inputs: json!({}),
            outputs: Arc::new(json!({})),
            handles: Vec::new(),
            undoes: None,
            allotted: None,
        };
        Context::new(call, TEST_TIMEOUT, None)
    }

    pub(super) fn new(call: Call, timeout: Duration, keeper: Option<mpsc::Sender<Keep>>) -> Context {
        let handles = Mutex::new(call.handles.clone());
        Context(Arc::new(Attempt {
            call,
            deadline: Instant::now() + timeout,
            over: CancellationToken::new(),
            lines: Mutex::default(),
            handles,
            keeper,
        }))
    }

    /// For a test: with an input of the run.
    #[must_use]
    pub fn with_input(self, name: &str, value: impl Serialize) -> Context {
        self.with(|call| call.inputs[name] = json!(value))
    }

    /// For a test: with what a step before put out.
    #[must_use]
    pub fn with_output(self, step: &str, value: impl Serialize) -> Context {
        self.with(|call| Arc::make_mut(&mut call.outputs)[step] = json!(value))
    }

    /// For a test: as this attempt, from 1.
    #[must_use]
    pub fn with_attempt(self, attempt: u32) -> Context {
        self.with(|call| call.attempt = attempt)
    }

    fn with(self, change: impl FnOnce(&mut Call)) -> Context {
        let mut call = self.0.call.clone();
        change(&mut call);
        Context::new(call, TEST_TIMEOUT, None)
    }

    /// The run: "run-7".
    pub fn run(&self) -> &str {
        &self.0.call.run
    }

    /// The step's name.
    pub fn step(&self) -> &str {
        &self.0.call.step
    }

    /// Which attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.call.attempt
    }

    /// The same for every attempt at this step of this run, and for no other: by it the world tells a repetition from a second
    /// order.
    pub fn idempotency_key(&self) -> &str {
        &self.0.call.idempotency_key
    }

    /// What the run was given: an object.
    pub fn inputs(&self) -> &Value {
        &self.0.call.inputs
    }

    /// One thing that the run was given.
    pub fn input<T: DeserializeOwned>(&self, name: &str) -> Result<T, StepError> {
        read(&self.0.call.inputs, name, || format!("the run was given no {name}"))
    }

    /// What the steps before put out: an object, from a step's name to its output.
    pub fn outputs(&self) -> &Value {
        &self.0.call.outputs
    }

    /// What one step before put out.
    pub fn output<T: DeserializeOwned>(&self, step: &str) -> Result<T, StepError> {
        read(&self.0.call.outputs, step, || format!("no step {step} has put anything out"))
    }

    /// Makes a handle durable: a signed transaction, say. **Invariant:** what a handle names leaves the machine only after this
    /// was answered with `Ok`; by it the effect can be found again, see [`Context::handles`].
    pub async fn keep(&self, handle: impl Serialize) -> Result<(), StepError> {
        let handle = serde_json::to_value(handle).map_err(StepError::permanent)?;
        if let Some(keeper) = &self.0.keeper {
            let (kept, answer) = oneshot::channel();
            let over = || StepError::transient("a handle was not kept: the attempt is over");
            keeper.send(Keep { handle: handle.clone(), kept }).await.map_err(|_| over())?;
            let answer = answer.await.map_err(|_| over())?;
            answer.map_err(|why| StepError::transient(format!("a handle was not kept: {why}")))?;
        }
        lock(&self.0.handles).push(handle);
        Ok(())
    }

    /// What this attempt and those before it have kept, oldest first.
    pub fn handles(&self) -> Vec<Value> {
        lock(&self.0.handles).clone()
    }

    /// What it takes back, where that is what it is for.
    pub fn undoes(&self) -> Option<&Undoes> {
        self.0.call.undoes.as_ref()
    }

    /// Says something, to the log and to the run's own words.
    pub fn log(&self, line: impl fmt::Display) {
        let mut line = line.to_string().replace(char::is_control, " ");
        if line.len() > LINE_MAX {
            let end = (0..=LINE_MAX).rev().find(|at| line.is_char_boundary(*at));
            line.truncate(end.unwrap_or(0));
        }
        let mut lines = lock(&self.0.lines);
        if lines.said.len() < LINES_MAX {
            lines.said.push_back(line);
        } else {
            lines.lost += 1;
        }
    }

    /// For a test: what was said.
    pub fn said(&self) -> Vec<String> {
        lock(&self.0.lines).said.iter().cloned().collect()
    }

    /// When the attempt ends at the latest: the step is dropped then, wherever it stands.
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Ends once the attempt is over, for whatever the step has started beside itself.
    pub async fn cancelled(&self) {
        self.0.over.cancelled().await;
    }

    /// Whether the attempt is over.
    pub fn is_cancelled(&self) -> bool {
        self.0.over.is_cancelled()
    }

    pub(super) fn over(&self) -> CancellationToken {
        self.0.over.clone()
    }

    /// Takes what was said since the last time.
    pub(super) fn take_lines(&self) -> Lines {
        std::mem::take(&mut *lock(&self.0.lines))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("call", &self.0.call).finish_non_exhaustive()
    }
}

fn read<T: DeserializeOwned>(
    object: &Value,
    name: &str,
    none: impl FnOnce() -> String,
) -> Result<T, StepError> {
    let value = object.as_object().and_then(|object: &Map<String, Value>| object.get(name));
    let value = value.ok_or_else(|| StepError::permanent(none()))?;
    T::deserialize(value)
        .map_err(|err| StepError::permanent(format!("{name} is not what it should be: {err}")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one push or take: what a panicking thread left is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
