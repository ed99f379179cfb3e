//! Stages, frozen layers, clipped and accumulated gradients, recomputed activations: what they change, and what they must not.

mod common;
#[path = "common/phantom.rs"]
mod phantom;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use phantom::phantom;
use radiograd::bench::step::Workload;
use radiograd::cpu;
use radiograd::exec::{ExecError, Executor, Program};
use radiograd::gpu::Options;
use radiograd::graph::{Graph, NodeId, Pass};
use radiograd::nn::Model;
use radiograd::profile::{HostTimes, RunProfile};
use radiograd::report::data::EpochRow;
use radiograd::store::{ParamStore, VarId};
use radiograd::tensor::Tensor;
use radiograd::train::step::{StepOptions, Turn};
use radiograd::train::{Augment, ClassWeights, Event, Fit, Shared, TrainConfig};
use radiograd::weights;

/// Images of the phantom set for training, validation and test.
const IMAGES: [usize; 3] = [96, 24, 24];

/// The default settings of these tests, and `toml` over them.
fn config(toml: &str) -> TrainConfig {
    let base = "model = \"conv4-bn-relu-pool-conv6-bn-relu-gap-flatten-dropout0.2-dense2\"\nsize = 16\nepochs = 4\nbatch = 8\nlr = 0.01\n";
    let mut table: toml::Table = base.parse().unwrap();
    table.extend(toml.parse::<toml::Table>().unwrap());
    let config: TrainConfig = table.try_into().unwrap();
    config.validate().unwrap();
    config
}

const TWO_STAGES: &str = "decay = \"matrices\"\nclip_grad_norm = 0.5\n\
    [[stages]]\nepochs = 2\nfreeze = [\"conv*\", \"bn*\"]\n\
    [[stages]]\nlr = 0.002\nrates = [{ parameters = \"conv1.*\", factor = 0.1 }]\n";

type Tensors = BTreeMap<String, Vec<f32>>;

/// Trains into a folder; `after` sees the checkpoint of each epoch. Gives the notes.
fn train(
    folder: &Path,
    config: &TrainConfig,
    executor: Box<dyn Executor>,
    resume: bool,
    after: &mut dyn FnMut(u32, Tensors),
) -> Vec<String> {
    train_on(folder, config, phantom(config.size, IMAGES), executor, resume, after)
}

fn train_on(
    folder: &Path,
    config: &TrainConfig,
    data: impl Into<Shared>,
    executor: Box<dyn Executor>,
    resume: bool,
    after: &mut dyn FnMut(u32, Tensors),
) -> Vec<String> {
    let mut fit = Fit::new(config, data, executor).unwrap();
    let start = fit.start(resume.then_some(folder)).unwrap();
    let mut notes = Vec::new();
    fit.run(start, Some(folder), &mut |event| match event {
        Event::Epoch { row, .. } => after(row.epoch, last(folder)),
        Event::Note(note) => notes.push(note.to_owned()),
        Event::Step { .. } | Event::Warning(_) => {}
    })
    .unwrap();
    notes
}

/// The tensors of `last.safetensors`.
fn last(folder: &Path) -> Tensors {
    let file = weights::load(folder.join("last.safetensors")).unwrap();
    file.tensors.into_iter().filter_map(|t| Some((t.name, t.data.as_f32()?.to_vec()))).collect()
}

fn fast() -> Box<dyn Executor> {
    Box::new(cpu::Executor::<f32>::fast())
}

fn executors() -> Vec<(&'static str, Box<dyn Executor>)> {
    let gpu = common::gpu(Options::default()).map(|gpu| ("gpu", Box::new(gpu) as Box<dyn Executor>));
    std::iter::once(("cpu", fast())).chain(gpu).collect()
}

#[test]
fn what_is_frozen_stays_bit_by_bit_and_then_learns() {
    for (name, executor) in executors() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        train(dir.path(), &config(TWO_STAGES), executor, false, &mut |_, tensors| seen.push(tensors));
        let same = |a: usize, b: usize, tensor: &str| seen[a][tensor] == seen[b][tensor];
        let frozen = ["conv1.weight", "conv2.bias", "bn1.weight", "bn2.running_mean", "bn1.running_var"];
        for tensor in frozen {
            assert!(same(0, 1, tensor), "{name}: {tensor} moved while it was frozen");
            assert!(!same(1, 2, tensor), "{name}: {tensor} did not move after it was freed");
        }
        for tensor in ["dense1.weight", "dense1.bias"] {
            assert!(!same(0, 1, tensor) && !same(2, 3, tensor), "{name}: {tensor} did not move");
        }
    }
}

/// A run that breaks off after each of its epochs in turn: within a stage, and between two. Gives the notes of the whole one, and the rows of
/// its log.
fn resumes_to_the_same_bytes(config: &TrainConfig) -> (Vec<String>, Vec<EpochRow>) {
    let whole = tempfile::tempdir().unwrap();
    let mut broken = Vec::new();
    let notes = train(whole.path(), config, fast(), false, &mut |_, _| {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(whole.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        broken.push(dir);
    });
    for dir in &broken {
        train(dir.path(), config, fast(), true, &mut |_, _| {});
        assert_same_files(whole.path(), dir.path(), "resumed");
    }
    let log = std::fs::read_to_string(whole.path().join("metrics.jsonl")).unwrap();
    (notes, log.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn assert_same_files(a: &Path, b: &Path, what: &str) {
    for file in ["last.safetensors", "best.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert_eq!(read(a), read(b), "{what}: {file}");
    }
}

/// The first stage learns nothing, so its second and third epochs are no better than its first.
#[test]
fn patience_ends_a_stage_and_goes_on_with_the_next() {
    let text = "epochs = 8\npatience = 2\ndecay = \"matrices\"\n\
        [[stages]]\nepochs = 5\nlr = 1e-30\nfreeze = [\"conv*\", \"bn*\"]\n[[stages]]\n";
    for cache_features in [false, true] {
        let config = TrainConfig { cache_features, ..config(text) };
        let (notes, rows) = resumes_to_the_same_bytes(&config);
        let losses: Vec<f64> = rows.iter().map(|row| row.val_loss).collect();
        assert_eq!((rows.len(), &losses[1..3]), (6, &[losses[0]; 2][..]), "{losses:?}");
        assert!(losses[3] != losses[0] && rows[3].learning_rate > 1e-3, "{rows:?}");
        let stages: Vec<&String> = notes.iter().filter(|note| !note.contains("once")).collect();
        let expected = [
            "stage 1 of 2: epochs 1 to 5, trains 14 of 296 parameters, learning rate 1e-30",
            "stage 1 of 2 ends after epoch 3: the validation loss has not improved since epoch 1",
            "stage 2 of 2: epochs 4 to 6, trains 296 of 296 parameters, learning rate 0.01",
        ];
        assert_eq!(stages, expected);
    }
}

#[test]
fn stages_resume_to_the_same_bytes() {
    let (notes, _) = resumes_to_the_same_bytes(&config(TWO_STAGES));
    assert_eq!(notes[1], "stage 2 of 2: epochs 3 to 4, trains 296 of 296 parameters, learning rate 0.002");
    resumes_to_the_same_bytes(&TrainConfig { cache_features: true, ..config(TWO_STAGES) });
}

/// Two stages that are cut at layers of other sizes, and one in which everything learns. Half of a block is frozen in the second:
/// it is cut before the block.
const CACHED: &str = "model = \"conv4-bn-relu-pool-a.0=2x[[conv4-bn-relu-conv4-bn]+-relu]-gap-flatten-dropout0.2-dense8-relu-dense2\"\n\
    sampler = \"oversample\"\n\
    [[stages]]\nepochs = 1\nfreeze = [\"conv*\", \"bn*\", \"a.*\"]\n\
    [[stages]]\nepochs = 2\nfreeze = [\"conv*\", \"bn*\", \"a.0.conv1.*\"]\n\
    [[stages]]\nlr = 0.002\n";

#[test]
fn features_computed_once_give_the_same_weights() {
    let other = [("accumulate", "accumulate = 2\n"), ("recompute", "recompute = true\n"), ("", "")];
    for (name, more) in other {
        let plain = config(&format!("{more}{CACHED}"));
        let cached = TrainConfig { cache_features: true, ..plain.clone() };
        let devices = if name.is_empty() { executors() } else { vec![("cpu", fast())] };
        for (device, executor) in devices {
            let other: Box<dyn Executor> =
                if device == "gpu" { Box::new(common::gpu(Options::default()).unwrap()) } else { fast() };
            let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
            train(dirs[0].path(), &plain, other, false, &mut |_, _| {});
            let notes = train(dirs[1].path(), &cached, executor, false, &mut |_, _| {});
            assert_same_files(dirs[0].path(), dirs[1].path(), &format!("{device} {name}"));
            let said = |words: &str| notes.iter().filter(|note| note.contains(words)).count();
            assert_eq!(
                said("output of flatten1 once for 96 training and 24 validation images, 4 numbers"),
                1,
                "{notes:?}"
            );
            assert_eq!(
                said("output of pool1 once for 96 training and 24 validation images, 256 numbers"),
                1,
                "{notes:?}"
            );
            assert_eq!((said("once"), said("held by the device")), (2, 2), "{notes:?}");
        }
    }
}

/// A residual network as it is published, cut before its last stage.
#[test]
fn features_of_a_resnet_give_the_same_weights() {
    let text = "model = \"resnet18\"\nsize = 32\nepochs = 1\nlr = 0.001\n\
        [[stages]]\nfreeze = [\"conv1.*\", \"bn1.*\", \"layer1.*\", \"layer2.*\", \"layer3.*\"]\n";
    let mut results = Vec::new();
    for cache_features in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let notes = train(dir.path(), &TrainConfig { cache_features, ..config(text) }, fast(), false, &mut |_, _| {});
        let cut = notes.iter().any(|n| n.contains("output of layer3.1.relu2 once") && n.contains("1024 numbers each"));
        assert_eq!(cut, cache_features, "{notes:?}");
        results.push(last(dir.path()));
    }
    assert_eq!(results[0], results[1]);
}

/// An executor without room for features.
struct Small(cpu::Executor<f32>);

impl Executor for Small {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn load(&mut self, store: &ParamStore) -> Result<(), ExecError> {
        match store.vars().iter().find(|v| v.name.contains("features") && v.spec.numel() > 0) {
            Some(var) => Err(ExecError::OutOfMemory(var.name.clone())),
            None => self.0.load(store),
        }
    }
    fn compile(&mut self, graph: &Arc<Graph>, roots: &[NodeId]) -> Result<Program, ExecError> {
        self.0.compile(graph, roots)
    }
    fn set(&mut self, program: Program, input: NodeId, value: &Tensor) -> Result<(), ExecError> {
        self.0.set(program, input, value)
    }
    fn running(&self, program: Program) -> Result<&Arc<Graph>, ExecError> {
        self.0.running(program)
    }
    fn run(&mut self, program: Program) -> Result<(), ExecError> {
        self.0.run(program)
    }
    fn wait(&mut self) -> Result<(), ExecError> {
        self.0.wait()
    }
    fn run_profiled(&mut self, program: Program) -> Result<RunProfile, ExecError> {
        self.0.run_profiled(program)
    }
    fn host_times(&self) -> Option<HostTimes> {
        self.0.host_times()
    }
    fn read(&mut self, program: Program, node: NodeId) -> Result<Tensor, ExecError> {
        self.0.read(program, node)
    }
    fn read_var(&mut self, var: VarId) -> Result<Tensor, ExecError> {
        self.0.read_var(var)
    }
    fn write_var(&mut self, var: VarId, value: &Tensor) -> Result<(), ExecError> {
        self.0.write_var(var, value)
    }
    fn release(&mut self, program: Program) {
        self.0.release(program);
    }
    fn max_tensor_bytes(&self) -> Option<u64> {
        self.0.max_tensor_bytes()
    }
}

#[test]
fn features_that_the_device_has_no_room_for_lie_on_the_host() {
    let config = TrainConfig { cache_features: true, ..config(CACHED) };
    let whole = tempfile::tempdir().unwrap();
    train(whole.path(), &config, fast(), false, &mut |_, _| {});
    let dir = tempfile::tempdir().unwrap();
    let small = Box::new(Small(cpu::Executor::fast()));
    let notes = train(dir.path(), &config, small, false, &mut |_, _| {});
    assert_same_files(whole.path(), dir.path(), "no memory");
    assert_eq!(notes.iter().filter(|n| n.contains("held by the host")).count(), 2, "{notes:?}");
    for (device, executor) in executors() {
        let (streamed, held) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = Shared::from(phantom(16, IMAGES)).streamed();
        let notes = train_on(streamed.path(), &config, data, executor, false, &mut |_, _| {});
        assert!(notes.iter().any(|n| n.contains("held by the host")), "{notes:?}");
        if device == "gpu" {
            let gpu = Box::new(common::gpu(Options::default()).unwrap());
            train(held.path(), &config, gpu, false, &mut |_, _| {});
            assert_same_files(held.path(), streamed.path(), device);
        } else {
            assert_same_files(whole.path(), streamed.path(), device);
        }
    }
}

#[test]
fn images_are_not_augmented_where_their_features_are_cached() {
    let stages = "epochs = 2\n[[stages]]\nepochs = 1\nfreeze = [\"conv*\", \"bn*\"]\n[[stages]]\n";
    let mut epochs = Vec::new();
    for (augment, cache_features) in
        [(None, true), (Augment::preset("strong"), true), (Augment::preset("strong"), false)]
    {
        let config = TrainConfig { augment, cache_features, ..config(stages) };
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        let notes = train(dir.path(), &config, fast(), false, &mut |_, tensors| seen.push(tensors));
        let said = notes.iter().any(|note| note.ends_with("; its images are not augmented"));
        assert_eq!(said, config.augment.is_some() && cache_features, "{notes:?}");
        epochs.push(seen);
    }
    assert_eq!(epochs[0][0], epochs[1][0]);
    assert_ne!(epochs[0][1], epochs[1][1], "the second stage is augmented");
    assert_ne!(epochs[1][0], epochs[2][0]);
}

#[test]
fn what_cannot_be_cached_is_refused() {
    for (text, words) in [
        ("", "no stage freezes anything"),
        ("[[stages]]\nlr = 0.1\n", "no stage freezes anything"),
        ("[[stages]]\nfreeze = [\"dense1.weight\"]\n", "no stage begins with frozen layers"),
        (
            "model = \"bn-conv4-gap-flatten-dense2\"\n[[stages]]\nbatch_norm = \"train\"\nfreeze = [\"bn*\"]\n",
            "batch_norm not",
        ),
    ] {
        let wanted = TrainConfig { cache_features: true, ..config(text) };
        let error = Fit::new(&wanted, phantom(16, IMAGES), fast()).err().unwrap().to_string();
        assert!(
            error.starts_with("cache_features: ") && error.contains(words) && !error.contains('\n'),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_frozen_part_costs_no_backward_pass_and_no_optimizer_memory() {
    let stages = "[[stages]]\nfreeze = [\"conv*\", \"bn*\"]\n";
    let dir = tempfile::tempdir().unwrap();
    let mut moments = Vec::new();
    for text in ["", stages] {
        let config = TrainConfig { epochs: 1, ..config(text) };
        train(dir.path(), &config, fast(), false, &mut |_, tensors| moments.push(tensors["optimizer.exp_avg"].len()));
        let fit = Fit::new(&config, phantom(16, IMAGES), fast()).unwrap();
        let back: Vec<&str> = fit
            .recorded(0)
            .nodes()
            .iter()
            .filter(|n| n.pass == Pass::Backward)
            .map(|n| n.kind())
            .filter(|kind| {
                kind.starts_with("conv2d") || kind.starts_with("batch_norm2d") || kind.starts_with("max_pool2d")
            })
            .collect();
        assert_eq!(back.is_empty(), text == stages, "{back:?}");
    }
    // 6 x 2 weights and 2 biases, each rounded up to the store's alignment.
    assert!(moments[1] < moments[0] && moments[1] <= 128, "{moments:?}");
}

/// Stages of other groups of parameters, one behind the other in the same sums.
#[test]
fn stages_share_the_sums_of_accumulated_gradients() {
    let text = format!("accumulate = 3\n{TWO_STAGES}");
    let (_, rows) = resumes_to_the_same_bytes(&config(&text));
    assert_eq!(rows.len(), 4);
    let Some(gpu) = common::gpu(Options::default()) else { return };
    let mut seen = Vec::new();
    for executor in [fast(), Box::new(gpu)] {
        let dir = tempfile::tempdir().unwrap();
        train(dir.path(), &config(&text), executor, false, &mut |_, _| {});
        seen.push(last(dir.path()));
    }
    for (name, a) in seen[0].iter().filter(|(name, _)| name.ends_with(".weight")) {
        let distance: f32 = a.iter().zip(&seen[1][name]).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let length: f32 = a.iter().map(|a| a.powi(2)).sum::<f32>().sqrt();
        assert!(distance <= 1e-2 * length, "{name}: {distance} of {length}");
    }
}

/// Two batches of 4 are one of 8, where no batch-norm and no weighted mean looks at the batch.
#[test]
fn accumulated_batches_are_one_larger_batch() {
    let plain = "model = \"conv4-relu-pool-flatten-dense2\"\noptimizer = { name = \"sgd\", momentum = 0.9 }\nclip_grad_norm = 0.05\nepochs = 2\n";
    for (name, executor) in executors() {
        let mut results = Vec::new();
        let gpu = name == "gpu";
        let mut executor = Some(executor);
        for (batch, accumulate) in [(8, 1), (4, 2)] {
            let config = TrainConfig { batch, accumulate, class_weights: ClassWeights::None, ..config(plain) };
            let dir = tempfile::tempdir().unwrap();
            let own = match executor.take() {
                Some(executor) => executor,
                None if gpu => Box::new(common::gpu(Options::default()).unwrap()),
                None => fast(),
            };
            train(dir.path(), &config, own, false, &mut |_, _| {});
            results.push(last(dir.path()));
        }
        for tensor in ["conv1.weight", "dense1.weight", "optimizer.momentum_buffer"] {
            let (a, b) = (&results[0][tensor], &results[1][tensor]);
            let distance: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            let length: f32 = a.iter().map(|a| a.powi(2)).sum::<f32>().sqrt();
            assert!(distance <= 1e-4 * length, "{name} {tensor}: {distance} of {length}");
        }
    }
}

/// What the optimizer sees has the largest norm that it may have.
#[test]
fn a_clipped_step_is_as_long_as_it_may_be() {
    let model = Model::new("conv4-relu-pool-flatten-dense2", [1, 16, 16], 2).unwrap();
    for (name, mut executor) in executors() {
        let moved: Vec<f64> = [None, Some(1e-3)]
            .into_iter()
            .map(|clip_grad_norm| {
                let options = StepOptions { clip_grad_norm, ..StepOptions::default() };
                let work = Workload::with(model.clone(), 8, 8, 1, None, options).unwrap();
                executor.load(&work.store).unwrap();
                let program = executor.compile(&work.step.graph, &[work.step.gradient]).unwrap();
                let chosen: Vec<u32> = (0..8).collect();
                let turn = Turn { chosen: &chosen, repeats: &[], seed: 0, step: 0, update: 1, lr: 0.1, row: 0 };
                work.step.run(executor.as_mut(), program, work.images(), &turn).unwrap();
                // The optimizer is Adam, whose first moment after a step is a tenth of the gradient that it saw.
                let updates = work.step.graph.nodes().iter().filter_map(|n| n.op()).flat_map(|op| op.updates());
                let moment = updates.map(|u| u.var).find(|v| work.store.vars()[v.index()].name == "exp_avg").unwrap();
                let seen = executor.read_var(moment).unwrap().to_f64();
                10.0 * seen.iter().map(|v| v * v).sum::<f64>().sqrt()
            })
            .collect();
        assert!(moved[0] > 0.01, "{name}: {moved:?}");
        assert!((moved[1] - 1e-3).abs() < 1e-6, "{name}: {moved:?}");
    }
}

#[test]
fn recomputed_activations_change_no_gradient_and_take_less_memory() {
    let text = "conv8-bn-relu-2x[[conv8-bn-relu-dropout0.3-conv8-bn]+-relu]-pool-[conv8-bn-relu-conv8-bn]+-relu-gap-flatten-dense2";
    let model = Model::new(text, [1, 32, 32], 2).unwrap();
    for (name, mut executor) in executors() {
        let mut results = Vec::new();
        for recompute in [false, true] {
            let options = StepOptions { recompute, ..StepOptions::default() };
            let work = Workload::with(model.clone(), 8, 8, 1, None, options).unwrap();
            executor.load(&work.store).unwrap();
            let program = executor.compile(&work.step.graph, &[work.step.loss, work.step.gradient]).unwrap();
            let chosen: Vec<u32> = (0..8).rev().collect();
            for step in 0..2 {
                let turn = Turn { chosen: &chosen, repeats: &[], seed: 3, step, update: step + 1, lr: 1e-3, row: 0 };
                work.step.run(executor.as_mut(), program, work.images(), &turn).unwrap();
            }
            let gradient = executor.read(program, work.step.gradient).unwrap().to_f64();
            let convolutions = work.step.graph.nodes().iter().filter(|n| n.kind() == "conv2d").count();
            results.push((gradient, convolutions, Arc::clone(&work.step.graph)));
        }
        let [(a, once, _), (b, twice, _)] = &results[..] else { unreachable!() };
        assert!(twice > once, "{name}: {once} and {twice} convolutions");
        let distance: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let length: f64 = a.iter().map(|a| a.powi(2)).sum::<f64>().sqrt();
        if name == "cpu" {
            assert_eq!(a, b);
        }
        assert!(distance <= 1e-5 * length, "{name}: {distance} of {length}");
    }
    // The memory plan, on an adapter where there is one.
    let Some(mut gpu) = common::gpu(Options::default()) else { return };
    let planned: Vec<u64> = [false, true]
        .into_iter()
        .map(|recompute| {
            let options = StepOptions { recompute, ..StepOptions::default() };
            let work = Workload::with(model.clone(), 1, 32, 1, None, options).unwrap();
            gpu.load(&work.store).unwrap();
            let program = gpu.compile(&work.step.graph, &[]).unwrap();
            gpu.memory(program).unwrap().tensors_at_least
        })
        .collect();
    assert!(planned[1] * 4 < planned[0] * 3, "{planned:?}");
}
