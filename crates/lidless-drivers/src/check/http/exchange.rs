//! How does one request get its answer? hyper's two halves, driven by hand in the probe's own task.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, Connection};
use hyper::rt::{Read, Write};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::{Progress, Wire};
use super::judge;
use crate::check::verdict::Trouble;

/// The longest header that is read, and the largest chunk of body. Memory is taken as it is filled, from 8 KiB.
const BUFFER_MAX: usize = 64 * 1024;

/// Hears an answer as it comes.
pub(crate) trait Audience {
    /// Takes its status and headers. An `Err` ends the exchange.
    fn head(&mut self, head: &Response<Incoming>) -> Result<(), Trouble>;

    /// Says whether no more of the body is wanted.
    fn is_full(&self) -> bool;

    /// Takes the next piece of the body.
    fn take(&mut self, data: &[u8]);
}

/// Sends the request over a connection, and lets somebody hear the answer.
///
/// Neither half is spawned: when the probe's deadline drops this future, the connection is gone with it.
pub(super) async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    audience: &mut impl Audience,
    progress: &mut Progress,
) -> Result<(), Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Progress { steps, wire } = progress;
    steps.asked();
    let stream = TokioIo::new(Tap { stream, wire });
    let handshake = http1::Builder::new().max_buf_size(BUFFER_MAX).handshake(stream).await;
    let (mut sender, connection) = handshake.map_err(|err| judge::broken(&err))?;
    let mut line = Line { connection, ended: false };

    let response = {
        let mut answer = pin!(sender.send_request(request));
        poll_fn(|cx| {
            line.poll(cx);
            answer.as_mut().poll(cx)
        })
        .await
        .map_err(|err| judge::broken(&err))?
    };
    audience.head(&response)?;

    let mut body = response.into_body();
    steps.answered(body.size_hint().exact());
    while !audience.is_full() && !body.is_end_stream() {
        match poll_fn(|cx| line.poll_frame(&mut body, cx)).await {
            Some(Ok(frame)) => {
                // Trailers are of no interest.
                let Ok(data) = frame.into_data() else { continue };
                steps.received(data.len());
                audience.take(&data);
            }
            Some(Err(err)) => return Err(judge::broken(&err)),
            None => break,
        }
    }
    steps.complete();
    Ok(())
    // The sender lives until here: without it, hyper would hang up before the body is read.
}

/// The connection half: polled whenever the answer is.
struct Line<T: Read + Write + Unpin> {
    connection: Connection<T, Full<Bytes>>,
    ended: bool,
}

impl<T: Read + Write + Unpin> Line<T> {
    fn poll(&mut self, cx: &mut Context<'_>) {
        // What ended it comes out of the other half, as the answer's error or the body's.
        if !self.ended {
            self.ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }

    fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Asked twice: the first call says that we want a frame, the connection then reads one, the second takes it.
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => {
                self.poll(cx);
                Pin::new(body).poll_frame(cx)
            }
        }
    }
}

/// Notes when the first bytes pass, and keeps hyper from saying farewell.
struct Tap<'a, S> {
    stream: S,
    wire: &'a Wire,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.wire.note_received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Before it is tried: a TLS stream may have sent a part of what it then fails to send.
        self.wire.note_sent();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // No farewell: a server that closes first would keep the connection in TIME_WAIT for it. The reset at the end
        // (see `reach`) frees both sides at once.
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.note_sent();
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
