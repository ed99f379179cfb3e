//! The folder of a search: it belongs to one grid, whose resolved form lies in it as `grid.toml`.

use std::path::Path;

use toml::Value;

use super::candidates::Plan;
use super::grid::{Method, Spec};
use super::{Results, SearchError};
use crate::fsio;
use crate::train::setting::{TomlFile, read_table};

/// The grid that a folder belongs to.
pub const GRID: &str = "grid.toml";

/// Makes a folder belong to a grid, or makes sure that it does. The path of the data may differ from machine to machine,
/// and a random search may be given more trials; nothing else may change.
///
/// # Errors
/// [`SearchError::OtherGrid`] names the first difference.
pub fn bind(dir: &Path, spec: &Spec) -> Result<(), SearchError> {
    fsio::create_writable_dir(dir)?;
    let path = dir.join(GRID);
    let grows = |old: &Spec| spec.search.method == Method::Random && old.search.trials < spec.search.trials;
    let write = match path.exists() {
        true => grows(&read(dir)?) && differs(&read(dir)?, spec)?.is_none(),
        false => true,
    };
    if write {
        fsio::write_atomic(&path, spec.to_toml()?.as_bytes())?;
    }
    // Read again: of several shards that start at once only one has written the file.
    match differs(&read(dir)?, spec)? {
        None => Ok(()),
        Some(difference) => Err(SearchError::OtherGrid { dir: dir.to_owned(), difference }),
    }
}

/// The grid of a folder.
///
/// # Errors
/// [`SearchError::NoSearch`], or a file that does not read.
pub fn read(dir: &Path) -> Result<Spec, SearchError> {
    let path = dir.join(GRID);
    if !path.is_file() {
        return Err(SearchError::NoSearch { dir: dir.to_owned() });
    }
    let file = TomlFile::read(&path)?;
    Ok(read_table(file.table.clone()).map_err(|e| file.error(&[], &e))?)
}

/// The first line in which two grids differ, as far as it matters.
fn differs(old: &Spec, new: &Spec) -> Result<Option<String>, SearchError> {
    let common = |spec: &Spec| {
        let mut spec = spec.clone();
        spec.base.insert("data".to_owned(), Value::from(""));
        if spec.search.method == Method::Random {
            spec.search.trials = None;
        }
        spec.to_toml()
    };
    let (old, new) = (common(old)?, common(new)?);
    if old == new {
        return Ok(None);
    }
    let pair = old.lines().zip(new.lines()).find(|(a, b)| a != b);
    Ok(Some(match pair {
        Some((a, b)) => format!("its grid.toml has {a}, now it is {b}"),
        None => "its grid.toml lists other settings".to_owned(),
    }))
}

/// Joins the journals of all shards: every trial of the plan once, sorted by id, in `trials.jsonl`.
///
/// # Errors
/// [`SearchError::Missing`] unless `partial`; a journal in use or a disk that fails.
pub fn join(dir: &Path, plan: &Plan, partial: bool) -> Result<Results, SearchError> {
    let found = Results::read(dir)?;
    let (mut missing, mut expected) = (0, 0);
    for trial in plan.stages(&found)?.iter().flat_map(|s| &s.trials) {
        expected += 1;
        missing += usize::from(found.get(&trial.id).is_none());
    }
    if missing > 0 && !partial {
        return Err(SearchError::Missing { dir: dir.to_owned(), missing, expected });
    }
    // A running search without shards writes the file that is to be written here; what it wrote until now counts.
    let _journal = super::Journal::open(dir, None)?;
    let results = Results::read(dir)?;
    let mut text = String::new();
    for record in results.iter() {
        let line =
            serde_json::to_string(record).map_err(|e| SearchError::Grid(format!("a trial cannot be written: {e}")))?;
        text.push_str(&line);
        text.push('\n');
    }
    fsio::write_atomic(&dir.join("trials.jsonl"), text.as_bytes())?;
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Spec::read(file.path(), &[]).unwrap()
    }

    #[test]
    fn a_folder_keeps_to_its_grid() {
        let dir = tempfile::tempdir().unwrap();
        let grid = spec("[grid]\nlr = [0.1, 0.2]\n");
        bind(dir.path(), &grid).unwrap();
        bind(dir.path(), &grid).unwrap();
        bind(dir.path(), &spec("[base]\ndata = 'moved'\n[grid]\nlr = [0.1, 0.2]\n")).unwrap();
        let error = bind(dir.path(), &spec("[grid]\nlr = [0.1, 0.3]\n")).unwrap_err().to_string();
        assert!(error.contains("lr = [0.1, 0.2]") && error.contains("lr = [0.1, 0.3]"), "{error}");
        assert_eq!(read(dir.path()).unwrap().grid, grid.grid);
    }

    #[test]
    fn a_random_search_may_grow() {
        let dir = tempfile::tempdir().unwrap();
        let random = |n: u32| spec(&format!("[grid]\nlr = [0.1]\n[search]\nmethod = 'random'\ntrials = {n}\n"));
        for (n, kept) in [(5, 5), (9, 9), (7, 9)] {
            bind(dir.path(), &random(n)).unwrap();
            assert_eq!(read(dir.path()).unwrap().search.trials, Some(kept));
        }
    }
}
