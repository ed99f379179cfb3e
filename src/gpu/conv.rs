//! The convolution kernels: which variants support which shapes.

pub use super::kernels::conv_subgroup::{Epilogue, Gate};
pub use super::kernels::shapes::Conv2dShape;
use super::kernels::{conv_regblock, conv_subgroup, conv_weight_grey, conv_weight_regblock, gemm_tiled};
use super::lower::Lowering;
use crate::ops::PLAIN;

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

/// The fast variants, by name.
const FAST: [&str; 4] = ["grey", "regblock", "subgroup", "tiled"];

/// The variants for a convolution of these sizes, the plain one first.
#[must_use]
pub fn supported(direction: Direction, shape: &Conv2dShape, subgroup: Option<u32>) -> Vec<&'static str> {
    let fast = FAST.into_iter().filter(|variant| try_lower(direction, variant, shape, subgroup).is_some());
    std::iter::once(PLAIN).chain(fast).collect()
}

/// The dispatches of a fast variant; none for a variant that does not support the shape.
#[must_use]
pub fn lower(direction: Direction, variant: &str, shape: &Conv2dShape, subgroup: Option<u32>) -> Lowering {
    try_lower(direction, variant, shape, subgroup).unwrap_or_default()
}

fn try_lower(direction: Direction, variant: &str, s: &Conv2dShape, subgroup: Option<u32>) -> Option<Lowering> {
    match (direction, variant) {
        (FORWARD, "regblock") => conv_regblock::forward(s, None),
        (FORWARD, "subgroup") => conv_subgroup::forward(s, subgroup, Epilogue::None),
        (FORWARD, "tiled") => gemm_tiled::conv2d_forward(s),
        (INPUT_GRAD, "regblock") => conv_regblock::input_grad(s, None),
        (INPUT_GRAD, "subgroup") => conv_subgroup::input_grad(s, subgroup, Gate::None),
        (INPUT_GRAD, "tiled") => gemm_tiled::conv2d_input_grad(s),
        (WEIGHT_GRAD, "grey") => conv_weight_grey::weight_grad(s),
        (WEIGHT_GRAD, "regblock") => conv_weight_regblock::lower(s, None),
        (WEIGHT_GRAD, "subgroup") => conv_subgroup::weight_grad(s, subgroup, Gate::None),
        (WEIGHT_GRAD, "tiled") => gemm_tiled::conv2d_weight_grad(s),
        _ => None,
    }
}

/// The forward kernel of a convolution with what follows it, for adapters with subgroups; `None` where there is none.
#[must_use]
pub fn forward_block(shape: &Conv2dShape, subgroup: Option<u32>, epilogue: Epilogue) -> Option<Lowering> {
    conv_subgroup::forward(shape, subgroup, epilogue)
}

/// `(dy, gate, w) -> dx`, likewise.
#[must_use]
pub fn input_grad_block(shape: &Conv2dShape, subgroup: Option<u32>, gate: Gate) -> Option<Lowering> {
    conv_subgroup::input_grad(shape, subgroup, gate)
}

/// `(x, dy, gate) -> dw`, likewise.
#[must_use]
pub fn weight_grad_block(shape: &Conv2dShape, subgroup: Option<u32>, gate: Gate) -> Option<Lowering> {
    conv_subgroup::weight_grad(shape, subgroup, gate)
}
