//! Does the demo service break as told? Over real sockets; where a process must end, in a process of its own.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

/// This test binary, started anew as the demo service; killed when dropped.
struct Instance {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Instance {
    fn start() -> Instance {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "demo_service::tests::child_process", "--nocapture"])
            .env("LIDLESS_TEST_DEMO_STAMP", dir.path().join("stamp"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut instance = Instance { child, port: 0, dir };
        let stamp = instance.stamp();
        wait_until("it listens", || std::fs::read_to_string(&stamp).is_ok_and(|s| s.ends_with('\n')));
        // It greets before it stamps, so this reads what is there already.
        let greeting = stdout.lines().map_while(Result::ok).find(|l| l.contains("listens on ")).unwrap();
        instance.port = greeting.rsplit(':').next().unwrap().parse().unwrap();
        instance
    }

    fn stamp(&self) -> PathBuf {
        self.dir.path().join("stamp")
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let began = Instant::now();
    while !met() {
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Not a test by itself: the service, when `Instance::start` asks for it.
#[test]
fn child_process() {
    let Some(stamp) = std::env::var_os("LIDLESS_TEST_DEMO_STAMP") else { return };
    let args = DemoServiceArgs {
        port: 0,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        start_delay: Duration::ZERO,
        stamp: Some(PathBuf::from(stamp)),
    };
    let code = run(args);
    std::process::exit(i32::from(code != ExitCode::SUCCESS) * 9);
}

#[test]
fn it_answers_500_when_told_and_is_well_again_when_told() {
    let demo = Instance::start();
    assert!(demo.get("/health").unwrap().ends_with("\r\n\r\nok\n"));
    let obeyed = demo.get("/break?how=500").unwrap();
    assert!(obeyed.ends_with(&format!("500 pid {}\n", demo.child.id())), "{obeyed}");
    assert!(demo.get("/health").unwrap().starts_with("HTTP/1.1 500 "));
    demo.get("/break?how=ok").unwrap();
    assert!(demo.get("/health").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(demo.get("/break?how=sideways").unwrap().starts_with("HTTP/1.1 400 "));
    assert!(demo.get("/elsewhere").unwrap().starts_with("HTTP/1.1 404 "));
}

#[test]
fn it_hangs_on_health_but_still_takes_orders() {
    let demo = Instance::start();
    demo.get("/break?how=hang").unwrap();
    let err = demo.get("/health").unwrap_err();
    assert!(matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{err}");
    demo.get("/break?how=ok").unwrap();
    assert!(demo.get("/health").is_ok());
}

#[test]
fn it_drips_a_body_that_does_not_end() {
    let demo = Instance::start();
    demo.get("/break?how=drip").unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", demo.port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n...") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1);
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 4000"), "{head}");
}

#[test]
fn it_crashes_by_a_signal_and_exits_with_code_one() {
    let mut crashing = Instance::start();
    drop(crashing.get("/break?how=crash"));
    assert_eq!(crashing.ended().signal(), Some(9));
    let mut exiting = Instance::start();
    drop(exiting.get("/break?how=exit"));
    assert_eq!(exiting.ended().code(), Some(1));
}

#[test]
fn it_ends_with_code_zero_on_sigterm_even_while_it_hangs() {
    let mut demo = Instance::start();
    demo.get("/break?how=hang").unwrap();
    assert!(demo.get("/health").is_err());
    let pid = rustix::process::Pid::from_child(&demo.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(demo.ended().code(), Some(0));
}

#[test]
fn its_stamp_names_the_moment_and_the_process_and_a_second_instance_is_noted() {
    let before = nanoseconds();
    let demo = Instance::start();
    let stamp = std::fs::read_to_string(demo.stamp()).unwrap();
    let fields: Vec<u128> = stamp.split_whitespace().map(|f| f.parse().unwrap()).collect();
    assert!(fields[0] > before && fields[0] <= nanoseconds());
    assert_eq!(fields[1], u128::from(demo.child.id()));

    let second = DemoServiceArgs {
        port: demo.port,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        start_delay: Duration::ZERO,
        stamp: Some(demo.stamp()),
    };
    assert_eq!(run(second), ExitCode::FAILURE);
    let stamps = std::fs::read_to_string(demo.stamp()).unwrap();
    assert!(
        stamps.lines().nth(1).is_some_and(|l| l.starts_with("# ") && l.contains("cannot listen")),
        "{stamps}"
    );
}

#[test]
fn times_are_milliseconds_or_seconds() {
    assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(parse_time("2s"), Ok(Duration::from_secs(2)));
    assert!(parse_time("2").is_err() && parse_time("ms").is_err() && parse_time("2m").is_err());
}
