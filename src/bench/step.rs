//! Whole training steps: batch gathered on the device, forward, loss, backward, Adam, log.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::measure::{Budget, Times, repeat, wall};
use crate::data::Images;
use crate::exec::{Executor, Program};
use crate::nn::Model;
use crate::optim::OptimizerKind;
use crate::rng::{Rng, Stream};
use crate::shape::Spec;
use crate::store::ParamStore;
use crate::train::TrainError;
use crate::train::step::{DeviceImages, LOG_COLUMNS, LossSettings, StepParts, TrainStep, add_slots};

/// Steps before the clock runs; the first is timed on its own.
const WARM_UP: u64 = 2;
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
    /// Wall time of a step after which the host waits for the device.
    pub step: Times,
    /// Images a second with steps submitted one after the other, as training does.
    pub images_per_second: f64,
    /// Operations a second at that rate.
    pub flops_per_second: f64,
    /// The loss at the end: a check that something was computed.
    pub loss: f32,
    /// Planned device memory in bytes (intermediate tensors, gradients, uploads), on a GPU.
    pub planned_bytes: Option<u64>,
    /// Bytes of weights, optimizer state and images on the device, on a GPU.
    pub variable_bytes: Option<u64>,
}

impl Workload {
    /// Records a step of `model` on `images` random images, `batch` of them at a time; `limit` is the largest tensor in
    /// bytes that the device holds.
    ///
    /// # Errors
    /// The network cannot be trained on such a batch.
    pub fn new(model: Model, images: usize, batch: usize, seed: u32, limit: Option<u64>) -> Result<Self, TrainError> {
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
        let slots = add_slots(&mut store, &optimizer);
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
            optimizer: &optimizer,
            slots: &slots,
            log: &log,
            weights: None,
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
            self.step.run(executor, program, &self.host, &chosen, self.seed, number - 1, RATE, 0)
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
        let step = repeat(budget, || {
            wall(|| {
                one(executor, program)?;
                self.step.log(executor, 1).map(|_| ())
            })
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
        let flops = crate::nn::summary::nodes(&self.step.graph).iter().map(|n| n.flops).sum();
        let result = StepResult {
            model: self.model.text().to_owned(),
            input: self.model.input(),
            batch: self.batch,
            parameters: self.model.trainable_numel(),
            flops,
            first_step_seconds,
            step,
            images_per_second: rate * self.batch as f64,
            flops_per_second: rate * flops as f64,
            loss,
            planned_bytes: None,
            variable_bytes: None,
        };
        Ok((result, program))
    }
}
