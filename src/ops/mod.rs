//! The ops: one page each, with the maths, the shape rule, the gradient rule, the CPU reference, the GPU lowering and
//! the samples that tests and benches loop over.
//!
//! An op is a small value (its parameters) that implements [`Op`] and, for both number types, [`Kernel`]. The page also
//! gives `Graph` a method that records it.

use std::any::Any;
use std::fmt::Debug;

use crate::autodiff::Backward;
use crate::gpu::lower::{AdapterKind, Lowering};
use crate::graph::{Graph, NodeId, VarView};
use crate::real::Real;
use crate::shape::{DType, ShapeError, Spec};

pub mod adaptive_avg_pool2d;
pub mod augment;
pub mod avg_pool2d;
pub mod batch_norm2d;
pub mod bce_with_logits;
pub mod binary;
pub mod channel_stats;
pub mod clip_grad_norm;
pub mod concat;
pub mod conv2d;
pub mod conv2d_block;
pub mod count_correct;
pub mod cross_entropy;
pub mod dropout;
pub mod ema_update;
pub mod gather;
pub mod gather_rows;
pub mod grad_stats;
pub mod matmul;
pub mod max_pool2d;
pub mod narrow;
pub mod optimizer_step;
mod partials;
pub mod pointwise;
pub mod pool2d;
pub mod registry;
pub mod reshape;
pub mod sample;
pub mod softmax;
pub mod sum_to;
pub mod write_rows;

/// What the graph, the executors and the tests ask of an op.
pub trait Op: Any + Kernel<f32> + Kernel<f64> + Debug + Send + Sync {
    /// The name under which it stands in the registry, in tables and in errors.
    fn name(&self) -> &'static str;

    /// The shape rule.
    ///
    /// # Errors
    /// A [`ShapeError`] that names the op and the shapes.
    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError>;

    /// The gradient rule: records the gradient with respect to each input (`None` where it is not needed or does not exist).
    ///
    /// # Errors
    /// A [`ShapeError`], by default that there is no derivative.
    fn backward(&self, _g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let input = cx.needs.iter().position(|&n| n).unwrap_or(0);
        Err(ShapeError::NoDerivative { op: self.name(), input })
    }

    /// False for inputs into which no gradient flows by nature: labels, indices, seeds, statistics whose dependence is
    /// counted elsewhere. A needed gradient that a differentiable input does not get is an error.
    fn differentiable(&self, _input: usize) -> bool {
        true
    }

    /// The GPU kernel variants that support these shapes on this adapter, the plain one first.
    fn variants(&self, _cx: &LowerCx) -> Vec<&'static str> {
        vec![PLAIN]
    }

    /// Named numbers about these shapes, by which the table (`gpu::choice`) may choose a variant; beside those that every op
    /// has (`gpu::choice::facts`). A name says the same for every shape of the op.
    fn facts(&self, _cx: &LowerCx) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The dispatches of variant `cx.variant` (one of [`Op::variants`]).
    fn lower(&self, cx: &LowerCx) -> Lowering;

    /// Floating-point operations, multiplications and additions counted apart.
    fn flops(&self, _inputs: &[&Spec], output: &Spec) -> u64 {
        output.numel() as u64
    }

    /// True if the output is input 0's memory under another shape: nothing runs.
    fn is_view(&self) -> bool {
        false
    }

    /// For an op that only lays its inputs side by side: the offset of each in the output, in elements. An executor may
    /// let the inputs be computed in place, and then nothing runs.
    fn packs(&self) -> Option<&[usize]> {
        None
    }

    /// True for an op whose value the dispatches of its input 0 write beside their own (`Arg::Companion`): a kernel with two
    /// results is recorded as two nodes. On a GPU nothing runs for it.
    fn companion(&self) -> bool {
        false
    }

    /// The ranges of persistent variables that it changes.
    fn updates(&self) -> Vec<VarView> {
        Vec::new()
    }

    /// Its parameters for tables: `k3 s1 p1`.
    fn detail(&self) -> String {
        String::new()
    }
}

/// The variant that every op has.
pub const PLAIN: &str = "plain";

/// The variant that moves four elements at a time.
pub(crate) const VEC4: &str = "vec4";

/// The variants of an op whose elements lie side by side in all its tensors: `vec4` where they are a whole number of it.
pub(crate) fn elementwise_variants(count: usize) -> Vec<&'static str> {
    if count > 0 && count.is_multiple_of(4) { vec![PLAIN, VEC4] } else { vec![PLAIN] }
}

/// The page and the number of invocations of such an op's variant.
pub(crate) fn elementwise_page(
    variant: &str,
    count: usize,
    plain: &'static str,
    vec4: &'static str,
) -> (&'static str, usize) {
    if variant == VEC4 { (vec4, count / 4) } else { (plain, count) }
}

/// The CPU reference in one number type.
pub trait Kernel<T: Real> {
    /// Computes the whole output from the inputs.
    fn eval(&self, cx: &mut Eval<'_, T>);
}

/// A tensor's elements as a CPU kernel reads them.
#[derive(Clone, Copy, Debug)]
pub enum View<'a, T> {
    /// Floats.
    Float(&'a [T]),
    /// Labels, indices, seeds.
    U32(&'a [u32]),
    /// Pixels.
    U8(&'a [u8]),
}

/// A tensor's elements as the CPU executor owns them.
#[derive(Clone, Debug, PartialEq)]
pub enum Array<T> {
    /// Floats.
    Float(Vec<T>),
    /// Labels, indices, seeds.
    U32(Vec<u32>),
    /// Pixels.
    U8(Vec<u8>),
}

impl<T: Real> Array<T> {
    /// Zeros.
    #[must_use]
    pub fn zeros(spec: &Spec) -> Self {
        match spec.dtype {
            DType::Float => Self::Float(vec![T::zero(); spec.numel()]),
            DType::U32 => Self::U32(vec![0; spec.numel()]),
            DType::U8 => Self::U8(vec![0; spec.numel()]),
        }
    }

    /// A range of it.
    #[must_use]
    pub fn view(&self, offset: usize, len: usize) -> View<'_, T> {
        match self {
            Self::Float(v) => View::Float(&v[offset..offset + len]),
            Self::U32(v) => View::U32(&v[offset..offset + len]),
            Self::U8(v) => View::U8(&v[offset..offset + len]),
        }
    }
}

/// What a CPU kernel sees. Types and lengths were checked by the shape rule, so the accessors only unwrap.
#[derive(Debug)]
pub struct Eval<'a, T> {
    /// The inputs' elements.
    pub inputs: &'a [View<'a, T>],
    /// The inputs' shapes.
    pub specs: &'a [&'a Spec],
    /// The output's shape.
    pub out_spec: &'a Spec,
    /// The output's elements; their old content is meaningless.
    pub out: &'a mut Array<T>,
    /// The ranges named by [`Op::updates`], to be changed in place.
    pub state: &'a mut [Vec<T>],
    /// Whether fast kernels may stand in for the readable loops.
    pub fast: bool,
}

impl<'a, T: Real> Eval<'a, T> {
    /// Input `i`'s floats.
    #[must_use]
    pub fn float(&self, i: usize) -> &'a [T] {
        match self.inputs[i] {
            View::Float(v) => v,
            _ => unreachable!("the shape rule lets only floats through"),
        }
    }

    /// Input `i`'s words.
    #[must_use]
    pub fn u32(&self, i: usize) -> &'a [u32] {
        match self.inputs[i] {
            View::U32(v) => v,
            _ => unreachable!("the shape rule lets only u32 through"),
        }
    }

    /// Input `i`'s bytes.
    #[must_use]
    pub fn u8(&self, i: usize) -> &'a [u8] {
        match self.inputs[i] {
            View::U8(v) => v,
            _ => unreachable!("the shape rule lets only bytes through"),
        }
    }

    /// The output's floats.
    pub fn out(&mut self) -> &mut [T] {
        match self.out {
            Array::Float(v) => v,
            _ => unreachable!("the shape rule made this a float tensor"),
        }
    }

    /// The output's words.
    pub fn out_u32(&mut self) -> &mut [u32] {
        match self.out {
            Array::U32(v) => v,
            _ => unreachable!("the shape rule made this a u32 tensor"),
        }
    }

    /// Input `i` for a fast kernel: `None` in `f64` or when only references may run.
    #[must_use]
    pub fn fast_f32(&self, i: usize) -> Option<&'a [f32]> {
        if self.fast { T::as_f32(self.float(i)) } else { None }
    }

    /// The output for a fast kernel.
    pub fn fast_out(&mut self) -> Option<&mut [f32]> {
        if self.fast { T::as_f32_mut(self.out()) } else { None }
    }
}

/// What a lowering sees.
#[derive(Clone, Debug)]
pub struct LowerCx<'a> {
    /// The inputs' shapes.
    pub inputs: &'a [&'a Spec],
    /// The output's shape.
    pub output: &'a Spec,
    /// What kind of adapter it is for.
    pub adapter: AdapterKind,
    /// Invocations in a subgroup, where the adapter has subgroup operations and all its subgroups are of one size. A
    /// workgroup of that many invocations is then one subgroup.
    pub subgroup: Option<u32>,
    /// Whether something asks for the value of the op's companion.
    pub companion: bool,
    /// The variant to lower.
    pub variant: &'a str,
}
