//! What of an attempt lies on the disk while it runs as a unit? What it is told, and what it says, for whoever asks later.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::output::{TAIL_MAX, Tail};
use crate::child::{CommandSpec, OURS_ALONE};

/// How much of the beginning of its standard output is looked at, for its first line.
const HEAD: u64 = 4 * 1024;
/// How much of its standard error is read at once, and in all.
const PIECE: u64 = 64 * 1024;
const ERR_MAX: u64 = 16 * 1024 * 1024;

/// The folder of one attempt. Only we may look into it.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn at(path: PathBuf) -> Folder {
        Folder(path)
    }

    pub(super) fn exists(&self) -> bool {
        self.0.is_dir()
    }

    pub(super) fn env(&self) -> PathBuf {
        self.0.join("env")
    }

    pub(super) fn stdin(&self) -> PathBuf {
        self.0.join("in")
    }

    pub(super) fn stdout(&self) -> PathBuf {
        self.0.join("out")
    }

    pub(super) fn stderr(&self) -> PathBuf {
        self.0.join("err")
    }

    /// Makes it, with what the attempt is told.
    pub(super) fn fill(&self, environment: &str, question: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let files =
            [(self.env(), environment), (self.stdin(), question), (self.stdout(), ""), (self.stderr(), "")];
        for (path, text) in files {
            let mut file =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// What is gone already needs not be removed.
    pub(super) fn remove(&self) {
        if let Err(err) = fs::remove_dir_all(&self.0)
            && err.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.0.display(), error = %err, "What a step said stays on the disk.");
        }
    }

    /// The beginning and the end of what it wrote to its standard output.
    pub(super) fn said(&self) -> io::Result<Tail> {
        let mut file = File::open(self.stdout())?;
        let length = file.metadata()?.len();
        let end = length.saturating_sub(TAIL_MAX as u64);
        let mut tail = Tail::default();
        if end > 0 {
            tail.push(&read(&mut file, HEAD)?);
            file.seek(SeekFrom::Start(end))?;
        }
        tail.push(&read(&mut file, TAIL_MAX as u64)?);
        Ok(tail)
    }

    /// What was written to its standard error after so many bytes; nothing after the most that is read.
    pub(super) fn complaint(&self, from: u64) -> io::Result<Vec<u8>> {
        if from >= ERR_MAX {
            return Ok(Vec::new());
        }
        let mut file = File::open(self.stderr())?;
        file.seek(SeekFrom::Start(from))?;
        read(&mut file, PIECE)
    }
}

fn read(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The environment that a child of ours would have, as systemd reads it from a file: who may ask systemd about a unit must
/// not be told our secrets. None where such a file cannot hold it.
pub(super) fn environment(command: &CommandSpec) -> Option<String> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        if !OURS_ALONE.contains(&name.as_str()) {
            variables.insert(name, value);
        }
    }
    variables.extend(command.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut file = String::new();
    for (name, value) in &variables {
        let is_name = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
        if name.is_empty()
            || name.starts_with(|first: char| first.is_ascii_digit())
            || !name.bytes().all(is_name)
        {
            return None;
        }
        let mut quoted = String::with_capacity(value.len());
        for character in value.chars() {
            if matches!(character, '"' | '\\' | '`' | '$') {
                quoted.push('\\');
            }
            quoted.push(character);
        }
        writeln!(file, "{name}=\"{quoted}\"").ok()?;
    }
    Some(file)
}

/// Where the program lies, as a child of ours would find it. None where it would not, or cannot run.
pub(super) fn program(command: &CommandSpec, dir: &Path) -> Option<PathBuf> {
    let name = command.argv.first().filter(|name| !name.is_empty())?;
    let runs = |path: &PathBuf| {
        path.is_file()
            && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
            && path.to_str().is_some()
    };
    if name.contains('/') {
        return Some(dir.join(name)).filter(runs);
    }
    let path = match command.env.get("PATH") {
        Some(path) => path.into(),
        None => std::env::var_os("PATH")?,
    };
    std::env::split_paths(&path).map(|folder| dir.join(folder).join(name)).find(runs)
}

/// What our own children may not grant to others when they make a file.
pub(super) fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0o022)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_is_what_systemd_reads_back() {
        let command = |name: &str, value: &str| CommandSpec {
            env: [(name.to_owned(), value.to_owned())].into(),
            ..CommandSpec::default()
        };
        let file = environment(&command("A_1", "a \"b\" $c `d` \\e\nf'g")).expect("it can be written");
        assert!(file.contains("A_1=\"a \\\"b\\\" \\$c \\`d\\` \\\\e\nf'g\"\n"), "{file}");
        for name in ["", "1A", "A-B", "A B", "É"] {
            let held = environment(&command(name, "")).is_some();
            assert!(!held, "{name}");
        }
    }

    #[test]
    fn both_ends_of_a_long_output_are_read() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let folder = Folder::at(folder.path().join("unit"));
        folder.fill("", "").expect("a new folder");
        let long = format!("first\n{}last\n", "x\n".repeat(TAIL_MAX));
        fs::write(folder.stdout(), &long).expect("it is ours");
        let mut tail = folder.said().expect("it is there");
        assert!(tail.is_cut());
        assert_eq!(tail.first_line().as_deref(), Some("first"));
        assert_eq!(tail.text(), &long.as_bytes()[long.len() - TAIL_MAX..]);
    }
}
