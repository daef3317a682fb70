//! What is the configuration with every default filled in? A valid document becomes the engine's spec and the drivers' settings.

mod pipeline;
mod step;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lidless_core::spec::{Action, Backoff, Budget, CheckSpec, HealSpec, ServiceSpec, Spec, VerifySpec};

use super::model::{self, Document, Given, Heal, Kind, Named, Run, Text, Timing};
use super::node::{Place, Sp};
use super::problem::Problem;
use super::secret::{Secret, SecretSource};
use super::settings::{
    CheckKind, CheckSettings, ExecCheckSettings, ExecSettings, HttpCheckSettings, NotifySettings,
    ProcessSettings, Resolved, RunKind, ServiceSettings, StopSettings, SystemdCheckSettings, SystemdSettings,
    TcpCheckSettings, Value,
};
use super::units::Signal;

/// The check that a service with `run.process` always has.
pub const PROCESS_CHECK: &str = "process";
/// The check that a service with `run.systemd` always has.
pub const UNIT_CHECK: &str = "unit";

const STORE_PATH: &str = "/var/lib/lidless/lidless.db";
const LISTEN: std::net::SocketAddr =
    std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 7433));
/// What fails at its start does so within this time: a port that is taken, a file that is not there.
const STAY: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const ACT_TIMEOUT_SYSTEMD: Duration = Duration::from_secs(90);
/// A dead process is seen at once by its pidfd; this interval is only the net below that.
const PROCESS_EVERY_MAX: Duration = Duration::from_secs(5);

/// Whether secrets must be there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secrets {
    /// They are read, and one that is not there is an error: for running.
    Needed,
    /// One that is not there is a warning, and stands in as an empty text: for `lidless check`.
    Optional,
}

/// Fills in. `dirs` has the directory of each source.
pub fn resolve(
    document: &Document,
    dirs: &[PathBuf],
    secrets: Secrets,
    problems: &mut Vec<Problem>,
) -> Resolved {
    let timing = document.defaults.as_ref().map(|defaults| defaults.value.clone()).unwrap_or_default();
    let written = document.store.as_ref().and_then(|store| store.value.path.as_ref());
    let mut resolver = Resolver { dirs, secrets, problems, defaults: timing, logs: PathBuf::new() };
    let store_path = written.map_or_else(|| PathBuf::from(STORE_PATH), |path| resolver.path(path));
    resolver.logs = store_path.parent().unwrap_or(Path::new("/")).join("logs");
    let (specs, services) = document.services.iter().map(|service| resolver.service(service)).unzip();
    let by_name =
        document.pipelines.iter().map(|pipeline| (pipeline.name.value.as_str(), pipeline)).collect();
    let (pipeline_specs, pipelines) =
        document.pipelines.iter().map(|pipeline| resolver.pipeline(pipeline, &by_name)).unzip();
    let heals = document.limits.as_ref().and_then(|limits| limits.value);
    let heals = heals.unwrap_or(model::Budget { attempts: 60, per: 5 * MINUTE });
    let notify = document.notify.iter().map(|notifier| NotifySettings {
        name: notifier.name.value.clone(),
        exec: resolver.argv(notifier.value.good().map_or(&[], Vec::as_slice)),
        dir: resolver.dir(notifier.name.at).to_owned(),
    });
    let notify = notify.collect();
    Resolved {
        spec: Spec {
            site: document.site.as_ref().map_or_else(|| "lidless".to_owned(), |site| site.value.clone()),
            services: specs,
            host_budget: Some(Budget { attempts: heals.attempts, per: heals.per }),
            pipelines: pipeline_specs,
        },
        services,
        pipelines,
        store_path,
        web: match document.web.as_ref().map(|web| &web.value) {
            None => Some(LISTEN),
            Some(None) => None,
            Some(Some(web)) => Some(web.listen.as_ref().map_or(LISTEN, |listen| listen.value)),
        },
        notify,
    }
}

struct Resolver<'a> {
    dirs: &'a [PathBuf],
    secrets: Secrets,
    problems: &'a mut Vec<Problem>,
    defaults: Timing,
    logs: PathBuf,
}

impl Resolver<'_> {
    fn service(&mut self, service: &Named<model::Service>) -> (ServiceSpec, ServiceSettings) {
        let name = &service.name.value;
        let run = service.value.run.good().map(|run| self.run(name, service.name.at, run));
        let heal_on = match (&service.value.heal, &run) {
            (Given::Good(Heal::On(heal)), Some(_)) => Some(heal.as_ref()),
            (Given::Good(Heal::Off | Heal::On(_)) | Given::Absent | Given::Broken, _) => None,
        };
        let heal = match (&service.value.heal, &run) {
            // Running a process means keeping it alive, unless `heal: off` says otherwise.
            (Given::Absent, Some(RunKind::Process(_))) => Some(heal_spec(None)),
            _ => heal_on.map(|heal| heal_spec(Some(heal))),
        };
        let verify = VerifySpec {
            settle: heal_on.and_then(|heal| heal.settle).unwrap_or(Duration::ZERO),
            within: heal_on.and_then(|heal| heal.within).unwrap_or(Duration::from_secs(30)),
            stay: heal_on.and_then(|heal| heal.stay).unwrap_or(STAY),
        };
        let mut checks: Vec<(CheckSpec, CheckSettings)> = Vec::with_capacity(service.value.checks.len() + 1);
        checks.extend(self.implicit_check(&run, &service.value.checks));
        for check in &service.value.checks {
            let Given::Good(kind) = &check.value.kind else { continue };
            let kind = self.kind(check.name.at, kind, &run);
            checks.push(self.check(&check.name.value, kind, &check.value.timing));
        }
        let (specs, settings) = checks.into_iter().unzip();
        let spec = ServiceSpec {
            name: name.clone(),
            depends_on: dedup(&service.value.depends_on),
            checks: specs,
            managed: matches!(run, Some(RunKind::Process(_))),
            restartable: run.is_some(),
            verify,
            heal,
            act_timeout: match &run {
                // `dead_for` is a part of the act: a restart waits for it.
                Some(RunKind::Process(process)) => process.stop.within + process.dead_for + MINUTE / 2,
                Some(RunKind::Systemd(_)) | None => ACT_TIMEOUT_SYSTEMD,
                Some(RunKind::Exec(exec)) => exec.timeout,
            },
        };
        (
            spec,
            ServiceSettings { name: name.clone(), title: service.value.title.clone(), run, checks: settings },
        )
    }

    /// Returns the check that comes with what runs the service, unless one of its kind is written.
    fn implicit_check(
        &self,
        run: &Option<RunKind>,
        written: &[Named<model::Check>],
    ) -> Option<(CheckSpec, CheckSettings)> {
        let kinds = || written.iter().filter_map(|check| check.value.kind.good());
        match run {
            Some(RunKind::Process(_)) if !kinds().any(|kind| matches!(kind, Kind::Process(_))) => {
                Some(self.check(PROCESS_CHECK, CheckKind::Process, &Timing::default()))
            }
            Some(RunKind::Systemd(systemd)) if !kinds().any(|kind| matches!(kind, Kind::Systemd(..))) => {
                let kind = CheckKind::Systemd(SystemdCheckSettings { unit: systemd.unit.clone() });
                Some(self.check(UNIT_CHECK, kind, &Timing::default()))
            }
            Some(RunKind::Process(_) | RunKind::Systemd(_) | RunKind::Exec(_)) | None => None,
        }
    }

    fn check(&self, name: &str, kind: CheckKind, timing: &Timing) -> (CheckSpec, CheckSettings) {
        let defaults = &self.defaults;
        let every = defaults.every.unwrap_or(EVERY);
        // A death is a fact, not a symptom that may pass: a process check does not take its patience from `defaults`.
        let (every, fail_after, recover_after) = match kind {
            CheckKind::Process => (every.min(PROCESS_EVERY_MAX), 1, 1),
            CheckKind::Http(_) | CheckKind::Tcp(_) | CheckKind::Exec(_) | CheckKind::Systemd(_) => {
                (every, defaults.fail_after.unwrap_or(3), defaults.recover_after.unwrap_or(2))
            }
        };
        let spec = CheckSpec {
            name: name.to_owned(),
            kind: kind_word(&kind).to_owned(),
            asks: asks(&kind),
            every: timing.every.unwrap_or(every),
            timeout: timing.timeout.or(defaults.timeout).unwrap_or(Duration::from_secs(3)),
            confirm_every: timing
                .confirm_every
                .or(defaults.confirm_every)
                .unwrap_or(Duration::from_millis(100)),
            fail_after: timing.fail_after.unwrap_or(fail_after),
            recover_after: timing.recover_after.unwrap_or(recover_after),
        };
        (spec, CheckSettings { name: name.to_owned(), kind })
    }

    fn kind(&mut self, at: Place, kind: &Kind, run: &Option<RunKind>) -> CheckKind {
        match kind {
            Kind::Http(http) => CheckKind::Http(Box::new(HttpCheckSettings {
                url: http.url.clone(),
                method: http.method.clone().unwrap_or_else(|| "GET".to_owned()),
                headers: self.values(&http.headers),
                body: http.body.clone(),
                status: http.status.clone().unwrap_or_else(|| vec![200..=399]),
                contains: http.contains.clone(),
                tls_verify: http.tls_verify.unwrap_or(true),
                ca_file: http.ca_file.as_ref().map(|path| self.path(path)),
                max_body: http.max_body.unwrap_or(1 << 20),
            })),
            Kind::Tcp(address) => CheckKind::Tcp(TcpCheckSettings { address: address.clone() }),
            Kind::Exec(exec) => CheckKind::Exec(ExecCheckSettings {
                command: self.argv(&exec.command),
                warning_passes: exec.warning_passes,
                env: self.values(&exec.env),
                dir: exec.dir.as_ref().map_or_else(|| self.dir(at).to_owned(), |path| self.path(path)),
            }),
            Kind::Process(_) => CheckKind::Process,
            Kind::Systemd(unit, _) => {
                let of_run =
                    if let Some(RunKind::Systemd(systemd)) = run { systemd.unit.as_str() } else { "" };
                let unit = unit.as_ref().map_or(of_run, |unit| unit.value.as_str()).to_owned();
                CheckKind::Systemd(SystemdCheckSettings { unit })
            }
        }
    }

    fn run(&mut self, name: &str, at: Place, run: &Run) -> RunKind {
        match run {
            Run::Process(process) => RunKind::Process(Box::new(ProcessSettings {
                command: self.argv(&process.command),
                dir: process.dir.as_ref().map_or_else(|| self.dir(at).to_owned(), |path| self.path(path)),
                user: process.user.clone(),
                env: self.values(&process.env),
                log: process
                    .log
                    .as_ref()
                    .map_or_else(|| self.logs.join(format!("{name}.log")), |path| self.path(path)),
                stop: StopSettings {
                    signal: process.stop_signal.unwrap_or(Signal::TERM),
                    within: process.stop_within.unwrap_or(Duration::from_secs(10)),
                    kill: process.stop_kill.unwrap_or(true),
                },
                dead_for: process.dead_for.unwrap_or(Duration::ZERO),
                reload_signal: process.reload_signal.unwrap_or(Signal::HUP),
            })),
            Run::Systemd(unit) => RunKind::Systemd(SystemdSettings { unit: unit.value.clone() }),
            Run::Exec(exec) => RunKind::Exec(ExecSettings {
                restart: self.argv(&exec.restart),
                reload: exec.reload.as_ref().map(|reload| self.argv(reload)),
                timeout: exec.timeout.unwrap_or(MINUTE),
                dir: self.dir(at).to_owned(),
            }),
        }
    }

    /// Resolves a program: `lidless` is this very binary, a path goes from the file's directory, a bare name through PATH.
    fn argv(&self, argv: &[Sp<String>]) -> Vec<String> {
        let mut words: Vec<String> = argv.iter().map(|word| word.value.clone()).collect();
        if let (Some(program), Some(first)) = (words.first_mut(), argv.first()) {
            if program == "lidless" {
                *program = own_binary().unwrap_or_else(|| program.clone());
            } else if program.contains('/') {
                *program = self.path(first).to_string_lossy().into_owned();
            }
        }
        words
    }

    fn values(&mut self, pairs: &[(String, Text)]) -> Vec<(String, Value)> {
        let mut values = Vec::with_capacity(pairs.len());
        for (name, text) in pairs {
            let value = match text {
                Text::Plain(text) => Value::Plain(text.clone()),
                Text::Secret(source) => Value::Secret(self.secret(source)),
            };
            values.push((name.clone(), value));
        }
        values
    }

    fn secret(&mut self, source: &Sp<SecretSource>) -> Secret {
        self.source(source).read().unwrap_or_else(|err| {
            let problem = match (self.secrets, &err) {
                // Too open is wrong wherever it is looked at.
                (Secrets::Needed, _) | (Secrets::Optional, super::secret::SecretError::TooOpen { .. }) => {
                    Problem::error("config::secret_unavailable", err.to_string())
                }
                (Secrets::Optional, _) => Problem::warning("config::secret_unavailable", err.to_string()),
            };
            self.problems.push(problem.at(source.at, "this secret").help(err.help()));
            Secret::new("")
        })
    }

    /// Says where a secret is, wherever one looks from.
    fn source(&self, source: &Sp<SecretSource>) -> SecretSource {
        match &source.value {
            SecretSource::File(path) => SecretSource::File(self.dir(source.at).join(path)),
            SecretSource::Credential(_) | SecretSource::Env(_) => source.value.clone(),
        }
    }

    fn dir(&self, at: Place) -> &Path {
        self.dirs.get(at.file as usize).map_or(Path::new("."), PathBuf::as_path)
    }

    /// Resolves a path that the file says, from that file's directory.
    fn path(&self, path: &Sp<String>) -> PathBuf {
        // `components` drops the `./` in front.
        self.dir(path.at).join(&path.value).components().collect()
    }
}

const EVERY: Duration = Duration::from_secs(15);

fn heal_spec(heal: Option<&model::HealOn>) -> HealSpec {
    let (min, max) = heal.and_then(|heal| heal.backoff).unwrap_or((Duration::from_secs(1), MINUTE));
    HealSpec {
        action: if heal.is_some_and(|heal| heal.reload) { Action::Reload } else { Action::Restart },
        budget: Budget {
            attempts: heal.and_then(|heal| heal.attempts).unwrap_or(3),
            per: heal.and_then(|heal| heal.per).unwrap_or(15 * MINUTE),
        },
        backoff: Backoff { min, max },
        retry_after: heal.and_then(|heal| heal.retry_after).unwrap_or(60 * MINUTE),
        never_on_exit: heal
            .and_then(|heal| heal.never_on_exit.as_ref())
            .map(|codes| codes.value.clone())
            .unwrap_or_default(),
    }
}

fn kind_word(kind: &CheckKind) -> &'static str {
    match kind {
        CheckKind::Http(_) => "http",
        CheckKind::Tcp(_) => "tcp",
        CheckKind::Exec(_) => "exec",
        CheckKind::Process => "process",
        CheckKind::Systemd(_) => "systemd",
    }
}

/// Says what a check asks, for people and the journal. A query and arguments may carry a token, so they stay out.
fn asks(kind: &CheckKind) -> String {
    match kind {
        CheckKind::Http(http) => {
            let method = if http.method == "GET" { String::new() } else { format!("{} ", http.method) };
            match http.url.split_once('?') {
                Some((url, _)) => format!("{method}{url}?..."),
                None => format!("{method}{}", http.url),
            }
        }
        CheckKind::Tcp(tcp) => tcp.address.clone(),
        CheckKind::Exec(exec) => exec.command.first().cloned().unwrap_or_default(),
        CheckKind::Process => "the process".to_owned(),
        CheckKind::Systemd(systemd) => systemd.unit.clone(),
    }
}

fn dedup(names: &[Sp<String>]) -> Vec<String> {
    let mut unique: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !unique.contains(&name.value) {
            unique.push(name.value.clone());
        }
    }
    unique
}

fn own_binary() -> Option<String> {
    let path = std::env::current_exe().ok()?.to_string_lossy().into_owned();
    // Linux says so when the file was replaced by an upgrade; the new one lies under the old name.
    Some(path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(path))
}
