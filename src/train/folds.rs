//! Patient-wise cross-validation, repeated over seeds: one run folder a fold.

use std::path::Path;

use super::TrainError;
use super::checkpoint::{self, BEST};
use super::config::TrainConfig;
use super::fit::Event;
use super::run::{Place, RESULT, environment, settings, train, write_plots};
use crate::data::{Dataset, Fold};
use crate::exec::Executor;
use crate::fsio;
use crate::report::data::{DataInfo, Pictures, RunSummary};
use crate::report::{FoldRow, FoldStudy, FoldSummary, folds_report};
use crate::stats::{Score, corrected_interval, mean_std};

/// The file with the figures of a study.
pub const STUDY: &str = "folds.json";

/// What is to be trained.
#[derive(Clone, Copy, Debug)]
pub struct Folds<'a> {
    /// The settings of every training; its seed is the first one.
    pub config: &'a TrainConfig,
    /// Folds.
    pub folds: u32,
    /// Seeds, each with a partition of its own.
    pub seeds: u32,
    /// The folder of the study.
    pub out: &'a Path,
    /// The device and why it was taken, for the report.
    pub device: &'a str,
    /// Write TensorBoard's event files into each training's folder.
    pub tensorboard: bool,
}

/// What happens while a study runs.
#[derive(Clone, Copy, Debug)]
pub enum FoldEvent<'a> {
    /// A training begins, or goes on where it was broken off.
    Begin {
        /// Its seed.
        seed: u32,
        /// Its fold, from 0.
        fold: u32,
    },
    /// A training that was finished before is not repeated.
    Kept {
        /// Its seed.
        seed: u32,
        /// Its fold, from 0.
        fold: u32,
    },
    /// Something from inside a training.
    Training(Event<'a>),
}

/// Trains every fold of every seed that the folder does not hold yet, and writes `folds.json`, `report.html` and plots.
/// `load` reads the images of a training.
///
/// # Errors
/// See [`TrainError`]; a folder that holds runs of other settings.
pub fn folds(
    plan: &Folds<'_>,
    mut executor: Box<dyn Executor>,
    load: &mut dyn FnMut(&TrainConfig) -> Result<Dataset, TrainError>,
    events: &mut dyn FnMut(FoldEvent<'_>),
) -> Result<FoldStudy, TrainError> {
    let mut rows = Vec::new();
    let mut shown: Option<RunSummary> = None;
    for k in 0..plan.seeds.max(1) {
        let seed = plan.config.seed.wrapping_add(k);
        for index in 0..plan.folds {
            let fold = Some(Fold { index, of: plan.folds });
            let config = TrainConfig { seed, fold, ..plan.config.clone() };
            config.validate()?;
            let folder = plan.out.join(format!("seed{seed}-fold{}", index + 1));
            let summary = if let Some(summary) = finished(&folder, &config)? {
                events(FoldEvent::Kept { seed, fold: index });
                summary
            } else {
                events(FoldEvent::Begin { seed, fold: index });
                let place = place(&folder, plan)?;
                let data = load(&config)?;
                let mut tell = |e: Event<'_>| events(FoldEvent::Training(e));
                let trained = train(&config, data, executor, &place, None, &mut tell)?;
                executor = trained.executor;
                trained.summary
            };
            let row = FoldRow::new(seed, index, &summary);
            rows.push(row.ok_or_else(|| TrainError::setting("fold", format!("{} measured none", folder.display())))?);
            shown.get_or_insert(summary);
        }
    }
    let study = FoldStudy {
        model: plan.config.model.clone(),
        data: shown.as_ref().map_or_else(|| plan.config.data.clone(), |s| s.data.source.clone()),
        synthetic: shown.as_ref().is_some_and(|s| s.data.synthetic),
        folds: plan.folds,
        seeds: plan.seeds.max(1),
        summary: summarise(&rows),
        rows,
        config: settings(plan.config)?.into_iter().filter(|(name, _)| name != "fold" && name != "seed").collect(),
        environment: environment(plan.device),
        about: shown.map(|s| DataInfo { pictures: Pictures::default(), ..s.data }),
    };
    let report = folds_report(&study);
    report.write(&plan.out.join("report.html"))?;
    let json = serde_json::to_vec_pretty(&study).map_err(|e| TrainError::setting("study", e.to_string()))?;
    fsio::write_atomic(&plan.out.join(STUDY), &json)?;
    write_plots(plan.out, &report)?;
    Ok(study)
}

/// The result of a training that the folder holds, if it is finished.
fn finished(folder: &Path, config: &TrainConfig) -> Result<Option<RunSummary>, TrainError> {
    let (result, saved) = (folder.join(RESULT), folder.join("config.toml"));
    if !result.is_file() || !saved.is_file() {
        return Ok(None);
    }
    let other = |problem: String| {
        let problem = format!("{} holds another training: {problem}; name another folder with --out", folder.display());
        TrainError::setting("out", problem)
    };
    let saved = TrainConfig::read(&saved)?;
    // What the images decided is not in the settings asked for.
    let wanted = TrainConfig {
        mean: config.mean.clone().or_else(|| saved.mean.clone()),
        std: config.std.clone().or_else(|| saved.std.clone()),
        ..config.clone()
    };
    if let Err(TrainError::Setting { problem, .. }) = saved.allows(&wanted) {
        return Err(other(problem));
    }
    if (saved.epochs, saved.patience, &saved.data) != (wanted.epochs, wanted.patience, &wanted.data) {
        return Err(other("its epochs, patience or data are not those asked for".to_owned()));
    }
    let bytes = fsio::read(&result)?;
    let summary: RunSummary = serde_json::from_slice(&bytes).map_err(|e| TrainError::Checkpoint {
        path: result,
        problem: format!("does not read: {e}; remove the folder"),
    })?;
    Ok(Some(summary))
}

/// Where a training goes: on with the checkpoint that is there, or from the start.
fn place<'a>(folder: &'a Path, plan: &Folds<'_>) -> Result<Place<'a>, TrainError> {
    let any = checkpoint::any(folder);
    let resume = any || folder.join("config.toml").is_file();
    let best = folder.join(BEST);
    if !any && best.is_file() {
        // An older version broke off between the two files of the first epoch: there is nothing to go on with.
        std::fs::remove_file(&best).map_err(|e| fsio::FsError::new("remove", &best, e))?;
    }
    Ok(Place { folder, resume, device: plan.device.to_owned(), profile: false, tensorboard: plan.tensorboard })
}

/// Each score over all trainings, where all have it.
fn summarise(rows: &[FoldRow]) -> Vec<FoldSummary> {
    let Some(first) = rows.first() else { return Vec::new() };
    let mean = |f: fn(&FoldRow) -> u64| rows.iter().map(|r| f(r) as f64).sum::<f64>() / rows.len() as f64;
    let (held_out, fitted) = (mean(|r| r.held_out), mean(|r| r.fitted));
    let of = |score: Score| {
        let values: Vec<f64> = rows.iter().map(|r| r.score(score)?.value).collect::<Option<_>>()?;
        let interval = corrected_interval(&values, held_out, fitted);
        Some(FoldSummary { score, over_all: mean_std(&values)?, interval })
    };
    first.scores.iter().filter_map(|e| of(e.score)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Estimate;

    #[test]
    fn the_summary_is_of_what_every_fold_has() {
        let row = |fold: u32, accuracy: f64, auc: Option<f64>| FoldRow {
            seed: 0,
            fold,
            folder: String::new(),
            fitted: 300,
            chosen_on: 50,
            held_out: 100,
            best_epoch: 1,
            seconds: 1.0,
            scores: [(Score::Accuracy, Some(accuracy)), (Score::RocAuc, auc)]
                .map(|(score, value)| Estimate { score, value, images: None, patients: None })
                .to_vec(),
        };
        let rows = [row(0, 0.8, Some(0.9)), row(1, 0.9, None), row(2, 0.85, Some(0.95))];
        let s = summarise(&rows);
        assert_eq!(s.len(), 1);
        assert_eq!(s[0].interval, corrected_interval(&[0.8, 0.9, 0.85], 1.0, 3.0));
        assert!((s[0].over_all.mean - 0.85).abs() < 1e-12);
        assert!(summarise(&[]).is_empty());
    }
}
