//! Does the TCP check tell who listens from who does not?

use std::time::Duration;

use lidless_drivers::check::Check;
use lidless_drivers::check::tcp::TcpCheck;
use tokio::net::TcpListener;

use super::server::nobody;
use super::{PLENTY, SHORT, assert_took, shown};

#[tokio::test]
async fn a_listener_passes_by_address_and_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(shown(&TcpCheck::new(host, port).probe(PLENTY).await), "pass");
    }
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let port = nobody().await.port();
    assert_eq!(shown(&TcpCheck::new("127.0.0.1", port).probe(PLENTY).await), "refused: connection refused");
}

#[tokio::test]
async fn a_network_that_this_host_has_no_way_to_is_not_the_targets_failure() {
    // No TCP connection goes to a group: the kernel says so as it does without a route.
    assert_eq!(
        shown(&TcpCheck::new("224.0.0.1", 80).probe(PLENTY).await),
        "inconclusive: cannot ask from this host: Network is unreachable (os error 101)"
    );
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_inconclusive() {
    let outcome = shown(&TcpCheck::new("nonexistent.invalid", 1).probe(Duration::from_secs(3)).await);
    assert!(outcome.starts_with("inconclusive: "), "{outcome}");
}

#[tokio::test]
async fn a_full_queue_of_connections_fails_at_the_deadline() {
    // Nobody accepts, so that the kernel's queue fills and further connections are not answered at all.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "this kernel queues without end");
    }
    let outcome = TcpCheck::new("127.0.0.1", address.port()).probe(SHORT).await;
    assert_took(&outcome, SHORT);
    assert_eq!(shown(&outcome), "timeout: no connection within 300 ms");
}
