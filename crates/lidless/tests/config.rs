//! Does every configuration mean what it says, and does every mistake get the exact place and a useful word?
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lidless::config::settings::ExecStepSettings;
use lidless::config::{self, Problems, Secrets};
use lidless_core::pipeline::plan::StepCall;
use proptest::prelude::*;

/// Lists the fixtures of a directory, relative to the crate, in the order of their names.
fn fixtures(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Takes this machine out of a text.
fn neutral(text: &str) -> String {
    let own = std::env::current_exe().unwrap();
    let here = std::env::current_dir().unwrap();
    let text = text.replace(&*own.to_string_lossy(), "OWN-BINARY").replace(&*here.to_string_lossy(), "HERE");
    // The hash of a definition covers the directories that its commands run in.
    let lines = text.split_inclusive('\n').map(|line| match line.split_once("definition: \"") {
        Some((before, _)) => format!("{before}definition: \"HASH\",\n"),
        None => line.to_owned(),
    });
    lines.collect()
}

fn refused(text: &str) -> Problems {
    config::from_str("lidless.yaml", text).expect_err("this must be refused")
}

fn codes(problems: &Problems) -> Vec<&'static str> {
    problems.list().iter().map(|problem| problem.code).collect()
}

#[test]
fn every_invalid_file_shows_where_and_what_helps() {
    let paths = fixtures("tests/configs/invalid");
    assert!(paths.len() >= 80, "only {} invalid fixtures", paths.len());
    for path in paths {
        let problems = match config::load(std::slice::from_ref(&path)) {
            Ok(_) => panic!("`{}` was accepted", path.display()),
            Err(problems) => problems,
        };
        assert!(
            problems.list().iter().all(|problem| problem.help.is_some()),
            "a problem without help: {}",
            path.display()
        );
        insta::assert_snapshot!(format!("invalid__{}", stem(&path)), neutral(&problems.render(100, false)));
    }
}

#[test]
fn every_valid_file_means_what_it_says() {
    for path in fixtures("tests/configs/valid") {
        let loaded = match config::load(std::slice::from_ref(&path)) {
            Ok(loaded) => loaded,
            Err(problems) => panic!("{}", problems.render(100, false)),
        };
        let shown = format!("{:#?}\n\n{}", loaded.resolved, loaded.warnings.render(100, false));
        insta::assert_snapshot!(format!("valid__{}", stem(&path)), neutral(&shown));
    }
}

#[test]
fn the_example_of_the_quick_start_is_valid() {
    let loaded = config::load(&[PathBuf::from("../../examples/quickstart/lidless.yaml")]);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{}", problems.render(100, false)));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.render(100, false));
    assert!(loaded.resolved.store_path.ends_with("examples/quickstart/lidless-data/lidless.db"));
}

#[test]
fn every_whole_file_in_the_documentation_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    for path in
        fixtures("../../docs").into_iter().filter(|path| path.extension().is_some_and(|end| end == "md"))
    {
        let page = fs::read_to_string(&path).unwrap();
        for block in page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            if block.starts_with("version: 1") {
                let file = dir.path().join("lidless.yaml");
                fs::write(&file, block).unwrap();
                let loaded = config::load_with(&[file], Secrets::Optional);
                loaded
                    .unwrap_or_else(|problems| panic!("{}\n{}", path.display(), problems.render(100, false)));
            }
        }
    }
}

#[test]
fn the_committed_schema_is_the_one_that_the_code_makes() {
    let path = "../../docs/schema/lidless.v1.json";
    let made = serde_json::to_string_pretty(&config::schema()).unwrap() + "\n";
    if std::env::var_os("LIDLESS_WRITE_SCHEMA").is_some() {
        fs::create_dir_all("../../docs/schema").unwrap();
        fs::write(path, &made).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        made == committed,
        "docs/schema/lidless.v1.json is out of date: run this test with LIDLESS_WRITE_SCHEMA=1"
    );
}

#[test]
fn every_example_in_the_table_of_keys_is_itself_valid() {
    fn walk(shape: &'static config::shape::Shape, wrap: &dyn Fn(String) -> String) {
        use config::shape::Accepts;
        for key in shape.keys {
            // What else the map needs, beside the key under test.
            let needed = shape.keys.iter().filter(|other| other.required && other.name != key.name);
            let choice = shape.one_of.first().filter(|_| !shape.one_of.contains(&key.name));
            let choice = shape.keys.iter().filter(|other| Some(&other.name) == choice);
            let beside: Vec<String> =
                needed.chain(choice).map(|other| format!("{}: {}", other.name, other.example)).collect();
            let with = |value: &str| {
                let mut all = beside.clone();
                all.push(format!("{}: {value}", key.name));
                wrap(format!("{{ {} }}", all.join(", ")))
            };
            let text = with(key.example);
            if let Err(problems) = config::from_str("/etc/lidless.yaml", &text) {
                // The places are right; only what the example refers to may be absent here.
                let allowed = [
                    "config::nothing_watched",
                    "config::unknown_service",
                    "config::heal_without_run",
                    "config::no_process",
                    "config::cannot_reload",
                    "config::value_in_doubt",
                    "config::unknown_step",
                    "config::unknown_pipeline",
                    "config::confirm_of_other_kind",
                    "config::secret_unavailable",
                    "config::bad_request",
                ];
                assert!(
                    codes(&problems).iter().all(|code| allowed.contains(code)),
                    "{text}\n{}",
                    problems.render(100, false)
                );
            }
            match key.accepts {
                Accepts::Map(inner)
                | Accepts::MapOrOff(inner)
                | Accepts::TextOrMap(inner)
                | Accepts::ArgvOrMap(inner) => walk(inner, &|value| with(&value)),
                Accepts::Steps(inner) => walk(inner, &|value| with(&format!("[{{ NAME: {value} }}]"))),
                Accepts::Named(inner) => walk(inner, &|value| with(&format!("{{ name: {value} }}"))),
                _ => {}
            }
        }
    }
    let top = |value: String| {
        if value.contains("version:") {
            value
        } else {
            format!("{{ version: 1, {}", value.trim_start_matches("{ "))
        }
    };
    walk(&config::shape::TOP, &top);
}

#[test]
fn a_file_that_cannot_be_read_is_told_apart_from_one_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let problems = config::load(&[dir.path().join("absent.yaml")]).unwrap_err();
    assert_eq!(codes(&problems), ["config::missing_file"]);
    let problems = config::load(&[dir.path().to_owned()]).unwrap_err();
    assert_eq!(codes(&problems), ["config::directory"]);
    fs::write(dir.path().join("lidless.yaml"), "version: 1").unwrap();
    let problems = config::load(&[dir.path().to_owned()]).unwrap_err();
    assert!(problems.list()[0].help.as_ref().unwrap().contains("name the file"));
    let closed = dir.path().join("closed.yaml");
    fs::write(&closed, "version: 1").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&closed).is_ok() {
        println!("skipped: this user may read every file");
    } else {
        assert_eq!(codes(&config::load(&[closed]).unwrap_err()), ["config::unreadable"]);
    }
}

#[test]
fn a_file_over_16_mib_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.yaml");
    fs::File::create(&path).unwrap().set_len(17 * 1024 * 1024).unwrap();
    assert_eq!(codes(&config::load(&[path]).unwrap_err()), ["config::too_large"]);
}

#[test]
fn a_secret_is_read_from_a_private_file_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("lidless.yaml"), dir.path().join("token"));
    fs::write(&secret, "Bearer hunter2\n").unwrap();
    fs::write(
        &file,
        "version: 1\nservices: { api: { checks: { up: { http: { url: http://127.0.0.1/, headers: { Authorization: { file: token } } } } } } }\n",
    )
    .unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let loaded = config::load(std::slice::from_ref(&file)).unwrap();
    let config::settings::CheckKind::Http(http) = &loaded.resolved.services[0].checks[0].kind else {
        panic!("no HTTP check")
    };
    assert_eq!(http.headers[0].1.expose(), "Bearer hunter2");
    assert!(!format!("{:?}", loaded.resolved).contains("hunter2"));
    assert!(!serde_json::to_string(&loaded.resolved.spec).unwrap().contains("hunter2"));

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    for secrets in [Secrets::Needed, Secrets::Optional] {
        let problems = config::load_with(std::slice::from_ref(&file), secrets).unwrap_err();
        assert!(problems.list()[0].message.contains("can be read by others"), "{problems}");
    }
    fs::remove_file(&secret).unwrap();
    let checked = config::load_with(&[file], Secrets::Optional).unwrap();
    assert_eq!(codes(&checked.warnings), ["config::secret_unavailable"]);
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated_by_the_message() {
    for value in [
        "http: { url: 'http://user:hunter2@host/' }",
        "http: { url: 'ftp://user:hunter2@host/' }",
        "http: { url: 'user:hunter2@host/' }",
        "http: { url: http://host/, headers: { Cookie: hunter2 } }",
        "tcp: { address: 'user:hunter2@host:1' }",
        "tcp: { address: 'redis://user:hunter2@host:1' }",
    ] {
        let problems =
            refused(&format!("version: 1\nservices: {{ a: {{ checks: {{ up: {{ {value} }} }} }} }}\n"));
        assert!(!problems.render(100, false).contains("hunter2"), "{}", problems.render(100, false));
        assert!(!format!("{problems}").contains("hunter2"));
    }
}

#[test]
fn a_written_process_check_is_as_quick_as_the_one_that_lidless_adds() {
    let spec = |checks: &str| {
        let run = "run: { process: { command: [x] } }";
        let services = format!("services: {{ a: {{ {run}{checks} }} }}");
        let text = format!("{{ version: 1, defaults: {{ every: 1m, fail_after: 5 }}, {services} }}");
        config::from_str("/etc/lidless.yaml", &text).unwrap().resolved.spec
    };
    assert_eq!(spec(""), spec(", checks: { process: { process: {} } }"));
    assert_eq!(spec("").services[0].checks[0].every, std::time::Duration::from_secs(5));
    assert_eq!(spec("").services[0].checks[0].fail_after, 1);
}

#[test]
fn two_files_on_the_command_line_make_one_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.yaml"), dir.path().join("two.yaml"));
    fs::write(
        &one,
        "version: 1\nservices: { a: { depends_on: [b], checks: { up: { tcp: { address: h:1 } } } } }",
    )
    .unwrap();
    fs::write(&two, "version: 1\nservices: { b: { checks: { up: { tcp: { address: h:1 } } } } }").unwrap();
    assert_eq!(codes(&config::load(std::slice::from_ref(&one)).unwrap_err()), ["config::unknown_service"]);
    let loaded = config::load(&[one.clone(), two.clone(), one]).unwrap();
    assert_eq!(loaded.files.len(), 2, "the same file twice is one file");
    assert_eq!(loaded.resolved.spec.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn the_word_lidless_runs_this_very_binary() {
    let text = "{ version: 1, services: { a: { run: { process: { command: [lidless, demo-service] } } } } }";
    let loaded = config::from_str("/etc/lidless.yaml", text).unwrap();
    let Some(config::settings::RunKind::Process(process)) = &loaded.resolved.services[0].run else {
        panic!("no process")
    };
    assert_eq!(Path::new(&process.command[0]), std::env::current_exe().unwrap());
}

#[test]
fn a_step_that_moves_value_needs_someone_who_can_tell_or_is_never_repeated() {
    for (says, expected) in [
        ("", &["config::value_in_doubt"][..]),
        (", class: pure", &["config::value_in_doubt"]),
        (", class: idempotent", &["config::value_in_doubt"]),
        (", class: confirmable", &["config::nothing_to_confirm"]),
        (", class: one_shot", &[]),
        (", confirm: { exec: [look] }", &[]),
        (", confirm: { exec: [look] }, class: confirmable", &[]),
        (", confirm: { exec: [look] }, class: idempotent", &["config::class_and_confirm"]),
        (", class: one_shot, retry: { attempts: 2 }", &["config::one_shot_repeated"]),
        (", once: true", &[]),
        (", once: true, confirm: { exec: [look] }", &[]),
        (", once: true, class: one_shot", &["config::class_twice"]),
        (", once: true, undo: { exec: [back] }", &["config::value_in_doubt"]),
        (", once: true, undo: { exec: [back], once: true }", &[]),
        (", once: true, undo: { exec: [back], confirm: { exec: [look] } }", &[]),
    ] {
        let step = format!("PAY: {{ call: {{ exec: [pay] }}, value: {{}}{says} }}");
        let text = format!("{{ version: 1, pipelines: {{ p: {{ steps: [{{ {step} }}] }} }} }}");
        match config::from_str("/etc/lidless.yaml", &text) {
            Ok(loaded) => {
                assert!(expected.is_empty(), "accepted: {step}");
                assert!(loaded.resolved.spec.pipelines[0].plan.steps()[0].value);
            }
            Err(problems) => assert_eq!(codes(&problems), expected, "{step}"),
        }
    }
}

#[test]
fn what_a_run_keeps_of_a_step_is_what_its_driver_reads() {
    let exec = "{ command: [pay, now], dir: work, env: { A: b } }";
    let step = format!("PAY: {{ call: {{ exec: {exec} }}, confirm: {{ exec: [./look] }} }}");
    let text = format!("{{ version: 1, pipelines: {{ p: {{ steps: [{{ {step} }}] }} }} }}");
    let loaded = config::from_str("/etc/lidless.yaml", &text).unwrap();
    let StepCall::External { kind, settings } = &loaded.resolved.spec.pipelines[0].plan.steps()[0].call
    else {
        panic!("no call")
    };
    let expected = ExecStepSettings {
        command: vec!["pay".to_owned(), "now".to_owned()],
        dir: PathBuf::from("/etc/work"),
        env: [("A".to_owned(), "b".to_owned())].into(),
        confirm: Some(vec!["/etc/look".to_owned()]),
        ..ExecStepSettings::default()
    };
    assert_eq!((kind.as_str(), serde_json::from_str(settings).unwrap()), ("exec", expected));
}

#[test]
fn yaml_1_1_words_and_numbers_stay_what_was_written() {
    let text = "version: 1\nsite: no\nservices: { a: { title: 1.10, run: { process: { command: [x, 22:22, on, 0x00AA, 0o17, 1_000] } } } }";
    let loaded = config::from_str("/etc/lidless.yaml", text).unwrap();
    assert_eq!(loaded.resolved.spec.site, "no");
    assert_eq!(loaded.resolved.services[0].title.as_deref(), Some("1.10"));
    let Some(config::settings::RunKind::Process(process)) = &loaded.resolved.services[0].run else {
        panic!("no process")
    };
    assert_eq!(process.command[1..], ["22:22", "on", "0x00AA", "0o17", "1_000"]);
}

#[test]
fn ten_thousand_services_load_fast() {
    let mut text = String::from("version: 1\nservices:\n");
    for at in 0..10_000 {
        let needs = if at > 0 { format!("[service-{}]", at - 1) } else { "[]".to_owned() };
        text.push_str(&format!(
            "  service-{at}:\n    depends_on: {needs}\n    run: {{ systemd: unit-{at} }}\n    checks:\n      health: {{ http: {{ url: http://127.0.0.1:8080/{at} }}, every: 5s }}\n      port: {{ tcp: {{ address: 127.0.0.1:8080 }} }}\n    heal: {{ restart: {{ attempts: 3, per: 15m, backoff: 5s..2m }} }}\n"
        ));
    }
    let start = std::time::Instant::now();
    let loaded = config::from_str("lidless.yaml", &text).unwrap();
    let took = start.elapsed();
    println!("{} KiB, 10,000 services, 30,000 checks: {took:?}", text.len() / 1024);
    assert_eq!(loaded.resolved.spec.services.len(), 10_000);
    // A debug build on a busy machine; a release build takes a fraction of a second.
    assert!(took.as_secs() < 30, "{took:?}");
}

#[test]
fn ten_thousand_mistakes_are_all_found_and_only_the_first_are_drawn() {
    let mut text = String::from("version: 1\nservices:\n");
    for at in 0..10_000 {
        text.push_str(&format!(
            "  s{at}: {{ depends_on: [absent-{at}], checks: {{ port: {{ tcp: {{ address: h:1 }} }} }} }}\n"
        ));
    }
    let problems = refused(&text);
    assert_eq!(problems.len(), 10_000);
    let shown = problems.render(100, false);
    assert!(shown.ends_with("... and 9900 more problems\n"), "{}", &shown[shown.len() - 100..]);
}

#[test]
fn many_aliases_cannot_grow_a_small_file() {
    let mut text = String::from("version: 1\nsite: x\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for at in 1..30 {
        let before = at - 1;
        text.push_str(&format!("a{at}: &a{at} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
    }
    let start = std::time::Instant::now();
    assert!(codes(&refused(&text)).contains(&"config::yaml_feature"));
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn colour_and_ascii_say_the_same_as_plain_text() {
    let problems = refused("version: 1\ndefaults: { every: 5 }\n");
    assert!(problems.render(80, true).contains("\u{1b}["));
    assert!(!problems.render(80, false).contains('\u{1b}'));
    let ascii = problems.render_ascii(80);
    assert!(ascii.is_ascii(), "{ascii}");
    assert!(ascii.contains("write `5s` for seconds"));
}

/// **Invariant:** whatever the text, no panic, and every label lies inside its file, on whole characters.
fn holds_together(text: &str) -> Result<(), TestCaseError> {
    let problems = match config::from_str("lidless.yaml", text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => {
            prop_assert!(!problems.is_empty());
            problems
        }
    };
    for problem in problems.list() {
        prop_assert!(problem.labels.len() <= 10 && problem.help.is_some());
        for label in &problem.labels {
            let source = &problems.sources()[label.at.file as usize].text;
            prop_assert!(source.get(label.at.start as usize..label.at.end as usize).is_some(), "{problem:?}");
        }
    }
    problems.render(60, false);
    problems.render_ascii(60);
    Ok(())
}

fn valid_texts() -> Vec<String> {
    let dirs = ["tests/configs/valid", "tests/configs/invalid"];
    let paths = dirs.iter().flat_map(|dir| fixtures(dir));
    paths.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}|[ \\t\\r\\n\u{feff}:{}\\[\\],\"'#&*!|>%@`a-c0-9é-]{0,200}") {
        holds_together(&text)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lidless.yaml");
        fs::write(&path, &bytes).unwrap();
        if let Err(problems) = config::load(&[path]) {
            problems.render(60, false);
        }
    }

    #[test]
    fn a_mutated_file_never_panics(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, "[ \\t\\r\\n\u{feff}:{}\\[\\],\"'#&*!|>é☃0-9a-z.-]{0,4}"), 1..5),
    ) {
        let texts = valid_texts();
        let mut chars: Vec<char> = pick.get(&texts).chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, inserted.chars());
        }
        holds_together(&chars.into_iter().collect::<String>())?;
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_move_no_label() {
    let problems = refused("\u{feff}version: 1\r\ndefaults:\r\n  every: 5\r\n");
    let label = &problems.list()[0].labels[0];
    assert_eq!(&problems.sources()[0].text[label.at.start as usize..label.at.end as usize], "5");
}
