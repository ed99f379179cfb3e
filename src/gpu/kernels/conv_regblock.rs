//! Register-blocked convolution: forward, and the input gradient of convolutions with stride 1 by the same kernel.

use super::SMALL_BLOCKS;
use super::conv_pad::pad;
use super::conv_parts::repack;
use super::grid::{grid, late, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};

/// How much of the output one thread owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Output channels, a multiple of 4.
    pub channels: usize,
    /// Output rows.
    pub rows: usize,
    /// Output pixels of a row.
    pub pixels: usize,
    /// Whether the rows of taps are unrolled too; `rows` must be 1 where they are not.
    pub unroll_h: bool,
}

/// A correlation whose padding may be negative (a crop), which is what both directions come down to.
struct Correlation {
    shape: Conv2dShape,
    h_out: usize,
    w_out: usize,
    pad_h: i64,
    pad_w: i64,
    flip: bool,
}

/// The forward convolution `(x, w, bias) -> y`; `None` where another kernel has to serve.
#[must_use]
pub fn forward(p: &Conv2dShape, block: Option<Block>) -> Option<Lowering> {
    let c = Correlation {
        shape: *p,
        h_out: p.h_out(),
        w_out: p.w_out(),
        pad_h: p.pad_h as i64,
        pad_w: p.pad_w as i64,
        flip: false,
    };
    lower(&c, block)
}

/// The input gradient `(dy, w) -> dx` for stride 1: the correlation of `dy` with the flipped, transposed weights, padded
/// by `dil (k - 1) - pad`. `None` for other strides.
#[must_use]
pub fn input_grad(p: &Conv2dShape, block: Option<Block>) -> Option<Lowering> {
    if (p.stride_h, p.stride_w) != (1, 1) {
        return None;
    }
    let shape = Conv2dShape { c_in: p.c_out, c_out: p.c_in, h_in: p.h_out(), w_in: p.w_out(), bias: false, ..*p };
    let c = Correlation {
        shape,
        h_out: p.h_in,
        w_out: p.w_in,
        pad_h: (p.dil_h * (p.k_h - 1)) as i64 - p.pad_h as i64,
        pad_w: (p.dil_w * (p.k_w - 1)) as i64 - p.pad_w as i64,
        flip: true,
    };
    lower(&c, block)
}

/// Chooses the block: some 32 pixels of 4 channels, 128 sums in all. More sums save loads but make the pipeline dear to
/// compile; 4 rows of 8 pixels share the most taps. Several blocks in a row must start at multiples of 4 for the vec4 loads.
fn choose(c: &Correlation) -> Block {
    let pixels = if c.w_out <= 16 && !c.w_out.is_multiple_of(8) {
        c.w_out
    } else {
        // The least waste first, then the squarest.
        [8, 12, 16].into_iter().min_by_key(|&b| c.w_out.div_ceil(b) * b).unwrap_or(8)
    };
    let most = (32 / pixels).clamp(1, c.h_out.min(8));
    // As many blocks as that takes, and then no more rows than they need.
    let rows = c.h_out.div_ceil(c.h_out.div_ceil(most));
    if SMALL_BLOCKS {
        return Block { channels: 4, rows: 1, pixels, unroll_h: false };
    }
    Block { channels: 4, rows, pixels, unroll_h: c.shape.k_h * c.shape.k_w <= 9 }
}

fn lower(c: &Correlation, block: Option<Block>) -> Option<Lowering> {
    let p = &c.shape;
    let empty = [p.n, p.c_in, p.c_out, c.h_out, c.w_out, p.h_in, p.w_in].contains(&0);
    // Wider kernels would need more registers for one row of inputs than pay.
    if p.groups != 1 || p.k_w > 11 || p.dil_w * (p.k_w - 1) > 64 || p.stride_w > 4 || empty {
        return None;
    }
    let b = block.unwrap_or_else(|| choose(c));
    let (w_blocks, h_blocks) = (c.w_out.div_ceil(b.pixels), c.h_out.div_ceil(b.rows));
    let h_pad = (h_blocks * b.rows - 1) * p.stride_h + (p.k_h - 1) * p.dil_h + 1;
    let vecs = ((b.pixels - 1) * p.stride_w + (p.k_w - 1) * p.dil_w + 1).div_ceil(4);
    let w_vec = (w_blocks - 1) * b.pixels * p.stride_w / 4 + vecs;
    let planes = p.n * p.c_in;
    let blocks = p.c_out.div_ceil(b.channels);
    let (groups, row) = grid(blocks * w_blocks * h_blocks * p.n, 8)?;
    let (repack, packed) = repack(p, 1, b.channels, [c.flip, p.bias])?;
    let pad = pad(p, [c.pad_h, c.pad_w], [h_pad, w_vec], 1)?;
    let forward = Dispatch {
        shader: "conv2d_regblock.wgsl",
        entry: "forward",
        consts: vec![
            ("N", late(p.n)),
            ("C_IN", late(p.c_in)),
            ("C_OUT", late(p.c_out)),
            ("EDGE", Const::B(!p.c_out.is_multiple_of(b.channels))),
            ("H_OUT", u(c.h_out)),
            ("W_OUT", u(c.w_out)),
            ("H_PAD", u(h_pad)),
            ("W_VEC", u(w_vec)),
            ("K_H", u(p.k_h)),
            ("K_W", u(p.k_w)),
            ("STRIDE_H", u(p.stride_h)),
            ("STRIDE_W", u(p.stride_w)),
            ("DIL_H", u(p.dil_h)),
            ("DIL_W", u(p.dil_w)),
            ("OB", u(b.channels)),
            ("RB", u(b.rows)),
            ("PB", u(b.pixels)),
            ("UNROLL_H", Const::B(b.unroll_h)),
            ("ROW", late(row)),
        ],
        args: vec![Arg::Scratch(1), Arg::Scratch(0), Arg::Output],
        groups,
    };
    Some(Lowering { dispatches: vec![repack, pad, forward], scratch: vec![packed, planes * h_pad * w_vec * 4] })
}
