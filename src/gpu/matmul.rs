//! The faster kernels of matrix products, and which shapes each supports.

use super::lower::Lowering;
use crate::ops::PLAIN;
use crate::ops::matmul::{Dims, MatMul};

/// The variants for a product of these sizes, the plain one first.
#[must_use]
pub fn supported(_op: MatMul, _dims: Dims) -> Vec<&'static str> {
    vec![PLAIN]
}

/// The dispatches of a fast variant.
#[must_use]
pub fn lower(_variant: &str, _op: MatMul, _dims: Dims, _bias: bool) -> Lowering {
    Lowering::default()
}
