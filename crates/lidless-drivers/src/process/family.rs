//! Who belongs to an instance? Whoever kept its session, its parent or its environment.
//!
//! A process leaves the session by one call: `su` does so for its command, and any daemon that forks twice. The session
//! alone would prove "gone" too early, and a second copy would start beside the first one. So there are three ways back
//! to an instance, and who has lost all three belongs to it no more. Control groups would know better, but need a
//! hierarchy that is ours to write in, which a container or another user's lidless doesn't have.
//!
//! Reads the environment of other processes, which is slow: for acts, never for a probe.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::instance::{Instance, Member, PID_VARIABLE, SLOT_VARIABLE, Stat, living, pids, stat};

/// By which an instance's processes are told from all others.
#[derive(Clone, Debug)]
pub(crate) struct Kinship {
    instance: Instance,
    slot: Vec<u8>,
    pid: Vec<u8>,
    /// Members that were seen before: the parent that led to them may have ended since.
    known: Vec<Member>,
}

/// What a process's environment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    Ours,
    /// Another slot's, or another instance's.
    Foreign,
    None,
    /// Empty, as it is for a moment during `exec`.
    Empty,
}

impl Kinship {
    /// Of an instance that is recorded in this slot, with the members that are known already.
    pub(crate) fn new(instance: &Instance, slot: &Path, known: Vec<Member>) -> Kinship {
        let variable = |name: &str, value: &[u8]| [name.as_bytes(), b"=", value].concat();
        Kinship {
            slot: variable(SLOT_VARIABLE, instance.slot.as_deref().unwrap_or(slot).as_os_str().as_bytes()),
            pid: variable(PID_VARIABLE, instance.pid.to_string().as_bytes()),
            instance: instance.clone(),
            known,
        }
    }

    /// Lists the living members, the main process included.
    pub(crate) fn living(&self, boot_id: &str) -> io::Result<Vec<Member>> {
        if self.instance.boot_id != boot_id {
            return Ok(Vec::new());
        }
        // The number was given away again: the kernel does that only after the last of its group and session is gone.
        let renamed =
            stat(self.instance.pid)?.is_some_and(|stat| stat.start_ticks != self.instance.start_ticks);
        let me = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        // A lidless that the service itself started carries the same mark, and so do its checks: it proves nothing.
        let marked = self.mark_of(me) != Mark::Ours;

        let (mut members, mut others, mut unclear) = (Vec::new(), Vec::new(), Vec::new());
        for pid in pids()?.filter(|pid| *pid != me) {
            // A process that vanishes while we look is not a member any more.
            let Some(stat) = living(pid)?.filter(|stat| stat.start_ticks >= self.instance.start_ticks) else {
                continue;
            };
            let member = Member { pid, start_ticks: stat.start_ticks };
            if self.known.contains(&member) || !renamed && self.is_in_session(stat) {
                members.push(member);
                continue;
            }
            match self.mark_of(pid) {
                Mark::Ours if marked => members.push(member),
                Mark::Ours | Mark::None => others.push((member, stat.parent)),
                // What another lidless runs below this one outlives that lidless: its family ends there.
                Mark::Foreign => {}
                Mark::Empty => unclear.push((member, stat.parent)),
            }
        }
        for (member, parent) in unclear {
            match self.mark_of(member.pid) {
                Mark::Ours if marked => members.push(member),
                Mark::Ours | Mark::None | Mark::Empty => others.push((member, parent)),
                Mark::Foreign => {}
            }
        }
        add_descendants(&mut members, others);
        Ok(members)
    }

    fn is_in_session(&self, stat: Stat) -> bool {
        stat.group == self.instance.pid || stat.session == self.instance.pid
    }

    fn mark_of(&self, pid: i32) -> Mark {
        // Root without CAP_SYS_PTRACE may not read that of other users, as in many containers.
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return Mark::None };
        if environment.is_empty() {
            return Mark::Empty;
        }
        let (mut slot, mut own_pid, mut any) = (false, false, false);
        for pair in environment.split(|byte| *byte == 0) {
            slot |= pair == self.slot;
            own_pid |= pair == self.pid;
            any |=
                pair.strip_prefix(SLOT_VARIABLE.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='));
        }
        match (slot && own_pid, any) {
            (true, _) => Mark::Ours,
            (false, true) => Mark::Foreign,
            (false, false) => Mark::None,
        }
    }
}

/// Moves those whose parent is a member to the members, until there is none left.
fn add_descendants(members: &mut Vec<Member>, mut others: Vec<(Member, i32)>) {
    let mut looked_at = 0;
    while let Some(parent) = members.get(looked_at).map(|member| member.pid) {
        members.extend(others.extract_if(.., |(_, of)| *of == parent).map(|(member, _)| member));
        looked_at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_in_whatever_order_they_are_listed() {
        let member = |pid| Member { pid, start_ticks: 7 };
        let mut members = vec![member(10)];
        let others =
            vec![(member(13), 12), (member(20), 1), (member(12), 10), (member(11), 10), (member(21), 20)];
        add_descendants(&mut members, others);
        let pids: Vec<_> = members.iter().map(|member| member.pid).collect();
        assert_eq!(pids, [10, 12, 11, 13]);
    }
}
