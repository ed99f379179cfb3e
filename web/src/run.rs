//! A training that the page drives.

use radiograd::gpu;
use radiograd::nn::summary::Summary;
use radiograd::train::fit::{Inspection as Seen, LayerValues};
use radiograd::train::{Fit, Live, TrainConfig, TrainError};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::data::Data;
use crate::{Device, fail, json};

/// A network in training.
#[wasm_bindgen]
pub struct Run(pub(crate) Live);

/// What the page says of a network.
#[derive(Serialize)]
struct Network<'a> {
    /// The chain, also of a named network.
    chain: String,
    parameters: usize,
    steps_an_epoch: usize,
    config: &'a TrainConfig,
    summary: Summary,
}

/// The pipelines that a training will want and that were not told before. Each is written when it is asked for, as JSON.
#[wasm_bindgen]
pub struct Wishes {
    flops: u64,
    train: gpu::Wishes,
    inspect: gpu::Wishes,
}

#[wasm_bindgen]
impl Wishes {
    /// Operations of a pass forward over a batch.
    #[must_use]
    pub fn flops(&self) -> f64 {
        self.flops as f64
    }

    /// The next of its steps, and of the pass over the validation images.
    ///
    /// # Errors
    /// None.
    pub fn train(&mut self) -> Result<Option<String>, JsError> {
        self.train.next().map(|wish| json(&wish)).transpose()
    }

    /// The next of [`Run::inspect`].
    ///
    /// # Errors
    /// None.
    pub fn inspect(&mut self) -> Result<Option<String>, JsError> {
        self.inspect.next().map(|wish| json(&wish)).transpose()
    }
}

#[wasm_bindgen]
impl Run {
    /// What the browser may compile before [`Run::new`] is called with the same settings. Nothing is compiled here.
    ///
    /// # Errors
    /// As [`Run::new`].
    pub fn wishes(device: &Device, data: &Data, config: &str) -> Result<Wishes, JsError> {
        let config: TrainConfig = serde_json::from_str(config).map_err(fail)?;
        let ahead = &device.ahead;
        let look = || {
            let mut live = Live::new(Fit::new(&config, data.shared.clone(), device.executor())?)?;
            let train = ahead.take();
            live.prepare()?;
            let flops = Summary::new(live.fit().model(), config.batch)?.flops;
            Ok::<_, TrainError>(Wishes { flops, train, inspect: ahead.take() })
        };
        ahead.collect(true);
        let wishes = look();
        ahead.collect(false);
        wishes.map_err(fail)
    }

    /// Sets a training up; `config` has the settings of a run as JSON.
    ///
    /// # Errors
    /// Settings out of range, a network that does not fit the images, a device without room.
    #[wasm_bindgen(constructor)]
    pub fn new(device: &Device, data: &Data, config: &str) -> Result<Run, JsError> {
        let config: TrainConfig = serde_json::from_str(config).map_err(fail)?;
        let fit = Fit::new(&config, data.shared.clone(), device.executor()).map_err(fail)?;
        Ok(Self(Live::new(fit).map_err(fail)?))
    }

    /// Goes on where another training of the same settings and data stands, on whatever device that one ran.
    ///
    /// # Errors
    /// It is of other settings or data, or a device failed; `from` stays what it is.
    pub async fn take_over(&mut self, from: &mut Run) -> Result<(), JsError> {
        self.0.take_over(&mut from.0).await.map_err(fail)
    }

    /// The network and its settings as JSON.
    ///
    /// # Errors
    /// None.
    pub fn describe(&self) -> Result<String, JsError> {
        let (live, model) = (&self.0, self.0.fit().model());
        json(&Network {
            chain: model.network().to_string(),
            parameters: model.trainable_numel(),
            steps_an_epoch: live.steps_an_epoch(),
            config: live.config(),
            summary: Summary::new(model, 1).map_err(fail)?,
        })
    }

    /// Submits up to `count` steps of the epoch.
    ///
    /// # Errors
    /// The device failed.
    pub fn steps(&mut self, count: usize) -> Result<(), JsError> {
        for _ in 0..count {
            if self.0.epoch_is_full() || self.0.is_done() {
                break;
            }
            self.0.step().map_err(fail)?;
        }
        Ok(())
    }

    /// Steps done in all.
    #[must_use]
    pub fn done(&self) -> f64 {
        self.0.steps() as f64
    }

    /// Whether [`Run::end_epoch`] is next.
    #[must_use]
    pub fn epoch_is_full(&self) -> bool {
        self.0.epoch_is_full()
    }

    /// Whether all epochs are done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.is_done()
    }

    /// The learning rate of the coming step.
    #[must_use]
    pub fn lr(&self) -> f64 {
        self.0.lr()
    }

    /// Goes on with another learning rate to start from.
    ///
    /// # Errors
    /// It is negative or not a number.
    pub fn set_lr(&mut self, lr: f64) -> Result<(), JsError> {
        self.0.set_lr(lr).map_err(fail)
    }

    /// What is new in the log: four numbers a step, loss, right decisions, squared norm of the gradient, bad values.
    ///
    /// # Errors
    /// The training diverged, or the device failed.
    pub async fn look(&mut self) -> Result<Vec<f32>, JsError> {
        Ok(self.0.look().await.map_err(fail)?.into_flattened())
    }

    /// Ends a full epoch; its figures as JSON.
    ///
    /// # Errors
    /// As [`Run::look`].
    pub async fn end_epoch(&mut self) -> Result<String, JsError> {
        json(&self.0.end_epoch().await.map_err(fail)?)
    }

    /// How the network sees an image now.
    ///
    /// # Errors
    /// An image of another size, or a device that failed.
    pub async fn inspect(&mut self, image: Vec<u8>) -> Result<Inspection, JsError> {
        Ok(Inspection(self.0.inspect(&image).await.map_err(fail)?))
    }

    /// The weights as a safetensors file.
    ///
    /// # Errors
    /// The device failed.
    pub async fn weights(&mut self) -> Result<Vec<u8>, JsError> {
        self.0.weights().await.map_err(fail)
    }

    /// Goes on with the weights of a file.
    ///
    /// # Errors
    /// It belongs to another network.
    pub fn put_weights(&mut self, bytes: &[u8]) -> Result<(), JsError> {
        self.0.put_weights(bytes).map_err(fail)
    }
}

/// What a network makes of one image.
#[wasm_bindgen]
pub struct Inspection(Seen);

/// Where one layer's numbers are among those of all.
#[derive(Serialize)]
struct Part<'a> {
    name: &'a str,
    shape: &'a [usize],
    first: usize,
}

#[derive(Serialize)]
struct Parts<'a> {
    layers: Vec<Part<'a>>,
    kernels: Vec<Part<'a>>,
    probabilities: &'a [f64],
}

fn named<'a>(all: &'a [LayerValues], first: &[usize]) -> Vec<Part<'a>> {
    all.iter().zip(first).map(|(l, &first)| Part { name: &l.name, shape: &l.shape, first }).collect()
}

#[wasm_bindgen]
impl Inspection {
    /// Names and shapes, and where each begins in [`Inspection::values`], as JSON.
    ///
    /// # Errors
    /// None.
    pub fn parts(&self) -> Result<String, JsError> {
        let mut first = 0;
        let mut parts = |all: &'_ [LayerValues]| -> Vec<usize> {
            let place = |l: &LayerValues| {
                first += l.values.len();
                first - l.values.len()
            };
            all.iter().map(place).collect()
        };
        let (layers, kernels) = (parts(&self.0.layers), parts(&self.0.kernels));
        json(&Parts {
            layers: named(&self.0.layers, &layers),
            kernels: named(&self.0.kernels, &kernels),
            probabilities: &self.0.probabilities,
        })
    }

    /// All numbers, layer after layer, and then the kernels.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        self.0.layers.iter().chain(&self.0.kernels).flat_map(|l| l.values.iter().copied()).collect()
    }
}
