//! What each fuzz target does with its bytes. libFuzzer calls these functions (`fuzz_targets/`), and so does a bounded run of the
//! suite (`tests/fuzz_bounded.rs`), which also counts memory and time.
//!
//! A target fails by a panic: that of the code under it, or of an assertion here about what came out. Errors are what most
//! inputs should come to.

pub mod seeds;

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use radiograd::data::{LoadOptions, Splits, decode, load_npz};
use radiograd::graph::Graph;
use radiograd::nn::model::{Mode, Model};
use radiograd::nn::plan::Plan;
use radiograd::nn::spec::Network;
use radiograd::shape::Spec as Tensor;
use radiograd::store::ParamStore;
use radiograd::train::TrainConfig;
use radiograd::train::predictions::Predictions;
use radiograd::train::search::{self, Results};
use radiograd::weights::{WeightsFile, from_bytes};
use tempfile::TempDir;
use zip::CompressionMethod::Stored;

/// A target by its name.
pub struct Target {
    /// As in `fuzz_targets/`.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&[u8]),
    /// The most bytes that it may hold at once for an input of so many bytes, the input apart.
    pub memory: fn(usize) -> usize,
}

const MIB: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 12] = [
    Target { name: "safetensors", run: safetensors, memory: |n| 2 * n + MIB / 2 },
    Target { name: "pth", run: pth, memory: |n| 2 * n + MIB / 2 },
    // The archive around it takes as much again.
    Target { name: "pickle", run: pickle, memory: |n| 16 * n + MIB },
    Target { name: "npz", run: npz, memory: |_| 64 * MIB },
    Target { name: "npz_arrays", run: npz_arrays, memory: |_| 64 * MIB },
    Target { name: "image", run: image, memory: |_| 3 * decode::MAX_DECODED as usize },
    Target { name: "config", run: config, memory: |n| 400 * n + 4 * MIB },
    Target { name: "grid", run: grid, memory: |n| 400 * n + 32 * MIB },
    Target { name: "chain", run: chain, memory: |n| 100 * n + 64 * MIB },
    Target { name: "chain_words", run: chain_words, memory: |n| 100 * n + 64 * MIB },
    Target { name: "predictions", run: predictions, memory: |n| 100 * n + MIB },
    Target { name: "journal", run: journal, memory: |n| 100 * n + MIB },
];

/// A message must say something; that it is one line is seen to where it is printed.
fn says(error: &dyn std::error::Error) {
    assert!(!error.to_string().is_empty());
}

/// What a weight file gave must hold together.
fn weights(result: Result<WeightsFile, radiograd::weights::FormatError>) {
    match result {
        Ok(file) => {
            for t in &file.tensors {
                let elements = t.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
                let empty = t.shape.contains(&0) && t.data.is_empty();
                assert!(empty || elements == Some(t.data.len()), "{} {:?}", t.name, t.shape);
            }
            let _ = file.classes();
        }
        Err(e) => {
            says(&e);
            assert!(!e.to_string().contains(char::is_control), "{e:?}");
        }
    }
}

/// A safetensors file. Of its first eight bytes the length of the header is made right, or else hardly any input gets past them.
pub fn safetensors(bytes: &[u8]) {
    weights(from_bytes(bytes));
    if let Some(rest) = bytes.get(8..).filter(|r| r.first() == Some(&b'{')) {
        let end = rest.iter().rposition(|&b| b == b'}').map_or(rest.len(), |i| i + 1);
        let mut fixed = bytes.to_vec();
        fixed[..8].copy_from_slice(&(end as u64).to_le_bytes());
        weights(from_bytes(&fixed));
    }
}

/// A checkpoint of PyTorch: a zip archive, or the form of before it.
pub fn pth(bytes: &[u8]) {
    weights(from_bytes(bytes));
}

/// A pickle in an archive whose checksums fit.
pub fn pickle(bytes: &[u8]) {
    let six = seeds::weights_files::f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let entries: [(&str, &[u8]); 3] = [("data/0", &six), ("data/1", &7i64.to_le_bytes()), ("byteorder", b"little")];
    weights(from_bytes(&seeds::weights_files::checkpoint(bytes, &entries, Stored)));
}

fn dataset(bytes: Vec<u8>) {
    for channels in [1, 3] {
        let options = LoadOptions { size: (6, 5), channels, splits: Splits::STUDY, ..LoadOptions::default() };
        match load_npz("fuzz.npz", bytes.clone(), &options) {
            Ok(data) => {
                for (_, images) in data.splits() {
                    assert_eq!(images.pixels.len(), images.labels.len() * 30 * channels);
                    assert!(images.labels.iter().all(|&l| (l as usize) < data.classes.len()));
                }
            }
            Err(e) => says(&e),
        }
    }
}

/// A `.npz` file.
pub fn npz(bytes: &[u8]) {
    dataset(bytes.to_vec());
}

/// A `.npz` file with right checksums in which the first byte says which of the six arrays is the rest of the bytes.
pub fn npz_arrays(bytes: &[u8]) {
    let Some((&which, array)) = bytes.split_first() else { return };
    let mut arrays = seeds::arrays();
    let at = usize::from(which) % arrays.len();
    arrays[at].1 = array.to_vec();
    dataset(seeds::npz_of(&arrays));
}

/// An image file.
pub fn image(bytes: &[u8]) {
    // libFuzzer's own hook ends the process on every panic, those included that `decode` turns into an error.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let here = info.location().is_some_and(|l| !l.file().contains("registry"));
            if here {
                before(info);
            }
        }));
    });
    for channels in [1, 3] {
        match decode::decode(bytes, channels) {
            Ok(p) => {
                assert!(p.width > 0 && p.height > 0);
                assert!(p.width.max(p.height) <= decode::MAX_SIDE);
                assert_eq!(p.pixels.len(), p.width as usize * p.height as usize * channels);
            }
            Err(reason) => assert!(!reason.is_empty() && !reason.contains(char::is_control), "{reason:?}"),
        }
    }
}

thread_local! {
    /// A folder for what is read from a path.
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// The bytes as a file of this name.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = FOLDER.with_borrow_mut(|folder| {
        folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder")).path().to_owned()
    });
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file");
    path
}

/// A training's settings, up to the planned network.
pub fn config(bytes: &[u8]) {
    match TrainConfig::read(&file("config.toml", bytes)) {
        Ok(config) => {
            if config.validate().is_ok() {
                let _ = config.check_network(&config.model);
            }
            // What was read is written, and read again: the same.
            if let Ok(text) = config.to_toml() {
                let again = TrainConfig::read(&file("again.toml", text.as_bytes()));
                assert!(again.is_ok_and(|again| again.to_toml().is_ok_and(|t| t == text)), "{text}");
            }
        }
        Err(e) => says(&e),
    }
}

/// A search's grid, up to its candidates.
pub fn grid(bytes: &[u8]) {
    match search::Spec::read(&file("grid.toml", bytes), &[]) {
        Ok(mut spec) => {
            // A hundred thousand candidates are allowed, and take their time.
            spec.search.trials = spec.search.trials.map(|n| n.min(20));
            let lists = spec.grid.values().chain(spec.vars.values());
            let lengths = lists.filter_map(|v| v.as_array().map(Vec::len));
            if lengths.fold(1, usize::saturating_mul) > 200 {
                return;
            }
            match search::Plan::new(spec) {
                Ok(plan) => {
                    for candidate in 0..plan.candidates.len().min(3) {
                        if plan.spec.search.seeds < 100 {
                            let _ = plan.trials(candidate, None);
                        }
                    }
                }
                Err(e) => says(&e),
            }
        }
        Err(e) => says(&e),
    }
}

/// The text of a network: read, written, read again, planned, and recorded if it is small.
fn network(text: &str, classes: usize, input: [usize; 3]) {
    match Network::parse(text, classes) {
        Ok(network) => {
            let written = network.to_string();
            assert_eq!(Network::parse(&written, classes).as_ref(), Ok(&network), "{written}");
            if let Err(e) = Plan::new(&network, input) {
                says(&e);
                return;
            }
        }
        Err(e) => return says(&e),
    }
    let model = match Model::new(text, input, classes) {
        Ok(model) => model,
        Err(e) => return says(&e),
    };
    let numel: usize = model.params().iter().map(|p| p.shape.numel()).sum();
    if numel > 100_000 || model.steps().len() > 100 {
        return;
    }
    let (mut store, mut g) = (ParamStore::new(), Graph::new());
    let params = model.init(&mut store, 1);
    let x = g.input("x", Tensor::float([2, input[0], input[1], input[2]]));
    let rng = g.input("rng", Tensor::u32([2]));
    // A planned network can be recorded and differentiated.
    let forward = model.forward(&mut g, &params, x, Mode::Train { rng }).expect("a planned network is recorded");
    let loss = g.sum(forward.logits).expect("a sum");
    g.gradients(loss, None, &forward.leaves).expect("gradients");
}

/// A network's text: a byte for the image's size, one for the classes, then the text.
pub fn chain(bytes: &[u8]) {
    let [size, classes, text @ ..] = bytes else { return };
    let (size, classes) = (usize::from(*size), usize::from(*classes) + 2);
    network(&String::from_utf8_lossy(text), classes, [1 + 2 * (classes % 2), size, size]);
}

const WORDS: [&str; 64] = [
    "conv8",
    "conv4",
    "conv",
    "pool",
    "maxpool",
    "avgpool",
    "gap",
    "adaptive",
    "bn",
    "relu",
    "lrelu",
    "elu",
    "sigmoid",
    "tanh",
    "softmax",
    "dropout",
    "flatten",
    "dense2",
    "dense",
    "initin",
    "initout",
    "-",
    "-",
    "-",
    "[",
    "]",
    "]+",
    "]++",
    "]+[",
    "a=",
    "block1=",
    "stem.0=",
    "k3",
    "k",
    "s2",
    "s",
    "p1",
    "p",
    "d2",
    "d",
    "g2",
    "g",
    "nb",
    "zb",
    "x",
    "0.5",
    ".",
    "0",
    "1",
    "2",
    "3",
    "5",
    "7",
    "64",
    "100",
    "1024",
    "65536",
    "99999999999999999999",
    "2x[",
    "3x[",
    "1000x[",
    "cnn2",
    "resnet18",
    "densenet121",
];

/// A network's text of words that layers are made of: hardly one in ten random texts is as near to one.
pub fn chain_words(bytes: &[u8]) {
    let [size, words @ ..] = bytes else { return };
    let text: String = words.iter().take(400).map(|&w| WORDS[usize::from(w) % WORDS.len()]).collect();
    network(&text, 2, [1, usize::from(*size), 1 + usize::from(*size) / 2]);
}

/// A table of predictions.
pub fn predictions(bytes: &[u8]) {
    match Predictions::read(&file("predictions.csv", bytes)) {
        Ok(read) => {
            for split in &read.splits {
                assert_eq!(split.probabilities.len(), split.len() * read.classes.len());
                assert!(split.labels.iter().all(|&l| (l as usize) < read.classes.len()));
            }
            // What was read is written, and read again: the same bits.
            let path = file("again.csv", b"");
            read.write(&path).expect("a file");
            let again = Predictions::read(&path);
            assert!(again.is_ok_and(|again| again == read));
        }
        Err(e) => says(&e),
    }
}

/// The journal of a search.
pub fn journal(bytes: &[u8]) {
    let path = file("trials.jsonl", bytes);
    match Results::read(path.parent().expect("a folder")) {
        Ok(results) => assert!(results.iter().all(|r| results.get(&r.id).is_some())),
        Err(e) => says(&e),
    }
}
