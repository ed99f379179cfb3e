//! The runner itself: what is wrong or not known is reported by name, and a folder without cases fails.

use std::collections::BTreeMap;
use std::path::Path;

use radiograd::weights::{self, NamedTensor, TensorData};
use tempfile::TempDir;

use super::{Report, cpu_targets, run};

fn floats(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
    NamedTensor { name: name.into(), shape: shape.into(), data: TensorData::F32(values.to_vec()) }
}

/// A correct case of relu.
fn relu() -> Vec<NamedTensor> {
    vec![
        floats("input.0", &[1, 3], &[-1.0, 2.0, 3.0]),
        floats("output", &[1, 3], &[0.0, 2.0, 3.0]),
        floats("grad_output", &[1, 3], &[5.0, 6.0, 7.0]),
        floats("grad.0", &[1, 3], &[0.0, 6.0, 7.0]),
    ]
}

/// A correct case of the cross-entropy of equal logits, ln 2; the label is to be chosen.
fn cross_entropy(label: i64) -> Vec<NamedTensor> {
    let targets = NamedTensor { name: "input.1".into(), shape: vec![1], data: TensorData::I64(vec![label]) };
    vec![floats("input.0", &[1, 2], &[0.5, 0.5]), targets, floats("output", &[], &[std::f32::consts::LN_2])]
}

/// A correct case of batch normalisation in training, of two values of one channel; the running variance is to be chosen.
fn batch_norm(running_var: f32) -> Vec<NamedTensor> {
    vec![
        floats("input.0", &[1, 1, 1, 2], &[-3.0, 3.0]),
        floats("input.3", &[1], &[1.0]),
        floats("input.4", &[1], &[1.0]),
        floats("output", &[1, 1, 1, 2], &[-0.6, 0.6]),
        floats("running_mean", &[1], &[0.9]),
        floats("running_var", &[1], &[running_var]),
    ]
}

/// A correct case of one step of gradient descent from 1 with gradient 2 at the rate 0.25; the result is to be chosen.
fn descent(value: f32) -> Vec<NamedTensor> {
    vec![floats("start", &[1], &[1.0]), floats("grads", &[1, 1], &[2.0]), floats("values", &[1, 1], &[value])]
}

const BATCH_NORM: &str = r#"{"training": true, "eps": 16.0}"#;
const STEP: &str =
    r#"{"schedule": "step", "params": {"step_size": 1, "gamma": 0.5}, "base_lr": 1.0, "lr": [1.0, 0.5]}"#;
const METRICS: &str =
    r#"{"kind": "two", "labels": [0, 1], "probabilities": [[0.9, 0.1], [0.2, 0.8]], "accuracy": 1.0, "roc_auc": 1.0}"#;
const STATISTICS: &str = r#"{"kind": "holm", "p": [0.25, 0.0625], "adjusted": [0.25, 0.125]}"#;

/// Writes a case below `folder`.
fn write(folder: &Path, path: &str, key: &str, name: &str, params: &str, tensors: &[NamedTensor]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let metadata = BTreeMap::from([(key.to_owned(), name.to_owned()), ("params".into(), params.into())]);
    weights::save(&path, tensors, &metadata).unwrap();
}

fn write_op(folder: &Path, path: &str, op: &str, params: &str, tensors: &[NamedTensor]) {
    write(folder, path, "op", op, params, tensors);
}

/// A folder in which all is right.
fn good() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_op(at, "ops/relu/relu-001.safetensors", "relu", "{}", &relu());
    write_op(at, "ops/cross_entropy/c.safetensors", "cross_entropy", "{}", &cross_entropy(1));
    write_op(at, "ops/batch_norm2d/b.safetensors", "batch_norm2d", BATCH_NORM, &batch_norm(2.7));
    write(at, "optim/sgd-001.safetensors", "optimizer", "sgd", r#"{"lr": 0.25}"#, &descent(0.5));
    std::fs::write(at.join("schedules.json"), format!("[{STEP}]")).unwrap();
    std::fs::write(at.join("metrics.json"), format!("[{METRICS}]")).unwrap();
    std::fs::write(at.join("statistics.json"), format!("[{STATISTICS}]")).unwrap();
    folder
}

fn run_on_cpu(folder: &Path) -> Report {
    run(folder, &mut cpu_targets())
}

/// That every failure is one line that names all of `parts`, and that there are `count` of them.
fn assert_failures(report: &Report, count: usize, parts: &[&str]) {
    assert_eq!(report.failures.len(), count, "{report:?}");
    for line in &report.failures {
        assert!(!line.contains('\n') && parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
    }
}

#[test]
fn correct_cases_pass() {
    let folder = good();
    let report = run_on_cpu(folder.path());
    assert_failures(&report, 0, &[]);
    assert_eq!(report.cases.values().sum::<usize>(), 7);
    assert!(report.notes.is_empty(), "{report:?}");
}

#[test]
fn wrong_values_are_found_and_named() {
    let replaced = |mut tensors: Vec<NamedTensor>, new: NamedTensor| {
        tensors.retain(|t| t.name != new.name);
        tensors.push(new);
        tensors
    };
    // 3e-5 of 3: above what single precision is allowed, and no more.
    let output = replaced(relu(), floats("output", &[1, 3], &[0.0, 2.0, 3.0001]));
    let grad = replaced(relu(), floats("grad.0", &[1, 3], &[0.001, 6.0, 7.0]));
    let shape = replaced(relu(), floats("output", &[3, 1], &[0.0, 2.0, 3.0]));
    let cases = [
        ("relu", "{}", output, 2, "output 2.8e-5 ABOVE"),
        ("relu", "{}", grad, 2, "output 0.0e0, grad.0 1.1e-4 ABOVE"),
        ("relu", "{}", shape, 1, "shape"),
        ("batch_norm2d", BATCH_NORM, batch_norm(1.9), 2, "running_var"),
    ];
    for (op, params, tensors, count, part) in cases {
        let folder = good();
        write_op(folder.path(), "ops/bad/bad-007.safetensors", op, params, &tensors);
        assert_failures(&run_on_cpu(folder.path()), count, &["ops/bad/bad-007.safetensors", op, part]);
    }
    let folder = good();
    write(folder.path(), "optim/bad.safetensors", "optimizer", "sgd", r#"{"lr": 0.25}"#, &descent(0.51));
    assert_failures(&run_on_cpu(folder.path()), 4, &["optim/bad.safetensors", "step 1"]);
}

#[test]
fn what_is_not_known_fails_by_name() {
    let extra = |name: &str| [relu(), vec![floats(name, &[1, 3], &[0.0; 3])]].concat();
    let cases = [
        ("gelu", "{}", relu(), "unknown op `gelu`"),
        ("relu", r#"{"threshold": 0.5}"#, relu(), "unknown parameter `threshold`"),
        ("relu", "[]", relu(), "params"),
        ("relu", "{}", extra("grad.1"), "`grad.1`"),
        ("relu", "{}", extra("input.1"), "`input.1`"),
        ("relu", "{}", extra("input.999999999999"), "`input.999999999999`"),
        ("relu", "{}", extra("hessian"), "`hessian`"),
        ("relu", "{}", relu()[..3].iter().filter(|t| t.name != "output").cloned().collect(), "`output`"),
        ("softmax", r#"{"dim": -3}"#, relu(), "`dim`"),
        ("avg_pool2d", r#"{"kernel": [2, 2, 2]}"#, relu(), "`kernel`"),
        ("cross_entropy", r#"{"reduction": "none"}"#, cross_entropy(0), "`none`"),
        ("cross_entropy", "{}", cross_entropy(-1), "label -1"),
        ("cross_entropy", "{}", cross_entropy(2), "label 2"),
        ("matmul", "{}", extra("input.1"), "matmul"),
    ];
    for (op, params, tensors, part) in cases {
        let folder = good();
        write_op(folder.path(), "ops/new/new-001.safetensors", op, params, &tensors);
        assert_failures(&run_on_cpu(folder.path()), 1, &["ops/new/new-001.safetensors", op, part]);
    }

    let optimizers = [("lion", r#"{"lr": 0.25}"#, "lion"), ("sgd", r#"{"lr": 0.25, "foreach": true}"#, "foreach")];
    for (optimizer, params, part) in optimizers {
        let folder = good();
        write(folder.path(), "optim/new.safetensors", "optimizer", optimizer, params, &descent(0.5));
        assert_failures(&run_on_cpu(folder.path()), 1, &["optim/new.safetensors", part]);
    }

    let entries = [
        ("schedules.json", STEP.replace("\"step\"", "\"polynomial\""), "polynomial"),
        ("schedules.json", STEP.replace("gamma", "delta"), "delta"),
        ("schedules.json", STEP.replace("[1.0, 0.5]", "[1.0, 0.25]"), "step 1"),
        ("metrics.json", METRICS.replace("accuracy", "kappa"), "unknown key `kappa`"),
        ("metrics.json", METRICS.replace("\"roc_auc\": 1.0", "\"roc_auc\": 0.5"), "roc_auc"),
        ("statistics.json", STATISTICS.replace("holm", "hommel"), "hommel"),
        ("statistics.json", STATISTICS.replace("0.125", "0.0625"), "adjusted"),
    ];
    for (file, entry, part) in entries {
        let folder = good();
        std::fs::write(folder.path().join(file), format!("[{entry}]")).unwrap();
        assert_failures(&run_on_cpu(folder.path()), 1, &[file, "entry 0", part]);
    }
}

#[test]
fn broken_and_unknown_files_fail_by_name() {
    let folder = good();
    let path = folder.path().join("ops/relu/relu-001.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    assert_failures(&run_on_cpu(folder.path()), 1, &["ops/relu/relu-001.safetensors", "truncated"]);

    for name in ["losses.json", "ops/relu/notes.txt", "optim/sgd-002.pt"] {
        let folder = good();
        std::fs::write(folder.path().join(name), "text").unwrap();
        assert_failures(&run_on_cpu(folder.path()), 1, &[name]);
    }
    for name in ["schedules.json", "metrics.json", "statistics.json"] {
        for text in ["[{", "{}", "[]"] {
            let folder = good();
            std::fs::write(folder.path().join(name), text).unwrap();
            assert_failures(&run_on_cpu(folder.path()), 1, &[name]);
        }
    }
}

#[test]
fn a_folder_without_cases_fails_and_missing_parts_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    assert_failures(&run_on_cpu(folder.path()), 1, &["no case was found"]);
    std::fs::create_dir_all(folder.path().join("ops/relu")).unwrap();
    assert_failures(&run_on_cpu(folder.path()), 1, &["no case was found"]);
    let missing = run_on_cpu(&folder.path().join("nowhere"));
    assert_failures(&missing, 2, &["nowhere"]);

    let folder = good();
    std::fs::remove_dir_all(folder.path().join("optim")).unwrap();
    std::fs::write(folder.path().join("models.json"), "[]").unwrap();
    let report = run_on_cpu(folder.path());
    assert_failures(&report, 0, &[]);
    // `tests/model_cases.rs` runs the networks.
    assert_eq!(report.notes.len(), 1, "{report:?}");
    assert!(report.notes[0].contains("no optim"), "{report:?}");
}
