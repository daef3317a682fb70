//! Do the runs of several processes survive what happens to a process: kill -9, and being stopped for too long?
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lidless_core::id::Seq;
use lidless_store::runstore::conformance::{batch, key, owner};
use lidless_store::runstore::{
    AcquireError, AppendError, BootClock, Epoch, LeaseClock, LeaseError, LeaseTime, LogRecord, Patience,
    RunStore, SqliteRunStore, StoreError, append_settled,
};
use rustix::process::{Pid, Signal, WaitOptions};

/// Names the directory to a child; without it the children's tests have nothing to do.
const DIRECTORY: &str = "LIDLESS_STORE_TEST_RUNSTORE";
/// Tells a child which run it drives, as whom, and how long its lease lasts.
const ORDERS: &str = "LIDLESS_STORE_TEST_RUNSTORE_ORDERS";
const TTL: Duration = Duration::from_secs(10);
/// Longer than any of this takes, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(60);
const KILLS: u64 = 50;
const STOPS: u64 = 12;

/// A clock in a file, which the parent moves.
struct FileClock(PathBuf);

impl LeaseClock for FileClock {
    fn now(&self) -> LeaseTime {
        let seconds = fs::read_to_string(&self.0).unwrap().parse().unwrap();
        LeaseTime { era: "test".into(), since: Duration::from_secs(seconds) }
    }
}

fn set_clock(directory: &Path, seconds: u64) {
    // Renamed, so that nobody reads half of it.
    let fresh = directory.join("clock.new");
    fs::write(&fresh, seconds.to_string()).unwrap();
    fs::rename(fresh, directory.join("clock")).unwrap();
}

fn open(directory: &Path) -> SqliteRunStore {
    let clock = FileClock(directory.join("clock"));
    SqliteRunStore::open(&directory.join("runs.db"), Arc::new(clock)).unwrap()
}

/// A process that drives a run.
struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    acked: BTreeMap<u64, Epoch>,
}

impl Driver {
    fn start(test: &str, directory: &Path, run: u64, owner: u64, ttl: Duration) -> Driver {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(ORDERS, format!("{run} {owner} {}", ttl.as_millis()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Driver { input: child.stdin.take(), child, lines, acked: BTreeMap::new() }
    }

    /// Returns what it says next, if it says anything.
    fn word(&mut self) -> Option<String> {
        // A line that a kill cut in two has no end mark; the harness's own lines have none either.
        let lines = self.lines.by_ref().map_while(Result::ok);
        let word = lines.filter_map(|line| line.strip_suffix(" .").map(str::to_owned)).next()?;
        if let Some(acked) = word.strip_prefix("acked ") {
            let mut numbers = acked.split(' ').map(|number| number.parse::<u64>().unwrap());
            let [first, last, epoch] = [(); 3].map(|()| numbers.next().unwrap());
            self.acked.extend((first..=last).map(|seq| (seq, Epoch(epoch))));
        }
        Some(word)
    }

    fn expect(&mut self, wanted: &str) {
        while let Some(word) = self.word() {
            if word.starts_with(wanted) {
                return;
            }
        }
        panic!("it ended without saying `{wanted}`");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Stops it, and waits until it stands.
    fn stop(&self) {
        rustix::process::kill_process(self.pid(), Signal::STOP).unwrap();
        let (_, status) = rustix::process::waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "{status:?}");
    }

    fn go_on(&self) {
        rustix::process::kill_process(self.pid(), Signal::CONT).unwrap();
    }

    fn say(&mut self, word: &str) {
        writeln!(self.input.as_mut().unwrap(), "{word}").unwrap();
    }

    fn finish(mut self) -> BTreeMap<u64, Epoch> {
        self.input = None;
        while self.word().is_some() {}
        assert!(self.child.wait().unwrap().success());
        self.acked
    }
}

/// Reads a whole log and compares it with what was acknowledged: all of that is there, and nothing twice.
fn check_log(store: &mut SqliteRunStore, run: u64, acked: &BTreeMap<u64, Epoch>) -> Vec<LogRecord> {
    let mut log: Vec<LogRecord> = Vec::new();
    loop {
        let page = store.read(&key(run), Seq(log.len() as u64 + 1), 500).unwrap();
        log.extend(page.records);
        if log.len() as u64 == page.last.0 {
            break;
        }
    }
    assert!(log.iter().zip(1..).all(|(record, seq)| record.seq == Seq(seq)), "no gap");
    assert!(log.is_sorted_by_key(|record| record.epoch), "no owner writes after its successor");
    let ids: BTreeSet<_> = log.iter().map(|record| record.id).collect();
    assert_eq!(ids.len(), log.len(), "nothing is there twice");
    for (seq, epoch) in acked {
        let record = &log[usize::try_from(*seq).unwrap() - 1];
        let wrote = &batch(&key(run), *epoch, *seq, 1, epoch.0).entries[0];
        assert_eq!((record.epoch, record.id, &record.body), (*epoch, wrote.id, &wrote.body), "{seq}");
    }
    log
}

#[test]
fn every_acknowledged_record_of_a_run_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    set_clock(directory, 0);
    // In the first half another process writes all the time, and nothing that happens to its neighbour may disturb it. In
    // the second the victim is alone: the log is then read anew by who comes after it.
    let forever = Duration::from_secs(1_000_000);
    let mut steady = Driver::start("child_drives_a_run", directory, 2, 1, forever);
    steady.expect("acked");
    let mut input = steady.input.take();
    let mut steady = Some(std::thread::spawn(move || steady.finish()));
    let mut steadily = BTreeMap::new();
    let (mut random, mut acked, mut unheard) = (9_u64, BTreeMap::new(), 0);
    for round in 0..KILLS {
        if round == KILLS / 2 {
            drop(input.take());
            steadily = steady.take().unwrap().join().unwrap();
        }
        let mut victim = Driver::start("child_drives_a_run", directory, 1, 100 + round, TTL);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..=(random >> 33) % 40 {
            victim.expect("acked");
        }
        // Not at once: the next append is under way.
        let until = Instant::now() + Duration::from_micros((random >> 40) % 3_000);
        while Instant::now() < until {
            std::thread::yield_now();
        }
        victim.child.kill().unwrap();
        // What was still in the pipe was acknowledged too.
        while victim.word().is_some() {}
        victim.child.wait().unwrap();
        acked.append(&mut victim.acked);
        let mut store = open(directory);
        let log = check_log(&mut store, 1, &acked);
        unheard += u64::from(log.len() as u64 > *acked.last_key_value().unwrap().0);
        // Its lease outlives it.
        let err = store.acquire(&key(1), &owner(7), TTL).unwrap_err();
        assert!(matches!(err, AcquireError::Held { by } if by == owner(100 + round)));
        set_clock(directory, (round + 1) * 20);
    }
    check_log(&mut open(directory), 2, &steadily);
    println!(
        "{} records acknowledged by {KILLS} victims, {} by their neighbour; {unheard} kills came between a commit and its \
         acknowledgement",
        acked.len(),
        steadily.len()
    );
}

#[test]
fn an_owner_stopped_beyond_its_lease_is_fenced_when_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    set_clock(directory, 0);
    let mut store = open(directory);
    let mut old = Driver::start("child_appends_when_it_is_told", directory, 1, 1, TTL);
    old.expect("acked");
    old.stop();
    assert!(matches!(store.acquire(&key(1), &owner(2), TTL), Err(AcquireError::Held { .. })));
    set_clock(directory, 11);
    let epoch = store.acquire(&key(1), &owner(2), TTL).unwrap().epoch;
    store.append(&batch(&key(1), epoch, 4, 2, epoch.0)).unwrap();
    old.go_on();
    old.say("go");
    old.expect("fenced 3");
    let acked = old.finish();
    store.append(&batch(&key(1), epoch, 6, 1, epoch.0)).unwrap();
    let log = check_log(&mut store, 1, &acked);
    assert_eq!(log.len(), 6);
    assert!(log[3..].iter().all(|record| record.epoch == epoch));
}

#[test]
fn an_owner_stopped_at_any_moment_is_fenced_when_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (mut random, mut within, mut time) = (5_u64, 0, 0);
    set_clock(directory, time);
    let mut store = open(directory);
    store.set_busy_wait_max(Duration::from_millis(50));
    for run in 1..=STOPS {
        let mut old = Driver::start("child_drives_a_run", directory, run, 1, TTL);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..=(random >> 33) % 30 {
            old.expect("acked");
        }
        old.stop();
        time += 20;
        set_clock(directory, time);
        let epoch = loop {
            match store.acquire(&key(run), &owner(2), TTL) {
                Ok(lease) => break lease.epoch,
                // It was stopped within a transaction, and has the file's write lock: nobody else writes then.
                Err(AcquireError::Failed(StoreError::Busy { .. })) => {
                    within += 1;
                    // It comes to the end of that transaction, and of no other.
                    old.go_on();
                }
                Err(err) => panic!("{err:?}"),
            }
        };
        let next = store.read(&key(run), Seq(1), 1).unwrap().last.0 + 1;
        store.append(&batch(&key(run), epoch, next, 3, epoch.0)).unwrap();
        old.go_on();
        let acked = old.finish();
        store.append(&batch(&key(run), epoch, next + 3, 1, epoch.0)).unwrap();
        let log = check_log(&mut store, run, &acked);
        assert_eq!(log.len() as u64, next + 3, "nothing of the old owner's came after");
    }
    println!("{STOPS} owners stopped; {within} times one was within a transaction");
}

#[test]
fn on_the_machines_own_clock_a_stopped_owner_is_succeeded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let ttl = Duration::from_millis(300);
    let mut store = SqliteRunStore::open(&path, Arc::new(BootClock::new().unwrap())).unwrap();
    let mut old = Driver::start("child_appends_when_it_is_told", directory.path(), 1, 1, ttl);
    old.expect("acked");
    old.stop();
    let deadline = Instant::now() + PATIENCE;
    let epoch = loop {
        match store.acquire(&key(1), &owner(2), PATIENCE) {
            Ok(lease) => break lease.epoch,
            Err(AcquireError::Held { .. }) if Instant::now() < deadline => {
                // tidy-allow: pause between two looks
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(err) => panic!("{err:?}"),
        }
    };
    store.append(&batch(&key(1), epoch, 4, 1, epoch.0)).unwrap();
    old.go_on();
    old.say("go");
    old.expect("fenced 3");
    let acked = old.finish();
    assert_eq!(check_log(&mut store, 1, &acked).len(), 4);
}

#[test]
fn processes_that_begin_at_once_make_one_store() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        set_clock(directory.path(), 0);
        let drivers: Vec<_> = (1..=4)
            .map(|run| Driver::start("child_appends_when_it_is_told", directory.path(), run, run, TTL))
            .collect();
        let acked: Vec<_> = drivers
            .into_iter()
            .map(|mut driver| {
                driver.say("go");
                driver.finish()
            })
            .collect();
        let mut store = open(directory.path());
        for (run, acked) in (1..).zip(&acked) {
            assert_eq!(check_log(&mut store, run, acked).len(), 4);
        }
        let left: Vec<_> =
            directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains(".new-")), "{left:?}");
    }
}

/// Returns a child's store and orders, if this is one.
fn ordered() -> Option<(SqliteRunStore, u64, u64, Duration)> {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY)?);
    // The parent waits for this process: if it hung, the parent would too.
    std::thread::spawn(|| {
        std::thread::park_timeout(2 * PATIENCE);
        std::process::exit(3)
    });
    let orders = std::env::var(ORDERS).unwrap();
    let mut numbers = orders.split(' ').map(|number| number.parse::<u64>().unwrap());
    let [run, who, ttl] = [(); 3].map(|()| numbers.next().unwrap());
    let store = match directory.join("clock").exists() {
        true => open(&directory),
        false => {
            SqliteRunStore::open(&directory.join("runs.db"), Arc::new(BootClock::new().unwrap())).unwrap()
        }
    };
    Some((store, run, who, Duration::from_millis(ttl)))
}

fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} .").unwrap();
    out.flush().unwrap();
}

/// Appends the next batch, and says so; returns whether it still may.
fn drive(store: &mut SqliteRunStore, run: u64, epoch: Epoch, next: u64, count: u64) -> bool {
    let fresh = batch(&key(run), epoch, next, count, epoch.0);
    match append_settled(store, &fresh, Patience { tries_max: 10, pause: &mut |_| {} }) {
        Ok(last) => {
            say(&format!("acked {next} {last} {}", epoch.0));
            true
        }
        Err(AppendError::Fenced) => {
            say(&format!("fenced {}", next - 1));
            false
        }
        Err(err) => panic!("{err:?}"),
    }
}

/// The victim.
#[test]
fn child_drives_a_run() {
    let Some((mut store, run, who, ttl)) = ordered() else { return };
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        seen.store(true, Ordering::Relaxed);
    });
    let epoch = store.acquire(&key(run), &owner(who), ttl).unwrap().epoch;
    let mut next = store.read(&key(run), Seq(1), 1).unwrap().last.0 + 1;
    // More than any round reads, so that a parent that died does not leave this behind for ever.
    for turn in 0..100_000 {
        let count = 1 + turn * 7 % 5;
        if over.load(Ordering::Relaxed) && who == 1 && ttl > TTL {
            return;
        }
        if !drive(&mut store, run, epoch, next, count) {
            return;
        }
        next += count;
        // Seldom, so that most kills meet an append.
        if turn % 16 != 15 {
            continue;
        }
        match store.renew(&key(run), epoch) {
            Ok(_) => {}
            Err(LeaseError::Lost) => {
                say(&format!("fenced {}", next - 1));
                return;
            }
            Err(err) => panic!("{err:?}"),
        }
    }
}

/// The sleeper.
#[test]
fn child_appends_when_it_is_told() {
    let Some((mut store, run, who, ttl)) = ordered() else { return };
    let epoch = store.acquire(&key(run), &owner(who), ttl).unwrap().epoch;
    assert!(drive(&mut store, run, epoch, 1, 3));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "go\n");
    drive(&mut store, run, epoch, 4, 1);
}
