//! `radiograd export`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::format::{bytes, grouped};
use super::{Context, Failure, loading};
use crate::fsio::{self, FsError};
use crate::nn::Model;
use crate::onnx::{self, Pixels};
use crate::train::TrainError;
use crate::train::checkpoint::{BEST, LAST};
use crate::train::infer::{Network, Setup};
use crate::weights;

/// Writes a trained network as ONNX, or its weights as safetensors.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  radiograd export --run runs/cnn2 --out cnn2.onnx\n  \
    radiograd export --run runs/cnn2 --pixels --out cnn2.onnx\n  \
    radiograd export --model resnet18 --weights net.pth --size 224 --channels 3 --out net.safetensors")]
pub struct ExportArgs {
    /// Run folder of a finished training, whose best weights are taken
    #[arg(long, conflicts_with_all = ["model", "weights"], required_unless_present = "weights")]
    run: Option<PathBuf>,
    /// Network of the weights
    #[arg(long, value_name = "SPEC", requires = "weights")]
    model: Option<String>,
    /// Weights: .safetensors, or a PyTorch zip state_dict
    #[arg(long, value_name = "FILE", requires_all = ["model", "size"])]
    weights: Option<PathBuf>,
    /// Height and width of the images, for --weights; a run knows its own
    #[arg(long, value_name = "S", conflicts_with = "run")]
    size: Option<usize>,
    /// 1 (grey) or 3 (RGB), for --weights
    #[arg(long, default_value_t = 1, value_name = "C", conflicts_with = "run")]
    channels: usize,
    /// Classes that the weights tell apart
    #[arg(long, default_value_t = 2, value_name = "K", conflicts_with = "run")]
    classes: usize,
    /// Mean that is subtracted from x/255, for --weights; one number or one a channel
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true, conflicts_with = "run")]
    mean: Vec<f32>,
    /// Standard deviation that is divided by, for --weights
    #[arg(long, value_delimiter = ',', conflicts_with = "run")]
    std: Vec<f32>,
    /// The file to write: its extension, .onnx or .safetensors, says as what
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// ONNX: let the network take pixels from 0 to 255 and normalise them itself, instead of (pixel / 255 - mean) / std
    #[arg(long)]
    pixels: bool,
}

/// What was written.
#[derive(Serialize)]
struct Report {
    file: String,
    format: &'static str,
    bytes: u64,
    /// Trainable numbers.
    parameters: usize,
    /// Channels, height and width of the images.
    input: [usize; 3],
    outputs: usize,
    /// Nodes of the ONNX graph.
    nodes: Option<usize>,
    classes: Vec<String>,
    mean: Vec<f32>,
    std: Vec<f32>,
    /// Whether the network takes pixels and normalises them itself.
    pixels: bool,
}

/// Runs the command.
///
/// # Errors
/// The run or the weights do not read or do not fit the network; the file cannot be written, or is one that must stay.
pub fn run(args: &ExportArgs, cx: &Context) -> Result<(), Failure> {
    let format = format(args)?;
    let network = network(args)?;
    let model = network.model();
    let mut nodes = None;
    if format == ONNX {
        let pixels = Pixels { mean: &network.mean, std: &network.std, inside: args.pixels };
        let proto = onnx::export(model, &network.store()?, pixels, network.metadata())?;
        fsio::write_atomic(&args.out, &onnx::to_bytes(&proto)?)?;
        nodes = proto.graph.map(|g| g.node.len());
    } else {
        let tensors = network.tensors()?;
        weights::save_sealed(&args.out, &tensors, network.metadata(), None).map_err(TrainError::from)?;
    }
    let report = Report {
        file: args.out.display().to_string(),
        format,
        bytes: std::fs::metadata(&args.out).map_err(|e| FsError::new("read", &args.out, e))?.len(),
        parameters: model.trainable_numel(),
        input: model.input(),
        outputs: model.outputs(),
        nodes,
        classes: network.classes.clone(),
        mean: network.mean.clone(),
        std: network.std.clone(),
        pixels: args.pixels,
    };
    cx.result(describe(&report, model), &report)
}

const ONNX: &str = "onnx";
const SAFETENSORS: &str = "safetensors";

/// What the file is to become, by its extension; files that are needed elsewhere are refused.
fn format(args: &ExportArgs) -> Result<&'static str, Failure> {
    let shown = args.out.display();
    let refuse = |problem: String| Err(Failure::Message(format!("--out: {problem}")));
    let extension = args.out.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let format = match extension.as_deref() {
        Some(ONNX) => ONNX,
        Some(SAFETENSORS) => SAFETENSORS,
        _ => return refuse(format!("{shown} must end with .onnx or .safetensors, which says as what to write it")),
    };
    if args.pixels && format != ONNX {
        return Err(Failure::Message("--pixels: weights alone take no pixels; write .onnx".to_owned()));
    }
    let real = |path: &Path| path.canonicalize().ok();
    let Some(out) = real(&args.out) else { return Ok(format) };
    if args.weights.as_deref().and_then(real).is_some_and(|weights| weights == out) {
        return refuse(format!("{shown} holds the weights that are read; name another file"));
    }
    let name = out.file_name().unwrap_or_default();
    if (name == BEST || name == LAST) && out.with_file_name("config.toml").is_file() {
        return refuse(format!("{shown} is a checkpoint that its run folder needs; name another file"));
    }
    Ok(format)
}

fn network(args: &ExportArgs) -> Result<Network, Failure> {
    if let Some(run) = &args.run {
        return Ok(Network::of_run(run)?.0);
    }
    let (Some(model), Some(weights), Some(size)) = (&args.model, &args.weights, args.size) else {
        return Err(Failure::Message("give --run, or --model, --weights and --size".to_owned()));
    };
    let or = |v: &[f32], default: f32| if v.is_empty() { vec![default] } else { v.to_vec() };
    let setup = Setup {
        model: model.clone(),
        size,
        channels: args.channels,
        classes: (0..args.classes).map(|k| k.to_string()).collect(),
        mean: or(&args.mean, 0.0),
        std: or(&args.std, 1.0),
        renames: Vec::new(),
        grey: None,
    };
    Ok(Network::of_weights(&setup, weights)?)
}

fn describe(report: &Report, model: &Model) -> String {
    let size = format!("{}, {} parameters", bytes(report.bytes), grouped(report.parameters as u64));
    let mut lines = match report.nodes {
        None => vec![format!("{}: {size}, under the network's names", report.file)],
        Some(nodes) => {
            let [c, h, w] = report.input;
            let takes = match report.pixels {
                true => "pixels from 0 to 255".to_owned(),
                false => format!("(pixel / 255 - mean) / std, mean {:?}, std {:?}", report.mean, report.std),
            };
            vec![
                format!("{}: ONNX, operator set {}, {nodes} nodes, {size}", report.file, onnx::OPSET),
                format!("{} [N, {c}, {h}, {w}]: {takes}", onnx::INPUT),
                format!("{} [N, {}]: {}", onnx::LOGITS, report.outputs, onnx::meaning(model.head())),
            ]
        }
    };
    lines.push(loading::NOTICE.to_owned());
    lines.join("\n")
}
