//! `radiograd weights`: looks at weight files, and fetches published ones.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::format::{bytes, grouped};
use super::{Context, Failure, interrupt, progress};
use crate::data::{CachePolicy, one_line};
use crate::report::table::Table;
use crate::train::init;
use crate::weights::download::{fetch, sha256_of};
use crate::weights::published::{OFFICIAL, PUBLISHED, Published, names};
use crate::weights::{self, NamedTensor, TensorData, WeightsFile};

/// Names another place for the published files, as `--url` does.
const PLACE: &str = "RADIOGRAD_WEIGHTS_URL";
/// Characters of a text in the metadata that are shown.
const SHOWN: usize = 100;

/// Arguments of `radiograd weights`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  radiograd weights get resnet34\n  radiograd train --data chest_xray --model resnet34 --init resnet34 --grey sum --size 224\n  radiograd weights show runs/cnn2"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print names, types, shapes and norms of a file's tensors
    Show(ShowArgs),
    /// List the networks with published ImageNet weights, and which of them are here
    List(ListArgs),
    /// Fetch published ImageNet weights into the cache folder, and check them
    Get(GetArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  radiograd weights show net.pth\n  radiograd weights show resnet34 --json")]
struct ShowArgs {
    /// A .safetensors file, a PyTorch state_dict, a run folder (its best weights), or the name of published ones
    file: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  radiograd weights list")]
struct ListArgs {}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  radiograd weights get resnet34\n  radiograd weights get resnet34 --url https://mirror.example/models\n\nThe file comes by the program curl, with the proxies that the environment names, and is kept in the folder `weights` below\nRADIOGRAD_CACHE, or below the user's cache folder. Only a file whose SHA-256 is that of the published one is kept.\nRADIOGRAD_WEIGHTS_URL does what --url does."
)]
struct GetArgs {
    /// alexnet, resnet18, resnet34, densenet121 or densenet161
    network: String,
    /// The address of the folder that holds the files, where it is not PyTorch's
    #[arg(long, value_name = "BASE")]
    url: Option<String>,
}

pub(super) fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    match args.command {
        Command::Show(args) => show(&args.file, cx),
        Command::List(ListArgs {}) => list(cx),
        Command::Get(args) => get(&args, cx),
    }
}

/// A tensor as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// The element type in the file.
    dtype: String,
    shape: Vec<usize>,
    elements: usize,
    /// Bytes in the file.
    bytes: usize,
    /// Root of the sum of squares; `null` where an element is NaN or infinite.
    norm: f64,
    /// The largest magnitude of the finite elements.
    largest: f64,
    /// How many elements are NaN or infinite.
    not_finite: usize,
}

#[derive(Debug, Serialize)]
struct Content {
    path: PathBuf,
    tensors: Vec<Row>,
    elements: usize,
    bytes: usize,
    not_finite: usize,
    metadata: std::collections::BTreeMap<String, String>,
}

fn show(named: &str, cx: &Context) -> Result<(), Failure> {
    let path = init::find(named)?;
    let file = weights::load(&path)?;
    let tensors: Vec<Row> = file.tensors.iter().enumerate().map(|(i, t)| row(&file, i, t)).collect();
    let content = Content {
        path,
        elements: tensors.iter().map(|t| t.elements).sum(),
        bytes: tensors.iter().map(|t| t.bytes).sum(),
        not_finite: tensors.iter().map(|t| t.not_finite).sum(),
        tensors,
        metadata: file.metadata,
    };
    cx.result(text_of(&content), &content)
}

fn row(file: &WeightsFile, place: usize, t: &NamedTensor) -> Row {
    let (mut squares, mut largest, mut not_finite) = (0.0f64, 0.0f64, 0);
    let mut count = |v: f64| {
        squares += v * v;
        if v.is_finite() {
            largest = largest.max(v.abs());
        } else {
            not_finite += 1;
        }
    };
    match &t.data {
        TensorData::F32(v) => v.iter().for_each(|&x| count(x.into())),
        TensorData::I64(v) => v.iter().for_each(|&x| count(x as f64)),
        TensorData::U8(v) => v.iter().for_each(|&x| count(x.into())),
    }
    let dtype = file.dtype(place);
    Row {
        name: t.name.clone(),
        dtype: dtype.map_or_else(String::new, |d| format!("{d:?}").to_uppercase()),
        shape: t.shape.clone(),
        elements: t.data.len(),
        bytes: t.data.len() * dtype.map_or(0, weights::DType::size),
        norm: squares.sqrt(),
        largest,
        not_finite,
    }
}

fn text_of(content: &Content) -> String {
    let caption = format!(
        "{}: {} tensors, {} elements, {}",
        content.path.display(),
        content.tensors.len(),
        grouped(content.elements as u64),
        bytes(content.bytes as u64)
    );
    let mut table = Table::new(caption, ["name", "type", "shape", ">elements", ">norm", ">largest"]);
    for t in &content.tensors {
        table.push([
            one_line(&t.name),
            t.dtype.clone(),
            format!("{:?}", t.shape),
            grouped(t.elements as u64),
            format!("{:.6}", t.norm),
            format!("{:.6}", t.largest),
        ]);
    }
    let mut text = table.to_text();
    for (key, value) in &content.metadata {
        let cut: String = value.chars().take(SHOWN).collect();
        let dots = if cut.len() < value.len() { "..." } else { "" };
        text.push_str(&format!("{}: {}{dots}\n", one_line(key), one_line(&cut)));
    }
    if content.not_finite > 0 {
        text.push_str(&format!("NaN or infinite: {}\n", grouped(content.not_finite as u64)));
    }
    text
}

/// Where the published files are kept.
fn cache() -> Result<PathBuf, Failure> {
    let text = "there is no folder for the weights: name one with the environment variable RADIOGRAD_CACHE";
    CachePolicy::User.folder().ok_or_else(|| Failure::Message(text.to_owned()))
}

/// Published weights and whether they are here.
#[derive(Debug, Serialize)]
struct Listed {
    network: &'static str,
    path: PathBuf,
    /// Length of the file; `null` where it is not here.
    bytes: Option<u64>,
    url: String,
}

fn list(cx: &Context) -> Result<(), Failure> {
    let cache = cache()?;
    let listed: Vec<Listed> = PUBLISHED
        .iter()
        .map(|p| {
            let path = p.path(&cache);
            let bytes = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
            Listed { network: p.network, path, bytes, url: p.url(OFFICIAL) }
        })
        .collect();
    let mut table = Table::new("ImageNet weights of 1000 classes, for 3 channels", ["network", "here", "file"]);
    for l in &listed {
        let here = l.bytes.map_or_else(|| "no".to_owned(), bytes);
        table.push([l.network.to_owned(), here, l.path.display().to_string()]);
    }
    cx.result(format!("{}`radiograd weights get NAME` fetches one", table.to_text()), &listed)
}

#[derive(Debug, Serialize)]
struct Got {
    network: &'static str,
    path: PathBuf,
    url: String,
    bytes: u64,
    sha256: String,
    /// Whether it had to be fetched.
    fetched: bool,
    tensors: usize,
}

fn get(args: &GetArgs, cx: &Context) -> Result<(), Failure> {
    let unknown = || Failure::Message(format!("{}: no published weights are known; known: {}", args.network, names()));
    let known = Published::find(&args.network).ok_or_else(unknown)?;
    let path = known.path(&cache()?);
    let place = args.url.clone().or_else(|| std::env::var(PLACE).ok().filter(|v| !v.is_empty()));
    let url = known.url(place.as_deref().unwrap_or(OFFICIAL));
    let kept = if path.is_file() { Some(sha256_of(&path)?) } else { None };
    let (sha256, fetched) = match kept {
        Some(sum) if sum.starts_with(known.checksum()) => (sum, false),
        other => {
            if other.is_some() {
                cx.note(format!("{} is damaged, and is fetched again", path.display()));
            }
            (download(known, &url, &path, cx)?, true)
        }
    };
    let bytes_here = std::fs::metadata(&path).map_or(0, |m| m.len());
    let tensors = weights::load(&path)?.tensors.len();
    let what = if fetched { "fetched and checked" } else { "was here already" };
    let text = format!("{}: {what}, {tensors} tensors, {}, {}", known.network, bytes(bytes_here), path.display());
    cx.result(text, &Got { network: known.network, path, url, bytes: bytes_here, sha256, fetched, tensors })
}

fn download(known: &Published, url: &str, path: &Path, cx: &Context) -> Result<String, Failure> {
    let stop = interrupt::flag(cx, "the transfer")?;
    cx.note(format!("fetching {url}"));
    let bar = transfer_bar(cx, known.network);
    let fetched = fetch(url, path, known.checksum(), &stop, &mut |done, total| {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(fetched?.sha256)
}

fn transfer_bar(cx: &Context, name: &str) -> ProgressBar {
    let bar = progress::bar(cx, 0);
    if let Ok(style) =
        ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(name.to_owned());
    bar
}
