//! The fusion pass: what it finds, what it leaves alone, and that the fused step computes what the recorded one does.

mod common;

use std::sync::Arc;

use radiograd::bench::step::Workload;
use radiograd::cpu;
use radiograd::exec::Executor;
use radiograd::fuse::{Fused, fuse};
use radiograd::gpu::Options;
use radiograd::graph::{Graph, NodeId};
use radiograd::nn::Model;
use radiograd::ops::conv2d::Conv2d;
use radiograd::ops::max_pool2d::Pool2d;
use radiograd::shape::Spec;
use radiograd::tensor::{Data, Tensor, relative_error};
use radiograd::train::step::Turn;

/// Chains with every way in which a convolution can be followed by what fuses and what does not, and sizes that leave a rest.
const MODELS: [(&str, usize); 9] = [
    ("cnn1", 16),
    ("cnn2", 28),
    ("cnn3", 30),
    ("simple", 32),
    ("conv8-relu-conv12-relu-pool-flatten-dense2", 13),
    ("conv8k5s2-relu-pool-conv8-bn-relu-pool-flatten-dense2", 30),
    ("conv40-relu-conv6k1-relu-avgpool-flatten-dense2", 12),
    // Values that are read twice: after a ReLU, before one, and joined.
    ("conv8-relu-2x[[conv8-relu-conv8]+-relu]-[conv12s2-relu-conv12-relu]+[conv12k1s2]-pool-flatten-dense2", 14),
    ("conv8-relu-pool-3x[conv4-relu]++-conv6k1-relu-pool-flatten-dense2", 16),
];

fn workload(model: &str, size: usize) -> Workload {
    Workload::new(Model::new(model, [1, size, size], 2).unwrap(), 8, 4, 3, None).unwrap()
}

/// Loss, gradient of all parameters, and the parameters after `steps` steps.
fn train(work: &Workload, executor: &mut dyn Executor, steps: usize) -> Vec<Vec<f64>> {
    executor.load(&work.store).unwrap();
    let step = &work.step;
    let program = executor.compile(&step.graph, &[step.loss, step.gradient]).unwrap();
    for i in 0..steps {
        let chosen: Vec<u32> = (0..4).map(|k| ((4 * i + k) % 8) as u32).collect();
        let turn =
            Turn { chosen: &chosen, repeats: &[], seed: 3, step: i as u64, update: i as u64 + 1, lr: 1e-3, row: 0 };
        step.run(executor, program, work.images(), &turn).unwrap();
    }
    let mut values = vec![step.loss, step.gradient].into_iter().map(|n| executor.read(program, n).unwrap().to_f64());
    let (loss, gradient) = (values.next().unwrap(), values.next().unwrap());
    let params = executor.read_var(work.store.trainable_view().var).unwrap().to_f64();
    vec![loss, gradient, params]
}

fn fused_always(graph: &Graph, roots: &[NodeId]) -> Option<Fused> {
    fuse(graph, roots, |_, _, _| true)
}

fn ops(graph: &Graph, roots: &[NodeId]) -> Vec<&'static str> {
    let live = graph.live(roots);
    graph.ids().filter(|id| live[id.index()]).filter_map(|id| graph.node(id).op().map(|op| op.name())).collect()
}

#[test]
fn the_fused_step_is_the_recorded_one_on_the_reference() {
    for (model, size) in MODELS {
        let work = workload(model, size);
        let step = &work.step;
        let fused = fused_always(&step.graph, &[step.loss, step.gradient]).expect(model);
        let place = |id: NodeId| fused.places[id.index()].unwrap();
        let graph = Arc::new(fused.graph.clone());
        let run = |graph: &Arc<Graph>, roots: [NodeId; 2], map: &dyn Fn(NodeId) -> NodeId| {
            let mut executor = cpu::Executor::<f64>::reference();
            executor.load(&work.store).unwrap();
            let program = executor.compile(graph, &roots).unwrap();
            let inputs: Vec<NodeId> = step.graph.ids().filter(|id| step.graph.node(*id).kind() == "input").collect();
            for id in inputs {
                let spec = step.graph.spec(id);
                let value = match spec.dtype {
                    radiograd::shape::DType::U32 => Data::U32((0..spec.numel() as u32).map(|i| i % 8).collect()),
                    _ => Data::F32(vec![1e-3; spec.numel()]),
                };
                executor.set(program, map(id), &Tensor::new(spec.shape.clone(), value).unwrap()).unwrap();
            }
            executor.run(program).unwrap();
            roots.map(|r| executor.read(program, r).unwrap().to_f64())
        };
        let plain = run(&step.graph, [step.loss, step.gradient], &|id| id);
        let same = run(&graph, [place(step.loss), place(step.gradient)], &place);
        for (a, b) in plain.iter().zip(&same) {
            assert!(b.iter().all(|v| v.is_finite()) && b.iter().any(|v| *v != 0.0), "{model}");
            let norm: f64 = b.iter().map(|v| v * v).sum::<f64>().sqrt();
            let error: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            assert!(error <= 1e-12 * norm, "{model}: {error:e} of {norm:e}");
        }
    }
}

#[test]
fn the_fused_step_is_the_recorded_one_on_the_gpu() {
    for (model, size) in MODELS {
        let work = workload(model, size);
        let Some(mut plain) = common::gpu(Options { no_fuse: true, ..Options::default() }) else { return };
        let mut fused = common::gpu(Options::default()).unwrap();
        // With subgroups all chains are fused; elsewhere there is nothing to compare.
        let found = fused.fuse(&work.step.graph, &[work.step.loss, work.step.gradient]);
        assert_eq!(found.is_some(), fused.gpu().subgroup.is_some(), "{model}");
        let (a, b) = (train(&work, &mut plain, 1), train(&work, &mut fused, 1));
        for (what, (a, b)) in ["loss", "gradient"].iter().zip(a.iter().zip(&b)) {
            let error = relative_error(a, b);
            assert!(error <= 1e-5, "{model}: {what} differs by {error:e}");
        }
        // The same program gives the same bits.
        let mut again = common::gpu(Options::default()).unwrap();
        let (first, second) = (train(&work, &mut fused, 3), train(&work, &mut again, 3));
        assert_eq!(first, second, "{model}");
    }
}

#[test]
fn the_chains_of_cnn2_are_found() {
    let work = workload("cnn2", 28);
    let roots = [work.step.loss, work.step.gradient];
    let fused = fused_always(&work.step.graph, &roots).unwrap();
    assert_eq!(fused.chains, 2);
    let roots = roots.map(|r| fused.places[r.index()].unwrap());
    let ops = ops(&fused.graph, &roots);
    let count = |name| ops.iter().filter(|op| **op == name).count();
    assert_eq!(count("conv2d_relu_max_pool2d"), 2);
    assert_eq!(count("max_pool2d_codes"), 2);
    assert_eq!((count("conv2d_block_weight_grad"), count("conv2d_block_bias_grad")), (2, 2));
    // The images take no gradient.
    assert_eq!(count("conv2d_block_input_grad"), 1);
    for gone in ["conv2d", "max_pool2d", "max_pool2d_input_grad", "conv2d_input_grad", "conv2d_weight_grad"] {
        assert_eq!(count(gone), 0, "{gone}");
    }
}

/// A convolution and ReLU of 8 channels, to be continued.
fn chain(g: &mut Graph) -> (NodeId, NodeId) {
    let (x, w) = (g.input("x", Spec::float([2, 3, 8, 8])), g.input("w", Spec::float([8, 3, 3, 3])));
    let c = g.conv2d(x, w, None, Conv2d::same(3)).unwrap();
    (c, g.relu(c).unwrap())
}

#[test]
fn what_somebody_else_reads_is_left_alone() {
    // The convolution's result is asked for.
    let mut g = Graph::new();
    let (c, r) = chain(&mut g);
    assert!(fused_always(&g, &[c, r]).is_none());
    // It is read twice.
    let mut g = Graph::new();
    let (c, r) = chain(&mut g);
    let sum = g.add(c, r).unwrap();
    assert!(fused_always(&g, &[sum]).is_none());
    // The activation is asked for beside the pooled one: only convolution and ReLU are fused.
    let mut g = Graph::new();
    let (_, r) = chain(&mut g);
    let p = g.max_pool2d(r, Pool2d::square(2)).unwrap();
    let fused = fused_always(&g, &[r, p]).unwrap();
    let roots = [r, p].map(|id| fused.places[id.index()].unwrap());
    assert_eq!(ops(&fused.graph, &roots), ["conv2d_relu", "max_pool2d"]);
    // Other windows are not fused either.
    let mut g = Graph::new();
    let (_, r) = chain(&mut g);
    let p = g.max_pool2d(r, Pool2d::new(3, 2, 1)).unwrap();
    let fused = fused_always(&g, &[p]).unwrap();
    assert_eq!(ops(&fused.graph, &[fused.places[p.index()].unwrap()]), ["conv2d_relu", "max_pool2d"]);
    // Another activation.
    let mut g = Graph::new();
    let (x, w) = (g.input("x", Spec::float([2, 3, 8, 8])), g.input("w", Spec::float([8, 3, 3, 3])));
    let c = g.conv2d(x, w, None, Conv2d::same(3)).unwrap();
    let t = g.tanh(c).unwrap();
    assert!(fused_always(&g, &[t]).is_none());
}

#[test]
fn nothing_is_fused_that_the_executor_does_not_want() {
    let mut g = Graph::new();
    let (_, r) = chain(&mut g);
    assert!(fuse(&g, &[r], |_, _, _| false).is_none());
}
