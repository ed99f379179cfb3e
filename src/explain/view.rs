//! The plain data of an explanation, as the scripts in `report/templates/explain` read it.
//!
//! Layers are counted from 0, in the order in which they run; channels, rows and columns too. Numbers of one image have no batch axis.

use serde::Serialize;

use super::ExplainError;
use super::encode::{Bytes, Floats, Quantised};
use super::field::FieldView;
use super::histogram::Histogram;
use super::occlusion::Occluded;
use super::path::PathView;
use super::shader::ShaderView;
use super::stepped::Stepped;
use crate::nn::summary::Summary;
use crate::nn::{Head, Model};

/// Changes where the view must change with it.
pub const VERSION: u32 = 3;

/// Everything about one image in one network.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// [`VERSION`].
    pub version: u32,
    /// The network.
    pub model: ModelView,
    /// What computed it.
    pub device: String,
    /// The image.
    pub image: ImageView,
    /// The true class, where it is known.
    pub label: Option<usize>,
    /// The class whose logit the gradients of the layers are of.
    pub target: usize,
    /// The likeliest class.
    pub decision: usize,
    /// The classes for which there are maps.
    pub classes: Vec<usize>,
    /// The network's outputs.
    pub logits: Vec<f32>,
    /// Of each class.
    pub probabilities: Vec<f64>,
    /// Cross-entropy against the label: `-ln p`.
    pub loss: Option<f64>,
    /// In the order in which they run.
    pub layers: Vec<LayerView>,
    /// The layer whose Grad-CAM is shown first.
    pub cam_layer: Option<usize>,
    /// Whether dense layers weigh the places of the last maps by themselves, which Grad-CAM's means cannot show.
    pub by_place: bool,
    /// Grad-CAM of each class at each convolution.
    pub cams: Vec<CamView>,
    /// `|d logit / d pixel|`, for grey levels 0 to 255.
    pub saliency: Vec<SaliencyView>,
    /// What covering parts of the image does.
    pub occlusion: OcclusionView,
    /// The strongest channels of each class.
    pub paths: Vec<PathView>,
    /// The page that is stepped through.
    pub shader: ShaderView,
    /// What was rounded, shrunk or left out.
    pub notes: Vec<String>,
}

/// The network.
#[derive(Clone, Debug, Serialize)]
pub struct ModelView {
    /// As it was asked for.
    pub text: String,
    /// The chain of layers that it stands for.
    pub chain: String,
    /// Channels, height and width.
    pub input: [usize; 3],
    /// Class names.
    pub classes: Vec<String>,
    /// `softmax`, or `sigmoid` for one logit.
    pub head: &'static str,
    /// Trainable numbers.
    pub parameters: usize,
    /// Operations for one image.
    pub flops: u64,
}

impl ModelView {
    pub(super) fn new(model: &Model, classes: &[String]) -> Result<Self, ExplainError> {
        let summary = Summary::new(model, 1)?;
        Ok(Self {
            text: model.text().to_owned(),
            chain: summary.chain,
            input: model.input(),
            classes: classes.to_vec(),
            head: match model.head() {
                Head::Softmax => "softmax",
                Head::Sigmoid => "sigmoid",
            },
            parameters: summary.parameters,
            flops: summary.flops,
        })
    }
}

/// The image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageView {
    /// Its name.
    pub name: String,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
    /// As the network takes it, channel by channel.
    pub pixels: Bytes,
}

/// A layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerView {
    /// Its name.
    pub name: String,
    /// `conv`, `relu`, `pool`, `add`, ...
    pub kind: &'static str,
    /// As written in a chain.
    pub text: String,
    /// The layers that it reads; `None` is the image.
    pub inputs: Vec<Option<usize>>,
    /// `[channels, height, width]` or `[features]`.
    pub output: Vec<usize>,
    /// Trainable numbers.
    pub parameters: usize,
    /// Running statistics.
    pub buffers: usize,
    /// Operations for one image.
    pub flops: u64,
    /// What one output pixel sees; `None`: the whole image.
    pub field: Option<FieldView>,
    /// Its output, spread out.
    pub activations: Histogram,
    /// The derivatives of the target's logit by its output.
    pub gradients: Histogram,
    /// Those of the loss, where the label is known.
    pub loss_gradients: Option<Histogram>,
    /// Its feature maps; of images.
    pub maps: Option<MapsView>,
    /// Its output where that is a list of numbers, the first of them.
    pub values: Option<Floats>,
    /// Units of a ReLU that give 0.
    pub silent: Option<SilentView>,
    /// Its weights.
    pub params: Vec<ParamView>,
    /// The kernels of a convolution.
    pub filters: Option<FiltersView>,
    /// What steps through a convolution need.
    pub stepped: Option<Stepped>,
    /// Which pixel of each window won, of a max-pool.
    pub winners: Option<WinnersView>,
}

/// Feature maps as bytes, each over its own range.
#[derive(Clone, Debug, Serialize)]
pub struct MapsView {
    /// Rows of a map.
    pub height: usize,
    /// Columns of a map.
    pub width: usize,
    /// Each shown pixel is the mean of a square of so many.
    pub shrunk: usize,
    /// Which channels are shown.
    pub channels: Vec<usize>,
    /// What byte 0 stands for, of each.
    pub low: Vec<f32>,
    /// What byte 255 stands for.
    pub high: Vec<f32>,
    /// Map after map.
    pub data: Bytes,
}

/// Units that give 0 on this image.
#[derive(Clone, Debug, Serialize)]
pub struct SilentView {
    /// Channels, or numbers.
    pub of: usize,
    /// How many are 0 everywhere.
    pub count: usize,
    /// The first of them.
    pub units: Vec<usize>,
}

/// A tensor of weights.
#[derive(Clone, Debug, Serialize)]
pub struct ParamView {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Histogram,
    /// The derivatives of the target's logit by it.
    pub gradients: Option<Histogram>,
}

/// Kernels as bytes, over one range that has 0 in its middle.
#[derive(Clone, Debug, Serialize)]
pub struct FiltersView {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Which output channels are shown.
    pub outputs: Vec<usize>,
    /// Which inputs, counted inside the group.
    pub inputs: Vec<usize>,
    /// Kernel after kernel: for each output, each input.
    pub weights: Quantised,
}

/// Which pixel of each window was the largest.
#[derive(Clone, Debug, Serialize)]
pub struct WinnersView {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Its step.
    pub stride: [usize; 2],
    /// Rim around the image.
    pub padding: [usize; 2],
    /// Which channels are shown.
    pub channels: Vec<usize>,
    /// For each window its winner: row in the window times the window's width plus column; map after map.
    pub data: Bytes,
}

/// A Grad-CAM map.
#[derive(Clone, Debug, Serialize)]
pub struct CamView {
    /// At which layer.
    pub layer: usize,
    /// Of which class.
    pub class: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Each pixel is the mean of a square of so many of the layer's; of 1, the executor's numbers themselves.
    pub shrunk: usize,
    /// Grad-CAM, row by row, none below 0.
    pub values: Floats,
    /// HiResCAM, likewise.
    pub hires: Floats,
}

/// A saliency map.
#[derive(Clone, Debug, Serialize)]
pub struct SaliencyView {
    /// Of which class.
    pub class: usize,
    /// Each pixel is the mean of a square of so many of the image's.
    pub shrunk: usize,
    /// Row by row.
    pub map: Quantised,
}

/// What covering parts of the image does.
#[derive(Clone, Debug, Serialize)]
pub struct OcclusionView {
    /// Size of the square.
    pub patch: [usize; 2],
    /// Its step.
    pub stride: [usize; 2],
    /// Places along each axis.
    pub places: [usize; 2],
    /// What it was covered with, normalised.
    pub fill: Vec<f32>,
    /// For each class.
    pub classes: Vec<OccludedClass>,
}

/// What covering does to one class, place by place.
#[derive(Clone, Debug, Serialize)]
pub struct OccludedClass {
    /// The class.
    pub class: usize,
    /// By how much its logit changes.
    pub logit: Floats,
    /// By how much its probability changes.
    pub probability: Floats,
}

impl OcclusionView {
    /// `change` gives the change of logit and probability of a class for the outputs at a place.
    pub(super) fn new(occluded: &Occluded, classes: &[usize], change: impl Fn(&[f32], usize) -> (f32, f64)) -> Self {
        let of = |&class: &usize| {
            let (logit, p): (Vec<f32>, Vec<f64>) = occluded.logits.iter().map(|z| change(z, class)).unzip();
            let probability = p.into_iter().map(|p| p as f32).collect();
            OccludedClass { class, logit: Floats(logit), probability: Floats(probability) }
        };
        Self {
            patch: occluded.grid.patch,
            stride: occluded.grid.stride,
            places: occluded.grid.places,
            fill: occluded.fill.clone(),
            classes: classes.iter().map(of).collect(),
        }
    }
}
