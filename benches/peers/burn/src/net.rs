//! A chain of layers, from Radiograd's text of networks (the layers that the workloads need).

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;
use peer_common::{Conv, conv_layer};

/// A layer; those with parameters say which.
#[derive(Clone, Copy, Debug)]
enum Layer {
    Conv(usize),
    Dense(usize),
    Relu,
    Pool,
    Flatten,
    Dropout,
}

#[derive(Module, Debug)]
pub struct Net {
    convs: Vec<Conv2d>,
    denses: Vec<Linear>,
    pool: MaxPool2d,
    dropout: Dropout,
    #[module(skip)]
    layers: Vec<Layer>,
}

impl Net {
    /// Reads `chain` for images of `input`: channels, height, width.
    pub fn new(chain: &str, input: [usize; 3], device: &Device) -> Result<Self, String> {
        let [mut c, mut h, mut w] = input;
        let (mut convs, mut denses, mut layers) = (Vec::new(), Vec::new(), Vec::new());
        for text in chain.split('-') {
            let bad = || format!("{chain}: cannot read the layer {text:?}");
            layers.push(match text {
                "relu" => Layer::Relu,
                "pool" => {
                    (h, w) = (h / 2, w / 2);
                    Layer::Pool
                }
                "flatten" => {
                    (c, h, w) = (c * h * w, 1, 1);
                    Layer::Flatten
                }
                "dropout" => Layer::Dropout,
                _ => {
                    if let Some(out) = text.strip_prefix("dense") {
                        let out = out.parse().map_err(|_| bad())?;
                        denses.push(LinearConfig::new(c, out).init(device));
                        c = out;
                        Layer::Dense(denses.len() - 1)
                    } else {
                        let Conv { out, kernel: k, padding: p } = conv_layer(text).ok_or_else(bad)?;
                        let padding = PaddingConfig2d::Explicit(p, p, p, p);
                        convs.push(Conv2dConfig::new([c, out], [k, k]).with_padding(padding).init(device));
                        (c, h, w) = (out, h + 2 * p + 1 - k, w + 2 * p + 1 - k);
                        Layer::Conv(convs.len() - 1)
                    }
                }
            });
        }
        let pool = MaxPool2dConfig::new([2, 2]).init();
        Ok(Self { convs, denses, pool, dropout: DropoutConfig::new(0.5).init(), layers })
    }

    /// Images `[N, C, H, W]` to logits `[N, classes]`.
    pub fn forward(&self, mut image: Tensor<4>) -> Tensor<2> {
        let mut row: Option<Tensor<2>> = None;
        for layer in &self.layers {
            match (*layer, row.take()) {
                (Layer::Conv(i), None) => image = self.convs[i].forward(image),
                (Layer::Relu, None) => image = relu(image),
                (Layer::Pool, None) => image = self.pool.forward(image),
                (Layer::Flatten, None) => row = Some(image.clone().flatten(1, 3)),
                (Layer::Dense(i), Some(x)) => row = Some(self.denses[i].forward(x)),
                (Layer::Relu, Some(x)) => row = Some(relu(x)),
                (Layer::Dropout, Some(x)) => row = Some(self.dropout.forward(x)),
                (layer, _) => panic!("{layer:?} is on the wrong side of flatten"),
            }
        }
        row.expect("the chain flattens")
    }
}
