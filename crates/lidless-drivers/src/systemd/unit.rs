//! In what state is a unit? Reads it, and puts it into words.

use serde::de::DeserializeOwned;
use tokio::time::Instant;
use zbus::{OwnedObjectPath, OwnedVariant};

use super::{Bus, BusError, Call};

/// The interface with the properties that every unit has.
pub(crate) const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// What systemd says of a unit in one short answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its own name, where it was asked for by an alias.
    pub(crate) id: String,
    /// Its object.
    pub(crate) path: String,
    /// `loaded`, `not-found`, `masked`, ...
    pub(crate) load: String,
    /// `active`, `failed`, ...
    pub(crate) active: String,
    /// `running`, `auto-restart`, ...
    pub(crate) sub: String,
    /// What systemd is about to do with it.
    pub(crate) job: Option<Job>,
}

/// A job that waits or runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its number.
    pub(crate) id: u32,
    /// `start`, `restart`, `stop`, ...
    pub(crate) kind: String,
}

/// How the main process of a unit ended last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// `success`, `exit-code`, `signal`, `start-limit-hit`, ...
    pub(crate) result: Option<String>,
    /// How it ended: the `si_code` of SIGCHLD, 0 if it never did.
    pub(crate) code: i32,
    /// The exit status or the signal.
    pub(crate) status: i32,
    /// How often systemd itself restarted it.
    pub(crate) restarts: u32,
}

/// When a unit was started last, on the clocks of its machine, in microseconds. Zero is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Started {
    /// On the monotonic clock.
    pub(crate) monotonic_us: u64,
    /// Since the Unix epoch.
    pub(crate) wall_us: u64,
}

/// One row of `ListUnitsByNames`: name, description, load, active, sub, following, path, job, its kind, its path.
type Row = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
/// One command of `ExecReload`: path, arguments, whether its failure is ignored, begin and end on both clocks, pid, code, status.
type Command = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// Returns the full name, as `systemctl` completes it.
pub(crate) fn full_name(name: &str) -> String {
    const KINDS: [&str; 11] = [
        "service",
        "socket",
        "target",
        "device",
        "mount",
        "automount",
        "swap",
        "timer",
        "path",
        "slice",
        "scope",
    ];
    match name.rsplit_once('.') {
        Some((_, kind)) if KINDS.contains(&kind) => name.to_owned(),
        Some(_) | None => format!("{name}.service"),
    }
}

/// Reads a unit; `None` if no unit can have that name.
///
/// This is the cheapest question there is: one short call, whatever the unit.
pub(crate) async fn find(bus: &Bus, name: &str, deadline: Instant) -> Result<Option<Unit>, BusError> {
    let rows: Vec<Row> = read(bus, Call::manager("ListUnitsByNames"), &(vec![name],), deadline).await?;
    Ok(rows.into_iter().next().map(|(id, _, load, active, sub, _, path, job, kind, _)| Unit {
        id,
        path: path.to_string(),
        load,
        active,
        sub,
        job: (job != 0).then_some(Job { id: job, kind }),
    }))
}

impl Unit {
    /// Whether it can be acted on: systemd knows what it is.
    pub(crate) fn is_known(&self) -> bool {
        self.load == "loaded" || self.active != "inactive"
    }

    /// Reads how its main process ended last.
    pub(crate) async fn ending(&self, bus: &Bus, deadline: Instant) -> Result<Ending, BusError> {
        let kind = self.interface();
        let (result, code, status, restarts) = tokio::try_join!(
            self.property(bus, &kind, "Result", deadline),
            self.property(bus, &kind, "ExecMainCode", deadline),
            self.property(bus, &kind, "ExecMainStatus", deadline),
            self.property(bus, &kind, "NRestarts", deadline),
        )?;
        Ok(Ending {
            result,
            code: code.unwrap_or_default(),
            status: status.unwrap_or_default(),
            restarts: restarts.unwrap_or_default(),
        })
    }

    /// Reads which execution of the unit the last one was: it changes whenever something is started.
    pub(crate) async fn invocation(&self, bus: &Bus, deadline: Instant) -> Result<Option<Vec<u8>>, BusError> {
        self.property(bus, UNIT, "InvocationID", deadline).await
    }

    /// Reads the pid of its main process, as its machine counts.
    pub(crate) async fn main_pid(&self, bus: &Bus, deadline: Instant) -> Result<Option<u32>, BusError> {
        let pid: Option<u32> = self.property(bus, &self.interface(), "MainPID", deadline).await?;
        Ok(pid.filter(|pid| *pid != 0))
    }

    /// Reads when it was started last: its main process where it has one, else the unit as such.
    pub(crate) async fn started(&self, bus: &Bus, deadline: Instant) -> Result<Started, BusError> {
        let kind = self.interface();
        let (process, process_wall, begun, begun_wall, active, active_wall) = tokio::try_join!(
            self.property(bus, &kind, "ExecMainStartTimestampMonotonic", deadline),
            self.property(bus, &kind, "ExecMainStartTimestamp", deadline),
            self.property(bus, UNIT, "InactiveExitTimestampMonotonic", deadline),
            self.property(bus, UNIT, "InactiveExitTimestamp", deadline),
            self.property(bus, UNIT, "ActiveEnterTimestampMonotonic", deadline),
            self.property(bus, UNIT, "ActiveEnterTimestamp", deadline),
        )?;
        // A unit that waits for systemd's own restart has left "inactive", and nothing was started: its process decides.
        let of = |process: Option<u64>, begun: Option<u64>, active: Option<u64>| {
            process.filter(|at| *at != 0).or(begun.max(active)).unwrap_or_default()
        };
        Ok(Started {
            monotonic_us: of(process, begun, active),
            wall_us: of(process_wall, begun_wall, active_wall),
        })
    }

    /// Reads when its reload commands were run last, and whether all of them succeeded; `None` if it has none.
    pub(crate) async fn reloaded(
        &self,
        bus: &Bus,
        deadline: Instant,
    ) -> Result<Option<(Started, bool)>, BusError> {
        let commands: Option<Vec<Command>> =
            self.property(bus, &self.interface(), "ExecReload", deadline).await?;
        let commands = commands.unwrap_or_default();
        let fine = commands.iter().all(|command| command.2 || (command.8 == EXITED && command.9 == 0));
        let first = commands.first();
        Ok(first.map(|command| (Started { wall_us: command.3, monotonic_us: command.4 }, fine)))
    }

    /// The interface with the properties of its kind; one without the property asked for is no error.
    fn interface(&self) -> String {
        let kind = self.id.rsplit_once('.').map_or("service", |(_, kind)| kind);
        let (first, rest) = kind.split_at_checked(1).unwrap_or(("", ""));
        format!("org.freedesktop.systemd1.{}{rest}", first.to_ascii_uppercase())
    }

    async fn property<T>(
        &self,
        bus: &Bus,
        interface: &str,
        name: &str,
        deadline: Instant,
    ) -> Result<Option<T>, BusError>
    where
        T: TryFrom<OwnedVariant, Error = zbus::Error>,
    {
        let call = Call::property_of(&self.path);
        let value: OwnedVariant = match read(bus, call, &(interface, name), deadline).await {
            Ok(value) => value,
            Err(BusError::Refused { .. }) => return Ok(None),
            Err(err) => return Err(err),
        };
        Ok(T::try_from(value).ok())
    }
}

async fn read<T, B>(bus: &Bus, call: Call<'_>, body: &B, deadline: Instant) -> Result<T, BusError>
where
    T: DeserializeOwned + zbus::Type,
    B: serde::Serialize + zbus::DynamicType + Sync,
{
    let answer = bus.ask(call, body, deadline).await?;
    answer.body().deserialize().map_err(|err| BusError::Garbled { method: call.method().to_owned(), err })
}

/// `CLD_EXITED`, `CLD_KILLED` and `CLD_DUMPED`.
const EXITED: i32 = 1;
const KILLED: i32 = 2;
const DUMPED: i32 = 3;

impl Ending {
    /// The exit code, if the process ended by itself.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        (self.code == EXITED).then_some(self.status)
    }

    /// The signal that ended it.
    pub(crate) fn signal(&self) -> Option<i32> {
        matches!(self.code, KILLED | DUMPED).then_some(self.status)
    }

    /// Puts the state of a unit that ended so into words: "failed (result exit-code, status 1)".
    pub(crate) fn describe(&self, unit: &Unit) -> String {
        let mut parts = Vec::new();
        if unit.sub != unit.active {
            parts.push(unit.sub.clone());
        }
        if let Some(result) = &self.result {
            parts.push(format!("result {result}"));
        }
        match self.code {
            EXITED => parts.push(format!("status {}", status(self.status))),
            KILLED => parts.push(format!("killed by {}", signal(self.status))),
            DUMPED => parts.push(format!("killed by {}, core dumped", signal(self.status))),
            _ => {}
        }
        match self.restarts {
            0 => {}
            1 => parts.push("restarted once by systemd".to_owned()),
            restarts => parts.push(format!("restarted {restarts} times by systemd")),
        }
        format!("{} ({})", unit.active, parts.join(", "))
    }
}

/// The exit status, with systemd's word for those by which it says that it could not even start the program.
fn status(status: i32) -> String {
    let word = match status {
        200 => "CHDIR",
        203 => "EXEC",
        216 => "GROUP",
        217 => "USER",
        226 => "NAMESPACE",
        238 => "STATE_DIRECTORY",
        _ => return status.to_string(),
    };
    format!("{status}/{word}")
}

fn signal(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(active: &str, sub: &str) -> Unit {
        let word = String::from;
        Unit {
            id: word("app.service"),
            path: word("/"),
            load: word("loaded"),
            active: word(active),
            sub: word(sub),
            job: None,
        }
    }

    #[test]
    fn a_name_without_a_kind_is_a_service() {
        for (given, full) in [
            ("app", "app.service"),
            ("app.service", "app.service"),
            ("app@a.example", "app@a.example.service"),
            ("data.mount", "data.mount"),
        ] {
            assert_eq!(full_name(given), full);
        }
    }

    #[test]
    fn an_ending_is_described_in_one_line() {
        let ending = |result: &str, code, status, restarts| Ending {
            result: Some(result.into()),
            code,
            status,
            restarts,
        };
        for (ending, active, sub, text) in [
            (ending("exit-code", EXITED, 1, 0), "failed", "failed", "failed (result exit-code, status 1)"),
            (
                ending("exit-code", EXITED, 203, 0),
                "failed",
                "failed",
                "failed (result exit-code, status 203/EXEC)",
            ),
            (ending("signal", KILLED, 9, 0), "failed", "failed", "failed (result signal, killed by SIGKILL)"),
            (
                ending("core-dump", DUMPED, 11, 2),
                "activating",
                "auto-restart",
                "activating (auto-restart, result core-dump, killed by SIGSEGV, core dumped, restarted 2 times by systemd)",
            ),
            (Ending::default(), "inactive", "dead", "inactive (dead)"),
        ] {
            assert_eq!(ending.describe(&unit(active, sub)), text);
        }
    }
}
