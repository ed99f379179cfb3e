//! What a network needs for an input size: the shape after every layer, every parameter, every receptive field.
//!
//! Nothing is allocated here; all sizes are checked, so that recording and initialising a planned network cannot fail
//! for its shapes.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::error::{LayerError, ModelError, shown};
use super::init::{self, FanMode, Init, Nonlinearity};
use super::scope::Scope;
use super::spec::{Bias, Block, Join, Layer, Network, Pair};
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
    /// Dotted name: `conv1.weight`, `layer1.0.bn1.running_mean`.
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

    /// Of what comes from two sides: the larger part, the smaller steps.
    fn join(self, other: Self) -> Self {
        Self {
            size: [0, 1].map(|i| self.size[i].max(other.size[i])),
            stride: [0, 1].map(|i| self.stride[i].min(other.stride[i])),
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A layer, on one value.
    Layer(Layer),
    /// The sum of two values: the end of a residual block.
    Add,
    /// The channels of one value and then those of another.
    Concat,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(layer) => layer.fmt(f),
            Self::Add => f.write_str("+"),
            Self::Concat => f.write_str("++"),
        }
    }
}

/// One layer of a planned network, or the joint at the end of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its name, or kind and number: `conv1`, `layer1.0.conv2`. The scope of its nodes and the first part of its parameters'
    /// names.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// The values that it reads, one or two: 0 is the network's input, `i + 1` the output of step `i`.
    pub inputs: Vec<usize>,
    /// Its output for one image, without the batch axis: `[C, H, W]` or `[features]`.
    pub output: Shape,
    /// Its parameters, as a range of [`Plan::params`].
    pub params: Range<usize>,
    /// What an output pixel sees; `None` where each output sees the whole image.
    pub field: Option<Field>,
}

/// A block that lies in no other, as tables group layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name; without one, the names of its first and last steps.
    pub name: String,
    /// As written, once.
    pub text: String,
    /// Its steps.
    pub steps: Range<usize>,
}

/// A network for one input size.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The layers in the order in which they run.
    pub steps: Vec<Step>,
    /// All parameters, in the order of the layers.
    pub params: Vec<ParamSpec>,
    /// The outermost blocks.
    pub groups: Vec<Group>,
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
        let plan = Self { steps: Vec::new(), params: Vec::new(), groups: Vec::new() };
        let mut builder = Builder { plan, names: HashSet::new(), convs: None, depth: 0, total: 0 };
        let x = Value { index: 0, shape: input.into(), field: Some(Field::PIXEL) };
        builder.chain(&network.layers, x, &mut Scope::root(), "")?;
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
    /// The names of all steps.
    names: HashSet<String>,
    /// How the weights of convolutions begin; `None`: as PyTorch's default.
    convs: Option<FanMode>,
    /// Blocks around what is being planned.
    depth: usize,
    total: usize,
}

impl Builder {
    /// A chain whose names are of `scope`; `place` goes before the number of each layer in messages.
    fn chain(&mut self, layers: &[Layer], mut x: Value, scope: &mut Scope, place: &str) -> Result<Value, ModelError> {
        for (i, layer) in layers.iter().enumerate() {
            let place = format!("{place}{}", i + 1);
            x = match layer {
                Layer::Named { name, layer: inner } => self.item(inner, Some(name), x, scope, (&place, layer))?,
                _ => self.item(layer, None, x, scope, (&place, layer))?,
            };
            if self.total > MAX_NUMEL {
                return Err(ModelError::TooManyParameters);
            }
        }
        Ok(x)
    }

    /// A layer or block with its name; `at` is its place and what stands there.
    fn item(
        &mut self,
        layer: &Layer,
        name: Option<&str>,
        x: Value,
        scope: &mut Scope,
        at: (&str, &Layer),
    ) -> Result<Value, ModelError> {
        match layer {
            Layer::Init(mode) => {
                self.convs = Some(*mode);
                Ok(x)
            }
            Layer::Block(block) => self.block(block, name, x, scope, at),
            _ => {
                let name = match name {
                    Some(name) => scope.given(name),
                    None => scope.next(layer.kind()),
                };
                self.layer(layer, name, x).map_err(|problem| wrong(at, problem))
            }
        }
    }

    fn block(
        &mut self,
        block: &Block,
        name: Option<&str>,
        mut x: Value,
        scope: &mut Scope,
        at: (&str, &Layer),
    ) -> Result<Value, ModelError> {
        for turn in 0..block.times {
            let first = self.plan.steps.len();
            self.depth += 1;
            let mut level = name.map(|name| scope.inner(name, turn, block.times));
            x = self.turn(block, x, level.as_mut().unwrap_or(scope), at)?;
            self.depth -= 1;
            if let (0, [start, ..], Some(end)) = (self.depth, &self.plan.steps[first..], self.plan.steps.last()) {
                let own = level.map(|level| level.name().to_owned());
                let name = own.unwrap_or_else(|| format!("{} .. {}", start.name, end.name));
                let text = Block { times: 1, ..block.clone() }.to_string();
                self.plan.groups.push(Group { name, text, steps: first..self.plan.steps.len() });
            }
        }
        Ok(x)
    }

    /// A block once.
    fn turn(&mut self, block: &Block, x: Value, scope: &mut Scope, at: (&str, &Layer)) -> Result<Value, ModelError> {
        let place = format!("{}.", at.0);
        let y = self.chain(&block.body, x.clone(), scope, &place)?;
        match &block.join {
            Join::Chain => Ok(y),
            Join::Add { shortcut } => {
                let other = self.chain(shortcut, x, scope, &format!("{place}shortcut."))?;
                if y.shape != other.shape {
                    let advice = if shortcut.is_empty() { advice(&other, &y) } else { SHORTCUT.to_owned() };
                    let (main, other) = (batched(&y.shape), batched(&other.shape));
                    return Err(wrong(at, LayerError::Add { main, other, advice }));
                }
                let shape = y.shape.clone();
                self.join(Action::Add, scope.next("add"), [y, other], shape).map_err(|problem| wrong(at, problem))
            }
            Join::Concat => {
                let same =
                    x.shape.len() == y.shape.len() && x.shape.iter().zip(y.shape.iter()).skip(1).all(|(a, b)| a == b);
                if !same {
                    let (input, output) = (batched(&x.shape), batched(&y.shape));
                    return Err(wrong(at, LayerError::Concat { input, output }));
                }
                let mut dims = x.shape.to_vec();
                dims[0] += y.shape[0];
                let name = scope.next("concat");
                self.join(Action::Concat, name, [x, y], dims.into()).map_err(|problem| wrong(at, problem))
            }
        }
    }

    fn join(&mut self, action: Action, name: String, [a, b]: [Value; 2], shape: Shape) -> Result<Value, LayerError> {
        let field = a.field.zip(b.field).map(|(a, b)| a.join(b));
        self.step(action, name, vec![a.index, b.index], shape, field)
    }

    fn layer(&mut self, layer: &Layer, name: String, x: Value) -> Result<Value, LayerError> {
        let first = self.plan.params.len();
        let (output, field) = self.output(layer, &name, &x)?;
        let value = self.step(Action::Layer(layer.clone()), name, vec![x.index], output, field)?;
        if let Some(step) = self.plan.steps.last_mut() {
            step.params.start = first;
        }
        Ok(value)
    }

    fn step(
        &mut self,
        action: Action,
        name: String,
        inputs: Vec<usize>,
        output: Shape,
        field: Option<Field>,
    ) -> Result<Value, LayerError> {
        if numel(&output).is_none() {
            return Err(LayerError::TooLarge { output: batched(&output) });
        }
        if !self.names.insert(name.clone()) {
            return Err(LayerError::NameTaken { name });
        }
        let params = self.plan.params.len()..self.plan.params.len();
        self.plan.steps.push(Step { name, action, inputs, output: output.clone(), params, field });
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
                let nonlinearity = Nonlinearity::Relu;
                let init =
                    self.convs.map_or_else(init::default_weight, |mode| Init::KaimingNormal { mode, nonlinearity });
                self.weights(name, &weight, init, if *bias { Bias::Drawn } else { Bias::No })?;
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
                self.weights(name, &[*out, features], init::default_weight(), *bias)?;
                Ok((Shape::from([*out]), None))
            }
            // They have no values of their own: `item` has dealt with them.
            Layer::Init(_) | Layer::Named { .. } | Layer::Block(_) => Ok((x.shape.clone(), x.field)),
        }
    }

    /// Weight and bias of a convolution or dense layer.
    fn weights(&mut self, name: &str, shape: &[usize], init: Init, bias: Bias) -> Result<(), LayerError> {
        let weight = Shape::new(shape);
        self.param(name, "weight", &weight, Role::Trainable, init)?;
        let init = match bias {
            Bias::No => return Ok(()),
            Bias::Zeros => Init::Zeros,
            Bias::Drawn => init::default_bias(shape).map_err(|_| too_large(&weight))?,
        };
        self.param(name, "bias", &Shape::from([shape[0]]), Role::Trainable, init)
    }

    fn param(&mut self, name: &str, part: &str, shape: &Shape, role: Role, init: Init) -> Result<(), LayerError> {
        self.total += numel(shape).ok_or_else(|| too_large(shape))?;
        self.plan.params.push(ParamSpec { name: format!("{name}.{part}"), shape: shape.clone(), role, init });
        Ok(())
    }
}

fn wrong((place, layer): (&str, &Layer), problem: LayerError) -> ModelError {
    ModelError::Layer { place: place.to_owned(), text: shown(&layer.to_string()), problem: Box::new(problem) }
}

/// What to write where a shortcut gives another shape than its block.
const SHORTCUT: &str = "change the layers on the shortcut so that both are alike";

/// The layer that takes `from` to the shape of `to`, as what to write behind a block.
fn advice(from: &Value, to: &Value) -> String {
    let projection = match (from.shape.dims(), to.shape.dims()) {
        (&[_, h, w], &[c, out_h, out_w]) => {
            let [down, across] = [h.div_ceil(out_h), w.div_ceil(out_w)];
            let fits = down == across && h.div_ceil(down) == out_h && w.div_ceil(across) == out_w;
            let stride = if down == 1 { String::new() } else { format!("s{down}") };
            fits.then(|| format!("conv{c}k1{stride}-bn"))
        }
        (_, &[features]) => Some(format!("flatten-dense{features}")),
        _ => None,
    };
    match projection {
        Some(layers) => format!("keep the shape, or write a shortcut behind the block, ]+[{layers}]"),
        None => "keep the shape, or write a shortcut behind the block, ]+[...]".to_owned(),
    }
}

fn too_large(weight: &Shape) -> LayerError {
    LayerError::WeightTooLarge { shape: weight.to_string() }
}
