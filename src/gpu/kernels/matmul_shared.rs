//! Matrix products for the three directions of a linear layer by one pipeline.

use super::grid::{grid, late};
use super::matmul_regblock::{Product, deal, sum};
use super::shapes::LinearShape;
use crate::gpu::lower::{Arg, Dispatch, Lowering, MAX_TURNS};

/// `(x [n, k], w [m, k], bias [m]) -> y [n, m]`; `None` for sizes that are no multiples of 4.
#[must_use]
pub fn forward(p: &LinearShape) -> Option<Lowering> {
    lower(&Product::forward(p))
}

/// `(dy [n, m], w [m, k]) -> dx [n, k]`; `None` for sizes that are no multiples of 4.
#[must_use]
pub fn input_grad(p: &LinearShape) -> Option<Lowering> {
    lower(&Product::input_grad(p))
}

/// `(dy [n, m], x [n, k]) -> dw [m, k]`; `None` for sizes that are no multiples of 4.
#[must_use]
pub fn weight_grad(p: &LinearShape) -> Option<Lowering> {
    lower(&Product::weight_grad(p))
}

fn lower(p: &Product) -> Option<Lowering> {
    if [p.i, p.j, p.k].iter().any(|&size| size == 0 || size % 4 != 0) {
        return None;
    }
    let tiles = p.i / 4 * (p.j / 4);
    let (splits, chunk) = deal(p.k, tiles);
    // A longer sum in one invocation is more than software Vulkan allows; the plain kernel takes several dispatches.
    if chunk > MAX_TURNS {
        return None;
    }
    let (groups, row) = grid(tiles * splits, 8)?;
    // One pipeline has no room for a bias; the sum adds it, of one partial result too.
    let sums = splits > 1 || p.bias;
    let out = if sums { Arg::Scratch(0) } else { Arg::Output };
    let product = Dispatch {
        shader: "linear_shared.wgsl",
        entry: "matmul",
        consts: vec![
            ("I", late(p.i)),
            ("J", late(p.j)),
            ("K", late(p.k)),
            ("A_ALONG", late(p.along[0].into())),
            ("B_ALONG", late(p.along[1].into())),
            ("SPLITS", late(splits)),
            ("CHUNK", late(chunk)),
            ("ROW", late(row)),
        ],
        args: vec![Arg::Input(0), Arg::Input(1), out],
        groups,
    };
    let mut dispatches = vec![product];
    if sums {
        dispatches.push(sum(p, splits)?);
    }
    Some(Lowering { dispatches, scratch: if sums { vec![splits * p.i * p.j] } else { vec![] } })
}
