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

/// Whether blocks in registers are small because each is compiled anew on every visit: in a browser, where nothing is kept on disk. On SwiftShader
/// (CPU time, cnn2 at 28x28) that takes 1.5 s off the 4.5 s of compiling, and a step runs as long as with the large ones; of the
/// `regblock` convolution, which a smaller block would slow down by a third, the block stays.
const SMALL_BLOCKS: bool = cfg!(target_arch = "wasm32");
