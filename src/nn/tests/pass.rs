//! Recorded passes: names, shapes, values, gradients, statistics, costs.

use std::sync::Arc;

use crate::cpu;
use crate::exec::Executor;
use crate::graph::{Graph, NodeId};
use crate::nn::model::{Head, Mode, Model};
use crate::nn::named;
use crate::nn::summary::{self, Summary};
use crate::rng::{Rng, Stream};
use crate::shape::{Shape, Spec};
use crate::store::{Param, ParamStore, Role};
use crate::tensor::{Data, Tensor};

#[test]
fn parameters_have_names_shapes_and_first_values() {
    let model = Model::new("conv4k3x5g1-bn-relu-conv8g2nb-bn-flatten-dense1", [1, 6, 6], 2).unwrap();
    assert_eq!(model.head(), Head::Sigmoid);
    let names: Vec<String> = model.params().iter().map(|p| format!("{} {}", p.name, p.shape)).collect();
    assert_eq!(
        names,
        [
            "conv1.weight [4, 1, 3, 5]",
            "conv1.bias [4]",
            "bn1.weight [4]",
            "bn1.bias [4]",
            "bn1.running_mean [4]",
            "bn1.running_var [4]",
            "conv2.weight [8, 2, 3, 3]",
            "bn2.weight [8]",
            "bn2.bias [8]",
            "bn2.running_mean [8]",
            "bn2.running_var [8]",
            "dense1.weight [1, 288]",
            "dense1.bias [1]",
        ]
    );
    let mut store = ParamStore::new();
    let params = model.init(&mut store, 3);
    let value = |name: &str| store.value(params.iter().find(|p| p.name == name).unwrap());
    // PyTorch's default bound is 1 / sqrt(fan_in): 15 inputs for conv1.
    let bound = 1.0 / 15f32.sqrt();
    for name in ["conv1.weight", "conv1.bias"] {
        assert!(value(name).iter().all(|v| v.abs() <= bound), "{name}");
    }
    assert!(value("conv1.weight").iter().any(|v| v.abs() > 0.8 * bound));
    assert_eq!(value("bn2.weight"), [1.0; 8]);
    assert_eq!(value("bn2.running_mean"), [0.0; 8]);
    assert_eq!(params.iter().filter(|p| p.role == Role::Buffer).count(), 4);
    let again = model.init(&mut ParamStore::new(), 3);
    assert_eq!(again.len(), params.len());
}

fn image(seed: u32, spec: &Spec) -> Tensor {
    let mut rng = Rng::new(seed, 0, Stream::Sample as u32);
    let data = (0..spec.numel()).map(|_| rng.normal()).collect();
    Tensor::new(spec.shape.clone(), Data::F32(data)).unwrap()
}

/// Each named network's logits and layer shapes on both CPU executors, which agree.
#[test]
fn forward_gives_logits_of_the_planned_shapes() {
    for (name, [h, w]) in named::NAMES.map(|name| match name {
        "alexnet" => (name, [63, 64]),
        _ if name.contains("net") => (name, [32, 33]),
        _ => (name, [20, 24]),
    }) {
        let model = Model::new(name, [1, h, w], 3).unwrap();
        let mut store = ParamStore::new();
        let params = model.init(&mut store, 1);
        let mut g = Graph::new();
        let x = g.input("image", Spec::float([2, 1, h, w]));
        let pass = model.forward(&mut g, &params, x, Mode::Eval).unwrap();
        assert_eq!(pass.layers.len(), model.steps().len());
        for ((layer, node), step) in pass.layers.iter().zip(model.steps()) {
            assert_eq!(layer, &step.name);
            assert_eq!(g.spec(*node).shape[0], 2);
            assert_eq!(g.spec(*node).shape[1..], step.output[..], "{name} {layer}");
        }
        let last = &model.steps()[model.steps().len() - 1].name;
        assert!(g.nodes().iter().any(|n| n.kind() == "linear" && n.scope == *last));
        let value = image(5, g.spec(x));
        let g = Arc::new(g);
        let logits = |executor: &mut dyn Executor| {
            executor.load(&store).unwrap();
            let program = executor.compile(&g, &[pass.logits]).unwrap();
            executor.set(program, x, &value).unwrap();
            executor.run(program).unwrap();
            executor.read(program, pass.logits).unwrap()
        };
        let wide = logits(&mut cpu::Executor::<f64>::reference());
        let fast = logits(&mut cpu::Executor::<f32>::fast());
        assert_eq!(wide.shape(), &Shape::from([2, 3]));
        assert!(wide.to_f64().iter().all(|v| v.is_finite()));
        assert!(crate::tensor::relative_error(&fast.to_f64(), &wide.to_f64()) < 1e-5);
    }
}

/// The largest relative error of the gradients of `sum(r * logits)`, `r` random, in a training pass: with respect to the
/// images and each parameter, recorded against differences, both in f64.
fn gradient_error(text: &str, [c, h, w]: [usize; 3]) -> f64 {
    let model = Model::new(text, [c, h, w], 2).expect(text);
    let mut store = ParamStore::new();
    let params = model.init(&mut store, 7);
    let mut g = Graph::new();
    let x = g.input("image", Spec::float([3, c, h, w]));
    let words = g.input("rng", Spec::u32([2]));
    let pass = model.forward(&mut g, &params, x, Mode::Train { rng: words }).expect(text);
    let r = g.input("projection", g.spec(pass.logits).clone());
    let product = g.mul(pass.logits, r).expect("equal shapes");
    let loss = g.sum(product).expect("floats");
    let mut leaves = vec![x];
    leaves.extend(&pass.leaves);
    let grads: Vec<NodeId> =
        g.gradients(loss, None, &leaves).expect(text).into_iter().map(|n| n.expect("every leaf counts")).collect();

    let mut executor = cpu::Executor::<f64>::reference();
    executor.load(&store).unwrap();
    let g = Arc::new(g);
    let backward = executor.compile(&g, &grads).unwrap();
    let forward = executor.compile(&g, &[loss]).unwrap();
    let pixels = image(5, g.spec(x));
    for program in [backward, forward] {
        executor.set(program, x, &pixels).unwrap();
        executor.set(program, words, &Tensor::new([2], Data::U32(vec![3, 1])).unwrap()).unwrap();
        executor.set(program, r, &image(6, g.spec(r))).unwrap();
    }
    executor.run(backward).unwrap();
    let recorded: Vec<Vec<f64>> = grads.iter().map(|&n| executor.read(backward, n).unwrap().to_f64()).collect();

    // One vector holds all that is moved: the pixels, or the variable of all parameters.
    let arena = executor.read_var(ParamStore::TRAINABLE).unwrap();
    let mut numeric = |base: &Tensor, at: usize, set: &dyn Fn(&mut cpu::Executor<f64>, &Tensor)| {
        let mut loss_at = |delta: f64| {
            let mut moved = base.to_f64();
            moved[at] += delta;
            set(&mut executor, &Tensor::new(base.shape().clone(), Data::F64(moved)).unwrap());
            executor.run(forward).unwrap();
            executor.read(forward, loss).unwrap().to_f64()[0]
        };
        // Richardson's extrapolation, as in `check.rs`.
        let h = 1e-3;
        let coarse = (loss_at(h) - loss_at(-h)) / (2.0 * h);
        let fine = (loss_at(0.5 * h) - loss_at(-0.5 * h)) / h;
        set(&mut executor, base);
        (4.0 * fine - coarse) / 3.0
    };
    let mut worst: f64 = 0.0;
    let trainable: Vec<&Param> = params.iter().filter(|p| p.role == Role::Trainable).collect();
    for (k, grad) in recorded.iter().enumerate() {
        let differences: Vec<f64> = (0..grad.len())
            .map(|i| match k.checked_sub(1) {
                None => numeric(&pixels, i, &|e, t| e.set(forward, x, t).unwrap()),
                Some(k) => {
                    let at = trainable[k].view.offset + i;
                    numeric(&arena, at, &|e, t| e.write_var(ParamStore::TRAINABLE, t).unwrap())
                }
            })
            .collect();
        assert!(grad.iter().any(|v| *v != 0.0), "{text}: leaf {k} has no gradient");
        worst = worst.max(crate::tensor::relative_error(grad, &differences));
    }
    worst
}

#[test]
fn gradients_of_whole_networks_are_those_of_differences() {
    for (text, input) in [
        ("conv4-tanh-pool-conv4k3s2nb-elu-avgpool-flatten-dense5-sigmoid-dropout0.3-dense2", [2, 9, 8]),
        ("conv4k3x1g2-softmax-adaptive3x2-lrelu0.2-gap-flatten-dense2nb", [2, 6, 6]),
        ("conv3k3nb-bn-tanh-pool-flatten-dense4nb-bn-sigmoid-dense1", [1, 6, 6]),
        // What is read twice gets the sum of two gradients; so does what is read four times.
        ("conv3-2x[[tanh-conv3nb-bn]+-tanh]-[conv4s2nb-bn-tanh]+[conv4k1s2nb-bn]-gap-flatten-dense2", [1, 5, 4]),
        (
            "conv2-2x[bn-tanh-conv2k1]++-avgpool-[[tanh]+[[sigmoid]+]]++-flatten-[dense3-tanh]++-[tanh]+-dense2",
            [1, 4, 4],
        ),
    ] {
        let error = gradient_error(text, input);
        assert!(error < crate::check::DIFFERENCE_TOLERANCE, "{text}: {error:e}");
    }
}

/// After one step from mean 0 and variance 1, with momentum 0.1: 0.1 mean, and 0.9 + 0.1 times the unbiased variance.
#[test]
fn training_moves_the_running_statistics() {
    let model = Model::new("bn-flatten-dense2", [1, 1, 2], 2).unwrap();
    let mut store = ParamStore::new();
    let params = model.init(&mut store, 1);
    let mut g = Graph::new();
    let x = g.input("image", Spec::float([2, 1, 1, 2]));
    let rng = g.input("rng", Spec::u32([2]));
    let pass = model.forward(&mut g, &params, x, Mode::Train { rng }).unwrap();
    let mut executor = cpu::Executor::<f64>::reference();
    executor.load(&store).unwrap();
    let program = executor.compile(&Arc::new(g), &[pass.logits]).unwrap();
    // Mean 4; squared distances 9 + 1 + 1 + 9 = 20, over 3.
    let pixels = Tensor::f32([2, 1, 1, 2], vec![1.0, 3.0, 5.0, 7.0]).unwrap();
    executor.set(program, x, &pixels).unwrap();
    executor.run(program).unwrap();
    let buffers = executor.read_var(ParamStore::BUFFERS).unwrap().to_f64();
    let value = |name: &str| {
        let p = params.iter().find(|p| p.name == name).unwrap();
        buffers[p.view.offset]
    };
    approx::assert_relative_eq!(value("bn1.running_mean"), 0.4, epsilon = 1e-7);
    approx::assert_relative_eq!(value("bn1.running_var"), 0.9 + 2.0 / 3.0, epsilon = 1e-7);
}

#[test]
fn dropout_and_statistics_belong_to_training() {
    let model = Model::new("conv2-bn-relu-dropout-flatten-dropout0-dense2", [1, 4, 4], 2).unwrap();
    let params = model.init(&mut ParamStore::new(), 1);
    let kinds = |mode: fn(NodeId) -> Mode| -> Vec<&'static str> {
        let mut g = Graph::new();
        let x = g.input("image", Spec::float([2, 1, 4, 4]));
        let rng = g.input("rng", Spec::u32([2]));
        let pass = model.forward(&mut g, &params, x, mode(rng)).unwrap();
        assert_eq!(pass.leaves.len(), 6, "conv and dense with bias, gain and bias of bn");
        g.nodes().iter().map(|n| n.kind()).collect()
    };
    let train = kinds(|rng| Mode::Train { rng });
    let eval = kinds(|_| Mode::Eval);
    let count = |kinds: &[&str], kind: &str| kinds.iter().filter(|k| **k == kind).count();
    // dropout0 records nothing.
    assert_eq!((count(&train, "dropout"), count(&eval, "dropout")), (1, 0));
    assert_eq!((count(&train, "ema_update"), count(&eval, "ema_update")), (2, 0));
}

#[test]
fn a_pass_over_other_shapes_is_refused() {
    let model = Model::new("flatten-dense2", [1, 4, 4], 2).unwrap();
    let params = model.init(&mut ParamStore::new(), 1);
    let refused = |shape: [usize; 4], params: &[Param]| {
        let mut g = Graph::new();
        let x = g.input("image", Spec::float(shape));
        model.forward(&mut g, params, x, Mode::Eval).unwrap_err().to_string()
    };
    assert!(refused([1, 3, 4, 4], &params).contains("takes floats [N, 1, 4, 4]"));
    assert!(refused([1, 1, 4, 4], &params[..1]).contains("takes 2 inputs, got 1"));
    let swapped = [params[1].clone(), params[0].clone()];
    assert!(refused([1, 1, 4, 4], &swapped).contains("the parameter dense1.weight must be [2, 16]"));
}

#[test]
fn summary_counts_costs_and_receptive_fields() {
    let model = Model::new("conv8-relu-pool-conv4k5s2d2-gap-flatten-dense2", [3, 16, 16], 2).unwrap();
    let s = Summary::new(&model, 2).unwrap();
    // conv1: 2 images, 8 x 16 x 16 outputs, 27 products (two operations each) and a bias.
    let outputs = 2 * 8 * 16 * 16;
    assert_eq!(s.layers[0].flops, outputs * (2 * 27 + 1));
    // It reads 2 x 3 x 16 x 16 pixels, 8 x 27 weights and 8 biases, and writes its outputs.
    assert_eq!(s.layers[0].bytes, 4 * (2 * 3 * 256 + 8 * 27 + 8 + outputs));
    // conv1 sees 3, the pool 3 + 1, and conv2's window of 9 reaches 8 steps of 2 further.
    let sizes: Vec<_> = s.layers.iter().map(|l| l.field.map(|f| (f.size[0], f.stride[0]))).collect();
    assert_eq!(sizes[..4], [Some((3, 1)), Some((3, 1)), Some((4, 2)), Some((20, 4))]);
    assert_eq!(sizes[6], None);
    assert_eq!(s.parameters, model.trainable_numel());
    assert_eq!(s.flops, s.layers.iter().map(|l| l.flops).sum::<u64>());
    assert_eq!(s.layers[5].bytes, 0, "flatten moves nothing");
    let text = s.render();
    assert_eq!(text.lines().count(), 1 + 1 + 7 + 1 + 1);
    assert!(text.contains("conv4k5s2d2") && text.contains("[N, 4, 4, 4]"), "{text}");
    let json = serde_json::to_value(&s).unwrap();
    assert_eq!(json["layers"][2]["field"]["stride"][0], 2);
    assert!(Summary::new(&model, 0).is_err() && Summary::new(&model, usize::MAX).is_err());
}

#[test]
fn node_rows_hold_every_node_of_a_training_graph() {
    let model = Model::new("conv2-relu-flatten-dense1", [1, 4, 4], 2).unwrap();
    let params = model.init(&mut ParamStore::new(), 1);
    let mut g = Graph::new();
    let x = g.input("image", Spec::float([2, 1, 4, 4]));
    let pass = model.forward(&mut g, &params, x, Mode::Eval).unwrap();
    g.gradients(pass.logits, None, &pass.leaves).unwrap();
    let rows = summary::nodes(&g);
    assert_eq!(rows.len(), g.nodes().len());
    let parameters: usize = rows.iter().map(|r| r.parameters).sum();
    assert_eq!(parameters, model.trainable_numel());
    assert!(rows.iter().any(|r| r.op == "conv2d_weight_grad" && r.scope == "conv1" && r.pass == "backward"));
    let text = summary::render_nodes(&rows);
    assert_eq!(text.lines().count(), rows.len() + 1);
    assert!(text.contains("[2, 2, 4, 4]"), "{text}");
}
