//! What do hung probes leave behind? Nothing: no descriptor, no socket in TIME_WAIT. Alone in its file, since it counts what
//! the whole process holds.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use lidless_core::check::CheckOutcome;
use lidless_drivers::check::Check;
use lidless_drivers::check::http::{HttpCheck, HttpSettings};
use lidless_drivers::check::tcp::TcpCheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux shows them").count()
}

/// Counts sockets in TIME_WAIT to or from this address: our side, and the server's.
fn lingering(address: SocketAddr) -> usize {
    let port = format!(":{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux shows them");
    let is_one = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1..3].iter().any(|field| field.ends_with(&port)) && fields[3] == "06"
    };
    table.lines().filter(is_one).count()
}

/// Answers each request, then closes at once, or when the other side does.
async fn serve(listener: TcpListener, closes_first: bool) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("descriptors are left");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        while !closes_first && stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

#[tokio::test]
async fn two_hundred_hung_probes_and_as_many_good_ones_leave_nothing_behind() {
    let (_hung, hung) = listener().await;
    let (keeping, kept) = listener().await;
    let (closing, closed) = listener().await;
    let mut servers = JoinSet::new();
    servers.spawn(serve(keeping, false));
    servers.spawn(serve(closing, true));
    let [hanging, keeping, closing] = [hung, kept, closed]
        .map(|address| HttpCheck::new(HttpSettings::new(format!("http://{address}/"))).expect("it is a URL"));
    let knocking = TcpCheck::new("127.0.0.1", kept.port());
    let checks: [&dyn Check; 3] = [&keeping, &closing, &knocking];
    let before = descriptors();

    let timeout = Duration::from_millis(200);
    let outcomes = join_all((0..200).map(|_| hanging.probe(timeout))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, CheckOutcome::Fail { .. })), "{outcomes:?}");
    for _ in 0..200 {
        for check in checks {
            let outcome = check.probe(Duration::from_secs(20)).await;
            assert!(matches!(outcome, CheckOutcome::Pass { .. }), "{outcome:?}");
        }
    }

    assert_eq!([hung, kept, closed].map(lingering), [0, 0, 0]);
    // The server's side of the last connections closes in its own time; the listeners and our side must be as before.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while descriptors() != before {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{before} descriptors before, {} after",
            descriptors()
        );
        // tidy-allow: between two looks at a condition
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
