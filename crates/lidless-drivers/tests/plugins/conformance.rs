//! Does the conformance test pass a right plugin, and catch each wrong one by the right case?

use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::plugin::conformance::{Report, Verdict, run};
use serde_json::json;

use super::{has_python, ledger, python};

async fn look(command: CommandSpec) -> Report {
    run(command, "do", &json!({}), &json!({})).await
}

fn failed(report: &Report) -> Vec<&str> {
    report.failed().map(|case| case.name).collect()
}

/// A right plugin, whose world is a dict that a file keeps, and in which one thing can be spoilt.
const RIGHT: &str = r#"
path = sys.argv[1]
def load():
    try: return json.load(open(path))
    except FileNotFoundError: return {}
def save(world):
    json.dump(world, open(path + ".new", "w")); os.replace(path + ".new", path)
def effect(r, handle):
    world = load(); key = r["call"]["idempotency_key"]
    if key not in world:
        world[key] = 1; save(world)
    return dict(ok=True, output={"n": world[key]}, handle=handle)
def confirm(r):
    if r["call"]["idempotency_key"] in load(): return dict(applied=True, evidence="it is there")
    return dict(applied=False, evidence="it is not there")
def prepare(r): return dict(ok=True, handle="h-" + r["call"]["idempotency_key"])
def undo(r): return effect(r, r["handle"])
def perform(r): return effect(r, r["handle"])
def count(r): return dict(ok=True, count=load().get(r["call"]["idempotency_key"], 0))
def unknown(r): return dict(ok=False, error="no such operation", **{"class": "permanent"})
def garbage(line): pass
def end(): pass
def start(): pass
def described(r): describe(r, counts=True)
SPOILT
def main():
    ops = dict(prepare=prepare, perform=perform, undo=undo, confirm=confirm, count=count)
    start()
    for line in sys.stdin.buffer:
        try: r = json.loads(line); r["id"]
        except (ValueError, KeyError, TypeError): garbage(line); continue
        if r["op"] == "describe": described(r)
        else: say(r, **ops.get(r["op"], unknown)(r))
    end()
main()
"#;

async fn spoilt(by: &str) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let mut command = python(&RIGHT.replace("SPOILT", by));
    command.argv.push(dir.path().join("world").display().to_string());
    look(command).await
}

#[tokio::test]
async fn the_ledger_conforms() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let settings = json!({ "file": dir.path().join("ledger.jsonl"), "account": "cash" });
    let report = run(ledger(), "book", &settings, &json!({ "amount": "12.50" })).await;
    assert!(report.is_passed(), "{report}");
    assert!(report.cases.iter().all(|case| case.verdict == Verdict::Pass), "{report}");
    assert!(report.to_string().starts_with("plugin ledger 1.0.0, kind `book`\n  pass  describes-itself\n"));
    assert!(report.to_string().ends_with("14 passed, 0 failed, 0 skipped\n"), "{report}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["cases"][0]["verdict"], "pass");
}

#[tokio::test]
async fn a_right_plugin_conforms() {
    if !has_python() {
        return;
    }
    let report = spoilt("").await;
    assert!(report.is_passed(), "{report}");
}

#[tokio::test]
async fn what_a_plugin_does_not_offer_is_skipped() {
    if !has_python() {
        return;
    }
    let plain = r#"
def described(r):
    kind = {"name": "do", "class": "one_shot"}
    say(r, ok=True, protocol=1, name="plain", version="1", kinds=[kind])
def perform(r): return effect(r, None)
"#;
    let report = spoilt(plain).await;
    assert!(report.is_passed(), "{report}");
    let skipped = report.cases.iter().filter(|case| matches!(case.verdict, Verdict::Skip(_))).count();
    assert_eq!(skipped, 8, "{report}");
}

/// Looks that a plugin that is spoilt in one way is caught by the case that is there for it.
///
/// Of the cases that fail, the first is the one that names the trouble; those behind it may suffer from it as well.
async fn caught(table: Vec<(&str, String, &str)>) {
    let looks = table.iter().map(|(name, by, case)| async move { (name, case, spoilt(by).await) });
    for (name, case, report) in futures_util::future::join_all(looks).await {
        assert_eq!(failed(&report).first(), Some(case), "{name}:\n{report}");
    }
}

#[tokio::test]
async fn who_breaks_the_rules_of_the_conversation_is_caught() {
    if !has_python() {
        return;
    }
    caught(vec![
        ("no protocol", "def described(r): say(r, ok=True)".to_owned(), "describes-itself"),
        (
            "another protocol",
            "def described(r): say(r, ok=True, protocol=2, name='x', version='1', kinds=[])".to_owned(),
            "describes-itself",
        ),
        (
            "no such kind",
            "def described(r): say(r, ok=True, protocol=1, name='x', version='1', kinds=[])".to_owned(),
            "describes-itself",
        ),
        (
            "a confirmable kind that cannot confirm",
            "def described(r): describe(r, confirms=False)".to_owned(),
            "describes-itself",
        ),
        ("writes a greeting", "def start(): raw('hello\\n')".to_owned(), "describes-itself"),
        ("describes itself twice", "def described(r): describe(r); describe(r)".to_owned(), "describes-itself"),
        ("ends at once", "def start(): sys.exit('no licence')".to_owned(), "describes-itself"),
        (
            "finds fault with its settings",
            "def described(r): kind = dict(name='do', confirms=True); kind['class'] = 'confirmable'; say(r, ok=True, \
             protocol=1, name='x', version='1', kinds=[kind], problems=[dict(path='a', message='is missing')])"
                .to_owned(),
            "accepts-its-settings",
        ),
        (
            "says yes to anything",
            "def unknown(r): return dict(ok=True)".to_owned(),
            "unknown-op-is-refused",
        ),
        (
            "dies of what it does not know",
            "def unknown(r): raise ValueError(r['op'])".to_owned(),
            "unknown-op-is-refused",
        ),
        ("dies of garbage", "def garbage(line): json.loads(line)['id']".to_owned(), "garbage-is-survived"),
        (
            "answers to garbage",
            "def garbage(line): raw(json.dumps(dict(ok=False, error='what?')) + '\\n')".to_owned(),
            "garbage-is-survived",
        ),
        ("stays", "def end():\n    while True: time.sleep(1000)".to_owned(), "ends-with-its-input"),
    ])
    .await;
}

#[tokio::test]
async fn who_acts_at_the_wrong_time_or_forgets_is_caught() {
    if !has_python() {
        return;
    }
    caught(vec![
        (
            "confirms anything",
            "def confirm(r): return dict(applied=True, evidence='surely')".to_owned(),
            "unknown-key-is-not-applied",
        ),
        (
            "acts when it prepares",
            "def prepare(r): return effect(r, 'h-' + r['call']['idempotency_key'])".to_owned(),
            "prepare-has-no-effect",
        ),
        (
            "prepares anew when it performs",
            "def perform(r): return effect(r, 'h-' + os.urandom(4).hex())".to_owned(),
            "prepared-handle-is-used",
        ),
        (
            "remembers what it prepared in memory only",
            "ready = set()\ndef prepare(r): k = r['call']['idempotency_key']; ready.add(k); return dict(ok=True, handle=k)\n\
             def perform(r):\n    if r['handle'] not in ready: return dict(ok=False, error='was never prepared')\n    \
             return effect(r, r['handle'])"
                .to_owned(),
            "killed-before-perform",
        ),
        (
            "denies what it did",
            "def confirm(r): return dict(applied=False, evidence='I would know')".to_owned(),
            "prepared-handle-is-used",
        ),
        (
            "remembers what it did in memory only",
            "world = {}\ndef load(): return world\ndef save(new): pass".to_owned(),
            "killed-after-perform",
        ),
    ])
    .await;
}

#[tokio::test]
async fn who_acts_twice_is_caught() {
    if !has_python() {
        return;
    }
    let twice =
        "world = load(); key = r['call']['idempotency_key']; world[key] = world.get(key, 0) + 1; save(world)";
    caught(vec![
        (
            "acts twice",
            format!("def perform(r): {twice}; return dict(ok=True, handle=r['handle'])"),
            "same-key-twice-is-one-effect",
        ),
        (
            "acts twice and does not count",
            format!(
                "def described(r): describe(r)\n\
                 def perform(r): {twice}; return dict(ok=True, output={{'n': world[key]}}, handle=r['handle'])"
            ),
            "same-key-twice-is-one-effect",
        ),
        (
            "undoes twice",
            format!("def undo(r): {twice}; return dict(ok=True, handle=r['handle'])"),
            "undo-is-repeatable",
        ),
        (
            "cannot undo again",
            "def undo(r):\n    if r['call']['attempt'] > 1: return dict(ok=False, error='already')\n    \
             return effect(r, r['handle'])"
                .to_owned(),
            "undo-is-repeatable",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_plugin_that_drops_what_it_did_not_ask_for_is_caught() {
    if !has_python() {
        return;
    }
    // It reads a piece of its input, takes the last line and forgets the rest.
    let script = r#"
while True:
    piece = os.read(0, 65536)
    if not piece: break
    try: r = json.loads(piece.splitlines()[-1]); r["id"]
    except (ValueError, KeyError, TypeError): continue
    if r["op"] == "describe": describe(r, confirms=False, undoes=False, prepares=False, **{"class": "pure"})
    else: say(r, ok=False, error="no")
"#;
    let report = look(python(script)).await;
    assert_eq!(failed(&report), ["two-at-once-are-told-apart"], "{report}");
}
