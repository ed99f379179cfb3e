//! Candidates in order, the best first.

use super::candidates::Plan;
use super::grid::Metric;
use super::rungs::Stage;
use super::{Record, Results, Scores, SearchError};
use crate::stats::{MeanStd, mean_std};

/// A candidate with what its trainings on one rung gave.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// Index into the plan's candidates.
    pub candidate: usize,
    /// The rung, from 0.
    pub rung: usize,
    /// Its finished trials there, by seed.
    pub records: Vec<&'a Record>,
    /// What it is ranked by: the mean over its seeds; `None` where one of them failed or has no such figure.
    pub score: Option<f64>,
}

impl Standing<'_> {
    /// Mean and spread of a figure over the seeds.
    #[must_use]
    pub fn figure(&self, of: impl Fn(&Scores) -> Option<f64>) -> Option<MeanStd> {
        let values: Vec<f64> = self.records.iter().filter_map(|r| r.scores().and_then(&of)).collect();
        mean_std(&values)
    }

    /// Why it failed, if one of its trials did.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.records.iter().find_map(|r| match &r.outcome {
            super::Outcome::Failed { reason } => Some(reason.as_str()),
            super::Outcome::Done(_) => None,
        })
    }
}

/// A metric of a trial.
#[must_use]
pub fn value(metric: Metric, scores: &Scores) -> Option<f64> {
    match metric {
        Metric::ValLoss => Some(scores.val_loss),
        Metric::ValAccuracy => Some(scores.val_accuracy),
        Metric::ValAuc => scores.val_auc,
    }
}

/// The candidates of one rung that have a finished trial, the best first.
#[must_use]
pub fn of_stage<'a>(plan: &Plan, stage: &Stage, results: &'a Results) -> Vec<Standing<'a>> {
    let metric = plan.spec.search.metric;
    let mut all: Vec<Standing<'a>> = Vec::new();
    for trial in &stage.trials {
        let Some(record) = results.get(&trial.id) else { continue };
        match all.last_mut() {
            Some(last) if last.candidate == trial.candidate => last.records.push(record),
            _ => {
                all.push(Standing { candidate: trial.candidate, rung: stage.rung, records: vec![record], score: None })
            }
        }
    }
    for standing in &mut all {
        let values: Option<Vec<f64>> =
            standing.records.iter().map(|r| r.scores().and_then(|s| value(metric, s))).collect();
        standing.score = values.and_then(|v| mean_std(&v)).map(|m| m.mean);
    }
    let sign = if metric.large_is_good() { -1.0 } else { 1.0 };
    // Equals stand in the order of their ids, which is nobody's choice and always the same.
    let key = |s: &Standing<'_>| (s.score.map_or(f64::INFINITY, |v| sign * v), s.records[0].id.clone());
    all.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1))
    });
    all
}

/// Every candidate that has a finished trial, at the highest rung that it reached: those of higher rungs first.
///
/// # Errors
/// A config that cannot be written.
pub fn all<'a>(plan: &Plan, results: &'a Results) -> Result<Vec<Standing<'a>>, SearchError> {
    let mut ranked: Vec<Standing<'a>> = Vec::new();
    for stage in plan.stages(results)?.iter().rev() {
        for standing in of_stage(plan, stage, results) {
            if ranked.iter().all(|r| r.candidate != standing.candidate) {
                ranked.push(standing);
            }
        }
    }
    // A candidate that failed on a high rung is worth less than one that did not on a low one.
    ranked.sort_by_key(|s| s.score.is_none());
    Ok(ranked)
}
