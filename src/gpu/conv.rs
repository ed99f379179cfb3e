//! The faster convolution kernels, and which shapes each supports.

use super::lower::{Const, Lowering};
use crate::ops::PLAIN;

/// Sizes of a convolution as kernels take them; see `ops/conv2d.rs` for their meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConvShape {
    pub n: usize,
    pub c_in: usize,
    pub h_in: usize,
    pub w_in: usize,
    pub c_out: usize,
    pub h_out: usize,
    pub w_out: usize,
    pub k_h: usize,
    pub k_w: usize,
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
    pub bias: bool,
}

/// Which of the three kernels of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// x, w, b -> y
    Forward,
    /// dy, w -> dx
    InputGrad,
    /// x, dy -> dw
    WeightGrad,
}

pub use Direction::{Forward as FORWARD, InputGrad as INPUT_GRAD, WeightGrad as WEIGHT_GRAD};

/// The constants under which every convolution kernel knows its sizes.
#[must_use]
pub fn consts(s: &ConvShape) -> Vec<(&'static str, Const)> {
    let u = |x: usize| Const::U(x as u32);
    vec![
        ("N", u(s.n)),
        ("C_IN", u(s.c_in)),
        ("H_IN", u(s.h_in)),
        ("W_IN", u(s.w_in)),
        ("C_OUT", u(s.c_out)),
        ("H_OUT", u(s.h_out)),
        ("W_OUT", u(s.w_out)),
        ("K_H", u(s.k_h)),
        ("K_W", u(s.k_w)),
        ("STRIDE_H", u(s.stride[0])),
        ("STRIDE_W", u(s.stride[1])),
        ("PAD_H", u(s.padding[0])),
        ("PAD_W", u(s.padding[1])),
        ("DIL_H", u(s.dilation[0])),
        ("DIL_W", u(s.dilation[1])),
        ("GROUPS", u(s.groups)),
        ("BIAS", Const::B(s.bias)),
    ]
}

/// The variants for a convolution of these sizes, the plain one first.
#[must_use]
pub fn supported(_direction: Direction, _shape: &ConvShape) -> Vec<&'static str> {
    vec![PLAIN]
}

/// The dispatches of a fast variant.
#[must_use]
pub fn lower(_direction: Direction, _variant: &str, _shape: &ConvShape) -> Lowering {
    Lowering::default()
}
