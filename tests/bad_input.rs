//! Everything that can be wrong with what the program is given: exit status 1, one line that says what and where, no panic,
//! no hang, and every file and folder as it was.

use std::fs;

mod common;
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;

use lab::{Change, Lab, MODEL, npy, picture, remove, replace, training, truncate};
use program::text;

#[test]
fn image_folders_that_cannot_be_learned_from() {
    let lab = Lab::new();
    let emptied = |name: &str, class: &str| {
        lab.images(name, &["NORMAL", "PNEUMONIA"]);
        lab.files(&format!("{name}/{class}")).iter().for_each(|f| fs::remove_file(f).expect("a file"));
    };
    emptied("hollow", "train/PNEUMONIA");
    emptied("hollow_test", "test/NORMAL");
    lab.images("single", &["NORMAL"]);
    lab.images("three", &["A", "B", "C"]);
    lab.images("differ", &["NORMAL", "PNEUMONIA"]);
    fs::rename(lab.path("differ/test/NORMAL"), lab.path("differ/test/HEALTHY")).expect("a folder");
    lab.images("broken", &["NORMAL", "PNEUMONIA"]);
    lab.files("broken/train/NORMAL").iter().for_each(|f| fs::write(f, b"").expect("a file"));
    lab.images("one_patient", &["NORMAL", "PNEUMONIA"]);
    for (i, file) in lab.files("one_patient/train/NORMAL").iter().enumerate() {
        fs::rename(file, file.with_file_name(format!("person1_bacteria_{i}.png"))).expect("a file");
    }
    fs::create_dir(lab.path("empty")).expect("a folder");
    lab.write("notes.txt", "no data");
    let cases: [(&str, &[&str]); 10] = [
        ("hollow", &["hollow", "train", "PNEUMONIA", "no readable image"]),
        ("hollow_test", &["test", "NORMAL"]),
        ("single", &["single", "only one class", "NORMAL"]),
        ("three", &["layer 5 (dense2)", "3 classes", "dense3"]),
        ("differ", &["HEALTHY", "NORMAL", "same class folders"]),
        ("broken", &["NORMAL", "12 unreadable"]),
        ("one_patient", &["NORMAL", "1 patients"]),
        ("empty", &["empty", "no images found"]),
        ("notes.txt", &["notes.txt", "neither a folder nor a .npz file"]),
        ("missing", &["missing", "no such file or folder"]),
    ];
    for (data, words) in cases {
        lab.training_fails(&[("--data", data)], words);
    }
    lab.fails(&["data", "summary", "empty"], &["no images found"]);
    lab.fails(&["study", "depth", "--quiet", "--data", "hollow", "--device", "cpu", "--out", "out"], &["PNEUMONIA"]);
}

#[test]
fn medmnist_files_that_cannot_be_learned_from() {
    let lab = Lab::new();
    let labels = |values: [u8; 24]| npy("|u1", &[24, 1], &values);
    let alternating: [u8; 24] = std::array::from_fn(|i| i as u8 % 2);
    let mut beyond = alternating;
    beyond[5] = 7;
    lab.npz("whole.npz", |_| Change::Keep);
    lab.npz("label.npz", replace("train_labels", labels(beyond)));
    lab.npz("single.npz", replace("train_labels", labels([0; 24])));
    lab.npz("count.npz", replace("train_labels", npy("|u1", &[23, 1], &alternating[..23])));
    lab.npz("float.npz", replace("train_images", npy("<f4", &[24, 1, 1], &[0; 96])));
    lab.npz("shape.npz", replace("train_images", npy("|u1", &[24, 16], &[0; 384])));
    lab.npz("giant.npz", replace("train_images", npy("|u1", &[24, 99_999, 99_999], &[0; 24])));
    lab.npz("unlabelled.npz", remove("train_labels"));
    lab.npz("untrained.npz", remove("train"));
    lab.npz("unvalidated.npz", remove("val"));
    let bytes = fs::read(lab.path("whole.npz")).expect("a file");
    lab.write("cut.npz", &bytes[..bytes.len() / 2]);
    lab.write("text.npz", "no archive");
    lab.write("nothing.npz", "");
    let cases: [(&str, &[&str]); 12] = [
        ("label.npz", &["label.npz", "train_labels[5] is 7", "0 to 1"]),
        ("single.npz", &["single.npz", "only one class"]),
        ("count.npz", &["train_images", "24 images", "23 labels"]),
        ("float.npz", &["train_images", "<f4", "uint8"]),
        ("shape.npz", &["train_images", "[24, 16]", "(n,h,w)"]),
        ("giant.npz", &["train_images"]),
        ("unlabelled.npz", &["train_labels", "missing"]),
        ("untrained.npz", &["no train split"]),
        ("cut.npz", &["cut.npz", "archive", "download it again"]),
        ("text.npz", &["text.npz", "archive"]),
        ("nothing.npz", &["nothing.npz", "archive"]),
        ("missing.npz", &["missing.npz", "no such file"]),
    ];
    for (data, words) in cases {
        lab.training_fails(&[("--data", data)], words);
    }
    let none = [("--data", "unvalidated.npz"), ("--val-fraction", "0")];
    lab.training_fails(&none, &["no val split", "validation fraction is 0"]);
}

#[test]
fn damaged_images_are_left_out_and_counted_or_refused() {
    let lab = Lab::new();
    let damaged = lab.files("ok/train/NORMAL").swap_remove(3);
    truncate(&damaged);
    let name = damaged.file_name().and_then(|n| n.to_str()).expect("a name");
    lab.training_fails(&[("--strict", "")], &[name, "cannot be decoded"]);
    lab.fails(&["data", "summary", "ok", "--strict"], &[name, "cannot be decoded"]);
    let mut loud = training(&[]);
    loud.retain(|word| *word != "--quiet");
    let notes = lab.succeeds(&loud);
    assert_eq!(notes.lines().filter(|l| l.starts_with("left out ") && l.contains(name)).count(), 1, "{notes}");
    let out = lab.output(&["data", "summary", "ok", "--json"], &[]);
    let summary: serde_json::Value = serde_json::from_str(&text(&out.stdout)).expect("JSON");
    assert_eq!(summary["unreadable"].as_array().map(Vec::len), Some(1), "{summary}");
}

#[test]
fn networks_that_do_not_fit() {
    let lab = Lab::new();
    let cases: [(&str, &str, &[&str]); 12] = [
        ("cnn9", "16", &["cnn9", "did you mean cnn1?"]),
        ("conv8-relo-flatten-dense2", "16", &["layer 2 (relo)", "did you mean relu?"]),
        ("conv8-pool-dense2", "16", &["layer 3 (dense2)", "[N, 8, 8, 8]", "flatten"]),
        ("conv4-flatten-conv4-dense2", "16", &["layer 3 (conv4)", "needs images"]),
        ("flatten-dense3", "16", &["layer 2 (dense3)", "3 outputs for 2 classes"]),
        ("flatten-dense2-softmax", "16", &["layer 3 (softmax)"]),
        ("conv0-flatten-dense2", "16", &["layer 1 (conv0)", "output channels is 0"]),
        ("conv4g3-flatten-dense2", "16", &["layer 1 (conv4g3)", "3 groups"]),
        ("pool-pool-pool-pool-pool-flatten-dense2", "16", &["layer 5 (pool)", "smaller than the window 2x2", "--size"]),
        ("cnn3", "4", &["layer 9 (pool)", "--size"]),
        ("flatten-dense65536-dense65536-dense2", "16", &["layer 3 (dense65536)", "narrower"]),
        ("-", "16", &["layer 1 ()"]),
    ];
    for (model, size, words) in cases {
        lab.training_fails(&[("--model", model), ("--size", size)], words);
    }
    // What the shapes alone tell comes before the data, which may take minutes to read.
    lab.training_fails(&[("--model", "cnn3"), ("--size", "4"), ("--data", "missing")], &["layer 9 (pool)"]);
    lab.training_fails(&[("--size", "20000")], &["20000", "--size"]);
    lab.fails(&["study", "depth", "--quiet", "--data", "ok", "--size", "4", "--out", "out"], &["layer 9 (pool)"]);
}

#[test]
fn settings_out_of_range() {
    let lab = Lab::new();
    let cases: [(&str, &str, &[&str]); 19] = [
        ("--batch", "0", &["batch", "at least 1"]),
        ("--batch", "25", &["batch", "25", "training images"]),
        ("--batch", "99999999999", &["batch", "training images"]),
        ("--size", "0", &["size", "at least 1"]),
        ("--size", "99999", &["99999"]),
        ("--epochs", "0", &["epochs", "at least 1"]),
        ("--lr", "nan", &["lr", "positive"]),
        ("--lr", "inf", &["lr", "positive"]),
        ("--lr", "-1", &["lr", "positive"]),
        ("--lr", "0", &["lr", "positive"]),
        ("--lr", "1e30", &["NaN or infinite", "lower --lr"]),
        ("--val-fraction", "2", &["fraction 2", "between 0 and 0.9"]),
        ("--val-fraction", "-0.1", &["between 0 and 0.9"]),
        ("--val-fraction", "0", &["no val split"]),
        ("--label-smoothing", "1", &["label_smoothing", "[0, 1)"]),
        ("--channels", "2", &["channels", "1 (grey) or 3 (RGB)"]),
        ("--class-weights", "heavy", &["heavy", "balanced"]),
        ("--schedule", "steep", &["steep", "cosine"]),
        ("--config", "missing.toml", &["missing.toml", "check the path"]),
    ];
    for (option, value, words) in cases {
        lab.training_fails(&[(option, value)], words);
    }
    lab.training_fails(&[("--schedule", "one_cycle"), ("--lr", "nan")], &["lr", "positive"]);
    let usage = [("--batch", "few"), ("--lr", "fast"), ("--optimizer", "adm"), ("--device", "tpu")];
    for change in usage {
        let args = training(&[change]);
        let out = lab.output(&args, &[]);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", text(&out.stderr));
        assert!(!lab.path("out").exists());
    }
    let study = |option: &'static str, value: &'static str, words: &[&str]| {
        let args = ["study", "depth", "--quiet", "--data", "ok", "--device", "cpu", "--out", "out", option, value];
        lab.fails(&args, words);
    };
    study("--batch", "99", &["batch", "99", "training images"]);
    study("--lr", "nan", &["lr"]);
    study("--seeds", "0", &["--seeds"]);
    study("--epochs", "0", &["epochs"]);
    lab.fails(&["data", "phantom", "out", "--images", "0"], &["--images 0", "at least 6"]);
    lab.fails(&["data", "phantom", "out", "--images", "99999999999"], &["images"]);
    lab.fails(&["data", "phantom", "ok"], &["ok", "left as it is"]);
    let bench = ["bench", "step", "--quiet", "--device", "cpu", "--model", "cnn1", "--size", "224", "--batch", "65536"];
    lab.fails(&bench, &["--batch 65536", "lower"]);
}

#[test]
fn config_files_that_do_not_read() {
    let lab = Lab::new();
    let cases: [(&str, &[&str]); 9] = [
        ("model = cnn1\"", &["settings.toml", "line 1"]),
        ("lr = 0.1\nmodle = \"cnn1\"", &["settings.toml", "line 2", "unknown setting `modle`: did you mean `model`?"]),
        ("batch = \"x\"", &["line 1", "expected usize"]),
        ("batch = -3", &["line 1", "-3"]),
        ("optimizer = { name = \"adam\", betas = [2.0, 0.9] }", &["betas[0] is 2"]),
        ("schedule = { name = \"step\", step_size = 0 }", &["step_size is 0"]),
        ("schedule = { name = \"steep\" }", &["line 1", "steep", "cosine"]),
        ("class_weights = { values = [1.0, 2.0, 3.0] }", &["class_weights", "3 weights for 2 classes"]),
        ("std = [0.0]", &["std", "positive"]),
    ];
    for (settings, words) in cases {
        lab.write("settings.toml", settings);
        lab.training_fails(&[("--config", "settings.toml")], words);
    }
    lab.write("settings.toml", b"\xff\xfe\x00");
    lab.training_fails(&[("--config", "settings.toml")], &["settings.toml", "no text"]);
}

#[test]
fn folders_that_cannot_be_written() {
    let lab = Lab::new();
    lab.write("file", "in the way");
    for out in ["file", "file/run"] {
        lab.training_fails(&[("--out", out)], &[out, "cannot create the folder", "check the path"]);
        let study = ["study", "depth", "--quiet", "--data", "ok", "--size", "16", "--device", "cpu", "--out", out];
        lab.fails(&study, &[out, "cannot create the folder"]);
        lab.fails(&["data", "phantom", out, "--images", "10", "--size", "8"], &["file"]);
    }
    #[cfg(target_os = "linux")]
    {
        // There, but nobody writes into it.
        lab.training_fails(&[("--out", "/proc")], &["cannot write into /proc"]);
        let study = ["study", "depth", "--quiet", "--data", "ok", "--size", "16", "--device", "cpu", "--out", "/proc"];
        lab.fails(&study, &["cannot write into /proc"]);
    }
    lab.run("run");
    lab.fails(
        &["eval", "--quiet", "--run", "run", "--device", "cpu", "--logits", "file/logits.csv"],
        &["cannot write file/logits.csv"],
    );
}

#[test]
fn runs_are_neither_overwritten_nor_continued_wrongly() {
    let lab = Lab::new();
    lab.npz("other.npz", |_| Change::Keep);
    lab.run("run");
    lab.training_fails(&[("--out", "run")], &["run already holds a run", "--resume"]);
    lab.training_fails(&[("--resume", "")], &["out", "last.safetensors is missing"]);
    let resume = |change: (&'static str, &'static str), words: &[&str]| {
        lab.training_fails(&[("--out", "run"), ("--resume", ""), ("--epochs", "2"), change], words);
    };
    resume(("--model", "conv8-relu-pool-flatten-dense2"), &["resume", "conv4-relu", "conv8-relu", "start a new run"]);
    resume(("--optimizer", "rmsprop"), &["resume", "adamw", "rmsprop"]);
    resume(("--optimizer", "sgd"), &["resume", "adamw", "sgd"]);
    resume(("--lr", "0.5"), &["resume", "lr = 0.5"]);
    resume(("--data", "other.npz"), &["the data is not what this run was trained on"]);
    fs::remove_file(lab.path("run/last.safetensors")).expect("a file");
    lab.training_fails(&[("--out", "run")], &["run already holds a run"]);
}

#[test]
fn damaged_runs() {
    let lab = Lab::new();
    lab.run("run");
    picture(&lab.path("one.png"), 0, 0);
    let eval = ["eval", "--quiet", "--run", "run", "--device", "cpu"];
    let predict = ["predict", "--quiet", "--run", "run", "--device", "cpu", "one.png"];
    let resume = training(&[("--out", "run"), ("--resume", ""), ("--epochs", "2")]);
    for name in ["best.safetensors", "last.safetensors"] {
        let path = format!("run/{name}");
        let whole = fs::read(lab.path(&path)).expect("a file");
        let mut long_header = whole.clone();
        long_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut torn_header = whole.clone();
        torn_header[20] ^= 0xff;
        let damaged: [&[u8]; 6] = [
            &whole[..whole.len() / 2],
            &whole[..whole.len() - 1],
            b"",
            b"text, no weights",
            &long_header,
            &torn_header,
        ];
        for bytes in damaged {
            lab.write(&path, bytes);
            // What becomes of it where there is another checkpoint: `disk.rs`.
            if name == "best.safetensors" {
                lab.fails(&eval, &[name]);
                lab.fails(&predict, &[name]);
            } else {
                lab.fails(&resume, &[name]);
            }
        }
        fs::remove_file(lab.path(&path)).expect("a file");
        lab.fails(if name == "best.safetensors" { &eval[..] } else { &resume[..] }, &[name]);
        lab.write(&path, &whole);
    }
    let config = fs::read_to_string(lab.path("run/config.toml")).expect("a file");
    lab.write("run/config.toml", config.replace("conv4-", "conv8-"));
    lab.fails(&eval, &["conv1.weight", "[8, 1, 3, 3]", "[4, 1, 3, 3]"]);
    lab.write("run/config.toml", "model = [");
    for args in [&eval[..], &predict[..], &resume[..]] {
        lab.fails(args, &["config.toml", "line 1"]);
    }
    lab.write("run/config.toml", config);
    lab.succeeds(&resume);
}

#[test]
fn weights_and_images_that_do_not_fit() {
    let lab = Lab::new();
    lab.run("run");
    lab.images("three", &["A", "B", "C"]);
    lab.write("notes.txt", "no weights");
    let weights = |model: &str, file: &str, rest: &[&str], words: &[&str]| {
        let mut args = vec!["eval", "--quiet", "--device", "cpu", "--data", "ok", "--model", model, "--weights", file];
        args.extend(rest);
        lab.fails(&args, words);
    };
    let best = "run/best.safetensors";
    weights(MODEL, best, &["--size", "32"], &["dense1.weight", "[2, 1024]", "[2, 256]"]);
    weights(MODEL, best, &["--size", "16", "--channels", "3"], &["conv1.weight"]);
    weights("cnn1", best, &["--size", "16"], &["conv1.weight", "choose the model"]);
    weights("cnn9", best, &["--size", "16"], &["cnn9"]);
    weights(MODEL, best, &["--size", "0"], &["--size"]);
    weights(MODEL, best, &["--size", "16", "--std", "0"], &["std", "positive"]);
    weights(MODEL, best, &["--size", "16", "--mean", "nan"], &["mean", "finite"]);
    weights(MODEL, best, &["--size", "16", "--mean", "0.1,0.2"], &["mean", "2 values for 1 channels"]);
    weights(MODEL, "notes.txt", &[], &["notes.txt", "neither a safetensors file nor"]);
    weights(MODEL, "missing.pth", &[], &["missing.pth", "no such file"]);
    weights(MODEL, "ok", &[], &["ok", "best.safetensors is missing"]);

    let eval = |rest: &[&str], words: &[&str]| {
        let mut args = vec!["eval", "--quiet", "--device", "cpu", "--run", "run"];
        args.extend(rest);
        lab.fails(&args, words);
    };
    eval(&["--data", "three"], &["NORMAL, PNEUMONIA", "A, B, C"]);
    eval(&["--split", "tset"], &["tset", "official_val"]);
    eval(&["--split", "official_val"], &["no official_val split"]);
    eval(&["--size", "8"], &["--size", "run's own"]);
    lab.fails(&["eval", "--quiet", "--run", "missing", "--device", "cpu"], &["missing", "train first"]);

    truncate(&lab.files("ok/test/NORMAL")[0]);
    let cut = lab.files("ok/test/NORMAL")[0].clone();
    for image in ["notes.txt", "missing.png", "ok", cut.to_str().expect("UTF-8")] {
        let args = ["predict", "--quiet", "--run", "run", "--device", "cpu", image];
        lab.fails(&args, &[image, "cannot be decoded"]);
    }
}

#[test]
fn devices_that_are_not_there() {
    let lab = Lab::new();
    lab.training_fails(&[("--device", "gpu:99")], &["no adapter 99", "radiograd devices"]);
    #[cfg(target_os = "linux")]
    {
        let none = [("VK_DRIVER_FILES", "/nonexistent"), ("VK_ICD_FILENAMES", "/nonexistent")];
        let study = ["study", "depth", "--quiet", "--device", "gpu", "--out", "out"];
        let bench = ["bench", "step", "--device", "gpu"];
        let check = ["gradcheck", "--op", "relu", "--device", "gpu"];
        let graph = ["graph", "--model", "cnn1", "--size", "8", "--device", "gpu"];
        let train = training(&[("--device", "gpu")]);
        for args in [&study[..], &bench[..], &check[..], &graph[..], &train[..]] {
            lab.fails_in(&none, args, &["no GPU adapter", "--device cpu"]);
        }
        // Without one, `auto` says so and goes on.
        let out = lab.output(&["graph", "--model", "mlp", "--size", "8"], &none);
        assert!(out.status.success() && text(&out.stdout).starts_with("device: CPU executor"), "{out:?}");
    }
}

#[test]
fn networks_too_large_for_the_adapter() {
    if common::gpu(radiograd::gpu::Options::default()).is_none() {
        return;
    }
    let lab = Lab::new();
    // 6 GiB in one tensor: no adapter binds more than 4.
    let model = "conv2048-gap-flatten-dense2";
    let too_large = [("--device", "gpu"), ("--model", model), ("--size", "224"), ("--batch", "16")];
    lab.training_fails(&too_large, &["conv2d", "[16, 2048, 224, 224]", "MiB", "--device cpu"]);
    let graph = ["graph", "--quiet", "--device", "gpu", "--model", model, "--size", "224", "--batch", "16"];
    lab.fails(&graph, &["[16, 2048, 224, 224]", "--batch"]);
    lab.training_fails(&[("--device", "gpu"), ("--model", "cnn9")], &["cnn9"]);
    lab.training_fails(&[("--device", "gpu"), ("--batch", "25")], &["batch", "training images"]);
}

#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_no_utf_8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use program::{command, complaint, finish};

    let lab = Lab::new();
    lab.run("run");
    let odd = OsStr::from_bytes(b"n\xff\xfeu");
    let with = |args: &[&str], status: i32| {
        let mut command = command(args);
        command.arg(odd).current_dir(lab.dir.path());
        let out = finish(command);
        assert_eq!(out.status.code(), Some(status), "{args:?}: {out:?}");
        if status == 1 {
            complaint(&out, args);
        }
    };
    with(&["data", "summary"], 1);
    with(&["predict", "--quiet", "--device", "cpu", "--run", "run"], 1);
    with(&["eval", "--quiet", "--device", "cpu", "--run"], 1);
    // DATA stands in the settings, which are text.
    with(&["train", "--out", "out", "--data"], 2);
    assert!(!lab.path("out").exists());
    let mut fine = training(&[]);
    fine.truncate(fine.len() - 1);
    with(&fine, 0);
    assert!(lab.dir.path().join(odd).join("report.html").is_file());
}
