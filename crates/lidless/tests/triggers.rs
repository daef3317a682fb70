//! Do calendars and webhooks begin runs, each moment and each delivery once, and can a run be foretold? A whole daemon, with
//! its journal and its ports.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lidless::api::{Hooks, Server};
use lidless::config::settings::HookSettings;
use lidless::config::{self, Resolved, Secret, Secrets};
use lidless::runtime::{self, Booted, Handle, View, plan};
use lidless_core::event::{Due, Event};
use lidless_core::id::Seq;
use lidless_core::pipeline::plan::{Approve, Plan, StepCall, StepSpec};
use lidless_core::spec::Action;
use lidless_core::trigger::{CatchUp, Trigger};
use lidless_store::{EventFilter, SqliteReader};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(30);
const SECRET: &str = "a secret that nobody knows";

fn resolved(dir: &Path, adjust: impl FnOnce(&mut Resolved)) -> Resolved {
    let yaml = format!(
        "version: 1\nweb: off\nstore: {{ path: {0}/l.db }}\npipelines:\n  vault:\n    steps:\n      \
         - TELL: {{ call: {{ exec: [sh, -c, 'cat >> {0}/told'] }} }}\n  other:\n    steps:\n      \
         - DO: {{ call: {{ exec: ['true'] }} }}\n",
        dir.display()
    );
    let mut resolved = config::from_str("test", &yaml).unwrap().resolved;
    adjust(&mut resolved);
    resolved
}

/// A daemon in this process, while `work` is being done; its journal is closed afterwards.
fn with_daemon<T: Send + 'static>(
    dir: &Path,
    adjust: impl FnOnce(&mut Resolved),
    work: impl FnOnce(Handle, SocketAddr) -> T + Send + 'static,
) -> T {
    let resolved = resolved(dir, adjust);
    let store = dir.join("l.db");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let Booted { daemon, handle, .. } = runtime::boot(&resolved, Some(&store), dir).unwrap();
        let any = Some("127.0.0.1:0".parse().unwrap());
        let server = Server::bind(&dir.join("s.sock"), any).await.unwrap();
        let web = server.web().unwrap();
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let hooks = Hooks::of(&resolved);
        let serving =
            tokio::spawn(server.serve(handle.clone(), Some(store), hooks, stop.clone(), over.clone()));
        let running = tokio::spawn(daemon.run(stop.clone()));
        let done = tokio::task::spawn_blocking(move || work(handle, web)).await;
        stop.cancel();
        over.cancel();
        serving.await.unwrap();
        assert_eq!(running.await.unwrap().close().await, None);
        done.unwrap()
    })
}

/// Waits in the daemon's own thread until an event comes for which this says something.
fn until<T>(handle: &Handle, mut found: impl FnMut(&Event) -> Option<T>) -> T {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut told = handle.listen();
    let waiting = async {
        loop {
            if let Some(found) = found(&told.recv().await.unwrap().record.event) {
                return found;
            }
        }
    };
    tokio.block_on(async { tokio::time::timeout(LONG, waiting).await.unwrap() })
}

fn events(store: PathBuf) -> Vec<Event> {
    let records = SqliteReader::open(&store).unwrap().events(Seq(0), 10_000, &EventFilter::default());
    records.unwrap().into_iter().map(|record| record.event).collect()
}

fn every_second(catch_up: CatchUp) -> impl FnOnce(&mut Resolved) {
    move |resolved| {
        let zone = "UTC".to_owned();
        let trigger = Trigger::Cron { expression: "* * * * * *".to_owned(), zone, catch_up };
        resolved.spec.pipelines[0].triggers = vec![trigger];
    }
}

#[test]
fn a_calendar_begins_a_run_a_moment_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        with_daemon(dir.path(), every_second(CatchUp::All), |handle, _| {
            let mut ended = 0;
            until(&handle, |event| {
                ended += u32::from(matches!(event, Event::RunFinished { .. }));
                (ended == 2).then_some(())
            });
        });
    }
    let mut moments = Vec::new();
    for event in events(dir.path().join("l.db")) {
        match event {
            Event::RunCreated { purpose, due: Some(Due::Cron(at)), key, .. } => {
                let said = serde_json::to_string(&purpose).unwrap();
                assert!(said.contains(r#""by":"cron * * * * * *""#), "{said}");
                assert!(key.unwrap().starts_with("vault/cron 20"));
                moments.push(at);
            }
            Event::TriggerMissed { .. } => panic!("all are caught up"),
            _ => {}
        }
    }
    assert!(moments.len() >= 4 && moments.windows(2).all(|pair| pair[1] == pair[0] + 1_000), "{moments:?}");
}

#[test]
fn a_moment_that_had_its_run_by_its_key_is_over() {
    let dir = tempfile::tempdir().unwrap();
    with_daemon(dir.path(), every_second(CatchUp::None), |handle, _| {
        // Somebody has taken the next ones before they came.
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let now_s = jiff::Timestamp::now().as_second();
        for at in now_s + 1..now_s + 10 {
            let at = jiff::Timestamp::from_second(at).unwrap();
            tokio
                .block_on(handle.command(lidless_core::effect::Command::Run {
                    pipeline: "vault".to_owned(),
                    by: "test".to_owned(),
                    inputs: String::new(),
                    from: None,
                    key: Some(format!("cron {at}")),
                    due: None,
                    wait: true,
                }))
                .unwrap();
        }
        let why = until(&handle, |event| match event {
            Event::TriggerMissed { why, .. } => Some(why.clone()),
            _ => None,
        });
        assert!(why.ends_with("was begun for it already") || why.contains("waits"), "{why}");
    });
}

/// What was answered: the status and the body.
fn post(web: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(web).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: hooks.example\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn hmac(message: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    ring::hmac::sign(&key, message.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signed(body: &str, ago_s: i64) -> String {
    let time = jiff::Timestamp::now().as_second() - ago_s;
    format!("t={time},v1={}", hmac(&format!("{time}.{body}")))
}

fn with_hook(resolved: &mut Resolved) {
    resolved.pipelines[0].hook = Some(HookSettings { secret: Secret::new(SECRET) });
}

#[test]
fn a_signed_webhook_is_one_run_however_often_it_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("l.db");
    with_daemon(dir.path(), with_hook, |_, web| {
        let hook = |headers: &[(&str, &str)], body: &str| post(web, "/v1/hooks/vault", headers, body);
        let body = r#"{"amount": 5}"#;
        let first = signed(body, 0);
        let accepted = (202, r#"{"run":"run-1"}"#.to_owned());
        assert_eq!(hook(&[("X-Lidless-Signature", &first)], body), accepted);
        assert_eq!(hook(&[("X-Lidless-Signature", &first)], body), accepted, "the same delivery");
        // A key of the sender's says more than a signature, which is another one each time.
        let keyed = |ago| {
            hook(&[("X-Lidless-Signature", &signed(body, ago)), ("Idempotency-Key", "order 7")], body).1
        };
        assert_eq!((keyed(1), keyed(2)), (r#"{"run":"run-2"}"#.to_owned(), r#"{"run":"run-2"}"#.to_owned()));
        let overheard = [("X-Lidless-Signature", first.as_str()), ("Idempotency-Key", "mine")];
        assert_eq!(hook(&overheard, body).0, 401, "what was overheard makes no second run");
        let theirs = format!("sha256={}", hmac(body));
        for _ in 0..2 {
            let github = [("X-Hub-Signature-256", theirs.as_str()), ("X-GitHub-Delivery", "72d3162e")];
            assert_eq!(hook(&github, body), (202, r#"{"run":"run-3"}"#.to_owned()));
        }
        let ping = [("X-Hub-Signature-256", theirs.as_str()), ("X-GitHub-Event", "ping")];
        assert_eq!(hook(&ping, body).0, 200);
    });
    let created: Vec<_> = events(store)
        .into_iter()
        .filter_map(|event| match event {
            Event::RunCreated { inputs, .. } => Some(inputs.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(created, [r#"{"amount":5}"#; 3]);
}

#[test]
fn whoever_cannot_sign_begins_nothing_and_learns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("l.db");
    with_daemon(dir.path(), with_hook, |handle, web| {
        let unsigned = (401, r#"{"error":"not signed"}"#.to_owned());
        let (good, old, ahead) = (signed("{}", 0), signed("{}", 310), signed("{}", -310));
        let cut = &good[..good.len() - 2];
        for headers in [
            vec![],
            vec![("X-Lidless-Signature", old.as_str())],
            vec![("X-Lidless-Signature", ahead.as_str())],
            vec![("X-Lidless-Signature", cut)],
            vec![("X-Lidless-Signature", good.as_str()), ("X-Lidless-Signature", good.as_str())],
            vec![("X-Hub-Signature-256", "sha256=00")],
        ] {
            assert_eq!(post(web, "/v1/hooks/vault", &headers, "{}"), unsigned, "{headers:?}");
        }
        assert_eq!(post(web, "/v1/hooks/vault", &[("X-Lidless-Signature", &good)], "{} "), unsigned);
        let header = [("X-Lidless-Signature", good.as_str())];
        let none = post(web, "/v1/hooks/other", &header, "{}");
        assert_eq!(none.0, 404);
        assert_eq!(post(web, "/v1/hooks/nothing", &header, "{}"), none);
        for body in ["[1]", "{\"a\": 123456789012345678901234567890}", "{", "\"x\""] {
            let answer = post(web, "/v1/hooks/vault", &[("X-Lidless-Signature", &signed(body, 0))], body);
            assert_eq!(answer.0, 400, "{answer:?}");
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024));
        assert_eq!(post(web, "/v1/hooks/vault", &[("X-Lidless-Signature", &signed(&long, 0))], &long).0, 413);
        // What only reads is still asked by an address only.
        let mut stream = TcpStream::connect(web).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: hooks.example\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
        drop(handle);
    });
    assert!(!events(store).iter().any(|event| matches!(event, Event::RunCreated { .. })));
}

#[test]
fn what_a_run_would_do_is_told_in_words_and_as_far_as_it_can_be_known() {
    let dir = tempfile::tempdir().unwrap();
    let step = |name: &str, call| StepSpec { name: name.to_owned(), call, ..StepSpec::default() };
    let plan = Plan::in_a_row(vec![
        step("PAUSE", StepCall::Wait { time: Duration::from_secs(300) }),
        StepSpec {
            approve: Some(Approve { within: Duration::from_secs(3_600), ask: "5 EUR?".to_owned() }),
            ..step("YES", StepCall::Nothing)
        },
        StepSpec { when: Some(Arc::from("inputs.dry != true")), ..step("SEND", StepCall::Nothing) },
        StepSpec { when: Some(Arc::from("inputs.dry == true")), ..step("PRETEND", StepCall::Nothing) },
        StepSpec { when: Some(Arc::from("outputs.SEND.sent > 5")), ..step("TELL", StepCall::Nothing) },
        StepSpec { when: Some(Arc::from("inputs.dry > 5")), ..step("ODD", StepCall::Nothing) },
        step("RESTART", StepCall::Service { service: "api".to_owned(), action: Action::Restart }),
        step("NEED", StepCall::Require { healthy: vec!["api".to_owned()] }),
        step("PLUG", StepCall::External { kind: "moon".to_owned(), settings: Arc::from("{}") }),
    ]);
    let adjust = move |resolved: &mut Resolved| resolved.spec.pipelines[0].plan = Arc::new(plan);
    let lines = with_daemon(dir.path(), adjust, |handle, _| {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio.block_on(async {
            let draft = |view: &View<'_>| plan::draft(view, "vault", r#"{"dry": true}"#, None).ok();
            let plans = handle.query(draft).await.unwrap().unwrap().ask().await;
            plans
                .into_iter()
                .map(|step| format!("{} {:?} {}", step.name, step.would, step.text))
                .collect::<Vec<_>>()
        })
    });
    assert_eq!(
        lines,
        [
            "PAUSE Do would wait 5 min",
            "YES Do would ask a person, for 1 h: 5 EUR?; then would go on",
            "SEND Skip would be skipped: not inputs.dry != true",
            "PRETEND Do would go on",
            "TELL Depend would go on, if outputs.SEND.sent > 5",
            "ODD Fail would fail: inputs.dry (true) and \"5\" cannot be compared",
            "RESTART Do would restart api, and wait until it is well",
            "NEED Fail would fail now: api is not configured",
            "PLUG Fail would be parked: this lidless knows no step of kind `moon`",
        ]
    );
}

#[test]
fn the_commands_of_the_page_sign_a_webhook() {
    let page = std::fs::read_to_string("../../docs/pipelines.md").unwrap();
    let script = page.split("```sh\n").find(|block| block.starts_with("body=")).unwrap();
    let script = script.split("```").next().unwrap().to_owned();
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !has("curl") || !(has("openssl")) {
        eprintln!("skipped: no curl or no openssl (Debian packages of these names)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let answer = with_daemon(dir.path(), with_hook, move |_, web| {
        let script = script.replace("127.0.0.1:7433", &web.to_string());
        Command::new("sh").args(["-c", &script]).env("SECRET", SECRET).output().unwrap()
    });
    assert_eq!(String::from_utf8_lossy(&answer.stdout), r#"{"run":"run-1"}"#, "{answer:?}");
}

#[test]
fn the_configurations_of_the_page_are_good() {
    let page = std::fs::read_to_string("../../docs/pipelines.md").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lidless.yaml");
    let of_section = |title: &str| {
        let section = page.split(title).nth(1).unwrap().split("```yaml\n").nth(1).unwrap();
        let yaml = section.split("```").next().unwrap();
        std::fs::write(&file, yaml).unwrap();
        let loaded = config::load_with(std::slice::from_ref(&file), Secrets::Optional);
        loaded.unwrap_or_else(|problems| panic!("{title}: {problems}")).resolved
    };
    assert!(of_section("\n## Webhooks\n").pipelines[0].hook.is_some());
    let calendar = of_section("\n## Calendars\n");
    let (zone, expression) = ("Europe/Lisbon".to_owned(), "0 4 * * *".to_owned());
    let wanted = Trigger::Cron { expression, zone, catch_up: CatchUp::One };
    assert_eq!(calendar.spec.pipelines[0].triggers, [wanted]);
}
