//! Which driver answers for which check and service? One arm a kind, from the configuration's settings to the drivers'.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lidless_drivers::actuator::Actuator;
use lidless_drivers::actuator::exec::ExecActuator;
use lidless_drivers::actuator::judged::JudgedByChecks;
use lidless_drivers::actuator::process::ProcessActuator;
use lidless_drivers::actuator::systemd::SystemdActuator;
use lidless_drivers::check::Check;
use lidless_drivers::check::exec::{ExecCheck, ExecSettings, Warning};
use lidless_drivers::check::http::{HttpCheck, HttpSettings, StatusWanted, TlsConfigs, TlsSettings};
use lidless_drivers::check::process::ProcessCheck;
use lidless_drivers::check::systemd::SystemdCheck;
use lidless_drivers::check::tcp::TcpCheck;
use lidless_drivers::child::CommandSpec;
use lidless_drivers::process::{Launcher, ManagedProcess, Orphan, ProcessSettings, StopSettings};
use lidless_drivers::step::unit::Units;
use lidless_drivers::systemd::Bus;

use super::clock::Clock;
use super::code::CodeSteps;
use super::notify::Notifier;
use super::plugins::MarkedPlugins;
use super::run_logs::RunLogs;
use super::slots;
use crate::config::Resolved;
use crate::config::settings::{self, CheckKind, RunKind, Value};

/// The drivers of a configuration, by name.
pub struct Drivers {
    /// By service, then by check.
    checks: HashMap<String, HashMap<String, Arc<dyn Check>>>,
    actuators: HashMap<String, Arc<dyn Actuator>>,
    notifiers: Arc<[Notifier]>,
    managed: Vec<(String, Arc<ManagedProcess>)>,
    /// Processes that run on without a service.
    pub(super) orphans: Vec<Orphan>,
    run_logs: RunLogs,
    /// By which steps outlive us; none where they cannot, or where nobody would come after us.
    pub(super) units: Option<Arc<Units>>,
    code: CodeSteps,
    pub(super) plugins: MarkedPlugins,
}

/// A driver that cannot be built: what the configuration says is well-formed, but this machine cannot do it.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up {what} of service `{service}`: {why}")]
pub struct DriverError {
    /// Whose.
    pub service: String,
    /// Which part.
    pub what: String,
    /// Why, with its causes.
    pub why: String,
}

impl Drivers {
    /// Returns the drivers of a program that has nothing but steps of its own. An empty path keeps no words of runs.
    pub(crate) fn of_code(code: CodeSteps, run_logs: PathBuf) -> Drivers {
        Drivers {
            checks: HashMap::new(),
            actuators: HashMap::new(),
            notifiers: Arc::new([]),
            managed: Vec::new(),
            orphans: Vec::new(),
            run_logs: RunLogs::new(run_logs),
            units: None,
            code,
            plugins: MarkedPlugins::default(),
        }
    }

    /// Returns the driver of a check.
    pub fn check(&self, service: &str, check: &str) -> Option<Arc<dyn Check>> {
        self.checks.get(service)?.get(check).cloned()
    }

    /// Returns the actuator of a service.
    pub fn actuator(&self, service: &str) -> Option<Arc<dyn Actuator>> {
        self.actuators.get(service).cloned()
    }

    /// Leaves it to the checks whether an act that failed has helped.
    #[must_use]
    pub(super) fn judged_by_checks(mut self) -> Drivers {
        for actuator in self.actuators.values_mut() {
            *actuator = Arc::new(JudgedByChecks::new(Arc::clone(actuator)));
        }
        self
    }

    /// Where what runs have to say is kept.
    pub(super) fn run_logs(&self) -> &RunLogs {
        &self.run_logs
    }

    /// The steps that are code of this program.
    pub(super) fn code(&self) -> &CodeSteps {
        &self.code
    }

    /// Everybody who is told.
    pub(super) fn notifiers(&self) -> Arc<[Notifier]> {
        Arc::clone(&self.notifiers)
    }

    /// The processes that lidless runs itself, by service.
    pub fn managed(&self) -> Vec<(String, Arc<ManagedProcess>)> {
        self.managed.clone()
    }
}

/// Builds all drivers. `state_dir` is where processes are remembered. Must be called within a tokio runtime.
pub fn build(resolved: &Resolved, state_dir: &Path, clock: &Clock) -> Result<Drivers, DriverError> {
    let mut builder = Builder {
        drivers: Drivers {
            checks: HashMap::new(),
            actuators: HashMap::new(),
            notifiers: resolved.notify.iter().map(notifier).collect(),
            managed: Vec::new(),
            orphans: Vec::new(),
            run_logs: RunLogs::new(state_dir.join("runs")),
            units: None,
            code: CodeSteps::default(),
            plugins: MarkedPlugins::default(),
        },
        bus: None,
        tls: TlsConfigs::default(),
        clock: clock.clone(),
        store: resolved.store_path.clone(),
    };
    for service in &resolved.services {
        builder.service(service, state_dir)?;
    }
    Ok(builder.drivers)
}

struct Builder {
    drivers: Drivers,
    bus: Option<Arc<Bus>>,
    tls: TlsConfigs,
    clock: Clock,
    store: PathBuf,
}

impl Builder {
    fn service(&mut self, service: &settings::ServiceSettings, state_dir: &Path) -> Result<(), DriverError> {
        let name = &service.name;
        let mut process = None;
        let actuator: Option<Arc<dyn Actuator>> = match &service.run {
            None => None,
            Some(RunKind::Process(settings)) => {
                let slot = slots::of_store(state_dir, &self.store).join(name);
                if let Some(logs) = settings.log.parent() {
                    std::fs::create_dir_all(logs).map_err(|err| fail(name, "the folder of the log", &err))?;
                }
                let managed = ManagedProcess::open(process_settings(settings), &slot)
                    .map_err(|err| fail(name, "the process", &err))?;
                let managed = Arc::new(managed);
                if let Err(err) = managed.adopt() {
                    tracing::warn!(service = %name, error = %err, "Nothing could be adopted.");
                }
                process = Some(Arc::clone(&managed));
                self.drivers.managed.push((name.clone(), Arc::clone(&managed)));
                Some(Arc::new(ProcessActuator::new(managed, self.engine_time())))
            }
            Some(RunKind::Systemd(settings)) => {
                Some(Arc::new(SystemdActuator::new(self.bus(), &settings.unit, self.engine_time())))
            }
            Some(RunKind::Exec(settings)) => {
                let reload = settings.reload.as_ref().map(|argv| command(argv, &settings.dir, &[]));
                let slot = slots::of_store(state_dir, &self.store).join(name);
                let actuator = ExecActuator::new(command(&settings.restart, &settings.dir, &[]), reload)
                    .remembering(&slot)
                    .map_err(|err| fail(name, "the record of its commands", &err))?;
                Some(Arc::new(actuator))
            }
        };
        if let Some(actuator) = actuator {
            self.drivers.actuators.insert(name.clone(), actuator);
        }
        let mut checks = HashMap::new();
        for check in &service.checks {
            let driver = self.check(name, check, process.as_ref())?;
            checks.insert(check.name.clone(), driver);
        }
        self.drivers.checks.insert(name.clone(), checks);
        Ok(())
    }

    fn check(
        &mut self,
        service: &str,
        check: &settings::CheckSettings,
        process: Option<&Arc<ManagedProcess>>,
    ) -> Result<Arc<dyn Check>, DriverError> {
        let failed = |err: &dyn std::error::Error| fail(service, &format!("check `{}`", check.name), err);
        Ok(match &check.kind {
            CheckKind::Http(settings) => {
                Arc::new(HttpCheck::with_tls(http_settings(settings), &self.tls).map_err(|err| failed(&err))?)
            }
            CheckKind::Tcp(settings) => {
                let (host, port) = settings.address.rsplit_once(':').unwrap_or((&settings.address, ""));
                let port = port.parse().map_err(|err| failed(&err))?;
                Arc::new(TcpCheck::new(host.trim_matches(['[', ']']), port))
            }
            CheckKind::Exec(settings) => Arc::new(ExecCheck::new(ExecSettings {
                command: command(&settings.command, &settings.dir, &settings.env),
                warning: if settings.warning_passes { Warning::Pass } else { Warning::Fail },
            })),
            CheckKind::Process => match process {
                Some(process) => Arc::new(ProcessCheck::new(Arc::clone(process))),
                None => {
                    return Err(fail_text(service, "the process check", "lidless does not run this service"));
                }
            },
            CheckKind::Systemd(settings) => Arc::new(SystemdCheck::new(self.bus(), &settings.unit)),
        })
    }

    fn bus(&mut self) -> Arc<Bus> {
        Arc::clone(self.bus.get_or_insert_with(|| Arc::new(Bus::system())))
    }

    fn engine_time(&self) -> Arc<dyn Fn() -> Duration + Send + Sync> {
        let clock = self.clock.clone();
        Arc::new(move || clock.now().monotonic)
    }
}

fn http_settings(settings: &settings::HttpCheckSettings) -> HttpSettings {
    HttpSettings {
        method: settings.method.clone(),
        headers: plain(&settings.headers),
        body: settings.body.clone().map(String::into_bytes),
        status: StatusWanted::Within(settings.status.clone()),
        contains: settings.contains.clone(),
        tls: TlsSettings { verify: settings.tls_verify, ca_file: settings.ca_file.clone() },
        body_max: usize::try_from(settings.max_body).unwrap_or(usize::MAX),
        ..HttpSettings::new(&settings.url)
    }
}

fn process_settings(settings: &settings::ProcessSettings) -> ProcessSettings {
    ProcessSettings {
        command: settings.command.clone(),
        dir: Some(settings.dir.clone()),
        env: plain(&settings.env),
        user: settings.user.clone(),
        output: settings.log.clone(),
        stop: StopSettings {
            signal: settings.stop.signal.as_rustix(),
            within: settings.stop.within,
            kill: settings.stop.kill,
        },
        dead_for: settings.dead_for,
        reload: settings.reload_signal.as_rustix(),
        launcher: Launcher::own_binary(),
    }
}

fn notifier(settings: &settings::NotifySettings) -> Notifier {
    Notifier::exec(settings.name.clone(), command(&settings.exec, &settings.dir, &[]))
}

fn command(argv: &[String], dir: &Path, env: &[(String, Value)]) -> CommandSpec {
    CommandSpec {
        argv: argv.to_vec(),
        dir: Some(dir.to_owned()),
        env: plain(env).into_iter().collect(),
        ..CommandSpec::default()
    }
}

fn plain(values: &[(String, Value)]) -> Vec<(String, String)> {
    values.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
}

fn fail(service: &str, what: &str, err: &dyn std::error::Error) -> DriverError {
    let mut why = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        why = format!("{why}: {err}");
        cause = err.source();
    }
    fail_text(service, what, &why)
}

fn fail_text(service: &str, what: &str, why: &str) -> DriverError {
    DriverError { service: service.to_owned(), what: what.to_owned(), why: why.to_owned() }
}
