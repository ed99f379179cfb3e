//! `radiograd predict`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::loading::TransferArgs;
use super::{Context, Failure, loading};
use crate::data::{Images, read_image};
use crate::metrics::argmax;
use crate::train::infer::{Network, Setup};
use crate::train::{TrainConfig, TrainError, init};
use crate::weights;

/// Gives the probabilities of single images.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  radiograd predict --run runs/cnn2 film1.jpeg film2.png\n  \
    radiograd predict --model resnet18 --weights net.pth --classes NORMAL,PNEUMONIA --size 224 --grey repeat film.jpeg")]
pub struct PredictArgs {
    /// Run folder of a finished training
    #[arg(long, conflicts_with_all = ["model", "weights"], required_unless_present = "weights")]
    pub run: Option<PathBuf>,
    /// Network of the weights
    #[arg(long, value_name = "SPEC", requires = "weights")]
    pub model: Option<String>,
    /// Weights: a .safetensors file, a PyTorch state_dict, a run folder, or the name of published ones
    #[arg(long, value_name = "FILE", requires = "model")]
    pub weights: Option<String>,
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// Class names of the weights, in order; needed where the file does not know them
    #[arg(long, value_name = "A,B,...", value_delimiter = ',', requires = "weights")]
    pub classes: Vec<String>,
    /// Height and width that the images are brought to; 28 for weights without a run, unless given
    #[arg(long, requires = "weights")]
    pub size: Option<usize>,
    /// 1 (grey) or 3 (RGB)
    #[arg(long, requires = "weights")]
    pub channels: Option<usize>,
    /// Mean that is subtracted from x/255; one number or one a channel
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true, requires = "weights")]
    pub mean: Vec<f32>,
    /// Standard deviation that is divided by
    #[arg(long, value_delimiter = ',', requires = "weights")]
    pub std: Vec<f32>,
    /// Image files
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Prediction {
    image: String,
    class: String,
    probabilities: Vec<(String, f64)>,
}

/// Runs the command.
///
/// # Errors
/// The run or an image does not read; the device failed.
pub fn run(args: &PredictArgs, cx: &Context) -> Result<(), Failure> {
    let (network, [channels, size, _]) = network(args, cx)?;
    let mut pixels = Vec::new();
    for path in &args.images {
        pixels.extend(read_image(path, (size, size), channels)?);
    }
    let mut executor = cx.open()?.device.into_executor();
    let n = args.images.len();
    let names: Vec<String> = args.images.iter().map(|p| crate::data::shown(p)).collect();
    let images = Images {
        channels,
        height: size,
        width: size,
        pixels,
        labels: vec![0; n],
        names: names.clone(),
        patients: names.clone(),
    };
    let (p, _) = network.predict(executor.as_mut(), &images)?;
    let answers: Vec<Prediction> = names
        .into_iter()
        .zip(p.chunks_exact(network.classes.len()))
        .map(|(image, p)| Prediction {
            image,
            class: network.classes[argmax(p) as usize].clone(),
            probabilities: network.classes.iter().cloned().zip(p.iter().copied()).collect(),
        })
        .collect();
    let mut lines: Vec<String> = answers
        .iter()
        .map(|a| {
            let all: Vec<String> = a.probabilities.iter().map(|(c, p)| format!("{c} {p:.4}")).collect();
            format!("{}: {} ({})", a.image, a.class, all.join(", "))
        })
        .collect();
    lines.push(loading::NOTICE.to_owned());
    cx.result(lines.join("\n"), &answers)
}

/// The network that was named, and the channels, height and width of its images.
fn network(args: &PredictArgs, cx: &Context) -> Result<(Network, [usize; 3]), Failure> {
    let (Some(model), Some(named)) = (&args.model, &args.weights) else {
        if args.transfer.grey.is_some() || !args.transfer.key_map.is_empty() {
            return Err(Failure::Message("--key-map and --grey are for --weights, not for a run".to_owned()));
        }
        let folder =
            args.run.as_ref().ok_or_else(|| Failure::Message("give --run, or --model and --weights".to_owned()))?;
        let (network, config) = Network::of_run(folder)?;
        return Ok((network, [config.channels, config.size, config.size]));
    };
    let (channels, size) = (args.transfer.channels(args.channels)?, args.size.unwrap_or(28));
    TrainConfig { size, channels, ..TrainConfig::default() }.check_network(model)?;
    let path = init::find(named)?;
    let classes = match args.classes.as_slice() {
        [] => weights::load(&path).map_err(TrainError::from)?.classes().ok_or_else(|| {
            Failure::Message(format!("{} does not name its classes: give them with --classes", path.display()))
        })?,
        given => given.to_vec(),
    };
    let or = |v: &[f32], default: f32| if v.is_empty() { vec![default] } else { v.to_vec() };
    let setup = Setup {
        model: model.clone(),
        size,
        channels,
        classes,
        mean: or(&args.mean, 0.0),
        std: or(&args.std, 1.0),
        renames: args.transfer.key_map.clone(),
        grey: args.transfer.grey,
    };
    let network = Network::of_weights(&setup, &path)?;
    for line in network.matching.to_string().lines() {
        cx.note(line);
    }
    Ok((network, [channels, size, size]))
}
