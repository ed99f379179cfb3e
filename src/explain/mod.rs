//! What a trained network makes of one image: everything that an explain page or the browser lab shows, as plain data.
//!
//! [`explain`] takes a model, its weights, an [`Executor`] and an image, and gives an [`Explanation`], which serialises to JSON. The
//! view of it is `report/templates/explain/view.js`. No files are read or written here, and nothing here knows a window, a page or
//! a command line.
//!
//! What is computed, and where it comes from:
//!
//! - Grad-CAM ([`cam`]): Selvaraju et al. 2017, arXiv 1610.02391; HiResCAM: Draelos and Carin 2020, arXiv 2011.08891.
//! - Saliency, `|d logit / d pixel|`: Simonyan, Vedaldi and Zisserman 2014, arXiv 1312.6034.
//! - Occlusion ([`occlusion`]): Zeiler and Fergus 2014, arXiv 1311.2901.
//! - The path of channels ([`path`]): gradient times activation, layer by layer; Shrikumar et al. 2016, arXiv 1605.01713.
//! - Receptive fields ([`field`]): Dumoulin and Visin 2016, arXiv 1603.07285.
//!
//! An explanation has a limit in bytes. Pictures are rounded to bytes with their range; numbers that a reader steps through
//! ([`stepped`]) are kept to the last bit. What does not fit is left out, and [`Explanation::notes`] says what.

pub mod area;
pub mod cam;
pub mod encode;
pub mod field;
mod fit;
pub mod histogram;
mod layers;
pub mod occlusion;
mod pass;
pub mod path;
pub mod shader;
pub mod stepped;
pub mod view;

use crate::exec::{ExecError, Executor};
use crate::nn::{Head, Model};
use crate::shape::ShapeError;
use crate::store::ParamStore;

use encode::{Bytes, Floats, Quantised};
use pass::{Gradients, Pass, Values};
pub use view::Explanation;
use view::{CamView, ImageView, ModelView, OcclusionView, SaliencyView};

/// Most classes for which maps are made: the target, the decision, and the next likely ones.
pub const MAX_CLASSES: usize = 3;

/// Length that an explanation keeps to, in bytes of JSON, unless told otherwise: a page of 5 MB with room for its scripts.
pub const DEFAULT_BYTES: usize = 4_500_000;

/// An explanation that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Recording.
    #[error("recording the network failed: {0}")]
    Shape(#[from] ShapeError),
    /// Running.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The image is not the network's.
    #[error("the image has {got} bytes, the network takes {} ({} x {} x {}, channel by channel)", size.iter().product::<usize>(), size[0], size[1], size[2])]
    Image {
        /// Channels, height and width that the network takes.
        size: [usize; 3],
        /// Bytes given.
        got: usize,
    },
    /// Mean, standard deviation or class names of another number than the network's.
    #[error("{what}: {got} given, the network needs {expected}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A class that there is not.
    #[error("class {class}: the network knows {classes} classes, counted from 0")]
    Class {
        /// The class asked for.
        class: usize,
        /// How many there are.
        classes: usize,
    },
    /// Weights that have diverged.
    #[error(
        "the network gives NaN or infinity for this image; its weights have diverged, so train it again or take others"
    )]
    NotFinite,
    /// The data could not be written as JSON.
    #[error("cannot write the explanation as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The network.
    pub model: &'a Model,
    /// Its weights: a store that [`Model::init`] has set up, and nothing else in it.
    pub store: &'a ParamStore,
    /// Class names, in order.
    pub classes: &'a [String],
    /// Mean of each channel, which is subtracted from `pixel / 255`.
    pub mean: &'a [f32],
    /// Standard deviation of each channel.
    pub std: &'a [f32],
    /// Name of the image, for the page.
    pub name: &'a str,
    /// The image as the network takes it: `channels * height * width` bytes, channel by channel.
    pub pixels: &'a [u8],
    /// The true class, where it is known: the loss, and its gradients.
    pub label: Option<usize>,
    /// The class whose logit is explained and stepped through; else the decision.
    pub target: Option<usize>,
    /// Most bytes of JSON.
    pub bytes: usize,
}

impl Request<'_> {
    /// Everything that the network needs is there.
    fn check(&self) -> Result<(), ExplainError> {
        let size = self.model.input();
        if self.pixels.len() != size.iter().product::<usize>() {
            return Err(ExplainError::Image { size, got: self.pixels.len() });
        }
        let counts = [
            ("mean", size[0], self.mean.len()),
            ("standard deviation", size[0], self.std.len()),
            ("class names", self.model.classes(), self.classes.len()),
        ];
        for (what, expected, got) in counts {
            if expected != got {
                return Err(ExplainError::Count { what, expected, got });
            }
        }
        let classes = self.model.classes();
        match self.label.iter().chain(&self.target).find(|&&class| class >= classes) {
            Some(&class) => Err(ExplainError::Class { class, classes }),
            None => Ok(()),
        }
    }

    /// The image as the network sees it: `(pixel / 255 - mean) / std`.
    fn normalised(&self) -> Vec<f32> {
        let [c, h, w] = self.model.input();
        let plane = h * w;
        let value = |(i, &p): (usize, &u8)| (f32::from(p) / 255.0 - self.mean[i / plane]) / self.std[i / plane];
        self.pixels[..c * plane].iter().enumerate().map(value).collect()
    }
}

/// Probabilities of the classes: softmax, or for one logit the sigmoid and its complement.
#[must_use]
pub fn probabilities(logits: &[f32], head: Head) -> Vec<f64> {
    match (head, logits) {
        (Head::Sigmoid, &[z]) => {
            let p = 1.0 / (1.0 + (-f64::from(z)).exp());
            vec![1.0 - p, p]
        }
        _ => {
            let max = logits.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(f64::from(v)));
            let exp: Vec<f64> = logits.iter().map(|&v| (f64::from(v) - max).exp()).collect();
            let sum: f64 = exp.iter().sum();
            exp.into_iter().map(|e| e / sum).collect()
        }
    }
}

/// The logit of a class, as a function of the network's outputs: a one at its output; for a sigmoid, 1 or -1.
fn seed(head: Head, outputs: usize, class: usize) -> Vec<f32> {
    match head {
        Head::Sigmoid => vec![if class == 1 { 1.0 } else { -1.0 }],
        Head::Softmax => (0..outputs).map(|o| if o == class { 1.0 } else { 0.0 }).collect(),
    }
}

/// The logit of a class: for a sigmoid, that of class 0 is the negative.
fn logit(head: Head, logits: &[f32], class: usize) -> f32 {
    seed(head, logits.len(), class).iter().zip(logits).map(|(s, z)| s * z).sum()
}

/// The derivative of the loss (cross-entropy, of one logit the binary one) by the logits: `p - [class = label]`.
fn loss_seed(head: Head, p: &[f64], label: usize) -> Vec<f32> {
    let d = |class: usize| (p[class] - f64::from(u8::from(class == label))) as f32;
    match head {
        Head::Sigmoid => vec![d(1)],
        Head::Softmax => (0..p.len()).map(d).collect(),
    }
}

/// The position of the largest value; the first of equal ones.
fn argmax(values: impl IntoIterator<Item = f64>) -> usize {
    let first = (0, f64::NEG_INFINITY);
    values.into_iter().enumerate().fold(first, |best, (i, v)| if v > best.1 { (i, v) } else { best }).0
}

/// What a Grad-CAM is made of: feature maps, and what a class asks of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Where.
    pub place: cam::Place,
    /// The feature maps, `[c, h, w]`.
    pub activations: Vec<f32>,
    /// The derivative of the class's logit by them.
    pub gradients: Vec<f32>,
}

impl Evidence {
    /// The Grad-CAM, `h * w` numbers.
    #[must_use]
    pub fn grad_cam(&self) -> Vec<f32> {
        cam::grad_cam(&self.activations, &self.gradients, self.place.shape)
    }

    /// The HiResCAM, `h * w` numbers.
    #[must_use]
    pub fn hires_cam(&self) -> Vec<f32> {
        cam::hires_cam(&self.activations, &self.gradients, self.place.shape)
    }
}

/// Feature maps and gradients of one class at each [`cam::places`], and nothing else of an explanation; with them the logits.
///
/// # Errors
/// As [`explain`].
pub fn evidence(
    executor: &mut dyn Executor,
    request: &Request<'_>,
    class: usize,
) -> Result<(Vec<f32>, Vec<Evidence>), ExplainError> {
    request.check()?;
    let (model, classes) = (request.model, request.model.classes());
    if class >= classes {
        return Err(ExplainError::Class { class, classes });
    }
    executor.load(request.store)?;
    let pass = Pass::record(model, request.store.params())?.compile(executor)?;
    let x = request.normalised();
    let mut values = pass.forward(executor, &x)?;
    let mut gradients = pass.backward(executor, &x, &seed(model.head(), model.outputs(), class))?;
    let of = |place: cam::Place| Evidence {
        activations: std::mem::take(&mut values.steps[place.step]),
        gradients: std::mem::take(&mut gradients.steps[place.step]),
        place,
    };
    Ok((std::mem::take(&mut values.logits), cam::places(model).into_iter().map(of).collect()))
}

/// Runs the network forwards and backwards on one image and puts together what there is to see. Takes over the executor: what it
/// held is dropped.
///
/// # Errors
/// [`ExplainError`]: a request that does not fit the network, weights that have diverged, a device that failed.
pub fn explain(executor: &mut dyn Executor, request: &Request<'_>) -> Result<Explanation, ExplainError> {
    request.check()?;
    let (model, head) = (request.model, request.model.head());
    executor.load(request.store)?;
    let pass = Pass::record(model, request.store.params())?.compile(executor)?;
    let x = request.normalised();
    let values: Values = pass.forward(executor, &x)?;
    if values.all().any(|v| v.iter().any(|v| !v.is_finite())) {
        return Err(ExplainError::NotFinite);
    }
    let p = probabilities(&values.logits, head);
    let decision = argmax(p.iter().copied());
    let target = request.target.unwrap_or(decision);
    let outputs = values.logits.len();

    let classes = shown_classes(&p, target, decision);
    let places = cam::places(model);
    let (mut cams, mut saliency) = (Vec::new(), Vec::new());
    let mut of_target: Option<Gradients> = None;
    for &class in &classes {
        let gradients = pass.backward(executor, &x, &seed(head, outputs, class))?;
        if gradients.all().any(|v| v.iter().any(|v| !v.is_finite())) {
            return Err(ExplainError::NotFinite);
        }
        for place in &places {
            let [_, height, width] = place.shape;
            let (a, g) = (&values.steps[place.step], &gradients.steps[place.step]);
            let hires = Floats(cam::hires_cam(a, g, place.shape));
            let values = Floats(cam::grad_cam(a, g, place.shape));
            cams.push(CamView { layer: place.step, class, height, width, shrunk: 1, values, hires });
        }
        let map = cam::saliency(&gradients.image, request.std, model.input());
        saliency.push(SaliencyView { class, shrunk: 1, map: Quantised::of(&map) });
        if class == target {
            of_target = Some(gradients);
        }
    }
    let of_target = of_target.ok_or(ExplainError::NotFinite)?;
    let of_loss = match request.label {
        Some(label) => Some(pass.backward(executor, &x, &loss_seed(head, &p, label))?),
        None => None,
    };

    let walks = path::walk(executor, request, &places, &x, &classes, |class| seed(head, outputs, class))?;
    let occluded = occlusion::run(executor, request, &x)?;
    let occlusion = OcclusionView::new(&occluded, &classes, |z, class| {
        (logit(head, z, class) - logit(head, &values.logits, class), probabilities(z, head)[class] - p[class])
    });

    let [channels, height, width] = model.input();
    let whole = Explanation {
        version: view::VERSION,
        model: ModelView::new(model, request.classes)?,
        device: executor.describe(),
        image: ImageView {
            name: request.name.to_owned(),
            channels,
            height,
            width,
            mean: request.mean.to_vec(),
            std: request.std.to_vec(),
            pixels: Bytes(request.pixels.to_vec()),
        },
        label: request.label,
        target,
        decision,
        classes,
        logits: values.logits.clone(),
        loss: request.label.map(|label| -p[label].max(f64::MIN_POSITIVE).ln()),
        probabilities: p,
        layers: Vec::new(),
        cam_layer: places.last().map(|place| place.step),
        by_place: cam::by_place(model),
        cams,
        saliency,
        occlusion,
        paths: walks,
        shader: shader::page(),
        notes: Vec::new(),
    };
    let material = layers::Material { request, values: &values, target: &of_target, loss: of_loss.as_ref(), x: &x };
    fit::fit(whole, &material)
}

/// The target, the decision, and the likeliest others, in the order of the classes.
fn shown_classes(p: &[f64], target: usize, decision: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let rank = |class: &usize| usize::from(*class != target) + usize::from(*class != target && *class != decision);
    order.sort_by_key(rank);
    order.truncate(MAX_CLASSES);
    order.sort_unstable();
    order
}
