//! Which faults were injected, and what must not follow from them? Overlapping instances, and restarts without a cause.

use std::path::Path;

use serde_json::Value;

use crate::demo::{Fault, Service, nanoseconds};
use crate::journal::Events;
use crate::process::{self, Instance};

/// A fault that was injected.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// Into which service.
    pub service: usize,
    /// When it began, in nanoseconds since the Unix epoch.
    pub at: u64,
    /// Into which instance; nobody knows where the service did not say.
    pub pid: Option<i32>,
}

/// Two instances of one service that lived at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Overlap {
    /// Which service.
    pub service: usize,
    /// Their pids.
    pub pids: (i32, i32),
}

/// Breaks a service; nothing where it was not there to be broken.
pub fn inject(services: &[Service], index: usize, fault: Fault) -> Option<Injection> {
    let at = nanoseconds();
    match services.get(index)?.inflict(fault) {
        Ok(pid) => Some(Injection { service: index, at, pid: Some(pid) }),
        // A refused connection broke nobody, a signal to nobody neither; any other failure may have.
        Err(problem) => {
            let harmless = fault == Fault::Kill
                || problem
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|err| err.kind() == std::io::ErrorKind::ConnectionRefused);
            (!harmless).then_some(Injection { service: index, at, pid: None })
        }
    }
}

/// Looks for services of which two instances live right now; `dir` holds all their stamp files.
pub fn overlaps(dir: &Path, services: &[Service]) -> Vec<Overlap> {
    let found = process::find_lines(&format!("{}/app-", dir.display()));
    let mut overlaps = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let stamp = service.stamp.display().to_string();
        let own: Vec<Instance> =
            found.iter().filter(|(_, line)| line.contains(&stamp)).map(|(i, _)| *i).collect();
        for (nth, later) in own.iter().enumerate() {
            // The earlier was seen first. Only if it lives still did it live when the later one was seen.
            if let Some(earlier) = own[..nth].iter().find(|earlier| earlier.is_alive()) {
                overlaps.push(Overlap { service: index, pids: (earlier.pid, later.pid) });
            }
        }
    }
    overlaps
}

/// Looks for instances that were replaced though nobody had broken them: a restart done twice shows as one.
pub fn unprovoked(index: usize, service: &Service, injections: &[Injection], events: &Events) -> Vec<String> {
    let stamps = service.stamps();
    let mut found = Vec::new();
    for (old, new) in stamps.iter().zip(stamps.iter().skip(1)) {
        let broken = injections.iter().filter(|i| i.service == index).any(|i| match i.pid {
            Some(pid) => pid == old.pid,
            None => i.at <= new.at && i.at + 1_000_000_000 >= old.at,
        });
        if !broken && !timed_out(index, old.at, new.at, events) {
            found.push(format!("app-{index}: nobody broke {}, and {} replaced it", old.pid, new.pid));
        }
    }
    found
}

/// On a machine that is too busy a probe may be too late: then lidless restarts with a cause of its own, and says so.
fn timed_out(index: usize, from: u64, to: u64, events: &Events) -> bool {
    events.values().any(|event| {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        let at = event.pointer("/record/wall_ms").and_then(Value::as_u64).unwrap_or(0) * 1_000_000;
        text("/service") == Some(&format!("app-{index}"))
            && text("/record/failure/kind") == Some("timeout")
            && at + 1_000_000 >= from
            && at <= to
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn service(dir: &Path, stamps: &str) -> Service {
        let stamp = dir.join("app-0.stamp");
        std::fs::write(&stamp, stamps).unwrap();
        Service { port: 1, stamp }
    }

    #[test]
    fn an_instance_that_nobody_broke_must_not_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path(), "1000 11\n2000 12\n# 2500 99 cannot listen\n3000 13\n");
        let injections = [Injection { service: 0, at: 1500, pid: Some(11) }];
        let found = unprovoked(0, &service, &injections, &Events::new());
        assert_eq!(found, ["app-0: nobody broke 12, and 13 replaced it"]);
        assert_eq!(service.refused(), ["# 2500 99 cannot listen"]);
    }

    #[test]
    fn a_timeout_in_the_journal_is_a_cause() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path(), "1000000000 11\n2000000000 12\n");
        let event = serde_json::json!({
            "seq": 1, "service": "app-0", "record": {"wall_ms": 1500, "failure": {"kind": "timeout"}}
        });
        let events = Events::from([(1, event)]);
        assert_eq!(unprovoked(0, &service, &[], &events), [""; 0]);
        assert_eq!(unprovoked(0, &service, &[], &Events::new()).len(), 1);
    }

    #[test]
    fn two_live_processes_of_one_service_are_an_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path(), "");
        let marker = service.stamp.display().to_string();
        let start = || {
            let mut command = std::process::Command::new("sleep");
            std::os::unix::process::CommandExt::arg0(&mut command, &marker);
            process::Guarded::start("sleep", command.arg("60"), &dir.path().join("log")).unwrap()
        };
        let first = start();
        let one = std::slice::from_ref(&service);
        assert!(overlaps(dir.path(), one).is_empty());
        let second = start();
        assert!(process::wait_until(
            std::time::Duration::from_secs(5),
            std::time::Duration::from_millis(5),
            || overlaps(dir.path(), one).len() == 1
        ));
        drop((first, second));
        assert!(overlaps(dir.path(), one).is_empty());
    }
}
