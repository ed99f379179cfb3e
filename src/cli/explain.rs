//! `radiograd explain`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::format::bytes;
use super::{Context, Failure, loading};
use crate::data::read_image;
use crate::exec::Executor;
use crate::explain::{DEFAULT_BYTES, Explanation, Request, explain};
use crate::fsio;
use crate::report::explain::{explain_json, explain_page};
use crate::train::infer::Network;

/// Most networks on one page.
const MOST: usize = 4;

/// Shows on one page what a trained network makes of an image: every layer, every step of its convolutions, and why it answers so.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  radiograd explain --run runs/cnn3 film.jpeg --out film.html\n  \
    radiograd explain --run runs/cnn1 film.jpeg --compare runs/cnn2 --compare runs/cnn3 --label PNEUMONIA --out depth.html")]
pub struct ExplainArgs {
    /// Run folder of a finished training, whose best weights are taken
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// Image file
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Another run to show beside it; again for more
    #[arg(long, value_name = "RUN")]
    compare: Vec<PathBuf>,
    /// Class whose logit is explained and stepped through, by name; the one that the network decides for, unless given
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// True class of the image, by name: shows the loss and its gradients
    #[arg(long, value_name = "CLASS")]
    label: Option<String>,
    /// The page to write: .html, or .json for what it is made of
    #[arg(long, value_name = "PAGE.html")]
    out: PathBuf,
}

/// What was written.
#[derive(Serialize)]
struct Report {
    file: String,
    bytes: usize,
    image: String,
    networks: Vec<NetworkReport>,
}

#[derive(Serialize)]
struct NetworkReport {
    run: String,
    model: String,
    class: String,
    probabilities: Vec<(String, f64)>,
    notes: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// A run or the image does not read; a class that there is not; the device failed; the page cannot be written.
pub fn run(args: &ExplainArgs, cx: &Context) -> Result<(), Failure> {
    let json = is_json(args)?;
    let runs: Vec<&PathBuf> = [&args.run].into_iter().chain(&args.compare).collect();
    if runs.len() > MOST {
        return Err(Failure::Message(format!(
            "--compare: a page has room for {MOST} networks, {} were named",
            runs.len()
        )));
    }
    let mut networks = Vec::with_capacity(runs.len());
    for run in &runs {
        networks.push(Network::of_run(run)?);
    }
    // Everything that can be wrong with the request is found before the device starts.
    let images = networks.iter().map(|(network, config)| {
        let pixels = read_image(&args.image, (config.size, config.size), config.channels)?;
        Ok((pixels, class(network, "--label", args.label.as_ref())?, class(network, "--class", args.class.as_ref())?))
    });
    let images = images.collect::<Result<Vec<_>, Failure>>()?;
    let mut executor = cx.open()?.device.into_executor();
    // The page may be passed on; where the image lies is nobody's business.
    let name = crate::data::shown(args.image.file_name().map_or(args.image.as_path(), Path::new));
    let mut explanations = Vec::with_capacity(runs.len());
    for ((network, _), (pixels, label, target)) in networks.iter().zip(&images) {
        let asked = Asked { name: &name, pixels, label: *label, target: *target, bytes: DEFAULT_BYTES / runs.len() };
        explanations.push(one(executor.as_mut(), network, &asked)?);
    }
    let page = if json { explain_json(&explanations) } else { explain_page(&explanations) };
    let page = page.map_err(crate::train::TrainError::from)?;
    fsio::write_atomic(&args.out, page.as_bytes())?;

    let network = |(run, e): (&&PathBuf, &Explanation)| NetworkReport {
        run: run.display().to_string(),
        model: e.model.text.clone(),
        class: e.model.classes[e.decision].clone(),
        probabilities: e.model.classes.iter().cloned().zip(e.probabilities.iter().copied()).collect(),
        notes: e.notes.clone(),
    };
    let report = Report {
        file: args.out.display().to_string(),
        bytes: page.len(),
        image: name,
        networks: runs.iter().zip(&explanations).map(network).collect(),
    };
    cx.result(describe(&report), &report)
}

struct Asked<'a> {
    name: &'a str,
    pixels: &'a [u8],
    label: Option<usize>,
    target: Option<usize>,
    bytes: usize,
}

fn one(executor: &mut dyn Executor, network: &Network, asked: &Asked<'_>) -> Result<Explanation, Failure> {
    let request = Request {
        model: network.model(),
        store: &network.store()?,
        classes: &network.classes,
        mean: &network.mean,
        std: &network.std,
        name: asked.name,
        pixels: asked.pixels,
        label: asked.label,
        target: asked.target,
        bytes: asked.bytes,
    };
    Ok(explain(executor, &request)?)
}

/// Whether the data is wanted instead of the page; files that are needed elsewhere are refused.
fn is_json(args: &ExplainArgs) -> Result<bool, Failure> {
    let shown = args.out.display();
    let refuse = |problem: String| Err(Failure::Message(format!("--out: {problem}")));
    let extension = args.out.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let json = match extension.as_deref() {
        Some("html" | "htm") => false,
        Some("json") => true,
        _ => return refuse(format!("{shown} must end with .html, or with .json for the data alone")),
    };
    let real = |path: &Path| path.canonicalize().ok();
    if real(&args.out).is_some_and(|out| real(&args.image) == Some(out)) {
        return refuse(format!("{shown} is the image itself; name another file"));
    }
    let in_run = args.out.with_file_name("config.toml").is_file();
    if in_run && args.out.file_name().is_some_and(|name| name == "report.html") {
        return refuse(format!("{shown} is the report of a run; name another file"));
    }
    Ok(json)
}

/// The number of a class.
fn class(network: &Network, option: &str, name: Option<&String>) -> Result<Option<usize>, Failure> {
    let Some(name) = name else { return Ok(None) };
    let found = network.classes.iter().position(|c| c == name);
    let found = found.or_else(|| network.classes.iter().position(|c| c.eq_ignore_ascii_case(name)));
    match found {
        Some(class) => Ok(Some(class)),
        None => {
            let known = network.classes.join(", ");
            Err(Failure::Message(format!("{option} {name:?}: the network {} knows {known}", network.model().text())))
        }
    }
}

fn describe(report: &Report) -> String {
    let mut lines: Vec<String> = report
        .networks
        .iter()
        .map(|n| {
            let all: Vec<String> = n.probabilities.iter().map(|(c, p)| format!("{c} {p:.4}")).collect();
            format!("{} ({}): {} ({})", n.run, n.model, n.class, all.join(", "))
        })
        .collect();
    lines.push(format!("{}: {}, opens in a browser", report.file, bytes(report.bytes as u64)));
    lines.push(loading::NOTICE.to_owned());
    lines.join("\n")
}
