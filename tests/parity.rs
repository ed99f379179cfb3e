//! Every kernel variant agrees with the `f64` reference on every sample that it claims to support: between guards of NaN,
//! into outputs that start as NaN, and with the same bits with and without the shader's run-time checks.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use radiograd::check::{Outcome, Recorded, compare};
use radiograd::exec::Executor as _;
use radiograd::gpu::{Executor, Gpu, Options};
use radiograd::ops::registry::registry;
use radiograd::ops::sample::Sample;
use radiograd::store::ParamStore;

fn run(executor: &mut Executor, recorded: &Recorded) -> Outcome {
    executor.load(&ParamStore::new()).unwrap();
    let program = executor.compile(recorded.graph(), &recorded.roots()).unwrap();
    let outcome = recorded.replay(executor, program).unwrap();
    executor.check_guards(program).unwrap();
    outcome
}

/// What every variant of a sample's ops gives, on a device of its own.
fn try_variants(gpu: &Gpu, (op, sample): (&'static str, &Sample), found: &mut Found) {
    let recorded = Recorded::new(sample, 3).unwrap();
    let reference = recorded.reference().unwrap();
    for variant in recorded.variants(gpu.kind, gpu.subgroup) {
        let options =
            |checked| Options { checked, guards: true, variant: Some(variant.to_owned()), ..Options::default() };
        let fast = run(&mut Executor::new(gpu.clone(), options(false)), &recorded);
        let checked = run(&mut Executor::new(gpu.clone(), options(true)), &recorded);
        found.tried.insert((op, variant));
        let error = compare(&fast, &reference);
        if error.is_nan() || error > sample.tolerance() {
            found.failures.push(format!("{op} / {} / {variant}: error {error:.1e}", sample.name));
        }
        if !same_bits(&fast, &checked) {
            found.failures.push(format!("{op} / {} / {variant}: run-time checks change the bits", sample.name));
        }
    }
}

#[derive(Default)]
struct Found {
    tried: BTreeSet<(&'static str, &'static str)>,
    failures: Vec<String>,
    samples: usize,
}

#[test]
fn every_variant_agrees_with_the_reference() {
    if common::gpu(Options::default()).is_none() {
        return;
    }
    // Most of the time goes into compiling, which a device of software Vulkan does one after another: so there is one a core.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
    let next = AtomicUsize::new(0);
    let work = || {
        let first = common::gpu(Options::default()).expect("there was one");
        let all: Vec<(&'static str, Sample)> =
            registry().iter().flat_map(|e| e.samples().into_iter().map(|s| (e.name, s))).collect();
        let mut found = Found::default();
        while let Some((op, sample)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            try_variants(first.gpu(), (op, sample), &mut found);
            found.samples += 1;
        }
        (found, all.len())
    };
    let parts: Vec<(Found, usize)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a sample panicked, see above")).collect()
    });
    let mut found = Found::default();
    for (part, _) in &parts {
        found.tried.extend(&part.tried);
        found.failures.extend(part.failures.iter().cloned());
        found.samples += part.samples;
    }
    assert_eq!(found.samples, parts[0].1, "all samples were tried, each once");
    println!("{} pairs of op and variant: {:?}", found.tried.len(), found.tried);
    assert!(found.failures.is_empty(), "{}", found.failures.join("\n"));
}

fn same_bits(a: &Outcome, b: &Outcome) -> bool {
    let bits = |o: &Outcome| -> Vec<Vec<u32>> {
        std::iter::once(&o.output).chain(&o.grads).map(|t| t.to_f32().iter().map(|v| v.to_bits()).collect()).collect()
    };
    bits(a) == bits(b)
}

#[test]
fn what_training_runs_agrees_with_the_reference() {
    let Some(mut executor) = common::gpu(Options::default()) else { return };
    for entry in registry() {
        for sample in entry.samples() {
            let recorded = Recorded::new(&sample, 4).unwrap();
            let outcome = recorded.run(&mut executor).unwrap();
            let again = recorded.run(&mut executor).unwrap();
            let error = compare(&outcome, &recorded.reference().unwrap());
            assert!(error <= sample.tolerance(), "{} / {}: error {error:.1e}", entry.name, sample.name);
            assert!(same_bits(&outcome, &again), "{} / {}: two runs differ", entry.name, sample.name);
        }
    }
}
