//! How does a bench ask a target something? One GET over a fresh connection, with a deadline.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Gets `path` from a port of this machine.
///
/// `within` is the deadline of the connection and of the whole answer: a dripping service must not hold a bench.
pub fn get(port: u16, path: &str, within: Duration) -> std::io::Result<Answer> {
    let ends = Instant::now() + within;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(within))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return parse(&bytes).ok_or_else(|| std::io::ErrorKind::InvalidData.into()),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

/// Whether `/health` answers 200 in good time.
pub fn is_well(port: u16) -> bool {
    get(port, "/health", Duration::from_millis(300)).is_ok_and(|a| a.status == 200)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}
