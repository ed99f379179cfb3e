//! `radiograd predict`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Context, Failure, loading};
use crate::data::{Images, read_image};
use crate::metrics::argmax;
use crate::train::infer::Network;

/// Gives the probabilities of single images.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  radiograd predict --run runs/cnn2 film1.jpeg film2.png")]
pub struct PredictArgs {
    /// Run folder of a finished training
    #[arg(long)]
    pub run: PathBuf,
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
    let (network, config) = Network::of_run(&args.run)?;
    let mut pixels = Vec::new();
    for path in &args.images {
        pixels.extend(read_image(path, (config.size, config.size), config.channels)?);
    }
    let mut executor = cx.open()?.device.into_executor();
    let n = args.images.len();
    let names: Vec<String> = args.images.iter().map(|p| crate::data::shown(p)).collect();
    let images = Images {
        channels: config.channels,
        height: config.size,
        width: config.size,
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
