//! What do the stories look after? Small configurations, each as small as its test allows.

use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::{Class, StepCall, StepSpec};
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

/// Returns a pipeline of three steps: one that requires the first service, one that moves value, one that does not.
pub(crate) fn three_steps(class: Class) -> PipelineSpec {
    let mut pipeline = pipeline();
    let pay = StepSpec { class, ..pipeline.steps[0].clone() };
    let tell = StepSpec { name: "TELL".to_owned(), class: Class::Idempotent, value: false, ..pay.clone() };
    let healthy = vec!["db".to_owned()];
    let look = StepSpec {
        name: "LOOK".to_owned(),
        call: StepCall::Require { healthy },
        class: Class::Pure,
        value: false,
        attempts_max: 1,
        ..pay.clone()
    };
    pipeline.steps = vec![look, pay, tell];
    pipeline
}

/// Returns a pipeline of one step that moves value.
pub(crate) fn pipeline() -> PipelineSpec {
    let step = StepSpec {
        name: "PAY".to_owned(),
        call: external(),
        class: Class::Confirmable,
        value: true,
        attempts_max: 2,
        backoff: Backoff { min: S, max: S },
        timeout: 10 * S,
        confirms_max: 3,
    };
    PipelineSpec { name: "pay".to_owned(), steps: vec![step] }
}
