//! Trainings that begin with weights from elsewhere, and weights of other names, channels and classes in `eval` and `predict`.

use std::collections::BTreeMap;
use std::fs;

#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;

use lab::{Lab, training};
use program::text;
use radiograd::weights::{NamedTensor, TensorData, WeightsFile, load, save};

const MODEL: &str = "conv4-bn-relu-pool-flatten-dense8-relu-dense2";
/// Trains without changing a weight.
const STILL: [(&str, &str); 2] = [("--lr", "1e-30"), ("--model", MODEL)];

fn best(lab: &Lab, run: &str) -> WeightsFile {
    load(lab.path(run).join("best.safetensors")).expect("weights")
}

fn values(file: &WeightsFile, name: &str) -> Vec<f32> {
    file.get(name).and_then(|t| t.data.as_f32()).unwrap_or_else(|| panic!("no {name}")).to_vec()
}

fn still(lab: &Lab, changes: &[(&'static str, &'static str)]) -> String {
    let changes: Vec<_> = STILL.into_iter().chain(changes.iter().copied()).collect();
    let mut args = training(&changes);
    args.retain(|word| *word != "--quiet");
    lab.succeeds(&args)
}

#[test]
fn a_training_begins_with_the_weights_and_repeats_from_its_config() {
    let lab = Lab::new();
    lab.succeeds(&training(&[("--model", MODEL), ("--epochs", "2"), ("--seed", "3"), ("--out", "first")]));
    let notes = still(&lab, &[("--init", "first"), ("--out", "still")]);
    assert!(notes.contains("init: 10 tensors of first/best.safetensors matched by name"), "{notes}");
    let (first, same) = (best(&lab, "first"), best(&lab, "still"));
    for name in ["conv1.weight", "bn1.weight", "dense1.weight", "dense2.bias"] {
        assert_eq!(values(&first, name), values(&same, name), "{name}");
    }
    // The saved settings name the weights, and give the same bytes again.
    lab.succeeds(&training(&[("--model", MODEL), ("--init", "first/best.safetensors"), ("--out", "a")]));
    let config = fs::read_to_string(lab.path("a/config.toml")).unwrap();
    assert!(config.contains("init = \"first/best.safetensors\""), "{config}");
    lab.succeeds(&["train", "--quiet", "--device", "cpu", "--config", "a/config.toml", "--out", "b"]);
    for file in ["config.toml", "best.safetensors", "last.safetensors"] {
        assert!(fs::read(lab.path("a").join(file)).unwrap() == fs::read(lab.path("b").join(file)).unwrap(), "{file}");
    }
    // A run that goes on has weights of its own: those that it began with need not be there any more.
    fs::remove_dir_all(lab.path("first")).unwrap();
    lab.succeeds(&["train", "--quiet", "--device", "cpu", "--out", "a", "--resume", "--epochs", "2"]);
}

#[test]
fn colour_weights_serve_grey_images_by_sum_or_repetition() {
    let lab = Lab::new();
    lab.succeeds(&training(&[("--model", MODEL), ("--channels", "3"), ("--out", "colour")]));
    still(&lab, &[("--init", "colour"), ("--grey", "sum"), ("--out", "sum")]);
    still(&lab, &[("--init", "colour"), ("--grey", "repeat"), ("--out", "repeat")]);
    let (colour, sum, repeat) = (best(&lab, "colour"), best(&lab, "sum"), best(&lab, "repeat"));
    let filters = values(&colour, "conv1.weight");
    let want: Vec<f32> = filters.chunks(27).flat_map(|f| (0..9).map(move |i| f[i] + f[9 + i] + f[18 + i])).collect();
    assert_eq!(values(&sum, "conv1.weight"), want);
    assert_eq!(values(&repeat, "conv1.weight"), filters);
    let config = |run: &str| fs::read_to_string(lab.path(run).join("config.toml")).unwrap();
    assert!(config("sum").contains("channels = 1") && config("repeat").contains("channels = 3"));

    // The same logits either way: a convolution of three equal channels is one of their summed weights.
    let logits = |grey: &str| {
        let file = format!("{grey}.csv");
        let weights = ["--model", MODEL, "--weights", "colour", "--size", "16", "--mean", "0.4", "--std", "0.2"];
        let args =
            [&["eval", "--quiet", "--device", "cpu", "--data", "ok", "--grey", grey, "--logits", &file][..], &weights]
                .concat();
        lab.succeeds(&args);
        let text = fs::read_to_string(lab.path(&file)).unwrap();
        let rows =
            text.lines().skip(1).flat_map(|l| l.rsplit(',').take(2).map(|v| v.parse().unwrap()).collect::<Vec<f64>>());
        rows.collect::<Vec<f64>>()
    };
    let (a, b) = (logits("sum"), logits("repeat"));
    assert_eq!((a.len(), b.len()), (16, 16));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn a_head_of_other_classes_begins_anew_and_says_so() {
    let lab = Lab::new();
    lab.images("three", &["A", "B", "C"]);
    lab.succeeds(&training(&[("--model", MODEL), ("--out", "two")]));
    const THREE: &str = "conv4-bn-relu-pool-flatten-dense8-relu-dense3";
    let notes = still(&lab, &[("--data", "three"), ("--model", THREE), ("--init", "two"), ("--out", "from-two")]);
    let line = "init: dense2.weight begins anew with 3 outputs: the file's has 2";
    assert_eq!(notes.lines().filter(|l| *l == line).count(), 1, "{notes}");
    still(&lab, &[("--data", "three"), ("--model", THREE), ("--out", "from-nothing")]);
    let (two, three, fresh) = (best(&lab, "two"), best(&lab, "from-two"), best(&lab, "from-nothing"));
    assert_eq!(values(&three, "conv1.weight"), values(&two, "conv1.weight"));
    assert_eq!(values(&three, "dense2.weight"), values(&fresh, "dense2.weight"));
    assert_ne!(values(&fresh, "conv1.weight"), values(&two, "conv1.weight"));
}

/// The weights of a run under other names.
fn renamed(lab: &Lab, run: &str, name: impl Fn(&str) -> String, more: &[&str]) {
    let mut tensors = best(lab, run).tensors;
    tensors.iter_mut().for_each(|t| t.name = name(&t.name));
    tensors.extend(more.iter().map(|name| NamedTensor {
        name: (*name).to_owned(),
        shape: vec![1],
        data: TensorData::F32(vec![1.0]),
    }));
    save(lab.path("renamed.safetensors"), &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn other_names_are_mapped_and_what_has_no_place_is_listed() {
    let lab = Lab::new();
    lab.succeeds(&training(&[("--model", MODEL), ("--out", "run")]));
    // Safetensors keep no order, so that order cannot stand in for names.
    let scrambled = |name: &str| match name.split_once('.') {
        Some(("dense2", rest)) => format!("aaa.{rest}"),
        _ => format!("backbone.{name}"),
    };
    renamed(&lab, "run", scrambled, &["aux.weight", "aux.bias"]);
    let maps = ["--key-map", "backbone=", "--key-map", "aaa=dense2"];
    let mut args =
        training(&[("--model", MODEL), ("--lr", "1e-30"), ("--init", "renamed.safetensors"), ("--out", "mapped")]);
    args.extend(maps);
    args.retain(|word| *word != "--quiet");
    let notes = lab.succeeds(&args);
    assert!(notes.contains("init: without a place in the network: aux.bias, aux.weight"), "{notes}");
    assert_eq!(values(&best(&lab, "mapped"), "dense2.weight"), values(&best(&lab, "run"), "dense2.weight"));
    assert!(
        fs::read_to_string(lab.path("mapped/config.toml"))
            .unwrap()
            .contains("key_map = [\"backbone=\", \"aaa=dense2\"]")
    );

    renamed(&lab, "run", scrambled, &[]);
    let eval = ["eval", "--quiet", "--device", "cpu", "--data", "ok", "--size", "16", "--model", MODEL, "--json"];
    let from = |more: &[&str]| {
        let out = lab.output(&[&eval[..], more].concat(), &[]);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        text(&out.stdout)
    };
    let mapped = from(&[&["--weights", "renamed.safetensors"][..], &maps].concat());
    assert_eq!(mapped, from(&["--weights", "run/best.safetensors"]));

    let image = "ok/test/NORMAL/person00_bacteria_1.png";
    let predict =
        ["predict", "--quiet", "--device", "cpu", "--size", "16", "--model", MODEL, "--json", image, "--weights"];
    let answer = |more: &[&str]| text(&lab.output(&[&predict[..], more].concat(), &[]).stdout);
    let named = answer(&[&["renamed.safetensors", "--classes", "NORMAL,PNEUMONIA"][..], &maps].concat());
    assert!(named.contains("probabilities") && named == answer(&["run"]), "{named}");
    lab.fails(&[&predict[..], &["renamed.safetensors"], &maps].concat(), &["renamed.safetensors", "--classes"]);
}

#[test]
fn weights_that_do_not_do_are_refused_before_anything_is_written() {
    let lab = Lab::new();
    lab.succeeds(&training(&[("--model", MODEL), ("--channels", "3"), ("--out", "colour")]));
    lab.succeeds(&training(&[("--model", "conv5-flatten-dense2"), ("--out", "other")]));
    fs::create_dir(lab.path("empty")).unwrap();
    lab.write("broken.pth", b"PK\x03\x04");
    type Case<'a> = (&'a [(&'static str, &'static str)], &'a [&'a str]);
    let cases: [Case<'_>; 9] = [
        (&[("--init", "nothing.pth")], &["nothing.pth", "no such file", "resnet34"]),
        (&[("--init", "empty")], &["empty", "best.safetensors is missing"]),
        (&[("--init", "broken.pth")], &["broken.pth", "zip"]),
        (&[("--init", "densenet161")], &["radiograd weights get densenet161"]),
        (&[("--init", "other")], &["other/best.safetensors", "conv1.weight"]),
        (&[("--init", "colour")], &["conv1.weight", "--grey sum"]),
        (
            &[("--init", "colour"), ("--grey", "sum"), ("--key-map", "x=y")],
            &["key_map x=y", "`bn1.num_batches_tracked`"],
        ),
        (&[("--grey", "sum")], &["grey", "init"]),
        (&[("--init", "colour"), ("--grey", "sum"), ("--channels", "3")], &["grey", "channels to 1"]),
    ];
    for (changes, words) in cases {
        let changes: Vec<_> = [("--model", MODEL)].into_iter().chain(changes.iter().copied()).collect();
        lab.training_fails(&changes, words);
    }
    let eval =
        ["eval", "--quiet", "--device", "cpu", "--data", "ok", "--size", "16", "--model", MODEL, "--weights", "colour"];
    lab.fails(&eval, &["conv1.weight", "--grey sum"]);
    lab.fails(&[&eval[..], &["--grey", "repeat", "--channels", "1"]].concat(), &["--grey repeat", "--channels 3"]);
    lab.fails(&["eval", "--quiet", "--run", "colour", "--grey", "sum"], &["--weights"]);
}
