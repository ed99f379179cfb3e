//! A training driven step by step is the training that the command runs.

mod common;

use radiograd::cpu;
use radiograd::data::phantom::PhantomSizes;
use radiograd::data::{CachePolicy, LoadOptions, Source, load};
use radiograd::exec::Executor;
use radiograd::explain::{DEFAULT_BYTES, Request, explain};
use radiograd::gpu::Options;
use radiograd::optim::Schedule;
use radiograd::train::fit::LayerValues;
use radiograd::train::{Fit, Live, Shared, TrainConfig};
use radiograd::weights;

fn shared() -> Shared {
    let phantom = PhantomSizes { train: 48, val: 16, test: 8 };
    let options = LoadOptions { size: (16, 16), seed: 1, cache: CachePolicy::Off, phantom, ..LoadOptions::default() };
    load(&Source::Phantom, &options).unwrap().into()
}

fn config() -> TrainConfig {
    TrainConfig { model: "cnn1".to_owned(), size: 16, epochs: 2, batch: 8, seed: 1, ..TrainConfig::default() }
}

fn begin(executor: Box<dyn Executor>) -> Live {
    Live::new(Fit::new(&config(), shared(), executor).unwrap()).unwrap()
}

fn run(live: &mut Live) -> Vec<f32> {
    let mut losses = Vec::new();
    while !live.is_done() {
        live.step().unwrap();
        if live.steps().is_multiple_of(2) {
            losses.extend(pollster::block_on(live.look()).unwrap().iter().map(|row| row[0]));
        }
        if live.epoch_is_full() {
            pollster::block_on(live.end_epoch()).unwrap();
        }
    }
    losses
}

fn check(make: &dyn Fn() -> Box<dyn Executor>) {
    let mut fit = Fit::new(&config(), shared(), make()).unwrap();
    let start = fit.start(None).unwrap();
    let whole = fit.run(start, None, &mut |_| ()).unwrap();
    let mut live = begin(make());
    assert_eq!(live.steps_an_epoch(), 6);
    let losses = run(&mut live);
    assert_eq!(losses.len(), 12);
    for (a, b) in whole.epochs.iter().zip(live.epochs()) {
        let figures =
            |r: &radiograd::report::data::EpochRow| (r.train_loss, r.val_loss, r.val_accuracy, r.learning_rate);
        assert_eq!(figures(a), figures(b), "epoch {}", a.epoch);
    }
    assert_eq!(live.epochs().len(), 2);
    // Done is done.
    live.step().unwrap();
    assert_eq!(live.steps(), 12);

    // What was saved is what runs on.
    let image = live.fit().images("val").unwrap().image(3).unwrap().to_vec();
    let seen = pollster::block_on(live.inspect(&image)).unwrap();
    let file = pollster::block_on(live.weights()).unwrap();
    let read = weights::from_bytes(&file).unwrap();
    assert_eq!(read.metadata["radiograd.size"], "16");
    let mut other = begin(make());
    assert_ne!(pollster::block_on(other.inspect(&image)).unwrap().probabilities, seen.probabilities);
    other.put_weights(&file).unwrap();
    let again = pollster::block_on(other.inspect(&image)).unwrap();
    assert_eq!(again.probabilities, seen.probabilities);
    assert!(other.put_weights(b"").is_err());

    // The image, each layer and the kernels.
    let LayerValues { name, shape, values } = &seen.layers[0];
    assert_eq!((name.as_str(), &shape[..], values.len()), ("image", &[1, 16, 16][..], 256));
    assert_eq!(seen.layers.len(), live.fit().model().steps().len() + 1);
    assert_eq!(seen.layers[1].shape, [32, 16, 16]);
    assert_eq!(seen.kernels.len(), 1);
    assert_eq!(seen.kernels[0].shape, [32, 1, 3, 3]);
    assert_eq!(seen.kernels[0].values, read.get(&seen.kernels[0].name).unwrap().data.as_f32().unwrap());
    assert!(pollster::block_on(live.inspect(&image[1..])).is_err());
    let (metrics, p) = pollster::block_on(live.validate()).unwrap();
    assert_eq!((metrics.count, p.len()), (16, 32));
    assert!((p[6] - seen.probabilities[0]).abs() < 1e-5, "{} against {}", p[6], seen.probabilities[0]);

    // Its weights on another executor, explained, give the same answer.
    let store = pollster::block_on(live.store()).unwrap();
    let (mean, std) = (live.config().mean.clone().unwrap(), live.config().std.clone().unwrap());
    let request = Request {
        model: live.fit().model(),
        store: &store,
        classes: &["NORMAL".to_owned(), "PNEUMONIA".to_owned()],
        mean: &mean,
        std: &std,
        name: "image",
        pixels: &image,
        label: None,
        target: None,
        bytes: DEFAULT_BYTES,
    };
    let explained = explain(&mut cpu::Executor::<f32>::fast(), &request).unwrap();
    for (a, b) in explained.probabilities.iter().zip(&seen.probabilities) {
        assert!((a - b).abs() < 1e-5, "{a} against {b}");
    }

    live.set_lr(0.5).unwrap();
    assert!(live.set_lr(f64::NAN).is_err());
}

/// Steps on one executor, then on another, against a training that stays on that one. `off` is how much the losses may differ; where
/// they may not, the weights are the same bits too. (Adam makes steps of one size out of gradients of any, so weights whose gradients are
/// mere rounding may go different ways.)
fn check_move(from: &dyn Fn() -> Box<dyn Executor>, to: &dyn Fn() -> Box<dyn Executor>, off: f64) {
    let config = moved();
    let begin = |executor| Live::new(Fit::new(&config, shared(), executor).unwrap()).unwrap();
    let mut whole = begin(to());
    let losses = run(&mut whole);
    let same = |a: f64, b: f64| (a - b).abs() <= off * b.abs();
    // At the beginning, within an epoch with a log that was seen or was not, at the end of one, within the second, at the end.
    for steps in [0, 1, 4, 6, 9, 12] {
        let mut live = begin(from());
        for _ in 0..steps {
            live.step().unwrap();
            if live.steps().is_multiple_of(3) {
                pollster::block_on(live.look()).unwrap();
            }
            if live.epoch_is_full() {
                pollster::block_on(live.end_epoch()).unwrap();
            }
        }
        let mut other = begin(to());
        // What it did before is forgotten.
        other.step().unwrap();
        pollster::block_on(other.take_over(&mut live)).unwrap();
        assert_eq!(other.steps(), steps as u64);
        let rest = run(&mut other);
        assert!(rest.len() <= losses.len() && (steps == 12 || !rest.is_empty()));
        for (a, b) in rest.iter().rev().zip(losses.iter().rev()) {
            assert!(same(f64::from(*a), f64::from(*b)), "after {steps} steps: a loss of {a}, not {b}");
        }
        assert_eq!(other.epochs().len(), whole.epochs().len());
        for (a, b) in other.epochs().iter().zip(whole.epochs()) {
            assert!(same(a.train_loss, b.train_loss) && same(a.val_loss, b.val_loss), "{steps} steps: {a:?}, {b:?}");
            assert_eq!(a.learning_rate, b.learning_rate);
        }
        if off == 0.0 {
            assert_eq!(pollster::block_on(other.weights()).unwrap(), pollster::block_on(whole.weights()).unwrap());
        }
    }
    let fewer = TrainConfig { epochs: 1, ..config.clone() };
    let mut other = Live::new(Fit::new(&fewer, shared(), to()).unwrap()).unwrap();
    assert!(pollster::block_on(begin(to()).take_over(&mut other)).is_err(), "other settings");
    other.step().unwrap();
    assert_eq!(pollster::block_on(other.look()).unwrap()[0][0], losses[0], "what was refused goes on");
}

/// Running statistics, dropout, a schedule by step and gradients that wait for an update: all of it must go along.
fn moved() -> TrainConfig {
    let model = "conv4-bn-relu-pool-flatten-dense8-relu-dropout-dense2".to_owned();
    let schedule = Some(Schedule::Cosine { t_max: 0, eta_min: 1e-4 });
    TrainConfig { model, accumulate: 2, schedule, ..config() }
}

#[test]
fn a_training_moves_to_another_executor() {
    let cpu = || -> Box<dyn Executor> { Box::new(cpu::Executor::<f32>::fast()) };
    check_move(&cpu, &cpu, 0.0);
    if common::gpu(Options::default()).is_none() {
        return;
    }
    let gpu = || -> Box<dyn Executor> { Box::new(common::gpu(Options::default()).expect("there was one")) };
    check_move(&gpu, &gpu, 0.0);
    check_move(&cpu, &gpu, 1e-3);
    check_move(&gpu, &cpu, 1e-3);
}

#[test]
fn on_the_cpu() {
    check(&|| Box::new(cpu::Executor::<f32>::fast()));
}

#[test]
fn on_the_gpu_also_where_no_bindings_may_overlap() {
    if common::gpu(Options::default()).is_none() {
        return;
    }
    for apart in [false, true] {
        let options = Options { apart, ..Options::default() };
        check(&|| Box::new(common::gpu(options.clone()).expect("there was one")));
    }
}

#[test]
fn a_value_read_twice_is_copied_where_bindings_may_not_overlap() {
    use std::sync::Arc;

    use radiograd::graph::Graph;
    use radiograd::shape::Spec;
    use radiograd::store::ParamStore;
    use radiograd::tensor::Tensor;

    let mut g = Graph::new();
    let x = g.input("x", Spec::float([70]));
    let y = g.relu(x).unwrap();
    let square = g.mul(y, y).unwrap();
    let twice = g.add(square, square).unwrap();
    let graph = Arc::new(g);
    let values: Vec<f32> = (0..70).map(|i| i as f32 - 7.0).collect();
    for apart in [false, true] {
        let Some(mut gpu) = common::gpu(Options { apart, guards: apart, ..Options::default() }) else { return };
        gpu.load(&ParamStore::new()).unwrap();
        let p = gpu.compile(&graph, &[square, twice]).unwrap();
        gpu.set(p, x, &Tensor::f32([70], values.clone()).unwrap()).unwrap();
        gpu.run(p).unwrap();
        let want: Vec<f32> = values.iter().map(|v| 2.0 * v.max(0.0).powi(2)).collect();
        assert_eq!(gpu.read(p, twice).unwrap().to_f32(), want);
        let later = gpu.fetch(p, square);
        gpu.set(p, x, &Tensor::f32([70], vec![0.0; 70]).unwrap()).unwrap();
        gpu.run(p).unwrap();
        let half: Vec<f32> = want.iter().map(|v| v / 2.0).collect();
        assert_eq!(pollster::block_on(later).unwrap().to_f32(), half, "the value of the moment of the call");
        assert_eq!(gpu.check_guards(p), Ok(()));
    }
}
