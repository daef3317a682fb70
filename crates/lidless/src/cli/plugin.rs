//! `lidless plugin`: does a program of one's own keep the step protocol?

use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::plugin::conformance;
use serde::Serialize;
use serde_json::Value;

use super::exit::{Exit, Failure};
use super::globals::Globals;

/// Looks at a plugin that is to do steps of pipelines.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  lidless plugin test ./ledger.py --kind book \\\n    \
    --settings '{\"file\": \"test.jsonl\", \"account\": \"cash\"}' --inputs '{\"amount\": \"12.50\"}'")]
pub struct PluginArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: PluginVerb,
}

/// What can be done with a plugin.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PluginVerb {
    /// Asks it everything, kills it at the worst moments, and says which promises of the step protocol it keeps
    #[command(after_help = "Examples:\n  lidless plugin test ./ledger.py --kind book \\\n    \
        --settings '{\"file\": \"test.jsonl\", \"account\": \"cash\"}' --inputs '{\"amount\": \"12.50\"}'\n  \
        lidless plugin test --kind pay -- ./pay --sandbox\n\n\
        It really acts, several times, with keys of its own: give it settings of a sandbox.\n\
        Exit code 0 when no promise is broken, 1 when one is.")]
    Test {
        /// The program and its arguments; behind `--` where these begin with a dash
        #[arg(value_name = "COMMAND", required = true)]
        command: Vec<String>,
        /// The kind of step, of those that it offers
        #[arg(long, value_name = "KIND")]
        kind: String,
        /// Settings of such a step that it can work with
        #[arg(long, value_name = "JSON", default_value = "{}")]
        settings: String,
        /// Inputs of a run that it can work with
        #[arg(long, value_name = "JSON", default_value = "{}")]
        inputs: String,
    },
}

/// What came of it, for scripts.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    report: &'a conformance::Report,
}

/// Does it.
pub fn run(args: &PluginArgs, globals: &Globals) -> Exit {
    let PluginVerb::Test { command, kind, settings, inputs } = &args.verb;
    let given = json("--settings", settings).and_then(|settings| Ok((settings, json("--inputs", inputs)?)));
    let (settings, inputs) = match given {
        Ok(given) => given,
        Err(failure) => return globals.report(&failure),
    };
    let command = CommandSpec { argv: command.clone(), ..CommandSpec::default() };
    let tested = async { Ok(conformance::run(command, kind, &settings, &inputs).await) };
    let report = match globals.wait_for(tested) {
        Ok(report) => report,
        Err(failure) => return globals.report(&failure),
    };
    if globals.json() {
        globals.document(&Document { schema: "lidless/plugin-test/1", report: &report });
    } else {
        globals.print(report.to_string().trim_end());
    }
    if report.is_passed() { Exit::Ok } else { Exit::Unhealthy }
}

fn json(flag: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|err| {
        Failure::new(Exit::Usage, format!("{flag} is no JSON: {err}"))
            .hint(format!("as {flag} '{{\"account\": \"cash\"}}'"))
    })
}
