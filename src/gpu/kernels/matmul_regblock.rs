//! Register-blocked matrix products for the three directions of a linear layer, with split sums where the result is small.

use super::grid::{grid, loose, u};
use super::shapes::LinearShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering, MAX_TURNS};

/// One product `c[i, j] = sum_k a(i, k) b(j, k)` of inputs 0 and 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) i: usize,
    pub(super) j: usize,
    pub(super) k: usize,
    /// Whether `k` is the fast axis of `a`, of `b`.
    pub(super) along: [bool; 2],
    pub(super) bias: bool,
}

impl Product {
    pub(super) fn forward(p: &LinearShape) -> Self {
        Self { i: p.n, j: p.m, k: p.k, along: [true, true], bias: p.bias }
    }

    pub(super) fn input_grad(p: &LinearShape) -> Self {
        Self { i: p.n, j: p.k, k: p.m, along: [true, false], bias: false }
    }

    pub(super) fn weight_grad(p: &LinearShape) -> Self {
        Self { i: p.m, j: p.k, k: p.n, along: [false, false], bias: false }
    }

    /// What the product binds: a bias only where it writes the result itself, not partial sums.
    pub(super) fn args(&self, splits: usize) -> Vec<Arg> {
        let mut args = vec![Arg::Input(0), Arg::Input(1)];
        if self.bias && splits == 1 {
            args.push(Arg::Input(2));
        }
        args.push(if splits > 1 { Arg::Scratch(0) } else { Arg::Output });
        args
    }
}

/// The product, and the sum of its partial results where there are several.
pub(super) fn finish(p: &Product, mut dispatches: Vec<Dispatch>, splits: usize) -> Option<Lowering> {
    if splits == 1 {
        return Some(Lowering { dispatches, scratch: vec![] });
    }
    dispatches.push(sum(p, splits)?);
    Some(Lowering { dispatches, scratch: vec![splits * p.i * p.j] })
}

/// The sum of partial results, and the bias.
pub(super) fn sum(p: &Product, splits: usize) -> Option<Dispatch> {
    let (groups, row) = grid(p.i * p.j, 64)?;
    let mut args = vec![Arg::Scratch(0)];
    if p.bias {
        args.push(Arg::Input(2));
    }
    args.push(Arg::Output);
    let consts = vec![
        ("LEN", loose(p.i * p.j)),
        ("SPLITS", loose(splits)),
        ("BIAS", Const::B(p.bias)),
        ("M", loose(p.j)),
        ("ROW", loose(row)),
    ];
    Some(Dispatch { shader: "sum_partials.wgsl", entry: "sum_partials", consts, args, groups })
}

/// Into how many partial sums `k` is divided for so many blocks of the result, and the length of one. Some dozens of workgroups, but no sum
/// shorter than what a thread's start costs.
pub(super) fn deal(k: usize, tiles: usize) -> (usize, usize) {
    let splits = 512usize.div_ceil(tiles).clamp(1, k.div_ceil(64).min(256));
    // A multiple of a cache line, an odd number of them: chunks that start a power of two apart would share one cache set.
    let lines = k.div_ceil(16 * splits);
    let chunk = if splits == 1 { k } else { (lines | 1) * 16 };
    (k.div_ceil(chunk), chunk)
}

/// `(x [n, k], w [m, k], bias [m]) -> y [n, m]`; `None` for empty shapes.
#[must_use]
pub fn forward(p: &LinearShape, block: Option<[usize; 2]>) -> Option<Lowering> {
    lower(&Product::forward(p), block)
}

/// `(dy [n, m], w [m, k]) -> dx [n, k]`; `None` for empty shapes.
#[must_use]
pub fn input_grad(p: &LinearShape, block: Option<[usize; 2]>) -> Option<Lowering> {
    lower(&Product::input_grad(p), block)
}

/// `(dy [n, m], x [n, k]) -> dw [m, k]`; `None` for empty shapes.
#[must_use]
pub fn weight_grad(p: &LinearShape, block: Option<[usize; 2]>) -> Option<Lowering> {
    lower(&Product::weight_grad(p), block)
}

fn lower(p: &Product, block: Option<[usize; 2]>) -> Option<Lowering> {
    if p.i * p.j * p.k == 0 {
        return None;
    }
    // Multiples of 4, no larger than the result asks for. Less than some milliseconds of work gets a small block, which compiles in a
    // third of the time. The wide block halves the strided reads of operands that lie across, and costs compile time, so only work
    // that lasts gets it.
    let most = match (p.i * p.j * p.k < 1 << 24, p.along) {
        (true, _) => [8, 4],
        (false, [true, true]) => [16, 8],
        (false, _) => [16, 16],
    };
    let [ib, jb] =
        block.unwrap_or_else(|| [p.i.next_multiple_of(4).min(most[0]), p.j.next_multiple_of(4).min(most[1])]);
    let tiles = p.i.div_ceil(ib) * p.j.div_ceil(jb);
    let (splits, chunk) = deal(p.k, tiles);
    // A longer sum in one invocation is more than software Vulkan allows; the plain kernel takes several dispatches.
    if chunk > MAX_TURNS {
        return None;
    }
    let (groups, row) = grid(tiles * splits, 8)?;
    let product = Dispatch {
        shader: "linear_regblock.wgsl",
        entry: "matmul",
        consts: vec![
            ("I", u(p.i)),
            ("J", u(p.j)),
            ("K", u(p.k)),
            ("A_ALONG", Const::B(p.along[0])),
            ("B_ALONG", Const::B(p.along[1])),
            ("BIAS", Const::B(p.bias && splits == 1)),
            ("IB", u(ib)),
            ("JB", u(jb)),
            ("STEP", u(if p.k.is_multiple_of(4) { 4 } else { 1 })),
            ("SPLITS", u(splits)),
            ("CHUNK", u(chunk)),
            ("ROW", u(row)),
        ],
        args: p.args(splits),
        groups,
    };
    finish(p, vec![product], splits)
}
