//! Tiled implicit matrix product for adapters with a GPU behind them: convolution, linear layers, all directions.

use super::grid::{grid, u};
use super::shapes::{Conv2dShape, LinearShape};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};

/// Which index functions the product uses; the numbers are the template's `MODE`.
#[derive(Clone, Copy)]
enum Mode {
    Forward = 0,
    InputGrad = 1,
    WeightGrad = 2,
    Linear = 3,
}

struct Product {
    mode: Mode,
    i: usize,
    j: usize,
    k: usize,
    /// Whether neighbouring `k` lie side by side in `a`, in `b`.
    along: [bool; 2],
    args: [Arg; 2],
    bias: bool,
    consts: Vec<(&'static str, Const)>,
}

/// Convolution `(x, w, bias) -> y`; `None` for groups and empty shapes.
#[must_use]
pub fn conv2d_forward(p: &Conv2dShape) -> Option<Lowering> {
    lower(Product {
        mode: Mode::Forward,
        i: p.c_out,
        j: p.n * p.h_out() * p.w_out(),
        k: p.c_in * p.k_h * p.k_w,
        along: [true, false],
        args: [Arg::Input(1), Arg::Input(0)],
        bias: p.bias,
        consts: conv_consts(p)?,
    })
}

/// Input gradient `(dy, w) -> dx`, any stride and dilation; `None` for groups and empty shapes.
#[must_use]
pub fn conv2d_input_grad(p: &Conv2dShape) -> Option<Lowering> {
    lower(Product {
        mode: Mode::InputGrad,
        i: p.c_in,
        j: p.n * p.h_in * p.w_in,
        k: p.c_out * p.k_h * p.k_w,
        along: [true, false],
        args: [Arg::Input(1), Arg::Input(0)],
        bias: false,
        consts: conv_consts(p)?,
    })
}

/// Weight gradient `(x, dy) -> dw`; `None` for groups and empty shapes.
#[must_use]
pub fn conv2d_weight_grad(p: &Conv2dShape) -> Option<Lowering> {
    lower(Product {
        mode: Mode::WeightGrad,
        i: p.c_out,
        j: p.c_in * p.k_h * p.k_w,
        k: p.n * p.h_out() * p.w_out(),
        along: [true, true],
        args: [Arg::Input(0), Arg::Input(1)],
        bias: false,
        consts: conv_consts(p)?,
    })
}

/// Linear layer `(x [n, k], w [m, k], bias [m]) -> y [n, m]`.
#[must_use]
pub fn linear_forward(p: &LinearShape) -> Option<Lowering> {
    lower(linear([p.n, p.m, p.k], [true, true], p.bias))
}

/// Input gradient `(dy [n, m], w [m, k]) -> dx [n, k]`.
#[must_use]
pub fn linear_input_grad(p: &LinearShape) -> Option<Lowering> {
    lower(linear([p.n, p.k, p.m], [true, false], false))
}

/// Weight gradient `(dy [n, m], x [n, k]) -> dw [m, k]`.
#[must_use]
pub fn linear_weight_grad(p: &LinearShape) -> Option<Lowering> {
    lower(linear([p.m, p.k, p.n], [false, false], false))
}

fn linear([i, j, k]: [usize; 3], along: [bool; 2], bias: bool) -> Product {
    Product { mode: Mode::Linear, i, j, k, along, args: [Arg::Input(0), Arg::Input(1)], bias, consts: vec![] }
}

fn conv_consts(p: &Conv2dShape) -> Option<Vec<(&'static str, Const)>> {
    let mut consts = p.consts();
    consts.retain(|(name, _)| !matches!(*name, "BIAS" | "GROUPS" | "N"));
    (p.groups == 1).then_some(consts)
}

fn lower(p: Product) -> Option<Lowering> {
    if p.i * p.j * p.k == 0 || p.i * p.j >= 1 << 31 {
        return None;
    }
    // A larger tile reads less memory; it pays only where it is filled and where enough tiles remain.
    let large = p.i.div_ceil(128) * p.j.div_ceil(128) >= 256 && p.i.is_multiple_of(128);
    let q = if large { 2 } else { 1 };
    let [gi, gj] = [p.i.div_ceil(64 * q), p.j.div_ceil(64 * q)];
    // Enough workgroups for a large GPU, but at least 256 steps each.
    let splits = 256usize.div_ceil(gi * gj).clamp(1, p.k.div_ceil(256).min(1024));
    // Only results that lie in the order of (i, j) can be added up part by part.
    let splits = if matches!(p.mode, Mode::WeightGrad | Mode::Linear) { splits } else { 1 };
    let chunk = p.k.div_ceil(splits).next_multiple_of(16);
    let splits = p.k.div_ceil(chunk);
    let ([x, y, _], tiles_row) = grid(gi * gj, 1)?;
    let split = splits > 1;
    let bias = p.bias && !split;
    let mut consts = p.consts;
    consts.extend([
        ("MODE", u(p.mode as usize)),
        ("I", u(p.i)),
        ("J", u(p.j)),
        ("K", u(p.k)),
        ("A_ALONG", Const::B(p.along[0])),
        ("B_ALONG", Const::B(p.along[1])),
        ("BIAS", Const::B(bias)),
        ("Q", u(q)),
        ("CHUNK", u(chunk)),
        ("TILES_I", u(gi)),
        ("TILES_J", u(gj)),
        ("ROW", u(tiles_row)),
    ]);
    let mut args = p.args.to_vec();
    if bias {
        args.push(Arg::Input(2));
    }
    args.push(if split { Arg::Scratch(0) } else { Arg::Output });
    let groups = [x, y, splits as u32];
    let mut dispatches = vec![Dispatch { shader: "gemm_tiled.wgsl", entry: "matmul", consts, args, groups }];
    let mut scratch = vec![];
    if split {
        let len = p.i * p.j;
        let (groups, row) = grid(len, 64)?;
        let mut args = vec![Arg::Scratch(0)];
        if p.bias {
            args.push(Arg::Input(2));
        }
        args.push(Arg::Output);
        dispatches.push(Dispatch {
            shader: "sum_partials.wgsl",
            entry: "sum_partials",
            consts: vec![
                ("LEN", u(len)),
                ("SPLITS", u(splits)),
                ("BIAS", Const::B(p.bias)),
                ("M", u(p.j)),
                ("ROW", u(row)),
            ],
            args,
            groups,
        });
        scratch.push(splits * len);
    }
    Some(Lowering { dispatches, scratch })
}
