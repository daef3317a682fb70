//! Do the kinds of steps work in a whole daemon: another pipeline's steps, requests, secrets, services and time?

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::support::{self, Daemon, Folder, wait_until};
use super::{LONG, json, ready, state};

const HEAD: &str = "version: 1\nweb: off\nstore: { path: l.db }\n";

/// Answers every request with the same, and passes on what it was sent: the first line, the headers and the body.
fn server(answer: &'static str) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut said, mut length) = (String::new(), 0);
            while !said.ends_with("\r\n\r\n") {
                let from = said.len();
                if stream.read_line(&mut said).unwrap_or(0) == 0 {
                    break;
                }
                if let Some(value) = said[from..].to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            said.push_str(&String::from_utf8(body).unwrap());
            let head = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n", answer.len());
            let head = format!("{head}Content-Type: application/json\r\nConnection: close\r\n\r\n");
            stream.get_mut().write_all(format!("{head}{answer}").as_bytes()).unwrap();
            if tell.send(said).is_err() {
                return;
            }
        }
    });
    (port, told)
}

/// The state of each step of a run's document, in order.
fn states(document: &Value) -> Vec<(&str, &str)> {
    let steps = document["steps"].as_array().unwrap();
    steps.iter().map(|step| (step["name"].as_str().unwrap(), step["state"].as_str().unwrap())).collect()
}

#[test]
fn the_steps_of_another_pipeline_see_each_other_and_are_seen_below_its_name() {
    let folder = Folder::new();
    let config = format!(
        "{HEAD}pipelines:\n  outer:\n    steps:\n      \
         - A: {{ call: {{ exec: [echo, '{{\"go\": false}}'] }} }}\n      \
         - IN: {{ call: {{ pipeline: inner }} }}\n      \
         - END: {{ call: {{ exec: [sh, -c, 'cat > heard'] }}, when: outputs.IN.A.go && outputs.A.go == false }}\n  \
         inner:\n    steps:\n      \
         - A: {{ call: {{ exec: [echo, '{{\"go\": true}}'] }} }}\n      \
         - B: {{ call: {{ exec: [sh, -c, 'cat > heard-within'] }}, when: outputs.A.go }}\n"
    );
    let daemon = Daemon::serve(&folder, &config);
    ready(&daemon);
    let document = json(&daemon.client(&["run", "outer", "--json"]));
    let wanted = [("A", "done"), ("IN/A", "done"), ("IN/B", "done"), ("END", "done")];
    assert_eq!(states(&document), wanted, "{document}");
    let heard = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.path().join(name)).unwrap()).unwrap()
    };
    assert_eq!(heard("heard-within")["outputs"]["A"]["go"], true, "its own is nearer");
    assert_eq!(heard("heard")["outputs"]["A"]["go"], false);
    assert_eq!(heard("heard")["outputs"]["IN"]["A"]["go"], true);
    daemon.end();
}

#[test]
fn a_secret_is_read_when_the_step_is_called_and_is_nowhere_else() {
    let folder = Folder::new();
    let (port, told) = server(r#"{"id": 4711}"#);
    let token = folder.path().join("token");
    let write = |text: &str| {
        std::fs::write(&token, text).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("Bearer hunter2");
    let config = format!(
        "{HEAD}pipelines:\n  pay:\n    steps:\n      \
         - PAY:\n          call:\n            http:\n              url: \"http://127.0.0.1:{port}/pay/{{{{ inputs.to }}}}\"\n              \
         headers: {{ Authorization: {{ file: token }} }}\n              \
         json: {{ amount: \"{{{{ inputs.amount }}}}\", fee: 3 }}\n              output: {{ id: body.id }}\n          once: true\n          value: {{}}\n      \
         - TELL: {{ call: {{ exec: {{ command: [sh, -c, 'test -n \"$TOKEN\" && cat > told'], env: {{ TOKEN: {{ file: token }} }} }} }} }}\n"
    );
    let daemon = Daemon::serve(&folder, &config);
    ready(&daemon);
    // It was changed after lidless has begun.
    for secret in ["Bearer hunter2", "Bearer swordfish"] {
        write(secret);
        let document =
            json(&daemon.client(&["run", "pay", "--json", "--input", "to=a b", "--input", "amount=5"]));
        assert_eq!(states(&document), [("PAY", "done"), ("TELL", "done")], "{document}");
        let said = told.recv_timeout(LONG).unwrap();
        assert!(said.starts_with("POST /pay/a%20b HTTP/1.1\r\n"), "{said}");
        let lower = said.to_lowercase();
        assert!(lower.contains(&format!("authorization: {}\r\n", secret.to_lowercase())), "{said}");
        assert!(lower.contains("idempotency-key: "), "{said}");
        assert!(said.ends_with(r#"{"amount":5,"fee":3}"#), "{said}");
        let heard: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.path().join("told")).unwrap()).unwrap();
        assert_eq!(heard["outputs"]["PAY"]["id"], 4711);
    }
    let log = daemon.log();
    daemon.end();
    let events = support::events(&folder.path().join("l.db"));
    for secret in ["hunter2", "swordfish"] {
        assert!(!events.contains(secret) && !log.contains(secret), "{secret} is kept");
    }
}

#[test]
fn a_secret_that_is_gone_parks_the_step_and_says_so() {
    let folder = Folder::new();
    let token = folder.path().join("token");
    std::fs::write(&token, "hunter2").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!(
        "{HEAD}pipelines:\n  p:\n    steps:\n      \
         - A: {{ call: {{ exec: {{ command: [touch, done], env: {{ TOKEN: {{ file: token }} }} }} }} }}\n"
    );
    let daemon = Daemon::serve(&folder, &config);
    ready(&daemon);
    std::fs::remove_file(&token).unwrap();
    daemon.client(&["run", "p", "--no-wait"]);
    wait_until(LONG, "the step is parked", || state(&daemon) == "parked");
    assert!(!folder.path().join("done").exists());
    daemon.end();
}

#[test]
fn a_step_acts_on_a_service_and_another_lets_time_go_by() {
    let folder = Folder::new();
    let port = support::free_port();
    let config = format!(
        "{HEAD}services:\n  web:\n    run: {{ process: {{ command: [lidless, demo-service, --port, \"{port}\"] }} }}\n    \
         checks: {{ up: {{ http: {{ url: \"http://127.0.0.1:{port}/health\" }}, every: 200ms }} }}\n\
         pipelines:\n  release:\n    steps:\n      - BOUNCE: {{ call: {{ service: {{ restart: web }} }} }}\n      \
         - REST: {{ call: {{ wait: 100ms }} }}\n      - WELL: {{ require: {{ healthy: [web] }} }}\n"
    );
    let daemon = Daemon::serve(&folder, &config);
    ready(&daemon);
    daemon.wait_up(Duration::from_secs(60));
    let before = daemon.service_pid(port);
    let document = json(&daemon.client(&["run", "release", "--json"]));
    assert_eq!(states(&document), [("BOUNCE", "done"), ("REST", "done"), ("WELL", "done")], "{document}");
    assert_ne!(daemon.service_pid(port), before);
    daemon.end();
}
