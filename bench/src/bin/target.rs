//! What do thousands of watched services look like from below? One thread that answers them all and counts what is missed.
//!
//! Any address of 127.0.0.0/8 reaches it; `GET /tN` is target N. `--hung A..B` are accepted and never answered. `GET
//! /__reset?targets=N&interval_ms=M` begins a measurement, `GET /__stats` reads it. A readiness loop by hand: a runtime
//! would cost more than the work that it schedules, and this process shares the machine with what is measured.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use lidless_bench::Problem;
use lidless_bench::gaps::Gaps;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
/// As many as the kernel allows: a burst must not be refused, for that would be the target's failure.
const BACKLOG: i32 = 4096;
const REQUEST_BYTES_MAX: usize = 2048;
const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 1024;

/// Serves any number of HTTP targets on one port
#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    port: u16,
    /// Ids that are accepted and never answered, as 95..100
    #[arg(long, value_parser = parse_range, default_value = "0..0")]
    hung: Range<u32>,
}

fn parse_range(text: &str) -> Result<Range<u32>, String> {
    let (from, to) = text.split_once("..").ok_or("expected a range, as 95..100")?;
    let number = |t: &str| t.parse().map_err(|_| format!("`{t}` is no number"));
    Ok(number(from)?..number(to)?)
}

fn main() -> ExitCode {
    match Server::listen(&Args::parse()).and_then(Server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("target failed: {problem}");
            ExitCode::FAILURE
        }
    }
}

struct Server {
    epoll: OwnedFd,
    listener: OwnedFd,
    /// Connections whose request has not come yet, or that hang. A slot is an epoll key.
    waiting: Vec<Option<Connection>>,
    free: Vec<usize>,
    gaps: Gaps,
    began: Instant,
    hung: Range<u32>,
}

struct Connection {
    stream: TcpStream,
    /// What has come of a request in pieces; mostly nothing, and then it costs no allocation.
    partial: Vec<u8>,
}

impl Server {
    fn listen(args: &Args) -> Result<Server, Problem> {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, args.port));
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &socket, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Server {
            epoll,
            listener: socket,
            waiting: Vec::new(),
            free: Vec::new(),
            gaps: Gaps::new(args.hung.clone()),
            began: Instant::now(),
            hung: args.hung.clone(),
        })
    }

    fn run(mut self) -> Result<(), Problem> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(err) => return Err(err.into()),
            }
            for event in &events {
                let key = event.data.u64();
                if key == LISTENER { self.accept()? } else { self.resume(usize::try_from(key)?) }
            }
        }
    }

    fn accept(&mut self) -> Result<(), Problem> {
        loop {
            match rustix::net::accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(stream) => {
                    // The request is often there already: then no slot and no epoll are needed.
                    let fresh = Connection { stream: TcpStream::from(stream), partial: Vec::new() };
                    if let Some(connection) = self.serve(fresh) {
                        self.park(connection);
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn park(&mut self, connection: Connection) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        if epoll::add(&self.epoll, &connection.stream, EventData::new_u64(slot as u64), EventFlags::IN)
            .is_ok()
        {
            self.waiting[slot] = Some(connection);
        } else {
            self.free.push(slot);
        }
    }

    fn resume(&mut self, slot: usize) {
        let Some(connection) = self.waiting.get_mut(slot).and_then(Option::take) else { return };
        // Closing the descriptor takes it out of the epoll set.
        match self.serve(connection) {
            Some(connection) => self.waiting[slot] = Some(connection),
            None => self.free.push(slot),
        }
    }

    /// Reads and answers; gives the connection back where it has to wait on.
    fn serve(&mut self, mut connection: Connection) -> Option<Connection> {
        let mut request = [0; REQUEST_BYTES_MAX];
        let before = connection.partial.len();
        request[..before].copy_from_slice(&connection.partial);
        let length = match connection.stream.read(&mut request[before..]) {
            Ok(0) => return None,
            Ok(length) => before + length,
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Some(connection),
            Err(_) => return None,
        };
        if !request[..length].ends_with(b"\r\n\r\n") {
            connection.partial = request[..length].to_vec();
            return Some(connection);
        }
        let stream = &mut connection.stream;
        let text = std::str::from_utf8(&request[..length]).ok()?;
        let path = text.split_ascii_whitespace().nth(1)?;
        if let Some(id) = path.strip_prefix("/t").and_then(|id| id.parse::<u32>().ok()) {
            self.gaps.seen(id, self.began.elapsed());
            if self.hung.contains(&id) {
                connection.partial.clear();
                return Some(connection);
            }
            drop(stream.write(OK));
        } else {
            let body = self.control(path);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            drop(stream.write_all((head + &body).as_bytes()));
        }
        None
    }

    fn control(&mut self, path: &str) -> String {
        let now = self.began.elapsed();
        if let Some(query) = path.strip_prefix("/__reset?") {
            let value = |name: &str| {
                query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('=')?.parse::<u32>().ok())
            };
            self.gaps.reset(value("targets").unwrap_or(0), value("interval_ms").unwrap_or(1000), now);
        }
        serde_json::to_string(&self.gaps.stats(now)).unwrap_or_default()
    }
}
