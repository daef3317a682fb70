//! Is a template read as it is written, and never filled with half of what it asks for?

use serde_json::json;

use std::sync::Arc;

use super::*;
use crate::step::Undoes;

fn call() -> Call {
    Call {
        run: "run-7".to_owned(),
        pipeline: "payout".to_owned(),
        step: "send".to_owned(),
        attempt: 2,
        idempotency_key: "k-7f".to_owned(),
        inputs: json!({ "amount": 5, "to": "a/b c?é", "big": "18446744073709551616", "none": null, "ok": true }),
        outputs: Arc::new(json!({ "QUOTE": { "prices": [{ "eur": 1.5 }] } })),
        handles: vec![json!("0xabc"), json!({ "nonce": 7 })],
        undoes: Some(Undoes {
            step: "book".to_owned(),
            idempotency_key: "k-1".to_owned(),
            output: json!({ "id": 9 }),
            handles: vec![json!("h")],
        }),
        allotted: None,
    }
}

fn filled(text: &str) -> String {
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(Misread { at, reason }) => return format!("{at}: {reason}"),
    };
    template.fill(&call(), Written::Plainly).unwrap_or_else(|reason| format!("error: {reason}"))
}

#[test]
fn values_stand_in_place_of_their_ways() {
    assert_eq!(filled("no braces, { one }, }} }"), "no braces, { one }, }} }");
    assert_eq!(filled(""), "");
    assert_eq!(filled("{{inputs.amount}}{{ inputs.ok }}-{{ inputs.big }}"), "5true-18446744073709551616");
    assert_eq!(filled("{{ outputs.QUOTE.prices.0.eur }} é"), "1.5 é");
    assert_eq!(filled("{{ key }} {{run}} {{pipeline}} {{ step }} {{ attempt }}"), "k-7f run-7 payout send 2");
    assert_eq!(filled("{{ handles.0 }} {{ handles.1.nonce }}"), "0xabc 7");
    assert_eq!(
        filled("{{ undoes.step }} {{ undoes.key }} {{ undoes.output.id }} {{ undoes.handles.0 }}"),
        "book k-1 9 h"
    );
    assert_eq!(filled(r#"{{ "{{" }} key {{ "}}\n" }}"#), "{{ key }}\n");
}

#[test]
fn a_value_that_is_not_there_is_an_error() {
    for way in [
        "inputs.none",
        "inputs.amuont",
        "outputs.QUOTE.prices.1",
        "handles.2",
        "handles.x",
        "undoes.output.x",
    ] {
        assert_eq!(filled(&format!("a {{{{ {way} }}}}")), format!("error: `{way}` has no value"));
    }
    let call = Call { undoes: None, ..call() };
    let template = Template::parse("{{ undoes.step }}").expect("it is well written");
    assert_eq!(template.fill(&call, Written::Plainly), Err("`undoes.step` has no value".to_owned()));
    assert_eq!(filled("{{ inputs }}"), "error: `inputs` is an object, and cannot stand in a text");
    assert_eq!(filled("{{ handles }}"), "error: `handles` is a list, and cannot stand in a text");
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    assert_eq!(filled("é {{ key"), "3: `{{` has no `}}`");
    assert_eq!(filled("{{ key }} {{ input.x }}").split(':').next(), Some("10"));
    assert!(filled("{{ keys }}").starts_with("0: `keys` is unknown: it is one of inputs, outputs, "));
    assert!(filled("{{ key.x }}").starts_with("0: `key.x` is unknown"));
    assert!(filled("{{ undoes }}").starts_with("0: `undoes` is unknown"));
    assert!(filled("{{ }}").starts_with("0: `` is unknown"));
    for way in ["inputs.", "inputs..x", "inputs.a b"] {
        assert_eq!(filled(&format!("{{{{ {way} }}}}")), format!("0: `{way}` has an empty part or a blank"));
    }
    assert_eq!(filled(r#"{{ "a }}"#), "0: the text in quotes has no end or a wrong escape");
    assert_eq!(filled(r#"{{ "a" b }}"#), "0: `}}` must follow the text");
}

#[test]
fn an_encoded_value_means_nothing_to_a_url() {
    let template = Template::parse("/to/{{ inputs.to }}?x=y").expect("it is well written");
    assert_eq!(template.fill(&call(), Written::Encoded).as_deref(), Ok("/to/a%2Fb%20c%3F%C3%A9?x=y"));
    assert_eq!(write("-._~Az09", Written::Encoded), "-._~Az09");
    assert_eq!(write("\r\n%&=+#", Written::Encoded), "%0D%0A%25%26%3D%2B%23");
}
