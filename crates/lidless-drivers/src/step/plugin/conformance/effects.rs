//! Does a plugin have one effect where one is due, whatever happens in between?

use lidless_core::pipeline::plan::Class;
use serde_json::Value;

use super::super::wire::Op;
use super::bench::{Bench, done};
use super::{Checked, Short, skip};
use crate::step::{Answer, Call};

const NO_PREPARE: &str = "it does not prepare";
const CANNOT_TELL: &str = "it neither confirms nor counts, so that nobody can tell";

/// Starts, and prepares a new call; both must be possible.
async fn prepared(bench: &Bench<'_>) -> Result<(super::talk::Talk, Call, Value), Short> {
    if !bench.kind.prepares {
        return Err(Short::Skip(NO_PREPARE.to_owned()));
    }
    let mut talk = bench.begin().await?;
    let call = bench.call();
    match bench.prepare(&mut talk, &call).await? {
        Some(Some(handle)) => Ok((talk, call, handle)),
        Some(None) => Err(Short::Skip("it prepares without a handle".to_owned())),
        None => Err("it says that it is done before it was ever told to perform".to_owned().into()),
    }
}

pub(super) async fn prepare_has_no_effect(bench: &Bench<'_>) -> Checked {
    let (mut talk, mut call, handle) = prepared(bench).await?;
    if !bench.kind.confirms && !bench.kind.counts {
        return skip(CANNOT_TELL);
    }
    bench.took_effect(&mut talk, &call, 0).await?;
    call.handles.push(handle);
    bench.took_effect(&mut talk, &call, 0).await?;
    Ok(talk.is_in_order().await?)
}

pub(super) async fn prepared_handle_is_used(bench: &Bench<'_>) -> Checked {
    let (mut talk, mut call, handle) = prepared(bench).await?;
    let what = done(bench.perform(&mut talk, &call, Some(&handle)).await?)?;
    if let Some(used) = what.handle.filter(|used| *used != handle) {
        return Err(format!("it prepared {handle} and performed {used}").into());
    }
    call.handles.push(handle);
    bench.took_effect(&mut talk, &call, 1).await?;
    Ok(talk.is_in_order().await?)
}

pub(super) async fn killed_before_perform(bench: &Bench<'_>) -> Checked {
    let (talk, mut call, handle) = prepared(bench).await?;
    talk.kill().await;
    let mut talk = bench.begin().await?;
    call.handles.push(handle.clone());
    bench.took_effect(&mut talk, &call, 0).await?;
    call.attempt = 2;
    call.handles.clear();
    let what = done(bench.perform(&mut talk, &call, Some(&handle)).await?)?;
    if let Some(used) = what.handle.filter(|used| *used != handle) {
        return Err(format!("it prepared {handle} and performed {used} after it was killed").into());
    }
    call.handles.push(handle);
    bench.took_effect(&mut talk, &call, 1).await?;
    Ok(talk.is_in_order().await?)
}

pub(super) async fn performed_key_is_applied(bench: &Bench<'_>) -> Checked {
    if !bench.kind.confirms {
        return skip("it does not confirm");
    }
    let mut talk = bench.begin().await?;
    let mut call = bench.call();
    let what = done(bench.does(&mut talk, &call).await?)?;
    call.handles.extend(what.handle);
    bench.took_effect(&mut talk, &call, 1).await?;
    Ok(talk.is_in_order().await?)
}

pub(super) async fn killed_after_perform(bench: &Bench<'_>) -> Checked {
    if bench.kind.class == Class::Pure {
        return skip("it has no effect");
    }
    if !bench.kind.confirms && !bench.kind.counts {
        return skip(CANNOT_TELL);
    }
    let mut talk = bench.begin().await?;
    let mut call = bench.call();
    let what = done(bench.does(&mut talk, &call).await?)?;
    talk.kill().await;
    let mut talk = bench.begin().await?;
    call.handles.extend(what.handle);
    bench.took_effect(&mut talk, &call, 1).await?;
    Ok(talk.is_in_order().await?)
}

pub(super) async fn same_key_twice_is_one_effect(bench: &Bench<'_>) -> Checked {
    // A refusal to do it again has no second effect either; but who says that it may be repeated must take it.
    let may_refuse = match bench.kind.class {
        Class::Pure => return skip("it has no effect"),
        Class::OneShot => return skip("it is never done twice"),
        Class::Idempotent => false,
        Class::Confirmable => true,
    };
    let mut talk = bench.begin().await?;
    let mut call = bench.call();
    let first = done(bench.does(&mut talk, &call).await?)?;
    call.attempt = 2;
    call.handles.extend(first.handle.clone());
    let second = again(bench, &mut talk, &call, &first.output).await?;
    bench.took_effect(&mut talk, &call, 1).await?;
    if let Err(error) = second
        && !may_refuse
    {
        return Err(format!("the second time {error}").into());
    }
    Ok(talk.is_in_order().await?)
}

pub(super) async fn undo_is_repeatable(bench: &Bench<'_>) -> Checked {
    if !bench.kind.undoes {
        return skip("it does not undo");
    }
    if bench.kind.class == Class::OneShot {
        return skip("it is never done twice");
    }
    let mut talk = bench.begin().await?;
    let call = bench.call();
    let what = done(bench.does(&mut talk, &call).await?)?;
    let mut undo = bench.undo_of(&call, &what);
    let first = done(bench.does(&mut talk, &undo).await?).map_err(|error| format!("to undo {error}"))?;
    bench.took_effect(&mut talk, &undo, 1).await?;
    undo.attempt = 2;
    undo.handles.extend(first.handle);
    again(bench, &mut talk, &undo, &first.output).await?.map_err(|error| format!("to undo again {error}"))?;
    bench.took_effect(&mut talk, &undo, 1).await?;
    Ok(talk.is_in_order().await?)
}

/// Does it a second time. Inside, an `Err` says that it did not want to; outside, that it did it another time.
async fn again(
    bench: &Bench<'_>,
    talk: &mut super::talk::Talk,
    call: &Call,
    output: &Value,
) -> Result<Result<(), String>, String> {
    let mut handle = None;
    if bench.kind.prepares {
        let body = talk.ask(bench.request(Op::Prepare, call, None)).await?;
        match super::super::step::prepared(body) {
            super::super::step::Prepared::Ready(prepared) => handle = prepared,
            super::super::step::Prepared::Over(answer) => return same(answer, output),
        }
    }
    same(bench.perform(talk, call, handle.as_ref()).await?, output)
}

fn same(answer: Answer, output: &Value) -> Result<Result<(), String>, String> {
    match done(answer) {
        Ok(what) if what.output == *output => Ok(Ok(())),
        Ok(what) => Err(format!(
            "with one key it gave {output} first and then {}: one effect has one output",
            what.output
        )),
        Err(error) => Ok(Err(error)),
    }
}
