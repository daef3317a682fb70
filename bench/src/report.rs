//! How do results reach people and scripts? A table on standard output, and a JSON file in bench/results.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Problem;

/// Lines up columns: the first to the left, the others to the right.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins with the names of the columns.
    pub fn new(columns: &[&str]) -> Self {
        Table { rows: vec![columns.iter().map(|c| (*c).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints all of it.
    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        println!();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                line += &if column == 0 { format!("{cell:<width$}") } else { format!("   {cell:>width$}") };
            }
            println!("{}", line.trim_end());
        }
        println!();
    }
}

/// The machine that a figure belongs to, and how busy it was with other things.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    cores: usize,
    kernel: String,
    cpu: String,
    load_1min_at_start: f64,
}

impl Machine {
    /// Looks, and warns where others keep the machine busy.
    pub fn look() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let load =
            read("/proc/loadavg").split_whitespace().next().and_then(|f| f.parse().ok()).unwrap_or(0.0);
        if load > 0.5 {
            eprintln!("note: the load is {load:.1} before the bench has begun: its figures are upper bounds");
        }
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("");
        Machine {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.trim_start_matches([' ', '\t', ':']).to_owned(),
            load_1min_at_start: load,
        }
    }
}

/// Writes `bench/results/NAME.json` and says so.
pub fn write(name: &str, result: &impl Serialize) -> Result<(), Problem> {
    let dir = workspace().join("bench/results");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{name}.json"));
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    std::fs::write(&path, text).map_err(|err| format!("cannot write {}: {err}", path.display()))?;
    println!("wrote bench/results/{name}.json");
    Ok(())
}

/// The root of the checkout in which this was built.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}
