//! How does a pipeline survive its own program? It is killed in the middle, and the next one finds out what became of the step.
//!
//! ```sh
//! cargo run --example durable /tmp/vault after     # kill -9 between the payment and its record
//! cargo run --example durable /tmp/vault           # finishes that run, then does one of its own
//! ```

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use lidless::{Class, Context, Found, Pipeline, Step, StepError, opts};
use rustix::process::{Signal, getpid, kill_process};

/// Pays once per key, and can be asked whether it did.
struct Pay {
    ledger: PathBuf,
    /// "before" or "after" the payment; otherwise it lives.
    die: String,
}

impl Step for Pay {
    type Output = u64;

    fn class(&self) -> Class {
        Class::Confirmable
    }

    async fn perform(&self, context: Context) -> Result<u64, StepError> {
        self.die_if("before");
        let mut ledger = std::fs::File::options().create(true).append(true).open(&self.ledger)?;
        writeln!(ledger, "{} {}", context.run(), context.idempotency_key())?;
        self.die_if("after");
        Ok(5)
    }

    async fn confirm(&self, context: Context) -> Result<Found, StepError> {
        let ledger = std::fs::read_to_string(&self.ledger).unwrap_or_default();
        Ok(if ledger.contains(context.idempotency_key()) {
            Found::applied(5, "the key is in the ledger")
        } else {
            Found::not_applied("the key is not in the ledger")
        })
    }
}

impl Pay {
    fn die_if(&self, when: &str) {
        if self.die == when {
            kill_process(getpid(), Signal::KILL).expect("nobody is forbidden to kill itself");
        }
    }
}

async fn quote(_: Context) -> Result<u64, StepError> {
    Ok(5)
}

async fn tell(context: Context) -> Result<String, StepError> {
    Ok(format!("{} was paid", context.output::<u64>("PAY")?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("usage: durable FOLDER [before|after]")?);
    let pay = Pay { ledger: folder.join("ledger"), die: args.next().unwrap_or_default() };
    let report = Pipeline::new("payments")
        .step("QUOTE", quote)
        .step_with("PAY", opts().value().backoff(Duration::ZERO, Duration::ZERO), pay)
        .step("TELL", tell)
        .store(folder.join("payments.db"))
        .watch(|run, seen| println!("{run} {seen}"))
        .run()
        .await?;
    println!("{report}");
    Ok(())
}
