//! Which server does a step meet? One that takes whole requests, and behaves as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What it does with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    /// Reads the request, answers with these bytes, and closes.
    Answer(Vec<u8>),
    /// Reads the request, answers with these bytes, and never says another word.
    Hang(Vec<u8>),
    /// Reads the request, and resets the connection.
    Reset,
    /// Reads the request, and writes a body that never ends.
    Flood,
}

/// A server on loopback, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Does these in turn, and the last one again and again.
    pub(crate) async fn new(behaviour: impl Into<VecDeque<Then>>) -> Self {
        let behaviour = Mutex::new(behaviour.into());
        Server::telling(move |_| {
            let mut left = behaviour.lock().unwrap();
            if left.len() > 1 { left.pop_front().unwrap() } else { left[0].clone() }
        })
        .await
    }

    /// Decides by the request.
    pub(crate) async fn telling(decide: impl Fn(&str) -> Then + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = heard.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                let then = decide(&request);
                notes.lock().unwrap().push(request);
                match then {
                    Then::Answer(bytes) => drop(stream.write_all(&bytes).await),
                    Then::Hang(bytes) => {
                        let _ = stream.write_all(&bytes).await;
                        kept.push(stream);
                    }
                    Then::Reset => stream.set_zero_linger().unwrap(),
                    Then::Flood => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegin\n").await;
                        while stream.write_all(&[b'x'; 10_000]).await.is_ok() {}
                    }
                }
            }
        });
        Server { address, heard, _tasks: tasks }
    }

    /// Answers every request with this status and this body.
    pub(crate) async fn answering(status: u16, body: &str) -> Self {
        Server::new([Then::Answer(answer(status, "", body))]).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the requests so far, body included.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// Writes an answer; `headers` are whole lines.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Some\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut piece = [0; 16 * 1024];
    while !is_whole(&request) {
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        // The beginning of a TLS handshake is no request, and none will come.
        return request.first() == Some(&0x16);
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
