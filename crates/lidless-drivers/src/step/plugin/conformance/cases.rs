//! Does a plugin keep to the rules of the conversation?

use serde_json::{Value, json};

use super::super::description::problems;
use super::bench::Bench;
use super::{Checked, skip};

pub(super) async fn accepts_its_settings(bench: &Bench<'_>) -> Checked {
    let mut talk = bench.begin().await?;
    let mut body = talk.describe(Some((&bench.kind.name, bench.settings))).await?;
    super::bench::description(&body)?;
    let found: Vec<String> = problems(&mut body)?
        .into_iter()
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect();
    if !found.is_empty() {
        return Err(format!("it finds something wrong with them: {}", found.join("; ")).into());
    }
    Ok(talk.is_in_order().await?)
}

pub(super) async fn unknown_op_is_refused(bench: &Bench<'_>) -> Checked {
    let mut talk = bench.begin().await?;
    let id = talk.send_value(json!({ "op": "no_such_op", "kind": bench.kind.name })).await?;
    let body = talk.answer(id).await?;
    if body.get("ok") != Some(&Value::Bool(false)) {
        return Err("it answers, but not with `ok: false`".to_owned().into());
    }
    match body.get("error") {
        Some(Value::String(error)) if !error.trim().is_empty() => Ok(talk.is_in_order().await?),
        Some(_) | None => Err("its answer has no `error`".to_owned().into()),
    }
}

pub(super) async fn garbage_is_survived(bench: &Bench<'_>) -> Checked {
    let mut talk = bench.begin().await?;
    talk.is_in_order().await?;
    for garbage in ["", "not json", "[1, 2]", "7", "{}", "{\"id\": ", "\u{fffd}\u{0}", "null"] {
        talk.say(format!("{garbage}\n").as_bytes()).await?;
        talk.is_in_order().await.map_err(|reason| format!("after `{}`: {reason}", garbage.escape_debug()))?;
    }
    talk.say(b"\xff\xfe\n").await?;
    Ok(talk.is_in_order().await.map_err(|reason| format!("after bytes that are no text: {reason}"))?)
}

pub(super) async fn two_at_once_are_told_apart(bench: &Bench<'_>) -> Checked {
    let mut talk = bench.begin().await?;
    // In one write: a plugin that reads one line and drops the rest of its buffer shows here.
    let about = json!({ "op": "describe", "protocol": super::super::PROTOCOL });
    let last = talk.send_at_once(&[about.clone(), about]).await?;
    talk.answer(last).await?;
    talk.answer(last - 1).await?;
    Ok(talk.is_in_order().await?)
}

pub(super) async fn unknown_key_is_not_applied(bench: &Bench<'_>) -> Checked {
    if !bench.kind.confirms {
        return skip("it does not confirm");
    }
    let mut talk = bench.begin().await?;
    let call = bench.call();
    bench.took_effect(&mut talk, &call, 0).await?;
    // To look is not to do.
    bench.took_effect(&mut talk, &call, 0).await?;
    Ok(talk.is_in_order().await?)
}

pub(super) async fn ends_with_its_input(bench: &Bench<'_>) -> Checked {
    let mut talk = bench.begin().await?;
    talk.is_in_order().await?;
    Ok(talk.ends().await?)
}
