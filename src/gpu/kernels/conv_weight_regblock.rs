//! Register-blocked weight gradient of a convolution: `(x, dy) -> dw`.

use super::SMALL_BLOCKS;
use super::grid::{grid, late, loose, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Dispatch, Lowering, MAX_TURNS};

/// How much one thread owns: its sums and the patch of pixels it takes in at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Output channels, a multiple of 4 (input channels are always 4).
    pub channels: usize,
    /// Rows of taps.
    pub taps: usize,
    /// Rows of a patch.
    pub rows: usize,
    /// Pixels of a row of a patch.
    pub pixels: usize,
}

/// The weight gradient `(x, dy) -> dw`; `None` where another kernel has to serve.
#[must_use]
pub fn lower(p: &Conv2dShape, block: Option<Block>) -> Option<Lowering> {
    let (h_out, w_out) = (p.h_out(), p.w_out());
    if p.groups != 1 || p.k_w > 11 || [p.x_len(), p.y_len(), p.w_len()].contains(&0) {
        return None;
    }
    // Larger patches would save loads, but they spill registers and take longer to compile; so would more channels.
    let b = block.unwrap_or_else(|| Block {
        channels: if p.c_out <= 4 { 4 } else { 8 },
        taps: if p.k_h * p.k_w <= 9 && !SMALL_BLOCKS { p.k_h } else { 1 },
        rows: 1,
        pixels: 2.min(w_out),
    });
    let (w_blocks, h_blocks) = (w_out.div_ceil(b.pixels), h_out.div_ceil(b.rows));
    let (in_vec, out_blocks, tap_blocks) = (p.c_in.div_ceil(4), p.c_out.div_ceil(b.channels), p.k_h.div_ceil(b.taps));
    let out_vec = out_blocks * b.channels / 4;
    let h_pad = (h_blocks * b.rows - 1) * p.stride_h + (tap_blocks * b.taps - 1) * p.dil_h + 1;
    let w_pad = (w_blocks * b.pixels - 1) * p.stride_w + (p.k_w - 1) * p.dil_w + 1;
    let tiles = out_blocks * in_vec * tap_blocks;
    // Enough threads for some dozens of workgroups, and sums short enough to keep their accuracy.
    let splits = (1024usize.div_ceil(tiles)).clamp(1, 64).min(p.n * h_blocks);
    // No invocation may take more turns of its loops than software Vulkan allows.
    let splits = splits.max((p.n * h_blocks * w_blocks).div_ceil(MAX_TURNS / 2)).min(p.n * h_blocks);
    let nhwc =
        |arg: usize, scratch: usize, [c, h, w]: [usize; 3], vec: usize, [hp, wp]: [usize; 2], [ph, pw]: [usize; 2]| {
            let (groups, row) = grid(p.n * hp * wp * vec, 64)?;
            Some(Dispatch {
                shader: "conv2d_nhwc.wgsl",
                entry: "nhwc",
                consts: vec![
                    ("N", loose(p.n)),
                    ("C", loose(c)),
                    ("H", loose(h)),
                    ("W", loose(w)),
                    ("C_VEC", loose(vec)),
                    ("H_PAD", loose(hp)),
                    ("W_PAD", loose(wp)),
                    ("PAD_H", loose(ph)),
                    ("PAD_W", loose(pw)),
                    ("ROW", loose(row)),
                ],
                args: vec![Arg::Input(arg), Arg::Scratch(scratch)],
                groups,
            })
        };
    let (groups, row) = grid(tiles * splits, 8)?;
    let (rows, columns) = (h_blocks * b.rows, w_blocks * b.pixels);
    let (gather_groups, gather_row) = grid(p.w_len(), 64)?;
    let taps_pad = tap_blocks * b.taps * p.k_w;
    let dispatches = vec![
        nhwc(0, 0, [p.c_in, p.h_in, p.w_in], in_vec, [h_pad, w_pad], [p.pad_h, p.pad_w])?,
        nhwc(1, 1, [p.c_out, h_out, w_out], out_vec, [rows, columns], [0, 0])?,
        Dispatch {
            shader: "conv2d_wgrad_regblock.wgsl",
            entry: "weight_grad",
            consts: vec![
                ("N", late(p.n)),
                ("C_IN", late(p.c_in)),
                ("C_OUT", late(p.c_out)),
                ("H_PAD", late(h_pad)),
                ("W_PAD", late(w_pad)),
                ("H_BLOCKS", late(h_blocks)),
                ("W_BLOCKS", late(w_blocks)),
                ("K_H", u(p.k_h)),
                ("K_W", u(p.k_w)),
                ("STRIDE_H", u(p.stride_h)),
                ("STRIDE_W", u(p.stride_w)),
                ("DIL_H", u(p.dil_h)),
                ("DIL_W", u(p.dil_w)),
                ("OB", u(b.channels)),
                ("KB", u(b.taps)),
                ("RB", u(b.rows)),
                ("PB", u(b.pixels)),
                ("SPLITS", late(splits)),
                ("ROW", late(row)),
            ],
            args: vec![Arg::Scratch(0), Arg::Scratch(1), Arg::Scratch(2)],
            groups,
        },
        Dispatch {
            shader: "conv2d_wgrad_gather.wgsl",
            entry: "gather",
            consts: vec![
                ("C_IN", u(p.c_in)),
                ("C_OUT", u(p.c_out)),
                ("TAPS", u(p.k_h * p.k_w)),
                ("IN_PAD", u(in_vec * 4)),
                ("OUT_PAD", u(out_vec * 4)),
                ("TAPS_PAD", u(taps_pad)),
                ("SPLITS", u(splits)),
                ("ROW", u(gather_row)),
            ],
            args: vec![Arg::Scratch(2), Arg::Output],
            groups: gather_groups,
        },
    ];
    let scratch = vec![
        p.n * h_pad * w_pad * in_vec * 4,
        p.n * rows * columns * out_vec * 4,
        splits * in_vec * 4 * taps_pad * out_vec * 4,
    ];
    Some(Lowering { dispatches, scratch })
}
