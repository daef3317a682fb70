//! `lidless demo`: does it really heal? A real service under a real lidless, broken in every way, each heal timed.
//!
//! Nothing is staged: the demo is a client of its own `lidless serve`, and breaks the service from outside.

mod ground;
mod result;

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use lidless_core::event::{Event, Outcome};
use lidless_core::health::Health;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use self::ground::{Folder, configuration, free_port, kill, serve, signals};
use self::result::{Fault, Row, all_healed};
use super::Globals;
use super::exit::Exit;
use crate::api::EventLine;
use crate::api::client::{Client, Lasting};
use crate::runtime::status::Status;
use crate::words::span;

/// Longer than this and a heal has failed.
const HEAL_MAX: Duration = Duration::from_secs(30);
/// How long lidless may take to answer after its start.
const START_MAX: Duration = Duration::from_secs(15);

/// Breaks a real service in every way and shows how lidless mends it.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless demo\n  lidless demo --rounds 3 --pause 500ms\n\nExit code 0 when every fault was healed, 1 when one was not.\n\
    With --json the words go to stderr, and one document with every time to stdout at the end."
)]
pub struct DemoArgs {
    /// How often to go through all faults; 0 goes on until Ctrl-C
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
    /// The pause between a heal and the next fault
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub pause: String,
    /// Keep the files of the run and say where they are
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo.
pub fn run(args: &DemoArgs, globals: &Globals) -> Exit {
    let pause = match crate::config::units::duration(&args.pause) {
        Ok(pause) => pause,
        Err(why) => {
            return globals.fail(Exit::Usage, &format!("--pause {}: {}", args.pause, why.message), None);
        }
    };
    let dir = match Folder::new() {
        Ok(dir) => dir,
        Err(err) => {
            return globals.fail(
                Exit::Permission,
                &format!("cannot make a folder for the demo: {err}"),
                None,
            );
        }
    };
    let tokio = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(tokio) => tokio,
        Err(err) => return globals.fail(Exit::TryAgain, &format!("cannot start: {err}"), None),
    };
    let exit = tokio.block_on(async {
        let ended = match signals() {
            Ok(ended) => ended,
            Err(err) => {
                return globals.fail(Exit::TryAgain, &format!("signals cannot be caught: {err}"), None);
            }
        };
        let mut ended = std::pin::pin!(ended);
        // Nothing is cut off while it starts: what was started by then must be known, or it would stay behind.
        let mut demo = match Demo::start(dir.path(), globals).await {
            Ok(demo) => demo,
            Err(why) => return globals.fail(Exit::Unhealthy, &why, None),
        };
        let exit = tokio::select! {
            biased;
            number = &mut ended => Exit::Signal(number),
            exit = demo.show(args.rounds, pause) => exit,
        };
        result::show(globals, &demo.rows, exit);
        demo.end().await;
        exit
    });
    if args.keep {
        globals.say(&format!("the configuration, the journal and the logs are in {}", dir.keep().display()));
    }
    exit
}

struct Demo<'a> {
    globals: &'a Globals,
    config: std::path::PathBuf,
    client: Client,
    port: u16,
    lidless: Child,
    events: mpsc::Receiver<EventLine>,
    rows: Vec<Row>,
}

impl<'a> Demo<'a> {
    async fn start(dir: &Path, globals: &'a Globals) -> Result<Demo<'a>, String> {
        let port = free_port().map_err(|err| format!("no free port: {err}"))?;
        let config = dir.join("lidless.yaml");
        std::fs::write(&config, configuration(port))
            .map_err(|err| format!("cannot write the configuration: {err}"))?;
        let client = Client::new(super::socket_for_store(&dir.join("lidless.db")));
        let lidless = serve(&config)?;
        let (_, events) = mpsc::channel(1);
        let mut demo = Demo { globals, config, client, port, lidless, events, rows: Vec::new() };
        demo.tell(&format!(
            "A real service on http://127.0.0.1:{port}/health, kept alive by a real lidless (pid {}).",
            demo.lidless.id()
        ));
        if let Err(why) = demo.wait_up(0).await {
            demo.end().await;
            return Err(why);
        }
        Ok(demo)
    }

    /// Says what happens. Where stdout is for a document, these are words like any other.
    fn tell(&self, line: &str) {
        if self.globals.json() { self.globals.say(line) } else { self.globals.print(line) }
    }

    /// Waits until lidless answers and the service is up, and follows events from there on.
    async fn wait_up(&mut self, least_seq: u64) -> Result<(), String> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Ok(status) = self.client.get::<Status>("/v1/status").await {
                // What a lidless that has just begun knows is what the last one knew; it is sure once its runs have ended.
                let up =
                    status.services.iter().all(|service| service.health == "up" && service.run.is_none());
                if up && status.seq > least_seq {
                    self.events = follow(self.client.clone(), status.seq);
                    return Ok(());
                }
            }
            if let Ok(Some(ended)) = self.lidless.try_wait() {
                return Err(format!("lidless ended with {ended}; its log is {}", self.log().display()));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the service is not up after {}; the log is {}",
                    span(START_MAX),
                    self.log().display()
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn show(&mut self, rounds: u32, pause: Duration) -> Exit {
        let mut round = 0;
        while rounds == 0 || round < rounds {
            for fault in Fault::ALL {
                tokio::time::sleep(pause).await;
                let row = match fault {
                    Fault::KillLidless => self.kill_lidless().await,
                    Fault::Kill | Fault::Answer500 | Fault::Hang | Fault::Drip | Fault::Exit => {
                        self.fault(fault).await
                    }
                };
                match row {
                    Ok(row) => self.rows.push(row),
                    Err(why) => {
                        return self.globals.fail(
                            Exit::Unhealthy,
                            &why,
                            Some("run it with --keep and look at the logs"),
                        );
                    }
                }
            }
            round += 1;
        }
        if all_healed(&self.rows) { Exit::Ok } else { Exit::Unhealthy }
    }

    async fn fault(&mut self, fault: Fault) -> Result<Row, String> {
        while self.events.try_recv().is_ok() {}
        self.tell(&format!("\n{}", self.globals.bold(fault.title())));
        let began = Instant::now();
        match fault {
            Fault::Kill => kill(self.service_pid().await?)?,
            Fault::Answer500 => self.switch("500").await?,
            Fault::Hang => self.switch("hang").await?,
            Fault::Drip => self.switch("drip").await?,
            Fault::Exit => self.switch("exit").await?,
            Fault::KillLidless => {}
        }
        self.heal(fault, began).await
    }

    /// Shows what happens until the incident is closed.
    async fn heal(&mut self, fault: Fault, began: Instant) -> Result<Row, String> {
        let mut row = Row { fault, noticed: None, healed: None };
        // Well again is one thing, proved to be well another: the first pass ends the downtime, the last the incident.
        let mut well = None;
        while row.healed.is_none() {
            let left = HEAL_MAX.saturating_sub(began.elapsed());
            let Ok(line) = tokio::time::timeout(left, self.events.recv()).await else {
                self.tell(
                    &self.globals.health_line(Health::Down, &format!("not healed within {}", span(HEAL_MAX))),
                );
                return Ok(row);
            };
            let Some(line) = line else { return Err("lidless does not answer any more".to_owned()) };
            let after = began.elapsed();
            let shown =
                match &line.record.event {
                    Event::HealthChanged { to: Health::Suspect { .. } | Health::Down, .. } => {
                        row.noticed.get_or_insert(after);
                        let Event::HealthChanged { to, .. } = &line.record.event else { continue };
                        Some(self.globals.health_line(
                            *to,
                            &format!("{}: {}", line.check.as_deref().unwrap_or(""), line.text),
                        ))
                    }
                    Event::StepIntent { .. } => Some(self.globals.arrow_line(&line.text)),
                    Event::StepOutcome { outcome: Outcome::Applied { output }, .. } => {
                        Some(format!("    {output}"))
                    }
                    Event::StepOutcome { .. } => Some(format!("    {}", line.text)),
                    Event::HealthChanged { to: Health::Up, .. } if row.noticed.is_some() => {
                        well = Some(after);
                        let check = line.check.as_deref().unwrap_or("");
                        Some(self.globals.health_line(Health::Up, &format!("{check}: {}", line.text)))
                    }
                    Event::IncidentClosed { .. } => {
                        row.healed = well.or(Some(after));
                        Some(self.globals.health_line(Health::Up, &line.text))
                    }
                    _ => None,
                };
            if let Some(shown) = shown {
                self.tell(&format!("  {:>8}  {shown}", format!("+{}", span(after))));
            }
        }
        Ok(row)
    }

    /// The watcher dies first, then the service: whoever comes next must find out and mend it, and start nothing twice.
    async fn kill_lidless(&mut self) -> Result<Row, String> {
        let fault = Fault::KillLidless;
        self.tell(&format!("\n{}", self.globals.bold(fault.title())));
        let seq = self.client.get::<Status>("/v1/status").await.map_err(|err| err.to_string())?.seq;
        let service = self.service_pid().await?;
        self.lidless.kill().map_err(|err| format!("cannot kill lidless: {err}"))?;
        drop(self.lidless.wait());
        let alone = self.ask("/health").await.is_ok_and(|answer| answer.contains("200 OK"));
        let word = if alone { "goes on answering without lidless" } else { "does not answer" };
        self.tell(&format!("            the service (pid {service}) {word}"));
        let began = Instant::now();
        kill(service)?;
        self.lidless = serve(&self.config)?;
        self.tell(&format!("            a new lidless (pid {}) reads the journal", self.lidless.id()));
        self.wait_up(seq).await?;
        let healed = began.elapsed();
        let up =
            self.globals.health_line(Health::Up, &format!("one instance, pid {}", self.service_pid().await?));
        self.tell(&format!("  {:>8}  {up}", format!("+{}", span(healed))));
        Ok(Row { fault, noticed: None, healed: Some(healed) })
    }

    async fn service_pid(&self) -> Result<i32, String> {
        // Switching to "ok" what is ok already changes nothing, and the answer names the process.
        let answer =
            self.ask("/break?how=ok").await.map_err(|err| format!("the service does not answer: {err}"))?;
        answer
            .rsplit(' ')
            .next()
            .and_then(|word| word.trim().parse().ok())
            .ok_or_else(|| format!("no pid in {answer:?}"))
    }

    async fn switch(&self, how: &str) -> Result<(), String> {
        // The service may be gone before it has answered: that is what was asked for.
        drop(self.ask(&format!("/break?how={how}")).await);
        Ok(())
    }

    async fn ask(&self, route: &str) -> std::io::Result<String> {
        let asking = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            let request = format!("GET {route} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        tokio::time::timeout(Duration::from_secs(2), asking)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    fn log(&self) -> std::path::PathBuf {
        self.config.with_file_name("lidless.log")
    }

    /// Ends lidless and the service with it, in good order.
    async fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.lidless);
        if let Err(err) = rustix::process::kill_process(pid, rustix::process::Signal::TERM) {
            self.globals.say(&format!("lidless cannot be told to end: {err}"));
        }
        let deadline = Instant::now() + Duration::from_secs(15);
        while matches!(self.lidless.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                drop(self.lidless.kill());
                drop(self.lidless.wait());
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Follows the daemon's events from a position on.
fn follow(client: Client, after: u64) -> mpsc::Receiver<EventLine> {
    let (send, receive) = mpsc::channel(1024);
    tokio::spawn(async move {
        let route = format!("/v1/events?after={after}&follow=true");
        // The demo notices by its own deadline when the stream ends.
        drop(
            client
                .lines(&route, Lasting::Follows, |line| match serde_json::from_str(line) {
                    Ok(line) => send.try_send(line).is_ok(),
                    Err(_) => true,
                })
                .await,
        );
    });
    receive
}
