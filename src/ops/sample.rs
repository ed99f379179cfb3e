//! Samples: the small computations by which an op is checked and timed.

use std::sync::Arc;

use crate::graph::{Graph, NodeId};
use crate::rng::{Rng, Stream};
use crate::shape::{DType, ShapeError, Spec};
use crate::tensor::{Data, Tensor};

/// How a sample's input is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Standard normal.
    Normal,
    /// Standard normal, pushed away from zero by 0.1, where functions have kinks.
    AwayFromZero,
    /// Values in random order that keep a distance of at least 0.01, so that a maximum stays one under differences.
    Distinct,
    /// Uniform in [0.5, 2).
    Positive,
    /// Integers below the bound.
    Below(u32),
    /// The numbers 0, 1, 2, ...
    Range,
}

/// One input of a sample.
#[derive(Clone, Debug)]
pub struct SampleInput {
    /// Shape and type.
    pub spec: Spec,
    /// Content.
    pub fill: Fill,
    /// Whether the gradient with respect to it is checked.
    pub checked: bool,
}

/// Records a sample on its inputs.
pub type Build = Arc<dyn Fn(&mut Graph, &[NodeId]) -> Result<NodeId, ShapeError> + Send + Sync>;

/// A small computation around one op.
#[derive(Clone)]
pub struct Sample {
    /// What is special about it.
    pub name: String,
    /// Its inputs.
    pub inputs: Vec<SampleInput>,
    /// Records it.
    pub build: Build,
    /// Numbers added up for one element of the worst sum; over 10,000 the tolerance of f32 kernels is 1e-4, not 1e-5.
    pub terms: usize,
    /// Too large for differences: only GPU against reference.
    pub large: bool,
}

impl Sample {
    /// A sample of `build` on `inputs`.
    pub fn new(
        name: impl Into<String>,
        inputs: Vec<SampleInput>,
        build: impl Fn(&mut Graph, &[NodeId]) -> Result<NodeId, ShapeError> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), inputs, build: Arc::new(build), terms: 1, large: false }
    }

    /// Says how many numbers the worst sum adds up.
    #[must_use]
    pub fn terms(mut self, terms: usize) -> Self {
        self.terms = terms;
        self
    }

    /// Leaves the differences out.
    #[must_use]
    pub fn large(mut self) -> Self {
        self.large = true;
        self
    }

    /// The inputs' values: a function of the sample alone.
    #[must_use]
    pub fn values(&self, seed: u32) -> Vec<Tensor> {
        self.inputs.iter().enumerate().map(|(i, input)| fill(input, seed, i as u32)).collect()
    }

    /// Relative error that an f32 kernel may have.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        if self.terms > 10_000 { 1e-4 } else { 1e-5 }
    }
}

/// A float input whose gradient is checked.
#[must_use]
pub fn x(shape: &[usize]) -> SampleInput {
    SampleInput { spec: Spec::float(shape.to_vec()), fill: Fill::Normal, checked: true }
}

/// As [`x`], filled otherwise.
#[must_use]
pub fn filled(shape: &[usize], fill: Fill) -> SampleInput {
    SampleInput { spec: Spec::float(shape.to_vec()), fill, checked: true }
}

/// A float input that is not differentiated.
#[must_use]
pub fn fixed(shape: &[usize], fill: Fill) -> SampleInput {
    SampleInput { spec: Spec::float(shape.to_vec()), fill, checked: false }
}

/// An integer input.
#[must_use]
pub fn words(shape: &[usize], fill: Fill) -> SampleInput {
    SampleInput { spec: Spec::u32(shape.to_vec()), fill, checked: false }
}

/// A byte input.
#[must_use]
pub fn bytes(shape: &[usize]) -> SampleInput {
    SampleInput { spec: Spec::u8(shape.to_vec()), fill: Fill::Below(256), checked: false }
}

/// The value of one input: a function of the input, `seed` and `index` alone.
#[must_use]
pub fn fill(input: &SampleInput, seed: u32, index: u32) -> Tensor {
    let n = input.spec.numel();
    let mut rng = Rng::new(seed, index, Stream::Sample as u32);
    let numbers: Vec<f32> = match input.fill {
        Fill::Normal => (0..n).map(|_| rng.normal()).collect(),
        Fill::AwayFromZero => (0..n)
            .map(|_| {
                let v = rng.normal();
                v + 0.1f32.copysign(v)
            })
            .collect(),
        Fill::Distinct => {
            let mut order: Vec<u32> = (0..n as u32).collect();
            rng.shuffle(&mut order);
            let step = (4.0 / n as f32).max(0.01);
            order.iter().map(|&i| (i as f32 - 0.5 * n as f32) * step).collect()
        }
        Fill::Positive => (0..n).map(|_| rng.range(0.5, 2.0)).collect(),
        Fill::Below(bound) => (0..n).map(|_| rng.below(bound) as f32).collect(),
        Fill::Range => (0..n).map(|i| i as f32).collect(),
    };
    let data = match input.spec.dtype {
        DType::Float => Data::F32(numbers),
        DType::U32 => Data::U32(numbers.iter().map(|&v| v as u32).collect()),
        DType::U8 => Data::U8(numbers.iter().map(|&v| v as u8).collect()),
    };
    Tensor::new(input.spec.shape.clone(), data).expect("as many numbers as elements")
}
