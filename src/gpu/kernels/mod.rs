//! How the faster kernels are dispatched: one file a family, each beside its WGSL pages.

pub mod conv_direct;
pub mod conv_grey;
mod conv_pad;
pub mod conv_parts;
pub mod conv_regblock;
pub mod conv_subgroup;
pub mod conv_weight_grey;
pub mod conv_weight_regblock;
pub mod conv_weight_subgroup;
pub mod conv_weight_winograd;
pub mod conv_winograd;
pub mod gemm_tiled;
mod grid;
pub mod matmul_regblock;
pub mod matmul_shared;
pub mod matmul_subgroup;
pub mod shapes;

/// Whether blocks in registers are small because each is compiled anew on every visit: in a browser, where nothing is kept on disk. On
/// SwiftShader the kernels of cnn2 at 28x28 take 1.4 s of CPU time to compile even so, as long as three steps.
pub(super) const SMALL_BLOCKS: bool = cfg!(target_arch = "wasm32");
