//! The end of a search: the summary, `results.csv`, `report.html`, and the best trial trained again into a run folder.

use std::fs;
use std::path::Path;

use super::candidates::{Plan, word};
use super::effects::{effects, labels};
use super::grid::{Method, Values};
use super::ranking::{self, Standing};
use super::{Outcome, Results, SearchError};
use crate::data::Dataset;
use crate::exec::Executor;
use crate::fsio;
use crate::report::data::{NetworkResult, RunSummary};
use crate::report::search::{Figure, FinalFigures, Rung, SearchAxis, SearchRow, SearchSummary, search_report};
use crate::stats::MeanStd;
use crate::train::fit::Event;
use crate::train::run::{self, Place, RESULT, environment, settings};
use crate::train::{TrainConfig, TrainError};

/// The folder of the best trial.
pub const BEST: &str = "best";

/// Everything that tables and pages show. `device` is the line that names it; `best` what [`refit`] gave.
///
/// # Errors
/// [`SearchError::AllFailed`] where trials ended and none has figures.
pub fn summary(
    dir: &Path,
    plan: &Plan,
    results: &Results,
    device: &str,
    best: Option<&NetworkResult>,
) -> Result<SearchSummary, SearchError> {
    let ranked = ranking::all(plan, results)?;
    if ranked.iter().all(|s| s.score.is_none())
        && let Some(reason) = ranked.iter().find_map(|s| s.reason())
    {
        return Err(SearchError::AllFailed { dir: dir.to_owned(), reason: reason.to_owned() });
    }
    let s = &plan.spec.search;
    let stages = plan.stages(results)?;
    let first = stages.first().map(|stage| ranking::of_stage(plan, stage, results)).unwrap_or_default();
    let rungs: Vec<Rung> = stages
        .iter()
        .map(|stage| Rung {
            epochs: stage.epochs.unwrap_or(plan.base.epochs),
            trials: stage.trials.len(),
            finished: stage.trials.iter().filter(|t| results.get(&t.id).is_some()).count(),
        })
        .collect();
    let axes = plan.axes.iter().map(|axis| match &axis.values {
        Values::List(_) => SearchAxis { name: axis.name.clone(), values: labels(axis), range: None },
        Values::Range(span) => {
            SearchAxis { name: axis.name.clone(), values: Vec::new(), range: Some((span.min, span.max, span.log)) }
        }
    });
    let mut notes = Vec::new();
    let known = stages.iter().flat_map(|s| &s.trials).filter(|t| results.get(&t.id).is_some()).count();
    let others = results.iter().count() - known;
    if others > 0 {
        notes.push(format!(
            "{others} trials in the journal belong to no trial of this grid (another version of the program wrote them, or more \
             draws were asked for); they are left out."
        ));
    }
    let wanted: usize = rungs.iter().map(|r| r.trials).sum();
    if known < wanted {
        notes.push(format!("{} of {wanted} trials are missing.", wanted - known));
    }
    Ok(SearchSummary {
        name: dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        method: match s.method {
            Method::Grid => "grid",
            Method::Random => "random",
            Method::Halving => "halving",
        },
        metric: s.metric.title(),
        large_is_good: s.metric.large_is_good(),
        axes: axes.collect(),
        seeds: s.seeds,
        trials: wanted,
        finished: known,
        failed: results.iter().filter(|r| r.scores().is_none()).count(),
        rows: ranked.iter().map(|s| row(plan, s)).collect(),
        effects: effects(plan, &first),
        rungs,
        best: best.map(|n| n.splits().map(FinalFigures::of).collect()).unwrap_or_default(),
        seconds: results.iter().map(|r| r.seconds).sum(),
        config: settings(&plan.base)?
            .into_iter()
            .filter(|(name, _)| plan.axes.iter().all(|a| a.name != *name))
            .collect(),
        environment: environment(device),
        synthetic: plan.base.data == "phantom",
        notes,
    })
}

fn row(plan: &Plan, standing: &Standing<'_>) -> SearchRow {
    let figure = |m: Option<MeanStd>| m.map(|m| Figure { mean: m.mean, std: m.std });
    let first = standing.records[0];
    SearchRow {
        id: first.id.clone(),
        values: plan.candidates[standing.candidate].point.iter().map(word).collect(),
        epochs: first.epochs,
        score: standing.score,
        val_loss: figure(standing.figure(|s| Some(s.val_loss))),
        val_accuracy: figure(standing.figure(|s| Some(s.val_accuracy))),
        val_auc: figure(standing.figure(|s| s.val_auc)),
        best_epoch: first.scores().map(|s| s.best_epoch),
        parameters: standing.records.iter().find_map(|r| r.scores()).map(|s| s.parameters),
        seconds: standing.records.iter().map(|r| r.seconds).sum(),
        failed: standing.reason().map(str::to_owned),
    }
}

/// Writes `results.csv` (a line a trial, the best candidate first), `report.html` and the plots.
///
/// # Errors
/// The folder cannot be written.
pub fn write(dir: &Path, plan: &Plan, results: &Results, summary: &SearchSummary) -> Result<(), SearchError> {
    fsio::write_atomic(&dir.join("results.csv"), csv(plan, results)?.as_bytes())?;
    let report = search_report(summary);
    report.write(&dir.join("report.html"))?;
    Ok(run::write_plots(dir, &report)?)
}

fn csv(plan: &Plan, results: &Results) -> Result<String, SearchError> {
    let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let names = plan.axes.iter().map(|a| quoted(&a.name));
    let head = ["rank", "id"].map(str::to_owned).into_iter().chain(names).chain(
        [
            "seed",
            "epochs",
            "status",
            "best_epoch",
            "val_loss",
            "val_accuracy",
            "val_auc",
            "parameters",
            "seconds",
            "reason",
        ]
        .map(str::to_owned),
    );
    let mut text = head.collect::<Vec<_>>().join(",");
    text.push('\n');
    let ranked = ranking::all(plan, results)?;
    let stages = plan.stages(results)?;
    for (rank, standing) in ranked.iter().enumerate() {
        let point = &plan.candidates[standing.candidate].point;
        // The trainings of lower rungs follow those of the highest.
        for stage in stages.iter().rev() {
            let trials = stage.trials.iter().filter(|t| t.candidate == standing.candidate);
            for record in trials.filter_map(|t| results.get(&t.id)) {
                let figures = match &record.outcome {
                    Outcome::Done(s) => [
                        "done".to_owned(),
                        s.best_epoch.to_string(),
                        s.val_loss.to_string(),
                        s.val_accuracy.to_string(),
                        s.val_auc.map_or_else(String::new, |v| v.to_string()),
                        s.parameters.to_string(),
                    ],
                    Outcome::Failed { .. } => {
                        let mut none = [const { String::new() }; 6];
                        none[0] = "failed".to_owned();
                        none
                    }
                };
                let reason = match &record.outcome {
                    Outcome::Failed { reason } => quoted(reason),
                    Outcome::Done(_) => String::new(),
                };
                let cells = [(rank + 1).to_string(), record.id.clone()]
                    .into_iter()
                    .chain(point.iter().map(|v| quoted(&word(v))))
                    .chain([record.seed.to_string(), record.epochs.to_string()])
                    .chain(figures)
                    .chain([format!("{:.3}", record.seconds), reason]);
                text.push_str(&cells.collect::<Vec<_>>().join(","));
                text.push('\n');
            }
        }
    }
    Ok(text)
}

/// The config of the best candidate's first trial, at the highest rung that it reached.
///
/// # Errors
/// A config that cannot be written.
pub fn winner(plan: &Plan, results: &Results) -> Result<Option<TrainConfig>, SearchError> {
    let ranked = ranking::all(plan, results)?;
    let Some(best) = ranked.first().filter(|s| s.score.is_some()) else { return Ok(None) };
    let epochs = plan.rungs()[best.rung];
    Ok(plan.trials(best.candidate, epochs)?.into_iter().next().map(|t| t.config))
}

/// Trains the winner once more as `train` does, into `DIR/best`, with the test images measured once. What is there of it
/// already is used, what is there of another trial is replaced once the new run is whole.
///
/// # Errors
/// See [`TrainError`].
pub fn refit(
    dir: &Path,
    config: &TrainConfig,
    load: &dyn Fn() -> Result<Dataset, TrainError>,
    open: &dyn Fn() -> Result<Box<dyn Executor>, TrainError>,
    device: &str,
    events: &mut dyn FnMut(Event<'_>),
    stop: Option<run::StopFlag>,
) -> Result<NetworkResult, SearchError> {
    let target = dir.join(BEST);
    if holds(&target, config)
        && let Ok(bytes) = fsio::read(&target.join(RESULT))
        && let Ok(summary) = serde_json::from_slice::<RunSummary>(&bytes)
    {
        return Ok(summary.network);
    }
    // Beside its place until it is whole, under the name that the report shows.
    let work = dir.join("refit");
    let folder = work.join(BEST);
    let resume = holds(&folder, config);
    if !resume {
        remove(&folder)?;
    }
    let place = Place { folder: &folder, resume, device: device.to_owned(), profile: false, tensorboard: false };
    fsio::create_dir(&work)?;
    let trained = run::train(config, load()?, open()?, &place, stop, events);
    let trained = trained.map_err(|e| match e {
        TrainError::Interrupted { .. } => SearchError::RefitInterrupted,
        other => other.into(),
    })?;
    remove(&target)?;
    fsio::rename_dir(&folder, &target)?;
    remove(&work)?;
    Ok(trained.summary.network)
}

/// Whether a run folder is one of this config, apart from what the data decided.
fn holds(folder: &Path, config: &TrainConfig) -> bool {
    TrainConfig::read(&folder.join("config.toml")).is_ok_and(|saved| {
        let mut wanted = config.clone();
        wanted.mean = wanted.mean.or_else(|| saved.mean.clone());
        wanted.std = wanted.std.or_else(|| saved.std.clone());
        wanted == saved
    })
}

fn remove(folder: &Path) -> Result<(), SearchError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(fsio::FsError::new("remove", folder, e).into()),
        _ => Ok(()),
    }
}
