//! Is lidless a good PID 1? In a PID namespace of its own, as in a container. Takes root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

mod support;

use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use support::{Folder, Guarded, lidless, wait_until};

const LONG: Duration = Duration::from_secs(30);
const UNSHARE: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Starts lidless as PID 1; `None`, with the reason printed, where that is not allowed.
fn as_pid_1(folder: &Folder, args: &[&str]) -> Option<Guarded> {
    if !geteuid().is_root() {
        eprintln!("skipped: a PID namespace takes root");
        return None;
    }
    let inner = lidless();
    let mut command = Command::new(UNSHARE[0]);
    command.args(&UNSHARE[1..]).arg(inner.get_program()).args(args);
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    match command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn() {
        Ok(child) => Some(Guarded(child)),
        Err(err) => {
            eprintln!("skipped: no unshare (Debian package util-linux): {err}");
            None
        }
    }
}

fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until(LONG, "it has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The children of a process, as this namespace sees them: pid and state.
fn children(of: u32) -> Vec<(i32, char)> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(of)).then_some((pid, state))
    })
    .collect()
}

fn log(folder: &Folder) -> String {
    std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}

#[test]
fn as_pid_1_it_leaves_no_zombie_and_ends_in_order() {
    let folder = Folder::new();
    // A grandchild that has lost its parent, and ends when it is told to.
    let script =
        "(sh -c 'echo > born; until test -e end; do sleep 0.01; done; echo > ended' &); exec sleep 1000";
    let config = format!(
        "version: 1\nweb: off\nstore: {{ path: l.db }}\nservices:\n  app:\n    \
         run: {{ process: {{ command: [sh, -c, {script:?}] }} }}\n"
    );
    std::fs::write(folder.path().join("lidless.yaml"), config).unwrap();
    let Some(mut unshare) = as_pid_1(&folder, &["serve", "lidless.yaml", "--stop-services"]) else { return };
    let file = |name: &str| folder.path().join(name);
    wait_until(LONG, "the grandchild is there", || {
        assert!(!log(&folder).contains("unshare:"), "{}", log(&folder));
        file("born").exists()
    });
    let [(init, _)] = children(unshare.0.id())[..] else { panic!("no PID 1: {}", log(&folder)) };
    let of_init = || children(u32::try_from(init).unwrap());
    wait_until(LONG, "PID 1 has inherited the grandchild", || of_init().len() == 2);
    std::fs::write(file("end"), "").unwrap();
    wait_until(LONG, "the grandchild ended and was reaped", || {
        file("ended").exists() && of_init().len() == 1
    });

    kill_process(Pid::from_raw(init).unwrap(), Signal::TERM).unwrap();
    let status = ended(&mut unshare.0);
    assert_eq!(status.code(), Some(0), "{}", log(&folder));
    assert!(log(&folder).contains("Stopped."), "{}", log(&folder));
}

#[test]
fn as_pid_1_it_hears_of_a_ctrl_c_once() {
    let folder = Folder::new();
    let config = "version: 1\nweb: off\nstore: { path: l.db }\nservices:\n  app:\n    checks:\n      \
                  well: { exec: { command: [sh, -c, 'echo > asked'] } }\n";
    std::fs::write(folder.path().join("lidless.yaml"), config).unwrap();
    if !geteuid().is_root() || Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: it takes root and `script` (Debian package bsdutils)");
        return;
    }
    let inner = lidless();
    let serve = format!("exec {} {} serve lidless.yaml", UNSHARE.join(" "), inner.get_program().display());
    let mut terminal = Guarded(
        Command::new("script")
            .args(["-qec", &serve, "/dev/null"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(folder.path().join("log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_until(LONG, "lidless watches", || folder.path().join("asked").exists());
    let mut keyboard = terminal.0.stdin.take().unwrap();
    keyboard.write_all(b"\x03").unwrap();
    let status = ended(&mut terminal.0);
    assert_eq!(status.code(), Some(0), "{}", log(&folder));
    assert_eq!(log(&folder).matches("Ending.").count(), 1, "{}", log(&folder));
}

#[test]
fn as_pid_1_it_ends_with_lidlesss_own_code() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("lidless.yaml"), "version: 2\n").unwrap();
    let Some(mut unshare) = as_pid_1(&folder, &["serve", "lidless.yaml"]) else { return };
    assert_eq!(ended(&mut unshare.0).code(), Some(3), "{}", log(&folder));
}
