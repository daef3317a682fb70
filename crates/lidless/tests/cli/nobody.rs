//! What may a stranger do? The real binary, run by a user who owns nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::GOOD;
use super::hermetic::Hermetic;

const NOBODY: u32 = 65_534;

/// A copy of the binary where everybody may go: that of the tests may lie where nobody may.
pub(super) struct Nobody(tempfile::TempDir);

impl Nobody {
    /// None, with the reason printed, where nobody can become somebody else.
    pub(super) fn new() -> Option<Nobody> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can become somebody else");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        // Not by ourselves: what another test starts meanwhile would hold the copy open for writing, and so in use.
        let copy = Command::new("cp").arg(env!("CARGO_BIN_EXE_lidless")).arg(dir.path()).status().unwrap();
        assert!(copy.success());
        Some(Nobody(dir))
    }

    /// Runs it; returns the exit code and what it said.
    pub(super) fn run(&self, dir: &Path, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(self.0.path().join("lidless"));
        command.args(args).env_clear().env("LANG", "C.UTF-8").env("NO_COLOR", "1").current_dir(dir);
        let output = command.uid(NOBODY).gid(NOBODY).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

fn open_for_nobody(env: &Hermetic) {
    fs::set_permissions(env.path(""), Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn a_configuration_that_may_not_be_read_is_exit_5() {
    let Some(nobody) = Nobody::new() else { return };
    let env = Hermetic::new();
    open_for_nobody(&env);
    env.write("closed.yaml", GOOD);
    fs::set_permissions(env.path("closed.yaml"), Permissions::from_mode(0o600)).unwrap();
    for args in [
        &["serve", "closed.yaml"][..],
        &["serve", "closed.yaml", "--json"],
        &["check", "closed.yaml"],
        &["check", "closed.yaml", "--json"],
        &["status", "--config", "closed.yaml"],
    ] {
        let (code, words) = nobody.run(&env.path(""), args);
        assert_eq!(code, Some(5), "{args:?}: {words}");
    }
    let (_, words) = nobody.run(&env.path(""), &["serve", "closed.yaml"]);
    assert!(words.contains("cannot be read") && !words.contains("mend it"), "{words}");
    // Something else is wrong too: that can be mended.
    env.write("more.yaml", &format!("include: [closed.yaml]\nsiet: x\n{GOOD}"));
    assert_eq!(nobody.run(&env.path(""), &["check", "more.yaml"]).0, Some(3));
}

#[test]
fn a_socket_that_may_not_be_made_is_exit_5_and_the_hint_says_where_else() {
    let Some(nobody) = Nobody::new() else { return };
    let env = Hermetic::new();
    open_for_nobody(&env);
    env.write("lidless.yaml", GOOD);
    fs::create_dir(env.path("closed")).unwrap();
    for socket in ["closed/s.sock", "closed/new/s.sock"] {
        let (code, words) = nobody.run(&env.path(""), &["serve", "lidless.yaml", "--socket", socket]);
        assert_eq!(code, Some(5), "{words}");
        assert!(words.contains("--socket") && !words.contains("stop the other"), "{words}");
    }
}
