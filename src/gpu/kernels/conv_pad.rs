//! The copy of an image with its padding, in rows of vec4, that the register-blocked convolutions read.

use super::grid::{grid, loose};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Const, Dispatch};

/// Input 0 with `pad` rows and columns in front (negative ones are cut off), as `[n, c, h_pad, w_vec]` of vec4 in a scratch buffer;
/// `None` for more than a grid holds.
pub(super) fn pad(
    p: &Conv2dShape,
    [pad_h, pad_w]: [i64; 2],
    [h_pad, w_vec]: [usize; 2],
    scratch: usize,
) -> Option<Dispatch> {
    let (groups, row) = grid(p.n * p.c_in * h_pad * w_vec, 64)?;
    Some(Dispatch {
        shader: "conv2d_pad.wgsl",
        entry: "pad",
        consts: vec![
            ("N", loose(p.n)),
            ("C", loose(p.c_in)),
            ("H", loose(p.h_in)),
            ("W", loose(p.w_in)),
            ("H_PAD", loose(h_pad)),
            ("W_VEC", loose(w_vec)),
            ("PAD_H", Const::I(pad_h as i32)),
            ("PAD_W", Const::I(pad_w as i32)),
            ("ROW", loose(row)),
        ],
        args: vec![Arg::Input(0), Arg::Scratch(scratch)],
        groups,
    })
}
