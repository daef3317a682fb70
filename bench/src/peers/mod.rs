//! Who else watches services or runs steps, and how are they set up at their fastest?

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub mod monit;
pub mod restate;
pub mod supervisord;

/// How to get those that are missing.
pub const SETUP: &str = "cargo xtask bench-setup";

/// Finds a program on the path.
fn on_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// The first line that a command prints: its version, mostly.
pub fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned())
}

/// Writes a file that only we may read: monit refuses any other config.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}
