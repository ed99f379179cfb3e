//! The page of a patient-wise cross-validation.

use serde::{Deserialize, Serialize};

use super::data::{DataInfo, SplitResult};
use super::dataset::data_section;
use super::html::{Block, Figure, Report, Section};
use super::parts::{NONE, SYNTHETIC, fixed, optional, seconds, thousands};
use super::plot::{Axis, Forest, ForestRow, Range};
use super::table::{Cell, Table};
use crate::stats::{Estimate, Interval, MeanStd, Score};

/// One fold of one seed: a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldRow {
    /// The seed of partition, weights and order.
    pub seed: u32,
    /// The fold, from 0.
    pub fold: u32,
    /// Name of the run folder inside the study.
    pub folder: String,
    /// Images fitted.
    pub fitted: u64,
    /// Images that the weights were chosen on, of other patients.
    pub chosen_on: u64,
    /// Images of the fold, of other patients again.
    pub held_out: u64,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Wall time of the training.
    pub seconds: f64,
    /// What was achieved on the fold.
    pub scores: Vec<Estimate>,
}

impl FoldRow {
    /// What a finished training says; `None` where it measured no fold.
    #[must_use]
    pub fn new(seed: u32, fold: u32, run: &super::data::RunSummary) -> Option<Self> {
        let test: &SplitResult = run.network.test.as_ref()?;
        let images =
            |name: &str| run.data.splits.iter().find(|s| s.name == name).map_or(0, |s| s.counts.iter().sum::<u64>());
        Some(Self {
            seed,
            fold,
            folder: run.name.clone(),
            fitted: images("train"),
            chosen_on: images("validation"),
            held_out: images("test"),
            best_epoch: run.network.best_epoch,
            seconds: run.network.seconds,
            scores: test.estimates.clone(),
        })
    }

    /// A score on the fold.
    #[must_use]
    pub fn score(&self, score: Score) -> Option<&Estimate> {
        self.scores.iter().find(|e| e.score == score)
    }
}

/// A score over all folds and seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldSummary {
    /// Which one.
    pub score: Score,
    /// Mean and spread over the trainings.
    pub over_all: MeanStd,
    /// 95 % interval of the mean, with the correction of Nadeau and Bengio for folds that share training images.
    pub interval: Option<Interval>,
}

/// A whole cross-validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldStudy {
    /// Network: a name or a chain.
    pub model: String,
    /// Where the images come from.
    pub data: String,
    /// Drawn by a program, not taken of people.
    pub synthetic: bool,
    /// Folds.
    pub folds: u32,
    /// Seeds, each with a partition of its own.
    pub seeds: u32,
    /// The trainings.
    pub rows: Vec<FoldRow>,
    /// Each score over all of them.
    pub summary: Vec<FoldSummary>,
    /// Settings that all trainings share.
    pub config: Vec<(String, String)>,
    /// Device, version, command line.
    pub environment: Vec<(String, String)>,
    /// The images of the first training.
    #[serde(default)]
    pub about: Option<DataInfo>,
}

/// Mean, spread and interval of each score.
#[must_use]
pub fn fold_table(study: &FoldStudy) -> Table {
    let trainings = study.rows.len();
    let caption = format!(
        "{}, {} folds by patient, {} seed{}: {trainings} trainings",
        study.model,
        study.folds,
        study.seeds,
        if study.seeds == 1 { "" } else { "s" }
    );
    let mut table = Table::new(caption, ["Score", ">Mean", ">Standard deviation", ">95 %, corrected"]);
    for s in &study.summary {
        table.push([
            s.score.to_string(),
            fixed(s.over_all.mean),
            optional(s.over_all.std),
            s.interval.map_or_else(|| NONE.to_owned(), |i| format!("{i:.4}")),
        ]);
    }
    table
}

/// Each training.
fn row_table(study: &FoldStudy) -> Table {
    let mut table = Table::new(
        "Each fold; 95 % intervals over patients where they are known, else over images",
        [
            ">Seed",
            ">Fold",
            ">Fitted",
            ">Chosen on",
            ">Held out",
            ">Kept epoch",
            ">Accuracy",
            ">ROC-AUC",
            ">Log loss",
            ">Seconds",
        ],
    );
    for row in &study.rows {
        let score = |score: Score| {
            let e = row.score(score);
            let interval = e.and_then(Estimate::interval).map_or_else(String::new, |i| i.to_string());
            Cell::with_detail(optional(e.and_then(|e| e.value)), interval)
        };
        table.push([
            row.seed.to_string().into(),
            (row.fold + 1).to_string().into(),
            thousands(row.fitted).into(),
            thousands(row.chosen_on).into(),
            thousands(row.held_out).into(),
            row.best_epoch.to_string().into(),
            score(Score::Accuracy),
            score(Score::RocAuc),
            score(Score::LogLoss),
            Cell::from(seconds(row.seconds)),
        ]);
    }
    table
}

fn forest(study: &FoldStudy, score: Score) -> Option<Figure> {
    let title = format!("{score} on each fold");
    let mut numbers = Table::new(title.clone(), ["Training", ">Value", ">Over images", ">Over patients"]);
    let ends = |i: Option<Interval>| i.map(|i| (i.low, i.high));
    let text = |i: Option<Interval>| i.map_or_else(|| NONE.to_owned(), |i| format!("{i:.4}"));
    let mut rows = Vec::new();
    for row in &study.rows {
        let Some((e, value)) = row.score(score).and_then(|e| Some((e, e.value?))) else { continue };
        let name = format!("seed {}, fold {}", row.seed, row.fold + 1);
        numbers.push([name.clone(), fixed(value), text(e.images), text(e.patients)]);
        rows.push(ForestRow { name, value, intervals: [ends(e.images), ends(e.patients)], marked: false });
    }
    if let Some(s) = study.summary.iter().find(|s| s.score == score) {
        let name = "mean, corrected".to_owned();
        numbers.push([name.clone(), fixed(s.over_all.mean), text(s.interval), NONE.to_owned()]);
        rows.push(ForestRow { name, value: s.over_all.mean, intervals: [ends(s.interval), None], marked: true });
    }
    let plot = Forest { title, axis: Axis::new(score.to_string(), Range::Share), rows, reference: None };
    (!plot.rows.is_empty()).then(|| Figure {
        plot: plot.draw(),
        caption:
            "Solid: 95 % interval over images. Dashed: over patients. Diamond: the mean with its corrected interval."
                .to_owned(),
        numbers,
    })
}

/// The study on one page.
#[must_use]
pub fn folds_report(study: &FoldStudy) -> Report {
    let mut report = Report::new(
        format!("Cross-validation: {}", study.model),
        format!(
            "{} folds by patient, {} seed{}, on {}",
            study.folds,
            study.seeds,
            if study.seeds == 1 { "" } else { "s" },
            study.data
        ),
    );
    if study.synthetic {
        report.warnings.push(SYNTHETIC.to_owned());
    }
    let mut result = Section::new("Result");
    result.push(Block::Table(fold_table(study)));
    result.paragraph(
        "Each fold is the test set once; no patient is on two sides of any training. The weights are chosen on further \
         patients held out of the other folds, never on the fold itself. The test images of the source were not read. \
         Every seed has a partition of its own. Folds share most of their training images, so the interval of the mean \
         carries the correction of Nadeau and Bengio (2003).",
    );
    result
        .push(Block::Figures([Score::Accuracy, Score::RocAuc].into_iter().filter_map(|s| forest(study, s)).collect()));
    result.push(Block::Table(row_table(study)));
    report.sections.push(result);
    let mut what = Section::new("What was run");
    what.push(Block::Pairs(study.environment.iter().chain(&study.config).cloned().collect()));
    report.sections.push(what);
    if let Some(data) = &study.about {
        let mut section = data_section(data);
        section.title = "Data of the first training".to_owned();
        section.paragraph(
            "The other trainings divide the same images otherwise. The report.html in each fold's folder shows what its images              look like, its curves, decisions and errors.",
        );
        report.sections.push(section);
    }
    report
}
