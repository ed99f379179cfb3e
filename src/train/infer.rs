//! A trained network without its training: for `eval`, `predict` and `export`.

use std::collections::BTreeMap;
use std::path::Path;

use super::TrainError;
use super::checkpoint::{BEST, put_weights};
use super::config::TrainConfig;
use super::step::{DeviceImages, EvalPass, probabilities};
use crate::data::Images;
use crate::exec::{ExecError, Executor};
use crate::nn::Model;
use crate::shape::Spec;
use crate::store::{Param, ParamStore};
use crate::weights::{self, Grey, Matching, NamedTensor, Pair, Rename, TensorData, WeightsFile, adopt};

/// Images in a step, where the device has room for them.
const BATCH: usize = 64;

/// A network, its weights, and what its images must look like.
#[derive(Debug)]
pub struct Network {
    model: Model,
    file: WeightsFile,
    /// Class names, where the weights know them.
    pub classes: Vec<String>,
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
    /// What was matched to what.
    pub matching: Matching,
}

/// How a network that no run folder describes is to be set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Network: a name or a chain.
    pub model: String,
    /// Height and width of the images.
    pub size: usize,
    /// Channels of the images.
    pub channels: usize,
    /// Class names.
    pub classes: Vec<String>,
    /// Mean of each channel, or one for all.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, or one for all.
    pub std: Vec<f32>,
    /// Other names for the file's tensors.
    pub renames: Vec<Rename>,
    /// What weights of 3-channel images do with grey ones.
    pub grey: Option<Grey>,
}

impl Setup {
    fn network(&self) -> Result<Model, TrainError> {
        Ok(Model::new(&self.model, [self.channels, self.size, self.size], self.classes.len())?)
    }
}

impl Network {
    /// The best weights of a run folder.
    ///
    /// # Errors
    /// There is no finished run, or its files do not fit each other.
    pub fn of_run(folder: &Path) -> Result<(Self, TrainConfig), TrainError> {
        for missing in ["config.toml", BEST] {
            if !folder.join(missing).is_file() {
                return Err(TrainError::NoRun { path: folder.to_owned(), missing });
            }
        }
        let config = TrainConfig::read(&folder.join("config.toml"))?;
        let path = folder.join(BEST);
        let file = weights::load(&path)?;
        let classes = file
            .classes()
            .ok_or_else(|| TrainError::Checkpoint { path, problem: "does not name its classes".to_owned() })?;
        let setup = Setup {
            model: config.model.clone(),
            size: config.size,
            channels: config.channels,
            classes,
            mean: config.mean.clone().unwrap_or_else(|| vec![0.0]),
            std: config.std.clone().unwrap_or_else(|| vec![1.0]),
            renames: Vec::new(),
            grey: None,
        };
        Ok((Self::new(&setup, file)?, config))
    }

    /// A network of which only the weights are at hand.
    ///
    /// # Errors
    /// The weights do not fit the network.
    pub fn of_weights(setup: &Setup, path: &Path) -> Result<Self, TrainError> {
        let file = weights::load(path)?;
        let wanted = setup.network()?.params().iter().map(|p| (p.name.clone(), p.shape.to_vec())).collect::<Vec<_>>();
        let wrong = |e| TrainError::Adopt { path: path.to_owned(), source: Box::new(e) };
        Self::new(setup, adopt::prepare(file, &wanted, &setup.renames, setup.grey).map_err(wrong)?)
    }

    fn new(setup: &Setup, file: WeightsFile) -> Result<Self, TrainError> {
        let model = setup.network()?;
        let spread = |setting, v: &[f32]| match v.len() {
            1 => Ok(vec![v[0]; setup.channels]),
            n if n == setup.channels => Ok(v.to_vec()),
            n => Err(TrainError::setting(setting, format!("{n} values for {} channels", setup.channels))),
        };
        let (mean, std) = (spread("mean", &setup.mean)?, spread("std", &setup.std)?);
        if std.iter().any(|&s| !(s.is_finite() && s > 0.0)) || mean.iter().any(|m| !m.is_finite()) {
            return Err(TrainError::setting("std", "mean must be finite and std positive"));
        }
        let mut store = ParamStore::new();
        model.init(&mut store, 0);
        let matching = put_weights(&file, &mut store)?;
        Ok(Self { model, file, classes: setup.classes.clone(), mean, std, matching })
    }

    /// The network.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the weights say about themselves.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.file.metadata
    }

    /// The weights, in a store that [`Model::init`] has set up.
    ///
    /// # Errors
    /// None for a network that has been made: its weights fit.
    pub fn store(&self) -> Result<ParamStore, TrainError> {
        let mut store = ParamStore::new();
        self.model.init(&mut store, 0);
        put_weights(&self.file, &mut store)?;
        Ok(store)
    }

    /// The weights under the network's own names, and with them those of PyTorch's counters of steps that the file has.
    ///
    /// # Errors
    /// As [`Network::store`].
    pub fn tensors(&self) -> Result<Vec<NamedTensor>, TrainError> {
        let store = self.store()?;
        let tensor = |p: &Param| NamedTensor {
            name: p.name.clone(),
            shape: p.view.spec.shape.to_vec(),
            data: TensorData::F32(store.value(p).to_vec()),
        };
        let counter = |p: &Pair| {
            let norm = |name: &str| Some(format!("{}num_batches_tracked", name.strip_suffix("running_mean")?));
            let found = self.file.get(&norm(&p.file)?)?;
            Some(NamedTensor { name: norm(&p.model)?, ..found.clone() })
        };
        let counters = self.matching.pairs.iter().filter_map(counter);
        Ok(store.params().iter().map(tensor).chain(counters).collect())
    }

    /// Probabilities `[n, classes]` and logits `[n, outputs]` of images of the network's size.
    ///
    /// # Errors
    /// The device failed.
    pub fn predict(&self, executor: &mut dyn Executor, images: &Images) -> Result<(Vec<f64>, Vec<f32>), TrainError> {
        if images.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut store = self.store()?;
        let params = store.params().to_vec();
        let on_device = DeviceImages::add(&mut store, "images", images, executor.max_tensor_bytes());
        let spec = Spec::float([images.len(), self.model.outputs()]);
        let logits = store.add_var("logits", spec, None);
        executor.load(&store)?;
        let mut batch = BATCH;
        loop {
            let pass = EvalPass::record(&self.model, &params, &on_device, batch, (&self.mean, &self.std), &logits)?;
            match pass.compile(executor) {
                Ok(program) => {
                    let logits = pass.run(executor, program, images)?;
                    return Ok((probabilities(&logits, self.model.outputs()), logits));
                }
                // What the device has no room for at once it may take in smaller steps.
                Err(ExecError::TooLarge { .. } | ExecError::OutOfMemory(_)) if batch > 1 => batch /= 2,
                Err(e) => return Err(e.into()),
            }
        }
    }
}
