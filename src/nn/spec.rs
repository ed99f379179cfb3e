//! A network as written: a chain of layers, some of them chains in brackets.
//!
//! [`Network`]'s `Display` writes the text that [`super::parse`] reads; reading it back gives the same value.
//! Padding is always resolved here, so a chain means the same wherever it is stored.

use std::fmt;

use super::init::FanMode;
use crate::ops::conv2d::Conv2d;
use crate::ops::pool2d::Pool2d;

/// A chain of layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// From the image to the logits.
    pub layers: Vec<Layer>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// `conv16k3x5s2p1d1g4nb`: 2-d convolution.
    Conv {
        /// Output channels.
        out: usize,
        /// Kernel height and width.
        kernel: [usize; 2],
        /// Stride, padding, dilation, groups.
        conv: Conv2d,
        /// Whether a bias is added.
        bias: bool,
    },
    /// `pool2`, `avgpool3s2p1`: the maximum or mean of each window.
    Pool {
        /// Maximum or mean.
        kind: PoolKind,
        /// Its window.
        window: Pool2d,
    },
    /// `gap`, `adaptive7x7`: means over as many windows as the output has pixels.
    AdaptiveAvgPool {
        /// Output height and width.
        out: [usize; 2],
    },
    /// `bn`: batch normalisation of each channel, eps 1e-5, momentum 0.1.
    BatchNorm,
    /// `relu`, `lrelu0.01`, ...
    Activation(Activation),
    /// `dropout0.5`: zeroes with this probability while training.
    Dropout {
        /// Probability of zeroing, in `[0, 1)`.
        p: f64,
    },
    /// `flatten`: `[N, C, H, W] -> [N, C H W]`.
    Flatten,
    /// `dense64`: a linear layer.
    Dense {
        /// Outputs.
        out: usize,
        /// Whether a bias is added, and how it begins.
        bias: Bias,
    },
    /// `initin`, `initout`: the weights of the convolutions that follow begin as He et al.'s normal values, by their inputs or
    /// by their outputs, as DenseNets and ResNets do. Computes nothing.
    Init(FanMode),
    /// `fc=dense2`, `layer1.0=3x[...]+`: names the layer, or what is in the brackets.
    Named {
        /// The name; dots make levels.
        name: String,
        /// What has it.
        layer: Box<Layer>,
    },
    /// `3x[conv8-relu]+`: a chain in brackets.
    Block(Block),
}

/// A chain in brackets.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// How many of it follow each other, each with parameters of its own.
    pub times: usize,
    /// The chain.
    pub body: Vec<Layer>,
    /// What becomes of the input of the chain.
    pub join: Join,
}

/// What becomes of the input `x` of a chain in brackets that gives `f(x)`.
#[derive(Clone, Debug, PartialEq)]
pub enum Join {
    /// `[...]`: nothing, the result is `f(x)`.
    Chain,
    /// `[...]+`, `[...]+[conv16k1s2-bn]`: it is added, `x + f(x)`, or what a second chain makes of it. (He et al. 2016)
    Add {
        /// The second chain; empty: x itself.
        shortcut: Vec<Layer>,
    },
    /// `[...]++`: it stays in front, the channels of x and then those of `f(x)`. (Huang et al. 2017)
    Concat,
}

/// The bias of a dense layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// `nb`: none.
    No,
    /// Begins with PyTorch's default.
    Drawn,
    /// `zb`: begins as zeros.
    Zeros,
}

/// What a pool takes of each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest value.
    Max,
    /// The mean, padding counted in.
    Avg,
}

/// A function of each element (`Softmax`: of each pixel's channels, or of each row).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x` above 0, else `slope * x`.
    LeakyRelu {
        /// Slope below 0.
        slope: f64,
    },
    /// `x` above 0, else `alpha * (exp(x) - 1)`.
    Elu {
        /// Negated limit at minus infinity.
        alpha: f64,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `exp(x_c) / sum over c of exp(x_c)`, over axis 1.
    Softmax,
}

/// Slope of `lrelu`, as PyTorch's.
pub const DEFAULT_SLOPE: f64 = 0.01;
/// Alpha of `elu`, as PyTorch's.
pub const DEFAULT_ALPHA: f64 = 1.0;
/// Probability of `dropout`, as PyTorch's.
pub const DEFAULT_DROPOUT: f64 = 0.5;

/// Padding of a convolution that names none: `dilation * (kernel - 1) / 2`, which at stride 1 keeps the size for odd
/// kernels; rounded down for even ones, so that `k2s2` needs none and `k4s2` halves the size.
#[must_use]
pub fn same_padding(kernel: [usize; 2], dilation: [usize; 2]) -> [usize; 2] {
    [0, 1].map(|i| dilation[i] * (kernel[i].saturating_sub(1)) / 2)
}

impl Layer {
    /// Its kind, from which scopes and parameters get their names: `conv` of `conv1.weight`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conv { .. } => "conv",
            Self::Pool { kind: PoolKind::Max, .. } => "pool",
            Self::Pool { kind: PoolKind::Avg, .. } => "avgpool",
            Self::AdaptiveAvgPool { out: [1, 1] } => "gap",
            Self::AdaptiveAvgPool { .. } => "adaptive",
            Self::BatchNorm => "bn",
            Self::Activation(a) => a.kind(),
            Self::Dropout { .. } => "dropout",
            Self::Flatten => "flatten",
            Self::Dense { .. } => "dense",
            Self::Init(FanMode::FanIn) => "initin",
            Self::Init(FanMode::FanOut) => "initout",
            Self::Named { layer, .. } => layer.kind(),
            Self::Block(_) => "block",
        }
    }

    /// The number of layers that it stands for, brackets repeated; a join counts as one.
    #[must_use]
    pub fn count(&self) -> usize {
        let sum = |layers: &[Self]| layers.iter().map(Self::count).fold(0, usize::saturating_add);
        match self {
            Self::Named { layer, .. } => layer.count(),
            Self::Block(Block { times, body, join }) => {
                let shortcut = if let Join::Add { shortcut } = join { sum(shortcut) } else { 0 };
                times.saturating_mul(sum(body).saturating_add(shortcut).saturating_add(1))
            }
            _ => 1,
        }
    }
}

impl Activation {
    /// Its name in a chain.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::LeakyRelu { .. } => "lrelu",
            Self::Elu { .. } => "elu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Softmax => "softmax",
        }
    }
}

/// `3` or `3x5`.
pub(super) struct Pair(pub [usize; 2]);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [a, b] if a == b => write!(f, "{a}"),
            [a, b] => write!(f, "{a}x{b}"),
        }
    }
}

/// Writes an option unless it has its default.
fn option(f: &mut fmt::Formatter<'_>, key: &str, value: [usize; 2], default: [usize; 2]) -> fmt::Result {
    if value == default { Ok(()) } else { write!(f, "{key}{}", Pair(value)) }
}

fn number(f: &mut fmt::Formatter<'_>, value: f64, default: f64) -> fmt::Result {
    if value == default { Ok(()) } else { write!(f, "{value}") }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { name, layer } => return write!(f, "{name}={layer}"),
            Self::Block(block) => return block.fmt(f),
            _ => f.write_str(self.kind())?,
        }
        let no_bias = |bias: &bool| if *bias { "" } else { "nb" };
        match self {
            Self::Conv { out, kernel, conv, bias } => {
                write!(f, "{out}")?;
                option(f, "k", *kernel, [3, 3])?;
                option(f, "s", conv.stride, [1, 1])?;
                let same = same_padding(*kernel, conv.dilation);
                option(f, "p", conv.padding, same)?;
                option(f, "d", conv.dilation, [1, 1])?;
                option(f, "g", [conv.groups; 2], [1, 1])?;
                f.write_str(no_bias(bias))
            }
            Self::Pool { window, .. } => {
                option(f, "", window.kernel, [2, 2])?;
                option(f, "s", window.stride, window.kernel)?;
                option(f, "p", window.padding, [0, 0])
            }
            Self::AdaptiveAvgPool { out: [1, 1] } => Ok(()),
            Self::AdaptiveAvgPool { out: [h, w] } => write!(f, "{h}x{w}"),
            Self::Activation(Activation::LeakyRelu { slope }) => number(f, *slope, DEFAULT_SLOPE),
            Self::Activation(Activation::Elu { alpha }) => number(f, *alpha, DEFAULT_ALPHA),
            Self::Dropout { p } => number(f, *p, DEFAULT_DROPOUT),
            Self::Dense { out, bias: Bias::No } => write!(f, "{out}nb"),
            Self::Dense { out, bias: Bias::Drawn } => write!(f, "{out}"),
            Self::Dense { out, bias: Bias::Zeros } => write!(f, "{out}zb"),
            _ => Ok(()),
        }
    }
}

/// Layers joined by dashes.
fn chain(f: &mut fmt::Formatter<'_>, layers: &[Layer]) -> fmt::Result {
    for (i, layer) in layers.iter().enumerate() {
        write!(f, "{}{layer}", if i > 0 { "-" } else { "" })?;
    }
    Ok(())
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.times > 1 {
            write!(f, "{}x", self.times)?;
        }
        f.write_str("[")?;
        chain(f, &self.body)?;
        match &self.join {
            Join::Chain => f.write_str("]"),
            Join::Concat => f.write_str("]++"),
            Join::Add { shortcut } if shortcut.is_empty() => f.write_str("]+"),
            Join::Add { shortcut } => {
                f.write_str("]+[")?;
                chain(f, shortcut)?;
                f.write_str("]")
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain(f, &self.layers)
    }
}
