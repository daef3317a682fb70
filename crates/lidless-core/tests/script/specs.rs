//! What do the stories look after? Small configurations, each as small as its test allows.

use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::{Class, Plan, StepCall, StepSpec};
use lidless_core::spec::{
    Action, Backoff, Budget, CheckSpec, HealSpec, PipelineSpec, ServiceSpec, Spec, VerifySpec,
};

const S: Duration = Duration::from_secs(1);

/// Returns a configuration of services with these names.
pub(crate) fn spec(names: &[&str]) -> Spec {
    Spec { services: names.iter().map(|name| service(name)).collect(), ..Spec::default() }
}

/// Gives the first service a second check.
pub(crate) fn second_check(spec: &mut Spec) {
    let first = &spec.services[0].checks[0];
    let second = CheckSpec { name: "second".to_owned(), ..first.clone() };
    spec.services[0].checks.push(second);
}

/// Returns a service with one check: 3 failures, 2 heals in 10 minutes, 5 s apart, then hourly.
fn service(name: &str) -> ServiceSpec {
    let check = CheckSpec {
        name: "first".to_owned(),
        kind: "http".to_owned(),
        every: 5 * S,
        timeout: 2 * S,
        confirm_every: S / 10,
        fail_after: 3,
        recover_after: 1,
        ..CheckSpec::default()
    };
    ServiceSpec {
        name: name.to_owned(),
        checks: vec![check],
        restartable: true,
        verify: VerifySpec { settle: S, within: 10 * S, stay: Duration::ZERO },
        heal: Some(HealSpec {
            action: Action::Restart,
            budget: Budget { attempts: 2, per: 600 * S },
            backoff: Backoff { min: 5 * S, max: 60 * S },
            retry_after: 3_600 * S,
            never_on_exit: vec![42],
        }),
        act_timeout: 10 * S,
        ..ServiceSpec::default()
    }
}

/// A step whose implementation nobody looks at.
pub(crate) fn external() -> StepCall {
    StepCall::External { kind: "told".to_owned(), settings: Arc::from("{}") }
}

/// A step of that name whose implementation nobody looks at, and which moves no value.
pub(crate) fn step(name: &str, class: Class) -> StepSpec {
    StepSpec {
        name: name.to_owned(),
        call: external(),
        class,
        attempts_max: 2,
        backoff: Backoff { min: S, max: S },
        timeout: 10 * S,
        ..StepSpec::default()
    }
}

/// A pipeline whose steps follow each other.
pub(crate) fn row(name: &str, steps: Vec<StepSpec>) -> PipelineSpec {
    PipelineSpec { name: name.to_owned(), plan: Arc::new(Plan::in_a_row(steps)), ..PipelineSpec::default() }
}

/// Returns a pipeline of three steps: one that requires the first service, one that moves value, one that does not.
pub(crate) fn three_steps(class: Class) -> PipelineSpec {
    let call = StepCall::Require { healthy: vec!["db".to_owned()] };
    let look = StepSpec { call, attempts_max: 1, ..step("LOOK", Class::Pure) };
    let pay = StepSpec { value: true, ..step("PAY", class) };
    row("pay", vec![look, pay, step("TELL", Class::Idempotent)])
}

/// Returns a pipeline of one step that moves value.
pub(crate) fn pipeline() -> PipelineSpec {
    row("pay", vec![StepSpec { value: true, ..step("PAY", Class::Confirmable) }])
}
