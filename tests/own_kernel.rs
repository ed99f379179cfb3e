//! `bench kernels --wgsl`: a right kernel is placed in the ladder, any other is refused in one line.

#[path = "common/mod.rs"]
mod common;
#[path = "common/program.rs"]
mod program;

use std::path::Path;

use radiograd::bench::cases::Direction;
use radiograd::bench::custom::{Custom, CustomError};
use radiograd::gpu::lower::AdapterKind;
use radiograd::gpu::{Gpu, Options};
use serde_json::Value;

use program::{command, complaint, finish, listing, text};

fn gpu() -> Option<Gpu> {
    common::gpu(Options::default()).map(|e| e.gpu().clone())
}

/// The example of ARCHITECTURE.md.
fn example() -> String {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("the page");
    let (_, rest) = page.split_once("```wgsl\n").expect("an example");
    rest.split_once("```").expect("its end").0.to_owned()
}

fn custom(op: &'static str, direction: Direction, text: &str) -> Custom {
    Custom { file: "mine.wgsl".to_owned(), text: text.to_owned(), op, direction }
}

/// The one line that refuses a kernel of max_pool2d.
fn refused(gpu: &Gpu, text: &str) -> String {
    let error = custom("max_pool2d", Direction::Forward, text).prove(gpu).unwrap_err().to_string();
    assert!(!error.contains('\n') && error.starts_with("mine.wgsl"), "{error}");
    error
}

#[test]
fn the_example_of_the_how_to_is_right() {
    let Some(gpu) = gpu() else { return };
    let proof = custom("max_pool2d", Direction::Forward, &example()).prove(&gpu).unwrap();
    assert!(proof.passed >= 3 && proof.skipped >= 1 && proof.error == 0.0, "{proof:?}");
}

#[test]
fn the_plain_pages_are_kernels_of_ones_own_too() {
    let Some(gpu) = gpu() else { return };
    let pool = include_str!("../shaders/max_pool2d.wgsl");
    let softmax = include_str!("../shaders/softmax.wgsl");
    for (op, direction, text) in [
        ("max_pool2d", Direction::Forward, pool),
        ("max_pool2d", Direction::InputGrad, pool),
        ("softmax", Direction::Forward, softmax),
    ] {
        let proof = custom(op, direction, text).prove(&gpu).unwrap_or_else(|e| panic!("{op} {direction}: {e}"));
        assert!(proof.passed >= 5 && proof.skipped == 0, "{op} {direction}: {proof:?}");
    }
}

#[test]
fn what_is_no_right_kernel_is_refused() {
    let Some(gpu) = gpu() else { return };
    let right = example();
    let least = right.replace("max(", "min(");
    assert!(refused(&gpu, &least).contains("is wrong: on the sample"));
    let short = right.replace("y[e] =", "if (e > 0u) { return; }\n    y[e] =");
    assert!(refused(&gpu, &short).contains("relative error is inf"));
    let broken = right.replacen("let plane", "let plane = ;", 1);
    let line = right.lines().position(|l| l.contains("let plane")).expect("the line") + 1;
    assert!(refused(&gpu, &broken).starts_with(&format!("mine.wgsl:{line}:")));
    let unbound = right.replace("@binding(1)", "@binding(2)");
    let e = refused(&gpu, &unbound);
    assert!(e.contains("@binding(2)") && e.contains("1 the output"), "{e}");
    let e = refused(&gpu, &right.replace("y[e] =", "let unused ="));
    assert!(e.contains("writes nothing"), "{e}");
    // Where a driver has a watchdog of its own, the device would be lost to the other tests.
    if gpu.kind == AdapterKind::Software {
        let endless = right.replace("y[e] =", "loop { if (x[at] > 1e30) { break; } }\n    y[e] = 2.0 *");
        assert!(refused(&gpu, &endless).contains("is wrong"));
    }
    let e = custom("batch_norm2d", Direction::Forward, &right).prove(&gpu).unwrap_err();
    assert!(matches!(e, CustomError::NotOneKernel { .. }) && e.to_string().contains("conv2d"), "{e}");
}

#[test]
fn the_command_places_a_kernel_in_the_ladder_or_refuses_it() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mine.wgsl");
    let path = file.to_str().expect("UTF-8");
    let args = ["bench", "kernels", "--op", "max_pool2d", "--wgsl", path, "--shapes", "n=2 c=4 size=32", "--runs", "2"];
    let run = |more: &[&str]| finish(command(&args.iter().chain(more).copied().collect::<Vec<_>>()));

    std::fs::write(&file, example()).expect("a file");
    let out = run(&["--device", "gpu", "--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let b: Value = serde_json::from_str(&text(&out.stdout)).expect("JSON");
    let results = b["results"].as_array().expect("results");
    let kernels: Vec<&str> = results.iter().filter_map(|r| r["kernel"].as_str()).collect();
    assert!(kernels.contains(&"plain") && kernels.last() == Some(&"mine.wgsl"), "{kernels:?}");
    assert!(results.iter().all(|r| r["correct"] == true && r["direction"] == "forward"), "{b}");
    assert!(b["proof"]["passed"].as_u64().is_some_and(|n| n >= 3), "{b}");

    let e = complaint(&run(&["--device", "cpu"]), &args);
    assert!(e.contains("--device gpu"), "{e}");
    for (what, wanted) in [
        (example().replace("max(", "min("), "is wrong"),
        (example().replace("fn main", "fn"), "mine.wgsl:"),
        (example().replace("@binding(1)", "@binding(7)"), "@binding(7)"),
    ] {
        std::fs::write(&file, what).expect("a file");
        let (svg, before) = (folder.path().join("plot.svg"), listing(folder.path()));
        let svg = svg.to_str().expect("UTF-8");
        let e = complaint(&run(&["--device", "gpu", "--quiet", "--svg", svg]), &args);
        assert!(e.contains(wanted), "{e}");
        assert_eq!(listing(folder.path()), before);
    }
    std::fs::write(&file, [0xff, 0xfe, 0]).expect("a file");
    let e = complaint(&run(&["--device", "gpu", "--quiet"]), &args);
    assert!(e.contains("UTF-8"), "{e}");
}
