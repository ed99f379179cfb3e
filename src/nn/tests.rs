//! Chains and their errors, shapes, parameter counts, and the gradient of whole networks.

use std::sync::Arc;

use super::model::{Head, Mode, Model};
use super::spec::{Activation, Layer, Network};
use super::summary::{self, Summary};
use super::{ModelError, named};
use crate::cpu;
use crate::exec::Executor;
use crate::graph::{Graph, NodeId};
use crate::rng::{Rng, Stream};
use crate::shape::{Shape, Spec};
use crate::store::{Param, ParamStore, Role};
use crate::tensor::{Data, Tensor};

const CHAIN: &str = "conv16-relu-pool-conv32k5s2-bn-relu-pool-flatten-dense64-relu-dropout0.5-dense2";

fn problem(text: &str, input: [usize; 3], classes: usize) -> String {
    Model::new(text, input, classes).expect_err(text).to_string()
}

#[test]
fn chains_are_read_and_written_back() {
    let canonical = [
        CHAIN.replace("0.5", "").as_str(),
        "conv8k3x5s2x1p0x2d2g4nb-avgpool3s2p1-adaptive7x5-lrelu0.2-elu0.7-gap-flatten-dense3nb",
        "conv4k4s2-conv4k2s2-pool-pool3x2-pool3s1-tanh-sigmoid-softmax-dropout0.25-flatten",
        "conv1p0",
    ]
    .map(str::to_owned);
    for text in &canonical {
        let network = Network::parse(text, 2).expect(text);
        assert_eq!(&network.to_string(), text);
    }
    // Other spellings of the same layers.
    for (text, written) in [
        ("conv16k3s1p1d1g1-dropout0.5", "conv16-dropout"),
        ("Conv16K5P2-MaxPool2-ReLU", "conv16k5-pool-relu"),
        ("conv16s2k5-adaptive1x1", "conv16k5s2-gap"),
        ("conv16k3d2p2-pool3s3", "conv16d2-pool3"),
        (" lrelu0.01-elu1.0 ", "lrelu-elu"),
    ] {
        assert_eq!(Network::parse(text, 2).expect(text).to_string(), written);
    }
}

#[test]
fn default_padding_keeps_the_size_of_odd_kernels() {
    for (text, padding) in
        [("conv1", [1, 1]), ("conv1k5d2", [4, 4]), ("conv1k1x7", [0, 3]), ("conv1k2s2", [0, 0]), ("conv1k4s2", [1, 1])]
    {
        match &Network::parse(text, 2).expect(text).layers[0] {
            Layer::Conv { conv, .. } => assert_eq!(conv.padding, padding, "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn errors_say_which_layer_what_and_what_else() {
    for (text, expected) in [
        ("", "the model is empty: give a name (mlp, cnn1, cnn2, cnn3, simple) or a chain"),
        ("cnn4", "unknown model cnn4, did you mean cnn1?; known: mlp, cnn1,"),
        ("resnet19", "unknown model resnet19; known: mlp"),
        ("conv0-relu", "layer 1 (conv0): the number of output channels is 0, it must be 1 to 65536"),
        ("conv", "layer 1 (conv): the number of output channels is missing: write conv{out}[k{}]"),
        ("relu-conv8-pool0", "layer 3 (pool0): the window is 0, it must be 1 to 1024"),
        ("relu-dropout1.5", "layer 2 (dropout1.5): the probability is 1.5, it must be at least 0 and below 1"),
        ("relu-dropout1", "the probability is 1, it must be"),
        ("relu-dropout0.5.5", "layer 2 (dropout0.5.5): cannot read '0.5.5': write dropout[{p}]"),
        (
            "relu-dense99999999999",
            "layer 2 (dense99999999999): the number of outputs is 99999999999, it must be 1 to 65536",
        ),
        ("relu-dense99999999999999999999999", "the number of outputs is 99999999999999999999999,"),
        ("relu-convv8", "layer 2 (convv8): the number of output channels is missing"),
        ("relu-rellu", "layer 2 (rellu): unknown layer, did you mean relu?; known: conv, pool,"),
        ("relu-drpout0.5", "layer 2 (drpout0.5): unknown layer, did you mean dropout?"),
        ("relu--relu", "layer 2 (): nothing between two dashes"),
        ("relu-", "layer 2 (): nothing between two dashes"),
        ("conv8k3k5-relu", "layer 1 (conv8k3k5): k is given twice"),
        ("conv8nbnb-relu", "nb is given twice"),
        ("conv8k3x-relu", "the kernel size is missing"),
        ("conv8s0-relu", "the stride is 0, it must be 1 to 1024"),
        ("conv8q3-relu", "layer 1 (conv8q3): cannot read 'q3': write conv{out}"),
        ("conv8n-relu", "cannot read 'n'"),
        ("pool2k3-relu", "cannot read 'k3': write pool[{}][s{}][p{}]"),
        ("adaptive-relu", "the output size is missing: write adaptive{H}x{W}"),
        ("relu-bn2", "layer 2 (bn2): cannot read '2': write bn"),
        ("relu-a\nb", "layer 2 (a\\nb): unknown layer"),
        ("conv8-çonv", "layer 2 (çonv): unknown layer"),
    ] {
        let message = problem(text, [1, 64, 64], 2);
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let many = vec!["relu"; 1001].join("-");
    assert_eq!(Model::new(&many, [1, 8, 8], 2), Err(ModelError::TooManyLayers { count: 1001 }));
}

#[test]
fn shapes_that_do_not_fit_name_the_layer_and_the_shape() {
    for (text, input, classes, expected) in [
        (
            "conv64-pool-pool-conv8-relu-relu-pool-flatten-dense2",
            [1, 4, 4],
            2,
            "layer 7 (pool): the input [N, 8, 1, 1] is smaller than the window 2x2: use a larger --size or fewer pools",
        ),
        (
            "conv8k5p0-flatten-dense2",
            [1, 4, 9],
            2,
            "layer 1 (conv8k5p0): the input [N, 1, 4, 9] is smaller than the window 5x5",
        ),
        ("conv8k3d4p0-flatten-dense2", [1, 8, 8], 2, "smaller than the window 9x9"),
        ("conv8g2-flatten-dense2", [1, 8, 8], 2, "2 groups must divide the 1 input channels and the 8 output channels"),
        (
            "conv8-dense2",
            [1, 8, 8],
            2,
            "layer 2 (dense2): needs rows [N, features], but [N, 8, 8, 8] reaches it: put flatten before it",
        ),
        ("flatten-conv8-dense2", [1, 8, 8], 2, "layer 2 (conv8): needs images [N, C, H, W], but [N, 64] reaches it"),
        (
            "pool3p2-flatten-dense2",
            [1, 8, 8],
            2,
            "layer 1 (pool3p2): the padding 2 must be at most half of the window 3x3",
        ),
        ("conv8", [1, 8, 8], 2, "layer 1 (conv8): ends the network with images [N, 8, 8, 8]: add flatten, then dense2"),
        (
            "flatten-dense3",
            [1, 8, 8],
            2,
            "layer 2 (dense3): ends the network with 3 outputs for 2 classes: end with dense2 (softmax) or dense1 (sigmoid)",
        ),
        ("flatten-dense1", [1, 8, 8], 3, "ends the network with 1 outputs for 3 classes: end with dense3"),
        (
            "flatten-dense2-softmax",
            [1, 8, 8],
            2,
            "layer 3 (softmax): must not end the network: the loss applies softmax itself",
        ),
        ("cnn3", [1, 4, 4], 2, "layer 9 (pool): the input [N, 128, 1, 1] is smaller than the window 2x2"),
        ("cnn1", [1, 0, 4], 2, "the input [1, 0, 4] (channels, height, width) must have 1 to 268435456 numbers"),
        ("cnn1", [3, usize::MAX, 4], 2, "must have 1 to"),
        ("cnn1", [1, 64, 64], 1, "1 classes: a classifier needs 2 to 65536"),
        (
            "conv65536-flatten-dense2",
            [1, 1024, 1024],
            2,
            "layer 1 (conv65536): its output [N, 65536, 1024, 1024] has more than 268435456 numbers",
        ),
        (
            "flatten-dense65536-dense2",
            [1, 512, 512],
            2,
            "layer 2 (dense65536): its weight [65536, 262144] has more than",
        ),
        (
            "conv64k1023-conv64k1023-flatten-dense2",
            [1, 512, 512],
            2,
            "layer 1 (conv64k1023): needs more than 10^13 operations",
        ),
        (
            "flatten-dense16384-dense16384-dense16384-dense2",
            [1, 8, 8],
            2,
            "the model has more than 268435456 parameters",
        ),
    ] {
        let message = problem(text, input, classes);
        assert!(message.contains(expected), "{text}: {message}");
    }
}

/// Random edits of good texts: whatever comes out is read or refused, and what is read is written back the same.
#[test]
fn no_text_panics() {
    let seeds = [
        CHAIN,
        "cnn3",
        "simple",
        "conv8k3x5s2x1p0x2d2g4nb-avgpool3s2p1-adaptive7x5-lrelu0.2-elu0.7-gap-flatten-dense3nb",
    ];
    let pieces = [
        "-",
        "0",
        "1",
        "9",
        "99999999999999999999",
        ".",
        "x",
        "k",
        "s",
        "p",
        "d",
        "g",
        "n",
        "b",
        "conv",
        "pool",
        "dense",
        "drop",
        "é",
        "\u{0}",
        "\n",
        "\u{1F600}",
        " ",
        "-flatten-",
        "K",
        "e5",
        "+",
        "İ",
    ];
    let mut rng = Rng::new(11, 0, Stream::Sample as u32);
    let (mut read, mut planned) = (0, 0);
    for _ in 0..20_000 {
        let mut text: Vec<char> = seeds[rng.below(seeds.len() as u32) as usize].chars().collect();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(text.len() as u32 + 1) as usize;
            let end = (at + rng.below(4) as usize).min(text.len());
            let piece = pieces[rng.below(pieces.len() as u32) as usize];
            match rng.below(3) {
                0 => drop(text.splice(at..end, piece.chars())),
                1 => drop(text.splice(at..at, piece.chars())),
                _ => drop(text.drain(at..end)),
            }
        }
        let text: String = text.into_iter().collect();
        match Network::parse(&text, 2) {
            Ok(network) => {
                read += 1;
                let written = network.to_string();
                assert_eq!(Network::parse(&written, 2), Ok(network), "{text:?}");
            }
            Err(e) => assert!(!e.to_string().contains('\n'), "{text:?}"),
        }
        let size = 1 << rng.below(8);
        if let Ok(model) = Model::new(&text, [1 + rng.below(3) as usize, size, size], 2) {
            planned += 1;
            Summary::new(&model, 1 + rng.below(8) as usize).expect("a planned model is recorded");
        }
    }
    assert!(read > 500 && planned > 200, "{read} read, {planned} planned: the edits are too wild");
}

/// Counted by hand for one grey channel, 64 x 64, two classes. conv: out (in 3 3) + out; dense: out in + out.
#[test]
fn parameter_counts() {
    for (name, count) in [
        // (128 4096 + 128) + (2 128 + 2) = 524,416 + 258
        ("mlp", 524_674),
        // conv1 32 9 + 32 = 320; 32 32 32 = 32,768 features: 128 32,768 + 128 = 4,194,432; 258
        ("cnn1", 4_195_010),
        // 320; conv2 64 288 + 64 = 18,496; 64 16 16 = 16,384 features: 2,097,280; 258
        ("cnn2", 2_116_354),
        // 320; 18,496; conv3 128 576 + 128 = 73,856; 128 8 8 = 8,192 features: 1,048,704; 258
        ("cnn3", 1_141_634),
        // conv1 6 25 + 6 = 156; 64 - 4 = 60, pooled 30; conv2 16 150 + 16 = 2,416; 30 - 4 = 26, pooled 13;
        // 16 13 13 = 2,704 features: 120 2,704 + 120 = 324,600; 84 120 + 84 = 10,164; 2 84 + 2 = 170
        ("simple", 337_506),
    ] {
        let model = Model::new(name, [1, 64, 64], 2).expect(name);
        assert_eq!(model.trainable_numel(), count, "{name}");
        assert_eq!((model.outputs(), model.head()), (2, Head::Softmax));
        let mut store = ParamStore::new();
        model.init(&mut store, 0);
        assert_eq!(store.trainable_numel(), count, "{name}");
    }
    assert_eq!(named::NAMES.len(), 5);
}

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
    for name in named::NAMES {
        let model = Model::new(name, [1, 20, 24], 3).unwrap();
        let mut store = ParamStore::new();
        let params = model.init(&mut store, 1);
        let mut g = Graph::new();
        let x = g.input("image", Spec::float([2, 1, 20, 24]));
        let pass = model.forward(&mut g, &params, x, Mode::Eval).unwrap();
        assert_eq!(pass.layers.len(), model.steps().len());
        for ((layer, node), step) in pass.layers.iter().zip(model.steps()) {
            assert_eq!(layer, &step.name);
            assert_eq!(g.spec(*node).shape[0], 2);
            assert_eq!(g.spec(*node).shape[1..], step.output[..], "{name} {layer}");
        }
        assert!(g.nodes().iter().any(|n| n.kind() == "linear" && n.scope == "dense1"));
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

#[test]
fn activations_are_kept_as_written() {
    let network = Network::parse("elu0.25-lrelu", 2).unwrap();
    let expected = [Activation::Elu { alpha: 0.25 }, Activation::LeakyRelu { slope: 0.01 }];
    assert_eq!(network.layers, expected.map(Layer::Activation));
}
