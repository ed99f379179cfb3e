//! The two number types that the CPU executor computes in.

use num_traits::{Float, NumAssign};

use crate::ops::{Eval, Kernel, Op};

/// `f32` or `f64`.
pub trait Real: Float + NumAssign + Default + Send + Sync + std::fmt::Debug + std::iter::Sum + 'static {
    /// Rounds a constant.
    fn of(x: f64) -> Self;
    /// Widens.
    fn f64(self) -> f64;
    /// The slice itself where this type is `f32`: how an op finds out that its fast `f32` kernel applies.
    fn as_f32(slice: &[Self]) -> Option<&[f32]>;
    /// As [`Real::as_f32`], for outputs.
    fn as_f32_mut(slice: &mut [Self]) -> Option<&mut [f32]>;
    /// Runs an op's kernel for this type.
    fn run(op: &dyn Op, cx: &mut Eval<'_, Self>);
}

impl Real for f32 {
    fn of(x: f64) -> Self {
        x as Self
    }
    fn f64(self) -> f64 {
        f64::from(self)
    }
    fn as_f32(slice: &[Self]) -> Option<&[f32]> {
        Some(slice)
    }
    fn as_f32_mut(slice: &mut [Self]) -> Option<&mut [f32]> {
        Some(slice)
    }
    fn run(op: &dyn Op, cx: &mut Eval<'_, Self>) {
        Kernel::<Self>::eval(op, cx);
    }
}

impl Real for f64 {
    fn of(x: f64) -> Self {
        x
    }
    fn f64(self) -> f64 {
        self
    }
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
    fn as_f32_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
    fn run(op: &dyn Op, cx: &mut Eval<'_, Self>) {
        Kernel::<Self>::eval(op, cx);
    }
}
