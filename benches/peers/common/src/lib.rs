//! What the Rust peers share: the command line, the list of workloads, the clock and the report.

mod time;
mod workload;

pub use time::{Budget, Clock, Times};
pub use workload::{Conv, Work, conv_layer, read};

/// The rate of Adam, the same as in `radiograd bench step`.
pub const RATE: f64 = 1e-4;
/// Batches that the steps take in turn.
pub const BATCHES: usize = 4;

/// The command line.
pub struct Options {
    pub device: String,
    pub work: String,
    pub only: Option<String>,
    pub budget: Budget,
}

impl Options {
    /// Reads the arguments; `device` is the default.
    ///
    /// # Errors
    /// An unknown option, or a value that is missing or no number.
    pub fn read(device: &str) -> Result<Self, String> {
        let mut o = Self { device: device.into(), work: "workloads.txt".into(), only: None, budget: Budget::default() };
        let mut args = std::env::args().skip(1);
        while let Some(key) = args.next() {
            if !["--device", "--work", "--only", "--runs", "--seconds"].contains(&key.as_str()) {
                return Err(format!("{key}: unknown; give --device, --work, --only, --runs or --seconds"));
            }
            let value = args.next().ok_or(format!("{key} needs a value"))?;
            let bad = format!("{key} {value}: not a number");
            match key.as_str() {
                "--device" => o.device = value,
                "--work" => o.work = value,
                "--only" => o.only = Some(value),
                "--runs" => o.budget.runs = value.parse().map_err(|_| bad)?,
                _ => o.budget.seconds = value.parse().map_err(|_| bad)?,
            }
        }
        Ok(o)
    }

    /// The workloads that were asked for, in the file's order.
    ///
    /// # Errors
    /// A file that cannot be read, or no such name in it.
    pub fn workloads(&self) -> Result<Vec<(String, Work)>, String> {
        let mut all = read(&self.work)?;
        if let Some(only) = &self.only {
            all.retain(|(name, _)| name == only);
            if all.is_empty() {
                return Err(format!("--only {only}: no such workload in {}", self.work));
            }
        }
        Ok(all)
    }
}

/// Random labels that do not repeat with the batch: 0 or 1.
#[must_use]
pub fn labels(batch: usize, number: usize) -> Vec<i64> {
    (0..batch).map(|j| ((number + j * 7) % 5 % 2) as i64).collect()
}
