//! What does a process cost? Memory from smaps_rollup, CPU time from stat, which counts every thread.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Problem;
use crate::process;

/// What a process cost over a stretch of time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Resident memory at the end.
    pub rss_mib: f64,
    /// Of that, with shared pages divided among those who share them.
    pub pss_mib: f64,
    /// 100 is one core.
    pub cpu_percent: f64,
}

/// A measurement under way.
#[derive(Debug)]
pub struct Meter {
    pid: i32,
    began: Instant,
    cpu: Duration,
}

impl Meter {
    /// Begins.
    pub fn start(pid: u32) -> Result<Meter, Problem> {
        let pid = i32::try_from(pid)?;
        Ok(Meter { pid, began: Instant::now(), cpu: cpu_time(pid)? })
    }

    /// Ends.
    pub fn stop(self) -> Result<Load, Problem> {
        let elapsed = self.began.elapsed();
        let cpu = cpu_time(self.pid)?.saturating_sub(self.cpu);
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        let mib = |name: &str| {
            let kib = rollup
                .lines()
                .find_map(|l| l.strip_prefix(name)?.split_ascii_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or(f64::NAN) / 1024.0
        };
        Ok(Load {
            rss_mib: mib("Rss:"),
            pss_mib: mib("Pss:"),
            cpu_percent: 100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
        })
    }
}

fn cpu_time(pid: i32) -> Result<Duration, Problem> {
    let fields = process::stat(pid).ok_or_else(|| format!("process {pid} is gone"))?;
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let all = ticks(11) + ticks(12);
    Ok(Duration::from_secs(all) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}
