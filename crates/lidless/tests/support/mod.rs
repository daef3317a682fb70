//! What do end-to-end tests need? A folder, a daemon that ends with the test, a small disk, and waiting for conditions.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The real binary, with nothing of this environment.
pub(crate) fn lidless() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lidless"));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("NO_COLOR", "1");
    command
}

/// All events of a store, a line each.
pub(crate) fn events(store: &Path) -> String {
    let output = lidless().args(["-o", "jsonl", "events", "--store"]).arg(store).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a condition, looking often; fails the test at the deadline.
pub(crate) fn wait_until(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        pause();
    }
}

fn pause() {
    std::thread::sleep(Duration::from_millis(10)); // tidy-allow: between two looks at a condition
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// One HTTP request by hand; the whole answer.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    get_of(port, path, &format!("127.0.0.1:{port}"))
}

/// One HTTP request by hand that names a host; the whole answer.
pub(crate) fn get_of(port: u16, path: &str, host: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A service that always answers well, after a while. Its threads end with the test's process.
pub(crate) fn slow_service(latency: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request);
                std::thread::sleep(latency); // tidy-allow: being slow is what it is for
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            });
        }
    });
    port
}

/// Kills a process with SIGKILL.
pub(crate) fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// A process that ends with the test, also with one that fails.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary folder.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A running `lidless serve`, ended with its services when the test ends.
pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with a configuration whose store lies in the folder.
    pub(crate) fn serve(folder: &Folder, config: &str) -> Daemon {
        Daemon::start(lidless(), folder, config)
    }

    /// As `serve`; its services go on without it.
    pub(crate) fn serve_and_leave(folder: &Folder, config: &str) -> Daemon {
        Daemon::start_with(lidless(), folder, config, &[])
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts it as the end of a command that may set the scene first.
    pub(crate) fn start(command: Command, folder: &Folder, config: &str) -> Daemon {
        Daemon::start_with(command, folder, config, &["--stop-services"])
    }

    fn start_with(mut command: Command, folder: &Folder, config: &str, flags: &[&str]) -> Daemon {
        let file = folder.path().join("lidless.yaml");
        std::fs::write(&file, config).unwrap();
        let (socket, log) = (folder.path().join("test.sock"), folder.path().join("log"));
        let child = command
            .arg("serve")
            .arg(&file)
            .args(flags)
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Daemon { child, socket, log }
    }

    /// Asks it something by the command line.
    pub(crate) fn client(&self, args: &[&str]) -> Output {
        let socket = format!("unix:{}", self.socket.display());
        lidless().args(["--connect", &socket]).args(args).output().unwrap()
    }

    /// Asks for the status; null while nobody answers.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.client(&["--json", "status"]).stdout).unwrap_or(Value::Null)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended; returns its exit code.
    pub(crate) fn wait_for_end(&mut self, within: Duration) -> Option<i32> {
        let mut ended = None;
        wait_until(within, "lidless has ended", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().code()
    }

    /// Waits until every service is up and nothing is being done to it.
    pub(crate) fn wait_up(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let status = self.status();
            let well = |service: &Value| service["health"] == "up" && service["run"].is_null();
            if status["services"].as_array().is_some_and(|services| services.iter().all(well)) {
                return;
            }
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(Instant::now() < deadline, "not up within {within:?}: {status}\n{}", log());
            pause();
        }
    }

    /// The pid of the demo service behind a port, if it answers.
    pub(crate) fn try_service_pid(&self, port: u16) -> Option<i32> {
        get(port, "/break?how=ok")?.rsplit(' ').next()?.trim().parse().ok()
    }

    /// The pid of the demo service behind a port.
    pub(crate) fn service_pid(&self, port: u16) -> i32 {
        let mut pid = None;
        wait_until(Duration::from_secs(20), "the service answers", || {
            pid = self.try_service_pid(port);
            pid.is_some()
        });
        pid.unwrap()
    }

    /// Stops the daemon itself for a while, as a starved machine would.
    pub(crate) fn stop_for(&self, time: Duration) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        std::thread::sleep(time); // tidy-allow: the pause is the fault
        kill_process(pid, Signal::CONT).unwrap();
    }

    /// Ends it in good order.
    pub(crate) fn end(mut self) {
        self.terminate();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(!log.contains("panicked"), "{log}");
    }

    fn terminate(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(20);
            while matches!(self.child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    drop(self.child.kill());
                    drop(self.child.wait());
                    return;
                }
                pause();
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// A small file system in a mount namespace of its own, held open by a process; gone with the test.
pub(crate) struct Disk {
    holder: Child,
    path: PathBuf,
}

/// Makes a small disk. None, with the reason printed, where that is not allowed.
pub(crate) fn small_disk(folder: &Folder, size: &str) -> Option<Disk> {
    let path = folder.path().join("disk");
    std::fs::create_dir(&path).unwrap();
    let script =
        format!("mount -t tmpfs -o size={size} tmpfs {} && echo ready && exec sleep 600", path.display());
    let spawned = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut holder) = spawned else {
        eprintln!("skipped: no unshare (Debian package util-linux)");
        return None;
    };
    let mut ready = [0; 5];
    if holder.stdout.take().is_none_or(|mut out| out.read_exact(&mut ready).is_err()) {
        drop(holder.wait());
        eprintln!("skipped: a small disk cannot be mounted here (it takes root)");
        return None;
    }
    Some(Disk { holder, path })
}

impl Disk {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a daemon that sees the disk.
    pub(crate) fn serve(&self, folder: &Folder, config: &str) -> Daemon {
        Daemon::start(self.inside(&lidless()), folder, config)
    }

    /// Runs a command that sees the disk.
    pub(crate) fn run(&self, command: &mut Command) -> Output {
        self.inside(command).output().unwrap()
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let script = format!("cat /dev/zero > {}/filler 2>/dev/null; true", self.path.display());
        self.run(Command::new("sh").args(["-c", &script]));
    }

    /// Makes room again.
    pub(crate) fn make_room(&self) {
        self.run(Command::new("rm").arg(self.path.join("filler")));
    }

    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--mount", "--target", &self.holder.id().to_string(), "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
