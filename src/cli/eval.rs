//! `radiograd eval`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Context, Failure, loading};
use crate::data::{Splits, load};
use crate::report::data::SplitResult;
use crate::train::TrainConfig;
use crate::train::infer::{Network, Setup};

/// Measures a trained network on one split.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  radiograd eval --run runs/cnn2 --data chest_xray --split test\n  \
    radiograd eval --model conv16-relu-pool-flatten-dense1 --weights net.pth --data set.npz --split test --mean 0.5 --std 0.5")]
pub struct EvalArgs {
    /// Run folder of a finished training
    #[arg(long, conflicts_with_all = ["model", "weights"], required_unless_present = "weights")]
    pub run: Option<PathBuf>,
    /// Network of the weights
    #[arg(long, value_name = "SPEC", requires = "weights")]
    pub model: Option<String>,
    /// Weights: .safetensors, or a PyTorch zip state_dict
    #[arg(long, value_name = "FILE", requires = "model")]
    pub weights: Option<PathBuf>,
    /// Image folder, .npz file or `phantom`; the run's own data when absent
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// train, val, official_val or test
    #[arg(long, default_value = "test")]
    pub split: String,
    /// Height and width of the images; 28 for weights without a run, unless given
    #[arg(long)]
    pub size: Option<usize>,
    /// 1 (grey) or 3 (RGB)
    #[arg(long)]
    pub channels: Option<usize>,
    /// Mean that is subtracted from x/255; one number or one a channel
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub mean: Vec<f32>,
    /// Standard deviation that is divided by
    #[arg(long, value_delimiter = ',')]
    pub std: Vec<f32>,
    /// Write the logits, one image a line, to this CSV file
    #[arg(long, value_name = "FILE.csv")]
    pub logits: Option<PathBuf>,
}

#[derive(Serialize)]
struct Answer<'a> {
    split: &'a str,
    images: usize,
    result: &'a SplitResult,
}

/// Runs the command.
///
/// # Errors
/// The run, the weights or the data do not read or do not fit each other; the device failed.
pub fn run(args: &EvalArgs, cx: &Context) -> Result<(), Failure> {
    let splits = Splits::only(&args.split)?;
    let mut config = TrainConfig { size: 28, ..TrainConfig::default() };
    let mut of_run = None;
    if let Some(folder) = &args.run {
        let (network, saved) = Network::of_run(folder)?;
        config = saved;
        of_run = Some(network);
        if args.size.is_some() || args.channels.is_some() || !args.mean.is_empty() || !args.std.is_empty() {
            return Err(Failure::Message("--size, --channels, --mean and --std are the run's own".to_owned()));
        }
    }
    config.size = args.size.unwrap_or(config.size);
    config.channels = args.channels.unwrap_or(config.channels);
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    } else if args.run.is_none() {
        return Err(Failure::Message("--data is needed with --weights".to_owned()));
    }
    if let Some(model) = &args.model {
        config.check_network(model)?;
    }
    // The split by patient must be the training's; without a run, --seed decides it.
    if args.run.is_none() {
        config.seed = cx.seed.unwrap_or(config.seed);
    }
    let mut executor = cx.open()?.device.into_executor();
    let data = load(&loading::source(&config.data)?, &loading::options(&config, splits, cx))?;
    loading::say_notes(&data, cx);
    let network = match (of_run, &args.weights, &args.model) {
        (Some(network), ..) => network,
        (None, Some(weights), Some(model)) => {
            let or = |v: &[f32], default: f32| if v.is_empty() { vec![default] } else { v.to_vec() };
            let setup = Setup {
                model: model.clone(),
                size: config.size,
                channels: config.channels,
                classes: data.classes.clone(),
                mean: or(&args.mean, 0.0),
                std: or(&args.std, 1.0),
            };
            let network = Network::of_weights(&setup, weights)?;
            for line in network.matching.to_string().lines() {
                cx.note(line);
            }
            network
        }
        _ => return Err(Failure::Message("give --run, or --model and --weights".to_owned())),
    };
    if network.classes != data.classes {
        let (a, b) = (network.classes.join(", "), data.classes.join(", "));
        return Err(Failure::Message(format!("the network knows the classes {a}; {} has {b}", config.data)));
    }
    let images = data.splits().find(|(name, _)| *name == args.split).map(|(_, images)| images);
    let images = images.ok_or_else(|| Failure::Message(format!("{} has no {} images", config.data, args.split)))?;
    let (p, logits) = network.predict(executor.as_mut(), images)?;
    let result = SplitResult::new(&args.split, &images.labels, &p, data.classes.len(), config.seed)?;
    if let Some(path) = &args.logits {
        let outputs = network.model().outputs();
        let mut text = String::from("image,label");
        (0..outputs).for_each(|k| text.push_str(&format!(",logit{k}")));
        for (i, row) in logits.chunks_exact(outputs).enumerate() {
            let name = images.names[i].replace('"', "\"\"");
            text.push_str(&format!(
                "
\"{name}\",{}",
                images.labels[i]
            ));
            row.iter().for_each(|v| text.push_str(&format!(",{v}")));
        }
        text.push('\n');
        crate::fsio::write_atomic(path, text.as_bytes())?;
    }
    let answer = Answer { split: &args.split, images: images.len(), result: &result };
    cx.result(describe(&result, &data.classes), &answer)
}

/// The figures as text.
fn describe(r: &SplitResult, classes: &[String]) -> String {
    let m = &r.metrics;
    let mut lines = vec![format!(
        "{}: {} images, accuracy {:.4} {} (95 %), loss {:.4}, macro F1 {:.4}",
        r.name, m.count, m.accuracy, r.accuracy_interval, r.loss, m.macro_f1
    )];
    if let Some(b) = &m.binary {
        let number = |v: Option<f64>| v.map_or("undefined (one class only)".to_owned(), |v| format!("{v:.4}"));
        let interval = r.auc_interval.map_or(String::new(), |i| format!(" {i} (95 %)"));
        lines.push(format!(
            "ROC-AUC {}{interval}, average precision {}, Brier {:.4}",
            number(b.roc_auc),
            number(b.average_precision),
            b.brier
        ));
    }
    let name = |k: usize| classes.get(k).cloned().unwrap_or_else(|| k.to_string());
    for (k, c) in m.classes.iter().enumerate() {
        lines.push(format!(
            "{}: precision {:.4}, recall {:.4}, F1 {:.4}, {} images",
            name(k),
            c.precision,
            c.recall,
            c.f1,
            c.support
        ));
    }
    lines.push("confusion matrix (rows: truth, columns: decision):".to_owned());
    for (k, row) in m.confusion.rows().iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|n| format!("{n:>6}")).collect();
        lines.push(format!("{:>16} {}", name(k), cells.join("")));
    }
    lines.push(loading::NOTICE.to_owned());
    lines.join("\n")
}
