//! Which misbehaviours can a server show? One listener, one behaviour.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server that does one thing on each connection, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Reads a request, then behaves.
    pub(crate) async fn start<F>(behave: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Server::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), behave)
    }

    /// Does the same where it is told to listen.
    pub(crate) fn on<F>(listener: TcpListener, behave: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = heard.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // One after the other: a probe sends its request at once, or its connection ends.
                let request = read_request(&mut stream).await;
                notes.lock().unwrap().push(request);
                connections.spawn(behave(stream));
            }
        });
        Server { address, heard, _tasks: tasks }
    }

    /// Answers with these bytes, and closes.
    pub(crate) async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Server::start(move |mut stream| {
            let bytes = bytes.clone();
            async move {
                // The probe may hang up before all is written: that is its right.
                let _ = stream.write_all(&bytes).await;
            }
        })
        .await
    }

    /// Writes the first bytes at once, then a byte at each step for ever.
    pub(crate) async fn dripping(first: &'static str, step: Duration) -> Self {
        Server::start(move |mut stream| async move {
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(b"x").await.is_ok() {
                // tidy-allow: the drip is the fault
                tokio::time::sleep(step).await;
            }
        })
        .await
    }

    /// Reads the request and never says a word.
    pub(crate) async fn silent() -> Self {
        Server::start(|stream| async move {
            let _keep = stream;
            std::future::pending::<()>().await;
        })
        .await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the requests so far.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

/// Returns an address where nobody listens: the port was ours a moment ago.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
