//! Trainings in this process that are stopped after a given step.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use radiograd::data::Sampler;
use radiograd::exec::{ExecError, Executor, Program};
use radiograd::graph::{Graph, NodeId};
use radiograd::profile::{HostTimes, RunProfile};
use radiograd::store::{ParamStore, VarId};
use radiograd::tensor::Tensor;
use radiograd::train::{Augment, Fit, TrainConfig, TrainError};

use super::phantom::phantom;

type Make<'a> = &'a dyn Fn() -> Box<dyn Executor>;

/// Images of the phantom set for training, validation and test.
const IMAGES: [usize; 3] = [60, 16, 16];

/// A device that raises a flag at one of its runs.
struct Raising {
    inner: Box<dyn Executor>,
    runs: Arc<AtomicU64>,
    at: u64,
    flag: Arc<AtomicBool>,
}

impl Executor for Raising {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn load(&mut self, store: &ParamStore) -> Result<(), ExecError> {
        self.inner.load(store)
    }
    fn compile(&mut self, graph: &Arc<Graph>, roots: &[NodeId]) -> Result<Program, ExecError> {
        self.inner.compile(graph, roots)
    }
    fn set(&mut self, program: Program, input: NodeId, value: &Tensor) -> Result<(), ExecError> {
        self.inner.set(program, input, value)
    }
    fn running(&self, program: Program) -> Result<&Arc<Graph>, ExecError> {
        self.inner.running(program)
    }
    fn run(&mut self, program: Program) -> Result<(), ExecError> {
        if self.runs.fetch_add(1, Ordering::Relaxed) == self.at {
            self.flag.store(true, Ordering::Relaxed);
        }
        self.inner.run(program)
    }
    fn wait(&mut self) -> Result<(), ExecError> {
        self.inner.wait()
    }
    fn run_profiled(&mut self, program: Program) -> Result<RunProfile, ExecError> {
        self.inner.run_profiled(program)
    }
    fn host_times(&self) -> Option<HostTimes> {
        self.inner.host_times()
    }
    fn read(&mut self, program: Program, node: NodeId) -> Result<Tensor, ExecError> {
        self.inner.read(program, node)
    }
    fn read_var(&mut self, var: VarId) -> Result<Tensor, ExecError> {
        self.inner.read_var(var)
    }
    fn write_var(&mut self, var: VarId, value: &Tensor) -> Result<(), ExecError> {
        self.inner.write_var(var, value)
    }
    fn release(&mut self, program: Program) {
        self.inner.release(program);
    }
    fn max_tensor_bytes(&self) -> Option<u64> {
        self.inner.max_tensor_bytes()
    }
}

fn configs() -> [TrainConfig; 2] {
    let model = "conv4-bn-relu-pool-dropout0.3-flatten-dense8-relu-dense2".to_owned();
    let plain = TrainConfig {
        model,
        size: 16,
        epochs: 3,
        batch: 4,
        sampler: Sampler::Oversample,
        augment: Augment::preset("light"),
        augment_repeats: Augment::preset("strong"),
        ..TrainConfig::default()
    };
    let text = "epochs = 5\nbatch = 4\nsize = 16\npatience = 2\naccumulate = 4\ncache_features = true\n\
        model = \"conv4-bn-relu-pool-flatten-dense8-relu-dropout0.3-dense2\"\nschedule = { name = \"reduce_on_plateau\", patience = 0 }\n\
        [[stages]]\nepochs = 3\nfreeze = [\"conv*\", \"bn*\"]\n[[stages]]\nlr = 0.002\n";
    [plain, toml::from_str(text).expect("settings")]
}

/// Trains into a folder, and on from what lies there; stopped at run number `at` of the device. Gives how many runs there were.
fn train(folder: &Path, config: &TrainConfig, make: Make<'_>, resume: bool, at: u64) -> (Result<(), TrainError>, u64) {
    let (runs, flag) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let device = Raising { inner: make(), runs: Arc::clone(&runs), at, flag: Arc::clone(&flag) };
    let mut fit = Fit::new(config, phantom(16, IMAGES), Box::new(device)).expect("it fits");
    fit.stop_when(flag);
    let start = fit.start(resume.then_some(folder)).expect("a start");
    let ended = fit.run(start, Some(folder), &mut |_| {}).map(drop);
    (ended, runs.load(Ordering::Relaxed))
}

/// Stops trainings after each of their steps (or each `stride`th), some of them twice, and holds what comes of it against one that nobody
/// stopped.
pub fn after_each_step(make: Make<'_>, stride: usize) {
    for config in configs() {
        let whole = tempfile::tempdir().expect("a folder");
        let (ended, runs) = train(whole.path(), &config, make, false, u64::MAX);
        ended.expect("an end");
        let (mut within, mut places) = (0, std::collections::BTreeSet::new());
        for at in (0..runs).step_by(stride) {
            let folder = tempfile::tempdir().expect("a folder");
            let (mut ended, _) = train(folder.path(), &config, make, false, at);
            // Stopped again, five runs after it went on.
            for more in [5, u64::MAX] {
                let Err(e) = ended else { break };
                let TrainError::Interrupted { epoch, step, steps, kept } = e else { panic!("run {at}: {e}") };
                assert!(step <= steps, "run {at}: {e}");
                if !kept {
                    // Before the first step: it begins anew.
                    assert_eq!((epoch, step), (1, 0), "run {at}: {e}");
                    ended = train(folder.path(), &config, make, false, u64::MAX).0;
                    break;
                }
                within += u32::from(step > 0);
                places.insert((epoch, step));
                ended = train(folder.path(), &config, make, true, more).0;
            }
            ended.expect("an end");
            for file in ["last.safetensors", "best.safetensors"] {
                let [a, b] = [whole.path(), folder.path()].map(|f| fs::read(f.join(file)).expect("a file"));
                assert!(a == b, "stopped at run {at} of {runs}: {file} differs");
            }
        }
        println!("{} places to stop at, {within} stops within an epoch: the same bits", places.len());
        assert!(within > 0);
    }
}
