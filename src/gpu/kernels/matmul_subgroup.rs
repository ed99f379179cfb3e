//! Matrix products whose subgroups share one operand, for the three directions of a linear layer, with split sums where the
//! result is small.

use super::conv_parts::Reads;
use super::grid::{grid, late, u};
use super::matmul_regblock::{Product, finish};
use super::shapes::LinearShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Held, Lowering, MAX_TURNS, Texel, Texture};

/// `(x [n, k], w [m, k], bias [m]) -> y [n, m]`; `None` for empty shapes or without subgroups.
#[must_use]
pub fn forward(p: &LinearShape, lanes: Option<u32>, reads: Reads) -> Option<Lowering> {
    lower(&Product::forward(p), lanes?, reads)
}

/// `(dy [n, m], w [m, k]) -> dx [n, k]`; `None` for empty shapes or without subgroups.
#[must_use]
pub fn input_grad(p: &LinearShape, lanes: Option<u32>, reads: Reads) -> Option<Lowering> {
    lower(&Product::input_grad(p), lanes?, reads)
}

/// `(dy [n, m], x [n, k]) -> dw [m, k]`; `None` for empty shapes or without subgroups.
#[must_use]
pub fn weight_grad(p: &LinearShape, lanes: Option<u32>, reads: Reads) -> Option<Lowering> {
    lower(&Product::weight_grad(p), lanes?, reads)
}

fn lower(p: &Product, lanes: u32, reads: Reads) -> Option<Lowering> {
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
    if reads == Reads::Textures {
        return by_textures(p, lanes, rows, wide);
    }
    let (i_blocks, j_blocks) = (p.i.div_ceil(rows), p.j.div_ceil(columns));
    // Some dozens of subgroups, but no sum shorter than what a subgroup's start costs, and none long enough to lose digits.
    let splits = 128usize.div_ceil(i_blocks * j_blocks).clamp(1, p.k.div_ceil(256)).max(p.k.div_ceil(MAX_TURNS));
    // A multiple of a cache line, an odd number of them: chunks that start a power of two apart would share one cache set.
    let chunk = if splits == 1 { p.k } else { (p.k.div_ceil(16 * splits) | 1) * 16 };
    let splits = p.k.div_ceil(chunk);
    // As many columns as fit into a quarter of a common second-level cache while the blocks of rows pass over them.
    let panel = if i_blocks == 1 { j_blocks } else { (65_536 / (chunk * columns)).clamp(1, j_blocks) };
    let (groups, row) = grid(i_blocks * j_blocks * splits, 1)?;
    let mut consts = consts(p, rows, wide, lanes);
    consts.extend([
        ("BIAS", Const::B(p.bias && splits == 1)),
        ("TEXTURES", Const::B(false)),
        ("PANEL", u(panel)),
        ("SPLITS", u(splits)),
        ("CHUNK", u(chunk)),
        ("ROW", u(row)),
    ]);
    let product = Dispatch { shader: "linear_subgroup.wgsl", entry: "matmul", consts, args: p.args(splits), groups };
    finish(p, vec![product], splits)
}

fn consts(p: &Product, rows: usize, wide: usize, lanes: usize) -> Vec<(&'static str, Const)> {
    vec![
        ("I", u(p.i)),
        ("J", u(p.j)),
        ("K", u(p.k)),
        ("A_ALONG", Const::B(p.along[0])),
        ("B_ALONG", Const::B(p.along[1])),
        ("IB", u(rows)),
        ("WIDE", u(wide)),
        ("LANES", u(lanes)),
    ]
}

/// A product of this many numbers of `b` is one dispatch; a larger one is up to [`PARTS`], so that the textures stay small.
const PART: usize = 1 << 17;
const PARTS: usize = 8;

/// The product with both sides in textures: one dispatch for each part of k where both lie along it, else of j.
fn by_textures(p: &Product, lanes: usize, rows: usize, wide: usize) -> Option<Lowering> {
    let columns = 4 * wide * lanes;
    let parts = (p.j * p.k / PART).clamp(1, PARTS);
    let by_k = p.along == [true, true];
    if p.along == [false, true] || (parts > 1 && !by_k && p.along[1]) {
        return None;
    }
    let (k_part, j_part) = if by_k {
        (p.k.div_ceil(parts).next_multiple_of(64), p.j)
    } else {
        (p.k, p.j.div_ceil(parts).next_multiple_of(columns))
    };
    let part_count = if by_k { p.k.div_ceil(k_part) } else { p.j.div_ceil(j_part) };
    let (i_blocks, j_blocks) = (p.i.div_ceil(rows), j_part.div_ceil(columns));
    // Enough subgroups for all cores, but no sum shorter than what a subgroup's start costs.
    let splits = 16usize.div_ceil(i_blocks * j_blocks).clamp(1, k_part.div_ceil(128)).max(k_part.div_ceil(MAX_TURNS));
    let splits = if by_k { splits } else { splits.min(k_part.div_ceil(128)) };
    let chunk = k_part.div_ceil(splits).next_multiple_of(4);
    let all = if by_k { splits * part_count } else { splits };
    let panel = if i_blocks == 1 { j_blocks } else { (65_536 / (chunk * columns)).clamp(1, j_blocks) };
    let (groups, row) = grid(i_blocks * j_blocks * splits, 1)?;
    let mut dispatches = Vec::new();
    for part in 0..part_count {
        let [k0, j0] = if by_k { [part * k_part, 0] } else { [0, part * j_part] };
        let [k1, j1] = [(k0 + k_part).min(p.k), (j0 + j_part).min(p.j)];
        // A window of a row-major matrix of lines `size` long.
        let window = |of, size: usize, [from, to]: [usize; 2], lines: usize| Texture {
            of: Held::Input(of),
            texel: Texel::F4,
            first: from,
            width: (to - from) / 4,
            pitch: size,
            texels: (to - from) / 4 * lines,
        };
        let a = if p.along[0] { window(0, p.k, [k0, k1], p.i) } else { window(0, p.i, [0, p.i], p.k) };
        let b = if p.along[1] { window(1, p.k, [k0, k1], p.j) } else { window(1, p.j, [j0, j1], p.k) };
        let whole = |t: &Texture| t.pitch.is_multiple_of(4) && t.fits();
        if !whole(&a) || !whole(&b) {
            return None;
        }
        let mut args = p.args(all);
        (args[0], args[1]) = (Arg::Texture(a), Arg::Texture(b));
        let mut consts = consts(p, rows, wide, lanes);
        consts.extend([
            ("BIAS", Const::B(p.bias && all == 1)),
            ("TEXTURES", Const::B(true)),
            ("PANEL", u(panel)),
            ("SPLITS", u(splits)),
            ("CHUNK", u(chunk)),
            ("ROW", u(row)),
            ("FIRST_K", late(k0)),
            ("LAST_K", late(k1)),
            ("FIRST_J", late(j0)),
            ("J_BLOCKS", late((j1 - j0).div_ceil(columns))),
            ("SPLIT", late(if by_k { part * splits } else { 0 })),
        ]);
        dispatches.push(Dispatch { shader: "linear_subgroup.wgsl", entry: "matmul", consts, args, groups });
    }
    finish(p, dispatches, all)
}
