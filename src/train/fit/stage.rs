//! The stages of a loop: which one is next, and what happens where one begins.

use super::{Event, Fit};
use crate::exec::{ExecError, Executor, Program};
use crate::nn::summary::scaled;
use crate::optim::{Schedule, Scheduler};
use crate::report::data::EpochRow;
use crate::tensor::Tensor;
use crate::train::config::TrainConfig;
use crate::train::features::{FeaturePass, Features};
use crate::train::stages::StagePlan;
use crate::train::step::{EvalPass, Host, Programs, TrainStep, probabilities};
use crate::train::{Augment, TrainError};

/// A stage that is recorded.
#[derive(Debug)]
pub(super) struct Stage {
    pub plan: StagePlan,
    pub step: TrainStep,
    /// Where its frozen part is computed once.
    pub cache: Option<Cache>,
}

/// Features of the images that a stage trains and chooses by.
#[derive(Debug)]
pub(super) struct Cache {
    /// The layer that gives them.
    pub layer: String,
    pub train: Features,
    pub val: Features,
    /// What computes each of them.
    pub passes: [FeaturePass; 2],
    /// Validation from features.
    pub eval: EvalPass,
}

/// The stage that is compiled.
#[derive(Debug)]
pub(super) struct Current {
    pub stage: usize,
    /// Its first epoch.
    pub first: u32,
    pub programs: Programs,
    /// Validation from features.
    eval: Option<Program>,
    /// The features that the host holds, for training and for validation.
    kept: [Option<Vec<f32>>; 2],
}

impl Current {
    /// The training images' features, where the host holds them.
    pub fn features(&self) -> Option<&[f32]> {
        self.kept[0].as_deref()
    }

    /// The validation images' features, where the host holds them.
    pub fn val_features(&self) -> Option<&[f32]> {
        self.kept[1].as_deref()
    }

    fn release(&mut self, executor: &mut dyn Executor) {
        self.programs.release(executor);
        self.eval.take().into_iter().for_each(|program| executor.release(program));
        self.kept = [None, None];
    }
}

impl Stage {
    /// How many epochs it lasts at most.
    fn epochs(&self) -> usize {
        self.plan.epochs.clone().count()
    }

    /// Compiles it as number `stage`.
    pub fn compile(&self, stage: usize, executor: &mut dyn Executor) -> Result<Current, ExecError> {
        let programs = self.step.compile(executor)?;
        let eval = self.cache.as_ref().map(|cache| cache.eval.compile(executor)).transpose()?;
        Ok(Current { stage, first: 1, programs, eval, kept: [None, None] })
    }

    /// That it fits the device.
    pub fn check(&self, executor: &mut dyn Executor) -> Result<(), ExecError> {
        for pass in self.cache.iter().flat_map(|cache| &cache.passes) {
            let program = pass.compile(executor)?;
            executor.release(program);
        }
        self.compile(0, executor)?.release(executor);
        Ok(())
    }
}

impl Fit {
    /// The first epochs of the stages that have begun after so many epochs, where none of them ended early.
    pub(super) fn planned(&self, done: u32) -> Vec<u32> {
        self.stages.iter().map(|stage| *stage.plan.epochs.start()).filter(|first| *first <= done).collect()
    }

    /// The stage of the next epoch, and whether it begins with it; `None` at the end of the run. `begun` has the first epoch of each
    /// stage so far. A stage ends with its last epoch, or when `patience` of its own epochs brought nothing better.
    pub(super) fn next(&self, begun: &[u32], epochs: &[EpochRow]) -> Option<(usize, bool)> {
        let Some((&first, before)) = begun.split_last() else { return Some((0, true)) };
        let stage = before.len();
        let own = epochs.get(first.saturating_sub(1) as usize..).unwrap_or_default();
        let patience = self.config.patience as usize;
        let impatient = patience > 0 && stale(own) >= patience;
        if own.len() < self.stages.get(stage)?.epochs() && !impatient {
            return Some((stage, false));
        }
        (stage + 1 < self.stages.len()).then_some((stage + 1, true))
    }

    pub(super) fn schedule(&self, stage: usize) -> Schedule {
        let stage = &self.stages[stage];
        let (plan, updates) = (&stage.plan, stage.epochs() * self.steps / self.config.accumulate);
        TrainConfig::schedule_over(plan.schedule.as_ref(), updates as u64)
    }

    pub(super) fn scheduler(&self, stage: usize) -> Result<Scheduler, TrainError> {
        Ok(Scheduler::new(self.schedule(stage), self.stages[stage].plan.lr)?)
    }

    /// Compiles a stage in the place of the one before.
    pub(super) fn enter(&mut self, stage: usize) -> Result<(), TrainError> {
        if self.current.stage != stage {
            // First out, then in: the device need not hold both.
            self.current.release(self.executor.as_mut());
            self.current = self.stages[stage].compile(stage, self.executor.as_mut())?;
        }
        Ok(())
    }

    /// Goes over to a stage, with the optimizer's state at zero.
    pub(super) fn begin(&mut self, stage: usize) -> Result<Scheduler, TrainError> {
        self.enter(stage)?;
        for (_, slot) in &self.slots {
            let zeros = Tensor::f32([slot.spec.numel()], vec![0.0; slot.spec.numel()]).expect("as long as itself");
            self.executor.write_var(slot.var, &zeros)?;
        }
        self.scheduler(stage)
    }

    /// Says what the present stage does, where the config has stages, and whether the one before, whose last epoch is `epochs`' last, ended early.
    pub(super) fn announce(&self, begun: &[u32], epochs: &[EpochRow], events: &mut dyn FnMut(Event<'_>)) {
        let (Current { stage, first, .. }, count) = (&self.current, self.config.stages.len());
        let Stage { plan, .. } = &self.stages[*stage];
        if count == 0 {
            return;
        }
        if let [.., before, now] = begun
            && epochs.len() as u32 == now - 1
            && ((now - before) as usize) < self.stages[stage - 1].epochs()
        {
            let (end, best) = (now - 1, now - 1 - self.config.patience.min(now - 1));
            let text = format!(
                "stage {stage} of {count} ends after epoch {end}: the validation loss has not improved since epoch {best}"
            );
            events(Event::Note(&text));
        }
        let epochs = match plan.epochs.end() - plan.epochs.start() {
            0 => format!("epoch {first}"),
            more => format!("epochs {first} to {}", first + more),
        };
        let [some, all] = [plan.trained, self.model.trainable_numel()].map(|n| scaled(n as u64));
        let (number, lr) = (stage + 1, plan.lr);
        let lr = if lr < 1e-3 { format!("{lr:e}") } else { lr.to_string() };
        let text =
            format!("stage {number} of {count}: {epochs}, trains {some} of {all} parameters, learning rate {lr}");
        events(Event::Note(&text));
    }

    /// Computes the features that the present stage begins with, if it does.
    pub(super) fn cache(&mut self, events: &mut dyn FnMut(Event<'_>)) -> Result<(), TrainError> {
        let stage = self.current.stage;
        let Some(cache) = &self.stages[stage].cache else { return Ok(()) };
        events(Event::Note(&self.what_is_cached(stage, cache)));
        let [train, val] = &cache.passes;
        let Some((_, images)) = self.others.iter().find(|(name, _)| *name == "val") else { return Ok(()) };
        let executor = self.executor.as_mut();
        self.current.kept = [train.compute(executor, &self.train)?, val.compute(executor, images)?];
        Ok(())
    }

    fn what_is_cached(&self, stage: usize, cache: &Cache) -> String {
        let changes = |augment: &Option<Augment>| augment.as_ref().is_some_and(|a| !a.is_identity());
        let augmented = changes(&self.config.augment) || changes(&self.config.augment_repeats);
        let mib = (cache.train.bytes() + cache.val.bytes()) as f64 / f64::from(1 << 20);
        format!(
            "stage {} of {}: computes the output of {} once for {} training and {} validation images, {} numbers each: {mib:.1} MiB, held by the {}{}",
            stage + 1,
            self.stages.len(),
            cache.layer,
            cache.train.images(),
            cache.val.images(),
            cache.train.width(),
            if cache.train.on_device() { "device" } else { "host" },
            if augmented { "; its images are not augmented" } else { "" },
        )
    }

    /// Probabilities of the validation images, from features where the present stage has them.
    pub(super) fn predict_validation(&mut self) -> Result<Option<Vec<f64>>, TrainError> {
        let Current { stage, eval, kept, .. } = &self.current;
        let (Some(cache), Some(program)) = (&self.stages[*stage].cache, *eval) else { return self.predict("val") };
        let Some((_, images)) = self.others.iter().find(|(name, _)| *name == "val") else { return Ok(None) };
        let host = Host { images, features: kept[1].as_deref() };
        let logits = cache.eval.run(self.executor.as_mut(), program, host)?;
        Ok(Some(probabilities(&logits, self.model.outputs())))
    }
}

/// How many epochs have passed since the last one whose validation loss was lower than all before it.
fn stale(epochs: &[EpochRow]) -> usize {
    let better = |&i: &usize| epochs[..i].iter().all(|e| epochs[i].val_loss < e.val_loss);
    (0..epochs.len()).rfind(better).map_or(0, |best| epochs.len() - 1 - best)
}
