//! How is code called as a step? Within its deadline; a panic is a failure, and what it says goes where all steps' words go.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use lidless_drivers::check::BoxFuture;
use lidless_drivers::step::{Answer, Call, Host, Log, Step};
use tokio::sync::mpsc;

use super::context::Keep;
use super::step::{Ask, Work};
use super::{Context, Found, StepError};
use crate::words::span;

/// Handles that may wait to be kept at once; a step that keeps more waits.
const KEEPS_MAX: usize = 8;

/// A step that is code.
pub(super) struct Code {
    pub(super) work: Arc<dyn Work>,
    /// Who else can tell.
    pub(super) confirm: Option<Arc<dyn Ask>>,
    /// It must not be done twice: what does not say that nothing happened leaves it in doubt.
    pub(super) strict: bool,
    /// The longest that one attempt may take, for people: of what is left of it the disk may have had its share.
    pub(super) timeout: Duration,
    /// It, or somebody else, can tell whether it took effect.
    pub(super) can_confirm: bool,
}

impl Code {
    /// Lets code run, until its deadline at the latest.
    async fn attempt<T, L: Log + ?Sized>(
        &self,
        context: &Context,
        work: impl Future<Output = Result<T, StepError>>,
        left: Duration,
        log: &L,
    ) -> Result<T, StepError> {
        let work = AssertUnwindSafe(talking(context, work, log)).catch_unwind();
        match tokio::time::timeout(left, work).await {
            Ok(Ok(result)) => result,
            // Says nothing of the effect: what follows is a matter of the step's class.
            Ok(Err(panic)) => Err(StepError::from(format!("panicked: {}", message(&*panic)))),
            Err(_) => Err(StepError::from(format!("not done within {}", span(self.timeout)))),
        }
    }
}

impl Step for Code {
    fn perform<'a>(&'a self, call: &'a Call, timeout: Duration, host: &'a dyn Host) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let (keeper, keeps) = mpsc::channel(KEEPS_MAX);
            let context = Context::new(call.clone(), timeout, Some(keeper));
            let _over = context.over().drop_guard();
            let work = self.work.perform(context.clone());
            let kept = keeping(work, keeps, host);
            match self.attempt(&context, kept, timeout, host).await {
                Ok(output) => Answer::Applied { output, amounts: Vec::new(), handle: None },
                Err(err) => Answer::Failed { error: err.reason().to_owned(), class: err.class(self.strict) },
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        call: &'a Call,
        timeout: Duration,
        log: &'a dyn Log,
    ) -> BoxFuture<'a, lidless_drivers::step::Found> {
        Box::pin(async move {
            let context = Context::new(call.clone(), timeout, None);
            let _over = context.over().drop_guard();
            let asking = match &self.confirm {
                Some(confirm) => confirm.ask(context.clone()),
                None => self.work.confirm(context.clone()),
            };
            match self.attempt(&context, asking, timeout, log).await {
                Ok(Found(found)) => found,
                Err(err) => Found::unknown(err.reason()).0,
            }
        })
    }

    fn can_confirm(&self) -> bool {
        self.can_confirm
    }
}

/// Passes on what the code says, after each of its turns. In the order in which it says it, and without a channel: most say
/// nothing.
async fn talking<T, L: Log + ?Sized>(context: &Context, work: impl Future<Output = T>, log: &L) -> T {
    // Also what it said before it panicked, or was dropped at its deadline.
    let _last = LastWords(context, log);
    let mut work = pin!(work);
    poll_fn(|task| {
        let turn = work.as_mut().poll(task);
        pass_on(context, log);
        turn
    })
    .await
}

struct LastWords<'a, L: Log + ?Sized>(&'a Context, &'a L);

impl<L: Log + ?Sized> Drop for LastWords<'_, L> {
    fn drop(&mut self) {
        pass_on(self.0, self.1);
    }
}

fn pass_on<L: Log + ?Sized>(context: &Context, log: &L) {
    let lines = context.take_lines();
    for line in &lines.said {
        log.line(line);
    }
    if lines.lost > 0 {
        log.line(&format!("{} more lines at once were not kept", lines.lost));
    }
}

/// Has handles kept while the code runs.
async fn keeping<T>(work: impl Future<Output = T>, mut keeps: mpsc::Receiver<Keep>, host: &dyn Host) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(Keep { handle, kept }) = keeps.recv() => {
                // Whoever asked may have given up meanwhile; the handle is kept all the same.
                drop(kept.send(host.keep(&handle).await));
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
