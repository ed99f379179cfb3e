//! Matrix products whose subgroups share one operand, for the three directions of a linear layer, with split sums where the
//! result is small.

use super::grid::{grid, u};
use super::matmul_regblock::{Product, finish};
use super::shapes::LinearShape;
use crate::gpu::lower::{Const, Dispatch, Lowering, MAX_TURNS};

/// `(x [n, k], w [m, k], bias [m]) -> y [n, m]`; `None` for empty shapes or without subgroups.
#[must_use]
pub fn forward(p: &LinearShape, lanes: Option<u32>) -> Option<Lowering> {
    lower(&Product::forward(p), lanes?)
}

/// `(dy [n, m], w [m, k]) -> dx [n, k]`; `None` for empty shapes or without subgroups.
#[must_use]
pub fn input_grad(p: &LinearShape, lanes: Option<u32>) -> Option<Lowering> {
    lower(&Product::input_grad(p), lanes?)
}

/// `(dy [n, m], x [n, k]) -> dw [m, k]`; `None` for empty shapes or without subgroups.
#[must_use]
pub fn weight_grad(p: &LinearShape, lanes: Option<u32>) -> Option<Lowering> {
    lower(&Product::weight_grad(p), lanes?)
}

fn lower(p: &Product, lanes: u32) -> Option<Lowering> {
    let lanes = lanes as usize;
    if p.i * p.j * p.k == 0 {
        return None;
    }
    let rows = p.i.next_multiple_of(4).min(32);
    // Four more columns a lane feed on the same broadcasts, and on wider pieces of memory where j is the fast axis. They double
    // the sums that a lane keeps and so the time to compile, which only long work repays.
    let long = !p.along[1] && p.i * p.j * p.k >= 1 << 24 && p.j >= 8 * lanes;
    let wide = if long { 2 } else { 1 };
    let columns = 4 * wide * lanes;
    let (i_blocks, j_blocks) = (p.i.div_ceil(rows), p.j.div_ceil(columns));
    // Some dozens of subgroups, but no sum shorter than what a subgroup's start costs, and none long enough to lose digits.
    let splits = 128usize.div_ceil(i_blocks * j_blocks).clamp(1, p.k.div_ceil(256)).max(p.k.div_ceil(MAX_TURNS));
    // A multiple of a cache line, an odd number of them: chunks that start a power of two apart would share one cache set.
    let chunk = if splits == 1 { p.k } else { (p.k.div_ceil(16 * splits) | 1) * 16 };
    let splits = p.k.div_ceil(chunk);
    // As many columns as fit into a quarter of a common second-level cache while the blocks of rows pass over them.
    let panel = if i_blocks == 1 { j_blocks } else { (65_536 / (chunk * columns)).clamp(1, j_blocks) };
    let (groups, row) = grid(i_blocks * j_blocks * splits, 1)?;
    let consts = vec![
        ("I", u(p.i)),
        ("J", u(p.j)),
        ("K", u(p.k)),
        ("A_ALONG", Const::B(p.along[0])),
        ("B_ALONG", Const::B(p.along[1])),
        ("BIAS", Const::B(p.bias && splits == 1)),
        ("IB", u(rows)),
        ("WIDE", u(wide)),
        ("LANES", u(lanes)),
        ("PANEL", u(panel)),
        ("SPLITS", u(splits)),
        ("CHUNK", u(chunk)),
        ("ROW", u(row)),
    ];
    let product = Dispatch { shader: "linear_subgroup.wgsl", entry: "matmul", consts, args: p.args(splits), groups };
    finish(p, product, splits)
}
