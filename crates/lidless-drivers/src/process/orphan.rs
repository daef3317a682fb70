//! Which processes run on though no configured service is theirs? A service was renamed, or left the configuration.
//!
//! Such a process is nobody's to stop: it may be serving still. It is named to a human, and no second copy of it is started
//! under another name.

use std::fs;
use std::io;
use std::path::Path;

use super::family::Kinship;
use super::instance::{Instance, Member, boot_id};
use super::managed::ProcessError;
use super::settings::ProcessSettings;
use super::slot::{Slot, SlotError};

/// A living process of a service that is not configured.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The name that the service had.
    pub service: String,
    /// The main process; or, where that has ended, one that it left behind.
    pub pid: i32,
    /// What it runs, as the kernel tells it.
    pub command: String,
    member: Member,
    instance: Instance,
    slot: Slot,
    fingerprint: Option<u64>,
}

impl Orphan {
    /// Lists those that are remembered in `slots`, a directory of slots; it may be missing.
    pub fn all(slots: &Path, is_configured: impl Fn(&str) -> bool) -> Result<Vec<Orphan>, ProcessError> {
        let cannot_read = |err| SlotError::Read { path: slots.to_owned(), err };
        let entries = match fs::read_dir(slots) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(cannot_read(err).into()),
        };
        let boot_id = boot_id()?;
        let mut orphans = Vec::new();
        for entry in entries {
            let entry = entry.map_err(cannot_read)?;
            // Names in a configuration are UTF-8; and what has no record is no slot, or never had an instance.
            let Ok(service) = entry.file_name().into_string() else { continue };
            if !is_configured(&service) && Slot::is_at(&entry.path()) {
                match Orphan::of(service, &entry.path(), &boot_id) {
                    Ok(found) => orphans.extend(found),
                    // The others still count.
                    Err(err) => {
                        tracing::warn!(slot = %entry.path().display(), error = %err, "A slot cannot be read.")
                    }
                }
            }
        }
        orphans.sort_by(|one, other| one.service.cmp(&other.service));
        Ok(orphans)
    }

    fn of(service: String, slot: &Path, boot_id: &str) -> Result<Option<Orphan>, ProcessError> {
        let slot = Slot::open(slot)?;
        let record = slot.read_or_find(boot_id)?;
        let Some(instance) = record.instance else { return Ok(None) };
        let Some(member) = any_living(&instance, &slot, boot_id)? else { return Ok(None) };
        let (pid, command) = (member.pid, command_line(member.pid).join(" "));
        Ok(Some(Orphan { service, pid, command, member, instance, slot, fingerprint: record.fingerprint }))
    }

    /// Whether it is what these settings would start.
    pub fn runs(&self, settings: &ProcessSettings) -> bool {
        match self.fingerprint {
            Some(fingerprint) => fingerprint == fingerprint_of(&settings.command, settings.dir.as_deref()),
            // Recorded by a lidless that did not write it down: what the kernel tells has to do.
            None => {
                let dir = fs::read_link(format!("/proc/{}/cwd", self.pid)).ok();
                command_line(self.pid) == settings.command
                    && settings.dir.as_ref().is_none_or(|wanted| dir == wanted.canonicalize().ok())
            }
        }
    }

    /// Whether the process that was found lives still. Cheap.
    pub fn is_there(&self) -> bool {
        // Where nobody knows it is better named once too often.
        !matches!(self.member.open(), Ok(None))
    }

    /// Looks again for anything of it that lives, and returns its pid. A walk through all processes.
    pub(crate) fn look(&self) -> io::Result<Option<i32>> {
        Ok(any_living(&self.instance, &self.slot, &boot_id()?)?.map(|member| member.pid))
    }
}

/// The main process first.
fn any_living(instance: &Instance, slot: &Slot, boot_id: &str) -> io::Result<Option<Member>> {
    let family = Kinship::new(instance, slot.dir(), Vec::new()).living(boot_id)?;
    Ok(family.into_iter().min_by_key(|member| (member.pid != instance.pid, member.pid)))
}

fn command_line(pid: i32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Tells one command from another, in a record that must stay small: FNV-1a, which is the same in every version of ours.
///
/// The kernel's own view would not do: a shell that ends in `exec` shows another command than it was started with.
pub(crate) fn fingerprint_of(command: &[String], dir: Option<&Path>) -> u64 {
    let dir = dir.map(|dir| dir.as_os_str().as_encoded_bytes());
    let words = command.iter().map(String::as_bytes).chain(dir);
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        // No word of a command holds a zero byte: it parts them.
        word.iter()
            .chain(&[0])
            .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_words_and_directories_apart() {
        let of = |words: &[&str], dir: Option<&str>| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            fingerprint_of(&words, dir.map(Path::new))
        };
        // Fixed: a record outlives the lidless that wrote it.
        assert_eq!(of(&[], None), 0xcbf2_9ce4_8422_2325);
        assert_eq!(of(&["a", "b"], Some("/srv")), of(&["a", "b"], Some("/srv")));
        assert_ne!(of(&["a", "b"], None), of(&["ab"], None));
        assert_ne!(of(&["a", "b"], Some("/srv")), of(&["a", "b"], Some("/srv/x")));
    }
}
