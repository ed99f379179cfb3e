//! Reading a network text.
//!
//! A text is the name of a network (see [`super::named`]) or layers joined by `-`. `{}` is a number, `[]` may be left
//! out, options come in any order, and a size `{}` of a window may be `{height}x{width}`:
//!
//! | layer | meaning | left out |
//! |---|---|---|
//! | `conv{out}[k{}][s{}][p{}][d{}][g{}][nb]` | convolution: kernel, stride, padding, dilation, groups, no bias | k3, s1, d1, g1, p keeps the size of odd kernels |
//! | `pool[{}][s{}][p{}]` or `maxpool...`, `avgpool...` | maximum or mean of windows: size, stride, padding | 2, stride = size, p0 |
//! | `gap`, `adaptive{H}x{W}` | mean over the whole plane, or over H x W windows | |
//! | `bn` | batch normalisation | |
//! | `relu`, `lrelu[{slope}]`, `elu[{alpha}]`, `sigmoid`, `tanh`, `softmax` | activations | slope 0.01, alpha 1 |
//! | `dropout[{p}]` | dropout | 0.5 |
//! | `flatten`, `dense{out}[nb][zb]` | rows out of images, a linear layer; no bias, a bias that begins at zero | |
//! | `initin`, `initout` | normal first weights for the convolutions that follow, by fan-in or fan-out (He et al. 2015) | PyTorch's default |
//!
//! Brackets make blocks, and `NAME=` names layers and blocks; see [`super::brackets`].

use std::ops::RangeInclusive;

use super::error::{LayerError, ModelError, nearest, shown};
use super::init::FanMode;
use super::spec::{
    Activation, Bias, DEFAULT_ALPHA, DEFAULT_DROPOUT, DEFAULT_SLOPE, Layer, Network, PoolKind, same_padding,
};
use super::{brackets, named};
use crate::ops::conv2d::Conv2d;
use crate::ops::pool2d::Pool2d;

/// Most layers of a chain, brackets repeated.
pub const MAX_LAYERS: usize = 1000;
/// Most channels of a convolution and most outputs of a dense layer.
pub const MAX_WIDTH: usize = 65_536;
/// Largest kernel, stride, padding and dilation.
pub const MAX_REACH: usize = 1024;
/// Largest slope of `lrelu` and alpha of `elu`.
const MAX_SLOPE: f64 = 1000.0;

/// How a layer begins, and its grammar. No kind is the beginning of another.
const KINDS: [(&str, &str); 18] = [
    ("conv", "conv{out}[k{}][s{}][p{}][d{}][g{}][nb]"),
    ("pool", "pool[{}][s{}][p{}]"),
    ("maxpool", "maxpool[{}][s{}][p{}]"),
    ("avgpool", "avgpool[{}][s{}][p{}]"),
    ("gap", "gap"),
    ("adaptive", "adaptive{H}x{W}"),
    ("bn", "bn"),
    ("relu", "relu"),
    ("lrelu", "lrelu[{slope}]"),
    ("elu", "elu[{alpha}]"),
    ("sigmoid", "sigmoid"),
    ("tanh", "tanh"),
    ("softmax", "softmax"),
    ("dropout", "dropout[{p}]"),
    ("flatten", "flatten"),
    ("dense", "dense{out}[nb][zb]"),
    ("initin", "initin"),
    ("initout", "initout"),
];

/// All kinds of layers, for messages.
pub(super) fn kinds() -> String {
    KINDS.map(|k| k.0).join(", ")
}

impl Network {
    /// Reads a name or a chain. The named networks end with `classes` outputs; a chain says its own.
    ///
    /// # Errors
    /// [`ModelError::Empty`], [`ModelError::Unknown`], [`ModelError::TooManyLayers`], or [`ModelError::Layer`] with the
    /// layer's position and text. Shapes are not looked at: see [`super::Model::new`].
    pub fn parse(text: &str, classes: usize) -> Result<Self, ModelError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ModelError::Empty);
        }
        if let Some(chain) = named::chain(text, classes) {
            return Ok(Self { layers: brackets::chain(&chain)? });
        }
        let count = text.split('-').count();
        if count > MAX_LAYERS {
            return Err(ModelError::TooManyLayers { count });
        }
        if count == 1 && !text.contains(['[', ']', '=']) {
            return single(text);
        }
        let layers = brackets::chain(text)?;
        let count = layers.iter().map(Layer::count).fold(0, usize::saturating_add);
        if count > MAX_LAYERS {
            return Err(ModelError::TooManyLayers { count });
        }
        Ok(Self { layers })
    }
}

/// One word: a layer if it looks like one, else a misspelt network.
fn single(text: &str) -> Result<Network, ModelError> {
    let lower = text.to_ascii_lowercase();
    let letters = leading_letters(&lower);
    match layer(text) {
        Ok(layer) => Ok(Network { layers: vec![layer] }),
        Err(problem) if KINDS.iter().any(|k| k.0 == letters) => {
            Err(ModelError::Layer { place: "1".to_owned(), text: shown(text), problem: Box::new(problem) })
        }
        Err(_) => Err(ModelError::Unknown {
            name: shown(text),
            nearest: nearest(&lower, named::NAMES).or_else(|| nearest_kind(letters)),
        }),
    }
}

fn leading_letters(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphabetic());
    &text[..end.unwrap_or(text.len())]
}

fn nearest_kind(word: &str) -> Option<&'static str> {
    nearest(word, KINDS.map(|k| k.0))
}

/// Reads one layer.
///
/// # Errors
/// What is wrong with it.
pub fn layer(text: &str) -> Result<Layer, LayerError> {
    let lower = text.trim().to_ascii_lowercase();
    if lower.is_empty() {
        return Err(LayerError::Empty);
    }
    let found = KINDS.iter().find_map(|(kind, form)| lower.strip_prefix(kind).map(|rest| (*kind, *form, rest)));
    let Some((kind, form, rest)) = found else {
        return Err(LayerError::Unknown { nearest: nearest_kind(leading_letters(&lower)) });
    };
    let mut cursor = Cursor { rest, form };
    let layer = match kind {
        "conv" => cursor.conv()?,
        "pool" | "maxpool" => cursor.pool(PoolKind::Max)?,
        "avgpool" => cursor.pool(PoolKind::Avg)?,
        "gap" => Layer::AdaptiveAvgPool { out: [1, 1] },
        "adaptive" => Layer::AdaptiveAvgPool {
            out: cursor.pair("the output size", 1..=MAX_REACH)?.ok_or(cursor.missing("the output size"))?,
        },
        "bn" => Layer::BatchNorm,
        "relu" => Layer::Activation(Activation::Relu),
        "lrelu" => Layer::Activation(Activation::LeakyRelu {
            slope: cursor.fraction("the slope", "0 to 1000", |v| v <= MAX_SLOPE)?.unwrap_or(DEFAULT_SLOPE),
        }),
        "elu" => Layer::Activation(Activation::Elu {
            alpha: cursor.fraction("alpha", "0 to 1000", |v| v <= MAX_SLOPE)?.unwrap_or(DEFAULT_ALPHA),
        }),
        "sigmoid" => Layer::Activation(Activation::Sigmoid),
        "tanh" => Layer::Activation(Activation::Tanh),
        "softmax" => Layer::Activation(Activation::Softmax),
        "dropout" => Layer::Dropout {
            p: cursor.fraction("the probability", "at least 0 and below 1", |v| v < 1.0)?.unwrap_or(DEFAULT_DROPOUT),
        },
        "flatten" => Layer::Flatten,
        "initin" => Layer::Init(FanMode::FanIn),
        "initout" => Layer::Init(FanMode::FanOut),
        _ => cursor.dense()?,
    };
    cursor.end()?;
    Ok(layer)
}

/// What is left of a layer's text.
struct Cursor<'a> {
    rest: &'a str,
    form: &'static str,
}

impl<'a> Cursor<'a> {
    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn missing(&self, what: &'static str) -> LayerError {
        LayerError::Missing { what, form: self.form }
    }

    fn syntax(&self) -> LayerError {
        LayerError::Syntax { rest: shown(self.rest), form: self.form }
    }

    fn end(&self) -> Result<(), LayerError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.syntax()) }
    }

    /// A whole number, if one comes next.
    fn whole(&mut self, what: &'static str, range: RangeInclusive<usize>) -> Result<Option<usize>, LayerError> {
        let digits = self.take_while(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return Ok(None);
        }
        // A number that does not fit a usize is out of every range.
        match digits.parse::<usize>() {
            Ok(value) if range.contains(&value) => Ok(Some(value)),
            _ => Err(LayerError::Range {
                what,
                value: shown(digits),
                range: format!("{} to {}", range.start(), range.end()),
            }),
        }
    }

    /// `3` or `3x5`, if a number comes next.
    fn pair(&mut self, what: &'static str, range: RangeInclusive<usize>) -> Result<Option<[usize; 2]>, LayerError> {
        let Some(height) = self.whole(what, range.clone())? else {
            return Ok(None);
        };
        let Some(rest) = self.rest.strip_prefix('x') else {
            return Ok(Some([height; 2]));
        };
        self.rest = rest;
        let width = self.whole(what, range)?.ok_or_else(|| self.missing(what))?;
        Ok(Some([height, width]))
    }

    /// A decimal number, if one comes next.
    fn fraction(
        &mut self,
        what: &'static str,
        range: &str,
        ok: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, LayerError> {
        let start = self.rest;
        let digits = self.take_while(|c| c.is_ascii_digit() || c == '.');
        if digits.is_empty() {
            return Ok(None);
        }
        match digits.parse::<f64>() {
            Ok(value) if value >= 0.0 && ok(value) => Ok(Some(value)),
            Ok(_) => Err(LayerError::Range { what, value: shown(digits), range: range.to_owned() }),
            Err(_) => {
                self.rest = start;
                Err(self.syntax())
            }
        }
    }

    /// The options up to the end: `k3s2nb`. `allowed` says which letters there are.
    fn options(&mut self, allowed: &str) -> Result<Options, LayerError> {
        let mut options = Options::default();
        while let Some(key) = self.rest.chars().next() {
            let start = self.rest;
            if !allowed.contains(key) {
                return Err(self.syntax());
            }
            self.rest = &self.rest[key.len_utf8()..];
            let (slot, what, range) = match key {
                'k' => (&mut options.kernel, "the kernel size", 1..=MAX_REACH),
                's' => (&mut options.stride, "the stride", 1..=MAX_REACH),
                'p' => (&mut options.padding, "the padding", 0..=MAX_REACH),
                'd' => (&mut options.dilation, "the dilation", 1..=MAX_REACH),
                'g' => {
                    let what = "the number of groups";
                    let groups = self.whole(what, 1..=MAX_WIDTH)?;
                    let groups = groups.ok_or_else(|| self.missing(what))?;
                    self.once(&mut options.groups, groups, key)?;
                    continue;
                }
                _ => {
                    let Some(rest) = self.rest.strip_prefix('b') else {
                        self.rest = start;
                        return Err(self.syntax());
                    };
                    self.rest = rest;
                    let bias = if key == 'n' { Bias::No } else { Bias::Zeros };
                    self.once(&mut options.bias, bias, if key == 'n' { "nb" } else { "zb" })?;
                    continue;
                }
            };
            let value = self.pair(what, range)?.ok_or_else(|| self.missing(what))?;
            self.once(slot, value, key)?;
        }
        Ok(options)
    }

    fn once<T>(&self, slot: &mut Option<T>, value: T, option: impl ToString) -> Result<(), LayerError> {
        if slot.replace(value).is_some() {
            return Err(LayerError::Twice { option: option.to_string(), form: self.form });
        }
        Ok(())
    }

    fn conv(&mut self) -> Result<Layer, LayerError> {
        let what = "the number of output channels";
        let out = self.whole(what, 1..=MAX_WIDTH)?;
        let out = out.ok_or_else(|| self.missing(what))?;
        let o = self.options("kspdgn")?;
        let kernel = o.kernel.unwrap_or([3, 3]);
        let dilation = o.dilation.unwrap_or([1, 1]);
        Ok(Layer::Conv {
            out,
            kernel,
            conv: Conv2d {
                stride: o.stride.unwrap_or([1, 1]),
                padding: o.padding.unwrap_or_else(|| same_padding(kernel, dilation)),
                dilation,
                groups: o.groups.unwrap_or(1),
            },
            bias: o.bias.is_none(),
        })
    }

    fn pool(&mut self, kind: PoolKind) -> Result<Layer, LayerError> {
        let kernel = self.pair("the window", 1..=MAX_REACH)?.unwrap_or([2, 2]);
        let o = self.options("sp")?;
        let window = Pool2d { kernel, stride: o.stride.unwrap_or(kernel), padding: o.padding.unwrap_or([0, 0]) };
        Ok(Layer::Pool { kind, window })
    }

    fn dense(&mut self) -> Result<Layer, LayerError> {
        let what = "the number of outputs";
        let out = self.whole(what, 1..=MAX_WIDTH)?;
        let out = out.ok_or_else(|| self.missing(what))?;
        let bias = self.options("nz")?.bias.unwrap_or(Bias::Drawn);
        Ok(Layer::Dense { out, bias })
    }
}

/// What followed a layer's first number.
#[derive(Default)]
struct Options {
    kernel: Option<[usize; 2]>,
    stride: Option<[usize; 2]>,
    padding: Option<[usize; 2]>,
    dilation: Option<[usize; 2]>,
    groups: Option<usize>,
    bias: Option<Bias>,
}
