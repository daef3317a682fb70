//! How does the demo service answer, and misbehave when told to?
//!
//! Requests are parsed by hand: a request line is all that matters here, and a server framework would slow the start.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

/// How long a connection may stay open, whatever the client does.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// The longest request that is read.
const REQUEST_BYTES_MAX: usize = 4096;
/// The body that `drip` promises, and the pace at which it comes: over six minutes.
const DRIP_BYTES: usize = 4000;
const DRIP_EVERY: Duration = Duration::from_millis(100);

/// What `/break?how=…` can switch to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Answers as it should.
    Ok,
    /// Answers 500.
    Status500,
    /// Accepts and never answers.
    Hang,
    /// Answers 200 at once and the body a byte at a time.
    Drip,
    /// Ends at once by SIGKILL, in the middle of the request.
    Crash,
    /// Ends with exit code 1.
    Exit,
}

impl Mode {
    /// Reads the word used in `/break?how=WORD`.
    pub fn parse(word: &str) -> Option<Mode> {
        match word {
            "ok" => Some(Mode::Ok),
            "500" => Some(Mode::Status500),
            "hang" => Some(Mode::Hang),
            "drip" => Some(Mode::Drip),
            "crash" => Some(Mode::Crash),
            "exit" => Some(Mode::Exit),
            _ => None,
        }
    }
}

/// Accepts connections until it is dropped, and every connection with it.
pub(super) async fn accept(listener: TcpListener) {
    let mode = Rc::new(Cell::new(Mode::Ok));
    let local = LocalSet::new();
    local
        .run_until(async {
            let mut connections = JoinSet::new();
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let mode = Rc::clone(&mode);
                        connections.spawn_local(async move {
                            drop(tokio::time::timeout(CONNECTION_MAX, connection(stream, &mode)).await);
                        });
                    }
                    // Out of file descriptors, most likely: accepting again at once would only spin.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
                while connections.try_join_next().is_some() {}
            }
        })
        .await;
}

async fn connection(mut stream: TcpStream, mode: &Cell<Mode>) -> std::io::Result<()> {
    drop(stream.set_nodelay(true));
    let Some(path) = read_request(&mut stream).await? else { return Ok(()) };
    if path == "/health" || path == "/" {
        return health(stream, mode.get()).await;
    }
    let Some(word) = path.strip_prefix("/break?how=") else {
        return answer(&mut stream, "404 Not Found", "not found; try /health or /break?how=500\n").await;
    };
    match Mode::parse(word) {
        Some(Mode::Crash) => {
            // Not `abort`: writing a core dump would make the crash slower than a real one.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
            Ok(())
        }
        Some(Mode::Exit) => {
            answer(&mut stream, "200 OK", &confirmation(word)).await?;
            std::process::exit(1)
        }
        Some(new @ (Mode::Ok | Mode::Status500 | Mode::Hang | Mode::Drip)) => {
            mode.set(new);
            answer(&mut stream, "200 OK", &confirmation(word)).await
        }
        None => {
            answer(&mut stream, "400 Bad Request", "how is one of crash, exit, 500, hang, drip, ok\n").await
        }
    }
}

/// Says which instance obeyed: a bench must know whether it broke the old process or the new one.
fn confirmation(word: &str) -> String {
    format!("{word} pid {}\n", std::process::id())
}

async fn health(mut stream: TcpStream, mode: Mode) -> std::io::Result<()> {
    match mode {
        Mode::Ok => answer(&mut stream, "200 OK", "ok\n").await,
        Mode::Status500 => answer(&mut stream, "500 Internal Server Error", "broken\n").await,
        Mode::Hang => until_closed(&mut stream).await,
        Mode::Drip => {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {DRIP_BYTES}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            for _ in 0..DRIP_BYTES {
                stream.write_all(b".").await?;
                tokio::time::sleep(DRIP_EVERY).await;
            }
            Ok(())
        }
        // The process ended when it was switched to these.
        Mode::Crash | Mode::Exit => Ok(()),
    }
}

/// Reads up to the end of the head; returns the path with its query.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut request = Vec::with_capacity(512);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    }
    let text = String::from_utf8_lossy(&request);
    Ok(text.split_ascii_whitespace().nth(1).map(str::to_owned))
}

async fn answer(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

async fn until_closed(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut sink = [0; 256];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}
