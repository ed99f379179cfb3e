//! Whole training steps: batch gathered on the device, forward, loss, backward, Adam, log.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::measure::{Budget, Times, repeat, wall};
use crate::data::Images;
use crate::exec::{Executor, Program};
use crate::gpu::StepMemory;
use crate::nn::Model;
use crate::nn::summary::{self, NodeRow};
use crate::optim::OptimizerKind;
use crate::profile::{HostTimes, NodeTime};
use crate::rng::{Rng, Stream};
use crate::shape::Spec;
use crate::store::ParamStore;
use crate::train::TrainError;
use crate::train::step::{
    Augmentation, DeviceImages, LOG_COLUMNS, LossSettings, StepOptions, StepParts, TrainStep, Turn,
};
use crate::train::update::UpdateGroup;

/// Steps before the clock runs; the first is timed on its own.
const WARM_UP: u64 = 2;
/// Runs with a timestamp around each node, at most.
const TIMED_RUNS: usize = 7;
/// Adam's rate: small, so that random labels never make the loss overflow.
const RATE: f64 = 1e-4;

/// A network and random images, ready to train with Adam.
#[derive(Debug)]
pub struct Workload {
    model: Model,
    batch: usize,
    seed: u32,
    host: Images,
    /// Everything that the step keeps on the device.
    pub store: ParamStore,
    /// The step.
    pub step: TrainStep,
}

/// What a step costs.
#[derive(Clone, Debug, Serialize)]
pub struct StepResult {
    /// The model text.
    pub model: String,
    /// `[channels, height, width]`
    pub input: [usize; 3],
    /// Images in a step.
    pub batch: usize,
    /// Trainable numbers.
    pub parameters: usize,
    /// Floating-point operations of a step.
    pub flops: u64,
    /// Seconds from a recorded graph to the end of the first step: upload, kernels compiled, memory planned, one step.
    pub first_step_seconds: f64,
    /// Wall time from an idle device to an idle device.
    pub step: Times,
    /// Wall time of everything but the device's own work: choosing the batch, setting the inputs, encoding and submitting, all
    /// on an idle device. `None` where the host is the device.
    pub host: Option<Times>,
    /// Parts of `host`, each the median of its own.
    pub host_parts: Option<HostTimes>,
    /// Sum of the device's timestamps over all nodes of a step; `None` without timestamps.
    pub device: Option<Times>,
    /// Wall time of reading the step's row of the log back from an idle device.
    pub read_back: Times,
    /// Images a second with steps submitted one after the other, as training does.
    pub images_per_second: f64,
    /// Operations a second at that rate.
    pub flops_per_second: f64,
    /// The loss at the end: a check that something was computed.
    pub loss: f32,
    /// Memory on the device, on a GPU.
    pub memory: Option<StepMemory>,
    /// Each node, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeCost>>,
}

/// One node of a step.
#[derive(Clone, Debug, Serialize)]
pub struct NodeCost {
    /// Its number in the graph.
    pub node: usize,
    /// Its number, op and layer.
    pub name: String,
    /// The op.
    pub op: &'static str,
    /// `forward`, `backward` or `update`.
    pub pass: &'static str,
    /// The kernel variant.
    pub variant: &'static str,
    /// Seconds on the device.
    pub times: Times,
    /// Its part of the sum over all nodes, from 0 to 1.
    pub share: f64,
    /// Operations a second.
    pub flops_per_second: f64,
    /// Bytes a second, counting each input and the output once.
    pub bytes_per_second: f64,
}

impl Workload {
    /// Records a step of `model` on `images` random images, `batch` of them at a time; `limit` is the largest tensor in
    /// bytes that the device holds.
    ///
    /// # Errors
    /// The network cannot be trained on such a batch.
    pub fn new(model: Model, images: usize, batch: usize, seed: u32, limit: Option<u64>) -> Result<Self, TrainError> {
        Self::with(model, images, batch, seed, limit, StepOptions::default())
    }

    /// As [`Workload::new`], with what most steps go without.
    ///
    /// # Errors
    /// As [`Workload::new`].
    pub fn with(
        model: Model,
        images: usize,
        batch: usize,
        seed: u32,
        limit: Option<u64>,
        options: StepOptions<'_>,
    ) -> Result<Self, TrainError> {
        let [channels, height, width] = model.input();
        let mut rng = Rng::new(seed, 0, Stream::Sample as u32);
        let classes = model.classes() as u32;
        let host = Images {
            channels,
            height,
            width,
            pixels: (0..images * channels * height * width).map(|_| rng.below(256) as u8).collect(),
            labels: (0..images).map(|_| rng.below(classes)).collect(),
            names: (0..images).map(|i| format!("random/{i}")).collect(),
            patients: (0..images).map(|i| i.to_string()).collect(),
        };
        let optimizer: OptimizerKind = "adam".parse()?;
        let mut store = ParamStore::new();
        let params = model.init(&mut store, seed);
        let groups = UpdateGroup::whole(&mut store, &optimizer);
        let on_device = DeviceImages::add(&mut store, "random", &host, limit);
        let log = store.add_var("log", Spec::float([1, LOG_COLUMNS]), None);
        let step = TrainStep::record(StepParts {
            model: &model,
            params: &params,
            images: &on_device,
            batch,
            mean: &vec![0.5; channels],
            std: &vec![0.25; channels],
            loss: &LossSettings::default(),
            groups: &groups,
            log: &log,
            weights: None,
            augmentation: Augmentation::default(),
            options,
        })?;
        Ok(Self { model, batch, seed, host, store, step })
    }

    /// The random images.
    #[must_use]
    pub fn images(&self) -> &Images {
        &self.host
    }

    /// Measures it. The program stays compiled.
    ///
    /// # Errors
    /// The device has no room or fails.
    pub fn measure(&self, executor: &mut dyn Executor, budget: Budget) -> Result<(StepResult, Program), TrainError> {
        let images = self.host.len().max(1) as u64;
        let mut number = 0;
        let mut one = |executor: &mut dyn Executor, program| {
            let first = number * self.batch as u64;
            let chosen: Vec<u32> = (0..self.batch as u64).map(|i| ((first + i) % images) as u32).collect();
            number += 1;
            let turn = Turn {
                chosen: &chosen,
                repeats: &[],
                seed: self.seed,
                step: number - 1,
                update: number,
                lr: RATE,
                row: 0,
            };
            self.step.run(executor, program, &self.host, &turn)
        };
        let start = Instant::now();
        executor.load(&self.store)?;
        let program = executor.compile(&self.step.graph, &[])?;
        one(executor, program)?;
        // Reading the log's one row waits for the device, whichever it is.
        self.step.log(executor, 1)?;
        let first_step_seconds = start.elapsed().as_secs_f64();
        // Where a step takes longer than the budget, the first one has warmed up enough.
        if first_step_seconds < budget.time.as_secs_f64() {
            for _ in 0..WARM_UP {
                one(executor, program)?;
            }
            self.step.log(executor, 1)?;
        }
        let (mut host, mut read_back, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let step = repeat(budget, || -> Result<f64, TrainError> {
            // The device is idle here, so that the host neither waits for it nor, on a software adapter, shares its cores.
            let start = Instant::now();
            one(executor, program)?;
            host.push(start.elapsed().as_secs_f64());
            executor.wait()?;
            let seconds = start.elapsed().as_secs_f64();
            let start = Instant::now();
            self.step.log(executor, 1)?;
            read_back.push(start.elapsed().as_secs_f64());
            parts.extend(executor.host_times());
            Ok(seconds)
        })?;
        let mut rate = 1.0 / step.median;
        if step.median < 0.05 {
            // Waiting costs a share of a short step, so these are submitted in a row.
            let time = budget.time.min(Duration::from_secs(1)).as_secs_f64();
            let count = ((time / step.median) as usize).clamp(5, 500);
            let seconds = wall(|| {
                for _ in 0..count {
                    one(executor, program)?;
                }
                self.step.log(executor, 1).map(|_| ())
            })?;
            rate = count as f64 / seconds;
        }
        let loss = self.step.log(executor, 1)?.first().map_or(f32::NAN, |row| row[0]);
        let flops = summary::nodes(&self.step.graph).iter().map(|n| n.flops).sum();
        let rows = summary::nodes(executor.running(program)?);
        let mut runs: Vec<Vec<NodeTime>> = Vec::new();
        let device = repeat(Budget { runs: budget.runs.min(TIMED_RUNS), ..budget }, || {
            let nodes = executor.run_profiled(program)?.nodes.unwrap_or_default();
            let sum = nodes.iter().map(|n| n.seconds).sum();
            runs.push(nodes);
            Ok::<f64, TrainError>(sum)
        })?;
        let result = StepResult {
            model: self.model.text().to_owned(),
            input: self.model.input(),
            batch: self.batch,
            parameters: self.model.trainable_numel(),
            flops,
            first_step_seconds,
            step,
            host: Times::of(host).filter(|_| !parts.is_empty()),
            host_parts: medians(&parts),
            device: Some(device).filter(|t| t.median > 0.0),
            read_back: Times::of(read_back).expect("there was a step"),
            images_per_second: rate * self.batch as f64,
            flops_per_second: rate * flops as f64,
            loss,
            memory: None,
            nodes: Some(costs(&rows, &runs)).filter(|n| !n.is_empty()),
        };
        Ok((result, program))
    }
}

/// The median of each part.
fn medians(parts: &[HostTimes]) -> Option<HostTimes> {
    let of = |part: fn(&HostTimes) -> f64| Times::of(parts.iter().map(part).collect()).map(|t| t.median);
    Some(HostTimes { upload: of(|p| p.upload)?, encode: of(|p| p.encode)?, submit: of(|p| p.submit)? })
}

/// Each node's times over all runs, the longest first.
fn costs(rows: &[NodeRow], runs: &[Vec<NodeTime>]) -> Vec<NodeCost> {
    let Some(first) = runs.first() else { return Vec::new() };
    let mut all: Vec<NodeCost> = Vec::with_capacity(first.len());
    for (i, node) in first.iter().enumerate() {
        let times = Times::of(runs.iter().filter_map(|run| run.get(i)).map(|n| n.seconds).collect());
        let (Some(times), Some(row)) = (times, rows.iter().find(|r| r.node == node.node)) else { continue };
        // A pack's copies are dispatches of the pack's node, each with a time of its own but not with its work.
        let work = |n: u64| if node.variant == "copy" { 0.0 } else { n as f64 };
        all.push(NodeCost {
            node: node.node,
            name: node.name.clone(),
            op: node.op,
            pass: row.pass,
            variant: node.variant,
            times,
            share: 0.0,
            flops_per_second: work(row.flops) / times.median.max(f64::MIN_POSITIVE),
            bytes_per_second: work(row.bytes) / times.median.max(f64::MIN_POSITIVE),
        });
    }
    let sum: f64 = all.iter().map(|n| n.times.median).sum();
    for node in &mut all {
        node.share = node.times.median / sum.max(f64::MIN_POSITIVE);
    }
    all.sort_by(|a, b| b.times.median.total_cmp(&a.times.median));
    all
}
