//! The page of a comparison: the runs, who beats whom, and how sure that is.

use super::comparison::{Comparison, Difference, Pair, RunRow, Training, Verdict};
use super::data::{DataInfo, SplitCounts};
use super::dataset::{balance_figure, class_table};
use super::html::{Block, Figure, Report, Section};
use super::parts::{
    Course, NONE, Ranked, confusion_figure, curve_figures, fixed, optional, ranking_figures, seconds, thousands,
};
use super::plot::{Axis, Forest, ForestRow, Range};
use super::table::{Cell, Table};
use crate::stats::{Interval, MeanDifference, Score};

/// Scores of the table of runs.
const SHOWN: [Score; 5] = [Score::Accuracy, Score::RocAuc, Score::Recall, Score::Specificity, Score::LogLoss];

fn detail(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |i| i.to_string())
}

/// The runs with their scores; intervals are bootstrapped over patients where these are known, else over images.
#[must_use]
pub fn run_table(c: &Comparison) -> Table {
    let of = if c.patients.is_some() { "patients" } else { "images" };
    let shown: Vec<Score> =
        SHOWN.into_iter().filter(|s| c.runs.iter().any(|r| r.scores.iter().any(|e| e.score == *s))).collect();
    let headers = ["Run".to_owned(), "Network".to_owned(), ">Seed".to_owned()]
        .into_iter()
        .chain(shown.iter().map(|s| format!(">{s}")))
        .chain([">Validation loss".to_owned()]);
    let mut table = Table::new(format!("Runs on {} {} images; 95 % intervals over {of}", c.images, c.split), headers);
    for run in &c.runs {
        let score = |s: &Score| {
            let e = run.scores.iter().find(|e| e.score == *s);
            Cell::with_detail(optional(e.and_then(|e| e.value)), detail(e.and_then(|e| e.interval())))
        };
        let first = [
            Cell::from(run.name.clone()),
            run.model.clone().unwrap_or_else(|| NONE.to_owned()).into(),
            run.seed.map_or_else(|| NONE.to_owned(), |s| s.to_string()).into(),
        ];
        let last = Cell::from(optional(run.validation_loss));
        table.push(first.into_iter().chain(shown.iter().map(score)).chain([last]));
    }
    table
}

/// What each run takes for something else, class by class, beside its size and time.
#[must_use]
pub fn error_table(c: &Comparison) -> Table {
    let binary = c.classes.len() == 2;
    let missed = c.classes.iter().enumerate().map(|(k, class)| match (binary, k) {
        (true, 0) => format!(">{class} missed (false positives)"),
        (true, _) => format!(">{class} missed (false negatives)"),
        _ => format!(">{class} missed"),
    });
    let headers = ["Run".to_owned(), ">Parameters".to_owned(), ">Epochs".to_owned(), ">Training, s".to_owned()];
    let mut table = Table::new(format!("Errors on the {} images", c.split), headers.into_iter().chain(missed));
    for run in &c.runs {
        let of = |text: fn(&Training) -> String| run.training.as_ref().map_or_else(|| NONE.to_owned(), text);
        let first = [
            run.name.clone(),
            of(|t| thousands(t.parameters)),
            of(|t| t.epochs.len().to_string()),
            of(|t| seconds(t.seconds)),
        ];
        let missed = run.confusion.rows().iter().enumerate().map(|(k, row)| {
            let all: u64 = row.iter().sum();
            format!("{} of {all}", all - row.get(k).copied().unwrap_or(0))
        });
        table.push(first.into_iter().chain(missed));
    }
    table
}

/// Every pair with differences, intervals and p-values.
#[must_use]
pub fn pair_table(c: &Comparison) -> Table {
    let caption = match &c.against {
        Some(best) => format!("{best} against each other run: differences, first minus second"),
        None => "Every pair: differences, first minus second".to_owned(),
    };
    let mut table = Table::new(
        caption,
        [
            "First",
            "Second",
            ">Accuracy",
            ">Right alone",
            ">McNemar p",
            ">p, Holm",
            ">ROC-AUC",
            ">DeLong",
            ">DeLong p",
            ">p, Holm",
        ],
    );
    let p = |p: Option<f64>| p.map_or_else(|| NONE.to_owned(), |p| format!("{p:.4}"));
    for pair in &c.pairs {
        let difference = |d: Option<&Difference>| {
            d.map_or_else(|| NONE.into(), |d| Cell::with_detail(fixed(d.value), detail(d.patients.or(d.images))))
        };
        let auc = pair.auc.as_ref();
        table.push([
            Cell::from(pair.first.clone()),
            pair.second.clone().into(),
            difference(Some(&pair.accuracy)),
            format!("{} : {}", pair.mcnemar.first_only, pair.mcnemar.second_only).into(),
            p(pair.accuracy.p).into(),
            p(pair.accuracy.p_holm).into(),
            difference(auc),
            Cell::from(pair.delong.and_then(|d| d.interval).map_or_else(|| NONE.to_owned(), |i| i.to_string())),
            p(auc.and_then(|d| d.p)).into(),
            p(auc.and_then(|d| d.p_holm)).into(),
        ]);
    }
    table
}

/// Groups of runs by their means, or `None` without groups.
#[must_use]
pub fn group_table(c: &Comparison) -> Option<Table> {
    let caption = "Groups of runs: mean and spread; the interval is Student's, of the mean over trainings";
    let mut table = Table::new(caption, ["Group", ">Runs", ">Accuracy", ">95 %", ">ROC-AUC", ">95 %"]);
    for g in &c.groups {
        let text = |m: Option<crate::stats::MeanStd>| {
            m.map_or_else(
                || NONE.to_owned(),
                |m| m.std.map_or_else(|| fixed(m.mean), |std| format!("{:.4} ± {std:.4}", m.mean)),
            )
        };
        let or = |i: Option<Interval>| i.map_or_else(|| NONE.to_owned(), |i| i.to_string());
        table.push([
            g.name.clone(),
            g.accuracy.count.to_string(),
            text(Some(g.accuracy)),
            or(g.accuracy_interval),
            text(g.auc),
            or(g.auc_interval),
        ]);
    }
    (!c.groups.is_empty()).then_some(table)
}

/// Points and intervals of one score, one line a run.
fn score_forest(c: &Comparison, score: Score) -> Option<Figure> {
    let title = format!("{score} of each run");
    let mut numbers = Table::new(title.clone(), ["Run", ">Value", ">Over images", ">Over patients"]);
    let mut rows = Vec::new();
    for run in &c.runs {
        let Some(e) = run.scores.iter().find(|e| e.score == score) else { continue };
        let Some(value) = e.value else { continue };
        let or = |i: Option<Interval>| i.map_or_else(|| NONE.to_owned(), |i| format!("{i:.4}"));
        numbers.push([run.name.clone(), fixed(value), or(e.images), or(e.patients)]);
        rows.push(forest_row(run.name.clone(), value, e.images, e.patients, c.against.as_ref() == Some(&run.name)));
    }
    let axis = Axis::new(format!("{score} on the {} images", c.split), Range::Share);
    let plot = Forest { title, axis, rows, reference: None };
    (!plot.rows.is_empty()).then(|| Figure {
        plot: plot.draw(),
        caption: "Solid: 95 % interval over images. Dashed: over patients, where they are known.".to_owned(),
        numbers,
    })
}

fn forest_row(
    name: String,
    value: f64,
    images: Option<Interval>,
    patients: Option<Interval>,
    marked: bool,
) -> ForestRow {
    let ends = |i: Option<Interval>| i.map(|i| (i.low, i.high));
    ForestRow { name, value, intervals: [ends(images), ends(patients)], marked }
}

/// Differences of one score, one line a pair.
fn difference_forest(c: &Comparison, name: &str, of: fn(&Pair) -> Option<Difference>) -> Option<Figure> {
    let title = format!("Difference of {name}");
    let mut numbers = Table::new(title.clone(), ["Pair", ">Difference", ">Over images", ">Over patients", "Verdict"]);
    let mut rows = Vec::new();
    for pair in &c.pairs {
        let Some(d) = of(pair) else { continue };
        let label = format!("{} - {}", pair.first, pair.second);
        let or = |i: Option<Interval>| i.map_or_else(|| NONE.to_owned(), |i| format!("{i:.4}"));
        let verdict = match d.verdict {
            Verdict::First => format!("{} is better", pair.first),
            Verdict::Second => format!("{} is better", pair.second),
            Verdict::NotToldApart => "not told apart".to_owned(),
        };
        numbers.push([label.clone(), fixed(d.value), or(d.images), or(d.patients), verdict]);
        rows.push(forest_row(label, d.value, d.images, d.patients, d.verdict != Verdict::NotToldApart));
    }
    let axis = Axis::new(format!("{name}, first minus second"), Range::FromZero);
    let plot = Forest { title, axis, rows, reference: Some(0.0) };
    (!plot.rows.is_empty()).then(|| Figure {
        plot: plot.draw(),
        caption: "A diamond: the two can be told apart. The dotted line is no difference.".to_owned(),
        numbers,
    })
}

/// Everything on one page.
#[must_use]
pub fn compare_report(c: &Comparison) -> Report {
    let mut report =
        Report::new("Comparison of runs", format!("{} runs on the same {} {} images", c.runs.len(), c.images, c.split));
    let mut verdicts = Section::new("Who beats whom");
    for sentence in c.findings() {
        verdicts.paragraph(sentence);
    }
    if verdicts.blocks.is_empty() {
        verdicts.paragraph("One run alone beats nobody.");
    }
    verdicts.paragraph(
        "Two runs are told apart when the p-value, corrected for the number of pairs (Holm), is below 0.05 and no bootstrap \
         interval of the difference holds 0. Not told apart does not mean equal: the interval says how large a difference \
         these images leave open.",
    );
    report.sections.push(verdicts);
    if !c.remarks.is_empty() {
        let mut remarks = Section::new("Beside these figures");
        c.remarks.iter().for_each(|remark| remarks.paragraph(remark.clone()));
        report.sections.push(remarks);
    }

    let mut runs = Section::new("The runs");
    runs.push(Block::Table(run_table(c)));
    let figures: Vec<Figure> =
        [Score::Accuracy, Score::RocAuc].into_iter().filter_map(|s| score_forest(c, s)).collect();
    runs.push(Block::Figures(figures));
    if let Some(table) = group_table(c) {
        runs.push(Block::Table(table));
        if let Some(table) = group_pair_table(c) {
            runs.push(Block::Table(table));
        }
    }
    runs.push(Block::Table(error_table(c)));
    for note in &c.notes {
        runs.paragraph(format!("{note}."));
    }
    report.sections.push(runs);
    report.sections.extend(courses(c));
    report.sections.extend(confusions(c));
    report.sections.extend(curves(c));

    if !c.pairs.is_empty() {
        let mut pairs = Section::new("The differences");
        let figures =
            [difference_forest(c, "accuracy", |p| Some(p.accuracy)), difference_forest(c, "ROC-AUC", |p| p.auc)];
        pairs.push(Block::Figures(figures.into_iter().flatten().collect()));
        pairs.push(Block::Table(pair_table(c)));
        pairs.paragraph(
            "Accuracy: McNemar's exact test of the images that one run alone decides rightly. ROC-AUC: DeLong's test of two \
             correlated areas. Both take images as independent. Intervals in brackets are paired percentile bootstraps of \
             1,000 resamples, over patients where they are known.",
        );
        report.sections.push(pairs);
    }
    report.sections.push(images(c));
    report
}

/// How the runs learned; `None` where no folder tells.
fn courses(c: &Comparison) -> Option<Section> {
    let of = |r: &'_ RunRow| r.training.as_ref().is_some_and(|t| !t.epochs.is_empty());
    let all: Vec<&RunRow> = c.runs.iter().filter(|r| of(r)).collect();
    let courses = all.iter().take(CURVES).filter_map(|r| {
        let t = r.training.as_ref()?;
        Some(Course { name: &r.name, epochs: &t.epochs, best_epoch: t.best_epoch })
    });
    let courses: Vec<Course<'_>> = courses.collect();
    if courses.is_empty() {
        return None;
    }
    let mut section = Section::new("How they learned");
    section.push(Block::Figures(curve_figures(&courses)));
    if all.len() > CURVES {
        section.paragraph(format!("The first {CURVES} of {} runs.", all.len()));
    }
    Some(section)
}

/// The confusion matrix of each run.
fn confusions(c: &Comparison) -> Option<Section> {
    let figures: Vec<Figure> = c
        .runs
        .iter()
        .take(MATRICES)
        .map(|r| {
            let name = |k: usize| c.classes.get(k).cloned().unwrap_or_else(|| k.to_string());
            confusion_figure(&format!("{}, {}", r.name, c.split), &r.confusion, name)
        })
        .collect();
    if figures.is_empty() {
        return None;
    }
    let mut section = Section::new("What they take for what");
    section.push(Block::Figures(figures));
    if c.runs.len() > MATRICES {
        section.paragraph(format!("The first {MATRICES} of {} runs; the table above has all.", c.runs.len()));
    }
    Some(section)
}

/// Confusion matrices on the page, at most.
const MATRICES: usize = 12;
/// Runs of one figure of curves, at most: as many as there are colours.
const CURVES: usize = 6;

/// The curves of the runs over each other; `None` where they are undefined.
fn curves(c: &Comparison) -> Option<Section> {
    let mut runs: Vec<&RunRow> = c.runs.iter().filter(|r| !r.roc.is_empty()).collect();
    let all = runs.len();
    if all > CURVES {
        let loss = |r: &RunRow| r.validation_loss.unwrap_or(f64::INFINITY);
        runs.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
        runs.truncate(CURVES);
    }
    let ranked = runs.iter().map(|r| Ranked {
        name: &r.name,
        roc: &r.roc,
        pr: &r.pr,
        auc: r.value(Score::RocAuc),
        average_precision: r.value(Score::AveragePrecision),
        thresholds: &[],
    });
    let figures = ranking_figures(&ranked.collect::<Vec<_>>());
    if figures.is_empty() {
        return None;
    }
    let mut section = Section::new("Ranking");
    section.push(Block::Figures(figures));
    if all > CURVES {
        section.paragraph(format!("The {CURVES} of {all} runs with the least validation loss."));
    }
    Some(section)
}

/// What was measured on.
fn images(c: &Comparison) -> Section {
    let counts =
        SplitCounts { name: c.split.clone(), counts: c.class_counts.clone(), patients: c.patients.map(|n| n as u64) };
    let data = DataInfo { class_names: c.classes.clone(), splits: vec![counts], ..DataInfo::default() };
    let mut section = Section::new("Data");
    section.push(Block::Table(class_table(&data)));
    section.push(Block::Figures(balance_figure(&data).into_iter().collect()));
    section.paragraph("The same images for every run, found to be so by their names and labels.");
    section
}

fn group_pair_table(c: &Comparison) -> Option<Table> {
    let mut table = Table::new(
        "Groups against each other (Welch's test of the means)",
        ["First", "Second", ">Accuracy", ">p, Holm", ">ROC-AUC", ">p, Holm"],
    );
    let cell = |d: Option<MeanDifference>| {
        d.map_or_else(|| NONE.into(), |d| Cell::with_detail(fixed(d.difference), d.interval.to_string()))
    };
    for g in &c.group_pairs {
        table.push([
            Cell::from(g.first.clone()),
            g.second.clone().into(),
            cell(g.accuracy),
            optional(g.accuracy_p_holm).into(),
            cell(g.auc),
            optional(g.auc_p_holm).into(),
        ]);
    }
    (!c.group_pairs.is_empty()).then_some(table)
}
