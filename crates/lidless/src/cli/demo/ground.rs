//! What does the demo stand on? A folder, a configuration, a port, and a daemon started as anybody would start it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

/// Starts the daemon as anybody would. It stops its services when it is told to end: the demo leaves nothing behind.
pub(super) fn serve(config: &Path) -> Result<Child, String> {
    let log = config.with_file_name("lidless.log");
    let open = || std::fs::File::options().create(true).append(true).open(&log);
    let spawn = || -> std::io::Result<Child> {
        Command::new("/proc/self/exe")
            .arg("serve")
            .arg(config)
            .arg("--stop-services")
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .spawn()
    };
    spawn().map_err(|err| format!("cannot start lidless: {err}"))
}

pub(super) fn configuration(port: u16) -> String {
    format!(
        "version: 1\nsite: demo\nweb: off\nstore: {{ path: lidless.db }}\nservices:\n  hello:\n    run:\n      process:\n        \
         command: [lidless, demo-service, --port, \"{port}\"]\n    checks:\n      health:\n        http: {{ url: \
         \"http://127.0.0.1:{port}/health\" }}\n        every: 200ms\n        timeout: 1s\n        fail_after: 2\n        \
         recover_after: 1\n    heal:\n      restart: {{ attempts: 1000, per: 1h, backoff: 0s..0s }}\n"
    )
}

pub(super) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

pub(super) fn kill(pid: i32) -> Result<(), String> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or("no such process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        .map_err(|err| format!("cannot kill: {err}"))
}

/// Waits for whatever ends a program from outside: Ctrl-C, a supervisor, a terminal that is closed.
pub(super) fn signals() -> std::io::Result<impl Future<Output = i32>> {
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = int.recv() => 2,
            _ = term.recv() => 15,
            _ = hup.recv() => 1,
        }
    })
}

/// A folder that goes when the demo ends.
pub(super) struct Folder {
    path: std::path::PathBuf,
    keep: bool,
}

impl Folder {
    pub(super) fn new() -> std::io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("lidless-demo-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Folder { path, keep: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(mut self) -> std::path::PathBuf {
        self.keep = true;
        self.path.clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}
