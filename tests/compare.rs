//! Comparisons from end to end: predictions on disk, `compare`, operating points, means of networks, cross-validation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use radiograd::train::predictions::{PREDICTIONS, Predictions};
use serde_json::Value;
use tempfile::TempDir;

#[path = "common/program.rs"]
mod program;

use program::{command, complaint, finish, listing, text};

const SMALL: &str = "conv4-relu-pool-flatten-dense2";

/// Runs a command in a folder; stdout of one that must succeed.
fn succeeds(folder: &Path, args: &[&str]) -> String {
    let mut command = command(args);
    command.current_dir(folder).args(["--device", "cpu", "--quiet"]);
    let out = finish(command);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let out = succeeds(folder, &[args, &["--json"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
}

fn fails(folder: &Path, args: &[&str], words: &[&str]) {
    let mut command = command(args);
    command.current_dir(folder).args(["--device", "cpu", "--quiet"]);
    let line = complaint(&finish(command), args);
    assert!(words.iter().all(|w| line.contains(w)), "{args:?}: {line}: not all of {words:?}");
}

/// A folder with a small image folder `set`, runs `a` and `b` of one split and `c` of another seed.
static LAB: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &["data", "phantom", "set", "--images", "360", "--size", "24"]);
    for (out, model, seed) in [("a", SMALL, "0"), ("b", "flatten-dense2", "0"), ("c", SMALL, "1")] {
        let args = [
            "train", "--data", "set", "--size", "16", "--epochs", "8", "--lr", "0.01", "--model", model, "--seed",
            seed, "--out",
        ];
        succeeds(at, &[&args[..], &[out]].concat());
    }
    folder
});

#[test]
fn a_run_keeps_what_it_said_of_each_image() {
    let at = LAB.path();
    let kept = Predictions::read(&at.join("a").join(PREDICTIONS)).unwrap();
    assert_eq!(kept.splits.iter().map(|s| s.split.as_str()).collect::<Vec<_>>(), ["val", "test", "official_val"]);
    // Asked again, the network says the same to the last bit: the CPU's order of sums is fixed.
    let said = json(at, &["eval", "--run", "a", "--predictions", "again.csv"]);
    let again = Predictions::read(&at.join("again.csv")).unwrap();
    let (was, is) = (kept.split("test").unwrap(), again.split("test").unwrap());
    assert_eq!((was.differs(is), again.splits.len()), (None, 1));
    for (a, b) in was.probabilities.iter().zip(&is.probabilities) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
    let result: Value = serde_json::from_slice(&std::fs::read(at.join("a/result.json")).unwrap()).unwrap();
    assert_eq!(said["result"]["metrics"]["accuracy"], result["network"]["test"]["metrics"]["accuracy"]);
    let scores = said["result"]["estimates"].as_array().unwrap();
    assert_eq!(scores.len(), 10);
    assert!(scores.iter().all(|s| s["value"].is_null() || s["patients"]["low"].is_number()), "{scores:?}");
}

#[test]
fn compare_says_who_beats_whom_and_refuses_other_images() {
    let at = LAB.path();
    let c = json(at, &["compare", "a", "b", "c", "--out", "page.html"]);
    assert_eq!((c["runs"].as_array().unwrap().len(), c["pairs"].as_array().unwrap().len()), (3, 3));
    let pair = &c["pairs"][0];
    let (a, b) = (&c["runs"][0]["scores"][0]["value"], &c["runs"][1]["scores"][0]["value"]);
    let difference = a.as_f64().unwrap() - b.as_f64().unwrap();
    assert!((pair["accuracy"]["value"].as_f64().unwrap() - difference).abs() < 1e-12);
    let alone = |key: &str| pair["mcnemar"][key].as_f64().unwrap();
    let images = c["images"].as_f64().unwrap();
    assert!(((alone("first_only") - alone("second_only")) / images - difference).abs() < 1e-12);
    let page = std::fs::read_to_string(at.join("page.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("<script") && !page.contains("http://"), "a page of its own");
    for sentence in pair["sentences"].as_array().unwrap() {
        let escaped = sentence.as_str().unwrap().replace('<', "&lt;");
        assert!(page.contains(&escaped), "{escaped}");
    }
    let words = succeeds(at, &["compare", "a", "b"]);
    assert!(words.contains("95 % interval") && words.contains("McNemar, exact"), "{words}");

    // The same seed and share hold out the same patients, another seed others.
    succeeds(at, &["compare", "a", "b", "--split", "validation"]);
    fails(at, &["compare", "a", "c", "--split", "val"], &["a and c", "other val images"]);
    fails(at, &["compare", "a", "set"], &["set", "no predictions.csv", "radiograd train"]);
    fails(at, &["compare", "a", "nowhere"], &["nowhere"]);
    fails(at, &["compare", "a", "b", "--split", "tset"], &["tset", "official_val"]);
    let broken = at.join("broken");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join(PREDICTIONS), "split,image,patient,label,p:A,p:B\ntest,x,x,A,0.5,oops\n").unwrap();
    fails(at, &["compare", "a", "broken"], &["broken", "line 2", "oops"]);
}

#[test]
fn folders_of_runs_are_groups() {
    let at = LAB.path();
    for (group, runs) in [("one", ["a", "c"]), ("two", ["b", "a"])] {
        for run in runs {
            let to = at.join(group).join(run);
            std::fs::create_dir_all(&to).unwrap();
            for file in [PREDICTIONS, "config.toml", "result.json"] {
                std::fs::copy(at.join(run).join(file), to.join(file)).unwrap();
            }
        }
    }
    let c = json(at, &["compare", "one", "two"]);
    assert_eq!((c["groups"].as_array().unwrap().len(), c["group_pairs"].as_array().unwrap().len()), (2, 1));
    assert_eq!(c["groups"][0]["accuracy"]["count"], 2);
    assert_eq!(c["runs"][1]["name"], "one/c");
    assert!(c["pairs"].as_array().unwrap().is_empty());
}

#[test]
fn errors_curves_and_remarks_stand_beside_the_scores() {
    let at = LAB.path();
    let remark = "Published: 12 false negatives <with> pretrained weights.";
    let args = ["compare", "a", "b", "--note", remark, "--out", "page.html"];
    let c = json(at, &args);
    assert_eq!(c["remarks"][0], remark);
    let test = Predictions::read(&at.join("a").join(PREDICTIONS)).unwrap();
    let set = test.split("test").unwrap();
    let decided: Vec<bool> = set.column(1, 2).iter().map(|p| *p >= 0.5).collect();
    for (class, row) in c["runs"][0]["confusion"].as_array().unwrap().iter().enumerate() {
        for (decision, n) in row.as_array().unwrap().iter().enumerate() {
            let same = |(l, d): (&u32, &bool)| *l as usize == class && usize::from(*d) == decision;
            assert_eq!(n.as_u64().unwrap() as usize, set.labels.iter().zip(&decided).filter(|p| same(*p)).count());
        }
    }
    assert!(c["runs"][0]["training"]["parameters"].as_u64().unwrap() > 0);
    let text = succeeds(at, &args);
    assert!(text.contains("(false negatives)") && text.contains(remark), "{text}");
    let page = std::fs::read_to_string(at.join("page.html")).unwrap();
    assert!(
        page.contains("&lt;with&gt;") && page.contains("Loss by epoch") && page.contains("What they take for what")
    );
    // A folder whose result is gone or of another version is compared without it.
    std::fs::create_dir_all(at.join("bare")).unwrap();
    std::fs::copy(at.join("a").join(PREDICTIONS), at.join("bare").join(PREDICTIONS)).unwrap();
    std::fs::write(at.join("bare/result.json"), "{}").unwrap();
    assert!(json(at, &["compare", "bare"])["runs"][0]["training"].is_null());
}

#[test]
fn thresholds_and_temperatures_come_from_validation() {
    let at = LAB.path();
    let said =
        json(at, &["eval", "--run", "a", "--sensitivity", "0.9", "--temperature", "--predictions", "scaled.csv"]);
    let (on_val, on_test) = (&said["operating"]["validation"], &said["operating"]["measured"]);
    assert_eq!(on_val["threshold"], on_test["threshold"]);
    assert!(on_val["sensitivity"]["value"].as_f64().unwrap() >= 0.9);
    let t = &said["temperature"];
    let loss = |key: &str| t[key]["log_loss"].as_f64().unwrap();
    assert!(loss("validation_after") <= loss("validation_before"), "{t}");
    // The images by which the threshold counts are those of the file.
    let scaled = Predictions::read(&at.join("scaled.csv")).unwrap();
    let test = scaled.split("test").unwrap();
    let threshold = on_test["threshold"].as_f64().unwrap();
    let hits = test.column(1, 2).iter().zip(test.positive()).filter(|(s, p)| **s >= threshold && *p).count();
    assert_eq!(on_test["true_positives"].as_u64().unwrap(), hits as u64);
    let words = succeeds(at, &["eval", "--run", "a", "--specificity", "0.8"]);
    assert!(words.contains("specificity 0.8 on validation"), "{words}");
    fails(at, &["eval", "--run", "a", "--sensitivity", "1.5"], &["1.5", "0.95"]);
}

#[test]
fn views_and_networks_are_averaged() {
    let at = LAB.path();
    let column = |args: &[&str], file: &str| {
        succeeds(at, &[&["eval", "--predictions", file], args].concat());
        Predictions::read(&at.join(file)).unwrap().splits.remove(0).column(1, 2)
    };
    let (a, c) = (column(&["--run", "a"], "one.csv"), column(&["--run", "c"], "two.csv"));
    let mean = column(&["--run", "a", "--run", "c"], "mean.csv");
    for ((a, c), m) in a.iter().zip(&c).zip(&mean) {
        assert!(((a + c) / 2.0 - m).abs() < 1e-5, "{a} {c} {m}");
    }
    // Seen twice, in the mirror and out of it: a network that is asked for both views answers the same for either.
    let flipped = column(&["--run", "a", "--tta", "hflip,2"], "tta.csv");
    assert!(flipped.iter().zip(&a).any(|(f, a)| (f - a).abs() > 1e-4), "views change something");
    // What c fitted, a may have held out.
    let two = ["eval", "--run", "a", "--run", "c", "--youden"];
    fails(at, &two, &["other val images", "none of the runs was fitted to"]);
    let same = json(at, &["eval", "--run", "a", "--run", "b", "--youden", "--tta", "hflip"]);
    assert_eq!((&same["members"], &same["tta"]), (&2.into(), &"hflip".into()));
    // Another seed on the same split: what was held out is found again, whether it was kept or must be asked for.
    let args =
        ["train", "--data", "set", "--size", "16", "--epochs", "1", "--model", SMALL, "--seed", "1", "--out", "d"];
    succeeds(at, &[&args[..], &["--set", "split_seed=0"]].concat());
    for views in ["none", "hflip"] {
        json(at, &["eval", "--run", "a", "--run", "d", "--youden", "--tta", views]);
    }
    fails(at, &["eval", "--run", "a", "--tta", "hflip", "--logits", "l.csv"], &["--logits", "--predictions"]);
}

#[test]
fn folds_are_by_patient_cover_everything_and_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, &["data", "phantom", "set", "--images", "360", "--size", "24"]);
    let settings = ["--data", "set", "--size", "16", "--epochs", "1", "--model", SMALL, "--out", "study"];
    let args = [&["study", "folds", "--folds", "3"][..], &settings].concat();
    let study = json(at, &args);
    assert_eq!(study["rows"].as_array().unwrap().len(), 3);
    let (mut fold_of, mut images) = (BTreeMap::new(), BTreeSet::new());
    let mut shares = Vec::new();
    for k in 1..=3 {
        let run = Predictions::read(&at.join(format!("study/seed0-fold{k}")).join(PREDICTIONS)).unwrap();
        let (val, test) = (run.split("val").unwrap(), run.split("test").unwrap());
        for (image, patient) in test.images.iter().zip(&test.patients) {
            assert!(images.insert(image.clone()), "{image} is measured twice");
            assert!(image.starts_with("train/"), "{image}: the test images of the source stay unseen");
            assert_eq!(*fold_of.entry(patient.clone()).or_insert(k), k, "{patient} is in two folds");
        }
        let tested: BTreeSet<&String> = test.patients.iter().collect();
        assert!(val.patients.iter().all(|p| !tested.contains(p)), "chosen on a patient who is measured");
        shares.push(test.labels.iter().sum::<u32>() as f64 / test.len() as f64);
    }
    let row = &study["rows"][0];
    let number = |key: &str| row[key].as_u64().unwrap();
    assert_eq!(number("fitted") + number("chosen_on") + number("held_out"), images.len() as u64);
    assert!(shares.iter().all(|s| (s - shares[0]).abs() < 0.06), "{shares:?}");
    let mean = &study["summary"][0];
    assert!(mean["interval"]["low"].as_f64() <= mean["over_all"]["mean"].as_f64(), "{mean}");

    // Finished folds stay as they are; one that was broken off after its training ends with the same bytes.
    let weights = at.join("study/seed0-fold2/best.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::remove_file(at.join("study/seed0-fold2/result.json")).unwrap();
    std::fs::remove_dir_all(at.join("study/seed0-fold3")).unwrap();
    let before = listing(&at.join("study/seed0-fold1"));
    let again = json(at, &args);
    assert_eq!(listing(&at.join("study/seed0-fold1")), before);
    assert_eq!(std::fs::read(&weights).unwrap(), bytes);
    for k in 0..3 {
        assert_eq!(again["rows"][k]["scores"], study["rows"][k]["scores"], "fold {k}");
    }
    fails(at, &[&args[..], &["--lr", "0.5"]].concat(), &["seed0-fold1 holds another training", "lr = 0.5"]);
}

#[test]
fn bad_folds_are_one_line() {
    let at = LAB.path();
    fails(at, &["study", "folds", "--data", "set", "--folds", "1"], &["--folds", "2 to 1000"]);
    fails(at, &["study", "folds", "--data", "set", "--folds", "900", "--out", "f"], &["patients", "fewer folds"]);
    assert!(!at.join("f").exists());
    std::fs::write(at.join("fold.toml"), "data = 'set'\nfold = { index = 4, of = 3 }\n").unwrap();
    fails(at, &["train", "--config", "fold.toml", "--out", "g"], &["fold: index = 4: 3 folds are numbered 0 to 2"]);
    std::fs::write(
        at.join("fold.toml"),
        format!("data = 'set'\nmodel = '{SMALL}'\nsize = 16\nepochs = 1\nfold = {{ index = 1, of = 3 }}\n"),
    )
    .unwrap();
    // A fold on its own, and its evaluation on the same images.
    succeeds(at, &["train", "--config", "fold.toml", "--out", "g"]);
    let kept = Predictions::read(&at.join("g").join(PREDICTIONS)).unwrap();
    succeeds(at, &["eval", "--run", "g", "--predictions", "g.csv"]);
    let again = Predictions::read(&at.join("g.csv")).unwrap();
    assert_eq!(kept.split("test").unwrap().differs(again.split("test").unwrap()), None);
    fails(at, &["eval", "--run", "g", "--split", "official_val"], &["official_val", "fold"]);
}
