//! The page of one training run.

use super::data::{NetworkResult, RunSummary, SampleImage, SplitResult};
use super::dataset::data_section;
use super::html::{Block, Report, Section};
use super::parts::{
    NONE, Ranked, SYNTHETIC, accuracy, auc, confusion_figure, curve_figures, fixed, optional, ranking_figures, seconds,
    thousands,
};
use super::table::{Cell, Table};
use super::trust::{THRESHOLDS, calibration_section, threshold_table};

/// Wrong decisions on the page, the worst ones.
const WRONG: usize = 12;
/// Right decisions on the page.
const RIGHT: usize = 6;

/// Everything about one training run on one page.
#[must_use]
pub fn run_report(run: &RunSummary) -> Report {
    let network = &run.network;
    let mut report = Report::new(format!("Training run: {}", run.name), network.spec.clone());
    if run.data.synthetic {
        report.warnings.push(SYNTHETIC.to_owned());
    }
    let positive = run.data.class_name(1);
    let mut result = Section::new("Result");
    result.push(Block::Table(split_table(network, &positive)));
    result.paragraph(
        "Numbers in brackets are 95 % intervals: Wilson's for the accuracy, a percentile bootstrap of 1,000 \
         resamples for the ROC-AUC. They take images as independent; several films of one patient are not.",
    );
    for split in network.splits().filter(|s| !s.estimates.is_empty()) {
        result.push(Block::Folded(estimate_table(split)));
    }
    report.sections.push(result);

    let mut what = Section::new("What was run");
    let mut pairs = vec![
        ("Network".to_owned(), network.name.clone()),
        ("Layers".to_owned(), network.spec.clone()),
        ("Parameters".to_owned(), thousands(network.parameters)),
        ("Epochs".to_owned(), format!("{}, weights of epoch {} kept", network.epochs.len(), network.best_epoch)),
        ("Training time".to_owned(), format!("{} s", seconds(network.seconds))),
    ];
    pairs.extend(run.environment.iter().chain(&run.config).cloned());
    what.push(Block::Pairs(pairs));
    report.sections.push(what);
    report.sections.push(data_section(&run.data));

    let mut training = Section::new("Training");
    training.push(Block::Figures(curve_figures(&[network.into()])));
    training.push(Block::Folded(epoch_table(network)));
    report.sections.push(training);

    let mut decisions = Section::new("Decisions");
    decisions.push(Block::Figures(
        network
            .splits()
            .map(|s| {
                let title = format!("Confusion matrix, {}", s.name);
                confusion_figure(&title, &s.metrics.confusion, |c| run.data.class_name(c))
            })
            .collect(),
    ));
    for split in network.splits() {
        decisions.push(Block::Table(class_table(split, run)));
    }
    report.sections.push(decisions);

    let named: Vec<(String, &SplitResult)> = network.splits().map(|s| (s.name.clone(), s)).collect();
    let ranked: Vec<Ranked<'_>> = network.splits().map(|s| Ranked::new(&s.name, s)).collect();
    let figures = ranking_figures(&ranked);
    if !figures.is_empty() {
        let mut ranking = Section::new("Ranking and thresholds");
        ranking.paragraph(format!(
            "How well the probability of {positive} ranks the images, whatever threshold is chosen."
        ));
        ranking.push(Block::Figures(figures));
        if let Some(table) = threshold_table(&named, "Set", &positive) {
            ranking.push(Block::Table(table));
            ranking.paragraph(THRESHOLDS);
        }
        report.sections.push(ranking);
    }
    report.sections.extend(calibration_section(&named, "Set", &positive, run.data.class_names.len()));
    if let Some(images) = sample_section(run) {
        report.sections.push(images);
    }
    report
}

/// All metrics of a network, one column a set. `positive` is the name of the positive class.
#[must_use]
pub fn split_table(network: &NetworkResult, positive: &str) -> Table {
    let splits: Vec<&SplitResult> = network.splits().collect();
    let headers = std::iter::once("Metric".to_owned()).chain(splits.iter().map(|s| format!(">{}", s.name)));
    let mut table = Table::new(format!("{} on each set", network.name), headers);
    let mut row = |name: String, value: &dyn Fn(&SplitResult) -> Cell| {
        table.push(std::iter::once(Cell::from(name)).chain(splits.iter().map(|s| value(s))));
    };
    row("Images".to_owned(), &|s| thousands(s.metrics.count).into());
    row("Accuracy".to_owned(), &accuracy);
    row("Loss".to_owned(), &|s| fixed(s.loss).into());
    row("Log loss".to_owned(), &|s| fixed(s.metrics.log_loss).into());
    row("Macro F1".to_owned(), &|s| fixed(s.metrics.macro_f1).into());
    if splits.iter().any(|s| s.metrics.binary.is_some()) {
        let binary = |s: &SplitResult, f: fn(&crate::metrics::BinaryMetrics) -> Cell| {
            s.metrics.binary.as_ref().map_or_else(|| NONE.into(), f)
        };
        let class = |s: &SplitResult, f: fn(&crate::metrics::ClassMetrics) -> f64| {
            // Without a positive image its recall is 0/0, which is better left out than shown as 0.
            Cell::from(optional(s.metrics.positive().filter(|c| c.support > 0).map(f)))
        };
        row("ROC-AUC".to_owned(), &auc);
        row("Average precision".to_owned(), &|s| binary(s, |b| optional(b.average_precision).into()));
        row("Brier score".to_owned(), &|s| binary(s, |b| fixed(b.brier).into()));
        row(format!("Sensitivity (recall of {positive})"), &|s| class(s, |c| c.recall));
        row("Specificity".to_owned(), &|s| binary(s, |b| optional(b.specificity).into()));
        row(format!("Precision of {positive}"), &|s| class(s, |c| c.precision));
        row(format!("F1 of {positive}"), &|s| class(s, |c| c.f1));
        row(format!("Missed {positive} (false negatives)"), &|s| binary(s, |b| thousands(b.false_negatives).into()));
        row("False alarms (false positives)".to_owned(), &|s| binary(s, |b| thousands(b.false_positives).into()));
    }
    table
}

/// Every score of one set with its bootstrap intervals, over images and, where they are known, over patients.
#[must_use]
pub fn estimate_table(split: &SplitResult) -> Table {
    let patients = split.estimates.iter().any(|e| e.patients.is_some());
    let interval = |i: Option<crate::stats::Interval>| i.map_or_else(|| NONE.to_owned(), |i| format!("{i:.4}"));
    let mut headers = vec!["Score", ">Value", ">95 % over images"];
    if patients {
        headers.push(">95 % over patients");
    }
    let mut table = Table::new(format!("{}: scores with bootstrap intervals of 1,000 resamples", split.name), headers);
    for e in &split.estimates {
        let cells = [e.score.to_string(), optional(e.value), interval(e.images), interval(e.patients)];
        table.push(cells.into_iter().take(if patients { 4 } else { 3 }));
    }
    table
}

/// The rates of each class of one set.
fn class_table(split: &SplitResult, run: &RunSummary) -> Table {
    let mut table =
        Table::new(format!("Each class, {}", split.name), ["Class", ">Precision", ">Recall", ">F1", ">Images"]);
    for (i, class) in split.metrics.classes.iter().enumerate() {
        let rates = [class.precision, class.recall, class.f1].map(fixed);
        table.push(std::iter::once(run.data.class_name(i)).chain(rates).chain([thousands(class.support)]));
    }
    table
}

/// The course of the training, epoch by epoch.
pub(super) fn epoch_table(network: &NetworkResult) -> Table {
    let mut table = Table::new(
        format!("{}, epoch by epoch", network.name),
        [
            ">Epoch",
            ">Training loss",
            ">Training accuracy",
            ">Validation loss",
            ">Validation accuracy",
            ">Learning rate",
            ">Seconds",
        ],
    );
    for e in &network.epochs {
        table.push([
            e.epoch.to_string(),
            fixed(e.train_loss),
            optional(e.train_accuracy),
            fixed(e.val_loss),
            fixed(e.val_accuracy),
            format!("{:.2e}", e.learning_rate),
            seconds(e.seconds),
        ]);
    }
    table
}

/// The worst errors first, then some right ones; `None` without samples.
fn sample_section(run: &RunSummary) -> Option<Section> {
    if run.samples.is_empty() {
        return None;
    }
    let (right, mut wrong): (Vec<&SampleImage>, Vec<&SampleImage>) =
        run.samples.iter().partition(|s| s.decision() == s.label);
    // A stable sort: equals stay in the order they came in.
    wrong.sort_by(|a, b| a.true_probability().total_cmp(&b.true_probability()));
    let mut section = Section::new("Sample images");
    let mut part = |intro: &str, images: &[&SampleImage]| {
        if !images.is_empty() {
            section.paragraph(intro);
            section.push(Block::Images(images.iter().map(|&s| s.clone()).collect(), run.data.class_names.clone()));
        }
    };
    part(
        "Wrong decisions, the worst first: those that gave the true class the least probability.",
        &wrong[..wrong.len().min(WRONG)],
    );
    part("Right decisions, as they came.", &right[..right.len().min(RIGHT)]);
    Some(section)
}
