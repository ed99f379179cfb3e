//! The page of a search: the trials in order, what mattered, and the best one trained again.

use serde::Serialize;

use super::data::SplitResult;
use super::html::{self, Block, Report, Section};
use super::parts::{NONE, SYNTHETIC, fixed, optional, seconds, thousands};
use super::plot::{Axis, Coordinate, ParallelPlot, Range, Trace};
use super::table::{Cell, Table};
use crate::stats::Interval;

/// Trials that the terminal and the top of the page show.
pub const SHOWN: usize = 20;
/// Lines of the picture, at most.
const DRAWN: usize = 1000;

/// A figure over the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation, from two seeds on.
    pub std: Option<f64>,
}

/// A setting that varies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchAxis {
    /// Its name.
    pub name: String,
    /// Its values in order; empty for a range.
    pub values: Vec<String>,
    /// Least and largest value of a range, and whether it is drawn by logarithm.
    pub range: Option<(f64, f64, bool)>,
}

/// A candidate with its results, of all seeds together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchRow {
    /// The trial of its first seed.
    pub id: String,
    /// Its value on each axis.
    pub values: Vec<String>,
    /// Epochs of a training.
    pub epochs: u32,
    /// What it is ranked by.
    pub score: Option<f64>,
    /// Log loss on the validation images.
    pub val_loss: Option<Figure>,
    /// Share of right decisions there.
    pub val_accuracy: Option<Figure>,
    /// Area under the ROC curve there.
    pub val_auc: Option<Figure>,
    /// The epoch whose weights were kept, with the first seed.
    pub best_epoch: Option<u32>,
    /// Trained parameters.
    pub parameters: Option<u64>,
    /// Wall time of all seeds.
    pub seconds: f64,
    /// Why it failed.
    pub failed: Option<String>,
}

/// One value of a setting with the results of all candidates that have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// The setting.
    pub setting: String,
    /// Its value, or the third of its range.
    pub value: String,
    /// Candidates that have it and a result.
    pub candidates: usize,
    /// Mean of what candidates are ranked by.
    pub mean: f64,
    /// Its sample standard deviation, from two candidates on.
    pub std: Option<f64>,
    /// The best of them.
    pub best: f64,
}

/// One rung of successive halving; without halving there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rung {
    /// Epochs of its trials, where a grid does not vary them.
    pub epochs: u32,
    /// Its trials.
    pub trials: usize,
    /// How many of them are finished.
    pub finished: usize,
}

/// Figures of the best trial, trained again and measured on one set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FinalFigures {
    /// The set.
    pub set: String,
    /// Its images.
    pub images: u64,
    /// Log loss.
    pub loss: f64,
    /// Share of right decisions.
    pub accuracy: f64,
    /// Wilson's 95 % interval.
    pub accuracy_interval: Interval,
    /// Area under the ROC curve, where it is defined.
    pub auc: Option<f64>,
    /// Its 95 % interval by bootstrap.
    pub auc_interval: Option<Interval>,
}

impl FinalFigures {
    /// Of a measured set.
    #[must_use]
    pub fn of(split: &SplitResult) -> Self {
        Self {
            set: split.name.clone(),
            images: split.metrics.count,
            loss: split.loss,
            accuracy: split.metrics.accuracy,
            accuracy_interval: split.accuracy_interval,
            auc: split.metrics.roc_auc(),
            auc_interval: split.auc_interval,
        }
    }
}

/// A whole search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchSummary {
    /// Its name.
    pub name: String,
    /// `grid`, `random` or `halving`.
    pub method: &'static str,
    /// What candidates are ranked by, as tables name it.
    pub metric: &'static str,
    /// Whether large values of it are good.
    pub large_is_good: bool,
    /// What varies.
    pub axes: Vec<SearchAxis>,
    /// Trainings of each candidate.
    pub seeds: u32,
    /// Trials of the search, as far as it has come.
    pub trials: usize,
    /// Those that are finished.
    pub finished: usize,
    /// Those that failed.
    pub failed: usize,
    /// Candidates, the best first.
    pub rows: Vec<SearchRow>,
    /// What mattered.
    pub effects: Vec<Effect>,
    /// The rungs.
    pub rungs: Vec<Rung>,
    /// The best trial, trained again; empty where it was not.
    pub best: Vec<FinalFigures>,
    /// Wall time of all trials, one after the other.
    pub seconds: f64,
    /// Settings that do not vary.
    pub config: Vec<(String, String)>,
    /// Device, version, command line.
    pub environment: Vec<(String, String)>,
    /// Trained on drawn images.
    pub synthetic: bool,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl SearchSummary {
    fn halving(&self) -> bool {
        self.rungs.len() > 1 || self.method == "halving"
    }
}

fn figure(f: Option<Figure>) -> Cell {
    match f {
        Some(Figure { mean, std: Some(std) }) => Cell::with_detail(fixed(mean), format!("± {std:.4}")),
        Some(Figure { mean, std: None }) => fixed(mean).into(),
        None => NONE.into(),
    }
}

/// The candidates, the best first; at most `most`.
#[must_use]
pub fn search_table(s: &SearchSummary, most: usize) -> Table {
    let shown = s.rows.len().min(most);
    let mut caption =
        format!("{} of {} candidates by {}, the best first", shown, s.rows.len(), s.metric.to_lowercase());
    if s.seeds > 1 {
        caption.push_str(&format!("; mean ± sample standard deviation over {} seeds", s.seeds));
    }
    let head = [">Rank", "Trial"].map(str::to_owned).into_iter().chain(s.axes.iter().map(|a| a.name.clone()));
    let mut headers: Vec<String> = head.collect();
    if s.halving() {
        headers.push(">Epochs".to_owned());
    }
    let figures = [">Val. loss", ">Val. accuracy", ">Val. ROC-AUC", ">Kept epoch", ">Parameters", ">Seconds"];
    headers.extend(figures.map(str::to_owned));
    let mut table = Table::new(caption, headers);
    for (rank, row) in s.rows.iter().take(most).enumerate() {
        let mut cells: Vec<Cell> = vec![(rank + 1).to_string().into(), row.id.clone().into()];
        cells.extend(row.values.iter().map(|v| v.clone().into()));
        if s.halving() {
            cells.push(row.epochs.to_string().into());
        }
        cells.extend([figure(row.val_loss), figure(row.val_accuracy), figure(row.val_auc)]);
        let kept = match &row.failed {
            Some(_) => "failed".to_owned(),
            None => row.best_epoch.map_or_else(|| NONE.to_owned(), |e| e.to_string()),
        };
        cells.extend([
            kept.into(),
            row.parameters.map_or(NONE.into(), |p| thousands(p).into()),
            seconds(row.seconds).into(),
        ]);
        table.push(cells);
    }
    table
}

/// Means of each value of each setting over everything else.
#[must_use]
pub fn effects_table(s: &SearchSummary) -> Table {
    let of = if s.halving() { ", first rung" } else { "" };
    let caption = format!("{} by setting{of}, averaged over all others; what moves it most comes first", s.metric);
    let mut table = Table::new(caption, ["Setting", "Value", ">Candidates", ">Mean", ">Standard deviation", ">Best"]);
    for e in &s.effects {
        table.push([
            e.setting.clone(),
            e.value.clone(),
            e.candidates.to_string(),
            fixed(e.mean),
            optional(e.std),
            fixed(e.best),
        ]);
    }
    table
}

/// The best trial, trained again.
#[must_use]
pub fn best_table(s: &SearchSummary) -> Option<Table> {
    if s.best.is_empty() {
        return None;
    }
    let mut table = Table::new(
        "The best trial, trained again: 95 % intervals",
        ["Set", ">Images", ">Loss", ">Accuracy", ">ROC-AUC"],
    );
    for b in &s.best {
        let auc = match b.auc {
            Some(auc) => Cell::with_detail(fixed(auc), b.auc_interval.map_or_else(String::new, |i| i.to_string())),
            None => NONE.into(),
        };
        table.push([
            Cell::from(b.set.clone()),
            thousands(b.images).into(),
            fixed(b.loss).into(),
            Cell::with_detail(fixed(b.accuracy), b.accuracy_interval.to_string()),
            auc,
        ]);
    }
    Some(table)
}

/// All candidates with a result as lines over the settings.
fn picture(s: &SearchSummary) -> Option<html::Figure> {
    let rows: Vec<&SearchRow> = s.rows.iter().filter(|r| r.score.is_some()).take(DRAWN).collect();
    if rows.is_empty() || s.axes.is_empty() {
        return None;
    }
    let mut axes: Vec<Coordinate> = s
        .axes
        .iter()
        .map(|a| match a.range {
            Some((min, max, log)) => Coordinate::Numbers { axis: Axis::new(&a.name, Range::Fixed(min, max)), log },
            None => Coordinate::Choices { name: a.name.clone(), values: a.values.clone() },
        })
        .collect();
    let good = if s.large_is_good { "to the right is better" } else { "to the left is better" };
    axes.push(Coordinate::Numbers { axis: Axis::new(format!("{} ({good})", s.metric), Range::Auto), log: false });
    let place = |axis: &SearchAxis, value: &str| match axis.range {
        Some(_) => value.parse().unwrap_or(f64::NAN),
        None => axis.values.iter().position(|v| v == value).map_or(f64::NAN, |k| k as f64),
    };
    let traces = rows.iter().map(|row| Trace {
        name: format!("{}: {} {}", row.id, s.metric, optional(row.score)),
        values: s.axes.iter().zip(&row.values).map(|(a, v)| place(a, v)).chain(row.score).collect(),
    });
    let best = rows.len().div_ceil(10).max(1);
    let plot =
        ParallelPlot { title: "Every trial over every setting".to_owned(), axes, traces: traces.collect(), best };
    let headers = std::iter::once("Trial".to_owned())
        .chain(s.axes.iter().map(|a| a.name.clone()))
        .chain([format!(">{}", s.metric)]);
    let mut table = Table::new("The trials drawn, the best first", headers);
    for row in &rows {
        table.push(std::iter::once(row.id.clone()).chain(row.values.iter().cloned()).chain([optional(row.score)]));
    }
    let mut caption =
        "Each line is a candidate. On an axis of choices the better ones stand further left within their choice."
            .to_owned();
    if s.rows.len() > DRAWN {
        caption.push_str(&format!(" The best {DRAWN} of {} are drawn.", s.rows.len()));
    }
    Some(html::Figure { plot: plot.draw(), caption, numbers: table })
}

/// A search on one page.
#[must_use]
pub fn search_report(s: &SearchSummary) -> Report {
    let mut report = Report::new(
        format!("Search: {}", s.name),
        format!("{} of {} trials finished, {} of them failed", s.finished, s.trials, s.failed),
    );
    if s.synthetic {
        report.warnings.push(SYNTHETIC.to_owned());
    }
    report.warnings.extend(s.notes.iter().cloned());
    let mut result = Section::new("Result");
    result.push(Block::Table(search_table(s, SHOWN)));
    result.paragraph(format!(
        "The figures are those of the validation images, by which the weights of each trial and then the trial itself were chosen. \
         The best of {} looks better there than it is; an honest figure needs images that played no part.",
        s.rows.len()
    ));
    if s.rows.len() > SHOWN {
        let mut all = search_table(s, usize::MAX);
        all.caption = format!("All {} candidates", s.rows.len());
        result.push(Block::Folded(all));
    }
    report.sections.push(result);
    if let Some(table) = best_table(s) {
        let mut best = Section::new("The best trial");
        best.push(Block::Table(table));
        best.paragraph(
            "Trained once more from its settings, with the first seed, into the folder best, whose report.html has curves, \
             decisions and sample images. The test images were measured there for the first time.",
        );
        report.sections.push(best);
    }
    if let Some(figure) = picture(s) {
        let mut section = Section::new("Trials and settings");
        section.push(Block::Figures(vec![figure]));
        report.sections.push(section);
    }
    if !s.effects.is_empty() {
        let mut section = Section::new("What mattered");
        section.push(Block::Table(effects_table(s)));
        section.paragraph(
            "A mean over all other settings hides how settings act together: the best value on average need not be that of the best \
             trial.",
        );
        report.sections.push(section);
    }
    if s.halving() {
        let mut section = Section::new("Rungs");
        let mut table = Table::new("Trials of each rung, each trained afresh", [">Epochs", ">Trials", ">Finished"]);
        for r in &s.rungs {
            table.push([r.epochs, r.trials as u32, r.finished as u32].map(|n| n.to_string()));
        }
        section.push(Block::Table(table));
        report.sections.push(section);
    }
    let failed: Vec<&SearchRow> = s.rows.iter().filter(|r| r.failed.is_some()).collect();
    if !failed.is_empty() {
        let headers = std::iter::once("Trial".to_owned())
            .chain(s.axes.iter().map(|a| a.name.clone()))
            .chain(["Reason".to_owned()]);
        let mut table = Table::new("Trials that failed", headers);
        for row in failed {
            let reason = row.failed.clone().unwrap_or_default();
            table.push(std::iter::once(row.id.clone()).chain(row.values.iter().cloned()).chain([reason]));
        }
        let mut section = Section::new("Failures");
        section.push(Block::Table(table));
        report.sections.push(section);
    }
    let mut what = Section::new("What was run");
    let mut pairs = vec![
        ("Method".to_owned(), s.method.to_owned()),
        ("Ranked by".to_owned(), s.metric.to_owned()),
        ("Seeds of each candidate".to_owned(), s.seeds.to_string()),
        ("Training time of all trials".to_owned(), format!("{} s, one after the other", seconds(s.seconds))),
    ];
    for axis in &s.axes {
        let values = match axis.range {
            Some((min, max, log)) => format!("{min} to {max}{}", if log { ", by logarithm" } else { "" }),
            None => axis.values.join(", "),
        };
        pairs.push((format!("Searched: {}", axis.name), values));
    }
    pairs.extend(s.environment.iter().chain(&s.config).cloned());
    what.push(Block::Pairs(pairs));
    report.sections.push(what);
    report
}
