//! Fast `f32` kernels for the CPU: what runs where there is no GPU.
//!
//! Every function works on plain slices, NCHW and row-major, and overwrites its whole output. Nothing is
//! remembered between calls but scratch memory. Convolution and linear layers unfold their input block by block
//! and leave the products to the `gemm` crate; the rest are loops that the compiler vectorises,
//! for the processor at hand where that pays ([`vectorised`]).
//!
//! **Order of summation.** Work is cut into pieces that depend on the shapes alone, and partial sums are added in
//! the order of the pieces. So the bits of a result do not depend on the number of threads. They may differ
//! between processors, because `gemm` picks its tiles by instruction set and cache size.
//!
//! **Panics.** The callers have checked the shapes when the graph was recorded. A slice whose length is not what the
//! shape says is a bug in the caller, and each function panics on it with both lengths, as `copy_from_slice` does.

mod augment;
mod batch_norm;
mod conv2d;
mod conv2d_weight;
mod conv_shape;
mod elementwise;
mod gather;
mod gemm;
mod im2col;
mod linear;
mod pool;
mod scratch;
mod simd;
mod softmax;
mod sum;
mod update;

pub use augment::{Border, Placement, bilinear};
pub use batch_norm::{
    BatchNormShape, batch_norm2d, batch_norm2d_input_grad, batch_norm2d_param_grads, batch_norm2d_stats,
};
pub use conv_shape::ConvShape;
pub use conv2d::{conv2d, conv2d_bias_grad, conv2d_input_grad};
pub use conv2d_weight::conv2d_weight_grad;
pub use elementwise::{fill, map1, map2, map3, relu, relu_grad};
pub use gather::{ImageBatch, gather_normalise};
pub use gemm::{Matrix, gemm};
pub use linear::{
    linear, linear_bias_grad, linear_input_grad, linear_weight_grad, matmul, matmul_grad_lhs, matmul_grad_rhs,
};
pub use pool::{PoolShape, avg_pool2d, avg_pool2d_grad, max_pool2d, max_pool2d_grad};
pub use simd::{Loop, vectorised};
pub use softmax::{softmax, softmax_grad};
pub use sum::{sum_all, sum_axis};
pub use update::{Adam, Sgd, adam, sgd};

/// Panics with both lengths when a slice is not as long as its shape says.
#[track_caller]
fn check_len(what: &str, found: usize, expected: usize) {
    assert!(found == expected, "{what}: the slice holds {found} values, its shape {expected}");
}

#[cfg(test)]
mod tests;
