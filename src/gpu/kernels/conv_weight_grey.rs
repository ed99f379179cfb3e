//! Weight gradient of a convolution with one input channel: `(x, dy) -> dw`.

use super::SMALL_BLOCKS;
use super::conv_pad::pad;
use super::grid::{grid, loose, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};

/// Output channels that a thread owns.
const CHANNELS: usize = 8;

/// The weight gradient `(x, dy) -> dw`; `None` where another kernel has to serve.
#[must_use]
pub fn weight_grad(p: &Conv2dShape) -> Option<Lowering> {
    let (h_out, w_out) = (p.h_out(), p.w_out());
    // More taps would need more registers than pay.
    if p.c_in != 1 || p.groups != 1 || p.k_h * p.k_w > 25 || [p.x_len(), p.y_len(), p.w_len()].contains(&0) {
        return None;
    }
    let ob = match p.k_h * p.k_w {
        _ if SMALL_BLOCKS => 2,
        10.. => 4,
        _ => CHANNELS,
    };
    let vecs = (3 * p.stride_w + (p.k_w - 1) * p.dil_w + 1).div_ceil(4);
    let w_vec = (w_out.div_ceil(4) - 1) * p.stride_w + vecs;
    let h_pad = (h_out - 1) * p.stride_h + (p.k_h - 1) * p.dil_h + 1;
    // Some hundred threads, each with as many rows as that leaves it.
    let threads = p.n * p.c_out.div_ceil(ob);
    let lines = h_out.div_ceil(1024usize.div_ceil(threads).min(h_out));
    let splits = p.n * h_out.div_ceil(lines);
    let (groups, row) = grid(splits * p.c_out.div_ceil(ob), 8)?;
    let (sum_groups, sum_row) = grid(p.w_len(), 64)?;
    let pad = pad(p, [p.pad_h as i64, p.pad_w as i64], [h_pad, w_vec], 0)?;
    let gradient = Dispatch {
        shader: "conv2d_grey_wgrad.wgsl",
        entry: "weight_grad",
        consts: vec![
            ("N", u(p.n)),
            ("C_OUT", u(p.c_out)),
            ("H_OUT", u(h_out)),
            ("W_OUT", u(w_out)),
            ("H_PAD", u(h_pad)),
            ("W_VEC", u(w_vec)),
            ("K_H", u(p.k_h)),
            ("K_W", u(p.k_w)),
            ("STRIDE_H", u(p.stride_h)),
            ("STRIDE_W", u(p.stride_w)),
            ("DIL_H", u(p.dil_h)),
            ("DIL_W", u(p.dil_w)),
            ("OB", u(ob)),
            ("LINES", u(lines)),
            ("ROW", u(row)),
        ],
        args: vec![Arg::Scratch(0), Arg::Input(1), Arg::Scratch(1)],
        groups,
    };
    let sum = Dispatch {
        shader: "sum_partials.wgsl",
        entry: "sum_partials",
        consts: vec![
            ("LEN", loose(p.w_len())),
            ("SPLITS", loose(splits)),
            ("BIAS", Const::B(false)),
            ("ROW", loose(sum_row)),
        ],
        args: vec![Arg::Scratch(1), Arg::Output],
        groups: sum_groups,
    };
    Some(Lowering { dispatches: vec![pad, gradient, sum], scratch: vec![p.n * h_pad * w_vec * 4, splits * p.w_len()] })
}
