//! What may be a step? A function of a context, or a type that can also say whether it took effect.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::Class;
use lidless_drivers::check::BoxFuture;
use serde::Serialize;
use serde_json::Value;

use super::{Context, StepError};

/// A step that is a type: with settings of its own, and with an answer to whether it took effect.
///
/// ```
/// use lidless::{Class, Context, Found, Step, StepError};
///
/// struct Compound {
///     factor: u64,
/// }
///
/// impl Step for Compound {
///     type Output = u64;
///
///     fn class(&self) -> Class {
///         Class::Confirmable
///     }
///
///     async fn perform(&self, context: Context) -> Result<u64, StepError> {
///         Ok(context.output::<u64>("HARVEST")? * self.factor)
///     }
///
///     async fn confirm(&self, context: Context) -> Result<Found, StepError> {
///         Ok(Found::not_applied(format!("nobody has seen {}", context.idempotency_key())))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let compound = Compound { factor: 2 };
/// assert_eq!(compound.perform(Context::test().with_output("HARVEST", 21)).await.unwrap(), 42);
/// # }
/// ```
pub trait Step: Send + Sync + 'static {
    /// What later steps may use. Whole numbers of more than 64 bits must be texts.
    type Output: Serialize;

    /// Does it.
    fn perform(&self, context: Context) -> impl Future<Output = Result<Self::Output, StepError>> + Send;

    /// Says whether an attempt took effect. It only looks, and may be asked again and again. To be written where
    /// [`Step::class`] is [`Class::Confirmable`]; an `Err` means that nobody knows yet.
    fn confirm(&self, context: Context) -> impl Future<Output = Result<Found, StepError>> + Send {
        drop(context);
        std::future::ready(Ok(Found::unknown("the step cannot tell")))
    }

    /// What may be done when nobody knows whether it took effect.
    fn class(&self) -> Class {
        Class::Idempotent
    }
}

/// What is known of a step in doubt.
#[derive(Clone, PartialEq, Debug)]
pub struct Found(pub(super) lidless_drivers::step::Found);

impl Found {
    /// It took effect, this is what it put out, and so we know.
    pub fn applied(output: impl Serialize, evidence: impl Into<String>) -> Found {
        match serde_json::to_value(output) {
            Ok(output) => Found(lidless_drivers::step::Found::Applied { output, evidence: evidence.into() }),
            Err(err) => Found::unknown(format!("what it put out cannot be kept: {err}")),
        }
    }

    /// It did not and **never will**, and so we know. "I don't find it" is [`Found::unknown`] for as long as it may still come.
    pub fn not_applied(evidence: impl Into<String>) -> Found {
        Found(lidless_drivers::step::Found::NotApplied { evidence: evidence.into() })
    }

    /// Nobody knows yet.
    pub fn unknown(reason: impl Into<String>) -> Found {
        Found(lidless_drivers::step::Found::StillUnknown { reason: reason.into(), retry_after: None })
    }

    /// Nobody knows yet, and it is of no use to ask again sooner.
    pub fn unknown_for(reason: impl Into<String>, retry_after: Duration) -> Found {
        let retry_after = Some(retry_after);
        Found(lidless_drivers::step::Found::StillUnknown { reason: reason.into(), retry_after })
    }
}

/// What can become a step: every `async` function of a [`Context`], and every [`Step`]. `Form` only tells the two apart.
pub trait IntoStep<Form> {
    /// Makes a step of it.
    fn into_step(self) -> Made;
}

/// The form of functions.
pub struct OfFunction<Fut, T, E>(PhantomData<(Fut, T, E)>);

/// The form of types.
pub struct OfType;

/// A step of whatever form.
#[derive(Clone)]
pub struct Made {
    pub(super) work: Arc<dyn Work>,
    /// What a type says of itself.
    pub(super) class: Option<Class>,
}

/// Does a step, and can be asked, whatever its types are.
pub(super) trait Work: Send + Sync {
    fn perform(&self, context: Context) -> BoxFuture<'_, Result<Value, StepError>>;
    fn confirm(&self, context: Context) -> BoxFuture<'_, Result<Found, StepError>>;
}

impl<F, Fut, T, E> IntoStep<OfFunction<Fut, T, E>> for F
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize,
    E: Into<StepError>,
{
    fn into_step(self) -> Made {
        Made { work: Arc::new(Function(self)), class: None }
    }
}

impl<S: Step> IntoStep<OfType> for S {
    fn into_step(self) -> Made {
        let class = Some(self.class());
        Made { work: Arc::new(Type(self)), class }
    }
}

struct Function<F>(F);

impl<F, Fut, T, E> Work for Function<F>
where
    F: Fn(Context) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize,
    E: Into<StepError>,
{
    fn perform(&self, context: Context) -> BoxFuture<'_, Result<Value, StepError>> {
        // Called within the future, so that a panic before the first await is caught like any other.
        Box::pin(async move { put_out(&(self.0)(context).await.map_err(Into::into)?) })
    }

    fn confirm(&self, _: Context) -> BoxFuture<'_, Result<Found, StepError>> {
        Box::pin(std::future::ready(Ok(Found::unknown("a function cannot tell whether it took effect"))))
    }
}

struct Type<S>(S);

impl<S: Step> Work for Type<S> {
    fn perform(&self, context: Context) -> BoxFuture<'_, Result<Value, StepError>> {
        Box::pin(async move { put_out(&self.0.perform(context).await?) })
    }

    fn confirm(&self, context: Context) -> BoxFuture<'_, Result<Found, StepError>> {
        Box::pin(self.0.confirm(context))
    }
}

/// Says whether a step took effect, where it is no type that says so itself.
pub trait Ask: Send + Sync + 'static {
    /// Asks.
    fn ask(&self, context: Context) -> BoxFuture<'_, Result<Found, StepError>>;
}

impl<F, Fut, E> Ask for F
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Found, E>> + Send + 'static,
    E: Into<StepError>,
{
    fn ask(&self, context: Context) -> BoxFuture<'_, Result<Found, StepError>> {
        Box::pin(async move { self(context).await.map_err(Into::into) })
    }
}

/// The form in which an output is kept. The step was done: where its output cannot be kept, that says nothing of the effect.
fn put_out(output: &impl Serialize) -> Result<Value, StepError> {
    serde_json::to_value(output)
        .map_err(|err| StepError::unknown(format!("its output cannot be kept: {err}")))
}
