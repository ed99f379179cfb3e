//! The convolution kernels: which variants support which shapes.

use super::kernels::conv_parts::Reads;
pub use super::kernels::conv_parts::{Epilogue, Gate};
use super::kernels::conv_winograd::{Product, Sizes};
pub use super::kernels::shapes::Conv2dShape;
use super::kernels::{
    conv_direct, conv_grey, conv_regblock, conv_subgroup, conv_weight_grey, conv_weight_regblock, conv_weight_subgroup,
};
use super::kernels::{conv_weight_winograd, conv_winograd, gemm_tiled};
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
const FAST: [&str; 12] = [
    "direct",
    "grey",
    "regblock",
    "subgroup",
    "subgroup_texture",
    "tiled",
    "winograd2",
    "winograd4",
    "winograd2_subgroup",
    "winograd4_subgroup",
    "winograd2_tiled",
    "winograd4_tiled",
];

/// The subgroup variants by name: where they read their inputs.
fn reads(variant: &str) -> Option<Reads> {
    match variant {
        "subgroup" => Some(Reads::Buffers),
        "subgroup_texture" => Some(Reads::Textures),
        _ => None,
    }
}

/// Winograd's variants by name: the outputs along the side of a tile, and how the products are computed.
fn winograd(variant: &str, subgroup: Option<u32>) -> Option<(usize, Product)> {
    let (m, product) = variant.strip_prefix("winograd")?.split_at(1);
    let product = match product {
        "" => Product::Registers,
        "_subgroup" => Product::Subgroup(subgroup? as usize),
        _ => Product::Tiled,
    };
    Some((if m == "2" { 2 } else { 4 }, product))
}

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
    if variant.starts_with("winograd") {
        let (m, product) = winograd(variant, subgroup)?;
        return match direction {
            FORWARD => conv_winograd::forward(s, m, product, Sizes::default(), Epilogue::None),
            INPUT_GRAD => conv_winograd::input_grad(s, m, product, Sizes::default(), Gate::None),
            WEIGHT_GRAD => conv_weight_winograd::weight_grad(s, m, product, Sizes::default(), Gate::None),
        };
    }
    if let Some(reads) = reads(variant) {
        return match direction {
            FORWARD => conv_subgroup::forward(s, subgroup, reads, Epilogue::None),
            INPUT_GRAD => conv_subgroup::input_grad(s, subgroup, reads, Gate::None),
            WEIGHT_GRAD => conv_weight_subgroup::weight_grad(s, subgroup, reads, Gate::None),
        };
    }
    match (direction, variant) {
        (FORWARD, "direct") => conv_direct::forward(s),
        (FORWARD, "grey") => conv_grey::forward(s, None),
        (FORWARD, "regblock") => conv_regblock::forward(s, None),
        (FORWARD, "tiled") => gemm_tiled::conv2d_forward(s),
        (INPUT_GRAD, "direct") => conv_direct::input_grad(s),
        (INPUT_GRAD, "regblock") => conv_regblock::input_grad(s, None),
        (INPUT_GRAD, "tiled") => gemm_tiled::conv2d_input_grad(s),
        (WEIGHT_GRAD, "grey") => conv_weight_grey::weight_grad(s),
        (WEIGHT_GRAD, "regblock") => conv_weight_regblock::lower(s, None),
        (WEIGHT_GRAD, "tiled") => gemm_tiled::conv2d_weight_grad(s),
        _ => None,
    }
}

/// The fast variants of a convolution with what follows it.
const FAST_BLOCK: [&str; 8] = [
    "subgroup",
    "subgroup_texture",
    "winograd2",
    "winograd4",
    "winograd2_subgroup",
    "winograd4_subgroup",
    "winograd2_tiled",
    "winograd4_tiled",
];

/// Which kernel of a convolution with what follows it: of its gradients, what they pass on their way to its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// `(x, w, bias) -> y`
    Forward(Epilogue),
    /// `(dy, gate, w) -> dx`
    InputGrad(Gate),
    /// `(x, dy, gate) -> dw`
    WeightGrad(Gate),
}

/// The variants of a convolution with what follows it, the plain one first.
#[must_use]
pub fn supported_block(block: Block, shape: &Conv2dShape, subgroup: Option<u32>) -> Vec<&'static str> {
    let fast = FAST_BLOCK.into_iter().filter(|variant| try_lower_block(block, variant, shape, subgroup).is_some());
    std::iter::once(PLAIN).chain(fast).collect()
}

/// The dispatches of a fast variant; none for a variant that does not support the shape.
#[must_use]
pub fn lower_block(block: Block, variant: &str, shape: &Conv2dShape, subgroup: Option<u32>) -> Lowering {
    try_lower_block(block, variant, shape, subgroup).unwrap_or_default()
}

fn try_lower_block(block: Block, variant: &str, s: &Conv2dShape, subgroup: Option<u32>) -> Option<Lowering> {
    if let Some(reads) = reads(variant) {
        return match block {
            Block::Forward(epilogue) => conv_subgroup::forward(s, subgroup, reads, epilogue),
            Block::InputGrad(gate) => conv_subgroup::input_grad(s, subgroup, reads, gate),
            Block::WeightGrad(gate) => conv_weight_subgroup::weight_grad(s, subgroup, reads, gate),
        };
    }
    let ((m, product), sizes) = (winograd(variant, subgroup)?, Sizes::default());
    match block {
        Block::Forward(epilogue) => conv_winograd::forward(s, m, product, sizes, epilogue),
        Block::InputGrad(gate) => conv_winograd::input_grad(s, m, product, sizes, gate),
        Block::WeightGrad(gate) => conv_weight_winograd::weight_grad(s, m, product, sizes, gate),
    }
}
