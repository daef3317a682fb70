//! Does the HTTP check tell good answers from bad, late, broken and missing ones?

use std::time::Duration;

use lidless_core::check::{CheckOutcome, FailureKind};
use lidless_drivers::check::Check;
use lidless_drivers::check::http::{HttpCheck, HttpPhases, HttpSettings, StatusWanted};
use tokio::io::AsyncWriteExt;

use super::server::{Server, nobody};
use super::{PLENTY, SHORT, assert_took, kind, shown};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready";

async fn probe_with(settings: HttpSettings, timeout: Duration) -> (CheckOutcome, HttpPhases) {
    HttpCheck::new(settings).unwrap().probe_detailed(timeout).await
}

async fn probe(url: impl Into<String>, timeout: Duration) -> CheckOutcome {
    HttpCheck::new(HttpSettings::new(url)).unwrap().probe(timeout).await
}

async fn probe_answer(answer: impl Into<Vec<u8>>) -> String {
    shown(&probe(Server::answering(answer).await.url("/"), PLENTY).await)
}

#[tokio::test]
async fn a_good_answer_passes_and_its_phases_add_up() {
    let server = Server::answering(OK).await;
    let (outcome, phases) = probe_with(HttpSettings::new(server.url("/")), PLENTY).await;
    let CheckOutcome::Pass { latency } = outcome else { panic!("{outcome:?}") };
    assert_eq!((phases.dns, phases.tls), (None, None));
    let parts = phases.connect.unwrap() + phases.first_byte.unwrap() + phases.body.unwrap();
    assert!(parts <= latency && parts >= latency / 2, "{phases:?} of {latency:?}");
}

#[tokio::test]
async fn statuses_are_judged_and_redirects_are_not_followed() {
    let status = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    assert_eq!(probe_answer(status("404 Not Found")).await, "status: status 404, wanted below 400");
    assert_eq!(probe_answer(status("500 Oops")).await, "status: status 500, wanted below 400");
    assert_eq!(probe_answer("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n").await, "pass");
    assert_eq!(probe_answer(status("101 Switching Protocols")).await, "pass");
    assert_eq!(probe_answer("HTTP/1.1 204 No Content\r\n\r\n").await, "pass");
    assert_eq!(probe_answer("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await, "pass");

    let server = Server::answering(status("404 Not Found")).await;
    let within =
        |ranges| HttpSettings { status: StatusWanted::Within(ranges), ..HttpSettings::new(server.url("/")) };
    assert_eq!(shown(&probe_with(within(vec![404..=404]), PLENTY).await.0), "pass");
    let (outcome, _) = probe_with(within(vec![200..=299, 301..=301]), PLENTY).await;
    assert_eq!(shown(&outcome), "status: status 404, wanted 200-299, 301");
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    assert_eq!(
        shown(&probe(format!("http://{}/", nobody().await), PLENTY).await),
        "refused: connection refused"
    );
}

#[tokio::test]
async fn localhost_is_found_without_a_resolver_on_either_family() {
    let server = Server::answering(OK).await;
    let url = format!("http://localhost:{}/", server.address.port());
    let (outcome, phases) = probe_with(HttpSettings::new(url), PLENTY).await;
    assert_eq!((shown(&outcome), phases.dns), ("pass".into(), None));
    let url = format!("http://localhost:{}/", nobody().await.port());
    assert_eq!(shown(&probe(url, PLENTY).await), "refused: connection refused");
}

#[tokio::test]
async fn a_server_on_ipv6_alone_is_found_by_literal_and_as_localhost() {
    let listener = match tokio::net::TcpListener::bind("[::1]:0").await {
        Ok(listener) => listener,
        Err(err) => return println!("skipped: no IPv6 loopback: {err}"),
    };
    let port = listener.local_addr().unwrap().port();
    let server = Server::on(listener, |mut stream| async move {
        let _ = stream.write_all(OK.as_bytes()).await;
    });
    for host in ["[::1]", "localhost"] {
        assert_eq!(shown(&probe(format!("http://{host}:{port}/"), PLENTY).await), "pass", "{host}");
    }
    assert_eq!(server.heard().len(), 2);
}

#[tokio::test]
async fn an_answer_to_head_needs_no_body() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n").await;
    let settings = HttpSettings { method: "HEAD".into(), ..HttpSettings::new(server.url("/")) };
    assert_eq!(shown(&probe_with(settings, PLENTY).await.0), "pass");
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_inconclusive() {
    // A resolver that does not answer at all ends in the same class, at the deadline.
    let outcome = shown(&probe("http://nonexistent.invalid/", Duration::from_secs(3)).await);
    assert!(outcome.starts_with("inconclusive: "), "{outcome}");
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_fails_at_the_deadline() {
    let outcome = probe(Server::silent().await.url("/"), SHORT).await;
    assert_took(&outcome, SHORT);
    let shown = shown(&outcome);
    assert!(shown.starts_with("timeout: no answer within 300 ms (connected after "), "{shown}");
    assert!(shown.ends_with(" ms, no first byte)"), "{shown}");
}

#[tokio::test]
async fn a_slow_drip_fails_at_the_deadline() {
    let step = Duration::from_millis(50);
    let server = Server::dripping("HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n", step).await;
    let (outcome, phases) = probe_with(HttpSettings::new(server.url("/")), SHORT).await;
    assert_took(&outcome, SHORT);
    let shown = shown(&outcome);
    assert!(shown.starts_with("timeout: body not complete within 300 ms: "), "{shown}");
    assert!(shown.ends_with(" of 4000 bytes"), "{shown}");
    assert!(phases.first_byte.is_some() && phases.body.is_none(), "{phases:?}");
}

#[tokio::test]
async fn a_header_that_drips_fails_at_the_deadline() {
    let server = Server::dripping("HTTP/1.1 200 OK\r\nX: ", Duration::from_millis(50)).await;
    let outcome = probe(server.url("/"), SHORT).await;
    assert_took(&outcome, SHORT);
    assert!(shown(&outcome).ends_with(" ms, header not complete)"), "{outcome:?}");
}

#[tokio::test]
async fn what_is_not_http_breaks_the_protocol() {
    for garbage in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "\0\u{1}\u{2}garbage\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
        let outcome = probe(Server::answering(garbage).await.url("/"), PLENTY).await;
        assert_eq!(kind(&outcome), Some(FailureKind::Protocol), "{garbage:?}: {outcome:?}");
    }
    assert_eq!(
        probe_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await,
        "protocol: broken body: Invalid chunk size line: missing size digit"
    );
}

#[tokio::test]
async fn a_connection_that_ends_early_is_the_networks_failure() {
    assert_eq!(probe_answer("").await, "network: connection closed without an answer");
    assert_eq!(
        probe_answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await,
        "network: connection closed before the body was complete"
    );
    let server = Server::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let outcome = shown(&probe(server.url("/"), PLENTY).await);
    assert!(outcome.starts_with("network: connection "), "{outcome}");
}

#[tokio::test]
async fn headers_beyond_the_limit_break_the_protocol() {
    let huge = format!("HTTP/1.1 200 OK\r\nX-Huge: {}\r\n\r\n", "x".repeat(200_000));
    assert_eq!(probe_answer(huge).await, "protocol: broken answer: message head is too large");
    let large = format!("HTTP/1.1 204 No Content\r\nX-Large: {}\r\n\r\n", "x".repeat(30_000));
    assert_eq!(probe_answer(large).await, "pass");
}

#[tokio::test]
async fn an_endless_body_passes_once_its_limit_came_in_time() {
    let server = Server::start(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 10_000]).await.is_ok() {}
    })
    .await;
    assert_eq!(shown(&probe(server.url("/"), PLENTY).await), "pass");
    let settings = HttpSettings { contains: Some("ready".into()), ..HttpSettings::new(server.url("/")) };
    assert_eq!(
        shown(&probe_with(settings, PLENTY).await.0),
        "content: body does not contain `ready` in its first 1 MiB"
    );
    let settings = HttpSettings { body_max: 0, ..HttpSettings::new(server.url("/")) };
    assert_eq!(shown(&probe_with(settings, PLENTY).await.0), "pass");
}

#[tokio::test]
async fn the_body_must_contain_what_is_wanted() {
    let server = Server::answering(OK).await;
    let wanting =
        |text: &str| HttpSettings { contains: Some(text.into()), ..HttpSettings::new(server.url("/")) };
    assert_eq!(shown(&probe_with(wanting("ead"), PLENTY).await.0), "pass");
    let (outcome, _) = probe_with(wanting("up"), PLENTY).await;
    assert_eq!(shown(&outcome), "content: body of 5 bytes does not contain `up`");
}

#[tokio::test]
async fn the_request_says_what_the_settings_say() {
    let server = Server::answering(OK).await;
    let settings = HttpSettings {
        method: "POST".into(),
        headers: vec![("Host".into(), "shop.example".into()), ("X-Key".into(), "k".into())],
        body: Some(b"ping".to_vec()),
        ..HttpSettings::new(format!("http://me:secret@{}/a?b=c#d", server.address))
    };
    assert_eq!(shown(&probe_with(settings, PLENTY).await.0), "pass");
    let request = server.heard().remove(0).to_lowercase();
    assert!(request.starts_with("post /a?b=c http/1.1\r\n"), "{request}");
    for line in [
        "host: shop.example",
        "x-key: k",
        "content-length: 4",
        "connection: close",
        "authorization: basic bwu6c2vjcmv0",
    ] {
        assert!(request.contains(&format!("{line}\r\n")), "{line} is not in {request}");
    }
    assert_eq!(request.matches("host:").count(), 1);
}

#[tokio::test]
async fn each_probe_asks_on_a_connection_of_its_own_and_only_once() {
    let server = Server::answering("").await;
    let check = HttpCheck::new(HttpSettings::new(server.url("/"))).unwrap();
    for _ in 0..3 {
        check.probe(PLENTY).await;
    }
    assert_eq!(server.heard().len(), 3);
}
