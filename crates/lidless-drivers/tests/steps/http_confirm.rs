//! Is an attempt over HTTP that is in doubt settled only by an answer that says so?

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lidless_drivers::check::http::StatusWanted;
use lidless_drivers::step::Step;
use lidless_drivers::step::http::{Expect, HttpConfirmSettings, HttpStep, HttpStepSettings};

use super::http::call;
use super::server::{Server, Then, answer};
use super::{Kept, PLENTY, shown, shown_found};

fn asking(confirm: HttpConfirmSettings) -> HttpStep {
    let settings =
        HttpStepSettings { confirm: Some(confirm), ..HttpStepSettings::new("http://127.0.0.1:1/") };
    HttpStep::new(&settings).unwrap()
}

fn status(status: u16) -> Option<Expect> {
    Some(Expect { status: StatusWanted::Within(vec![status..=status]), contains: None })
}

async fn confirm(confirm: HttpConfirmSettings) -> String {
    shown_found(&asking(confirm).confirm(&call(), PLENTY, &Kept::default()).await)
}

async fn says(code: u16, headers: &str, body: &str) -> String {
    let server = Server::new([Then::Answer(answer(code, headers, body))]).await;
    confirm(HttpConfirmSettings::new(server.url("/"))).await
}

#[tokio::test]
async fn an_answer_that_was_wanted_settles_it() {
    let settle = async |code, body: &str| {
        let server = Server::answering(code, body).await;
        let found = confirm(HttpConfirmSettings {
            applied: Some(Expect { contains: Some("\"{{ key }}\"".to_owned()), ..Expect::default() }),
            not_applied: status(404),
            ..HttpConfirmSettings::new(server.url("/by-key/{{ key }}?secret=1"))
        })
        .await;
        let request = server.heard().remove(0);
        assert!(request.starts_with("GET /by-key/k-7f?secret=1 HTTP/1.1\r\n"), "{request}");
        assert!(!request.to_lowercase().contains("idempotency-key"), "{request}");
        found.replace(&server.url(""), "http://host")
    };
    assert_eq!(
        settle(200, r#"{"key": "k-7f"}"#).await,
        r#"applied {"key":"k-7f"}: GET http://host/by-key/k-7f: status 200: {"key": "k-7f"}"#
    );
    assert_eq!(
        settle(404, r#"{"error": "no such key"}"#).await,
        "not applied: GET http://host/by-key/k-7f: status 404: no such key"
    );
    let neither = "unknown: its answer says neither that it did nor that it did not: ";
    assert_eq!(settle(200, "[]").await, format!("{neither}status 200: []"));
    assert_eq!(
        settle(500, r#"{"key": "k-7f"}"#).await,
        format!("{neither}status 500: {{\"key\": \"k-7f\"}}")
    );
}

#[tokio::test]
async fn an_answer_that_says_both_says_nothing() {
    let server = Server::answering(200, "").await;
    let found = confirm(HttpConfirmSettings {
        applied: status(200),
        not_applied: status(200),
        ..HttpConfirmSettings::new(server.url("/"))
    })
    .await;
    assert_eq!(found, "unknown: its answer says both that it did and that it did not: status 200");
    let found = confirm(HttpConfirmSettings {
        not_applied: status(200),
        ..HttpConfirmSettings::new(server.url("/"))
    })
    .await;
    assert_eq!(found.replace(&server.url(""), ""), "not applied: GET /: status 200");
}

#[tokio::test]
async fn without_expectations_the_server_answers_as_a_command() {
    assert_eq!(
        says(200, "", r#"{"applied": true, "evidence": "booked", "output": {"id": 7}}"#).await,
        r#"applied {"id":7}: booked"#
    );
    assert_eq!(says(200, "", r#"{"applied": false, "evidence": [1]}"#).await, "not applied: [1]");
    assert_eq!(
        says(200, "", r#"{"applied": null, "reason": "not final", "retry_after": "5s"}"#).await,
        "unknown for 5s: not final"
    );
    assert_eq!(says(200, "", r#"{"applied": false}"#).await, "unknown: its answer has no `evidence`");
    assert_eq!(says(200, "", "no").await, "unknown: status 200: no: its body is no JSON object");
    let told = r#"{"applied": false, "evidence": "sure"}"#;
    assert_eq!(says(500, "", told).await, format!("unknown: status 500: {told}"));
    assert_eq!(says(429, "Retry-After: 30\r\n", "").await, "unknown for 30s: status 429");
}

#[tokio::test]
async fn an_answer_that_does_not_come_tells_nothing() {
    let refused = confirm(HttpConfirmSettings {
        not_applied: status(404),
        ..HttpConfirmSettings::new("http://127.0.0.1:1/")
    });
    assert_eq!(refused.await, "unknown: connection refused");
    let server = Server::new([Then::Hang(Vec::new())]).await;
    let step = asking(HttpConfirmSettings::new(server.url("/")));
    let found = step.confirm(&call(), Duration::from_millis(300), &Kept::default()).await;
    assert!(shown_found(&found).starts_with("unknown: no answer within 300 ms"), "{found:?}");
    let without = HttpStep::new(&HttpStepSettings::new(server.url("/"))).unwrap();
    assert!(!without.can_confirm() && step.can_confirm());
    let found = without.confirm(&call(), PLENTY, &Kept::default()).await;
    assert_eq!(shown_found(&found), "unknown: it has no request that could tell");
}

/// A bank that honours the key, and loses its first answers.
#[tokio::test]
async fn a_payment_whose_answer_is_lost_is_found_and_made_once() {
    let booked = Arc::new(Mutex::new(BTreeSet::new()));
    let orders = Arc::new(Mutex::new(0));
    let (book, count) = (booked.clone(), orders.clone());
    let bank = Server::telling(move |request| {
        let is_order = request.starts_with("POST");
        let known = !book.lock().unwrap().is_empty();
        if is_order {
            *count.lock().unwrap() += 1;
            let key = request.lines().find(|line| line.to_lowercase().starts_with("idempotency-key"));
            book.lock().unwrap().insert(key.unwrap().to_owned());
        }
        match (is_order, known) {
            (true, false) => Then::Reset,
            (true, true) => Then::Answer(answer(200, "", r#"{"id": 1}"#)),
            (false, true) => Then::Answer(answer(200, "", r#"{"id": 1}"#)),
            (false, false) => Then::Answer(answer(404, "", "")),
        }
    })
    .await;
    let settings = HttpStepSettings {
        confirm: Some(HttpConfirmSettings {
            applied: Some(Expect::default()),
            not_applied: status(404),
            ..HttpConfirmSettings::new(bank.url("/{{ key }}"))
        }),
        ..HttpStepSettings::new(bank.url("/"))
    };
    let (step, log) = (HttpStep::new(&settings).unwrap(), Kept::default());
    let before = shown_found(&step.confirm(&call(), PLENTY, &log).await);
    assert!(before.starts_with("not applied: "), "{before}");
    let lost = shown(&step.perform(&call(), PLENTY, &log).await);
    assert!(lost.starts_with("unknown: "), "{lost}");
    let found = shown_found(&step.confirm(&call(), PLENTY, &log).await);
    assert!(found.starts_with(r#"applied {"id":1}: "#), "{found}");
    // Who may repeat it, repeats it with the same key.
    assert_eq!(shown(&step.perform(&call(), PLENTY, &log).await), r#"applied {"id":1}"#);
    assert_eq!((*orders.lock().unwrap(), booked.lock().unwrap().len()), (2, 1));
}
