//! Where do the words of runs go, and how long are they kept? To our log, and to a file of each run's own: the newest of them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lidless_drivers::step::{Call, Log};

use super::dispatcher::Daemon;
use super::effects::Done;

/// More than this of what a run has to say is not kept.
const LOG_MAX: u64 = 1024 * 1024;
/// The words of so many runs are kept, of those that said something last.
const RUNS_MAX: usize = 200;
/// So many bytes they may have together; the newest are kept in any case.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The folder of all runs' words.
#[derive(Clone, Debug, Default)]
pub(super) struct RunLogs {
    folder: PathBuf,
    /// There may be more files than when it was last tidied.
    grown: Arc<AtomicBool>,
}

impl RunLogs {
    /// Returns the logs in a folder. An empty path keeps no words of runs.
    pub(super) fn new(folder: PathBuf) -> RunLogs {
        RunLogs { folder, grown: Arc::new(AtomicBool::new(true)) }
    }

    /// Where the words of an attempt go.
    pub(super) fn of(&self, call: &Call) -> RunLog {
        RunLog { run: call.run.clone(), step: call.step.clone(), logs: self.clone(), file: Mutex::new(None) }
    }

    /// A run without words has no file, and where nothing is kept there is no folder for one.
    fn open(&self, run: &str) -> Option<File> {
        if self.folder.as_os_str().is_empty() {
            return None;
        }
        std::fs::create_dir_all(&self.folder).ok()?;
        self.grown.store(true, Ordering::Relaxed);
        let path = self.folder.join(format!("{run}.log"));
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).ok()
    }
}

impl Daemon {
    /// Has the oldest words go, beside everything else. At the start, and where a run is over that said something.
    pub(super) fn tidy_run_logs(&mut self) {
        let logs = self.drivers.run_logs();
        if !logs.folder.as_os_str().is_empty() && logs.grown.swap(false, Ordering::Relaxed) {
            let folder = logs.folder.clone();
            self.tasks.spawn_blocking(move || {
                if let Err(err) = tidy(&folder, RUNS_MAX, BYTES_MAX) {
                    tracing::warn!(folder = %folder.display(), error = %err, "Old words of runs were not removed.");
                }
                Done::Tidied
            });
        }
    }
}

/// Removes the oldest logs of a folder, by when something was last said in them.
fn tidy(folder: &Path, runs_max: usize, bytes_max: u64) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut logs = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("run-") && name.ends_with(".log")) {
            let about = entry.metadata()?;
            logs.push((about.modified()?, about.len(), entry.path()));
        }
    }
    logs.sort_unstable_by(|one, other| other.cmp(one));
    let mut bytes = 0;
    for (index, (_, length, path)) in logs.into_iter().enumerate() {
        bytes += length;
        if index >= runs_max || (index > 0 && bytes > bytes_max) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Where the words of a run's step go.
pub(super) struct RunLog {
    run: String,
    step: String,
    logs: RunLogs,
    file: Mutex<Option<File>>,
}

impl Log for RunLog {
    fn line(&self, line: &str) {
        tracing::info!(run = %self.run, step = %self.step, line, "Said.");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = self.logs.open(&self.run);
        }
        if let Some(file) = &mut *file {
            let full = file.metadata().is_ok_and(|meta| meta.len() > LOG_MAX);
            // A full disk costs the words, not the step.
            if !full {
                drop(writeln!(file, "{} {line}", self.step));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, SystemTime};

    use super::*;

    fn kept(sizes: &[usize], runs_max: usize, bytes_max: u64) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (age, size) in sizes.iter().enumerate() {
            // The smaller its number, the newer.
            let file = File::create(folder.path().join(format!("run-{age}.log"))).unwrap();
            (&file).write_all(&vec![b'x'; *size]).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(60 * age as u64)).unwrap();
        }
        std::fs::write(folder.path().join("else.txt"), "not ours").unwrap();
        tidy(folder.path(), runs_max, bytes_max).unwrap();
        let names = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names.remove(0), "else.txt");
        names
    }

    #[test]
    fn the_words_of_the_newest_runs_are_kept() {
        assert_eq!(kept(&[1; 5], 3, 100), ["run-0.log", "run-1.log", "run-2.log"]);
        assert_eq!(kept(&[1; 2], 3, 100), ["run-0.log", "run-1.log"]);
    }

    #[test]
    fn so_many_bytes_are_kept_and_the_newest_whatever_it_has() {
        assert_eq!(kept(&[40, 40, 40, 40], 9, 100), ["run-0.log", "run-1.log"]);
        assert_eq!(kept(&[400, 40], 9, 100), ["run-0.log"]);
    }

    #[test]
    fn a_folder_that_there_is_not_has_nothing_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        tidy(&folder.path().join("runs"), 1, 1).unwrap();
    }
}
