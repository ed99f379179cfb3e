//! Direct convolution with the window clipped once: forward and input gradient, any groups.

use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Dispatch, Lowering, MAX_TURNS};

/// The forward convolution `(x, w, bias) -> y`; `None` for empty tensors and windows of more than [`MAX_TURNS`] weights.
#[must_use]
pub fn forward(p: &Conv2dShape) -> Option<Lowering> {
    // Without a bias its binding holds the weight, which the kernel then never reads.
    let args = vec![Arg::Input(0), Arg::Input(1), Arg::Input(if p.bias { 2 } else { 1 }), Arg::Output];
    lower(p, "forward", p.c_in / p.groups, p.y_len(), args)
}

/// The input gradient `(dy, w) -> dx`, where either the stride or the dilation of each axis is 1.
#[must_use]
pub fn input_grad(p: &Conv2dShape) -> Option<Lowering> {
    if p.stride_h.min(p.dil_h) > 1 || p.stride_w.min(p.dil_w) > 1 {
        return None;
    }
    lower(p, "grad_input", p.c_out / p.groups, p.x_len(), vec![Arg::Input(0), Arg::Input(1), Arg::Output])
}

fn lower(p: &Conv2dShape, entry: &'static str, channels: usize, count: usize, args: Vec<Arg>) -> Option<Lowering> {
    // The turns of the outer loops count too.
    let turns = channels * (1 + p.k_h * (1 + p.k_w));
    if [p.x_len(), p.y_len(), p.w_len()].contains(&0) || turns > MAX_TURNS || count >= 1 << 31 {
        return None;
    }
    let dispatch = Dispatch::elementwise("conv2d_direct.wgsl", entry, count, args, p.consts());
    Some(Lowering { dispatches: vec![dispatch], scratch: Vec::new() })
}
