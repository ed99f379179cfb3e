//! `radiograd eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::loading::TransferArgs;
use super::{Context, Failure, loading};
use crate::data::{Dataset, Images, Splits, load};
use crate::exec::Executor;
use crate::report::data::SplitResult;
use crate::report::estimate_table;
use crate::stats::{Interval, Rule, delong};
use crate::train::evaluate::{self, Calibration, Operating, Temperature};
use crate::train::infer::{Network, Setup};
use crate::train::predictions::{PREDICTIONS, Predictions, SplitPredictions};
use crate::train::tta::Tta;
use crate::train::{TrainConfig, TrainError, init};

/// Measures a trained network, or the mean of several, on one split.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  radiograd eval --run runs/cnn2 --data chest_xray --split test\n  \
    radiograd eval --run runs/cnn2 --sensitivity 0.95 --temperature\n  \
    radiograd eval --run runs/a --run runs/b --tta hflip --predictions mean.csv\n  \
    radiograd eval --model conv16-relu-pool-flatten-dense1 --weights net.pth --data set.npz --split test --mean 0.5 --std 0.5\n  \
    radiograd eval --model resnet18 --weights net.pth --grey sum --key-map backbone= --data chest_xray --size 224")]
pub struct EvalArgs {
    /// Run folder of a finished training; several: the mean of their probabilities
    #[arg(long, conflicts_with_all = ["model", "weights"], required_unless_present = "weights")]
    pub run: Vec<PathBuf>,
    /// Network of the weights
    #[arg(long, value_name = "SPEC", requires = "weights")]
    pub model: Option<String>,
    /// Weights: a .safetensors file, a PyTorch state_dict, a run folder, or the name of published ones
    #[arg(long, value_name = "FILE", requires = "model")]
    pub weights: Option<String>,
    #[command(flatten)]
    pub transfer: TransferArgs,
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
    /// Average over views of each image: hflip (its mirror), N (moves by N pixels), or both: hflip,2
    #[arg(long, value_name = "VIEWS", default_value = "none")]
    pub tta: Tta,
    /// Divide the logits by a temperature that is fitted on the validation images
    #[arg(long)]
    pub temperature: bool,
    /// Also measure at the threshold that finds this share of the positive validation images
    #[arg(long, value_name = "SHARE", group = "rule")]
    pub sensitivity: Option<f64>,
    /// Also measure at the threshold that clears this share of the negative validation images
    #[arg(long, value_name = "SHARE", group = "rule")]
    pub specificity: Option<f64>,
    /// Also measure at the threshold with the largest sensitivity + specificity on the validation images
    #[arg(long, group = "rule")]
    pub youden: bool,
    /// Write the logits, one image a line, to this CSV file
    #[arg(long, value_name = "FILE.csv")]
    pub logits: Option<PathBuf>,
    /// Write the probabilities, one image a line, to this CSV file, which `radiograd compare` reads
    #[arg(long, value_name = "FILE.csv")]
    pub predictions: Option<PathBuf>,
}

impl EvalArgs {
    fn rule(&self) -> Option<Rule> {
        let rule = self.sensitivity.map(Rule::Sensitivity).or(self.specificity.map(Rule::Specificity));
        rule.or(self.youden.then_some(Rule::Youden))
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    split: &'a str,
    images: usize,
    tta: Tta,
    members: usize,
    result: &'a SplitResult,
    /// DeLong's 95 % interval of the ROC-AUC, images taken as independent.
    delong_interval: Option<Interval>,
    calibration: Calibration,
    temperature: Option<Temperature>,
    operating: Option<Operating>,
}

/// A network that is asked, with the settings that say which images it wants.
struct Member {
    network: Network,
    config: TrainConfig,
    folder: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The run, the weights or the data do not read or do not fit each other; the device failed.
pub fn run(args: &EvalArgs, cx: &Context) -> Result<(), Failure> {
    let splits = Splits::only(&args.split)?;
    if args.logits.is_some() && (args.run.len() > 1 || args.tta != Tta::default() || args.temperature) {
        let problem = "--logits: a mean of networks or views has no logits; write --predictions instead";
        return Err(Failure::Message(problem.to_owned()));
    }
    let mut members = runs(args)?;
    let plain = plain_config(args, cx)?;
    let weights = args.weights.as_deref().map(init::find).transpose()?;
    let mut executor = cx.open()?.device.into_executor();
    let mut shelf = Shelf { cx, loaded: None };
    if let (Some(config), Some(weights)) = (plain, weights) {
        let data = shelf.load(&config, splits)?;
        members.push(member_of_weights(args, cx, config, &weights, data.classes.clone())?);
    }
    let mut logits = Vec::new();
    let mut parts = Vec::new();
    for member in &members {
        let mut config = member.config.clone();
        if let Some(data) = &args.data {
            config.data.clone_from(data);
        }
        let images = shelf.images(&config, splits, &args.split, &member.network)?;
        let (p, raw) = args.tta.predict(&member.network, executor.as_mut(), images)?;
        parts.push(SplitPredictions::new(&args.split, images, p));
        logits = raw;
    }
    let first = members.first().ok_or_else(|| Failure::Message("give --run, or --model and --weights".to_owned()))?;
    let classes = first.network.classes.clone();
    let k = classes.len();
    let seed = first.config.seed;
    let mut measured = evaluate::mean_of(parts)?;
    let mut validation = match args.rule().is_some() || args.temperature {
        true => Some(validation(args, &members, &mut shelf, executor.as_mut())?),
        false => None,
    };
    if args.split == "val" && validation.is_some() {
        cx.note(
            "threshold and temperature are chosen on the very images measured: choose another --split to judge them",
        );
    }
    let temperature = match &mut validation {
        Some(validation) if args.temperature => Some(evaluate::scale(validation, &mut measured, k)?),
        _ => None,
    };
    let operating = match (&validation, args.rule()) {
        (Some(validation), Some(rule)) => Some(evaluate::operate(validation, &measured, k, rule, seed)?),
        _ => None,
    };
    let result = SplitResult::of_patients(
        &args.split,
        &measured.labels,
        &measured.probabilities,
        k,
        measured.units().as_ref(),
        seed,
    )?;
    let delong_interval = match k {
        2 => delong(&measured.positive(), &measured.column(1, 2)).and_then(|d| d.interval()),
        _ => None,
    };
    let calibration = evaluate::calibration(&measured, k)?;
    let images = measured.len();
    if let Some(path) = &args.logits {
        write_logits(path, &measured, &logits, first.network.model().outputs())?;
    }
    if let Some(path) = &args.predictions {
        Predictions { classes: classes.clone(), splits: vec![measured] }.write(path)?;
    }
    let answer = Answer {
        split: &args.split,
        images,
        tta: args.tta,
        members: members.len(),
        result: &result,
        delong_interval,
        calibration,
        temperature,
        operating,
    };
    cx.result(describe(&answer, &classes), &answer)
}

/// The networks of the runs that were named.
fn runs(args: &EvalArgs) -> Result<Vec<Member>, Failure> {
    if !args.run.is_empty()
        && (args.size.is_some() || args.channels.is_some() || !args.mean.is_empty() || !args.std.is_empty())
    {
        return Err(Failure::Message("--size, --channels, --mean and --std are the run's own".to_owned()));
    }
    if !args.run.is_empty() && (args.transfer.grey.is_some() || !args.transfer.key_map.is_empty()) {
        return Err(Failure::Message("--key-map and --grey are for --weights, not for a run".to_owned()));
    }
    let mut members: Vec<Member> = Vec::new();
    for folder in &args.run {
        let (network, config) = Network::of_run(folder)?;
        if let Some(first) = members.first()
            && first.network.classes != network.classes
        {
            let (a, b) = (first.network.classes.join(", "), network.classes.join(", "));
            return Err(Failure::Message(format!("the runs know other classes: {a}, and {b} in {}", folder.display())));
        }
        members.push(Member { network, config, folder: Some(folder.clone()) });
    }
    Ok(members)
}

/// The settings of weights without a run.
fn plain_config(args: &EvalArgs, cx: &Context) -> Result<Option<TrainConfig>, Failure> {
    let Some(model) = &args.model else { return Ok(None) };
    let defaults = TrainConfig::default();
    let data = args.data.clone().ok_or_else(|| Failure::Message("--data is needed with --weights".to_owned()))?;
    let config = TrainConfig {
        data,
        size: args.size.unwrap_or(28),
        channels: args.transfer.channels(args.channels)?,
        // The split by patient must be the training's; without a run, --seed decides it.
        seed: cx.seed.unwrap_or(defaults.seed),
        ..defaults
    };
    config.check_network(model)?;
    Ok(Some(config))
}

fn member_of_weights(
    args: &EvalArgs,
    cx: &Context,
    config: TrainConfig,
    weights: &Path,
    classes: Vec<String>,
) -> Result<Member, Failure> {
    let or = |v: &[f32], default: f32| if v.is_empty() { vec![default] } else { v.to_vec() };
    let setup = Setup {
        model: args.model.clone().unwrap_or_default(),
        size: config.size,
        channels: config.channels,
        classes,
        mean: or(&args.mean, 0.0),
        std: or(&args.std, 1.0),
        renames: args.transfer.key_map.clone(),
        grey: args.transfer.grey,
    };
    let network = Network::of_weights(&setup, weights)?;
    for line in network.matching.to_string().lines() {
        cx.note(line);
    }
    Ok(Member { network, config, folder: None })
}

/// The data that was read last: members that want the same images share them.
struct Shelf<'a> {
    cx: &'a Context,
    loaded: Option<(TrainConfig, Splits, Dataset)>,
}

impl Shelf<'_> {
    fn load(&mut self, config: &TrainConfig, splits: Splits) -> Result<&Dataset, Failure> {
        // What decides the images, and nothing else.
        let wants = TrainConfig {
            data: config.data.clone(),
            size: config.size,
            channels: config.channels,
            seed: config.split_seed.unwrap_or(config.seed),
            val_fraction: config.val_fraction,
            exclude_patients: config.exclude_patients.clone(),
            strict: config.strict,
            fold: config.fold,
            ..TrainConfig::default()
        };
        let data = match self.loaded.take() {
            Some((has, same, data)) if has == wants && same == splits => data,
            _ => {
                let data = load(&loading::source(&wants.data)?, &loading::options(&wants, splits, self.cx))?;
                loading::say_notes(&data, self.cx);
                data
            }
        };
        Ok(&self.loaded.insert((wants, splits, data)).2)
    }

    fn images(
        &mut self,
        config: &TrainConfig,
        splits: Splits,
        split: &str,
        network: &Network,
    ) -> Result<&Images, Failure> {
        let data = self.load(config, splits)?;
        if network.classes != data.classes {
            let (a, b) = (network.classes.join(", "), data.classes.join(", "));
            return Err(Failure::Message(format!("the network knows the classes {a}; {} has {b}", config.data)));
        }
        let images = data.splits().find(|(name, _)| *name == split).map(|(_, images)| images);
        images.ok_or_else(|| Failure::Message(format!("{} has no {split} images", config.data)))
    }
}

/// What the members say of the validation images of their training: from the run folder, or, with views or without such a
/// file, by asking the networks.
fn validation(
    args: &EvalArgs,
    members: &[Member],
    shelf: &mut Shelf<'_>,
    executor: &mut dyn Executor,
) -> Result<SplitPredictions, Failure> {
    let splits = Splits::only("val")?;
    let mut parts = Vec::new();
    for member in members {
        let file = member.folder.as_ref().map(|f| f.join(PREDICTIONS)).filter(|f| f.is_file());
        let kept = match (file, args.tta == Tta::default()) {
            (Some(file), true) => Predictions::read(&file)?.split("val").cloned(),
            _ => None,
        };
        parts.push(match kept {
            Some(kept) => kept,
            None => {
                let images = shelf.images(&member.config, splits, "val", &member.network)?;
                let (p, _) = args.tta.predict(&member.network, executor, images)?;
                SplitPredictions::new("val", images, p)
            }
        });
    }
    evaluate::mean_of(parts).map_err(|e| match e {
        // Images held out by one run were fitted by another.
        TrainError::Setting { problem, .. } => Failure::Message(format!(
            "{problem}: a threshold or temperature needs validation images that none of the runs was fitted to; train \
             them with the same split"
        )),
        other => other.into(),
    })
}

fn write_logits(path: &Path, set: &SplitPredictions, logits: &[f32], outputs: usize) -> Result<(), Failure> {
    let mut text = String::from("image,label");
    (0..outputs).for_each(|k| text.push_str(&format!(",logit{k}")));
    for (i, row) in logits.chunks_exact(outputs).enumerate() {
        let name = set.images[i].replace('"', "\"\"");
        text.push_str(&format!("\n\"{name}\",{}", set.labels[i]));
        row.iter().for_each(|v| text.push_str(&format!(",{v}")));
    }
    text.push('\n');
    crate::fsio::write_atomic(path, text.as_bytes())?;
    Ok(())
}

/// The figures as text.
fn describe(answer: &Answer<'_>, classes: &[String]) -> String {
    let r = answer.result;
    let m = &r.metrics;
    let mut lines = vec![format!(
        "{}: {} images, accuracy {:.4} {} (95 %), loss {:.4}, macro F1 {:.4}",
        r.name, m.count, m.accuracy, r.accuracy_interval, r.loss, m.macro_f1
    )];
    if answer.members > 1 {
        lines.push(format!("mean of {} networks", answer.members));
    }
    if answer.tta != Tta::default() {
        lines.push(format!("mean over views: {}", answer.tta));
    }
    if let Some(b) = &m.binary {
        let number = |v: Option<f64>| v.map_or("undefined (one class only)".to_owned(), |v| format!("{v:.4}"));
        let interval = answer.delong_interval.map_or(String::new(), |i| format!(" {i:.4} (95 %, DeLong)"));
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
    lines.push(estimate_table(r).to_text());
    if let Some(t) = &answer.temperature {
        lines.push(temperature_text(t, &r.name));
    }
    if let Some(o) = &answer.operating {
        lines.push(operating_text(o, &r.name));
    }
    lines.push(loading::NOTICE.to_owned());
    lines.join("\n")
}

fn temperature_text(t: &Temperature, split: &str) -> String {
    let one = |name: &str, before: &Calibration, after: &Calibration| {
        format!(
            "{name}: log loss {:.4} -> {:.4}, ECE {:.4} -> {:.4}",
            before.log_loss, after.log_loss, before.equal_width.ece, after.equal_width.ece
        )
    };
    format!(
        "temperature {:.4}, fitted on validation (the figures above are after it)\n{}\n{}",
        t.temperature,
        one("validation", &t.validation_before, &t.validation_after),
        one(split, &t.measured_before, &t.measured_after)
    )
}

fn operating_text(o: &Operating, split: &str) -> String {
    let asked = match o.rule {
        Rule::Sensitivity(s) => format!("sensitivity {s} on validation"),
        Rule::Specificity(s) => format!("specificity {s} on validation"),
        Rule::Youden => "Youden's J on validation".to_owned(),
    };
    let mut lines = vec![format!("threshold {:.6} ({asked}):", o.measured.threshold)];
    for ((name, there), (_, here)) in o.validation.rates().into_iter().zip(o.measured.rates()) {
        let number = |v: Option<f64>| v.map_or("undefined".to_owned(), |v| format!("{v:.4}"));
        let interval = |i: Option<Interval>, of: &str| i.map_or(String::new(), |i| format!(" {i} ({of})"));
        lines.push(format!(
            "  {name}: {split} {}{}{}, validation {}",
            number(here.value),
            interval(here.images, "images"),
            interval(here.patients, "patients"),
            number(there.value)
        ));
    }
    lines.join("\n")
}
