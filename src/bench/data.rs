//! From files to a batch on the device, stage by stage: read, decode, resize, cache, gather, augment.

use std::path::Path;
use std::sync::Arc;

use fast_image_resize::Resizer;
use rayon::prelude::*;
use serde::Serialize;

use super::measure::{Budget, Times, repeat, wall};
use crate::data::cache::{self, Decoded};
use crate::data::decode::{self, Picture};
use crate::data::{CachePolicy, DataError, Images, LoadOptions, Need, Source, Splits, folder, load, phantom, shown};
use crate::exec::Executor;
use crate::fsio::FsError;
use crate::graph::Graph;
use crate::ops::augment::{Augment, AugmentImages};
use crate::rng::{Rng, Stream};
use crate::shape::Spec;
use crate::store::ParamStore;
use crate::tensor::{Data, Tensor};
use crate::train::TrainError;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Height and width that images are resized to.
    pub size: (usize, usize),
    /// 1 or 3.
    pub channels: usize,
    /// Most files of a folder, and images of the phantom set.
    pub images: usize,
    /// Images that the device gathers at once.
    pub batch: usize,
    /// How a batch is augmented.
    pub augment: Augment,
    /// Decides which images a batch has, and what the phantom set looks like.
    pub seed: u32,
    /// When to stop repeating each stage.
    pub budget: Budget,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageResult {
    /// `read`, `decode`, `resize`, `cache`, `load`, `draw`, `gather` or `augment`.
    pub stage: &'static str,
    /// What it does.
    pub what: &'static str,
    /// `wall` for wall time on all threads, `device` for the device's timestamps.
    pub clock: &'static str,
    /// Images in a run.
    pub images: usize,
    /// Bytes that a run takes in: files, decoded pixels, or pixels of the wanted size.
    pub bytes: u64,
    /// Seconds of a run.
    pub times: Times,
    /// Images a second.
    pub images_per_second: f64,
    /// Bytes taken in a second.
    pub bytes_per_second: f64,
}

/// The stages, and how many files could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct DataResult {
    /// In the order in which an image passes them.
    pub stages: Vec<StageResult>,
    /// Files that could not be decoded and were left out.
    pub unreadable: usize,
}

fn stage(
    (stage, what, clock): (&'static str, &'static str, &'static str),
    images: usize,
    bytes: u64,
    times: Times,
) -> StageResult {
    let rate = |n: f64| n / times.median.max(f64::MIN_POSITIVE);
    let (images_per_second, bytes_per_second) = (rate(images as f64), rate(bytes as f64));
    StageResult { stage, what, clock, images, bytes, times, images_per_second, bytes_per_second }
}

/// Measures every stage that the source has. A folder's files are spread over all of its splits; an `.npz` file is read whole.
///
/// # Errors
/// The data cannot be read at all, or the device fails.
pub fn measure(source: &Source, s: &Settings, executor: &mut dyn Executor) -> Result<DataResult, TrainError> {
    let (mut stages, images, unreadable) = match source {
        Source::Folder(path) => from_folder(path, s)?,
        Source::Npz(_) => {
            let (stage, images) = from_npz(source, s)?;
            (vec![stage], images, 0)
        }
        Source::Phantom => {
            let (stage, images) = from_phantom(s)?;
            (vec![stage], images, 0)
        }
    };
    stages.push(gather(&images, s, None, executor)?);
    stages.push(gather(&images, s, Some(&s.augment), executor)?);
    Ok(DataResult { stages, unreadable })
}

/// Pixels of the wanted size without labels of their own.
fn unlabelled(pixels: Vec<u8>, s: &Settings) -> Images {
    let n = pixels.len() / (s.channels * s.size.0 * s.size.1).max(1);
    Images {
        channels: s.channels,
        height: s.size.0,
        width: s.size.1,
        pixels,
        labels: vec![0; n],
        names: (0..n).map(|i| i.to_string()).collect(),
        patients: (0..n).map(|i| i.to_string()).collect(),
    }
}

/// Some of the files of a folder, spread evenly over all splits.
fn files(path: &Path, most: usize) -> Result<Vec<std::path::PathBuf>, DataError> {
    let layout = folder::layout(path)?;
    let mut all = Vec::new();
    for (split, there) in ["train", "val", "test"].into_iter().zip(layout.has) {
        if there {
            all.extend(layout.list(split)?.entries.into_iter().map(|e| e.path));
        }
    }
    let n = all.len().min(most);
    Ok((0..n).map(|i| all[i * all.len() / n.max(1)].clone()).collect())
}

fn from_folder(path: &Path, s: &Settings) -> Result<(Vec<StageResult>, Images, usize), TrainError> {
    let budget = s.budget;
    let files = files(path, s.images)?;
    let mut contents: Vec<(Vec<u8>, blake3::Hash)> = Vec::new();
    let read = repeat(budget, || {
        wall(|| {
            let all = files.par_iter().filter_map(|f| {
                let bytes = decode::read_file(f).ok()?;
                let hash = blake3::hash(&bytes);
                Some((bytes, hash))
            });
            contents = all.collect();
            Ok::<(), TrainError>(())
        })
    })?;
    let mut pictures: Vec<Option<Picture>> = Vec::new();
    let decoding = repeat(budget, || {
        wall(|| {
            pictures = contents.par_iter().map(|(bytes, _)| decode::decode(bytes, s.channels).ok()).collect();
            Ok::<(), TrainError>(())
        })
    })?;
    let readable: Vec<Picture> = pictures.into_iter().flatten().collect();
    let (n, stride) = (readable.len(), s.channels * s.size.0 * s.size.1);
    if n == 0 {
        let hint = format!("none of {} files is an image", files.len());
        return Err(DataError::NoImages { path: path.to_owned(), hint }.into());
    }
    let mut pixels = vec![0; n * stride];
    let resizing = repeat(budget, || {
        wall(|| {
            pixels
                .par_chunks_exact_mut(stride)
                .zip(readable.par_iter())
                .map_init(Resizer::new, |resizer, (out, p)| {
                    decode::resize_into(resizer, (&p.pixels, p.width, p.height, p.channels), s.size, out)
                })
                .collect::<Result<(), String>>()
                .map_err(|reason| TrainError::from(DataError::Unreadable { path: path.to_owned(), reason }))
        })
    })?;
    let caching = read_cache(&contents, &pixels, n, stride, s)?;
    let file_bytes: u64 = contents.iter().map(|c| c.0.len() as u64).sum();
    let decoded_bytes: u64 = readable.iter().map(|p| p.pixels.len() as u64).sum();
    let stages = vec![
        stage(("read", "files read and hashed, to know them in the cache", "wall"), files.len(), file_bytes, read),
        stage(("decode", "file bytes to pixels", "wall"), contents.len(), file_bytes, decoding),
        stage(("resize", "pixels to the wanted size", "wall"), n, decoded_bytes, resizing),
        stage(("cache", "pixels of the wanted size read from the cache", "wall"), n, pixels.len() as u64, caching),
    ];
    Ok((stages, unlabelled(pixels, s), files.len() - n))
}

/// Writes the pixels to a cache folder of their own and times finding them there again.
fn read_cache(
    contents: &[(Vec<u8>, blake3::Hash)],
    pixels: &[u8],
    n: usize,
    stride: usize,
    s: &Settings,
) -> Result<Times, TrainError> {
    let there = std::env::temp_dir();
    let folder = tempfile::tempdir().map_err(|e| FsError::new("create", &there, e))?;
    let hashes: Vec<Result<blake3::Hash, String>> = contents.iter().map(|c| Ok(c.1)).collect();
    let key = cache::key(&hashes, s.size, s.channels);
    cache::put(
        folder.path(),
        &key,
        n,
        stride,
        &mut Decoded { pixels: pixels.to_vec(), failed: Vec::new(), sizes: vec![(0, 0); n] },
    )?;
    repeat(s.budget, || {
        wall(|| match cache::get(folder.path(), &key, n, stride) {
            Some(found) if found.pixels == pixels => Ok(()),
            _ => {
                let problem = std::io::Error::other("what was written did not come back");
                Err(FsError::new("read", folder.path(), problem).into())
            }
        })
    })
}

fn from_npz(source: &Source, s: &Settings) -> Result<(StageResult, Images), TrainError> {
    let options = LoadOptions {
        size: s.size,
        channels: s.channels,
        splits: Splits { train: Need::Yes, test: Need::IfPresent, ..Splits::default() },
        val_fraction: 0.0,
        cache: CachePolicy::Off,
        ..LoadOptions::default()
    };
    let mut found = None;
    let times = repeat(s.budget, || {
        wall(|| {
            found = Some(load(source, &options)?);
            Ok::<(), TrainError>(())
        })
    })?;
    let data = found.expect("it ran");
    let (n, bytes) = data.splits().fold((0, 0), |(n, b), (_, i)| (n + i.len(), b + i.pixels.len() as u64));
    let what = "train and test of the file: unpacked, resized, hashed";
    let train = data.train.ok_or_else(|| TrainError::setting("data", "has no training images"))?;
    Ok((stage(("load", what, "wall"), n, bytes, times), train))
}

fn from_phantom(s: &Settings) -> Result<(StageResult, Images), TrainError> {
    let n = s.images.max(2);
    let mut drawn = Vec::new();
    let times = repeat(s.budget, || {
        wall(|| {
            drawn = phantom::generate("train", n, s.size, s.seed)?;
            Ok::<(), TrainError>(())
        })
    })?;
    let mut pixels = Vec::with_capacity(n * s.channels * s.size.0 * s.size.1);
    for image in &drawn {
        (0..s.channels).for_each(|_| pixels.extend_from_slice(&image.pixels));
    }
    let bytes = pixels.len() as u64;
    Ok((stage(("draw", "synthetic images drawn", "wall"), n, bytes, times), unlabelled(pixels, s)))
}

/// A batch picked by index from the bytes on the device, augmented where that is asked for, and normalised.
fn gather(
    images: &Images,
    s: &Settings,
    augment: Option<&Augment>,
    executor: &mut dyn Executor,
) -> Result<StageResult, TrainError> {
    // What the device cannot bind at once is left on the host.
    let most = executor.max_tensor_bytes().map_or(usize::MAX, |limit| limit as usize / images.stride().max(1));
    let n = images.len().min(most);
    if n == 0 {
        return Err(TrainError::setting("size", "is too large: the device holds no image of it"));
    }
    let spec = Spec::u8([n, images.channels, images.height, images.width]);
    let value = Tensor::new(spec.shape.clone(), Data::U8(images.pixels[..n * images.stride()].to_vec())).ok();
    let mut store = ParamStore::new();
    let pixels = store.add_var("images", spec, value);
    let mut g = Graph::new();
    let indices = g.input("indices", Spec::u32([s.batch]));
    let pixels = g.var("images", pixels);
    let (mean, std) = (vec![0.5; images.channels], vec![0.25; images.channels]);
    let words = augment.map(|_| g.input("seed and step", Spec::u32([2])));
    let batch = match (augment, words) {
        (Some(augment), Some(words)) => {
            let op = AugmentImages { mean, std, augment: augment.clone(), repeats: None };
            g.augment_images(op, [pixels, indices, words], None)?
        }
        _ => g.gather_images(pixels, indices, &mean, &std)?,
    };
    executor.load(&store)?;
    let program = executor.compile(&Arc::new(g), &[batch])?;
    let mut rng = Rng::new(s.seed, 0, Stream::Sample as u32);
    let (mut by_device, mut step) = (true, 0);
    let mut once = |executor: &mut dyn Executor| -> Result<f64, TrainError> {
        let chosen: Vec<u32> = (0..s.batch).map(|_| rng.below(n as u32)).collect();
        let chosen = Tensor::new([s.batch], Data::U32(chosen)).expect("as many numbers as images");
        executor.set(program, indices, &chosen)?;
        if let Some(words) = words {
            let value = Data::U32(vec![s.seed, step]);
            executor.set(program, words, &Tensor::new([2], value).expect("two words"))?;
            step += 1;
        }
        if by_device {
            let nodes = executor.run_profiled(program)?.nodes;
            let seconds: f64 = nodes.iter().flatten().map(|n| n.seconds).sum();
            if seconds > 0.0 {
                return Ok(seconds);
            }
            by_device = false;
        }
        wall(|| {
            executor.run(program)?;
            Ok(executor.wait()?)
        })
    };
    // The first run compiles, and finds out whether there are timestamps.
    once(executor)?;
    let times = repeat(s.budget, || once(executor))?;
    executor.release(program);
    let clock = if by_device { "device" } else { "wall" };
    let names = match augment {
        Some(_) => ("augment", "the same, and each image changed at random"),
        None => ("gather", "a batch picked and normalised on the device"),
    };
    Ok(stage((names.0, names.1, clock), s.batch, (s.batch * images.stride()) as u64, times))
}

/// The source in words.
#[must_use]
pub fn describe(source: &Source) -> String {
    shown(source.path())
}
