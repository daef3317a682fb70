//! How many seeds hold? `lidless-sim --seeds 20000 [--from N]` rehearses them all; `--seed N --trace` shows one; `--matrix` cuts
//! one run at every point.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lidless_sim::matrix::{Extent, Mutation, matrix};
use lidless_sim::{Findings, Options, rehearse};

struct Arguments {
    from: u64,
    seeds: u64,
    only: Option<u64>,
    matrix: Option<Extent>,
    options: Options,
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    sums: Findings,
    hash: u64,
    broken: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!(
                "{what}\nusage: lidless-sim [--seeds N] [--from N] [--seed N [--trace]] [--matrix | --quick-matrix]\n       mutations that must be caught: --mutate-effects-first [--consequences-only], --mutate-repeatable-value, --mutate-late-effects"
            );
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    if let Some(extent) = arguments.matrix {
        return play_matrix(extent, began);
    }
    let totals = match arguments.only {
        Some(seed) => {
            let mut totals = Totals::default();
            totals.add(seed, guarded(seed, arguments.options));
            totals
        }
        None => all(&arguments, began),
    };
    totals.print(began.elapsed());
    if totals.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        from: 1,
        seeds: 1_000,
        only: None,
        matrix: None,
        options: Options { hash: true, ..Options::default() },
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("`{word}` needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("`{text}` is not a number"))
        };
        match word.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--from" => arguments.from = number()?,
            "--seed" => arguments.only = Some(number()?),
            "--matrix" => arguments.matrix = Some(Extent::Full),
            "--quick-matrix" => arguments.matrix = Some(Extent::Quick),
            "--trace" => arguments.options.trace = true,
            "--mutate-effects-first" => arguments.options.effects_first = true,
            "--consequences-only" => arguments.options.consequences_only = true,
            "--mutate-late-effects" => arguments.options.late_effects = true,
            "--mutate-repeatable-value" => arguments.options.repeatable_value = true,
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    Ok(arguments)
}

/// Cuts one run at every point, in every way.
fn play_matrix(extent: Extent, began: Instant) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let found =
        matrix(extent, Mutation::None, &|line| eprintln!("{:>4} s: {line}", began.elapsed().as_secs()));
    println!("{} cases in {:.1} s", found.cases, began.elapsed().as_secs_f64());
    println!("  turns         {:>12}", found.turns);
    println!("  effects       {:>12}", found.effects);
    println!("  with a person {:>12}", found.held);
    for (end, count) in &found.ends {
        println!("  {end:<13} {count:>12}");
    }
    println!("  broken        {:>12}", found.broken.len());
    for what in &found.broken {
        println!("{}", what.chars().take(600).collect::<String>());
    }
    if found.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A panic of the engine is a broken invariant like any other.
fn guarded(seed: u64, options: Options) -> Findings {
    catch_unwind(AssertUnwindSafe(|| rehearse(seed, options))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let broken = Some(format!("panicked: {}", text.unwrap_or_default()));
        Findings { broken, ..Findings::default() }
    })
}

fn all(arguments: &Arguments, began: Instant) -> Totals {
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let totals = Mutex::new(Totals::default());
    let shown = AtomicU64::new(0);
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let found = guarded(seed, arguments.options);
        let Ok(mut totals) = totals.lock() else { return };
        totals.add(seed, found);
        let second = began.elapsed().as_secs();
        if shown.swap(second, Ordering::Relaxed) != second {
            eprintln!(
                "{:>4} s: {} of {} seeds, {} broken",
                second,
                totals.seeds,
                arguments.seeds,
                totals.broken.len()
            );
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    totals.into_inner().unwrap_or_default()
}

impl Totals {
    fn add(&mut self, seed: u64, found: Findings) {
        self.seeds += 1;
        self.sums.turns += found.turns;
        self.sums.crashes += found.crashes;
        self.sums.effects += found.effects;
        self.sums.records += found.records;
        self.sums.heals += found.heals;
        self.sums.landed += found.landed;
        self.sums.elapsed += found.elapsed;
        // Order of seeds differs from run to run, so their hashes are added.
        self.hash = self.hash.wrapping_add(found.hash.wrapping_mul(seed | 1));
        self.broken.extend(found.broken.map(|what| (seed, what)));
    }

    fn print(&self, took: Duration) {
        let sums = &self.sums;
        println!("{} seeds in {:.1} s", self.seeds, took.as_secs_f64());
        println!("  turns         {:>12}", sums.turns);
        println!("  crashes       {:>12}", sums.crashes);
        println!("  effects       {:>12}", sums.effects);
        println!("  records       {:>12}", sums.records);
        println!("  heals         {:>12}", sums.heals);
        println!("  transactions  {:>12}", sums.landed);
        println!("  virtual days  {:>12.1}", sums.elapsed.as_secs_f64() / 86_400.0);
        println!("  journal hash  {:016x}", self.hash);
        println!("  broken        {:>12}", self.broken.len());
        let mut broken = self.broken.clone();
        broken.sort();
        for (seed, what) in broken.iter().take(20) {
            let short: String = what.chars().take(600).collect();
            println!("seed {seed}: {short}");
            println!("  replay: cargo run --release -p lidless-sim -- --seed {seed} --trace");
        }
    }
}
