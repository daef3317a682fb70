//! What does the binary see of this machine? Nothing but a folder of its own and a search path.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::neutral::neutral;

/// A folder, and an environment in which nothing of the tester's is left.
pub(super) struct Hermetic {
    dir: tempfile::TempDir,
}

/// What became of one command.
pub(super) struct Ran {
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// None when a signal ended it.
    pub(super) code: Option<i32>,
}

impl Hermetic {
    pub(super) fn new() -> Hermetic {
        Hermetic { dir: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lidless"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).env_clear();
        command.envs([
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
            ("COLUMNS", "100"),
            ("NO_COLOR", "1"),
        ]);
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    pub(super) fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let output = self.command(args).envs(env.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ran { stdout: text(&output.stdout), stderr: text(&output.stderr), code: output.status.code() }
    }

    /// Runs a command and returns everything that it said, without what differs from run to run.
    pub(super) fn show(&self, args: &[&str]) -> String {
        self.show_with(args, &[])
    }

    pub(super) fn show_with(&self, args: &[&str], env: &[(&str, &str)]) -> String {
        let Ran { stdout, stderr, code } = self.run_with(args, env);
        let set: String = env.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        let code = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        let shown =
            format!("$ {set}lidless {}\n{stdout}--- stderr\n{stderr}--- exit {code}\n", args.join(" "));
        neutral(&shown, self.dir.path())
    }
}
