//! The pages, from made-up but plausible results.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use radiograd::report::data::{
    ContactSheet, DataInfo, DepthStudy, EpochRow, Named, NetworkResult, Picture, Pictures, RunSummary, SampleImage,
    SeedResult, SizeBin, SizeRow, Sizes, SplitCounts, SplitResult,
};
use radiograd::report::html::{Block, NOTICE, Report};
use radiograd::report::{
    published_depth_figures, run_report, seed_table, split_table, study_report, study_table, threshold_table,
};
use radiograd::rng::{Rng, Stream};
use radiograd::stats::wilson;
use radiograd::train::evaluate::{BINS, assess};
use radiograd::train::predictions::SplitPredictions;

/// Labels and probabilities of `count` images; larger `skill` means fewer errors.
fn answers(count: usize, classes: usize, skill: f32, seed: u32) -> (Vec<u32>, Vec<f64>) {
    let mut rng = Rng::new(seed, 0, Stream::Sample as u32);
    let labels: Vec<u32> = (0..count).map(|_| rng.below(classes as u32)).collect();
    let probabilities = labels
        .iter()
        .flat_map(|&label| {
            let e: Vec<f64> = (0..classes as u32)
                .map(|c| f64::from(rng.normal() + if c == label { skill } else { 0.0 }).exp())
                .collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(move |v| v / sum).collect::<Vec<_>>()
        })
        .collect();
    (labels, probabilities)
}

fn split(name: &str, count: usize, classes: usize, skill: f32, seed: u32) -> SplitResult {
    let (labels, p) = answers(count, classes, skill, seed);
    let mut result = SplitResult::new(name, &labels, &p, classes, seed).unwrap();
    let set = |split: &str, (labels, probabilities): (Vec<u32>, Vec<f64>)| SplitPredictions {
        split: split.to_owned(),
        images: (0..labels.len()).map(|i| i.to_string()).collect(),
        patients: (0..labels.len()).map(|i| i.to_string()).collect(),
        labels,
        probabilities,
    };
    let validation = set("val", answers(1000, classes, skill, seed + 1));
    assess(&mut result, &validation, &set(name, (labels, p)), classes, seed).unwrap();
    result
}

/// Trains nothing, but the intervals take a while: each is computed once.
fn network(depth: u32, classes: usize, seeds: u32) -> NetworkResult {
    static DONE: LazyLock<Mutex<HashMap<(u32, usize), NetworkResult>>> = LazyLock::new(Mutex::default);
    let mut done = DONE.lock().unwrap();
    let mut network = done.entry((depth, classes)).or_insert_with(|| make_network(depth, classes)).clone();
    network.seeds.truncate(seeds as usize);
    network
}

fn make_network(depth: u32, classes: usize) -> NetworkResult {
    let d = f64::from(depth);
    let epochs: Vec<EpochRow> = (1..=6)
        .map(|epoch| {
            let e = f64::from(epoch);
            let accuracy = 1.0 - 0.14 / (e + 0.4 * d) - 0.02;
            EpochRow {
                epoch,
                train_loss: 0.42 / (e + 0.2 * d),
                train_accuracy: Some(accuracy + 0.012 * (e / 6.0)),
                val_loss: 0.38 / (e + 0.2 * d) + 0.02 + 0.004 * (e - 4.0).abs(),
                val_accuracy: accuracy,
                learning_rate: 1e-3 * (1.0 + (std::f64::consts::PI * e / 6.0).cos()) / 2.0,
                seconds: 21.3 * d,
            }
        })
        .collect();
    NetworkResult {
        name: format!("cnn{depth}"),
        spec: format!(
            "conv32-relu-pool{}-flatten-dense128-relu-dropout0.5-dense{classes}",
            "-conv64-relu-pool".repeat(depth as usize - 1)
        ),
        conv_layers: depth,
        parameters: 4_195_000 / u64::from(depth),
        epochs,
        best_epoch: 5,
        seconds: 128.0 * d,
        val: split("validation", 1000, classes, 2.4 + 0.3 * depth as f32, depth),
        test: Some(split("test", 624, classes, 1.6 + 0.1 * depth as f32, 10 + depth)),
        official: Some(split("official validation", 16, classes, 2.0, 20 + depth)),
        seeds: (0..3)
            .map(|seed| SeedResult {
                seed,
                best_epoch: 5,
                seconds: 120.0 * d + f64::from(seed),
                val_accuracy: 0.968 + 0.002 * f64::from(seed),
                val_loss: 0.081 - 0.003 * f64::from(seed),
                test_accuracy: Some(0.76 + 0.004 * f64::from(seed)),
                test_auc: Some(0.931 - 0.002 * f64::from(seed)),
            })
            .collect(),
    }
}

fn data(synthetic: bool, class_names: &[&str]) -> DataInfo {
    DataInfo {
        source: if synthetic { "phantom" } else { "chest_xray" }.into(),
        synthetic,
        class_names: class_names.iter().map(|&s| s.to_owned()).collect(),
        splits: vec![
            SplitCounts {
                name: "train".into(),
                counts: vec![1080, 3110, 700][..class_names.len()].to_vec(),
                patients: Some(2100),
            },
            SplitCounts {
                name: "test".into(),
                counts: vec![234, 390, 116][..class_names.len()].to_vec(),
                patients: None,
            },
        ],
        notes: vec!["The validation set holds patients that the training set does not.".into()],
        sizes: Some(Sizes {
            sets: vec![SizeRow {
                set: "train".into(),
                images: 5216,
                distinct: 4366,
                width: [384, 1284, 2916],
                height: [127, 888, 2663],
            }],
            widths: (0..6).map(|k| SizeBin { from: 500 * k, to: 500 * k + 499, count: u64::from(870 + k) }).collect(),
            heights: (0..6).map(|k| SizeBin { from: 500 * k, to: 500 * k + 499, count: u64::from(880 - k) }).collect(),
        }),
        skipped: Named { total: 1, first: vec![("train/NORMAL/empty.jpeg".into(), "the file is empty".into())] },
        shared_patients: Some(Named { total: 1, first: vec![("person23".into(), "train, test".into())] }),
        pictures: Pictures {
            means: class_names
                .iter()
                .map(|name| Picture { name: (*name).into(), ..sample(0, 0, Vec::new(), 1).picture() })
                .collect(),
            sheet: Some(ContactSheet {
                columns: ["as it is", "draw 1", "draw 2"].map(str::to_owned).to_vec(),
                pictures: (0..6).map(|k| sample(k, 0, Vec::new(), 1).picture()).collect(),
                rows: (0..2).map(|k| (format!("train/{k}.jpeg"), class_names[0].to_owned())).collect(),
            }),
        },
    }
}

fn pairs(items: &[(&str, &str)]) -> Vec<(String, String)> {
    items.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn study(synthetic: bool, seeds: u32, class_names: &[&str]) -> DepthStudy {
    DepthStudy {
        config: pairs(&[("Size", "64 x 64 grey"), ("Batch", "32"), ("Optimizer", "AdamW, rate 1e-3, cosine")]),
        environment: pairs(&[("Device", "cpu: 2 threads, im2col + gemm"), ("Version", "0.1.0")]),
        data: data(synthetic, class_names),
        networks: (1..=3).map(|depth| network(depth, class_names.len(), seeds)).collect(),
        published: published_depth_figures(),
    }
}

fn sample(index: u32, label: u32, probabilities: Vec<f64>, channels: u32) -> SampleImage {
    let side = 64;
    let pixels = (0..side * side)
        .flat_map(|i| {
            let (x, y) = ((i % side) as f32 / 32.0 - 1.0, (i / side) as f32 / 32.0 - 1.0);
            let lung = |cx: f32| (-((x - cx) / 0.28).powi(2) - (y / 0.6).powi(2)).exp();
            let v = 200.0 - 150.0 * (lung(-0.4) + lung(0.4)) + 20.0 * (y * 22.0).sin() + index as f32 * 2.0;
            vec![v.clamp(0.0, 255.0) as u8; channels as usize]
        })
        .collect();
    SampleImage {
        name: format!("person{index}_bacteria_{index}.jpeg"),
        width: side,
        height: side,
        channels,
        pixels,
        label,
        probabilities,
    }
}

fn run(class_names: &[&str]) -> RunSummary {
    let classes = class_names.len();
    let samples = (0..24)
        .map(|i| {
            let p = f64::from(i % 12) / 12.0 + 0.04;
            let mut probabilities = vec![(1.0 - p) / (classes - 1) as f64; classes];
            probabilities[1] = p;
            sample(i, i % classes as u32, probabilities, if i % 5 == 0 { 3 } else { 1 })
        })
        .collect();
    RunSummary {
        name: "cnn2 at 64 pixels".into(),
        config: pairs(&[("Size", "64 x 64 grey"), ("Batch", "32")]),
        environment: pairs(&[("Device", "cpu: 2 threads"), ("Command", "radiograd train --model cnn2")]),
        data: data(false, class_names),
        network: network(2, classes, 0),
        samples,
    }
}

const NAMES: [&str; 2] = ["NORMAL", "PNEUMONIA"];

fn pages() -> Vec<(&'static str, Report)> {
    vec![
        ("study-real", study_report(&study(false, 3, &NAMES))),
        ("study-phantom", study_report(&study(true, 1, &NAMES))),
        ("run", run_report(&run(&NAMES))),
        ("run-three-classes", run_report(&run(&["COVID19", "NORMAL", "PNEUMONIA"]))),
    ]
}

/// Writes the pages where a person can open them: `target/tmp/*.html`.
#[test]
fn pages_are_self_contained() {
    for (name, report) in pages() {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.html"));
        report.write(&path).unwrap();
        let html = std::fs::read_to_string(&path).unwrap();
        assert!(html.contains(NOTICE), "{name}");
        for outside in ["http:", "https:", "src=\"//", "<script", "<link", "@import", "url("] {
            assert!(!html.contains(outside), "{name} holds {outside}");
        }
        for attribute in ["src=\"", "href=\""] {
            for rest in html.split(attribute).skip(1) {
                assert!(
                    rest.starts_with("data:image/png;base64,") || rest.starts_with('#'),
                    "{name}: {attribute}{:.40}",
                    rest
                );
            }
        }
        assert_eq!(html.matches("<h1>").count(), 1);
        assert_eq!(html.matches("<table>").count(), html.matches("<caption>").count());
        assert_eq!(html.matches("<figure>").count(), html.matches("<figcaption>").count());
    }
}

#[test]
fn names_are_escaped_everywhere() {
    let evil = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>"];
    let mut summary = run(&evil);
    summary.name = evil[0].into();
    summary.network.name = evil[0].into();
    summary.network.spec = evil[1].into();
    summary.network.test.as_mut().unwrap().name = evil[0].into();
    summary.config = pairs(&[(evil[0], evil[1])]);
    summary.data.notes = vec![evil[0].into()];
    summary.data.skipped.first = vec![(evil[0].into(), evil[1].into())];
    summary.data.shared_patients = Some(Named { total: 1, first: vec![(evil[1].into(), evil[0].into())] });
    summary.data.sizes.as_mut().unwrap().sets[0].set = evil[0].into();
    summary.data.pictures.means[0].name = evil[1].into();
    summary.data.pictures.sheet.as_mut().unwrap().columns[1] = evil[0].into();
    summary.data.pictures.sheet.as_mut().unwrap().rows[0] = (evil[0].into(), evil[1].into());
    summary.samples[0].name = evil[1].into();
    for html in [run_report(&summary).render().unwrap(), study_report(&study(false, 2, &evil)).render().unwrap()] {
        assert!(!html.contains("<script") && !html.contains("<img src=x"));
        assert!(html.contains("&lt;script&gt;"));
    }
}

/// Every count, percentage and value of a marker stands in the table of its figure as well.
#[test]
fn pictures_and_tables_show_equal_numbers() {
    for (name, report) in pages() {
        for figure in report.sections.iter().flat_map(|s| &s.blocks).flat_map(|b| match b {
            radiograd::report::html::Block::Figures(f) => &f[..],
            _ => &[],
        }) {
            let svg = figure.plot.standalone();
            let doc = roxmltree::Document::parse(&svg).unwrap();
            let cells: Vec<String> =
                figure.numbers.rows().iter().flatten().flat_map(|c| [c.text.clone(), c.detail.clone()]).collect();
            let mut told = 0;
            for node in doc.descendants() {
                let number = match node.tag_name().name() {
                    // "cnn1 validation: Epoch 2, 0.9012"
                    "title" => node.text().and_then(|t| t.rsplit(", ").next()),
                    "text" if node.attribute("class") == Some("count mid") => node.text(),
                    "text" if node.text().is_some_and(|t| t.ends_with('%')) => node.text(),
                    _ => None,
                };
                if let Some(number) = number {
                    told += 1;
                    assert!(cells.iter().any(|c| c == number), "{name}, {}: {number}", figure.plot.title());
                }
            }
            // Curves over the unit square have no markers; their table holds the corners of the drawn line, and the operating points.
            let of = |class: fn(&str) -> bool| {
                let paths = doc.descendants().filter(move |n| n.attribute("class").is_some_and(class));
                paths.filter_map(|n| n.attribute("d")).map(|d| d.matches(['M', 'L']).count()).sum::<usize>()
            };
            let marks = doc.descendants().filter(|n| n.attribute("class").is_some_and(|c| c.ends_with(" mark")));
            let marks = marks.filter(|n| n.first_element_child().is_some()).count();
            if told == marks {
                let corners = of(|c| c.starts_with('l') && !c.ends_with("mark"));
                assert_eq!(corners + marks, figure.numbers.rows().len(), "{}", figure.plot.title());
            }
        }
    }
}

#[test]
fn published_figures_stand_beside_real_images_only() {
    let real = study(false, 1, &NAMES);
    let text = study_table(&real).to_text();
    for (correct, accuracy) in [(15, "0.9375"), (13, "0.8125")] {
        let interval = wilson(correct, 16).unwrap().to_string();
        assert!(text.contains(&format!("{correct}/16 {interval}")), "{text}");
        let html = study_report(&real).render().unwrap();
        assert!(html.contains(accuracy) && html.contains("do not tell the depths apart"));
        assert!(html.contains("published figures were measured") && html.contains("Published, official"));
    }
    let synthetic = study(true, 1, &NAMES);
    let html = study_report(&synthetic).render().unwrap();
    assert!(!study_table(&synthetic).to_text().contains("Published") && !html.contains("Published, official"));
    assert!(!html.contains("published figures were measured"));
    assert!(html.contains("synthetic"));
    assert!(!study_report(&real).render().unwrap().contains("synthetic"));
}

#[test]
fn seeds_are_spread_once_there_are_two() {
    assert!(seed_table(&study(false, 1, &NAMES).networks).is_none());
    let text = seed_table(&study(false, 3, &NAMES).networks).unwrap().to_text();
    assert!(text.contains("0.9700 ± 0.0020"), "{text}");
}

#[test]
fn what_is_undefined_is_said_to_be() {
    let mut summary = run(&NAMES);
    summary.network.official = Some(SplitResult::new("official", &[1, 1], &[0.2, 0.8, 0.6, 0.4], 2, 1).unwrap());
    let text = split_table(&summary.network, "PNEUMONIA").to_text();
    assert!(text.contains("undefined one class only"), "{text}");
    let html = run_report(&summary).render().unwrap();
    assert!(html.contains("undefined"));
}

#[test]
fn a_diverged_or_empty_run_still_makes_a_page() {
    let mut summary = run(&NAMES);
    summary.network.epochs[2].train_loss = f64::NAN;
    summary.network.epochs[3].val_loss = f64::INFINITY;
    assert!(run_report(&summary).render().unwrap().contains("NaN"));
    summary.network.epochs.clear();
    summary.samples.clear();
    summary.data.class_names.clear();
    run_report(&summary).render().unwrap();
    let mut empty = study(true, 0, &NAMES);
    empty.networks.clear();
    study_report(&empty).render().unwrap();
}

#[test]
fn a_bad_sample_image_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    let mut summary = run(&NAMES);
    summary.samples[1].pixels.pop();
    let error = run_report(&summary).write(&path).unwrap_err().to_string();
    assert!(error.contains(&summary.samples[1].name) && !error.contains('\n'), "{error}");
    assert!(!path.exists());
}

#[test]
fn the_worst_errors_come_first() {
    let html = run_report(&run(&NAMES)).render().unwrap();
    let at = |i: u32| html.find(&format!("alt=\"person{i}_")).unwrap_or(usize::MAX);
    // Label 1 with p = 0.04 + 1/12 is the worst error among the odd ones; label 0 with p = 0.04 + 10/12 among the even ones.
    assert!(at(10) < at(1) || at(1) < at(3));
    assert!(at(1) < at(3) && at(3) < at(5));
}

/// The table of operating points and the diagram hold what the statistics say, figure by figure.
#[test]
fn thresholds_and_calibration_are_those_of_the_statistics() {
    let summary = run(&NAMES);
    let test = summary.network.test.as_ref().unwrap();
    let named = [("test".to_owned(), test)];
    let table = threshold_table(&named, "Set", "PNEUMONIA").unwrap();
    assert_eq!(table.rows().len(), 2);
    for (row, t) in table.rows().iter().zip(&test.thresholds) {
        let p = &t.point;
        let want = [p.threshold].into_iter().chain(p.rates().iter().map(|r| r.1.value.unwrap())).collect::<Vec<_>>();
        for (cell, v) in row[1..].iter().zip(want) {
            assert_eq!(cell.text, format!("{v:.4}"));
        }
        assert_eq!(row[1].detail, t.choice.to_string());
        let counts = [p.true_positives, p.false_negatives, p.false_positives, p.true_negatives];
        assert_eq!(row[7..].iter().map(|c| c.text.clone()).collect::<Vec<_>>(), counts.map(|n| n.to_string()));
    }
    let c = test.calibration.as_ref().unwrap();
    let scaled = c.scaled.as_ref().unwrap();
    let report = run_report(&summary);
    let section = report.sections.iter().find(|s| s.title == "Calibration").unwrap();
    let Some(Block::Table(table)) = section.blocks.iter().find(|b| matches!(b, Block::Table(_))) else {
        panic!("no table");
    };
    let row: Vec<&str> = table.rows()[1].iter().map(|c| c.text.as_str()).collect();
    let want = [
        c.before.ece,
        c.before.mce,
        c.log_loss,
        scaled.temperature,
        scaled.after.ece,
        scaled.after.mce,
        scaled.log_loss,
    ];
    assert_eq!((row[0], row[1]), ("test", "624"));
    assert_eq!(row[2..], want.map(|v| format!("{v:.4}")));
    let figures: Vec<_> =
        section.blocks.iter().flat_map(|b| if let Block::Figures(f) = b { &f[..] } else { &[] }).collect();
    // 16 official images make no diagram.
    assert_eq!(figures.len(), 2);
    assert_eq!(figures[1].numbers.rows().len(), c.before.bins.len() + scaled.after.bins.len());
    assert!(c.before.bins.len() <= BINS);
    for (row, bin) in figures[1].numbers.rows().iter().zip(&c.before.bins) {
        let cells = [bin.count.to_string(), format!("{:.4}", bin.confidence), format!("{:.4}", bin.share)];
        assert_eq!(row[2..].iter().map(|c| c.text.clone()).collect::<Vec<_>>(), cells);
    }
}

#[test]
fn results_of_older_runs_still_read() {
    let mut value = serde_json::to_value(run(&NAMES)).unwrap();
    for set in ["val", "test", "official"] {
        let set = value["network"][set].as_object_mut().unwrap();
        set.remove("thresholds").unwrap();
        set.remove("calibration").unwrap();
    }
    for key in ["sizes", "skipped", "shared_patients"] {
        value["data"].as_object_mut().unwrap().remove(key).unwrap();
    }
    let summary: RunSummary = serde_json::from_value(value).unwrap();
    let html = run_report(&summary).render().unwrap();
    assert!(!html.contains("Calibration") && !html.contains("Operating points"));
}

#[test]
fn survives_json() {
    let before = study(false, 2, &NAMES);
    let text = serde_json::to_string(&before).unwrap();
    let after: DepthStudy = serde_json::from_str(&text).unwrap();
    assert_eq!(after.networks[0].val.roc.len(), before.networks[0].val.roc.len());
    assert_eq!(study_table(&after), study_table(&before));
}
