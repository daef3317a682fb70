//! How does the command line ask a running lidless? One request a connection, over the Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// How long a simple question may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stream that must come to an end may be silent.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// When a stream of lines ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lasting {
    /// By itself, and soon: silence means that something is broken.
    Ends,
    /// Never by itself: silence means that nothing happens.
    Follows,
}

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach lidless at {path}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        err: std::io::Error,
    },
    /// The conversation broke.
    #[error("lidless at {path} did not answer: {why}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The answer was not a good one.
    #[error("lidless said: {0}")]
    Refused(String),
}

/// Talks to one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// Returns a client for the daemon at this socket.
    pub fn new(path: impl Into<PathBuf>) -> Client {
        Client { path: path.into() }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, route: &str) -> Result<T, ClientError> {
        let asking = async {
            let response = self.send(Method::GET, route, Bytes::new()).await?;
            let response = self.expect_ok(response).await?;
            self.body(response).await
        };
        self.parse(self.within(asking).await?)
    }

    /// Posts a JSON document; returns the answer whatever its status.
    pub async fn post<T: DeserializeOwned>(
        &self,
        route: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|err| self.broken(&err))?;
        let asking = async {
            let response = self.send(Method::POST, route, Bytes::from(body)).await?;
            self.body(response).await
        };
        self.parse(self.within(asking).await?)
    }

    /// Asks for a stream of lines, and hands each over as it comes; `false` from `visit` ends it.
    pub async fn lines(
        &self,
        route: &str,
        lasting: Lasting,
        mut visit: impl FnMut(&str) -> bool,
    ) -> Result<(), ClientError> {
        let asking = async {
            let response = self.send(Method::GET, route, Bytes::new()).await?;
            self.expect_ok(response).await
        };
        let mut body = self.within(asking).await?.into_body();
        let mut pending = Vec::new();
        loop {
            let frame = match lasting {
                Lasting::Follows => body.frame().await,
                Lasting::Ends => match tokio::time::timeout(IDLE_MAX, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(self.broken(&"silent for 30 s in the middle of the answer")),
                },
            };
            let Some(frame) = frame else { return Ok(()) };
            let Ok(data) = frame.map_err(|err| self.broken(&err))?.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if !visit(String::from_utf8_lossy(&line).trim_end()) {
                    return Ok(());
                }
            }
        }
    }

    async fn within<T>(
        &self,
        asking: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(TIMEOUT, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(self.broken(&"no answer within 10 s")),
        }
    }

    async fn send(
        &self,
        method: Method,
        route: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |err| ClientError::Unreachable { path: self.path.clone(), err };
        let stream = UnixStream::connect(&self.path).await.map_err(unreachable)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|err| self.broken(&err))?;
        // The connection ends with the answer's body; this task ends with it.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(route)
            .header(hyper::header::HOST, "lidless")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|err| self.broken(&err))?;
        sender.send_request(request).await.map_err(|err| self.broken(&err))
    }

    async fn expect_ok(&self, response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let said = self.body(response).await?;
        Err(ClientError::Refused(String::from_utf8_lossy(&said).trim().to_owned()))
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        Ok(response.into_body().collect().await.map_err(|err| self.broken(&err))?.to_bytes())
    }

    fn parse<T: DeserializeOwned>(&self, body: Bytes) -> Result<T, ClientError> {
        serde_json::from_slice(&body)
            .map_err(|_| ClientError::Refused(String::from_utf8_lossy(&body).trim().to_owned()))
    }

    fn broken(&self, why: &impl ToString) -> ClientError {
        ClientError::Broken { path: self.path.clone(), why: why.to_string() }
    }
}
