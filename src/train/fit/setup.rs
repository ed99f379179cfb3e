//! Setting a training up: the network, its data on the device, and its recorded passes.

use std::collections::BTreeMap;
use std::ops::Range;

use super::journal::Journal;
use super::stage::{Cache, Stage};
use super::{EVAL_BATCH, Fit, json};
use crate::exec::{ExecError, Executor, host_has_room};
use crate::graph::VarView;
use crate::nn::{Head, Model};
use crate::shape::Spec;
use crate::store::ParamStore;
use crate::tensor::Tensor;
use crate::train::config::TrainConfig;
use crate::train::features::{self, FeaturePass, Features, FromFeatures};
use crate::train::stages::{self, StagePlan};
use crate::train::step::{
    Augmentation, DeviceImages, EvalPass, LOG_COLUMNS, LossSettings, StepOptions, StepParts, TrainStep,
};
use crate::train::update::{Accumulate, UpdateGroup, add_slots};
use crate::train::{Shared, TrainError};

impl Fit {
    /// Sets everything up: parameters, images on the device, recorded passes.
    ///
    /// # Errors
    /// Settings out of range, a network that does not fit, a device without room.
    pub fn new(
        config: &TrainConfig,
        data: impl Into<Shared>,
        mut executor: Box<dyn Executor>,
    ) -> Result<Self, TrainError> {
        let mut data: Shared = data.into();
        let mut config = config.clone();
        config.validate()?;
        let train = data.train.take().ok_or_else(|| TrainError::setting("data", "has no training images"))?;
        config.resolve(&train);
        let classes = data.classes.len();
        let counts = config.sampler.counts(&train.class_counts(classes));
        let images_an_epoch: usize = counts.iter().sum();
        if config.batch > images_an_epoch {
            let problem = format!("{} is more than the {images_an_epoch} training images; lower it", config.batch);
            return Err(TrainError::setting("batch", problem));
        }
        if config.batch.saturating_mul(config.accumulate) > images_an_epoch {
            let problem = format!(
                "{} batches of {} are more than the {images_an_epoch} training images; lower it",
                config.accumulate, config.batch
            );
            return Err(TrainError::setting("accumulate", problem));
        }
        let model = Model::new(&config.model, [config.channels, config.size, config.size], classes)?;
        if data.others.iter().all(|(name, _)| *name != "val") {
            let problem = "there are no validation images to choose the weights by: hold some out of train (0.15)";
            return Err(TrainError::setting("val_fraction", problem));
        }
        let weights = config.weights(&counts)?;
        if model.head() == Head::Sigmoid {
            if config.label_smoothing > 0.0 {
                let problem = "needs one output a class: end the model in dense2 instead of dense1";
                return Err(TrainError::setting("label_smoothing", problem));
            }
            if weights.as_ref().is_some_and(|w| w.contains(&0.0)) {
                let problem =
                    "a network with one output needs positive weights: end the model in dense2 instead of dense1";
                return Err(TrainError::setting("class_weights", problem));
            }
        }
        let loss = LossSettings { class_weights: weights, label_smoothing: config.label_smoothing };

        let mut store = ParamStore::new();
        // The values, the optimizer's vectors for most optimizers, and copies on their way.
        let numbers = model.trainable_numel();
        if numbers.checked_mul(16).is_none_or(|bytes| !host_has_room(bytes)) {
            let what = format!("the host has no room for {numbers} parameters");
            return Err(ExecError::OutOfMemory(what).into());
        }
        model.init(&mut store, config.seed);
        let (params, plans) = stages::plan(&config, &model, &mut store)?;
        let slots = add_slots(&mut store, &config.optimizer, stages::trained_len(&plans));
        let cached = |plan: &StagePlan| if config.cache_features { plan.frozen } else { 0 };
        if config.cache_features && plans.iter().all(|plan| cached(plan) == 0) {
            let problem = "no stage begins with frozen layers that give an image the same features at each step: freeze the first \
                           ones, batch_norm not \"train\", and no dropout among them";
            return Err(TrainError::setting("cache_features", problem));
        }
        let limit = if data.streamed { Some(0) } else { executor.max_tensor_bytes() };
        let images = DeviceImages::add(&mut store, "train", &train, limit);
        // Whole updates.
        let steps = images_an_epoch / config.batch / config.accumulate * config.accumulate;
        // One sum serves all stages: it is zero after each update, and an epoch has whole ones.
        let sum = Spec::float([stages::trained_len(&plans)]);
        let sum = (config.accumulate > 1).then(|| store.add_var("sum of gradients", sum, None));
        let part = |whole: &VarView, range: &Range<usize>| VarView {
            offset: range.start,
            spec: Spec::float([range.len()]),
            ..whole.clone()
        };
        let sums = |plan: &StagePlan| -> Vec<VarView> {
            sum.iter().flat_map(|whole| plan.groups.iter().map(|g| part(whole, &g.range))).collect()
        };
        let log = store.add_var("training log", Spec::float([steps, LOG_COLUMNS]), None);
        let weights = loss.class_weights.as_ref().map(|w| {
            let value = Tensor::f32([w.len()], w.clone()).ok();
            store.add_var("class weights", Spec::float([w.len()]), value)
        });
        let mut others = Vec::new();
        for (name, host) in data.others {
            let on_device = DeviceImages::add(&mut store, name, &host, limit);
            let spec = Spec::float([host.len(), model.outputs()]);
            let logits = store.add_var(&format!("{name} logits"), spec, None);
            others.push((name, host, on_device, logits));
        }
        let val_images = others.iter().find(|(name, ..)| *name == "val").map_or(0, |(_, host, ..)| host.len());
        let splits = [("training", train.len()), ("validation", val_images)];
        let cut: Vec<usize> = plans.iter().map(cached).filter(|&steps| steps > 0).collect();
        let widths: Vec<usize> = cut.iter().map(|&steps| model.shape_before(steps).numel()).collect();
        let mut held = splits.map(|(name, images)| features::add_var(&mut store, name, images, &widths, limit));
        match executor.load(&store) {
            // What the device has no room for the host can hold.
            Err(ExecError::OutOfMemory(_)) if held.iter().any(Option::is_some) => {
                held.iter_mut().filter_map(Option::take).for_each(|view| store.empty(&view));
                executor.load(&store)?;
            }
            other => other?,
        }

        let mean = config.mean.clone().unwrap_or_default();
        let std = config.std.clone().unwrap_or_default();
        // What a training step has memory for, an evaluation pass has.
        let eval_batch = EVAL_BATCH.min(config.batch);
        let mut stages = Vec::with_capacity(plans.len());
        for plan in plans {
            let sums = sums(&plan);
            let steps = cached(&plan);
            let val = others.iter().find(|(name, ..)| *name == "val").filter(|_| steps > 0);
            let cache = val.map(|(_, _, on_device, logits)| {
                let one = model.shape_before(steps);
                let [train, val] = [0, 1].map(|i| Features::new(splits[i].1, &one, held[i].as_ref()));
                let pass =
                    |images, batch, to| FeaturePass::record(&model, &params, steps, images, batch, (&mean, &std), to);
                let passes = [pass(&images, config.batch, &train)?, pass(on_device, eval_batch, &val)?];
                let from = FromFeatures { steps, features: &val };
                let eval = EvalPass::record_cached(&model, &params, on_device, eval_batch, from, logits)?;
                let layer = model.steps()[steps - 1].name.clone();
                Ok::<_, TrainError>(Cache { layer, train, val, passes, eval })
            });
            let cache = cache.transpose()?;
            let groups: Vec<UpdateGroup> = plan.groups.iter().map(|g| UpdateGroup::new(g, &slots)).collect();
            let step = TrainStep::record(StepParts {
                model: &model,
                params: &params,
                images: &images,
                batch: config.batch,
                mean: &mean,
                std: &std,
                loss: &loss,
                groups: &groups,
                log: &log,
                weights: weights.as_ref(),
                augmentation: Augmentation {
                    images: config.augment.as_ref(),
                    repeats: config.augment_repeats.as_ref(),
                },
                options: StepOptions {
                    clip_grad_norm: config.clip_grad_norm,
                    accumulate: (config.accumulate > 1)
                        .then_some(Accumulate { batches: config.accumulate, sums: &sums }),
                    fixed_norms: Some(&plan.fixed_norms),
                    recompute: config.recompute,
                    features: cache.as_ref().map(|cache| FromFeatures { steps, features: &cache.train }),
                },
            })?;
            stages.push(Stage { plan, step, cache });
        }
        // Later stages too, so that one that does not fit the device says so before the first has run for hours.
        for stage in stages.iter().skip(1).rev() {
            stage.check(executor.as_mut())?;
        }
        let current = stages[0].compile(0, executor.as_mut())?;
        let mut evals = Vec::new();
        let mut hosts = Vec::new();
        for (name, host, on_device, logits) in others {
            let pass = EvalPass::record(&model, &params, &on_device, eval_batch, (&mean, &std), &logits)?;
            let program = pass.compile(executor.as_mut())?;
            evals.push((name, pass, program));
            hosts.push((name, host));
        }
        let metadata = describe(&config, &model, &data.classes)?;
        Ok(Self {
            config,
            model,
            classes,
            last_turn: None,
            params,
            store,
            executor,
            stages,
            current,
            slots,
            gradients: sum,
            evals,
            train,
            others: hosts,
            steps,
            content_hash: data.content_hash,
            metadata,
            profile: None,
            journal: Journal::default(),
            stop: None,
            every: None,
        })
    }
}

/// What a weight file says about itself, enough to use it without its run folder.
fn describe(config: &TrainConfig, model: &Model, classes: &[String]) -> Result<BTreeMap<String, String>, TrainError> {
    Ok(BTreeMap::from([
        ("radiograd.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("radiograd.model".to_owned(), model.network().to_string()),
        ("radiograd.size".to_owned(), config.size.to_string()),
        ("radiograd.channels".to_owned(), config.channels.to_string()),
        ("radiograd.classes".to_owned(), json(&classes)?),
        ("radiograd.mean".to_owned(), json(&config.mean)?),
        ("radiograd.std".to_owned(), json(&config.std)?),
    ]))
}
