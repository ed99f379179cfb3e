//! Random graphs of all ops: the GPU agrees with the reference, gradients with differences, memory plans with lifetimes, rewritten
//! graphs with the recorded ones, and two runs with each other bit by bit.
//!
//! `RADIOGRAD_GRAPHS` says how many graphs each of the two tests draws (1,000 in the long run), `RADIOGRAD_GRAPHS_SEED` which. A
//! case that fails is shrunk, and printed as `radiograd graph --nodes` would list it.

mod common;
mod graphs;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use graphs::check::{Gpus, Seen, on_the_cpu, thrice};
use graphs::{MOST_NODES, Recipe, ops, recipe};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use radiograd::gpu::Options;
use radiograd::ops::registry::registry;

fn number(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, got {text}")))
}

/// Draws graphs. Each begins with some ops in turn, so that all occur; `property` is told the number of the graph.
fn draw(what: &str, cases: usize, forced: usize, most: usize, property: impl Fn(&Recipe, usize) -> Result<(), String>) {
    let seed = number("RADIOGRAD_GRAPHS_SEED").unwrap_or(1);
    println!("{what}: {cases} graphs of seed {seed}");
    let start = Instant::now();
    for case in 0..cases {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(seed as u64).to_le_bytes());
        bytes[8..16].copy_from_slice(&(case as u64).to_le_bytes());
        let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let first: Vec<usize> = (0..forced).map(|k| (forced * case + k) % ops::OPS.len()).collect();
        // A panic is a failure that shrinks too.
        let guarded = |r: &Recipe| match catch_unwind(AssertUnwindSafe(|| property(r, case))) {
            Ok(result) => result,
            Err(_) => Err(format!("it panicked; recorded from {r:?}")),
        };
        let result = runner.run(&recipe(&first, most), |r| guarded(&r).map_err(TestCaseError::fail));
        if let Err(e) = result {
            panic!("{what}: graph {case} of seed {seed}: {e}");
        }
        if (case + 1).is_multiple_of(50) {
            eprintln!("{what}: {} graphs, {:.0} s", case + 1, start.elapsed().as_secs_f64());
        }
    }
    println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
}

/// Counts the ops of a graph as they are recorded, gradients too.
fn count(recipe: &Recipe, counts: &RefCell<BTreeMap<&'static str, usize>>) {
    if let Ok(built) = recipe.build(0) {
        for node in built.graph.nodes() {
            *counts.borrow_mut().entry(node.kind()).or_default() += 1;
        }
    }
}

/// That every op of the registry occurred, and those that change variables.
fn all_occurred(counts: &BTreeMap<&'static str, usize>) {
    println!("{} kinds of node: {counts:?}", counts.len());
    let names = registry().into_iter().map(|e| e.name);
    let missing: Vec<&str> = names
        .chain(["optimizer_step", "ema_update", "write_rows", "input", "variable"])
        .filter(|name| !counts.contains_key(name))
        .collect();
    assert!(missing.is_empty(), "never drawn: {missing:?}");
}

#[test]
fn plans_gradients_and_rewritten_graphs_hold_on_the_reference() {
    let (seen, counts) = (RefCell::new(Seen::default()), RefCell::default());
    let cases = number("RADIOGRAD_GRAPHS").unwrap_or(60);
    draw("reference", cases, 2, 10, |recipe, _| {
        count(recipe, &counts);
        thrice(recipe, &mut seen.borrow_mut(), on_the_cpu)
    });
    let seen = seen.into_inner();
    println!("{seen:?}");
    all_occurred(&counts.into_inner());
    assert!(seen.skipped * 50 <= seen.graphs, "too many graphs with values that are not finite: {seen:?}");
    assert!(seen.kinks * 20 <= seen.leaves, "too many leaves at kinks: {seen:?}");
    assert!(seen.rare * 50 <= seen.graphs, "too many graphs that differ with some values: {seen:?}");
    assert!(seen.fused > 0 && seen.leaves > 0 && seen.pairs > 0, "{seen:?}");
    // Few graphs hold a value that is large enough to be computed twice.
    assert!(cases < 1000 || seen.recomputed > 0, "{seen:?}");
}

#[test]
fn the_gpu_agrees_with_the_reference() {
    let Some(first) = common::gpu(Options::default()) else { return };
    let (seen, counts) = (RefCell::new(Seen::default()), RefCell::default());
    let cases = number("RADIOGRAD_GRAPHS").unwrap_or(6);
    let gpus = RefCell::new(Gpus::new(&first));
    draw("GPU", cases, 3, 4, |recipe, case| {
        count(recipe, &counts);
        // Kept pipelines take memory: now and then they go.
        if gpus.borrow().pipelines() > 4000 {
            *gpus.borrow_mut() = Gpus::new(&first);
        }
        let turn = case;
        thrice(recipe, &mut seen.borrow_mut(), |built, seen| gpus.borrow_mut().check(built, turn, seen))
    });
    let seen = seen.into_inner();
    println!("{} pipelines at the end; {seen:?}", gpus.borrow().pipelines());
    // The short run holds some of the ops, the long one all.
    if cases >= 100 {
        all_occurred(&counts.into_inner());
    }
    assert!(seen.skipped * 50 <= seen.graphs, "too many graphs with values that are not finite: {seen:?}");
    assert!(seen.rare * 50 <= seen.graphs.max(100), "too many graphs that differ with some values: {seen:?}");
}

#[test]
fn graphs_are_bounded_and_the_same_recipe_is_the_same_graph() {
    draw("recording", 200, 2, 20, |recipe, _| {
        let (a, b) = (recipe.build(0).map_err(|e| e.to_string())?, recipe.build(0).map_err(|e| e.to_string())?);
        if a.recorded > MOST_NODES || a.to_string() != b.to_string() {
            return Err(format!("{} nodes\n{a}", a.recorded));
        }
        Ok(())
    });
}
