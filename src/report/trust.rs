//! What a threshold costs, and whether probabilities mean what they say: operating points and calibration.

use super::data::{Calibrated, SplitResult};
use super::html::{Block, Figure, Section};
use super::parts::{fixed, optional, thousands};
use super::plot::{Axis, LineChart, Range, Series};
use super::table::{Cell, Table};
use crate::stats::{Rate, Reliability};

/// Fewer images make no diagram: most of its bins would hold one or two.
const DRAWN: u64 = 30;

/// What the thresholds do, a row for each set and threshold; `None` where there is none.
#[must_use]
pub fn threshold_table(results: &[(String, &SplitResult)], head: &str, positive: &str) -> Option<Table> {
    // Where all images are decided alike a bootstrap draws nothing else, and its interval of no width promises too much.
    let interval = |r: Rate| r.patients.filter(|i| i.low < i.high).or(r.images);
    let rate = |r: Rate| Cell::with_detail(optional(r.value), interval(r).map_or_else(String::new, |i| i.to_string()));
    let headers = [
        head.to_owned(),
        ">Threshold".to_owned(),
        ">Sensitivity".to_owned(),
        ">Specificity".to_owned(),
        ">Precision".to_owned(),
        ">Negative predictive value".to_owned(),
        ">Accuracy".to_owned(),
        ">Found".to_owned(),
        ">Missed".to_owned(),
        ">False alarms".to_owned(),
        ">Cleared".to_owned(),
    ];
    let mut table =
        Table::new(format!("Operating points: what a threshold on the probability of {positive} does"), headers);
    for (name, split) in results {
        for t in &split.thresholds {
            let p = &t.point;
            let rates = [p.sensitivity, p.specificity, p.precision, p.negative_predictive_value, p.accuracy].map(rate);
            let counts = [p.true_positives, p.false_negatives, p.false_positives, p.true_negatives];
            table.push(
                [Cell::from(name.clone()), Cell::with_detail(fixed(p.threshold), t.choice.to_string())]
                    .into_iter()
                    .chain(rates)
                    .chain(counts.map(|n| Cell::from(thousands(n)))),
            );
        }
    }
    (!table.rows().is_empty()).then_some(table)
}

/// What to know when reading [`threshold_table`].
pub(super) const THRESHOLDS: &str = "An image counts as positive from the threshold on. The threshold of a wanted \
    sensitivity is chosen on the validation images and applied unchanged to the others, where it may find more or fewer. \
    Brackets: 95 % intervals, over patients where they are known, else Wilson's over images. Found and missed are positive \
    images, false alarms and cleared ones negative. Precision and negative predictive value hold for the \
    share of positive images found here, which is not that of a hospital.";

/// Reliability diagrams, their table and the temperature; `None` where nothing was calibrated.
pub(super) fn calibration_section(
    results: &[(String, &SplitResult)],
    head: &str,
    positive: &str,
    classes: usize,
) -> Option<Section> {
    let all: Vec<(&str, &SplitResult, &Calibrated)> =
        results.iter().filter_map(|(name, s)| Some((name.as_str(), *s, s.calibration.as_ref()?))).collect();
    if all.is_empty() {
        return None;
    }
    let mut section = Section::new("Calibration");
    let about =
        if classes == 2 { format!("the probability of {positive}") } else { "that of the decided class".to_owned() };
    section.paragraph(format!(
        "Do probabilities mean what they say ({about})? Of the images given 0.8, 80 % should be so. ECE, the expected \
         calibration error, is the mean distance of the bins from the diagonal, weighted by their images; MCE is the largest. \
         Scaling divides the logits by one temperature, fitted on the validation images (Guo et al., ICML 2017); it changes no \
         decision at 0.5 and no ranking of two classes."
    ));
    section.push(Block::Table(calibration_table(&all, head)));
    let mut problems: Vec<&String> = all.iter().filter_map(|(_, _, c)| c.scaled.as_ref().err()).collect();
    problems.dedup();
    for problem in problems {
        section.paragraph(format!("Not scaled: {problem}."));
    }
    let label = if classes == 2 {
        [format!("Mean probability of {positive}"), format!("Share that is {positive}")]
    } else {
        ["Mean probability of the decided class".to_owned(), "Share decided rightly".to_owned()]
    };
    let drawn = all.iter().filter(|(_, s, _)| s.metrics.count >= DRAWN);
    let figures: Vec<Figure> = drawn.map(|(name, _, c)| diagram(name, c, &label)).collect();
    section.push(Block::Figures(figures));
    if let Some((name, ..)) = all.iter().find(|(_, s, _)| s.metrics.count < DRAWN) {
        section.paragraph(format!("Under {DRAWN} images make no diagram ({name})."));
    }
    Some(section)
}

fn calibration_table(all: &[(&str, &SplitResult, &Calibrated)], head: &str) -> Table {
    let mut table = Table::new(
        "Calibration, ten bins of equal width, and after temperature scaling",
        [
            head,
            ">Images",
            ">ECE",
            ">MCE",
            ">Log loss",
            ">Temperature",
            ">ECE, scaled",
            ">MCE, scaled",
            ">Log loss, scaled",
        ],
    );
    for (name, split, c) in all {
        let scaled = c.scaled.as_ref().ok();
        let or = |v: Option<f64>| optional(v);
        table.push([
            (*name).to_owned(),
            thousands(split.metrics.count),
            fixed(c.before.ece),
            fixed(c.before.mce),
            fixed(c.log_loss),
            or(scaled.map(|s| s.temperature)),
            or(scaled.map(|s| s.after.ece)),
            or(scaled.map(|s| s.after.mce)),
            or(scaled.map(|s| s.log_loss)),
        ]);
    }
    table
}

/// The reliability diagram of one set.
fn diagram(name: &str, c: &Calibrated, [x, y]: &[String; 2]) -> Figure {
    let title = format!("Reliability, {name}");
    let unit = Range::Fixed(0.0, 1.0);
    let mut chart = LineChart::new(&title, Axis::new(x, unit), Axis::new(y, unit));
    chart.height = 300;
    chart.markers = true;
    chart.reference = Some(((0.0, 0.0), (1.0, 1.0)));
    let mut numbers = Table::new(
        format!("{title}: bins that hold an image"),
        ["Probabilities".to_owned(), ">Bin".to_owned(), ">Images".to_owned(), format!(">{x}"), format!(">{y}")],
    );
    let mut add = |what: String, reliability: &Reliability, colour: usize| {
        for b in &reliability.bins {
            let bin = format!("{:.1} – {:.1}", b.low, b.high);
            numbers.push([what.clone(), bin, thousands(b.count), fixed(b.confidence), fixed(b.share)]);
        }
        let points = reliability.bins.iter().map(|b| (b.confidence, b.share)).collect();
        chart.series.push(Series { name: what, points, colour, dashed: false, ring: None });
    };
    add(format!("as they are, ECE {}", fixed(c.before.ece)), &c.before, 0);
    if let Ok(s) = &c.scaled {
        let what = format!("temperature {:.3}, ECE {}", s.temperature, fixed(s.after.ece));
        add(what, &s.after, 1);
    }
    let caption = "Below the dotted diagonal the network is too sure of the class, above it not sure enough.";
    Figure { plot: chart.draw(), caption: caption.to_owned(), numbers }
}
