//! How is the watched service broken, and how do we know that a new one listens? `lidless demo-service` and its stamp file.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::Problem;
use crate::http;
use crate::process::{reap, wait_until};

/// What a service can suffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGKILL from outside.
    Kill,
    /// `/health` answers 500.
    Status500,
    /// Accepts and never answers.
    Hang,
    /// Answers 200 and then a byte every 100 ms.
    Drip,
    /// Ends by itself with exit code 1.
    Exit,
}

impl Fault {
    /// For tables.
    pub fn word(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9",
            Fault::Status500 => "HTTP 500",
            Fault::Hang => "hang",
            Fault::Drip => "slow drip",
            Fault::Exit => "exit 1",
        }
    }
}

/// When an instance began to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    /// The instance.
    pub pid: i32,
}

/// One watched service: its port, and the file in which each instance notes its start.
#[derive(Clone, Debug)]
pub struct Service {
    /// The port of all its instances.
    pub port: u16,
    /// The stamp file; its path marks the instances' command lines.
    pub stamp: PathBuf,
}

impl Service {
    /// Chooses a free port below the range from which the kernel takes the ports of clients.
    pub fn new(dir: &Path, name: &str, from_port: u16) -> Result<Service, Problem> {
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = (from_port..from_port + 200).find(free).ok_or("no free port")?;
        Ok(Service { port, stamp: dir.join(format!("{name}.stamp")) })
    }

    /// The command that starts an instance.
    pub fn command(&self, lidless: &Path) -> Vec<String> {
        vec![
            lidless.display().to_string(),
            "demo-service".to_owned(),
            "--port".to_owned(),
            self.port.to_string(),
            "--stamp".to_owned(),
            self.stamp.display().to_string(),
        ]
    }

    /// All starts so far, in order.
    pub fn stamps(&self) -> Vec<Stamp> {
        let text = std::fs::read_to_string(&self.stamp).unwrap_or_default();
        let parse = |line: &str| {
            let mut fields = line.split_ascii_whitespace();
            Some(Stamp { at: fields.next()?.parse().ok()?, pid: fields.next()?.parse().ok()? })
        };
        text.lines().filter_map(parse).collect()
    }

    /// Instances that found the port taken: lines that begin with `#`.
    pub fn refused(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.stamp).unwrap_or_default();
        text.lines().filter(|l| l.starts_with('#')).map(str::to_owned).collect()
    }

    /// Waits for the first start after the first `known` ones.
    pub fn wait_for_start(&self, known: usize, within: Duration) -> Option<Stamp> {
        let mut new = None;
        // The moment is in the file, so that looking seldom costs nothing but our own time.
        wait_until(within, Duration::from_millis(4), || {
            let stamps = self.stamps();
            // The old one, should it be an orphan: as long as it is a zombie, monit takes it for alive.
            stamps.iter().rev().take(2).for_each(|stamp| reap(stamp.pid));
            new = stamps.get(known).copied();
            new.is_some()
        });
        new
    }

    /// Waits until `/health` answers 200.
    pub fn wait_until_well(&self, within: Duration) -> bool {
        wait_until(within, Duration::from_millis(20), || http::is_well(self.port))
    }

    /// Breaks the running instance; returns its pid, where it said or we know it.
    pub fn inflict(&self, fault: Fault) -> Result<i32, Problem> {
        let how = match fault {
            Fault::Kill => {
                let last = self.stamps().last().copied().ok_or("the service has never started")?;
                kill_process(Pid::from_raw(last.pid).ok_or("no pid in the stamp file")?, Signal::KILL)?;
                return Ok(last.pid);
            }
            Fault::Status500 => "500",
            Fault::Hang => "hang",
            Fault::Drip => "drip",
            Fault::Exit => "exit",
        };
        let answer = http::get(self.port, &format!("/break?how={how}"), Duration::from_millis(500))?;
        let pid = answer.body.split_ascii_whitespace().last().and_then(|w| w.parse().ok());
        Ok(pid.ok_or_else(|| format!("unexpected answer to /break?how={how}: {}", answer.body))?)
    }

    /// Makes the running instance well again.
    pub fn mend(&self) {
        drop(http::get(self.port, "/break?how=ok", Duration::from_millis(500)));
    }
}

/// Nanoseconds since the Unix epoch, on the clock of the stamps.
pub fn nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
