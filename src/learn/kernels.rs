//! The ladder of kernels, with times of the reader's device.

use crate::bench::cases::Case;
use crate::bench::kernels::KernelResult;
use crate::bench::shapes;
use crate::check::CheckError;

/// The convolution that is timed: small enough for software Vulkan's plainest kernel.
pub const SHAPE: &str = "conv2d n=8 c=32 size=32 o=64 k=3 pad=1";

/// Its three directions.
///
/// # Errors
/// None: the text is one that can be read.
pub fn cases() -> Result<Vec<Case>, String> {
    shapes::parse(SHAPE, None).map_err(|e| e.to_string())
}

pub(super) fn text() -> Result<String, CheckError> {
    Ok(format!(
        "All kernels of a convolution give the same numbers; tests hold each against the reference. They differ in what they load how often.\n\n\
         1. `plain`: one thread an output, which loads everything that it needs. Each pixel is loaded by all threads whose windows cover it.\n\
         2. `tiled`: a workgroup loads a part of the image and of the weights once, and its threads share it.\n\
         3. `regblock`: a thread computes a block of outputs and keeps what it loaded in registers, so that each load serves many products.\n\
         4. `subgroup`: lanes that run in step hand each other what they loaded, without a workgroup's barriers.\n\
         5. `winograd`: 4x4 outputs at once with a quarter of the multiplications, for three passes over memory.\n\n\
         Which ones an adapter has depends on it and on the shape. `shaders/conv2d_*.wgsl` hold them; the header of each page states its idea.\n\
         `radiograd learn kernels` times them on your device for this convolution: `{SHAPE}`.\n\n\
         Count before you measure: the products of a shape are fixed, and so are the bytes that must move at least once. The larger of\n\
         the two times is the floor; `radiograd bench kernels --ladder` prints how far each kernel is above it."
    ))
}

/// The times as a table, the slowest of each direction as 1.
#[must_use]
pub fn table(results: &[KernelResult]) -> String {
    let mut out = String::from("| direction | kernel | time | GFLOP/s | times as fast |\n|---|---|---|---|---|\n");
    for r in results {
        let slowest = results.iter().filter(|o| o.direction == r.direction).map(|o| o.times.median).fold(0.0, f64::max);
        let mark = if r.chosen { " (training takes it)" } else { "" };
        out += &format!(
            "| {} | {}{mark} | {:.3} ms | {:.2} | {:.1} |\n",
            r.direction.words(),
            r.kernel,
            1e3 * r.times.median,
            1e-9 * r.flops_per_second,
            slowest / r.times.median
        );
    }
    out
}
