//! How the faster kernels are dispatched: one file a family, each beside its WGSL pages.

pub mod conv_direct;
pub mod conv_grey;
pub mod conv_regblock;
pub mod conv_subgroup;
pub mod conv_weight_grey;
pub mod conv_weight_regblock;
pub mod conv_weight_winograd;
pub mod conv_winograd;
pub mod gemm_tiled;
mod grid;
pub mod matmul_regblock;
pub mod matmul_subgroup;
pub mod shapes;
