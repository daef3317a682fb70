//! Does what a configuration says of pipelines become the plan that was meant, and stay the same as long as it means the same?
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use lidless::config::settings::{HeaderSettings, HttpStepSettings};
use lidless::config::{self, Loaded};
use lidless_core::pipeline::plan::{Class, Plan, StepCall};
use lidless_core::spec::Action;

fn load(text: &str) -> Loaded {
    match config::from_str("/etc/lidless.yaml", text) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{text}\n{}", problems.render(100, false)),
    }
}

/// The plan of the first pipeline of a file with these pipelines.
fn plan(pipelines: &str) -> Plan {
    let loaded = load(&format!("{{ version: 1, pipelines: {{ {pipelines} }} }}"));
    Plan::clone(&loaded.resolved.spec.pipelines[0].plan)
}

/// Each step with those that it comes after, or that it takes back.
fn order(plan: &Plan) -> Vec<String> {
    let name = |index: &u32| plan.steps()[*index as usize].name.clone();
    let line = |step: &lidless_core::pipeline::plan::StepSpec| match step.undoes {
        Some(of) => format!("{} takes back {}", step.name, name(&of)),
        None => format!("{}: {}", step.name, step.after.iter().map(name).collect::<Vec<_>>().join(" ")),
    };
    plan.steps().iter().map(line).collect()
}

const INNER: &str = "inner: { lock: treasury, steps: [\
    { A: { call: { exec: [a] }, undo: { exec: [a, --back] } } }, \
    { B: { call: { exec: [b] }, after: [] } }] }";

#[test]
fn a_step_comes_after_the_one_above_unless_it_says_so_itself() {
    let plan = plan(
        "p: { steps: [{ A: { call: { exec: [a] } } }, { B: { call: { exec: [b] } } }, \
         { C: { call: { exec: [c] }, after: [A] } }, { D: { call: { exec: [d] }, after: [] } }, \
         { E: { call: { exec: [e] }, after: [B, C, D] } }] }",
    );
    assert_eq!(order(&plan), ["A: ", "B: A", "C: A", "D: ", "E: B C D"]);
}

#[test]
fn the_steps_of_another_pipeline_keep_their_order_and_what_takes_them_back() {
    let outer = "outer: { steps: [{ X: { call: { exec: [x] } } }, { IN: { call: { pipeline: inner } } }, \
                 { Y: { call: { exec: [y] } } }, { Z: { call: { exec: [z] }, after: [IN] } }] }";
    let plan = plan(&format!("{outer}, {INNER}"));
    assert_eq!(
        order(&plan),
        ["X: ", "IN/A: X", "IN/B: X", "Y: IN/A IN/B", "Z: IN/A IN/B", "IN/A/undo takes back IN/A"]
    );
    assert_eq!(plan.lock.as_deref(), Some("treasury"), "what it takes up brings its lock");
}

#[test]
fn what_lidless_does_by_itself_is_no_call() {
    let loaded = load(
        "{ version: 1, services: { api: { run: { systemd: api } } }, pipelines: { p: { steps: [\
         { YES: { approve: { within: 12h, ask: now } } }, { REST: { call: { wait: 5m } } }, \
         { BOUNCE: { call: { service: { restart: api } } } }, { LAST: { call: { exec: [a] }, once: true, pivot: true } }] } } }",
    );
    let steps = loaded.resolved.spec.pipelines[0].plan.steps();
    assert_eq!(steps[0].call, StepCall::Nothing);
    assert_eq!(steps[0].approve.as_ref().unwrap().ask, "now");
    assert_eq!(steps[1].call, StepCall::Wait { time: std::time::Duration::from_secs(300) });
    assert_eq!(steps[2].call, StepCall::Service { service: "api".to_owned(), action: Action::Restart });
    assert!(steps[3].pivot && steps[3].class == Class::OneShot);
}

#[test]
fn a_definition_is_the_same_as_long_as_it_means_the_same() {
    let step = "PAY: { call: { exec: { command: [pay], env: { A: x, B: y } } }, confirm: { exec: [look] }, value: {} }";
    let one = plan(&format!("p: {{ lock: l, deadline: 20m, steps: [{{ {step} }}] }}"));
    assert_eq!(one.definition.len(), 32);
    assert!(one.definition.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let other = "version: 1\nservices:\n  api: { checks: { up: { tcp: { address: 127.0.0.1:80 } } } }\npipelines:\n  \
                 p:\n    title: Pay\n    every: 6h\n    steps:\n      - PAY:\n          value: {}\n          \
                 confirm: { exec: [look] }\n          call: { exec: { env: { B: y, A: x }, command: [pay] } }\n          \
                 timeout: 60s\n    deadline: 1200s\n    lock: l\n";
    assert_eq!(load(other).resolved.spec.pipelines[0].plan.definition, one.definition);
    for (from, to) in [
        ("[pay]", "[pay, more]"),
        ("20m", "21m"),
        ("lock: l", "lock: m"),
        ("PAY", "GIVE"),
        (", value: {}", ""),
    ] {
        let text = format!("p: {{ lock: l, deadline: 20m, steps: [{{ {step} }}] }}").replacen(from, to, 1);
        assert_ne!(plan(&text).definition, one.definition, "{to}");
    }
}

#[test]
fn of_a_secret_in_a_step_the_journal_keeps_only_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("lidless.yaml"), dir.path().join("token"));
    std::fs::write(&secret, "Bearer hunter2\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let http = "http: { url: http://127.0.0.1/, headers: { Authorization: { file: token } } }";
    let exec = "exec: { command: [a], env: { TOKEN: { file: token } } }";
    let hook = "hook: { secret: { file: token } }";
    let text = format!(
        "{{ version: 1, pipelines: {{ p: {{ {hook}, steps: [{{ A: {{ call: {{ {http} }} }} }}, {{ B: {{ call: {{ {exec} }} }} }}] }} }} }}"
    );
    std::fs::write(&file, text).unwrap();
    let loaded = config::load(&[file]).unwrap();
    assert!(!serde_json::to_string(&loaded.resolved.spec).unwrap().contains("hunter2"));
    assert!(!format!("{:?}", loaded.resolved).contains("hunter2"));
    assert_eq!(loaded.resolved.pipelines[0].hook.as_ref().unwrap().secret.expose(), "Bearer hunter2");
    let StepCall::External { kind, settings } = &loaded.resolved.spec.pipelines[0].plan.steps()[0].call
    else {
        panic!("no call")
    };
    let pinned: HttpStepSettings = serde_json::from_str(settings).unwrap();
    let expected = HeaderSettings::Secret(config::secret::SecretSource::File(secret));
    assert_eq!((kind.as_str(), &pinned.request.headers[0].1), ("http", &expected));
}

#[test]
fn a_number_without_quotes_is_a_number_in_json_and_a_text_with_them_is_a_text() {
    let text = "p: { steps: [{ A: { call: { http: { url: http://127.0.0.1/, json: { a: 5, b: \"5\", c: no, d: true, e: ~, f: [1, x] } } } } }] }";
    let plan = plan(text);
    let StepCall::External { settings, .. } = &plan.steps()[0].call else { panic!("no call") };
    let value: serde_json::Value = serde_json::from_str(settings).unwrap();
    let wanted = serde_json::json!({ "a": 5, "b": "5", "c": "no", "d": true, "e": null, "f": [1, "x"] });
    assert_eq!(value["request"]["body"]["json"], wanted);
}

#[test]
fn a_calendar_without_a_zone_is_on_the_machines_clock() {
    let loaded = load(
        "{ version: 1, pipelines: { p: { cron: \"0 4 * * *\", steps: [{ A: { call: { exec: [a] } } }] } } }",
    );
    let triggers = serde_json::to_value(&loaded.resolved.spec.pipelines[0].triggers).unwrap();
    assert_eq!(triggers[0]["expression"], "0 4 * * *");
    assert_eq!(triggers[0]["zone"].as_str(), lidless::schedule::own_zone().as_deref());
}
