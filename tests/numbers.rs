//! NaN and infinity in a training: which tensor is named, and what is left of the run. One image with one bright pixel makes one step of
//! an epoch overflow in f32; in f64 it does not. What a policy leaves is held against steps that are done by hand.

mod common;
#[path = "common/phantom.rs"]
mod phantom;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use phantom::phantom;
use radiograd::cpu;
use radiograd::data::Dataset;
use radiograd::exec::{Call, Executor, Faulty, Verdict};
use radiograd::gpu::Options;
use radiograd::graph::Graph;
use radiograd::nn::Model;
use radiograd::optim::Schedule;
use radiograd::shape::Spec;
use radiograd::store::ParamStore;
use radiograd::tensor::Tensor;
use radiograd::train::fit::{GOOD, NUMBERS};
use radiograd::train::numbers::first_non_finite;
use radiograd::train::step::{
    Augmentation, DeviceImages, LOG_COLUMNS, LossSettings, StepOptions, StepParts, TrainStep, Turn,
};
use radiograd::train::update::UpdateGroup;
use radiograd::train::{ClassWeights, Event, Fit, OnNan, TrainConfig, TrainError};
use radiograd::weights::{self, NamedTensor, TensorData};

/// Images of the phantom set for training, validation and test.
const IMAGES: [usize; 3] = [240, 60, 60];
const SIZE: usize = 12;
const POLICIES: [OnNan; 3] = [OnNan::Stop, OnNan::Skip, OnNan::HalveLr];

fn config() -> TrainConfig {
    TrainConfig {
        model: "flatten-dense2".to_owned(),
        size: SIZE,
        epochs: 1,
        batch: 2,
        lr: 0.05,
        schedule: Some(Schedule::Constant {}),
        optimizer: "sgd:momentum=0.9".parse().unwrap(),
        class_weights: ClassWeights::None,
        mean: Some(vec![0.0]),
        std: Some(vec![0.5]),
        ..TrainConfig::default()
    }
}

/// Makes an executor.
type Make = Box<dyn Fn() -> Box<dyn Executor>>;

fn executors() -> Vec<(&'static str, Make)> {
    let mut all: Vec<(&'static str, Make)> = vec![("cpu", Box::new(|| Box::new(cpu::Executor::<f32>::fast())))];
    if common::gpu(Options::default()).is_some() {
        all.push(("gpu", Box::new(|| Box::new(common::gpu(Options::default()).unwrap()))));
    }
    all
}

/// Images whose first pixel is black but for that of one, which the first epoch has in step `row` (from 0).
fn with_a_bright_pixel(config: &TrainConfig, row: usize) -> Dataset {
    let mut data = phantom(SIZE, IMAGES);
    let order = config.sampler.epoch(&data.train.as_ref().unwrap().labels, 2, config.seed, 1);
    for images in [&mut data.train, &mut data.val, &mut data.test].into_iter().flatten() {
        images.pixels.iter_mut().step_by(SIZE * SIZE).for_each(|p| *p = 0);
    }
    let bright = order.images[row * config.batch] as usize;
    data.train.as_mut().unwrap().pixels[bright * SIZE * SIZE] = 255;
    data
}

/// The first weights: those of the seed, the first of which is so large that twice of it is beyond f32.
fn weights_at_the_edge(config: &TrainConfig) -> (Model, ParamStore) {
    let model = Model::new(&config.model, [1, SIZE, SIZE], 2).unwrap();
    let mut store = ParamStore::new();
    let params = model.init(&mut store, config.seed);
    let mut value = store.value(&params[0]).to_vec();
    value[0] = 3e38;
    store.set_value(0, &value);
    (model, store)
}

fn write_weights(path: &Path, store: &ParamStore) {
    let tensor = |p: &radiograd::store::Param| NamedTensor {
        name: p.name.clone(),
        shape: p.view.spec.shape.to_vec(),
        data: TensorData::F32(store.value(p).to_vec()),
    };
    let tensors: Vec<NamedTensor> = store.params().iter().map(tensor).collect();
    weights::save(path, &tensors, &BTreeMap::new()).unwrap();
}

/// A run in a folder: what it said, how it ended, what it remarks.
struct Ran {
    notes: Vec<String>,
    end: Result<Vec<f64>, TrainError>,
    fit: Fit,
}

fn train(folder: &Path, config: &TrainConfig, data: Dataset, executor: Box<dyn Executor>, resume: bool) -> Ran {
    let mut fit = Fit::new(config, data, executor).unwrap();
    let start = fit.start(resume.then_some(folder)).unwrap();
    let mut notes = Vec::new();
    let end = fit.run(start, Some(folder), &mut |event| {
        if let Event::Note(text) = event {
            notes.push(text.to_owned());
        }
    });
    Ran { notes, end: end.map(|o| o.epochs.iter().map(|e| e.learning_rate).collect()), fit }
}

/// A run from the weights at the edge, with the bright pixel in step `row`.
fn overflowing(folder: &Path, config: &TrainConfig, row: usize, executor: Box<dyn Executor>) -> Ran {
    let init = folder.join("init.safetensors");
    write_weights(&init, &weights_at_the_edge(config).1);
    let config = TrainConfig { init: Some(init.to_str().unwrap().to_owned()), ..config.clone() };
    train(folder, &config, with_a_bright_pixel(&config, row), executor, false)
}

fn tensor(path: &Path, name: &str) -> Vec<u32> {
    let file = weights::load(path).unwrap();
    file.get(name).unwrap().data.as_f32().unwrap().iter().map(|v| v.to_bits()).collect()
}

/// The bits of weight and bias after some steps of the first epoch, one after the other and nothing else.
fn by_hand(
    config: &TrainConfig,
    row: usize,
    steps: impl Iterator<Item = usize>,
    executor: &mut dyn Executor,
) -> [Vec<u32>; 2] {
    let images = with_a_bright_pixel(config, row).train.unwrap();
    let (model, mut store) = weights_at_the_edge(config);
    let params = store.params().to_vec();
    let groups = UpdateGroup::whole(&mut store, &config.optimizer);
    let on_device = DeviceImages::add(&mut store, "train", &images, None);
    let log = store.add_var("log", Spec::float([images.len(), LOG_COLUMNS]), None);
    executor.load(&store).unwrap();
    let step = TrainStep::record(StepParts {
        model: &model,
        params: &params,
        images: &on_device,
        batch: config.batch,
        mean: config.mean.as_ref().unwrap(),
        std: config.std.as_ref().unwrap(),
        loss: &LossSettings::default(),
        groups: &groups,
        log: &log,
        weights: None,
        augmentation: Augmentation::default(),
        options: StepOptions::default(),
    })
    .unwrap();
    let program = executor.compile(&step.graph, &[]).unwrap();
    let order = config.sampler.epoch(&images.labels, 2, config.seed, 1);
    for row in steps {
        let chosen = &order.images[row * config.batch..(row + 1) * config.batch];
        let (step_number, update) = (row as u64, row as u64 + 1);
        let turn = Turn { chosen, repeats: &[], seed: config.seed, step: step_number, update, lr: config.lr, row };
        step.run(executor, program, &images, &turn).unwrap();
    }
    let all = executor.read_var(ParamStore::TRAINABLE).unwrap().to_f32();
    let bits = |i: usize| {
        let view = &params[i].view;
        all[view.offset..view.offset + view.spec.numel()].iter().map(|v| v.to_bits()).collect()
    };
    [bits(0), bits(1)]
}

/// A step in the first, in a middle and in the last part between two looks at the log, and the last of the epoch.
const ROWS: [usize; 4] = [3, 73, 104, 119];

#[test]
fn stop_names_the_tensor_and_keeps_the_last_good_weights() {
    for (name, executor) in executors() {
        for row in ROWS {
            let folder = tempfile::tempdir().unwrap();
            let mut ran = overflowing(folder.path(), &config(), row, executor());
            let error = ran.end.unwrap_err();
            let TrainError::Diverged { epoch: 1, step, tensor: Some(first), kept: Some(kept), .. } = &error else {
                panic!("{name}: {error}");
            };
            assert_eq!(*step, row + 1, "{name}");
            assert!(first.tensor.contains("(dense1)") && first.value == f64::INFINITY, "{name}: {first}");
            assert_eq!((first.shape.to_vec(), first.place()), (vec![2, 2], vec![0, 0]), "{name}: {first}");
            assert!(error.to_string().contains(&first.to_string()) && !error.to_string().contains('\n'), "{error}");
            // The step before the bad one is the last whose loss was finite; it began with these weights.
            let [weight, bias] = by_hand(&config(), row, 0..row - 1, executor().as_mut());
            assert_eq!(*kept, folder.path().join(GOOD));
            assert!(tensor(kept, "dense1.weight") == weight && tensor(kept, "dense1.bias") == bias, "{name}, {row}");
            assert!(ran.fit.predict("val").unwrap().unwrap().iter().all(|p| p.is_finite()));
            assert!(!folder.path().join("last.safetensors").exists());
        }
    }
}

#[test]
fn skip_leaves_the_step_out_as_if_it_had_not_been() {
    for (name, executor) in executors() {
        for row in ROWS {
            let folder = tempfile::tempdir().unwrap();
            let config = TrainConfig { on_nan: OnNan::Skip, ..config() };
            let ran = overflowing(folder.path(), &config, row, executor());
            ran.end.unwrap();
            let told: Vec<&String> = ran.notes.iter().filter(|n| n.contains("left out")).collect();
            assert_eq!(told.len(), 1, "{name}: {:?}", ran.notes);
            assert!(told[0].contains(&format!("step {}:", row + 1)) && told[0].contains("(dense1)"), "{told:?}");
            let [weight, bias] = by_hand(&config, row, (0..120).filter(|&r| r != row), executor().as_mut());
            let last = folder.path().join("last.safetensors");
            assert!(tensor(&last, "dense1.weight") == weight, "{name}: the weights differ, step {row}");
            assert!(tensor(&last, "dense1.bias") == bias, "{name}: the biases differ, step {row}");
            let lines = std::fs::read_to_string(folder.path().join(NUMBERS)).unwrap();
            assert_eq!(lines.lines().count(), 1, "{lines}");
            assert_eq!(ran.fit.remarks().unwrap(), format!("1 updates left out ({NUMBERS})"));
        }
    }
}

/// Counts runs, and raises `flag` at number `at`.
fn raising(inner: Box<dyn Executor>, at: usize, flag: Arc<AtomicBool>) -> Box<dyn Executor> {
    let mut runs = 0;
    let judge = move |call, _: &str| {
        runs += usize::from(call == Call::Run);
        if runs == at {
            flag.store(true, Ordering::Relaxed);
        }
        Verdict::Go
    };
    Box::new(Faulty::new(inner, Box::new(judge)))
}

#[test]
fn a_run_stopped_before_or_after_an_update_that_is_left_out_goes_on_to_the_same_bits() {
    const BAD: usize = 73;
    for (name, executor) in executors() {
        let (whole, first) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let init = first.path().join("init.safetensors");
        write_weights(&init, &weights_at_the_edge(&config()).1);
        let config = TrainConfig { on_nan: OnNan::Skip, init: Some(init.to_str().unwrap().to_owned()), ..config() };
        let data = || with_a_bright_pixel(&config, BAD);
        train(whole.path(), &config, data(), executor(), false).end.unwrap();
        for at in [1, 50, 72, 73, 74, 75, 99, 101, 119] {
            let folder = tempfile::tempdir().unwrap();
            let flag = Arc::new(AtomicBool::new(false));
            let mut fit = Fit::new(&config, data(), raising(executor(), at, Arc::clone(&flag))).unwrap();
            fit.stop_when(flag);
            let start = fit.start(None).unwrap();
            let stopped = fit.run(start, Some(folder.path()), &mut |_| {}).expect_err("it was stopped");
            assert!(matches!(stopped, TrainError::Interrupted { kept: true, .. }), "{name}, {at}: {stopped}");
            train(folder.path(), &config, data(), executor(), true).end.unwrap();
            for file in ["last.safetensors", "best.safetensors", NUMBERS] {
                let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
                assert!(read(whole.path()) == read(folder.path()), "{name}, stopped at run {at}: {file} differs");
            }
        }
    }
}

#[test]
fn with_summed_gradients_the_whole_update_is_left_out() {
    for (name, executor) in executors() {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig { on_nan: OnNan::Skip, accumulate: 3, ..config() };
        let ran = overflowing(folder.path(), &config, 70, executor());
        ran.end.unwrap();
        assert_eq!(ran.notes.iter().filter(|n| n.contains("step 71:") && n.contains("(dense1)")).count(), 1, "{name}");
        // As many images fewer: the same run without the bright pixel differs, and both are finite.
        let last = tensor(&folder.path().join("last.safetensors"), "dense1.weight");
        assert!(last.iter().all(|&v| f32::from_bits(v).is_finite()));
        let again = tempfile::tempdir().unwrap();
        overflowing(again.path(), &config, 70, executor()).end.unwrap();
        assert_eq!(last, tensor(&again.path().join("last.safetensors"), "dense1.weight"), "{name}");
    }
}

#[test]
fn what_overflows_in_f32_does_not_in_f64() {
    // The whole run: the step that ends it in f32 is one as any other in f64.
    let folder = tempfile::tempdir().unwrap();
    let ran = overflowing(folder.path(), &config(), 73, Box::new(cpu::Executor::<f64>::reference()));
    ran.end.unwrap();
    assert!(ran.notes.iter().all(|note| !note.contains("infinite")), "{:?}", ran.notes);
    assert_eq!(ran.fit.remarks(), None);
    let folder = tempfile::tempdir().unwrap();
    let ran = overflowing(folder.path(), &config(), 73, Box::new(cpu::Executor::<f32>::reference()));
    let TrainError::Diverged { step: 74, tensor: Some(tensor), .. } = ran.end.unwrap_err() else { panic!() };
    assert!(tensor.tensor.contains("(dense1)"), "{tensor}");
    // A graph: a sum of squares.
    let mut g = Graph::new();
    let x = g.input("x", Spec::float([3]));
    g.set_scope("squares");
    let squares = g.mul(x, x).unwrap();
    let sum = g.sum(squares).unwrap();
    let graph = Arc::new(g);
    let mut executors: Vec<(bool, Box<dyn Executor>)> = vec![
        (true, Box::new(cpu::Executor::<f32>::fast())),
        (true, Box::new(cpu::Executor::<f32>::reference())),
        (false, Box::new(cpu::Executor::<f64>::reference())),
    ];
    executors.extend(common::gpu(Options::default()).map(|gpu| (true, Box::new(gpu) as Box<dyn Executor>)));
    for (narrow, mut executor) in executors {
        executor.load(&ParamStore::new()).unwrap();
        // Each square fits, the sum does not; then a square does not.
        for (values, first, at) in [([1.5e19, 1e19, 1.5e19], sum, 0), ([1.0, 2.0, 1e20], squares, 2)] {
            let found = first_non_finite(executor.as_mut(), &graph, &mut |executor, program| {
                executor.set(program, x, &Tensor::f32([3], values.to_vec()).unwrap())
            });
            match found.unwrap() {
                Some(found) => {
                    assert!(narrow, "{}: {found}", executor.describe());
                    assert_eq!((found.tensor, found.first), (graph.describe(first), at));
                }
                None => assert!(!narrow, "{}: nothing found", executor.describe()),
            }
        }
    }
}

#[test]
fn nan_in_the_first_weights_is_named_before_anything_is_written() {
    for (name, executor) in executors() {
        for on_nan in POLICIES {
            let folder = tempfile::tempdir().unwrap();
            let (_, mut store) = weights_at_the_edge(&config());
            let mut bias = store.value(&store.params()[1].clone()).to_vec();
            bias[1] = f32::NAN;
            store.set_value(1, &bias);
            let init = folder.path().join("init.safetensors");
            write_weights(&init, &store);
            let config = TrainConfig { on_nan, init: Some(init.to_str().unwrap().to_owned()), ..config() };
            let error = train(folder.path(), &config, phantom(SIZE, IMAGES), executor(), false).end.unwrap_err();
            let TrainError::SpoiledWeights(tensor) = &error else { panic!("{name}: {error}") };
            assert_eq!(tensor.to_string(), "dense1.bias [2], 1 of 2 values, the first at [1] (NaN)");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{name}: something was written");
        }
    }
}

#[test]
fn pixels_that_become_infinite_are_named() {
    for (name, executor) in executors() {
        for on_nan in POLICIES {
            let folder = tempfile::tempdir().unwrap();
            let config = TrainConfig { on_nan, batch: 16, mean: Some(vec![-3e38]), ..config() };
            let error = train(folder.path(), &config, phantom(SIZE, IMAGES), executor(), false).end.unwrap_err();
            let TrainError::Diverged { epoch: 1, tensor: Some(tensor), kept: None, .. } = &error else {
                panic!("{name}: {error}");
            };
            assert!(tensor.tensor.ends_with("gather_images (batch)"), "{name}: {tensor}");
            assert_eq!(tensor.count, 16 * SIZE * SIZE, "{name}: {tensor}");
            assert!(!folder.path().join("last.safetensors").exists(), "{name}");
        }
    }
}

/// Weights of a linear network grow with the learning rate and no faster, so that some lower one is borne.
#[test]
fn halving_finds_a_rate_that_is_borne_and_a_resumed_run_keeps_it() {
    for (name, executor) in executors() {
        let config = TrainConfig {
            on_nan: OnNan::HalveLr,
            optimizer: "sgd".parse().unwrap(),
            lr: 1e37,
            batch: 8,
            epochs: 2,
            ..config()
        };
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ran = train(whole.path(), &config, phantom(SIZE, IMAGES), executor(), false);
        let rates = ran.end.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(ran.notes.iter().any(|n| n.contains("half the learning rate")), "{name}: {:?}", ran.notes);
        let times = (1e37 / rates[1]).log2();
        assert!(times >= 1.0 && times.fract() == 0.0, "{name}: {rates:?}");
        let last = weights::load(whole.path().join("last.safetensors")).unwrap();
        let finite = |t: &NamedTensor| t.data.as_f32().is_none_or(|v| v.iter().all(|x| x.is_finite()));
        assert!(last.tensors.iter().all(finite), "{name}");
        // One epoch, and then the other.
        let first = TrainConfig { epochs: 1, ..config.clone() };
        train(parts.path(), &first, phantom(SIZE, IMAGES), executor(), false).end.unwrap();
        train(parts.path(), &config, phantom(SIZE, IMAGES), executor(), true).end.unwrap();
        for file in ["last.safetensors", "best.safetensors"] {
            let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
            assert!(read(whole.path()) == read(parts.path()), "{name}: {file} differs");
        }
    }
}

#[test]
fn halving_that_does_not_help_ends() {
    for (name, executor) in executors() {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig { on_nan: OnNan::HalveLr, ..config() };
        let error = overflowing(folder.path(), &config, 20, executor()).end.unwrap_err();
        let TrainError::Diverged { step: 21, tried: Some(tried), .. } = &error else { panic!("{name}: {error}") };
        assert!(tried.contains("10 halvings"), "{name}: {error}");
        let halved = tempfile::tempdir().unwrap();
        // The weights kept are those of the last attempt, and finite.
        let kept = tensor(&folder.path().join(GOOD), "dense1.weight");
        assert!(kept.iter().all(|&v| f32::from_bits(v).is_finite()));
        drop(halved);
    }
}

#[test]
fn a_huge_rate_ends_whatever_the_policy_and_spoils_no_file() {
    for (name, executor) in executors() {
        for on_nan in POLICIES {
            let folder = tempfile::tempdir().unwrap();
            let model = "conv4-bn-relu-pool-flatten-dense8-relu-dense2".to_owned();
            let optimizer = "sgd".parse().unwrap();
            let config = TrainConfig { model, optimizer, on_nan, lr: 1e30, batch: 16, ..config() };
            let error = train(folder.path(), &config, phantom(SIZE, IMAGES), executor(), false).end.unwrap_err();
            assert!(matches!(error, TrainError::Diverged { epoch: 1, tensor: Some(_), .. }), "{name}: {error}");
            for file in std::fs::read_dir(folder.path()).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|e| e == "safetensors") {
                    let file = weights::load(&path).unwrap();
                    let finite = |t: &NamedTensor| t.data.as_f32().is_none_or(|v| v.iter().all(|x| x.is_finite()));
                    assert!(file.tensors.iter().all(finite), "{name}: {}", path.display());
                }
            }
        }
    }
}

#[test]
fn runs_without_nan_are_the_same_whatever_the_policy() {
    for (name, executor) in executors() {
        let bytes = |on_nan| {
            let folder = tempfile::tempdir().unwrap();
            let model = "conv4-bn-relu-pool-flatten-dropout0.5-dense2".to_owned();
            let config = TrainConfig { model, on_nan, epochs: 2, batch: 4, ..config() };
            let ran = train(folder.path(), &config, phantom(SIZE, IMAGES), executor(), false);
            ran.end.unwrap();
            assert!(!folder.path().join(NUMBERS).exists() || ran.fit.remarks().is_some());
            ["last.safetensors", "best.safetensors"].map(|file| std::fs::read(folder.path().join(file)).unwrap())
        };
        let [stop, skip, halve] = POLICIES.map(bytes);
        assert!(stop == skip && stop == halve, "{name}");
    }
}
