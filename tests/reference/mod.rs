//! Reference cases: a folder of values from PyTorch and scikit-learn, and what compares the engine with them.

pub mod call;
pub mod case;
mod faults;
pub mod metrics;
pub mod ops;
pub mod optim;
pub mod schedules;
pub mod statistics;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use radiograd::cpu;
use radiograd::exec::Executor;
use serde_json::Value;

/// An executor that runs every case.
pub struct Target {
    /// How failures name it.
    pub name: &'static str,
    /// The executor.
    pub executor: Box<dyn Executor>,
    /// Whether it computes in `f64`.
    pub double: bool,
}

/// The readable references in `f64` and what runs where there is no GPU.
pub fn cpu_targets() -> Vec<Target> {
    vec![
        Target { name: "cpu f64", executor: Box::new(cpu::Executor::<f64>::reference()), double: true },
        Target { name: "cpu f32", executor: Box::new(cpu::Executor::<f32>::fast()), double: false },
    ]
}

/// What a folder held: the number of cases of each kind, the failures, and what was not run.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that were tried, by kind of case.
    pub cases: BTreeMap<String, usize>,
    /// One line each.
    pub failures: Vec<String>,
    /// One line each.
    pub notes: Vec<String>,
}

/// The entries that a folder may have.
const PARTS: [&str; 5] = ["ops", "optim", "schedules.json", "metrics.json", "statistics.json"];

/// Runs every case of a folder on every target.
pub fn run(folder: &Path, targets: &mut [Target]) -> Report {
    let mut report = Report::default();
    let entries = report.list(folder);
    for path in &entries {
        match path.file_name().and_then(|n| n.to_str()).unwrap_or_default() {
            "ops" => report.files(path, "ops", &mut |path| case::check(path, targets)),
            "optim" => report.files(path, "optim", &mut |path| optim::check(path, targets)),
            "schedules.json" => report.list_in_json(path, "schedules", schedules::check_case),
            "metrics.json" => report.list_in_json(path, "metrics", metrics::check_case),
            "statistics.json" => report.list_in_json(path, "statistics", statistics::check_case),
            // `tests/model_cases.rs` runs those.
            "models.json" | "README.md" => {}
            _ => report.failures.push(unknown(path)),
        }
    }
    for part in PARTS {
        if !entries.iter().any(|p| p.ends_with(part)) {
            report.notes.push(format!("{}: no {part}", folder.display()));
        }
    }
    if report.cases.is_empty() && !entries.iter().any(|p| p.ends_with("models.json")) {
        report.failures.push(format!("{}: no case was found", folder.display()));
    }
    report
}

fn unknown(path: &Path) -> String {
    format!("{}: no reference case that this version knows", path.display())
}

impl Report {
    /// The entries of a folder in order of their names.
    fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(folder).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
        let mut paths: Vec<PathBuf> = listed.unwrap_or_else(|e: std::io::Error| {
            self.failures.push(format!("{}: {e}", folder.display()));
            Vec::new()
        });
        paths.sort();
        paths
    }

    /// Checks every safetensors file below a folder; any other file is not known.
    fn files(&mut self, folder: &Path, kind: &str, check: &mut dyn FnMut(&Path) -> Vec<String>) {
        for path in self.list(folder) {
            if path.is_dir() && !path.is_symlink() {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                self.files(&path, &format!("{kind}/{name}"), check);
            } else if path.extension().is_some_and(|e| e == "safetensors") {
                *self.cases.entry(kind.to_owned()).or_default() += 1;
                // One panic must not hide what the other cases find.
                let failures = catch_unwind(AssertUnwindSafe(|| check(&path)))
                    .unwrap_or_else(|_| vec![format!("{}: panicked, see above", path.display())]);
                self.failures.extend(failures);
            } else {
                self.failures.push(unknown(&path));
            }
        }
    }

    /// Checks every entry of the list in a JSON file.
    fn list_in_json(&mut self, path: &Path, kind: &str, check: fn(&Value) -> Result<(), String>) {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
        let entries = text.and_then(|t| serde_json::from_str::<Vec<Value>>(&t).map_err(|e| e.to_string()));
        match entries {
            Err(e) => self.failures.push(format!("{}: {e}", path.display())),
            Ok(entries) if entries.is_empty() => self.failures.push(format!("{}: an empty list", path.display())),
            Ok(entries) => {
                self.cases.insert(kind.to_owned(), entries.len());
                for (i, entry) in entries.iter().enumerate() {
                    if let Err(e) = check(entry) {
                        self.failures.push(format!("{}: entry {i}: {e}", path.display()));
                    }
                }
            }
        }
    }
}
