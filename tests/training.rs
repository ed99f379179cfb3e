//! Whole trainings on small phantom sets: the same seed gives the same bytes, a resumed run is the uninterrupted one, CPU
//! and GPU agree, and what diverges says so.

mod common;
#[path = "common/phantom.rs"]
mod phantom;

use std::path::Path;
use std::sync::Arc;

use phantom::phantom;
use radiograd::bench::tune::{Budget, Passes};
use radiograd::cpu;
use radiograd::data::{CachePolicy, LoadOptions, Sampler, Source, Splits, load};
use radiograd::exec::Executor;
use radiograd::gpu::tuned::{Entry, Machine, Tuned};
use radiograd::gpu::{self, Options};
use radiograd::nn::Model;
use radiograd::optim::{OptimizerKind, Schedule};
use radiograd::shape::Spec;
use radiograd::store::ParamStore;
use radiograd::train::run::{self, Place};
use radiograd::train::step::{
    Augmentation, DeviceImages, LOG_COLUMNS, LossSettings, StepOptions, StepParts, TrainStep, Turn,
};
use radiograd::train::update::UpdateGroup;
use radiograd::train::{Augment, Event, Fit, TrainConfig, TrainError};

/// Images of the phantom set for training, validation and test.
const IMAGES: [usize; 3] = [240, 60, 60];

fn config() -> TrainConfig {
    let model = "conv8-bn-relu-pool-conv8-relu-pool-flatten-dense16-relu-dropout0.5-dense2".to_owned();
    TrainConfig { model, size: 24, epochs: 3, batch: 16, ..TrainConfig::default() }
}

/// Trains into a folder; `after` is told of each finished epoch.
fn train(
    folder: &Path,
    config: &TrainConfig,
    executor: Box<dyn Executor>,
    resume: bool,
    after: &mut dyn FnMut(u32),
) -> Result<Vec<f64>, TrainError> {
    let mut fit = Fit::new(config, phantom(config.size, IMAGES), executor)?;
    let start = fit.start(resume.then_some(folder))?;
    let outcome = fit.run(start, Some(folder), &mut |event| {
        if let Event::Epoch { row, .. } = event {
            after(row.epoch);
        }
    })?;
    Ok(outcome.epochs.iter().map(|e| e.val_loss).collect())
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

#[test]
fn the_same_seed_gives_the_same_bytes_and_a_resumed_run_too() {
    same_bytes(&config());
}

/// Branches and names in a checkpoint: it resumes to the same bytes, and holds what PyTorch's state_dict would.
#[test]
fn networks_of_blocks_repeat_and_resume_too() {
    let model = "conv4-bn-relu-pool-a.0=2x[[conv4nb-bn-relu-conv4nb-bn]+-relu]-b=[[conv8s2-bn]+[down=conv8k1s2]]-[bn-conv4]++-gap-\
                 flatten-fc=dense2";
    let config = TrainConfig { model: model.to_owned(), epochs: 2, ..config() };
    same_bytes(&config);
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), &config, Box::new(cpu::Executor::<f32>::fast()), false, &mut |_| {}).unwrap();
    let file = radiograd::weights::load(dir.path().join("last.safetensors")).unwrap();
    let counter = file.get("a.1.bn2.num_batches_tracked").unwrap();
    // 240 images, 16 in a batch, 2 epochs.
    assert_eq!((counter.shape.len(), counter.data.as_i64()), (0, Some([30].as_slice())));
    let counters = |name: &str| file.tensors.iter().filter(|t| t.name.ends_with(name)).count();
    assert_eq!((counters("num_batches_tracked"), counters("running_mean")), (7, 7));
    assert!(file.get("b.down.bias").is_some() && file.get("fc.weight").is_some());
}

#[test]
fn augmented_and_balanced_runs_repeat_and_resume_too() {
    same_bytes(&augmented());
    same_bytes(&TrainConfig { sampler: Sampler::Balanced, epochs: 2, ..augmented() });
}

/// Oversampled, the repeats augmented more strongly.
fn augmented() -> TrainConfig {
    TrainConfig {
        model: "conv8-relu-pool-flatten-dense2".to_owned(),
        sampler: Sampler::Oversample,
        augment: Augment::preset("light"),
        augment_repeats: Augment::preset("strong"),
        epochs: 2,
        ..config()
    }
}

fn same_bytes(config: &TrainConfig) {
    for (name, executor) in executors() {
        let (a, b, c) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        train(a.path(), config, executor(), false, &mut |_| {}).unwrap();
        // While the second run goes on, its folder is copied after the first epoch, as a killed process would leave it.
        train(b.path(), config, executor(), false, &mut |epoch| {
            if epoch == 1 {
                for file in std::fs::read_dir(b.path()).unwrap() {
                    let file = file.unwrap();
                    std::fs::copy(file.path(), c.path().join(file.file_name())).unwrap();
                }
            }
        })
        .unwrap();
        train(c.path(), config, executor(), true, &mut |epoch| assert!(epoch > 1)).unwrap();
        for file in ["last.safetensors", "best.safetensors"] {
            let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
            assert_eq!(read(a.path()), read(b.path()), "{name}: two runs with one seed differ in {file}");
            assert_eq!(read(a.path()), read(c.path()), "{name}: the resumed run differs in {file}");
        }
        let other = tempfile::tempdir().unwrap();
        let seeded = TrainConfig { seed: 1, ..config.clone() };
        train(other.path(), &seeded, executor(), false, &mut |_| {}).unwrap();
        let read = |folder: &Path| std::fs::read(folder.join("last.safetensors")).unwrap();
        assert_ne!(read(a.path()), read(other.path()), "{name}: the seed changes nothing");
    }
}

#[test]
fn augmentation_changes_training_alone() {
    let weights = |config: &TrainConfig| {
        let folder = tempfile::tempdir().unwrap();
        train(folder.path(), config, Box::new(cpu::Executor::<f32>::fast()), false, &mut |_| {}).unwrap();
        std::fs::read(folder.path().join("best.safetensors")).unwrap()
    };
    let plain = TrainConfig { model: augmented().model, epochs: 1, ..config() };
    let none = TrainConfig { augment: Augment::preset("none"), ..plain.clone() };
    assert_eq!(weights(&plain), weights(&none), "what changes nothing changes the weights");
    let light = TrainConfig { augment: Augment::preset("light"), ..plain.clone() };
    assert_ne!(weights(&plain), weights(&light));
    // Before any step the weights are the seed's: the validation images must look the same.
    let before = |config: &TrainConfig| {
        let mut fit = Fit::new(config, phantom(24, IMAGES), Box::new(cpu::Executor::<f32>::fast())).unwrap();
        fit.predict("val").unwrap().unwrap()
    };
    assert_eq!(before(&plain), before(&light));
}

#[test]
fn an_epoch_is_as_long_as_the_sampler_makes_it() {
    let mut data = phantom(24, IMAGES);
    let train = data.train.as_mut().unwrap();
    // A third of one class becomes the other, so that the classes differ in number.
    train.labels.iter_mut().step_by(3).for_each(|l| *l = 1);
    let counts = train.class_counts(2);
    let largest = *counts.iter().max().unwrap();
    assert!(2 * largest > counts[0] + counts[1]);
    for (sampler, images) in [(Sampler::Shuffle, 240), (Sampler::Balanced, 240), (Sampler::Oversample, 2 * largest)] {
        let config = TrainConfig { sampler, epochs: 1, ..augmented() };
        let config = match sampler {
            Sampler::Shuffle => TrainConfig { augment_repeats: None, ..config },
            _ => config,
        };
        let mut fit = Fit::new(&config, data.clone(), Box::new(cpu::Executor::<f32>::fast())).unwrap();
        let start = fit.start(None).unwrap();
        let mut steps = 0;
        fit.run(start, None, &mut |event| {
            if let Event::Step { steps: all, .. } = event {
                steps = all;
            }
        })
        .unwrap();
        assert_eq!(steps, images / config.batch, "{sampler}");
    }
}

#[test]
fn cpu_and_gpu_learn_alike() {
    let mut curves = Vec::new();
    for (_, executor) in executors() {
        let folder = tempfile::tempdir().unwrap();
        curves.push(train(folder.path(), &config(), executor(), false, &mut |_| {}).unwrap());
    }
    for other in &curves[1..] {
        for (a, b) in curves[0].iter().zip(other) {
            assert!((a - b).abs() < 0.02 * a.abs().max(0.1), "{curves:?}");
        }
    }
}

#[test]
fn a_small_network_learns_the_phantom() {
    let options =
        LoadOptions { size: (32, 32), splits: Splits::STUDY, cache: CachePolicy::Off, ..LoadOptions::default() };
    let data = load(&Source::Phantom, &options).unwrap();
    let config = TrainConfig { model: "cnn3".to_owned(), size: 32, epochs: 8, ..TrainConfig::default() };
    let mut fit = Fit::new(&config, data, Box::new(cpu::Executor::<f32>::fast())).unwrap();
    let start = fit.start(None).unwrap();
    let outcome = fit.run(start, None, &mut |_| {}).unwrap();
    let best = outcome.epochs.iter().map(|e| e.val_accuracy).fold(0.0, f64::max);
    assert!(best >= 0.85, "validation accuracy {best}");
}

#[test]
fn a_loss_that_diverges_ends_the_run_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let optimizer: OptimizerKind = "sgd".parse().unwrap();
    let config = TrainConfig { lr: 1e30, optimizer, schedule: Some(Schedule::Constant {}), ..config() };
    let error = train(folder.path(), &config, Box::new(cpu::Executor::<f32>::fast()), false, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { epoch: 1, .. }), "{error}");
    assert!(!folder.path().join("last.safetensors").exists());
}

#[test]
fn early_stopping_ends_after_its_patience_and_keeps_the_best() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 40, patience: 2, lr: 0.02, ..config() };
    let losses = train(folder.path(), &config, Box::new(cpu::Executor::<f32>::fast()), false, &mut |_| {}).unwrap();
    let best = (0..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
    assert!(losses.len() < 40, "it never stopped: {losses:?}");
    assert_eq!(losses.len(), best + 1 + 2, "{losses:?}");
}

#[test]
fn a_streamed_batch_is_the_resident_one() {
    for (name, executor) in executors() {
        let strong = Augment::preset("strong");
        let augmented = Augmentation { images: None, repeats: strong.as_ref() };
        let mut plain = Vec::new();
        for augmentation in [Augmentation::default(), augmented] {
            let losses: Vec<[f32; LOG_COLUMNS]> =
                [None, Some(1)].into_iter().map(|limit| one_step(executor().as_mut(), limit, augmentation)).collect();
            assert!(losses[0][0] > 0.0);
            assert_eq!(losses[0], losses[1], "{name}");
            plain.push(losses[0]);
        }
        assert_ne!(plain[0], plain[1], "{name}: augmentation changes nothing");
    }
}

/// The log of one step whose images lie on the device, or are uploaded with the batch where `limit` bytes do not hold them.
fn one_step(executor: &mut dyn Executor, limit: Option<u64>, augmentation: Augmentation<'_>) -> [f32; LOG_COLUMNS] {
    let images = phantom(24, IMAGES).train.unwrap();
    let model = Model::new("conv4-relu-pool-flatten-dense2", [1, 24, 24], 2).unwrap();
    let mut store = ParamStore::new();
    let params = model.init(&mut store, 5);
    let optimizer: OptimizerKind = "adam".parse().unwrap();
    let groups = UpdateGroup::whole(&mut store, &optimizer);
    let on_device = DeviceImages::add(&mut store, "train", &images, limit);
    let log = store.add_var("log", Spec::float([1, LOG_COLUMNS]), None);
    executor.load(&store).unwrap();
    let step = TrainStep::record(StepParts {
        model: &model,
        params: &params,
        images: &on_device,
        batch: 7,
        mean: &[0.4],
        std: &[0.3],
        loss: &LossSettings::default(),
        groups: &groups,
        log: &log,
        weights: None,
        augmentation,
        options: StepOptions::default(),
    })
    .unwrap();
    let program = executor.compile(&step.graph, &[]).unwrap();
    let turn = Turn {
        chosen: &[3, 1, 4, 15, 92, 6, 5],
        repeats: &[true, false, true],
        seed: 0,
        step: 0,
        update: 1,
        lr: 1e-3,
        row: 0,
    };
    step.run(executor, program, &images, &turn).unwrap();
    step.log(executor, 1).unwrap()[0]
}

#[test]
fn a_run_names_its_tuned_kernels_and_says_when_it_goes_on_with_others() {
    let Some(first) = common::gpu(Options::default()) else { return };
    let gpu = first.gpu().clone();
    let config = TrainConfig {
        model: "conv4-relu-pool-flatten-dense2".to_owned(),
        size: 16,
        epochs: 1,
        batch: 8,
        ..TrainConfig::default()
    };
    // Measured or not, the plain kernel is to run wherever another one would.
    let model = Model::new(&config.model, [1, config.size, config.size], 2).unwrap();
    let passes = Passes::new(&model, config.batch, first.max_tensor_bytes()).unwrap();
    let mut tuned = Tuned::new(Machine::of(&gpu.summary));
    for task in passes.tasks(&first) {
        let finding = passes.measure(&task, &gpu, Budget { runs: 1, seconds: 0.1 }).unwrap();
        let entry = Entry { variant: "plain".to_owned(), ..finding.entry.unwrap() };
        tuned.insert(finding.key, entry);
    }
    let tuned = Arc::new(tuned);
    let executor = |tuned: Option<&Arc<Tuned>>| -> Box<dyn Executor> {
        let options = Options { tuned: tuned.cloned(), ..Options::default() };
        Box::new(gpu::Executor::new(gpu.clone(), options))
    };
    let folder = tempfile::tempdir().unwrap();
    let place = |resume| Place {
        folder: folder.path(),
        resume,
        device: "a GPU".to_owned(),
        profile: false,
        tensorboard: false,
    };
    let run = |config: &TrainConfig, resume, tuned: Option<&Arc<Tuned>>| -> (Vec<String>, String) {
        let mut notes = Vec::new();
        let summary =
            run::train(config, phantom(config.size, IMAGES), executor(tuned), &place(resume), None, &mut |event| {
                if let Event::Note(text) = event {
                    notes.push(text.to_owned());
                }
            });
        let kernels = summary.unwrap().summary.environment.into_iter().find(|(name, _)| name == "kernels").unwrap().1;
        (notes, kernels)
    };
    let (notes, set) = run(&config, false, Some(&tuned));
    assert!(notes.is_empty() && set.contains("tuned"), "{notes:?} {set}");
    let longer = TrainConfig { epochs: 2, ..config.clone() };
    let (notes, same) = run(&longer, true, Some(&tuned));
    assert!(notes.is_empty() && same == set, "{notes:?} {same}");
    let longer = TrainConfig { epochs: 3, ..config };
    let (notes, table) = run(&longer, true, None);
    assert_eq!(table, "the table's");
    assert!(notes.len() == 1 && notes[0].contains(&set) && notes[0].contains("last bits"), "{notes:?}");
}
