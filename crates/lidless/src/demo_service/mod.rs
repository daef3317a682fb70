//! What does the demo heal? A real small HTTP service with switches to crash, hang, drip and answer 500.
//!
//! `lidless demo-service --port 8080`: `GET /health` answers `ok`, `/break?how=…` switches. The demo, the quick start, the
//! tests and the benches all break this one, so it starts as fast as a process can and says when it did (`--stamp`).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

mod http;
#[cfg(test)]
mod tests;

pub use http::Mode;

/// What `lidless demo-service` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoServiceArgs {
    /// The port to listen on; 0 takes a free one and says which
    #[arg(long, value_name = "PORT")]
    pub port: u16,
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// Wait this long before listening: a service that is slow to start
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = parse_time)]
    pub start_delay: Duration,
    /// Append a line to FILE once listening: nanoseconds since the epoch, process id
    #[arg(long, value_name = "FILE")]
    pub stamp: Option<PathBuf>,
}

/// Why the demo service could not run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot set up its event loop")]
    EventLoop(#[source] std::io::Error),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        err: std::io::Error,
    },
    #[error("cannot write the stamp file `{}`", path.display())]
    Stamp {
        path: PathBuf,
        #[source]
        err: std::io::Error,
    },
}

/// Runs the service until SIGTERM or SIGINT (code 0), or until it is told to break.
pub fn run(args: DemoServiceArgs) -> ExitCode {
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let cause = std::error::Error::source(&err).map(|c| format!(": {c}")).unwrap_or_default();
            eprintln!("demo-service failed: {err}{cause}");
            // A comment line: whoever looks for two live instances of one service finds the refused one here.
            if let Some(path) = &args.stamp {
                drop(append(path, &format!("# {} {} {err}{cause}\n", nanoseconds(), std::process::id())));
            }
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &DemoServiceArgs) -> Result<(), RunError> {
    // One thread: nothing here needs more, and starting others would cost the start its speed.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::EventLoop)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::EventLoop)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::EventLoop)?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            ended = listen(args) => ended,
        }
    })
}

async fn listen(args: &DemoServiceArgs) -> Result<(), RunError> {
    if !args.start_delay.is_zero() {
        tokio::time::sleep(args.start_delay).await;
    }
    let address = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(address).await.map_err(|err| RunError::Listen { address, err })?;
    // Nobody may be reading: a service that fell over its own greeting would be a poor one.
    if let Ok(address) = listener.local_addr() {
        drop(writeln!(std::io::stdout(), "demo-service listens on {address}"));
    }
    if let Some(path) = &args.stamp {
        append(path, &format!("{} {}\n", nanoseconds(), std::process::id()))
            .map_err(|err| RunError::Stamp { path: path.clone(), err })?;
    }
    http::accept(listener).await;
    Ok(())
}

/// Appends in one write, so that lines of two processes never mix.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a time, as 250ms or 2s".to_owned())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err("expected a time, as 250ms or 2s".to_owned()),
    }
}
