//! What does one step do, with every default filled in?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::{Class, StepCall, StepSpec};
use lidless_core::spec::Backoff;
use lidless_drivers::step::http::{BodySettings, HttpStep, HttpStepError};
use serde::Serialize;

use super::super::model::{
    Confirm, ConfirmBy, Expectation, Given, Request, Step, StepExec, StepHttp, Text, Work,
};
use super::super::node::{Place, Sp};
use super::super::problem::Problem;
use super::super::secret::SecretSource;
use super::super::settings::{
    ExecStepSettings, HeaderSettings, HttpAnswerSettings, HttpBodySettings, HttpConfirmSettings,
    HttpRequestSettings, HttpStepSettings,
};
use super::{MINUTE, Resolver, dedup};

const REQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: u32 = 10;
const KEY_HEADER: &str = "Idempotency-Key";

impl Resolver<'_> {
    /// Fills in a step, or what takes one back. `at` is its file, and where to point.
    pub(super) fn step(&mut self, at: Place, name: String, step: &Step) -> Option<StepSpec> {
        let confirm = step.confirm.good();
        let class = match (&step.work, step.class.good()) {
            (Given::Good(Work::Require(_)), _) => Class::Pure,
            (_, Some(class)) => class.value,
            (_, None) if confirm.is_some() => Class::Confirmable,
            (Given::Good(Work::Plugin(_)), None) => Class::Confirmable,
            // An idempotent step that moves value was refused: nobody is paid twice by a default.
            (_, None) => Class::Idempotent,
        };
        let call = match &step.work {
            Given::Good(Work::Require(healthy)) => StepCall::Require { healthy: dedup(healthy) },
            Given::Good(Work::Nothing) => StepCall::Nothing,
            Given::Good(Work::Wait(time)) => StepCall::Wait { time: *time },
            Given::Good(Work::Service(action, service)) => {
                StepCall::Service { service: service.value.clone(), action: *action }
            }
            Given::Good(Work::Exec(exec)) => {
                let settings = self.exec_step(at, exec, confirm);
                self.external(at, &name, "exec", &settings)?
            }
            Given::Good(Work::Http(http)) => {
                let settings = self.http_step(http, confirm);
                self.try_out(http, confirm, &settings);
                self.external(at, &name, "http", &settings)?
            }
            Given::Good(Work::Plugin(plugin)) => {
                let settings = self.plugin_step(plugin)?;
                self.external(at, &name, "plugin", &settings)?
            }
            Given::Good(Work::Pipeline(_)) | Given::Absent | Given::Broken => return None,
        };
        let timeout = if let StepCall::Require { .. } = call { REQUIRE_TIMEOUT } else { MINUTE };
        let (min, max) = step.backoff.unwrap_or((Duration::from_secs(1), MINUTE));
        let adoptable = matches!(&step.work, Given::Good(Work::Exec(exec)) if may_outlive(exec));
        let tries = confirm.and_then(|confirm| confirm.tries).unwrap_or(TRIES);
        Some(StepSpec {
            name,
            call,
            class,
            value: step.value.is_some(),
            pivot: step.pivot.is_some(),
            when: step.when.as_ref().map(|when| Arc::from(when.value.0.as_str())),
            approve: step.approve.clone(),
            attempts_max: step.attempts.as_ref().map_or(1, |attempts| attempts.value),
            backoff: Backoff { min, max },
            timeout: step.timeout.unwrap_or(timeout),
            within: step.within,
            confirms_max: match class {
                Class::Confirmable => tries,
                // Doing it again is how such a step is settled after a crash: as often as one would ask.
                Class::Pure | Class::Idempotent => TRIES,
                Class::OneShot => 0,
            },
            adoptable,
            ..StepSpec::default()
        })
    }

    fn external(&mut self, at: Place, name: &str, kind: &str, settings: &impl Serialize) -> Option<StepCall> {
        match serde_json::to_string(settings) {
            Ok(json) => Some(StepCall::External { kind: kind.to_owned(), settings: Arc::from(json) }),
            Err(err) => {
                // The one thing that JSON cannot hold: a path that is not UTF-8.
                self.problems.push(
                    Problem::error("config::not_utf8", format!("`{name}` cannot be journalled: {err}"))
                        .at(at, "this step")
                        .help("write `dir:` with a path that is UTF-8"),
                );
                None
            }
        }
    }

    fn exec_step(&mut self, at: Place, exec: &StepExec, confirm: Option<&Confirm>) -> ExecStepSettings {
        let (mut env, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        for (name, text) in &exec.env {
            match text {
                Text::Plain(text) => drop(env.insert(name.clone(), text.clone())),
                Text::Secret(source) => drop(secrets.insert(name.clone(), self.pinned(source))),
            }
        }
        ExecStepSettings {
            command: self.argv(&exec.command),
            dir: exec.dir.as_ref().map_or_else(|| self.dir(at).to_owned(), |path| self.path(path)),
            env,
            secrets,
            confirm: confirm.and_then(|confirm| match &confirm.by {
                ConfirmBy::Exec(argv) => Some(self.argv(argv)),
                ConfirmBy::Http(_) => None,
            }),
            heartbeat: exec.heartbeat.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            handles: exec.handles,
        }
    }

    fn http_step(&mut self, http: &StepHttp, confirm: Option<&Confirm>) -> HttpStepSettings {
        let asked = confirm.and_then(|confirm| match &confirm.by {
            ConfirmBy::Http(asked) => Some(asked),
            ConfirmBy::Exec(_) => None,
        });
        HttpStepSettings {
            request: self.request(&http.request, "POST"),
            key_header: http.key_header.clone().unwrap_or_else(|| Some(KEY_HEADER.to_owned())),
            expect: http.expect.as_ref().map_or_else(|| HttpAnswerSettings::new(&[200..=299], None), answer),
            not_applied_on: http.not_applied_on.clone(),
            output: http.output.clone(),
            confirm: asked.map(|asked| HttpConfirmSettings {
                request: self.request(&asked.request, "GET"),
                applied: asked.applied.as_ref().map(answer),
                not_applied: asked.not_applied.as_ref().map(answer),
                output: asked.output.clone(),
            }),
            tls_verify: http.tls_verify.unwrap_or(true),
            ca_file: http.ca_file.as_ref().map(|path| self.path(path)),
        }
    }

    fn request(&mut self, request: &Request, method: &str) -> HttpRequestSettings {
        let mut headers = Vec::with_capacity(request.headers.len());
        for (name, text) in &request.headers {
            let value = match text {
                Text::Plain(text) => HeaderSettings::Text(text.clone()),
                Text::Secret(source) => HeaderSettings::Secret(self.pinned(source)),
            };
            headers.push((name.clone(), value));
        }
        HttpRequestSettings {
            method: request.method.clone().unwrap_or_else(|| method.to_owned()),
            url: request.url.clone(),
            headers,
            body: request.body.as_ref().map(|body| match body {
                BodySettings::Text(text) => HttpBodySettings::Text(text.clone()),
                BodySettings::Json(value) => HttpBodySettings::Json(value.clone()),
                BodySettings::Form(fields) => HttpBodySettings::Form(fields.clone()),
            }),
        }
    }

    /// Where a secret is, which is all that may be pinned. It must be there: better told now than when money is under way.
    pub(super) fn pinned(&mut self, source: &Sp<SecretSource>) -> SecretSource {
        drop(self.secret(source));
        self.source(source)
    }

    /// Has the driver read what is written, so that a wrong placeholder is told here.
    fn try_out(&mut self, http: &StepHttp, confirm: Option<&Confirm>, settings: &HttpStepSettings) {
        let mut settings = settings.clone();
        // Certificates are a matter of the machine that it will run on.
        (settings.tls_verify, settings.ca_file) = (false, None);
        let made = settings.for_driver(true, &|_| Ok("secret".to_owned()));
        let Some(err) = made.ok().and_then(|settings| HttpStep::new(&settings).err()) else { return };
        let place = match &err {
            HttpStepError::Template { place, .. }
            | HttpStepError::Request { place, .. }
            | HttpStepError::Output { place, .. } => place.as_str(),
            HttpStepError::NotApplied { .. } => "not_applied_on",
        };
        let asked = confirm.and_then(|confirm| match &confirm.by {
            ConfirmBy::Http(asked) => Some(&asked.request),
            ConfirmBy::Exec(_) => None,
        });
        let (request, part) = match (place.strip_prefix("confirm"), asked) {
            (Some(part), Some(asked)) => (asked, part.trim_start_matches('.')),
            (Some(_) | None, _) => (&http.request, place),
        };
        let part = part.split('.').next().unwrap_or_default();
        let at = request.places.get(part).or_else(|| request.places.get("url")).copied();
        let mut message = err.to_string();
        let mut cause = std::error::Error::source(&err);
        while let Some(err) = cause {
            message = format!("{message}: {err}");
            cause = err.source();
        }
        let mut problem = Problem::error("config::bad_request", message);
        if let Some(at) = at {
            problem = problem.at(at, "here");
        }
        let help = "a placeholder is `{{ inputs.NAME }}`, `{{ outputs.STEP.NAME }}` or `{{ key }}`; the text `{{` is `{{ \"{{\" }}`";
        self.problems.push(problem.help(help));
    }
}

/// Whether it may go on without lidless: who has handles to keep, or must give signs of life, needs somebody who listens.
fn may_outlive(exec: &StepExec) -> bool {
    exec.may_be_unit && exec.heartbeat.is_none() && !exec.handles
}

fn answer(wanted: &Expectation) -> HttpAnswerSettings {
    let status = wanted.status.as_deref().unwrap_or(&[200..=299]);
    HttpAnswerSettings::new(status, wanted.contains.clone())
}
