//! The ops that change persistent variables, on every executor: optimizer steps against the readable update
//! (`reference_cases.rs` has PyTorch's values), rows written into a log.

mod common;
use std::sync::Arc;

use radiograd::cpu;
use radiograd::exec::Executor;
use radiograd::gpu::Options;
use radiograd::graph::{Graph, VarView};
use radiograd::optim::{OptimizerKind, update};
use radiograd::rng::{Rng, Stream};
use radiograd::shape::Spec;
use radiograd::store::{ParamStore, Role};
use radiograd::tensor::{Data, Tensor, relative_error};

/// Every executor, with the error that it may have.
fn executors() -> Vec<(&'static str, f64, Box<dyn Executor>)> {
    let mut all: Vec<(&'static str, f64, Box<dyn Executor>)> = vec![
        ("f64", 1e-6, Box::new(cpu::Executor::<f64>::reference())),
        ("f32", 1e-5, Box::new(cpu::Executor::<f32>::fast())),
    ];
    // What the table chooses, with and without the shaders' checks, and the plain kernels.
    for (name, checked, variant) in
        [("GPU", true, None), ("GPU without checks", false, None), ("GPU, plain kernels", true, Some("plain"))]
    {
        let options = Options { checked, guards: true, variant: variant.map(str::to_owned), ..Options::default() };
        if let Some(gpu) = common::gpu(options) {
            all.push((name, 1e-5, Box::new(gpu)));
        }
    }
    all
}

/// Replays steps through a graph; returns the parameters after each step and the state after the last.
fn replay(
    executor: &mut dyn Executor,
    kind: OptimizerKind,
    hyper: &dyn Fn(u64) -> [f32; 4],
    start: &[f32],
    grads: &[Vec<f32>],
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut store = ParamStore::new();
    store.add_param("p", Role::Trainable, [start.len()], start);
    let params = store.trainable_view();
    let slots: Vec<VarView> =
        kind.slot_names().iter().map(|name| store.add_var(name, params.spec.clone(), None)).collect();
    let len = params.spec.numel();
    let mut g = Graph::new();
    let gradient = g.input("gradient", params.spec.clone());
    let numbers = g.input("hyper", Spec::float([4]));
    g.optimizer_step(kind, params.clone(), &slots, gradient, numbers).unwrap();
    executor.load(&store).unwrap();
    let program = executor.compile(&Arc::new(g), &[]).unwrap();
    let mut values = Vec::new();
    for (t, step) in grads.iter().enumerate() {
        let mut step = step.clone();
        step.resize(len, 0.0);
        executor.set(program, gradient, &Tensor::f32([len], step).unwrap()).unwrap();
        let numbers_now = hyper(t as u64 + 1).to_vec();
        executor.set(program, numbers, &Tensor::f32([4], numbers_now).unwrap()).unwrap();
        executor.run(program).unwrap();
        let mut p = executor.read_var(params.var).unwrap().to_f64();
        assert!(p[start.len()..].iter().all(|&gap| gap == 0.0), "the gap after a parameter is not zero");
        p.truncate(start.len());
        values.push(p);
    }
    let state = slots
        .iter()
        .map(|slot| {
            let mut v = executor.read_var(slot.var).unwrap().to_f64();
            v.truncate(start.len());
            v
        })
        .collect();
    (values, state)
}

#[test]
fn optimizer_steps_agree_with_the_readable_update() {
    let kinds = [
        "sgd",
        "sgd:weight_decay=0.1",
        "sgd:momentum=0.9,dampening=0.3",
        "sgd:momentum=0.9,nesterov=true,weight_decay=0.01",
        "adam:weight_decay=0.1",
        "adamw:betas=0.8/0.9,weight_decay=0.2",
        "rmsprop",
        "rmsprop:centered=true",
        "rmsprop:momentum=0.9,weight_decay=0.1",
        "rmsprop:centered=true,momentum=0.5,alpha=0.9",
    ];
    let (lr, scale, n) = (0.02, 0.5f32, 20_011);
    let mut rng = Rng::new(7, 0, Stream::Sample as u32);
    let start: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
    let grads: Vec<Vec<f32>> = (0..4).map(|_| (0..n).map(|_| rng.normal()).collect()).collect();
    for text in kinds {
        let kind: OptimizerKind = text.parse().unwrap();
        let mut p: Vec<f64> = start.iter().map(|&v| f64::from(v)).collect();
        let mut state = vec![vec![0.0; n]; kind.slots()];
        for (t, g) in grads.iter().enumerate() {
            let g: Vec<f64> = g.iter().map(|&v| f64::from(scale * v)).collect();
            update(&kind, lr, t as u64 + 1, &mut p, &g, &mut state).unwrap();
        }
        for (name, tolerance, mut executor) in executors() {
            let hyper = |t| {
                let [lr, c1, c2, one] = kind.hyper(lr, t);
                [lr, c1, c2, one * scale]
            };
            let (values, slots) = replay(executor.as_mut(), kind, &hyper, &start, &grads);
            let error = relative_error(values.last().unwrap(), &p);
            assert!(error <= tolerance, "{text}: {name}: {error:.1e}");
            assert_eq!(slots.len(), state.len());
            for (got, want) in slots.iter().zip(&state) {
                let error = relative_error(got, want);
                assert!(error <= tolerance, "{text}: {name}: state: {error:.1e}");
            }
        }
    }
}

#[test]
fn an_optimizer_step_over_more_than_65535_workgroups() {
    let n = 65_536 * 256 + 1;
    let start: Vec<f32> = (0..n).map(|i| (i % 1000) as f32).collect();
    let grads = vec![start.clone()];
    for (name, tolerance, mut executor) in executors() {
        let kind: OptimizerKind = "sgd".parse().unwrap();
        let (values, _) = replay(executor.as_mut(), kind, &|t| kind.hyper(0.5, t), &start, &grads);
        let half: Vec<f64> = start.iter().map(|&v| 0.5 * f64::from(v)).collect();
        let error = relative_error(&values[0], &half);
        assert!(error <= tolerance, "{name}: {error:.1e}");
    }
}

#[test]
fn optimizer_steps_that_do_not_fit_are_refused() {
    let mut store = ParamStore::new();
    store.add_param("p", Role::Trainable, [3], &[1.0; 3]);
    let params = store.trainable_view();
    let slot = store.add_var("slot", params.spec.clone(), None);
    let short = store.add_var("short", Spec::float([3]), None);
    let mut g = Graph::new();
    let grads = g.input("gradient", params.spec.clone());
    let few = g.input("few", Spec::float([3]));
    let hyper = g.input("hyper", Spec::float([4]));
    let [adam, wrong]: [OptimizerKind; 2] =
        ["adam".parse().unwrap(), OptimizerKind::Adam { betas: [1.0, 0.5], eps: 1e-8, weight_decay: 0.0 }];
    let both = [slot.clone(), slot.clone()];
    let mut refuse = |kind, slots: &[VarView], grads, hyper, part: &str| {
        let error = g.optimizer_step(kind, params.clone(), slots, grads, hyper).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    };
    refuse(adam, &both[..1], grads, hyper, "2 state vectors, got 1");
    refuse(adam, &[slot, short], grads, hyper, "shaped like the parameters");
    refuse(adam, &both, few, hyper, "[3] against [64]");
    refuse(adam, &both, grads, few, "OptimizerKind::hyper");
    refuse(wrong, &both, grads, hyper, "betas[0]");
}

#[test]
fn rows_are_written_into_a_log_and_dropped_past_its_end() {
    let (k, c, r) = (7, 3, 4);
    for (name, _, mut executor) in executors() {
        let mut store = ParamStore::new();
        let before = Tensor::f32([k, c], vec![-1.0; k * c]).unwrap();
        let log = store.add_var("log", Spec::float([k, c]), Some(before));
        let mut g = Graph::new();
        let rows = g.input("rows", Spec::float([r, c]));
        let at = g.input("at", Spec::u32([1]));
        g.write_rows(log.clone(), rows, at).unwrap();
        executor.load(&store).unwrap();
        let program = executor.compile(&Arc::new(g), &[]).unwrap();
        let mut expected = vec![-1.0; k * c];
        for (step, first) in [1u32, 5, 7, u32::MAX, u32::MAX - 2, 0].into_iter().enumerate() {
            let values: Vec<f32> = (0..r * c).map(|i| (100 * step + i) as f32).collect();
            for row in 0..r {
                let place = first as usize + row;
                if place < k {
                    for column in 0..c {
                        expected[place * c + column] = f64::from(values[row * c + column]);
                    }
                }
            }
            executor.set(program, rows, &Tensor::f32([r, c], values).unwrap()).unwrap();
            executor.set(program, at, &Tensor::new([1], Data::U32(vec![first])).unwrap()).unwrap();
            executor.run(program).unwrap();
            assert_eq!(executor.read_var(log.var).unwrap().to_f64(), expected, "{name}: from row {first}");
        }
    }
}

#[test]
fn nan_and_infinity_are_counted_by_their_bits() {
    let mut values = vec![0.5f32; 10_000];
    let bad = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)];
    for (i, &v) in bad.iter().enumerate() {
        values[1999 * i + 3] = v;
    }
    values[4] = f32::MIN_POSITIVE;
    for (name, tolerance, mut executor) in executors() {
        let mut g = Graph::new();
        let x = g.input("x", Spec::float([values.len()]));
        let y = g.grad_stats(x).unwrap();
        executor.load(&ParamStore::new()).unwrap();
        let program = executor.compile(&Arc::new(g), &[y]).unwrap();
        executor.set(program, x, &Tensor::f32([values.len()], values.clone()).unwrap()).unwrap();
        executor.run(program).unwrap();
        let stats = executor.read(program, y).unwrap().to_f64();
        assert_eq!(stats[1], bad.len() as f64, "{name}");
        let squares = 0.25 * (values.len() - bad.len() - 1) as f64;
        assert!((stats[0] - squares).abs() <= tolerance * squares, "{name}: {stats:?}");
    }
}
