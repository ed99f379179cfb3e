//! What a network needs for an input size: the shape after every layer, every parameter, every receptive field.
//!
//! Nothing is allocated here; all sizes are checked, so that recording and initialising a planned network cannot fail
//! for its shapes.

use std::ops::Range;

use serde::Serialize;

use super::error::{LayerError, ModelError, shown};
use super::init::{self, Init};
use super::spec::{Layer, Network, Pair};
use crate::shape::Shape;
use crate::store::Role;

/// Most numbers of one image's activation, of one parameter and of all parameters together: 1 GiB of `f32`.
pub const MAX_NUMEL: usize = 1 << 28;

/// Most products of one layer for one image (a ResNet-18 at 224x224 has 2^31 in all): more is a slip of the pen, and
/// counts of operations must fit 64 bits.
const MAX_PRODUCTS: u128 = 1 << 43;

/// A parameter or running statistic of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Dotted name: `conv1.weight`, `bn1.running_mean`.
    pub name: String,
    /// Shape, as in PyTorch: `[out, in / groups, kh, kw]`, `[out, in]`, `[channels]`.
    pub shape: Shape,
    /// Whether the optimizer changes it.
    pub role: Role,
    /// How its first value is made.
    pub init: Init,
}

/// The part of the image that one output pixel depends on, padding counted in, each field `[height, width]` in pixels of
/// the input. (Dumoulin and Visin 2016, arXiv 1603.07285; Araujo et al., Distill 2019.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Size of the part: `size + (kernel - 1) * dilation * stride` after each window.
    pub size: [usize; 2],
    /// How far apart the parts of neighbouring output pixels are: the product of the strides.
    pub stride: [usize; 2],
}

impl Field {
    const PIXEL: Self = Self { size: [1, 1], stride: [1, 1] };

    /// After a window that reaches over `reach` pixels and moves by `stride`.
    fn through(self, reach: [usize; 2], stride: [usize; 2]) -> Self {
        let grow = |i: usize| (reach[i] - 1).saturating_mul(self.stride[i]);
        Self {
            size: [0, 1].map(|i| self.size[i].saturating_add(grow(i))),
            stride: [0, 1].map(|i| self.stride[i].saturating_mul(stride[i])),
        }
    }
}

/// One layer of a planned network.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Kind and number among its kind: `conv1`, the scope of its nodes and the first part of its parameters' names.
    pub name: String,
    /// What it does.
    pub layer: Layer,
    /// The value that it reads: 0 is the network's input, `i + 1` the output of step `i`.
    pub input: usize,
    /// Its output for one image, without the batch axis: `[C, H, W]` or `[features]`.
    pub output: Shape,
    /// Its parameters, as a range of [`Plan::params`].
    pub params: Range<usize>,
    /// What an output pixel sees; `None` where each output sees the whole image.
    pub field: Option<Field>,
}

/// A network for one input size.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The layers in the order in which they run.
    pub steps: Vec<Step>,
    /// All parameters, in the order of the layers.
    pub params: Vec<ParamSpec>,
}

/// `[N, 64, 8, 8]`: a batch of such outputs, for messages and tables.
#[must_use]
pub fn batched(one: &Shape) -> String {
    one.iter().fold("[N".to_owned(), |s, d| format!("{s}, {d}")) + "]"
}

/// Number of elements, unless it is more than [`MAX_NUMEL`].
fn numel(shape: &[usize]) -> Option<usize> {
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    n.filter(|&n| n <= MAX_NUMEL)
}

impl Plan {
    /// Plans `network` for images `[channels, height, width]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an input of no pixels or too many; [`ModelError::Layer`] for the first layer that the
    /// shape reaching it does not suit; [`ModelError::TooManyParameters`].
    pub fn new(network: &Network, input: [usize; 3]) -> Result<Self, ModelError> {
        if input.contains(&0) || numel(&input).is_none() {
            return Err(ModelError::Input(input));
        }
        let mut builder = Builder { plan: Self { steps: Vec::new(), params: Vec::new() }, names: Vec::new(), total: 0 };
        let x = Value { index: 0, shape: input.into(), field: Some(Field::PIXEL) };
        builder.chain(&network.layers, x)?;
        Ok(builder.plan)
    }
}

/// A value on its way through the network.
#[derive(Clone)]
struct Value {
    index: usize,
    shape: Shape,
    field: Option<Field>,
}

impl Value {
    fn image(&self) -> Result<[usize; 3], LayerError> {
        <[usize; 3]>::try_from(self.shape.dims()).map_err(|_| LayerError::NeedsImages { input: batched(&self.shape) })
    }

    /// Output height and width of a window, which `extent` computes along each axis.
    fn window(&self, reach: [usize; 2], extent: impl Fn(usize) -> Option<usize>) -> Result<[usize; 2], LayerError> {
        match (extent(0), extent(1)) {
            (Some(h), Some(w)) => Ok([h, w]),
            _ => Err(LayerError::Window { input: batched(&self.shape), window: format!("{}x{}", reach[0], reach[1]) }),
        }
    }
}

struct Builder {
    plan: Plan,
    /// How often each kind has been used, for names.
    names: Vec<(&'static str, usize)>,
    total: usize,
}

impl Builder {
    fn name(&mut self, kind: &'static str) -> String {
        let slot = match self.names.iter().position(|n| n.0 == kind) {
            Some(slot) => slot,
            None => {
                self.names.push((kind, 0));
                self.names.len() - 1
            }
        };
        self.names[slot].1 += 1;
        format!("{kind}{}", self.names[slot].1)
    }

    fn chain(&mut self, layers: &[Layer], mut x: Value) -> Result<Value, ModelError> {
        for (i, layer) in layers.iter().enumerate() {
            x = self.layer(layer, x).map_err(|problem| ModelError::Layer {
                number: i + 1,
                text: shown(&layer.to_string()),
                problem,
            })?;
            if self.total > MAX_NUMEL {
                return Err(ModelError::TooManyParameters);
            }
        }
        Ok(x)
    }

    fn layer(&mut self, layer: &Layer, x: Value) -> Result<Value, LayerError> {
        let name = self.name(layer.kind());
        let first = self.plan.params.len();
        let (output, field) = self.output(layer, &name, &x)?;
        if numel(&output).is_none() {
            return Err(LayerError::TooLarge { output: batched(&output) });
        }
        self.plan.steps.push(Step {
            name,
            layer: layer.clone(),
            input: x.index,
            output: output.clone(),
            params: first..self.plan.params.len(),
            field,
        });
        Ok(Value { index: self.plan.steps.len(), shape: output, field })
    }

    /// The shape rule; adds the layer's parameters.
    fn output(&mut self, layer: &Layer, name: &str, x: &Value) -> Result<(Shape, Option<Field>), LayerError> {
        match layer {
            Layer::Conv { out, kernel, conv, bias } => {
                let [c, h, w] = x.image()?;
                if c % conv.groups != 0 || out % conv.groups != 0 {
                    return Err(LayerError::Groups { groups: conv.groups, input: c, output: *out });
                }
                let reach = [0, 1].map(|i| conv.dilation[i] * (kernel[i] - 1) + 1);
                let [h, w] = x.window(reach, |i| conv.extent(i, [h, w][i], kernel[i]))?;
                let weight = [*out, c / conv.groups, kernel[0], kernel[1]];
                self.weights(name, &weight, *bias)?;
                let products = [out, &h, &w].into_iter().chain(&weight[1..]);
                if products.map(|&n| n as u128).product::<u128>() > MAX_PRODUCTS {
                    return Err(LayerError::TooMuchWork);
                }
                let field = x.field.map(|f| f.through(reach, conv.stride));
                Ok((Shape::from([*out, h, w]), field))
            }
            Layer::Pool { window, .. } => {
                let [c, h, w] = x.image()?;
                if (0..2).any(|i| window.padding[i] > window.kernel[i] / 2) {
                    return Err(LayerError::PoolPadding {
                        padding: Pair(window.padding).to_string(),
                        window: format!("{}x{}", window.kernel[0], window.kernel[1]),
                    });
                }
                let [h, w] = x.window(window.kernel, |i| window.extent(i, [h, w][i]))?;
                let field = x.field.map(|f| f.through(window.kernel, window.stride));
                Ok((Shape::from([c, h, w]), field))
            }
            Layer::AdaptiveAvgPool { out } => {
                let [c, h, w] = x.image()?;
                // Windows of different sizes: the field is that of the largest, the stride the smallest step.
                let axes = [(h, out[0]), (w, out[1])];
                let largest = |(n, out): (usize, usize)| {
                    let size = |i: usize| ((i + 1) * n).div_ceil(out) - i * n / out;
                    (0..out).map(size).max().unwrap_or(1)
                };
                let reach = axes.map(largest);
                let stride = axes.map(|(n, out)| (n / out).max(1));
                let field = x.field.map(|f| f.through(reach, stride));
                Ok((Shape::from([c, out[0], out[1]]), field))
            }
            Layer::BatchNorm => {
                let channels = Shape::from([x.shape[0]]);
                let mut add = |part, role, init| self.param(name, part, &channels, role, init);
                add("weight", Role::Trainable, Init::Ones)?;
                add("bias", Role::Trainable, Init::Zeros)?;
                add("running_mean", Role::Buffer, Init::Zeros)?;
                add("running_var", Role::Buffer, Init::Ones)?;
                Ok((x.shape.clone(), x.field))
            }
            Layer::Activation(_) | Layer::Dropout { .. } => Ok((x.shape.clone(), x.field)),
            Layer::Flatten => Ok((Shape::from([x.shape.numel()]), x.field)),
            Layer::Dense { out, bias } => {
                let [features] = <[usize; 1]>::try_from(x.shape.dims())
                    .map_err(|_| LayerError::NeedsRows { input: batched(&x.shape) })?;
                self.weights(name, &[*out, features], *bias)?;
                Ok((Shape::from([*out]), None))
            }
        }
    }

    /// Weight and bias of a convolution or dense layer, with PyTorch's default initialisers.
    fn weights(&mut self, name: &str, shape: &[usize], bias: bool) -> Result<(), LayerError> {
        let weight = Shape::new(shape);
        let init = init::default_weight();
        self.param(name, "weight", &weight, Role::Trainable, init)?;
        if bias {
            let init = init::default_bias(shape).map_err(|_| too_large(&weight))?;
            let shape = Shape::from([shape[0]]);
            self.param(name, "bias", &shape, Role::Trainable, init)?;
        }
        Ok(())
    }

    fn param(&mut self, name: &str, part: &str, shape: &Shape, role: Role, init: Init) -> Result<(), LayerError> {
        self.total += numel(shape).ok_or_else(|| too_large(shape))?;
        self.plan.params.push(ParamSpec { name: format!("{name}.{part}"), shape: shape.clone(), role, init });
        Ok(())
    }
}

fn too_large(weight: &Shape) -> LayerError {
    LayerError::WeightTooLarge { shape: weight.to_string() }
}
