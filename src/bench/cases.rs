//! What the kernel benches measure: one op at one shape in one direction, recorded on random inputs.

use std::fmt;

use serde::Serialize;

use crate::graph::{Graph, NodeId, VarView};
use crate::ops::augment::{Augment, AugmentImages};
use crate::ops::batch_norm2d::BatchNorm2d;
use crate::ops::conv2d::Conv2d;
use crate::ops::cross_entropy::CrossEntropy;
use crate::ops::pool2d::Pool2d;
use crate::ops::sample::{Fill, SampleInput, bytes, filled, words, x};
use crate::ops::softmax::{self, Softmax};
use crate::optim::OptimizerKind;
use crate::shape::{ShapeError, Spec};

/// The ops that have cases.
pub const OPS: [&str; 11] = [
    "conv2d",
    "linear",
    "matmul",
    "max_pool2d",
    "avg_pool2d",
    "batch_norm2d",
    "softmax",
    "cross_entropy",
    "optimizer_step",
    "gather_images",
    "augment_images",
];

/// Which of an op's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The op itself.
    Forward,
    /// The gradient with respect to its first input (`batch_norm2d`: to all three).
    InputGrad,
    /// The gradient with respect to its weight, or to the right factor of a product.
    WeightGrad,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forward, Self::InputGrad, Self::WeightGrad];

    /// For tables.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::InputGrad => "input gradient",
            Self::WeightGrad => "weight gradient",
        }
    }

    /// For the command line and for JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::InputGrad => "input_grad",
            Self::WeightGrad => "weight_grad",
        }
    }

    /// The op's input whose gradient it is.
    pub(super) fn leaf(self) -> Option<usize> {
        match self {
            Self::Forward => None,
            Self::InputGrad => Some(0),
            Self::WeightGrad => Some(1),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Direction {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| "give forward, input_grad or weight_grad".to_owned())
    }
}

/// Records a case on its inputs and on the variables that it updates; returns the results.
type Build = Box<dyn Fn(&mut Graph, &[NodeId], &[VarView]) -> Result<Vec<NodeId>, ShapeError> + Send + Sync>;

/// One op at one shape, in one direction.
pub struct Case {
    /// The op.
    pub op: &'static str,
    /// The direction.
    pub direction: Direction,
    /// The shapes in words.
    pub shapes: String,
    pub(crate) inputs: Vec<SampleInput>,
    pub(super) state: Vec<SampleInput>,
    /// Bytes of the inputs that the op leaves alone.
    pub(super) unread: u64,
    build: Build,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.op, self.direction, self.shapes)
    }
}

impl Case {
    /// Records it.
    pub(crate) fn record(&self, g: &mut Graph, x: &[NodeId], state: &[VarView]) -> Result<Vec<NodeId>, ShapeError> {
        (self.build)(g, x, state)
    }

    /// `conv2d forward 32x64x64x64, 3x3, 64->64`
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {} {}", self.op, self.direction.words(), self.shapes)
    }
}

/// A gradient is recorded from the value that comes from above, which is one more input, behind the op's own.
fn gradients(
    g: &mut Graph,
    y: NodeId,
    dy: NodeId,
    leaves: &[NodeId],
    op: &'static str,
) -> Result<Vec<NodeId>, ShapeError> {
    let grads = g.gradients(y, Some(dy), leaves)?;
    grads.into_iter().enumerate().map(|(input, n)| n.ok_or(ShapeError::NoDerivative { op, input })).collect()
}

/// An op in some of its directions.
fn in_directions(
    op: &'static str,
    shapes: &str,
    inputs: &[SampleInput],
    directions: &[Direction],
    forward: impl Fn(&mut Graph, &[NodeId]) -> Result<NodeId, ShapeError> + Clone + Send + Sync + 'static,
) -> Result<Vec<Case>, ShapeError> {
    // Recorded once to refuse what does not fit, and to know the shape of the gradient that comes from above.
    let mut g = Graph::new();
    let nodes: Vec<NodeId> = inputs.iter().map(|s| g.input("input", s.spec.clone())).collect();
    let y = forward(&mut g, &nodes)?;
    let dy = x(g.spec(y).shape.dims());
    let case = |&direction: &Direction| {
        let (mut inputs, forward, count) = (inputs.to_vec(), forward.clone(), inputs.len());
        let build: Build = match direction.leaf() {
            None => Box::new(move |g, x, _| Ok(vec![forward(g, x)?])),
            Some(leaf) => {
                inputs.push(dy.clone());
                Box::new(move |g, x, _| {
                    let y = forward(g, &x[..count])?;
                    gradients(g, y, x[count], &[x[leaf]], op)
                })
            }
        };
        Case { op, direction, shapes: shapes.to_owned(), inputs, state: Vec::new(), unread: 0, build }
    };
    Ok(directions.iter().map(case).collect())
}

/// A convolution of `x [n, c, h, w]` with a weight `[o, c / groups, kh, kw]` and a bias.
pub(super) fn conv2d(
    x_shape: [usize; 4],
    w_shape: [usize; 3],
    conv: Conv2d,
    bias: bool,
    of: &str,
) -> Result<Vec<Case>, ShapeError> {
    let ([n, c, h, w], [o, kh, kw]) = (x_shape, w_shape);
    let simple = conv == Conv2d { padding: [kh / 2, kw / 2], ..Conv2d::default() };
    let detail = if simple { String::new() } else { format!(" {conv}") };
    let shapes = format!("{n}x{c}x{h}x{w}, {kh}x{kw}{detail}, {c}->{o}{of}");
    let mut inputs = vec![x(&x_shape), x(&[o, c / conv.groups.max(1), kh, kw])];
    inputs.extend(bias.then(|| x(&[o])));
    in_directions("conv2d", &shapes, &inputs, &Direction::ALL, move |g, i| {
        g.conv2d(i[0], i[1], i.get(2).copied(), conv.clone())
    })
}

/// `x [n, k]` through a layer of `m` outputs with a bias.
pub(super) fn linear([n, k, m]: [usize; 3], of: &str) -> Result<Vec<Case>, ShapeError> {
    let inputs = [x(&[n, k]), x(&[m, k]), x(&[m])];
    let shapes = format!("{n}x{k} -> {m}{of}");
    in_directions("linear", &shapes, &inputs, &Direction::ALL, |g, i| g.linear(i[0], i[1], Some(i[2])))
}

/// `a [m, k]` times `b [k, n]`.
pub(super) fn matmul([m, k, n]: [usize; 3]) -> Result<Vec<Case>, ShapeError> {
    let inputs = [x(&[m, k]), x(&[k, n])];
    let shapes = format!("{m}x{k}x{n}");
    in_directions("matmul", &shapes, &inputs, &Direction::ALL, |g, i| g.matmul(i[0], i[1]))
}

const BOTH: [Direction; 2] = [Direction::Forward, Direction::InputGrad];

/// A pooling of `x [n, c, h, w]`.
pub(super) fn pool2d(max: bool, [n, c, h, w]: [usize; 4], pool: Pool2d) -> Result<Vec<Case>, ShapeError> {
    let [k, s, p] = [pool.kernel[0], pool.stride[0], pool.padding[0]];
    let detail = if s == k && p == 0 { String::new() } else { format!(" s{s} p{p}") };
    let shapes = format!("{n}x{c}x{h}x{w}, {k}x{k}{detail}");
    let inputs = [x(&[n, c, h, w])];
    match max {
        true => in_directions("max_pool2d", &shapes, &inputs, &BOTH, move |g, i| g.max_pool2d(i[0], pool)),
        false => in_directions("avg_pool2d", &shapes, &inputs, &BOTH, move |g, i| g.avg_pool2d(i[0], pool, true)),
    }
}

/// Batch normalisation of `x [n, c, h, w]` in training. Forward is mean, variance and normalisation; backward the
/// gradients of x, gain and bias from the mean and the variance of the forward pass.
pub(super) fn batch_norm2d(shape: [usize; 4]) -> Result<Vec<Case>, ShapeError> {
    const OP: &str = "batch_norm2d";
    const EPS: f64 = 1e-5;
    let [n, c, h, w] = shape;
    let shapes = format!("{n}x{c}x{h}x{w}");
    let positive = || filled(&[c], Fill::Positive);
    let own = vec![x(&shape), positive(), x(&[c])];
    let mut g = Graph::new();
    let nodes: Vec<NodeId> = own.iter().map(|s| g.input("input", s.spec.clone())).collect();
    g.batch_norm2d_train(nodes[0], nodes[1], nodes[2], EPS)?;
    let mut inputs = own.clone();
    inputs.extend([x(&[c]), positive(), x(&shape)]);
    let case = |direction, inputs, build| Case {
        op: OP,
        direction,
        shapes: shapes.clone(),
        inputs,
        state: Vec::new(),
        unread: 0,
        build,
    };
    let forward: Build = Box::new(|g, i, _| Ok(vec![g.batch_norm2d_train(i[0], i[1], i[2], EPS)?.y]));
    let backward: Build = Box::new(|g, i, _| {
        let y = g.apply(BatchNorm2d { eps: EPS, training: true }, &i[..5])?;
        gradients(g, y, i[5], &i[..3], OP)
    });
    Ok(vec![case(Direction::Forward, own, forward), case(Direction::InputGrad, inputs, backward)])
}

/// Softmax along the rows of `x [n, c]`; backward from its result, as the op's gradient takes it.
pub(super) fn softmax([n, c]: [usize; 2]) -> Result<Vec<Case>, ShapeError> {
    let rows = Softmax { axis: 1, log: false };
    let shapes = format!("{n}x{c}");
    let mut cases = in_directions("softmax", &shapes, &[x(&[n, c])], &BOTH[..1], |g, i| g.softmax(i[0], 1))?;
    cases.push(Case {
        op: "softmax",
        direction: Direction::InputGrad,
        shapes,
        inputs: vec![filled(&[n, c], Fill::Positive), x(&[n, c])],
        state: Vec::new(),
        unread: 0,
        build: Box::new(move |g, i, _| Ok(vec![g.apply(softmax::Gradient(rows), &i[..2])?])),
    });
    Ok(cases)
}

/// Cross-entropy of logits `[n, c]`.
pub(super) fn cross_entropy([n, c]: [usize; 2]) -> Result<Vec<Case>, ShapeError> {
    let labels = words(&[n], Fill::Below(u32::try_from(c).unwrap_or(u32::MAX)));
    in_directions("cross_entropy", &format!("{n}x{c}"), &[x(&[n, c]), labels], &BOTH, |g, i| {
        g.cross_entropy(i[0], i[1], None, CrossEntropy::default())
    })
}

/// A step of an optimizer over `parameters` numbers, in place.
pub(super) fn optimizer_step(kind: OptimizerKind, parameters: usize) -> Result<Vec<Case>, ShapeError> {
    let spec = Spec::float([parameters]);
    // The second moment is a mean of squares.
    let slots = kind.slot_names().iter().map(|_| filled(&[parameters], Fill::Positive));
    let case = Case {
        op: "optimizer_step",
        direction: Direction::Forward,
        shapes: format!("{}, {parameters} parameters", kind.name()),
        inputs: vec![x(&[parameters]), filled(&[4], Fill::Positive)],
        unread: 0,
        state: std::iter::once(x(&[parameters])).chain(slots).collect(),
        build: Box::new(move |g, i, state| {
            let (params, slots) = state
                .split_first()
                .ok_or_else(|| ShapeError::invalid("optimizer_step", "the parameters are missing", &spec))?;
            g.optimizer_step(kind, params.clone(), slots, i[0], i[1])?;
            Ok(Vec::new())
        }),
    };
    Ok(vec![case])
}

/// A batch of `n` images drawn from `images` and normalised.
pub(super) fn gather_images(images: usize, [n, c, h, w]: [usize; 4]) -> Result<Vec<Case>, ShapeError> {
    let picked = words(&[n], Fill::Below(u32::try_from(images).unwrap_or(u32::MAX)));
    let case = Case {
        op: "gather_images",
        direction: Direction::Forward,
        shapes: format!("{n} of {images}, {c}x{h}x{w}"),
        inputs: vec![bytes(&[images, c, h, w]), picked],
        state: Vec::new(),
        unread: (images.saturating_sub(n) * c * h * w) as u64,
        build: Box::new(move |g, i, _| Ok(vec![g.gather_images(i[0], i[1], &vec![0.5; c], &vec![0.25; c])?])),
    };
    let mut g = Graph::new();
    let nodes: Vec<NodeId> = case.inputs.iter().map(|s| g.input("input", s.spec.clone())).collect();
    case.record(&mut g, &nodes, &[])?;
    Ok(vec![case])
}

/// The same, and each image changed as by the preset `strong`.
pub(super) fn augment_images(images: usize, [n, c, h, w]: [usize; 4]) -> Result<Vec<Case>, ShapeError> {
    let mut cases = gather_images(images, [n, c, h, w])?;
    for case in &mut cases {
        case.op = "augment_images";
        case.inputs.push(words(&[2], Fill::Below(1000)));
        case.build = Box::new(move |g, i, _| {
            let augment = Augment::preset("strong").unwrap_or_default();
            let op = AugmentImages { mean: vec![0.5; c], std: vec![0.25; c], augment, repeats: None };
            Ok(vec![g.augment_images(op, [i[0], i[1], i[2]], None)?])
        });
    }
    Ok(cases)
}

/// The cases that are measured where no shapes are given.
#[must_use]
pub fn cases() -> Vec<Case> {
    let same = |k| Conv2d::same(k);
    let valid = Conv2d::default;
    let adam = OptimizerKind::Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
    let sgd = OptimizerKind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
    let mut all: Vec<Case> = [
        conv2d([32, 64, 64, 64], [64, 3, 3], same(3), true, ""),
        conv2d([32, 1, 128, 128], [32, 3, 3], same(3), true, " (cnn1-3 layer 1)"),
        conv2d([32, 32, 64, 64], [64, 3, 3], same(3), true, " (cnn2-3 layer 2)"),
        conv2d([32, 64, 32, 32], [128, 3, 3], same(3), true, " (cnn3 layer 3)"),
        conv2d([32, 128, 32, 32], [128, 3, 3], same(3), true, ""),
        conv2d([32, 256, 16, 16], [256, 3, 3], same(3), true, ""),
        conv2d([32, 3, 224, 224], [6, 5, 5], valid(), true, " (simple layer 1)"),
        conv2d([32, 6, 110, 110], [16, 5, 5], valid(), true, " (simple layer 2)"),
        linear([32, 65_536, 128], " (cnn1 at 128x128)"),
        linear([32, 8192, 128], ""),
        matmul([1024, 1024, 1024]),
        pool2d(true, [32, 32, 128, 128], Pool2d::square(2)),
        pool2d(false, [32, 32, 128, 128], Pool2d::square(2)),
        batch_norm2d([32, 64, 64, 64]),
        softmax([4096, 1000]),
        cross_entropy([4096, 1000]),
        optimizer_step(adam, 1 << 23),
        optimizer_step(sgd, 1 << 23),
        gather_images(256, [32, 3, 224, 224]),
        augment_images(256, [32, 1, 128, 128]),
    ]
    .into_iter()
    .flat_map(|cases| cases.expect("the shapes of the list fit"))
    .collect();
    // Images take no gradient, so the first layer of a network is never asked for it.
    all.retain(|c| c.direction != Direction::InputGrad || !c.shapes.contains("layer 1)"));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_has_cases_in_every_direction_that_it_has() {
        let all = cases();
        for op in OPS {
            let directions: Vec<_> = all.iter().filter(|c| c.op == op).map(|c| c.direction).collect();
            let wanted: &[Direction] = match op {
                "conv2d" | "linear" | "matmul" => &Direction::ALL,
                "optimizer_step" | "gather_images" | "augment_images" => &BOTH[..1],
                _ => &BOTH,
            };
            assert!(wanted.iter().all(|d| directions.contains(d)), "{op}: {directions:?}");
        }
        assert!(all.iter().all(|c| OPS.contains(&c.op)));
        // Only the list's own order tells equal names apart, so there must be none.
        let mut names: Vec<String> = all.iter().map(Case::name).collect();
        names.sort();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
    }

    #[test]
    fn directions_read_back_what_they_print() {
        for d in Direction::ALL {
            assert_eq!(d.to_string().parse(), Ok(d));
            assert_eq!(serde_json::to_value(d).unwrap(), d.name());
        }
        assert!("backward".parse::<Direction>().is_err());
    }
}
