//! How many may talk to us at once, and how long may they say nothing? Connections are descriptors, and the checks need those.
//!
//! Everybody may open the socket. One that opens it a thousand times, or opens it and stays silent, must not blind the
//! watch. A connection over the limit is closed at once: one that waited would hold its descriptor all the same.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) total: usize,
    /// Of these, so many are kept for root and our own user.
    pub(super) kept: usize,
    /// Connections of one other user at once.
    pub(super) per_user: usize,
    /// From the connection to a whole question.
    pub(super) ask_within: Duration,
}

/// The limits of each listener.
pub(super) const LIMITS: Limits =
    Limits { total: 64, kept: 16, per_user: 8, ask_within: Duration::from_secs(10) };

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    uid: Option<u32>,
    asked: Arc<AtomicBool>,
}

impl Peer {
    /// Root and the daemon's own user may act; everybody who can reach the socket may look.
    pub(super) fn may_operate(&self) -> bool {
        self.uid.is_some_and(is_ours)
    }

    /// The name for the journal.
    pub(super) fn name(&self) -> String {
        self.uid.map_or_else(|| "unknown".to_owned(), |uid| format!("uid {uid}"))
    }

    /// Says that the question has come: from now on the answer may take its time.
    pub(super) fn has_asked(&self) {
        self.asked.store(true, Ordering::Release);
    }
}

fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

impl<L: Listener<Io: Known>> Connected<IncomingStream<'_, Gate<L>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Gate<L>>) -> Self {
        let held = stream.io();
        Peer { uid: held.io.uid(), asked: Arc::clone(&held.asked) }
    }
}

/// A connection that may tell whose it is.
pub(super) trait Known {
    fn uid(&self) -> Option<u32>;
    /// Whom it counts for; none counts only in total.
    fn counts_for(&self) -> Option<u32>;
}

impl Known for UnixStream {
    fn uid(&self) -> Option<u32> {
        self.peer_cred().ok().map(|cred| cred.uid())
    }

    fn counts_for(&self) -> Option<u32> {
        let uid = self.uid().unwrap_or(u32::MAX);
        (!is_ours(uid)).then_some(uid)
    }
}

impl Known for TcpStream {
    fn uid(&self) -> Option<u32> {
        None
    }

    fn counts_for(&self) -> Option<u32> {
        None
    }
}

/// A listener that turns away whoever is too many.
pub(super) struct Gate<L> {
    listener: L,
    limits: Limits,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_user: HashMap<u32, usize>,
}

impl<L> Gate<L> {
    pub(super) fn new(listener: L, limits: Limits) -> Gate<L> {
        Gate { listener, limits, open: Arc::default() }
    }

    fn admit(&self, user: Option<u32>) -> Option<Ticket> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Limits { total, kept, per_user, .. } = self.limits;
        let has_room = match user {
            None => open.total < total,
            Some(user) => {
                let of_others: usize = open.by_user.values().sum();
                let own = open.by_user.get(&user).copied().unwrap_or(0);
                open.total < total && of_others < total.saturating_sub(kept) && own < per_user
            }
        };
        if !has_room {
            return None;
        }
        open.total += 1;
        if let Some(user) = user {
            *open.by_user.entry(user).or_default() += 1;
        }
        Some(Ticket { user, open: Arc::clone(&self.open) })
    }
}

/// A place among the open connections, given back with it.
struct Ticket {
    user: Option<u32>,
    open: Arc<Mutex<Open>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(user) = self.user
            && let Some(count) = open.by_user.get_mut(&user)
        {
            *count -= 1;
            if *count == 0 {
                open.by_user.remove(&user);
            }
        }
    }
}

impl<L: Listener<Io: Known>> Listener for Gate<L> {
    type Io = Held<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Held<L::Io>, L::Addr) {
        loop {
            let (io, addr) = self.listener.accept().await;
            let user = io.counts_for();
            match self.admit(user) {
                Some(ticket) => {
                    let deadline = Box::pin(tokio::time::sleep(self.limits.ask_within));
                    return (Held { io, asked: Arc::default(), deadline, _ticket: ticket }, addr);
                }
                None => tracing::debug!(uid = user, "Too many connections: one was turned away."),
            }
            // Whoever connects without end must not keep the thread from everything else.
            tokio::task::yield_now().await;
        }
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with its place. It breaks when no question comes in time.
pub(super) struct Held<S> {
    io: S,
    asked: Arc<AtomicBool>,
    deadline: Pin<Box<Sleep>>,
    _ticket: Ticket,
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // First the clock: bytes that drip in must not put it off.
        if !self.asked.load(Ordering::Acquire) && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Limits = Limits { total: 6, kept: 2, per_user: 3, ask_within: Duration::from_millis(50) };

    #[test]
    fn one_user_gets_its_share_others_the_rest_and_we_our_own() {
        let gate = Gate::new((), FEW);
        let mut held: Vec<_> = (0..3).filter_map(|_| gate.admit(Some(7))).collect();
        assert!(gate.admit(Some(7)).is_none(), "more than its share");
        held.extend(gate.admit(Some(8)));
        assert!(gate.admit(Some(8)).is_none(), "the rest is kept for us");
        held.extend((0..2).filter_map(|_| gate.admit(None)));
        assert_eq!(held.len(), 6);
        assert!(gate.admit(None).is_none(), "more than all");
        drop(held);
        assert!(gate.admit(Some(7)).is_some(), "places are given back");
        let open = gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((open.total, open.by_user.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_is_ended_and_one_over_the_limit_at_once() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("gate.sock");
        let gate = Gate::new(tokio::net::UnixListener::bind(&path).expect("a socket"), FEW);
        let router = axum::Router::new()
            .route("/", axum::routing::get(async || "here"))
            .into_make_service_with_connect_info::<Peer>();
        let serving = tokio::spawn(async move { axum::serve(gate, router).await });
        let mut ended = tokio::task::JoinSet::new();
        for at in 0..20 {
            let mut stream = UnixStream::connect(&path).await.expect("it listens");
            ended.spawn(async move {
                if at == 0 {
                    drop(stream.write_all(b"GET / HT").await);
                }
                let mut answer = Vec::new();
                drop(stream.read_to_end(&mut answer).await);
                answer
            });
        }
        let all = tokio::time::timeout(Duration::from_secs(10), ended.join_all()).await;
        assert!(all.is_ok_and(|answers| answers.iter().all(Vec::is_empty)));
        let mut stream = UnixStream::connect(&path).await.expect("it listens");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("a place is free again");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("here"), "{answer}");
        serving.abort();
    }
}
