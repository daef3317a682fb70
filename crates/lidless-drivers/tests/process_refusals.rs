//! What if the request, the record or the machine is not as it should be? A reason in words, and never a wrong kill.

#![allow(clippy::unwrap_used, missing_docs)]

mod process_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::process::{Command, Stdio};
use std::sync::Arc;

use lidless_core::check::CheckOutcome;
use lidless_drivers::check::Check;
use lidless_drivers::check::process::ProcessCheck;
use lidless_drivers::process::{Launcher, ProcessSettings, ProcessState, StartError, Started};
use process_support::*;

/// Starts in vain; returns the reason, which the check must tell as well.
async fn reason(service: &Service, change: impl FnOnce(&mut ProcessSettings)) -> String {
    let mut settings = service.sleeper();
    change(&mut settings);
    let process = service.open(settings);
    let reason = match process.start(LONG).await {
        Err(StartError::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    };
    match ProcessCheck::new(Arc::clone(&process)).probe(LONG).await {
        CheckOutcome::Fail { failure, .. } => {
            assert_eq!(failure.detail, format!("is not running: {reason}"));
            assert_eq!(failure.exit_code, None, "the launcher's code is not the service's");
        }
        other => panic!("no failure: {other:?}"),
    }
    assert_eq!(zombies_of_ours(), [] as [i32; 0]);
    assert_eq!(service.living(), [] as [i32; 0]);
    reason
}

fn nobody(option: &str) -> String {
    let output = Command::new("id").args([option, "nobody"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn what_cannot_be_executed_is_said_in_words() {
    let service = Service::new();
    let told = reason(&service, |settings| settings.command = vec!["/no/such/program".to_owned()]).await;
    assert_eq!(told, "command `/no/such/program` was not found");

    let plain = service.path("plain");
    fs::write(&plain, "no program").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let told = reason(&service, |settings| settings.command = vec![plain.display().to_string()]).await;
    assert!(told.contains("may not be executed: Permission denied"), "{told}");

    let told = reason(&service, |settings| settings.command = Vec::new()).await;
    assert_eq!(told, "the command is empty");
    let told = reason(&service, |settings| settings.dir = Some("/no/such/dir".into())).await;
    assert!(told.starts_with("cannot enter directory `/no/such/dir`: No such file"), "{told}");
    let told = reason(&service, |settings| settings.output = "/no/such/dir/log".into()).await;
    assert!(told.starts_with("cannot write to `/no/such/dir/log`: No such file"), "{told}");
    let told = reason(&service, |settings| settings.user = Some("no-such-user".to_owned())).await;
    assert_eq!(told, "there is no user `no-such-user`");

    // And when it is put right, it starts.
    let process = service.open(service.sleeper());
    assert!(matches!(process.start(LONG).await.unwrap(), Started::New { .. }));
    service.wait_starts(1).await;
}

#[tokio::test]
async fn a_fifo_without_a_reader_does_not_hold_the_launcher() {
    let service = Service::new();
    let fifo = service.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: mkfifo is missing");
        return;
    }
    let told = reason(&service, |settings| settings.output = fifo).await;
    assert!(told.contains("No such device or address"), "{told}");
}

#[tokio::test]
async fn a_missing_launcher_is_an_error_and_not_a_panic() {
    let service = Service::new();
    let mut settings = service.sleeper();
    settings.launcher = Launcher::program("/no/such/lidless");
    assert!(matches!(service.open(settings).start(LONG).await, Err(StartError::Launcher(_))));
    let mut settings = service.sleeper();
    settings.launcher = Launcher::program("/bin/true");
    assert!(matches!(service.open(settings).start(LONG).await, Err(StartError::Broken { .. })));
}

#[tokio::test]
async fn the_user_is_become_with_all_groups() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let service = Service::new();
    fs::set_permissions(service.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut settings = service.script("id -u > who; id -G >> who; echo $HOME $USER >> who; exec sleep 1000");
    settings.user = Some("nobody".to_owned());
    let process = service.open(settings);
    process.start(LONG).await.unwrap();
    let who = || fs::read_to_string(service.path("who")).unwrap_or_default();
    wait_until("it told who it is", || who().lines().count() == 3).await;
    assert!(who().starts_with(&format!("{}\n{}\n", nobody("-u"), nobody("-G"))), "{}", who());
    assert!(who().ends_with(" nobody\n"), "{}", who());
    // The slot stays ours alone.
    assert_eq!(fs::metadata(service.slot()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_log_that_was_made_for_a_user_is_that_users() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let service = Service::new();
    fs::set_permissions(service.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut settings = service.script("echo told >> /dev/stderr; exec sleep 1000");
    settings.user = Some("nobody".to_owned());
    service.open(settings).start(LONG).await.unwrap();
    let log = || fs::read_to_string(service.path("output")).unwrap_or_default();
    wait_until("it wrote to its log by name", || !log().is_empty()).await;
    assert_eq!(log(), "told\n");
    let metadata = fs::metadata(service.path("output")).unwrap();
    assert_eq!((metadata.uid().to_string(), metadata.permissions().mode() & 0o777), (nobody("-u"), 0o640));
}

#[tokio::test]
async fn a_link_of_the_services_user_does_not_lead_root_astray() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let service = Service::new();
    fs::set_permissions(service.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for folder in ["real", "linked"] {
        fs::create_dir(service.path(folder)).unwrap();
    }
    let link = |target: &str, name: &str, owner: &str| {
        symlink(target, service.path(name)).unwrap();
        lchown(service.path(name), Some(owner.parse().unwrap()), None).unwrap();
    };
    let user = nobody("-u");
    link("real", "linked/theirs", &user);
    link("../real", "linked/folder", &user);
    link("../real/file", "linked/file", &user);
    for log in ["linked/folder/log", "linked/file"] {
        let told = reason(&service, |settings| {
            (settings.user, settings.output) = (Some("nobody".to_owned()), service.path(log));
        })
        .await;
        assert!(told.ends_with(&format!(" is a symbolic link that user {user} made")), "{told}");
    }
    assert_eq!(fs::read_dir(service.path("real")).unwrap().count(), 0, "root wrote elsewhere");

    // Links that root made are the owner's own way of putting things, as /var/run is.
    link(service.path("linked").to_str().unwrap(), "ours", "0");
    link("../real/log", "linked/ours", "0");
    let mut settings = service.sleeper();
    (settings.user, settings.output) = (Some("nobody".to_owned()), service.path("ours/../ours/ours"));
    service.open(settings).start(LONG).await.unwrap();
    wait_until("the log is there", || service.path("real/log").exists()).await;
}

#[tokio::test]
async fn a_reused_pid_is_neither_taken_for_ours_nor_signalled() {
    let service = Service::new();
    let mut foreign = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(foreign.id()).unwrap();
    let process = service.open(service.sleeper());
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let record = serde_json::json!({ "generation": 7, "instance":
        { "boot_id": boot.trim(), "pid": pid, "start_ticks": 1, "started_us": 1 } });
    fs::write(service.slot().join("instance.json"), record.to_string()).unwrap();

    assert!(matches!(process.adopt().unwrap(), ProcessState::Exited { pid: dead, .. } if dead == pid));
    assert_eq!(process.stop(LONG).await.unwrap(), None);
    assert!(is_alive(pid), "a foreign process was signalled");
    let Started::New { pid: new } = process.start(LONG).await.unwrap() else { panic!("adopted a foreigner") };
    assert_ne!(new, pid);
    assert!(is_alive(pid), "a foreign process was signalled");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

#[tokio::test]
async fn a_record_of_an_earlier_boot_names_nobody() {
    let service = Service::new();
    let process = service.open(service.sleeper());
    let me = i32::try_from(std::process::id()).unwrap();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 =
        stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    // All is right but the boot.
    let record = serde_json::json!({ "generation": 7, "instance":
        { "boot_id": "of-yesterday", "pid": me, "start_ticks": ticks, "started_us": 1 } });
    fs::write(service.slot().join("instance.json"), record.to_string()).unwrap();
    assert!(matches!(process.adopt().unwrap(), ProcessState::Exited { .. }));
    assert_eq!(process.stop(LONG).await.unwrap(), None);
    assert!(matches!(process.start(LONG).await.unwrap(), Started::New { .. }));
}

#[tokio::test]
async fn a_damaged_or_lost_record_starts_nothing_twice() {
    let service = Service::new();
    let record = service.slot().join("instance.json");
    let first = service.open(service.sleeper());
    fs::write(&record, "{\"generation\":").unwrap();
    let Started::New { pid } = first.start(LONG).await.unwrap() else { panic!("not new") };
    service.wait_starts(1).await;

    for damage in [Some(""), Some("null"), Some("{\"generation\":-1}"), Some("\u{0}\u{0}\u{0}"), None] {
        match damage {
            Some(text) => fs::write(&record, text).unwrap(),
            None => fs::remove_file(&record).unwrap(),
        }
        let next = service.open(service.sleeper());
        assert!(matches!(next.adopt().unwrap(), ProcessState::Running { pid: found, .. } if found == pid));
        assert!(
            matches!(next.start(LONG).await.unwrap(), Started::Adopted { pid: found, .. } if found == pid)
        );
    }
    // A launcher alone, with nobody who had looked before, finds it as well.
    let next = service.open(service.sleeper());
    assert!(matches!(next.start(LONG).await.unwrap(), Started::Adopted { .. }));
    next.stop(LONG).await.unwrap().unwrap();
    assert_eq!(service.living(), [] as [i32; 0]);
    assert_eq!(service.starts().len(), 1);
    assert!(matches!(next.start(LONG).await.unwrap(), Started::New { .. }));
}
