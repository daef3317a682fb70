//! How does a test get a disk of its own to fill or to break? It runs another test in a shell that has prepared its surroundings.

use std::path::Path;
use std::process::{Command, Output};

/// Names the directory to a child; without it the children's tests have nothing to do.
pub(crate) const DIRECTORY: &str = "LIDLESS_STORE_TEST_DISK";

/// The namespace that holds the small disk ends with the child, and the disk with it.
pub(crate) const OWN_MOUNTS: [&str; 4] = ["unshare", "--mount", "--propagation", "private"];

/// Runs one of the tests of this very binary in a shell that has prepared its surroundings.
pub(crate) fn child(shell: &[&str], prepare: &str, test: &str, directory: &Path) -> Output {
    let script = format!("{prepare} && exec \"$0\" {test} --exact --nocapture");
    Command::new(shell[0])
        .args(&shell[1..])
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(DIRECTORY, directory)
        .output()
        .unwrap()
}

/// Expects that a child ended well, and really did its work.
pub(crate) fn succeed(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("done"), "the child did its work\n{out}\n{err}");
}
