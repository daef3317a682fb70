//! Does a step over HTTP tell the truth about what became of it? Against a real server, right and wrong.

use std::time::Duration;

use lidless_drivers::check::http::StatusWanted;
use lidless_drivers::step::http::{
    BodySettings, Expect, HeaderSource, HttpRequestSettings, HttpStep, HttpStepSettings, OutputSettings,
};
use lidless_drivers::step::{Call, Step, Undoes};
use serde_json::json;
use tokio::net::TcpListener;

use super::server::{Server, Then, answer};
use super::{Kept, PLENTY, shown};

/// A key that is the same in every request: nothing carries it.
pub(super) fn call() -> Call {
    Call { idempotency_key: "k-7f".to_owned(), ..super::call() }
}

const SHORT: Duration = Duration::from_millis(300);

async fn perform_call(settings: &HttpStepSettings, call: &Call, timeout: Duration) -> String {
    shown(&HttpStep::new(settings).unwrap().perform(call, timeout, &Kept::default()).await)
}

async fn perform(settings: &HttpStepSettings) -> String {
    perform_call(settings, &call(), PLENTY).await
}

/// Performs a step that may be repeated, and one that must not be.
async fn both(settings: &HttpStepSettings) -> [String; 2] {
    let strict = |strict| HttpStepSettings { strict, ..settings.clone() };
    [perform(&strict(false)).await, perform(&strict(true)).await]
}

async fn answered(bytes: impl Into<Vec<u8>>) -> [String; 2] {
    let server = Server::new([Then::Answer(bytes.into())]).await;
    both(&HttpStepSettings::new(server.url("/pay"))).await
}

fn twice(answer: &str) -> [String; 2] {
    [answer.to_owned(), answer.to_owned()]
}

fn header(name: &str, value: &str) -> (String, HeaderSource) {
    (name.to_owned(), HeaderSource::Template(value.to_owned()))
}

#[tokio::test]
async fn the_request_says_what_the_settings_and_the_call_say() {
    let server = Server::answering(201, r#"{"id": "t-9"}"#).await;
    let mut settings =
        HttpStepSettings::new(server.url("/{{ step }}/{{ inputs.to }}?price={{ outputs.quote.price }}&x=y"));
    settings.request.headers = vec![
        header("X-Run", "{{ run }}/{{ attempt }}"),
        ("Authorization".to_owned(), HeaderSource::Secret("Bearer {{ not.a.template }}".to_owned())),
    ];
    settings.request.body = Some(BodySettings::Json(json!({
        "price": "{{ outputs.quote.price }}", "memo": "for {{ inputs.to }}", "all": ["{{ inputs }}", 7, null],
        "undoes": "{{ undoes.output.id }}", "handle": "{{ handles.0 }}",
    })));
    let undoes = Undoes {
        step: "send".to_owned(),
        idempotency_key: "k-0".to_owned(),
        output: json!({ "id": [1] }),
        handles: Vec::new(),
    };
    let call = Call {
        inputs: json!({ "to": "a/b \"&?é" }),
        handles: vec![json!("0xabc")],
        undoes: Some(undoes),
        ..call()
    };
    assert_eq!(perform_call(&settings, &call, PLENTY).await, r#"applied {"id":"t-9"}"#);
    let request = server.heard().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /send/a%2Fb%20%22%26%3F%C3%A9?price=7&x=y HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    for line in [
        "idempotency-key: k-7f",
        "x-run: run-7/2",
        "authorization: bearer {{ not.a.template }}",
        "content-type: application/json",
        "connection: close",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    let sent: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        sent,
        json!({
            "price": 7, "memo": "for a/b \"&?é", "all": [{ "to": "a/b \"&?é" }, 7, null],
            "undoes": [1], "handle": "0xabc",
        })
    );
}

#[tokio::test]
async fn the_key_has_the_name_that_the_server_wants() {
    let server = Server::answering(200, "").await;
    let settings = HttpStepSettings::new(server.url(""));
    let renamed = HttpStepSettings { key_header: Some("X-Request-Id".to_owned()), ..settings.clone() };
    let without = HttpStepSettings { key_header: None, ..settings.clone() };
    let mut replaced = settings;
    replaced.request.headers = vec![header("idempotency-key", "\"{{ key }}\"")];
    for settings in [&renamed, &without, &replaced] {
        assert_eq!(perform(settings).await, "applied {}");
    }
    let key = |request: &String| -> String {
        request.lines().filter(|line| line.contains("k-7f")).collect::<String>().to_lowercase()
    };
    let keys: Vec<String> = server.heard().iter().map(key).collect();
    assert_eq!(keys, ["x-request-id: k-7f", "", "idempotency-key: \"k-7f\""]);
}

#[tokio::test]
async fn a_form_and_a_text_are_sent_as_they_are_written() {
    let server = Server::answering(200, "ok").await;
    let mut settings = HttpStepSettings::new(server.url("/"));
    let call = Call { inputs: json!({ "to": "a&b=c é" }), ..call() };
    let fields = [("to", "{{ inputs.to }}"), ("a b", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    for (body, sent, kind) in [
        (
            BodySettings::Form(fields.into()),
            "to=a%26b%3Dc%20%C3%A9&a%20b=1",
            "application/x-www-form-urlencoded",
        ),
        (BodySettings::Text("pay {{ inputs.to }}".to_owned()), "pay a&b=c é", ""),
    ] {
        settings.request.body = Some(body);
        assert_eq!(perform_call(&settings, &call, PLENTY).await, r#"applied {"text":"ok"}"#);
        let request = server.heard().pop().unwrap();
        assert!(request.ends_with(&format!("\r\n\r\n{sent}")), "{request}");
        assert_eq!(request.to_lowercase().contains("content-type"), !kind.is_empty());
        assert!(request.contains(kind), "{request}");
    }
}

#[tokio::test]
async fn what_cannot_be_filled_is_never_sent() {
    let server = Server::answering(200, "").await;
    let fine = HttpStepSettings::new(server.url("/"));
    let with_url = |path: &str| HttpStepSettings {
        request: HttpRequestSettings::new("POST", server.url(path)),
        ..fine.clone()
    };
    let with_header = |value: &str| {
        let mut settings = fine.clone();
        settings.request.headers = vec![header("X-To", value)];
        settings
    };
    let with_body = |value: serde_json::Value| {
        let mut settings = fine.clone();
        settings.request.body = Some(BodySettings::Json(value));
        settings
    };
    let expecting = HttpStepSettings {
        expect: Expect { contains: Some("{{ inputs.nobody }}".to_owned()), ..Expect::default() },
        ..fine.clone()
    };
    let call = Call {
        inputs: json!({ "dots": "..", "empty": "", "line": "a\r\nX-Evil: 1", "none": null }),
        ..call()
    };
    for (settings, reason) in [
        (with_url("/{{ inputs.nobody }}"), "`inputs.nobody` has no value"),
        (with_url("/{{ handles.0 }}"), "`handles.0` has no value"),
        (with_url("/{{ undoes.key }}"), "`undoes.key` has no value"),
        (with_url("/?a={{ inputs }}"), "`inputs` is an object, and cannot stand in a text"),
        (with_url("/{{ inputs.dots }}/x"), "a value makes `.` or `..` a part of the path"),
        (with_url("/{{ inputs.empty }}"), "`inputs.empty` is empty, and stands in the path"),
        (with_header("{{ inputs.line }}"), "header `X-To` has a name or a value that cannot be sent"),
        (with_body(json!({ "a": ["{{ inputs.none }}"] })), "`inputs.none` has no value"),
        (expecting, "`inputs.nobody` has no value"),
    ] {
        let answer = perform_call(&settings, &call, PLENTY).await;
        assert_eq!(answer, format!("permanent: nothing was sent: {reason}"));
    }
    assert_eq!(server.heard(), [""; 0]);
    // In a query, and where it stands for itself, an empty value is as good as any.
    assert_eq!(perform_call(&with_url("/?a={{ inputs.empty }}"), &call, PLENTY).await, "applied {}");
    assert_eq!(perform_call(&with_body(json!("{{ inputs.empty }}")), &call, PLENTY).await, "applied {}");
}

#[tokio::test]
async fn a_status_says_what_it_can_say() {
    let fails = |lenient: &str, strict: &str, status: u16| {
        [lenient, strict].map(|class| format!("{class}: status {status}: why"))
    };
    for (status, lenient, strict) in [
        (400, "permanent", "permanent"),
        (401, "permanent", "permanent"),
        (404, "permanent", "permanent"),
        (408, "transient", "unknown"),
        (409, "permanent", "unknown"),
        (422, "permanent", "permanent"),
        (425, "transient", "unknown"),
        (429, "transient", "unknown"),
        (500, "transient", "unknown"),
        (502, "transient", "unknown"),
        (503, "transient", "unknown"),
        (504, "transient", "unknown"),
        (600, "permanent", "unknown"),
    ] {
        assert_eq!(answered(answer(status, "", "why")).await, fails(lenient, strict, status));
    }
    for status in [200, 201, 202, 299] {
        assert_eq!(answered(answer(status, "", "")).await, twice("applied {}"));
    }
    assert_eq!(answered("HTTP/1.1 204 No Content\r\n\r\n").await, twice("applied {}"));
    let later = answered(answer(429, "Retry-After: 30\r\n", r#"{"error": {"message": "slow down"}}"#)).await;
    let error = "status 429: slow down (it wants to be asked again after 30 s)";
    assert_eq!(later, [format!("transient: {error}"), format!("unknown: {error}")]);
    // A page for people tells nothing in its first line, and no answer steers a terminal.
    assert_eq!(answered(answer(404, "", "<html>\nno")).await, twice("permanent: status 404"));
    assert_eq!(answered(answer(404, "", "\n a\x1b[2J")).await, twice("permanent: status 404: a [2J"));
}

#[tokio::test]
async fn who_knows_that_his_server_did_nothing_can_say_so() {
    for (status, class) in
        [(409, "permanent"), (422, "permanent"), (429, "transient"), (503, "transient"), (302, "permanent")]
    {
        let server = Server::answering(status, "").await;
        let settings =
            HttpStepSettings { not_applied_on: vec![status], ..HttpStepSettings::new(server.url("/")) };
        let both = both(&settings).await;
        assert!(
            both.iter().all(|answer| answer.starts_with(&format!("{class}: status {status}"))),
            "{both:?}"
        );
    }
}

#[tokio::test]
async fn the_wanted_status_and_body_are_those_of_the_settings() {
    let server = Server::answering(409, "the key is known").await;
    let expecting = |ranges, contains: Option<&str>| HttpStepSettings {
        expect: Expect { status: StatusWanted::Within(ranges), contains: contains.map(str::to_owned) },
        ..HttpStepSettings::new(server.url("/"))
    };
    let done = twice(r#"applied {"text":"the key is known"}"#);
    assert_eq!(both(&expecting(vec![200..=299, 409..=409], None)).await, done);
    assert_eq!(both(&expecting(vec![409..=409], Some("key is"))).await, done);
    let error = "status 409, and the body does not contain `k-7f`";
    let both_answers = both(&expecting(vec![409..=409], Some("{{ key }}"))).await;
    assert_eq!(both_answers, [format!("transient: {error}"), format!("unknown: {error}")]);
    // Another 2xx than the wanted one still says that something was done.
    let server = Server::answering(202, "queued").await;
    let settings = HttpStepSettings {
        expect: Expect { status: StatusWanted::Within(vec![201..=201]), contains: None },
        ..HttpStepSettings::new(server.url("/"))
    };
    assert_eq!(both(&settings).await, twice("unknown: status 202: queued"));
}

#[tokio::test]
async fn who_is_not_reached_did_nothing() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = HttpStepSettings::new(format!("http://{nobody}/"));
    assert_eq!(both(&settings).await, twice("transient: connection refused"));
    let settings = HttpStepSettings::new("http://nonexistent.invalid/");
    let answer = perform_call(&settings, &call(), Duration::from_secs(3)).await;
    assert!(answer.starts_with("transient: "), "{answer}");
    // The request waits until the handshake is complete.
    let server =
        Server::new([Then::Answer(b"HTTP/1.1 400 No\r\n\r\n".to_vec()), Then::Hang(Vec::new())]).await;
    let settings = HttpStepSettings::new(server.url("/").replace("http", "https"));
    let answer = perform(&settings).await;
    assert!(answer.starts_with("transient: TLS handshake failed: "), "{answer}");
    let answer = perform_call(&settings, &call(), SHORT).await;
    assert!(answer.starts_with("transient: no answer within 300 ms (connected after "), "{answer}");
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_request_leaves_doubt() {
    assert_eq!(answered("").await, twice("unknown: connection closed without an answer"));
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    assert_eq!(answered(half).await, twice("unknown: connection closed before the body was complete"));
    let half = "HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nabc";
    assert_eq!(answered(half).await, twice("unknown: connection closed before the body was complete"));
    let garbage = answered("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    assert!(garbage[0].starts_with("unknown: broken answer: ") && garbage[0] == garbage[1], "{garbage:?}");
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let broken = answered(chunks).await;
    assert!(broken[0].starts_with("unknown: broken body: ") && broken[0] == broken[1], "{broken:?}");

    let hangs =
        [b"".to_vec(), b"HTTP/1.1 200".to_vec(), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec()];
    for bytes in hangs {
        let server = Server::new([Then::Hang(bytes)]).await;
        for strict in [false, true] {
            let settings = HttpStepSettings { strict, ..HttpStepSettings::new(server.url("/")) };
            let answer = perform_call(&settings, &call(), SHORT).await;
            assert!(answer.starts_with("unknown: ") && answer.contains("within 300 ms"), "{answer}");
        }
    }
    let server = Server::new([Then::Reset]).await;
    let answer = both(&HttpStepSettings::new(server.url("/"))).await;
    assert!(answer.iter().all(|answer| answer.starts_with("unknown: connection ")), "{answer:?}");
}

#[tokio::test]
async fn a_refusal_counts_though_its_reason_is_lost() {
    let half = "HTTP/1.1 422 No\r\nContent-Length: 10\r\n\r\nabc";
    assert_eq!(answered(half).await, twice("permanent: status 422: abc"));
    let server = Server::new([Then::Hang(b"HTTP/1.1 422 No\r\nContent-Length: 9\r\n\r\n".to_vec())]).await;
    let answer = perform_call(&HttpStepSettings::new(server.url("/")), &call(), SHORT).await;
    assert_eq!(answer, "permanent: status 422");
}

#[tokio::test]
async fn a_request_that_nobody_reads_ends_at_the_deadline() {
    // More than the buffers of both ends hold.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = HttpStepSettings::new(format!("http://{}/", listener.local_addr().unwrap()));
    settings.request.body = Some(BodySettings::Text("x".repeat(20_000_000)));
    let answer = perform_call(&settings, &call(), SHORT).await;
    assert!(answer.starts_with("unknown: no answer within 300 ms"), "{answer}");
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let server = Server::new([Then::Answer(answer(307, "Location: /elsewhere\r\n", ""))]).await;
    for method in ["POST", "GET"] {
        let mut settings = HttpStepSettings::new(server.url("/"));
        settings.request.method = method.to_owned();
        let error = "status 307; a step follows no redirect";
        assert_eq!(both(&settings).await, [format!("permanent: {error}"), format!("unknown: {error}")]);
    }
    assert_eq!(server.heard().len(), 4);
}

#[tokio::test]
async fn the_body_is_the_output() {
    let typed = |kind: &str, body: &str| answer(200, &format!("Content-Type: {kind}\r\n"), body);
    assert_eq!(answered(typed("application/json", " {\"a\": 1}\n")).await, twice(r#"applied {"a":1}"#));
    assert_eq!(answered(typed("text/plain", "{\"a\": 1}")).await, twice(r#"applied {"a":1}"#));
    assert_eq!(answered(typed("text/plain", "{a: 1}\nx")).await, twice(r#"applied {"text":"{a: 1}"}"#));
    assert_eq!(answered(typed("application/json", "[1]")).await, twice(r#"applied {"text":"[1]"}"#));
    assert_eq!(answered(typed("application/json", "")).await, twice("applied {}"));
    assert_eq!(answered(typed("text/plain", "\n\n one \ntwo")).await, twice(r#"applied {"text":"one"}"#));
    assert_eq!(answered([&answer(200, "", "  ")[..], &[0xff]].concat()).await, twice("applied {}"));
    let cut = answered(typed("application/hal+json; charset=utf-8", "{\"a\": ")).await;
    assert!(cut[0].starts_with("unknown: its answer is not JSON: ") && cut[0] == cut[1], "{cut:?}");
    let rounded = answered(typed("application/json", r#"{"wei": 100000000000000000000}"#)).await;
    assert!(rounded[1].starts_with("unknown: the number 1e+20 is too large"), "{rounded:?}");
}

#[tokio::test]
async fn the_output_is_what_the_settings_select() {
    let selecting = |server: &Server, fields: &[(&str, &str)]| HttpStepSettings {
        output: OutputSettings::Select(
            fields.iter().map(|(name, way)| ((*name).to_owned(), (*way).to_owned())).collect(),
        ),
        ..HttpStepSettings::new(server.url("/"))
    };
    let body = r#"{"items": [{"id": "t-9", "none": null}], "n": 1.5}"#;
    let server = Server::new([Then::Answer(answer(201, "Location: /t/9\r\n", body))]).await;
    let all =
        [("id", "body.items.0.id"), ("at", "headers.location"), ("status", "status"), ("all", "body.items")];
    assert_eq!(
        perform(&selecting(&server, &all)).await,
        r#"applied {"all":[{"id":"t-9","none":null}],"at":"/t/9","id":"t-9","status":201}"#
    );
    for (way, error) in [
        ("body.items.1.id", "its answer has no `body.items.1.id`"),
        ("body.items.0.none", "its answer has no `body.items.0.none`"),
        ("headers.etag", "its answer has no header `etag`"),
    ] {
        assert_eq!(perform(&selecting(&server, &[("x", way)])).await, format!("unknown: {error}"));
    }
    // Where nobody looks at the body, nobody waits for it.
    let server = Server::new([Then::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec())]).await;
    assert_eq!(perform(&selecting(&server, &[])).await, "applied {}");
    let server = Server::answering(200, "no JSON").await;
    let answer = perform(&selecting(&server, &[("x", "body.x")])).await;
    assert!(answer.starts_with("unknown: its answer is not JSON: "), "{answer}");
}

#[tokio::test]
async fn an_answer_of_any_size_takes_up_little_memory() {
    let server = Server::new([Then::Flood]).await;
    assert_eq!(perform(&HttpStepSettings::new(server.url("/"))).await, r#"applied {"text":"begin"}"#);
    let much = format!(r#"{{"a": "{}", "id": 7}}"#, "x".repeat(100_000));
    let server = Server::answering(200, &much).await;
    let settings = HttpStepSettings::new(server.url("/"));
    let error = "its answer is 100015 bytes long, and 64 KiB is the most; `output` can take a part of it";
    assert_eq!(both(&settings).await, twice(&format!("unknown: {error}")));
    let output = OutputSettings::Select(vec![("id".to_owned(), "body.id".to_owned())]);
    assert_eq!(perform(&HttpStepSettings { output, ..settings }).await, r#"applied {"id":7}"#);
    let server = Server::answering(200, &format!(r#"{{"a": "{}"}}"#, "x".repeat(2_000_000))).await;
    let answer = perform(&HttpStepSettings::new(server.url("/"))).await;
    assert_eq!(answer, "unknown: its answer is over 1 MiB long");
}

#[tokio::test]
async fn no_secret_is_shown_though_the_server_sends_it_back() {
    let server = Server::telling(|request| {
        let token = request.lines().find(|line| line.to_lowercase().starts_with("authorization")).unwrap();
        let status = if request.contains("/good") { 200 } else { 400 };
        Then::Answer(answer(status, "", &format!("you said {token}")))
    })
    .await;
    for path in ["/good?token=hunter2", "/bad?token=hunter2"] {
        let mut settings = HttpStepSettings::new(server.url(path));
        settings.request.headers =
            vec![("Authorization".to_owned(), HeaderSource::Secret("Bearer hunter2".to_owned()))];
        let log = Kept::default();
        let step = HttpStep::new(&settings).unwrap();
        let answer = shown(&step.perform(&call(), PLENTY, &log).await);
        let all = format!("{answer} {:?} {settings:?} {step:?}", log.lines());
        assert!(!all.contains("hunter2") && all.contains("you said"), "{all}");
        let plan = step.plan(&call(), PLENTY, &log).await.unwrap().unwrap();
        assert_eq!(plan, format!("POST {}", server.url(path.split('?').next().unwrap())));
    }
}

#[tokio::test]
async fn what_is_wrong_in_the_settings_is_told_with_its_place() {
    let refused = |settings: &HttpStepSettings| HttpStep::new(settings).unwrap_err().to_string();
    let fine = HttpStepSettings::new("http://host/");
    let with_url = |url: &str| HttpStepSettings::new(url);
    assert_eq!(
        refused(&with_url("http://host/{{ key")),
        "`url` is no good template at byte 12: `{{` has no `}}`"
    );
    let chooses = "a value must not stand before the path: it would choose the server";
    assert_eq!(
        refused(&with_url("http://{{ key }}/")),
        format!("`url` is no good template at byte 7: {chooses}")
    );
    assert_eq!(
        refused(&with_url("http://host{{ key }}/")),
        format!("`url` is no good template at byte 11: {chooses}")
    );
    assert_eq!(refused(&with_url("{{ key }}")), format!("`url` is no good template at byte 0: {chooses}"));
    assert_eq!(refused(&with_url("ftp://host/{{ key }}")), "`request` cannot be sent");
    assert_eq!(refused(&with_url("http://host/a b")), "`request` cannot be sent");
    let mut settings = fine.clone();
    settings.request.body = Some(BodySettings::Json(json!({ "to": ["x", "a {{ kye }}"] })));
    assert!(refused(&settings).starts_with("`body.to.1` is no good template at byte 2: `kye` is unknown: "));
    settings.request.body = Some(BodySettings::Json(json!({ "{{ key }}": 1 })));
    assert!(refused(&settings).contains("a name in an object has no placeholders"));
    let mut settings = fine.clone();
    settings.request.headers = vec![header("X-Y", "{{ key")];
    assert!(refused(&settings).starts_with("`headers.X-Y` is no good template at byte 0"));
    settings.request.headers = vec![header("X Y", "a")];
    assert_eq!(refused(&settings), "`request` cannot be sent");
    let output = OutputSettings::Select(vec![("id".to_owned(), "header.id".to_owned())]);
    let settings = HttpStepSettings { output, ..fine.clone() };
    assert_eq!(
        refused(&settings),
        "`output.id` is `header.id`: it begins with `body`, or is `headers.NAME` or `status`"
    );
    let settings = HttpStepSettings { not_applied_on: vec![200], ..fine.clone() };
    assert_eq!(refused(&settings), "status 200 cannot be in `not_applied_on`: `expect` takes it for done");
    let settings = HttpStepSettings { key_header: Some("a b".to_owned()), ..fine };
    assert_eq!(refused(&settings), "`request` cannot be sent");
}

#[tokio::test]
async fn what_a_step_asks_for_is_known_before_it_runs() {
    let mut settings = HttpStepSettings::new("http://host/{{ inputs.to }}?a={{ key }}");
    settings.request.body =
        Some(BodySettings::Json(json!(["{{ outputs.QUOTE.price }}", "a {{ inputs.to }}"])));
    settings.expect.contains = Some("{{ run }}".to_owned());
    let step = HttpStep::new(&settings).unwrap();
    assert_eq!(step.asks_for(), ["inputs.to", "key", "outputs.QUOTE.price", "run"]);
}
