//! The page of the depth study: what one, two or three convolution layers make of the same images.

use super::data::{DepthStudy, NetworkResult, PublishedFigure, SeedResult, SplitResult};
use super::dataset::data_section;
use super::html::{Block, Report, Section};
use super::parts::{
    NONE, Ranked, SYNTHETIC, accuracy, auc, confusion_figure, curve_figures, fixed, fraction, ranking_figures, seconds,
    thousands,
};
use super::run::epoch_table;
use super::table::{Cell, Table};
use super::trust::{THRESHOLDS, calibration_section, threshold_table};
use crate::stats::{mean_std, wilson};

/// What was published for one, two and three convolution layers: accuracy 0.9375, 0.9375 and 0.8125 on the 16 images
/// of the official validation folder, and the loss there.
#[must_use]
pub fn published_depth_figures() -> Vec<PublishedFigure> {
    [(1, 15, 0.18), (2, 15, 0.13), (3, 13, 0.38)]
        .map(|(conv_layers, correct, loss)| PublishedFigure { conv_layers, correct, images: 16, loss })
        .to_vec()
}

/// The published figures that may stand beside these results: none for synthetic images.
fn published(study: &DepthStudy) -> &[PublishedFigure] {
    if study.data.synthetic { &[] } else { &study.published }
}

/// The table of the study: for the terminal, for Markdown and for the page. Intervals are of 95 %.
#[must_use]
pub fn study_table(study: &DepthStudy) -> Table {
    let published = published(study);
    let any = |f: fn(&NetworkResult) -> bool| study.networks.iter().any(f);
    let (test, official) = (any(|n| n.test.is_some()), any(|n| n.official.is_some()));
    let mut headers = vec!["Network", ">Parameters", ">Epochs", ">Seconds", ">Val. accuracy", ">Val. loss"];
    if test {
        headers.extend([">Test accuracy", ">Test ROC-AUC"]);
    }
    if official {
        headers.push(">Official validation images");
    }
    if !published.is_empty() {
        headers.extend([">Published, official images", ">Published loss"]);
    }
    let mut table = Table::new("Depth study: results with 95 % intervals", headers);
    for network in &study.networks {
        let mut row: Vec<Cell> = vec![
            network.name.clone().into(),
            thousands(network.parameters).into(),
            Cell::with_detail(network.epochs.len().to_string(), format!("(kept: {})", network.best_epoch)),
            seconds(network.seconds).into(),
            accuracy(&network.val),
            fixed(network.val.loss).into(),
        ];
        let or_none =
            |split: &Option<SplitResult>, f: fn(&SplitResult) -> Cell| split.as_ref().map_or_else(|| NONE.into(), f);
        if test {
            row.push(or_none(&network.test, accuracy));
            row.push(or_none(&network.test, auc));
        }
        if official {
            row.push(or_none(&network.official, |s| {
                fraction(s.metrics.correct(), s.metrics.count, Some(s.accuracy_interval))
            }));
        }
        if !published.is_empty() {
            match published.iter().find(|p| p.conv_layers == network.conv_layers) {
                Some(p) => row.extend([
                    fraction(p.correct, p.images, wilson(p.correct, p.images)),
                    format!("{:.2}", p.loss).into(),
                ]),
                None => row.extend([NONE.into(), NONE.into()]),
            }
        }
        table.push(row);
    }
    table
}

/// Mean and sample standard deviation over seeds; `None` unless some network was trained more than once.
#[must_use]
pub fn seed_table(networks: &[NetworkResult]) -> Option<Table> {
    if networks.iter().all(|n| n.seeds.len() < 2) {
        return None;
    }
    let mut table = Table::new(
        "Mean ± sample standard deviation over seeds",
        ["Network", ">Seeds", ">Val. accuracy", ">Val. loss", ">Test accuracy", ">Test ROC-AUC", ">Seconds"],
    );
    for network in networks.iter().filter(|n| !n.seeds.is_empty()) {
        let spread = |value: fn(&SeedResult) -> Option<f64>, digits: usize| -> Cell {
            let values: Vec<f64> = network.seeds.iter().filter_map(value).collect();
            let Some(m) = mean_std(&values) else { return NONE.into() };
            let std = m.std.map_or_else(String::new, |s| format!("± {s:.digits$}"));
            Cell::with_detail(format!("{:.digits$}", m.mean), std)
        };
        table.push([
            network.name.clone().into(),
            network.seeds.len().to_string().into(),
            spread(|s| Some(s.val_accuracy), 4),
            spread(|s| Some(s.val_loss), 4),
            spread(|s| s.test_accuracy, 4),
            spread(|s| s.test_auc, 4),
            spread(|s| Some(s.seconds), 1),
        ]);
    }
    Some(table)
}

/// Each repetition on its own.
fn repetition_table(networks: &[NetworkResult]) -> Table {
    let mut table = Table::new(
        "Each repetition",
        [
            "Network",
            ">Seed",
            ">Kept epoch",
            ">Val. accuracy",
            ">Val. loss",
            ">Test accuracy",
            ">Test ROC-AUC",
            ">Seconds",
        ],
    );
    for network in networks {
        for s in &network.seeds {
            table.push([
                network.name.clone(),
                s.seed.to_string(),
                s.best_epoch.to_string(),
                fixed(s.val_accuracy),
                fixed(s.val_loss),
                super::parts::optional(s.test_accuracy),
                super::parts::optional(s.test_auc),
                seconds(s.seconds),
            ]);
        }
    }
    table
}

/// What an accuracy on so few images is worth, with the intervals computed from the counts.
fn worth(published: &[PublishedFigure]) -> Option<String> {
    let first = published.first()?;
    let mut seen: Vec<(u64, u64)> = published.iter().map(|p| (p.correct, p.images)).collect();
    seen.sort_unstable_by(|a, b| b.cmp(a));
    seen.dedup();
    let with: Vec<_> = seen.iter().filter_map(|&(k, n)| Some((k, n, wilson(k, n)?))).collect();
    let parts: Vec<String> = with
        .iter()
        .map(|(k, n, i)| format!("{k} of {n} right ({:.4}) has the 95 % interval {i}", *k as f64 / *n as f64))
        .collect();
    let verdict = if with.iter().all(|a| with.iter().all(|b| a.2.overlaps(&b.2))) {
        "The intervals overlap: so few images do not tell the depths apart."
    } else {
        "Not all of the intervals overlap."
    };
    Some(format!(
        "The published figures were measured on the {} images of the official validation folder, where one image is \
         {:.4} of the accuracy. {}. {verdict} The validation and test columns rest on more images and are the ones to \
         compare.",
        first.images,
        1.0 / first.images.max(1) as f64,
        parts.join("; ")
    ))
}

/// The depth study on one page.
#[must_use]
pub fn study_report(study: &DepthStudy) -> Report {
    let networks = &study.networks;
    let mut report = Report::new(
        "Depth study",
        format!("{} networks of different depth, trained alike on the same images", networks.len()),
    );
    if study.data.synthetic {
        report.warnings.push(SYNTHETIC.to_owned());
    }
    let mut results = Section::new("Results");
    results.push(Block::Table(study_table(study)));
    results.paragraph(
        "Accuracies and counts carry Wilson's 95 % interval, the ROC-AUC a percentile bootstrap of 1,000 resamples. \
         Both take images as independent; several films of one patient are not.",
    );
    if networks.iter().any(|n| n.seeds.len() > 1) {
        results.paragraph("The table shows the first seed; the spread over all seeds follows.");
    }
    if let Some(text) = worth(published(study)) {
        results.paragraph(text);
    }
    if let Some(table) = seed_table(networks) {
        results.push(Block::Table(table));
        results.push(Block::Folded(repetition_table(networks)));
    }
    report.sections.push(results);

    let mut training = Section::new("Training");
    training.push(Block::Figures(curve_figures(&networks.iter().map(Into::into).collect::<Vec<_>>())));
    for network in networks {
        training.push(Block::Folded(epoch_table(network)));
    }
    report.sections.push(training);

    type Pick = fn(&NetworkResult) -> Option<&SplitResult>;
    let picks: [(&str, Pick); 3] = [
        ("Validation", |n| Some(&n.val)),
        ("Test", |n| n.test.as_ref()),
        ("Official validation images", |n| n.official.as_ref()),
    ];
    for (title, pick) in picks {
        let chosen: Vec<(String, &SplitResult)> =
            networks.iter().filter_map(|n| Some((n.name.clone(), pick(n)?))).collect();
        if chosen.is_empty() {
            continue;
        }
        let mut section = Section::new(format!("{title}: decisions, ranking, calibration"));
        let matrices = chosen
            .iter()
            .map(|(name, s)| {
                let title = format!("{name}, {}", s.name);
                confusion_figure(&title, &s.metrics.confusion, |c| study.data.class_name(c))
            })
            .collect();
        section.push(Block::Figures(matrices));
        let ranked: Vec<Ranked<'_>> = chosen.iter().map(|(name, s)| Ranked::new(name, s)).collect();
        let curves = ranking_figures(&ranked);
        if !curves.is_empty() {
            section.push(Block::Figures(curves));
        }
        if let Some(table) = threshold_table(&chosen, "Network", &study.data.class_name(1)) {
            section.push(Block::Table(table));
            section.paragraph(THRESHOLDS);
        }
        let classes = study.data.class_names.len();
        if let Some(calibration) = calibration_section(&chosen, "Network", &study.data.class_name(1), classes) {
            section.blocks.extend(calibration.blocks);
        }
        report.sections.push(section);
    }

    let mut what = Section::new("What was run");
    let mut layers = Table::new("The networks", ["Network", "Layers", ">Convolution layers", ">Parameters"]);
    for n in networks {
        layers.push([n.name.clone(), n.spec.clone(), n.conv_layers.to_string(), thousands(n.parameters)]);
    }
    what.push(Block::Table(layers));
    what.push(Block::Pairs(study.environment.iter().chain(&study.config).cloned().collect()));
    report.sections.push(what);
    report.sections.push(data_section(&study.data));
    report
}
