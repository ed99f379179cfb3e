//! The matrix-product kernels: which variants support which sizes.

use super::kernels::conv_parts::Reads;
use super::kernels::shapes::LinearShape;
use super::kernels::{gemm_tiled, matmul_regblock, matmul_shared, matmul_subgroup};
use super::lower::Lowering;
use crate::ops::PLAIN;
use crate::ops::matmul::{Dims, MatMul};

const FAST: [&str; 5] = ["subgroup", "subgroup_texture", "regblock", "shared", "tiled"];

/// The variants for a product of these sizes, the plain one first; `lanes` are those of a subgroup, where there are any.
#[must_use]
pub fn supported(op: MatMul, dims: Dims, bias: bool, lanes: Option<u32>) -> Vec<&'static str> {
    let fast = FAST.into_iter().filter(|variant| try_lower(variant, op, dims, bias, lanes).is_some());
    std::iter::once(PLAIN).chain(fast).collect()
}

/// The dispatches of a fast variant; none for a variant that does not support the sizes.
#[must_use]
pub fn lower(variant: &str, op: MatMul, dims: Dims, bias: bool, lanes: Option<u32>) -> Lowering {
    try_lower(variant, op, dims, bias, lanes).unwrap_or_default()
}

/// The three ways to transpose are the three directions of a linear layer `x [n, k], w [m, k] -> y [n, m]`.
fn try_lower(variant: &str, op: MatMul, Dims { m, n, k }: Dims, bias: bool, lanes: Option<u32>) -> Option<Lowering> {
    match (op.ta, op.tb, bias) {
        (false, true, _) => {
            let s = LinearShape { n: m, k, m: n, bias };
            match variant {
                "subgroup" => matmul_subgroup::forward(&s, lanes, Reads::Buffers),
                "subgroup_texture" => matmul_subgroup::forward(&s, lanes, Reads::Textures),
                "regblock" => matmul_regblock::forward(&s, None),
                "shared" => matmul_shared::forward(&s),
                _ => gemm_tiled::linear_forward(&s),
            }
        }
        (false, false, false) => {
            let s = LinearShape { n: m, k: n, m: k, bias };
            match variant {
                "subgroup" => matmul_subgroup::input_grad(&s, lanes, Reads::Buffers),
                "subgroup_texture" => matmul_subgroup::input_grad(&s, lanes, Reads::Textures),
                "regblock" => matmul_regblock::input_grad(&s, None),
                "shared" => matmul_shared::input_grad(&s),
                _ => gemm_tiled::linear_input_grad(&s),
            }
        }
        (true, false, false) => {
            let s = LinearShape { n: k, k: n, m, bias };
            match variant {
                "subgroup" => matmul_subgroup::weight_grad(&s, lanes, Reads::Buffers),
                "subgroup_texture" => matmul_subgroup::weight_grad(&s, lanes, Reads::Textures),
                "regblock" => matmul_regblock::weight_grad(&s, None),
                "shared" => matmul_shared::weight_grad(&s),
                _ => gemm_tiled::linear_weight_grad(&s),
            }
        }
        _ => None,
    }
}
