//! Every kernel variant agrees with the `f64` reference on every sample that it claims to support: between guards of NaN,
//! into outputs that start as NaN, and with the same bits with and without the shader's run-time checks.

mod common;

use std::collections::BTreeSet;

use radiograd::check::{Outcome, Recorded, compare};
use radiograd::exec::Executor as _;
use radiograd::gpu::{Executor, Options};
use radiograd::ops::registry::registry;
use radiograd::store::ParamStore;

fn run(executor: &mut Executor, recorded: &Recorded) -> Outcome {
    executor.load(&ParamStore::new()).unwrap();
    let program = executor.compile(recorded.graph(), &recorded.roots()).unwrap();
    let outcome = recorded.replay(executor, program).unwrap();
    executor.check_guards(program).unwrap();
    outcome
}

#[test]
fn every_variant_agrees_with_the_reference() {
    let Some(first) = common::gpu(Options::default()) else { return };
    let gpu = first.gpu().clone();
    let mut failures = Vec::new();
    let mut tried = BTreeSet::new();
    for entry in registry() {
        for sample in entry.samples() {
            let recorded = Recorded::new(&sample, 3).unwrap();
            let reference = recorded.reference().unwrap();
            for variant in recorded.variants(gpu.kind, gpu.subgroup) {
                let options = |checked| Options {
                    checked,
                    guards: true,
                    variant: Some(variant.to_owned()),
                    ..Options::default()
                };
                let fast = run(&mut Executor::new(gpu.clone(), options(false)), &recorded);
                let checked = run(&mut Executor::new(gpu.clone(), options(true)), &recorded);
                tried.insert((entry.name, variant));
                let error = compare(&fast, &reference);
                if error.is_nan() || error > sample.tolerance() {
                    failures.push(format!("{} / {} / {variant}: error {error:.1e}", entry.name, sample.name));
                }
                if !same_bits(&fast, &checked) {
                    failures
                        .push(format!("{} / {} / {variant}: run-time checks change the bits", entry.name, sample.name));
                }
            }
        }
    }
    println!("{} pairs of op and variant: {tried:?}", tried.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
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
