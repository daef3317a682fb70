//! Is every answer of a command read as the contract says?

use std::time::{Duration, SystemTime};

use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::{Call, Step, Undoes};
use serde_json::{Value, json};

use super::{Kept, PLENTY, both, call, perform, python, sh, shown, step};

fn twice(answer: &str) -> [String; 2] {
    [answer.to_owned(), answer.to_owned()]
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the moment that it is told is one of the wall clock")]
async fn a_step_is_told_what_to_do_and_by_when() {
    let before = SystemTime::now() + Duration::from_secs(3600);
    let script = "import sys, json; call = json.loads(sys.stdin.readline()); assert not sys.stdin.read()\n\
                  print(json.dumps({'ok': True, 'output': call}))";
    let call = call();
    let answer = step(python(script), true).perform(&call, Duration::from_secs(3600), &Kept::default()).await;
    let shown = shown(&answer);
    let mut told: Value = serde_json::from_str(shown.strip_prefix("applied ").expect(&shown)).unwrap();
    let deadline = told.as_object_mut().unwrap().remove("deadline").unwrap();
    assert_eq!(
        told,
        json!({
            "run": "run-7", "step": "send", "attempt": 2, "idempotency_key": call.idempotency_key,
            "inputs": { "to": "alice" }, "outputs": { "quote": { "price": 7 } },
        })
    );
    // Python reads it as what it is, and not as something that only looks like it.
    let script = format!(
        "import datetime; print(datetime.datetime.fromisoformat('{}'.replace('Z', '+00:00')).timestamp())",
        deadline.as_str().unwrap()
    );
    let read = perform(python(&script), false).await;
    let read: Value = serde_json::from_str(read.strip_prefix("applied ").unwrap()).unwrap();
    let read: f64 = read["text"].as_str().unwrap().parse().unwrap();
    let after = SystemTime::now() + Duration::from_secs(3600);
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((seconds(before) - 0.001..seconds(after)).contains(&read), "{deadline} is {read}");
}

#[tokio::test]
async fn a_shell_script_needs_no_json() {
    let script = "echo $LIDLESS_RUN $LIDLESS_STEP $LIDLESS_ATTEMPT $LIDLESS_IDEMPOTENCY_KEY $COLOUR";
    let mut command = sh(script);
    command.env.insert("COLOUR".to_owned(), "green".to_owned());
    command.env.insert("LIDLESS_STEP".to_owned(), "forged".to_owned());
    let call = call();
    let answer = step(command, true).perform(&call, PLENTY, &Kept::default()).await;
    let key = &call.idempotency_key;
    assert_eq!(shown(&answer), format!(r#"applied {{"text":"run-7 send 2 {key} green"}}"#));
    let read = "read -r line; case $line in *'\"attempt\":2'*) ;; *) exit 1;; esac";
    assert_eq!(perform(sh(read), true).await, "applied {}");
}

#[tokio::test]
async fn a_step_that_takes_back_is_told_what() {
    let script = "import sys, json, os; call = json.loads(sys.stdin.readline())\n\
                  print(json.dumps({'handles': call['handles'], 'undoes': call['undoes'], 'env': [\
                  os.environ['LIDLESS_UNDOES'], os.environ['LIDLESS_UNDOES_KEY']]}))";
    let call = Call {
        handles: vec![json!("0xabc"), json!({ "nonce": 7 })],
        undoes: Some(Undoes {
            step: "send".to_owned(),
            idempotency_key: "k-1".to_owned(),
            output: json!({ "id": 9 }),
            handles: vec![json!("0xdef")],
        }),
        ..call()
    };
    let answer = step(python(script), true).perform(&call, PLENTY, &Kept::default()).await;
    let told: Value = serde_json::from_str(shown(&answer).strip_prefix("applied ").unwrap()).unwrap();
    assert_eq!(
        told,
        json!({
            "handles": ["0xabc", { "nonce": 7 }],
            "undoes": { "step": "send", "idempotency_key": "k-1", "output": { "id": 9 }, "handles": ["0xdef"] },
            "env": ["send", "k-1"],
        })
    );
    let nothing = "echo ${LIDLESS_UNDOES-none} ${LIDLESS_UNDOES_KEY-none}";
    assert_eq!(perform(sh(nothing), true).await, r#"applied {"text":"none none"}"#);
}

#[tokio::test]
async fn a_step_need_not_read_its_input() {
    let mut call = call();
    call.inputs = json!({ "much": "x".repeat(1_000_000) });
    for script in ["echo done", "exec <&-; echo done", "head -c 10 >/dev/null; echo done"] {
        let answer = step(sh(script), true).perform(&call, PLENTY, &Kept::default()).await;
        assert_eq!(shown(&answer), r#"applied {"text":"done"}"#, "{script}");
    }
    let answer = step(sh("wc -c"), true).perform(&call, PLENTY, &Kept::default()).await;
    assert!(shown(&answer).starts_with(r#"applied {"text":"1000"#), "{answer:?}");
}

#[tokio::test]
async fn the_last_object_is_the_answer() {
    let script = r#"echo starting; echo '{"ok":false,"error":"not this"}'
        echo '{"ok":true,"output":{"hash":"0xabc"},"handle":{"nonce":7},"amounts":[
            {"asset":"EUR","minor":-1250},{"asset":"WEI","minor":"170141183460469231731687303715884105727"}]}'
        echo bye"#;
    let applied =
        r#"applied {"hash":"0xabc"} EUR-1250 WEI+170141183460469231731687303715884105727 by {"nonce":7}"#;
    assert_eq!(both(script).await, twice(applied));
    // As `jq` writes it: over several lines, some of which are objects themselves.
    let pretty = "import json; print(json.dumps({'ok': False, 'error': 'no funds', 'class': 'permanent', 'x': [{}]}, indent=1))";
    assert_eq!(perform(python(pretty), false).await, "permanent: no funds");
    assert_eq!(both("printf '{\"ok\":true}'").await, twice("applied {}"));
    let nulls = r#"echo '{"ok":true,"output":null,"amounts":null,"handle":null}'"#;
    assert_eq!(both(nulls).await, twice("applied {}"));
}

#[tokio::test]
async fn a_failure_is_taken_at_its_word() {
    for code in [0, 1] {
        let says = |answer: &str| format!("echo '{answer}'; exit {code}");
        let script = says(r#"{"ok":false,"error":"rate limit"}"#);
        assert_eq!(both(&script).await, twice("transient: rate limit"));
        let script = says(r#"{"ok":false,"error":"busy","class":"transient"}"#);
        assert_eq!(both(&script).await, twice("transient: busy"));
        let script = says(r#"{"ok":false,"error":"no such account","class":"permanent"}"#);
        assert_eq!(both(&script).await, twice("permanent: no such account"));
        let script = says(r#"{"ok":false,"error":"connection lost","class":"unknown"}"#);
        assert_eq!(both(&script).await, twice("unknown: connection lost"));
    }
    assert_eq!(both(r#"echo why >&2; echo '{"ok":false}'"#).await, twice("transient: why"));
    assert_eq!(both(r#"echo '{"ok":false}'"#).await, twice("transient: it did not say why"));
    let steers = r#"printf '%s\n' '{"ok":false,"error":"a\u001b[2J\nb"}'"#;
    assert_eq!(both(steers).await, twice("transient: a [2J b"));
}

#[tokio::test]
async fn without_an_answer_the_exit_code_decides() {
    assert_eq!(both("true").await, twice("applied {}"));
    assert_eq!(both("echo; echo ' sent 7 '; echo more").await, twice(r#"applied {"text":"sent 7"}"#));
    let fails = |error: &str| [format!("transient: {error}"), format!("unknown: {error}")];
    assert_eq!(both("echo out; echo; echo err >&2; exit 3").await, fails("err"));
    assert_eq!(both("echo out; echo >&2; exit 3").await, fails("out"));
    assert_eq!(both("exit 3").await, fails("exit code 3"));
}

#[tokio::test]
async fn an_object_without_ok_is_no_answer() {
    let script = |code| format!(r#"echo hello; echo '{{"price":7}}'; exit {code}"#);
    assert_eq!(both(&script(0)).await, twice(r#"applied {"price":7}"#));
    assert_eq!(both(&script(1)).await, ["transient: hello", "unknown: hello"]);
    assert_eq!(both("echo '[1]'").await, twice(r#"applied {"text":"[1]"}"#));
}

#[tokio::test]
async fn what_did_not_run_had_no_effect() {
    let missing = || CommandSpec { argv: vec!["/nonexistent/pay".into()], ..CommandSpec::default() };
    let nowhere = || CommandSpec { dir: Some("/nonexistent".into()), ..sh("true") };
    for strict in [false, true] {
        assert_eq!(
            perform(missing(), strict).await,
            "permanent: cannot run `/nonexistent/pay`: No such file or directory (os error 2)"
        );
        let error = "permanent: cannot run `sh`: its directory `/nonexistent` is not there";
        assert_eq!(perform(nowhere(), strict).await, error);
        assert_eq!(perform(CommandSpec::default(), strict).await, "permanent: the command is empty");
        // A shell may have done half its work before it met a command that is not there.
        let class = if strict { "unknown: " } else { "permanent: " };
        let not_found = perform(sh("no-such-command"), strict).await;
        assert!(not_found.starts_with(class), "{not_found}");
        assert!(not_found.contains("no-such-command"), "{not_found}");
        assert!(not_found.ends_with("not found (exit code 127: command not found)"), "{not_found}");
        let no_program = perform(sh("exec /etc/passwd"), strict).await;
        assert!(no_program.starts_with(class), "{no_program}");
        assert!(no_program.ends_with("(exit code 126: cannot be executed)"), "{no_program}");
        assert_eq!(perform(sh("exit 127"), strict).await, format!("{class}exit code 127: command not found"));
    }
}

#[tokio::test]
async fn ok_and_a_bad_end_contradict_each_other() {
    for code in [1, 126, 127] {
        let script = format!(r#"echo '{{"ok":true,"output":7}}'; exit {code}"#);
        assert_eq!(both(&script).await, twice(&format!("unknown: said ok but ended with code {code}")));
    }
}

#[tokio::test]
async fn an_answer_of_wrong_types_names_the_field() {
    let malformed = [
        (r#"{"ok":"yes"}"#, "`ok` is `\"yes\"`, and must be true or false"),
        (r#"{"ok":null}"#, "`ok` is missing, and must be true or false"),
        (r#"{"ok":true,"output":[1]}"#, "`output` is `[1]`, and must be an object"),
        (r#"{"ok":true,"amounts":{}}"#, "`amounts` is `{}`, and must be a list"),
        (r#"{"ok":true,"amounts":[7]}"#, "`amounts[0]` is `7`, and must be an object"),
        (r#"{"ok":true,"amounts":[{"minor":7}]}"#, "`amounts[0].asset` is missing, and must be a name"),
        (
            r#"{"ok":true,"amounts":[{"asset":"EUR","minor":1.5}]}"#,
            "`amounts[0].minor` is `1.5`, and must be a whole number, as a text where it has over 64 bits",
        ),
        (
            r#"{"ok":true,"amounts":[{"asset":"EUR","minor":1},{"asset":"WEI","minor":100000000000000000000}]}"#,
            "`amounts[1].minor` is `1e+20`, and must be a whole number, as a text where it has over 64 bits",
        ),
        (
            r#"{"ok":false,"class":"fatal"}"#,
            "`class` is `\"fatal\"`, and must be \"transient\", \"permanent\" or \"unknown\"",
        ),
        (r#"{"ok":false,"error":{"code":7}}"#, "`error` is `{\"code\":7}`, and must be a text"),
    ];
    for (answer, error) in malformed {
        let error = format!("its answer's {error}");
        let expected = [format!("permanent: {error}"), format!("unknown: {error}")];
        assert_eq!(both(&format!("echo '{answer}'")).await, expected);
    }
}

#[tokio::test]
async fn a_command_that_is_killed_leaves_doubt() {
    assert_eq!(both("kill -KILL $$").await, twice("unknown: ended by signal 9"));
    // Its own word does not help: it was not done.
    assert_eq!(both(r#"echo '{"ok":true}'; kill -SEGV $$"#).await, twice("unknown: ended by signal 11"));
    assert_eq!(both(r#"echo '{"ok":false}'; kill -TERM $$"#).await, twice("unknown: ended by signal 15"));
}
