//! Convolution of images with one channel: `(x, w, bias) -> y`.

use super::SMALL_BLOCKS;
use super::grid::{grid, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Dispatch, Lowering};

/// Most values of the window that a thread keeps.
const WINDOW: usize = 160;

/// The forward convolution `(x, w, bias) -> y`; `None` where another kernel has to serve. `block` is rows and pixels of a thread.
#[must_use]
pub fn forward(p: &Conv2dShape, block: Option<[usize; 2]>) -> Option<Lowering> {
    let (h_out, w_out) = (p.h_out(), p.w_out());
    if p.c_in != 1 || p.groups != 1 || p.k_h * p.k_w > 25 || [p.x_len(), p.y_len(), p.w_len()].contains(&0) {
        return None;
    }
    // Two rows share the loads of the taps; more rows write to more places at once, which costs more than it saves.
    let [rows, pixels] = block.unwrap_or(if SMALL_BLOCKS { [1, 4] } else { [2.min(h_out), 8] });
    let reach = |block: usize, stride: usize, k: usize, dil: usize| (block - 1) * stride + (k - 1) * dil + 1;
    if reach(rows, p.stride_h, p.k_h, p.dil_h) * reach(pixels, p.stride_w, p.k_w, p.dil_w) > WINDOW {
        return None;
    }
    let (groups, row) = grid(p.n * h_out.div_ceil(rows) * w_out.div_ceil(pixels), 64)?;
    let mut consts = p.consts();
    // Four filters come as vec4s.
    let filters = if p.c_out.is_multiple_of(4) && !SMALL_BLOCKS { 4 } else { 1 };
    consts.extend([("RB", u(rows)), ("PB", u(pixels)), ("FILTERS", u(filters)), ("ROW", u(row))]);
    let mut args = vec![Arg::Input(0), Arg::Input(1)];
    args.extend(p.bias.then_some(Arg::Input(2)));
    args.push(Arg::Output);
    let forward = Dispatch { shader: "conv2d_grey.wgsl", entry: "forward", consts, args, groups };
    Some(Lowering { dispatches: vec![forward], scratch: Vec::new() })
}
