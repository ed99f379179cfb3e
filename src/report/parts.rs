//! Pieces that more than one page shows: numbers as text, curves by epoch, confusion matrices, ROC and PR curves with
//! operating points.

use super::data::{EpochRow, NetworkResult, SplitResult, Threshold};
use super::html::Figure;
use super::plot::{Axis, LineChart, Mark, Range, Series, confusion_plot, thin};
use super::table::{Cell, Table};
use crate::metrics::{ConfusionMatrix, PrPoint, RocPoint};
use crate::stats::{Interval, OperatingPoint};

/// Stands where there is no number.
pub(super) const NONE: &str = "–";

/// Four digits: one image of 624 is 0.0016.
pub(super) fn fixed(v: f64) -> String {
    if v.is_finite() { format!("{v:.4}") } else { v.to_string() }
}

pub(super) fn optional(v: Option<f64>) -> String {
    v.map_or_else(|| NONE.to_owned(), fixed)
}

pub(super) fn with_interval(v: f64, interval: Option<Interval>) -> Cell {
    Cell::with_detail(fixed(v), interval.map_or_else(String::new, |i| i.to_string()))
}

/// Accuracy with Wilson's interval.
pub(super) fn accuracy(split: &SplitResult) -> Cell {
    with_interval(split.metrics.accuracy, Some(split.accuracy_interval))
}

/// ROC-AUC with its bootstrap interval, or that it is undefined.
pub(super) fn auc(split: &SplitResult) -> Cell {
    match split.metrics.roc_auc() {
        Some(v) => with_interval(v, split.auc_interval),
        None if split.metrics.binary.is_some() => Cell::with_detail("undefined", "one class only"),
        None => NONE.into(),
    }
}

/// `15/16` with the share's interval.
pub(super) fn fraction(correct: u64, images: u64, interval: Option<Interval>) -> Cell {
    Cell::with_detail(format!("{correct}/{images}"), interval.map_or_else(String::new, |i| i.to_string()))
}

/// `1625730` as `1,625,730`.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// Seconds with one digit, or whole ones from a hundred on.
pub(super) fn seconds(s: f64) -> String {
    if s < 100.0 { format!("{s:.1}") } else { format!("{s:.0}") }
}

/// The warning that goes with synthetic images.
pub(super) const SYNTHETIC: &str = "The images are synthetic: a program drew them (the phantom set). The figures \
    show how the networks learn these drawings. They say nothing about X-rays of people, and figures published for \
    such X-rays are no measure for them.";

/// The course of a training.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course<'a> {
    pub name: &'a str,
    pub epochs: &'a [EpochRow],
    pub best_epoch: u32,
}

impl<'a> From<&'a NetworkResult> for Course<'a> {
    fn from(network: &'a NetworkResult) -> Self {
        Self { name: &network.name, epochs: &network.epochs, best_epoch: network.best_epoch }
    }
}

/// Loss and accuracy by epoch, training (dashed) and validation of each network.
pub(super) fn curve_figures(networks: &[Course<'_>]) -> Vec<Figure> {
    let caption = "Solid: validation. Dashed: training. The ring marks the epoch whose weights were kept.";
    let chart = |loss: bool| {
        let (title, y) = if loss {
            ("Loss by epoch", Axis::new("Loss (nats per image)", Range::FromZero))
        } else {
            ("Accuracy by epoch", Axis::new("Accuracy (share right)", Range::Share))
        };
        let mut chart = LineChart::new(title, Axis::new("Epoch", Range::Auto).whole(), y);
        chart.markers = true;
        let mut headers = vec![">Epoch".to_owned()];
        let mut columns: Vec<Vec<Option<f64>>> = Vec::new();
        for (i, network) in networks.iter().enumerate() {
            let ring = network.epochs.iter().position(|e| e.epoch == network.best_epoch);
            for train in [false, true] {
                let value = |e: &EpochRow| match (loss, train) {
                    (true, true) => Some(e.train_loss),
                    (true, false) => Some(e.val_loss),
                    (false, true) => e.train_accuracy,
                    (false, false) => Some(e.val_accuracy),
                };
                let values: Vec<Option<f64>> = network.epochs.iter().map(value).collect();
                if values.iter().all(Option::is_none) {
                    continue;
                }
                let set = if train { "training" } else { "validation" };
                // A chain is a long name, and one network needs none.
                let name = if networks.len() > 1 { format!("{} {set}", network.name) } else { set.to_owned() };
                headers.push(format!(">{name}"));
                let points = network.epochs.iter().zip(&values);
                chart.series.push(Series {
                    name,
                    points: points.map(|(e, v)| (f64::from(e.epoch), v.unwrap_or(f64::NAN))).collect(),
                    colour: i,
                    dashed: train,
                    ring: ring.filter(|_| !train),
                });
                columns.push(values);
            }
        }
        let mut table = Table::new(title, headers);
        let longest = networks.iter().max_by_key(|n| n.epochs.len());
        for (row, epoch) in longest.map_or(&[][..], |n| n.epochs).iter().enumerate() {
            table.push(
                std::iter::once(epoch.epoch.to_string())
                    .chain(columns.iter().map(|c| optional(c.get(row).copied().flatten()))),
            );
        }
        Figure { plot: chart.draw(), caption: caption.to_owned(), numbers: table }
    };
    vec![chart(true), chart(false)]
}

/// The heat map of a set with its counts and row shares.
pub(super) fn confusion_figure(title: &str, matrix: &ConfusionMatrix, class_name: impl Fn(usize) -> String) -> Figure {
    let names: Vec<String> = (0..matrix.rows().len()).map(class_name).collect();
    let headers = std::iter::once("True class".to_owned()).chain(names.iter().map(|n| format!(">predicted {n}")));
    let mut table = Table::new(format!("{title}: images, and share of the true class"), headers);
    for ((name, row), shares) in names.iter().zip(matrix.rows()).zip(matrix.row_shares()) {
        let cells = row
            .iter()
            .zip(shares)
            .map(|(n, share)| Cell::with_detail(n.to_string(), format!("{:.1} %", share * 100.0)));
        table.push(std::iter::once(Cell::from(name.clone())).chain(cells));
    }
    Figure {
        plot: confusion_plot(title, matrix, &names),
        caption: format!(
            "{} of {} images decided rightly. Colour and percentage: share of the row.",
            matrix.correct(),
            matrix.total()
        ),
        numbers: table,
    }
}

/// A network on a set, as far as its ranking goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked<'a> {
    pub name: &'a str,
    pub roc: &'a [RocPoint],
    pub pr: &'a [PrPoint],
    pub auc: Option<f64>,
    pub average_precision: Option<f64>,
    pub thresholds: &'a [Threshold],
}

impl<'a> Ranked<'a> {
    pub fn new(name: &'a str, split: &'a SplitResult) -> Self {
        Self {
            name,
            roc: &split.roc,
            pr: &split.pr,
            auc: split.metrics.roc_auc(),
            average_precision: split.metrics.binary.as_ref().and_then(|b| b.average_precision),
            thresholds: &split.thresholds,
        }
    }
}

/// A line of a ranking figure.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
    /// Name and place of the operating points.
    marks: Vec<(String, (f64, f64))>,
}

/// ROC and precision-recall curves with the operating points; nothing where both are undefined.
pub(super) fn ranking_figures(results: &[Ranked<'_>]) -> Vec<Figure> {
    let marks = |r: &Ranked<'_>, place: fn(&OperatingPoint) -> Option<(f64, f64)>| {
        r.thresholds.iter().filter_map(|t| Some((t.choice.to_string(), place(&t.point)?))).collect()
    };
    let roc = results.iter().filter(|r| !r.roc.is_empty()).map(|r| Curve {
        name: format!("{}, AUC {}", r.name, optional(r.auc)),
        points: r.roc.iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).collect(),
        marks: marks(r, |p| Some((1.0 - p.specificity.value?, p.sensitivity.value?))),
    });
    let pr = results.iter().filter(|r| !r.pr.is_empty()).map(|r| Curve {
        name: format!("{}, AP {}", r.name, optional(r.average_precision)),
        points: r.pr.iter().map(|p| (p.recall, p.precision)).collect(),
        marks: marks(r, |p| Some((p.sensitivity.value?, p.precision.value?))),
    });
    let roc = ranking(
        "ROC curve",
        ("False positive rate (1 - specificity)", "True positive rate (sensitivity)"),
        "The dotted diagonal is guessing.",
        Some(((0.0, 0.0), (1.0, 1.0))),
        roc.collect(),
    );
    let pr = ranking(
        "Precision-recall curve",
        ("Recall (sensitivity)", "Precision"),
        "AP is the average precision. Guessing gives a flat line at the share of positive images.",
        None,
        pr.collect(),
    );
    roc.into_iter().chain(pr).collect()
}

fn ranking(
    title: &str,
    (x, y): (&str, &str),
    caption: &str,
    reference: Option<((f64, f64), (f64, f64))>,
    curves: Vec<Curve>,
) -> Option<Figure> {
    let unit = Range::Fixed(0.0, 1.0);
    let mut chart = LineChart::new(title, Axis::new(x, unit), Axis::new(y, unit));
    chart.height = 300;
    chart.reference = reference;
    let caption_of_table = format!("{title}: the points drawn; points within 0.003 of their line are left out");
    let mut table = Table::new(caption_of_table, ["Curve", &format!(">{x}"), &format!(">{y}")]);
    let mut shapes: Vec<String> = Vec::new();
    for (colour, Curve { name, points, marks }) in curves.into_iter().enumerate() {
        let points = thin(&points, 0.003);
        for (mark, at) in marks {
            let shape = shapes.iter().position(|s| *s == mark).unwrap_or_else(|| {
                shapes.push(mark.clone());
                shapes.len() - 1
            });
            table.push([Cell::with_detail(name.clone(), mark.clone()), fixed(at.0).into(), Cell::from(fixed(at.1))]);
            // The circle is followed by the diamond, which looks most unlike it.
            chart.marks.push(Mark { name: mark, at, colour, shape: [0, 2, 1, 3][shape % 4] });
        }
        for (x, y) in &points {
            table.push([name.clone(), fixed(*x), fixed(*y)]);
        }
        chart.series.push(Series { name, points, colour, dashed: false, ring: None });
    }
    (!chart.series.is_empty()).then(|| Figure { plot: chart.draw(), caption: caption.to_owned(), numbers: table })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            ["0", "999", "1,000", "1,625,730"],
            [0, 999, 1000, 1_625_730].map(thousands).each_ref().map(String::as_str)
        );
        assert_eq!((fixed(0.9375), fixed(f64::NAN), optional(None)), ("0.9375".into(), "NaN".into(), NONE.into()));
        assert_eq!((seconds(12.34), seconds(812.6)), ("12.3".to_owned(), "813".to_owned()));
    }
}
