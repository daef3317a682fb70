//! How does a program compose a pipeline? Four steps, each an `async` function of its own.
//!
//! ```sh
//! cargo run --example compose              # all is well
//! cargo run --example compose COMPOUND     # this step fails
//! ```

use std::process::ExitCode;

use lidless::{Context, Pipeline, PipelineError, Seen, StepError};

/// Goes on only when what the others need answers.
async fn check_health(context: Context) -> Result<(), StepError> {
    well(&context, "the node is 40 blocks behind")
}

/// Returns how much it has shifted, in basis points.
async fn rebalance(context: Context) -> Result<u32, StepError> {
    well(&context, "no route below the highest slippage")?;
    Ok(420)
}

/// Returns how much it has compounded, in gwei.
async fn compound(context: Context) -> Result<u64, StepError> {
    well(&context, "nothing to compound")?;
    Ok(137_000_000)
}

/// Takes what the step before has compounded.
async fn harvest(context: Context) -> Result<u64, StepError> {
    well(&context, "gas is above max_fee")?;
    context.output("COMPOUND")
}

/// Fails in the step that was named as the argument.
fn well(context: &Context, reason: &str) -> Result<(), StepError> {
    if context.input::<String>("fail").is_ok_and(|step| step == context.step()) {
        return Err(reason.into());
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, PipelineError> {
    let report = Pipeline::new("vault")
        .step("HEALTH_CHECK", check_health)
        .step("REBALANCE", rebalance)
        .step("COMPOUND", compound)
        .step("HARVEST", harvest)
        .input("fail", std::env::args().nth(1).unwrap_or_default())
        .watch(|_, seen| {
            if let Seen::Began { .. } | Seen::Failed { .. } = seen {
                println!("{seen}");
            }
        })
        .run()
        .await?;
    println!("{report}");
    Ok(if report.success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
