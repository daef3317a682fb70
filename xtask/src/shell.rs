//! How are other programs run? From the root of the tree, with their output passed through as it comes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the tree that this xtask belongs to.
pub(crate) fn root() -> PathBuf {
    // At run time first: a target directory may have moved with its checkout since the build.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}

/// A program in the root of the tree, without what `cargo run` told this process about itself.
///
/// Build scripts such as ring's watch `CARGO_MANIFEST_DIR` and its kin: left in place they would make the inner cargo
/// rebuild half the tree, and the next outer one rebuild it back.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if name.to_str().is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// The standard output of a command that must succeed, or why it did not.
pub(crate) fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let line = format!("{program} {}", args.join(" "));
    let out = command(program).args(args).output().map_err(|err| format!("cannot run `{line}`: {err}"))?;
    if out.status.success() {
        String::from_utf8(out.stdout).map_err(|_| format!("`{line}` printed something that is not UTF-8"))
    } else {
        Err(format!("`{line}` failed: {}", String::from_utf8_lossy(&out.stderr).trim()))
    }
}

/// Whether a command runs and ends well; its output is dropped.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    command(program).args(args).output().is_ok_and(|out| out.status.success())
}

/// Where a program is, looked for on `PATH` and, as root's tools often are not on it, in the sbin directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Whether this process may do what root may.
pub(crate) fn is_root() -> bool {
    output("id", &["-u"]).is_ok_and(|uid| uid.trim() == "0")
}

/// Whether CI started us.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
