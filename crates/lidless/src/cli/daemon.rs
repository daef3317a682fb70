//! Which daemon is meant? Finds its socket, and says where it looked when nobody answers.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use super::globals::{Globals, config_file};
use crate::api::client::Client;
use crate::config::{self, Secrets};

/// Where a system's daemon listens.
const SYSTEM_SOCKET: &str = "/run/lidless/lidless.sock";
/// The store that a configuration without `store.path` names.
const SYSTEM_STORE: &str = "/var/lib/lidless/lidless.db";
/// The store of the quick start.
const LOCAL_STORE: &str = "lidless-data/lidless.db";

/// Returns the socket of the daemon that keeps this store, unless it was given another.
pub fn socket_for_store(store: &Path) -> PathBuf {
    store.with_file_name("lidless.sock")
}

/// Returns a client for the daemon that is meant, or says where it was looked for.
pub(super) fn find(globals: &Globals) -> Result<Client, Failure> {
    let sockets = candidates(globals)?;
    let mut tried = Vec::new();
    for socket in sockets {
        // Only a connection tells a daemon from the socket that a killed one left behind.
        match UnixStream::connect(&socket) {
            Ok(_) => return Ok(Client::new(socket)),
            Err(err) => tried.push((socket, err)),
        }
    }
    Err(nobody_answers(globals, &tried))
}

/// Returns the store that is meant.
pub(super) fn store(globals: &Globals) -> Result<PathBuf, Failure> {
    let local = Path::new(LOCAL_STORE);
    let config = config_of(globals);
    match config {
        Some(config) => store_of(&config),
        None if local.exists() => Ok(local.to_owned()),
        None => Ok(PathBuf::from(SYSTEM_STORE)),
    }
}

/// Returns the store that a configuration names.
fn store_of(config: &Path) -> Result<PathBuf, Failure> {
    match config::load_with(&[config.to_owned()], Secrets::Optional) {
        Ok(loaded) => Ok(loaded.resolved.store_path),
        Err(problems) => {
            let failure =
                Failure::new(Exit::of_config(&problems), format!("{}: {problems}", config.display()));
            Err(failure.hint(format!("lidless check {}", config.display())))
        }
    }
}

/// The configuration that is meant, if there is one.
fn config_of(globals: &Globals) -> Option<PathBuf> {
    let local = Path::new("lidless.yaml");
    match &globals.args.config {
        Some(path) => Some(config_file(path)),
        None => local.is_file().then(|| local.to_owned()),
    }
}

fn candidates(globals: &Globals) -> Result<Vec<PathBuf>, Failure> {
    if let Some(socket) = &globals.args.connect {
        return Ok(vec![socket.clone()]);
    }
    if globals.args.config.is_some() {
        return Ok(vec![socket_for_store(&store(globals)?)]);
    }
    let mut sockets = vec![PathBuf::from(SYSTEM_SOCKET)];
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") {
        sockets.push(Path::new(&dir).join("lidless/lidless.sock"));
    }
    // A broken ./lidless.yaml is `check`'s business: here it only names no socket.
    if let Some(store) = config_of(globals).and_then(|config| store_of(&config).ok()) {
        sockets.push(socket_for_store(&store));
    }
    sockets.push(socket_for_store(Path::new(LOCAL_STORE)));
    sockets.push(socket_for_store(Path::new(SYSTEM_STORE)));
    // The system's store may also be the one that ./lidless.yaml names.
    let mut seen = std::collections::HashSet::new();
    sockets.retain(|socket| seen.insert(std::path::absolute(socket).unwrap_or_else(|_| socket.clone())));
    Ok(sockets)
}

fn nobody_answers(globals: &Globals, tried: &[(PathBuf, io::Error)]) -> Failure {
    let forbidden = tried.iter().any(|(_, err)| err.kind() == io::ErrorKind::PermissionDenied);
    let exit = if forbidden { Exit::Permission } else { Exit::Unreachable };
    let mut message = "no lidless answers".to_owned();
    for (path, err) in tried {
        message.push_str(&format!("\n  tried {}: {}", path.display(), word(err)));
    }
    let stale = tried.iter().any(|(_, err)| err.kind() == io::ErrorKind::ConnectionRefused);
    let hint = match (forbidden, &globals.args.connect, &globals.args.config) {
        (true, ..) => "the socket is another user's: run this as that user, or as root".to_owned(),
        (false, Some(_), _) => "is this the socket that `lidless serve` names when it starts?".to_owned(),
        (false, None, Some(config)) => format!("start it: lidless serve {}", config.display()),
        (false, None, None) if stale => "it was killed: start it again with `lidless serve`".to_owned(),
        (false, None, None) => {
            "start it with `lidless serve lidless.yaml`, or say which one: --config FILE or --connect unix:PATH".to_owned()
        }
    };
    Failure::new(exit, message).hint(hint)
}

fn word(err: &io::Error) -> String {
    match err.kind() {
        io::ErrorKind::NotFound => "not there".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => err.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_lies_beside_its_store() {
        assert_eq!(socket_for_store(Path::new("/a/b.db")), Path::new("/a/lidless.sock"));
        assert_eq!(socket_for_store(Path::new("b.db")), Path::new("lidless.sock"));
    }
}
