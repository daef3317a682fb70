//! How is a one-liner kept? Its service is appended to a configuration file, which must still be good afterwards.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Globals;
use super::exit::Exit;
use crate::config;

/// Appends a service to the file, or begins one. A file that would not be good afterwards is left as it was.
pub(super) fn save(path: &Path, service: &str, key: &str, globals: &Globals) -> Exit {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
        Err(err) => {
            return globals.fail(Exit::Permission, &format!("cannot read {}: {err}", path.display()), None);
        }
    };
    let after = match &before {
        None => format!("version: 1\nservices:\n{service}"),
        Some(text) => match append(text, service) {
            Some(text) => text,
            None => {
                let why =
                    format!("{}: `services:` is not the block that a line can be added to", path.display());
                let hint = format!("add this below `services:` by hand:\n{service}");
                return globals.fail(Exit::Config, &why, Some(&hint));
            }
        },
    };
    if let Err(problems) = config::from_str(&path.display().to_string(), &after) {
        globals.say(&format!("{} was left as it is: with `{key}` it would not be good", path.display()));
        return globals.config_problems(&problems);
    }
    if let Err(err) = replace(path, &after) {
        return globals.fail(Exit::Permission, &format!("cannot write {}: {err}", path.display()), None);
    }
    globals.say(&format!("{}: service `{key}` added", path.display()));
    globals.say(&format!("next: lidless serve {}", path.display()));
    Exit::Ok
}

/// Returns the working directory if paths in a file at `path`, which go from its own directory, would not go from there.
pub(super) fn elsewhere(path: &Path) -> Result<Option<String>, String> {
    let lost = |err: std::io::Error| format!("the working directory is lost: {err}");
    let here = std::env::current_dir().map_err(lost)?;
    // The folder of a link counts: from there the file will be read. One that is not there is somewhere else.
    let folder = std::path::absolute(path).ok().and_then(|path| std::fs::canonicalize(folder_of(&path)).ok());
    if folder.is_some() && folder == std::fs::canonicalize(&here).ok() {
        return Ok(None);
    }
    match here.into_os_string().into_string() {
        Ok(here) => Ok(Some(here)),
        Err(here) => {
            Err(format!("the path of {} cannot be written in YAML: it is not UTF-8", here.display()))
        }
    }
}

/// Puts the service at the end of the top-level `services:` block.
fn append(text: &str, service: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let Some(start) = lines.iter().position(|line| line.trim_end() == "services:") else {
        let has_other = lines.iter().any(|line| line.starts_with("services:"));
        return (!has_other).then(|| format!("{}\nservices:\n{service}", text.trim_end()));
    };
    let ends = |line: &&str| !line.is_empty() && !line.starts_with([' ', '#']);
    let end = lines[start + 1..].iter().position(ends).map_or(lines.len(), |at| start + 1 + at);
    let mut after: Vec<&str> = lines[..end].to_vec();
    while after.last().is_some_and(|line| line.trim().is_empty()) {
        after.pop();
    }
    after.extend(service.lines());
    after.extend(&lines[end..]);
    Some(after.join("\n") + "\n")
}

/// Writes beside the file and renames: a crash leaves the old one or the new one. What the file may be read by stays as it is.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    // A link stays one: what it points to is replaced.
    let path = match std::fs::canonicalize(path) {
        Ok(path) => path,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => path.to_owned(),
        Err(err) => return Err(err),
    };
    let mode = match std::fs::metadata(&path) {
        Ok(found) => Some(found.permissions().mode() & 0o7777),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
        Err(err) => return Err(err),
    };
    let (beside, mut file) = create_beside(&path)?;
    let mut write = || -> std::io::Result<()> {
        // Closed to others until now: a configuration may hold secrets.
        file.set_permissions(Permissions::from_mode(mode.unwrap_or(0o644)))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    };
    if let Err(err) = write() {
        drop(std::fs::remove_file(&beside));
        return Err(err);
    }
    File::open(folder_of(&path))?.sync_all()
}

/// Creates a file of a name that is not taken, not even by a link that somebody laid there.
fn create_beside(path: &Path) -> std::io::Result<(PathBuf, File)> {
    for attempt in 0..100 {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}-{attempt}.new", std::process::id()));
        match File::options().write(true).create_new(true).mode(0o600).open(&beside) {
            Ok(file) => return Ok((PathBuf::from(beside), file)),
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs::{
        Permissions, metadata, read_dir, read_to_string, set_permissions, symlink_metadata, write,
    };
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::{append, replace};

    const NEW: &str = "  b:\n    checks: {}\n";

    #[test]
    fn a_service_lands_at_the_end_of_the_block() {
        let text = "version: 1\nservices:\n  a:\n    checks: {}\n\nweb: off\n";
        let expected = "version: 1\nservices:\n  a:\n    checks: {}\n  b:\n    checks: {}\nweb: off\n";
        assert_eq!(append(text, NEW).as_deref(), Some(expected));
    }

    #[test]
    fn a_file_without_services_gets_the_block() {
        assert_eq!(
            append("version: 1\n", NEW).as_deref(),
            Some("version: 1\nservices:\n  b:\n    checks: {}\n")
        );
    }

    #[test]
    fn a_flow_mapping_is_left_alone() {
        assert_eq!(append("version: 1\nservices: {}\n", NEW), None);
    }

    #[test]
    fn a_link_stays_a_link_and_a_closed_file_stays_closed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (real, link) = (dir.path().join("real.yaml"), dir.path().join("link.yaml"));
        write(&real, "old").expect("a file");
        set_permissions(&real, Permissions::from_mode(0o600)).expect("a mode");
        symlink("real.yaml", &link).expect("a link");
        replace(&link, "new").expect("it is replaced");
        assert!(symlink_metadata(&link).expect("it is there").is_symlink());
        assert_eq!(read_to_string(&real).expect("it is there"), "new");
        assert_eq!(metadata(&real).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(read_dir(dir.path()).expect("a folder").count(), 2, "nothing else is left");
    }
}
