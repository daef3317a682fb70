//! `lidless run`: has the daemon run a pipeline, and shows an arrow a step, or a cross and the reason.

mod dry;
mod follow;
mod local;
mod seen;

use std::time::Duration;

use serde_json::{Map, Value};

use super::daemon;
use super::exit::{Exit, Failure};
use super::globals::Globals;
use super::runs;
use crate::api::{RunAnswer, RunRequest};

pub(super) use follow::{Followed, follow};

/// Runs a pipeline now and waits until it is over.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless run vault\n  lidless run vault --input amount=5 --input dry=true\n  lidless run vault --no-wait\n  \
    lidless run vault --dry-run\n  lidless --config lidless.yaml run vault --local\n  lidless run vault --json | tail -n 1\n\n\
    Exit code 0 when every step is done, 1 when a step failed, 5 when you may not, 7 when nobody knows\n\
    whether a step took effect and a person must look, 75 when a run of it is under way already."
)]
pub struct RunArgs {
    /// Which one
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// What its steps are given; a value that is JSON is taken as JSON
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub inputs: Vec<String>,
    /// Begin at this step: those above it are not done
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// What it is for: the same key twice is one run
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Wait for its turn where a run of it is under way
    #[arg(long)]
    pub queue: bool,
    /// Do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for its end
    #[arg(long, value_name = "TIME", default_value = "1h", conflicts_with = "no_wait")]
    pub timeout: String,
    /// Say what each step would do now; nothing is done, and nothing recorded
    #[arg(long, conflicts_with_all = ["local", "no_wait", "key", "queue"])]
    pub dry_run: bool,
    /// Run it in this process, without a daemon: the store must be nobody else's
    #[arg(long, conflicts_with_all = ["no_wait", "connect"])]
    pub local: bool,
}

/// Runs it.
pub fn run(args: &RunArgs, globals: &Globals) -> Exit {
    if args.local {
        return local::run(args, globals);
    }
    globals.wait_for(begin(args, globals)).unwrap_or_else(|failure| globals.report(&failure))
}

async fn begin(args: &RunArgs, globals: &Globals) -> Result<Exit, Failure> {
    let timeout = timeout(&args.timeout)?;
    let inputs = inputs(&args.inputs)?;
    let client = daemon::find(globals)?;
    let request = RunRequest {
        pipeline: args.pipeline.clone(),
        inputs,
        from: args.from.clone(),
        key: args.key.clone(),
        wait: args.queue,
    };
    if args.dry_run {
        return dry::run(&client, globals, &request).await;
    }
    match client.post("/v1/run", &request).await? {
        RunAnswer::Refused { why, code } => Err(runs::refused(&client, why, &code).await),
        RunAnswer::Started { run, .. } if args.no_wait => {
            if globals.json() {
                globals.document(&serde_json::json!({ "schema": "lidless/run/1", "run": run }));
            } else {
                globals.print(&format!("{}: {run} began", args.pipeline));
                globals.say(&format!("{} lidless runs {run}", globals.style_err.bold("more:")));
            }
            Ok(Exit::Ok)
        }
        RunAnswer::Started { run, after } => {
            follow(
                &client,
                globals,
                Followed { pipeline: &args.pipeline, run: &run, after, timeout, local: false },
            )
            .await
        }
    }
}

fn timeout(text: &str) -> Result<Duration, Failure> {
    crate::config::units::duration(text).map_err(|why| {
        let failure = Failure::new(Exit::Usage, format!("--timeout {text}: {}", why.message));
        failure.hint("as --timeout 10m")
    })
}

/// Reads `name=value` pairs.
fn inputs(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut inputs = Map::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            let failure = Failure::new(Exit::Usage, format!("--input {pair} is not of the form NAME=VALUE"));
            return Err(failure.hint("as --input amount=5"));
        };
        let parsed = serde_json::from_str(value).ok();
        // What would be rounded stays as it was typed.
        let parsed = parsed.filter(|parsed| lidless_drivers::step::exact(parsed).is_ok());
        let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
        if inputs.insert(name.to_owned(), value).is_some() {
            return Err(Failure::new(Exit::Usage, format!("--input {name} is given twice")));
        }
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_json_is_taken_as_json() {
        let pairs =
            ["a=5", "b=true", "c=x=y", "d=", "e={\"f\":[1]}", "g=20000000000000000001"].map(str::to_owned);
        let read = inputs(&pairs).expect("all are pairs");
        assert_eq!(
            Value::Object(read).to_string(),
            r#"{"a":5,"b":true,"c":"x=y","d":"","e":{"f":[1]},"g":"20000000000000000001"}"#
        );
        for wrong in ["a", "=5"] {
            assert_eq!(inputs(&[wrong.to_owned()]).expect_err(wrong).exit, Exit::Usage);
        }
    }
}
