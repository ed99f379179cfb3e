//! Weights to begin with: which file is meant, and how its tensors come into a network.

use std::path::{Path, PathBuf};

use super::TrainError;
use super::checkpoint::{BEST, put_pairs};
use super::config::TrainConfig;
use crate::data::CachePolicy;
use crate::nn::Model;
use crate::store::ParamStore;
use crate::weights::adopt::{self, Adopted};
use crate::weights::published::{self, Published};
use crate::weights::{self, How};

/// Names that a note lists, at most.
const LISTED: usize = 4;

/// The file that a person means: the published weights of that name, the best weights of a run folder, or the file itself. A file or folder that
/// is called like a network goes by `./NAME`.
///
/// # Errors
/// [`TrainError::NoWeights`] says what to do; [`TrainError::NoRun`].
pub fn find(text: &str) -> Result<PathBuf, TrainError> {
    let missing = |problem: String| TrainError::NoWeights { name: text.to_owned(), problem };
    if let Some(known) = Published::find(text) {
        let cache = CachePolicy::User.folder();
        let path = cache.map(|cache| known.path(&cache)).filter(|path| path.is_file());
        let fetch = || {
            missing(format!(
                "its published weights are not here; fetch them with `radiograd weights get {}`",
                known.network
            ))
        };
        return path.ok_or_else(fetch);
    }
    let path = Path::new(text);
    if path.is_dir() {
        let best = path.join(BEST);
        return if best.is_file() { Ok(best) } else { Err(TrainError::NoRun { path: path.to_owned(), missing: BEST }) };
    }
    if path.exists() {
        return Ok(path.to_owned());
    }
    Err(missing(format!(
        "no such file; give a .safetensors or .pth file, a run folder, or one of {}",
        published::names()
    )))
}

/// Puts the weights that `config.init` names, if any, into a store that `model` has just filled with first values. Gives what a person should
/// know, a line each.
///
/// # Errors
/// There is no such file, or it does not fit: all but the last layer must.
pub fn put(config: &TrainConfig, model: &Model, store: &mut ParamStore) -> Result<Vec<String>, TrainError> {
    let Some(init) = &config.init else { return Ok(Vec::new()) };
    let path = find(init)?;
    let wrong = |e: adopt::AdoptError| TrainError::Adopt { path: path.clone(), source: Box::new(e) };
    let wanted: Vec<(String, Vec<usize>)> =
        store.params().iter().map(|p| (p.name.clone(), p.view.spec.shape.to_vec())).collect();
    let file = adopt::prepare(weights::load(&path)?, &wanted, &config.renames()?, config.grey).map_err(wrong)?;
    let (adopted, file) = adopt::adopt(&wanted, &head(model), file).map_err(|e| wrong(e.into()))?;
    put_pairs(&adopted.matching.pairs, &file, store);
    Ok(notes(&path, &adopted))
}

/// The parameters of the last layer that has any.
fn head(model: &Model) -> Vec<String> {
    let last = model.steps().iter().rev().find(|s| !s.params.is_empty());
    let params = last.and_then(|s| model.params().get(s.params.clone())).unwrap_or_default();
    params.iter().map(|p| p.name.clone()).collect()
}

fn notes(path: &Path, adopted: &Adopted) -> Vec<String> {
    let m = &adopted.matching;
    let how = match m.how {
        How::ByName => "by name",
        How::ByOrder => "by order and shape",
    };
    let mut notes = vec![format!("init: {} tensors of {} matched {how}", m.pairs.len(), path.display())];
    notes.extend(adopted.fresh.as_ref().map(|head| format!("init: {head}")));
    if !m.unexpected.is_empty() {
        let names: Vec<&str> = m.unexpected.iter().take(LISTED).map(String::as_str).collect();
        let more = m.unexpected.len() - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        notes.push(format!("init: without a place in the network: {}{more}", names.join(", ")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_run_folders_and_names_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let file = dir.path().join("net.pth");
        std::fs::write(&file, b"x").unwrap();
        assert_eq!(find(&text(&file)).unwrap(), file);
        assert!(matches!(find(&text(dir.path())), Err(TrainError::NoRun { missing: BEST, .. })));
        std::fs::write(dir.path().join(BEST), b"x").unwrap();
        assert_eq!(find(&text(dir.path())).unwrap(), dir.path().join(BEST));
        let error = find("resnet35").unwrap_err().to_string();
        assert!(error.contains("resnet35") && error.contains("resnet34"), "{error}");
    }

    #[test]
    fn the_head_is_the_last_layer() {
        for (model, want) in
            [("resnet18", "fc.weight fc.bias"), ("conv4-bn-relu-gap-flatten-dense2", "dense1.weight dense1.bias")]
        {
            assert_eq!(head(&Model::new(model, [1, 64, 64], 2).unwrap()).join(" "), want);
        }
    }
}
