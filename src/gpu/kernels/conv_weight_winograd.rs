//! Winograd weight gradient of a 3x3 convolution: `(x, dy) -> dw`.

use super::conv_parts::Gate;
use super::conv_winograd::{Product, Sizes, Tiles, Transform, serves, tick};
use super::grid::{grid, late, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Dispatch, Lowering};

/// The weight gradient `(x, dy) -> dw`, or `(x, dy, gate) -> dw`, through tiles of `m` x `m` pixels of `dy`, `m` 2 or 4; `None` where another kernel has to serve.
#[must_use]
pub fn weight_grad(p: &Conv2dShape, m: usize, product: Product, sizes: Sizes, gate: Gate) -> Option<Lowering> {
    let fits = gate != Gate::Pool || (p.h_out() >= 2 && p.w_out() >= 2);
    (fits && serves(p)).then_some(())?;
    let (h_out, w_out, points) = (p.h_out(), p.w_out(), (m + 2) * (m + 2));
    let (ib, cb) = match product {
        Product::Registers => {
            (sizes.rows.unwrap_or(8).min(p.c_out.next_multiple_of(4)), 8.min(p.c_in.next_multiple_of(4)))
        }
        Product::Subgroup(lanes) if !matches!(lanes, 4 | 8 | 16 | 32) => return None,
        Product::Subgroup(lanes) => match sizes.rows {
            Some(16) => (16.max(lanes), 8 * lanes),
            _ => (32, 4 * lanes),
        },
        Product::Tiled => (64, 64),
    };
    let (out_pad, in_pad) = (p.c_out.next_multiple_of(ib), p.c_in.next_multiple_of(cb));
    let tiles = Tiles::new(m, [p.n, h_out, w_out], points * 16 * in_pad.max(out_pad), product, sizes.chunk);
    let blocks = points * (out_pad / ib) * (in_pad / cb);
    // Some dozens of workgroups.
    let wanted = if product == Product::Registers { 512 } else { 64 };
    let splits = usize::div_ceil(wanted, blocks).clamp(1, tiles.chunk.min(16));
    let [counter, inputs, outputs, sums] = std::array::from_fn(Arg::Scratch);
    let transform = |c, c_pad, [h, w]: [usize; 2], pad, dy, source, gate, to| {
        tiles.input(&Transform { n: p.n, c, c_pad, h, w, pad, dy, counter, source, gate, to })
    };
    let gate = (gate != Gate::None).then_some((gate, Arg::Input(2)));
    let pad = [p.pad_h as i64, p.pad_w as i64];
    let x = transform(p.c_in, in_pad, [p.h_in, p.w_in], pad, false, Arg::Input(0), None, inputs)?;
    let dy = transform(p.c_out, out_pad, [h_out, w_out], [0, 0], true, Arg::Input(1), gate, outputs)?;
    let mut consts = vec![
        ("CHUNK", late(tiles.chunk)),
        ("POINTS", u(points)),
        ("IN_PAD", late(in_pad)),
        ("OUT_PAD", late(out_pad)),
        ("SPLITS", late(splits)),
    ];
    let args = vec![counter, inputs, outputs, sums];
    let product = match product {
        Product::Registers => {
            let (groups, row) = grid(blocks * splits, 8)?;
            consts.extend([("IB", u(ib)), ("CB", u(cb)), ("ROW", late(row))]);
            Dispatch { shader: "conv2d_winograd_wgrad.wgsl", entry: "weight_grad", consts, args, groups }
        }
        Product::Subgroup(lanes) => {
            let (groups, row) = grid(blocks * splits, 1)?;
            consts.extend([("IB", u(ib)), ("CB", u(cb / lanes)), ("LANES", u(lanes)), ("ROW", late(row))]);
            Dispatch { shader: "conv2d_winograd_wgrad_subgroup.wgsl", entry: "weight_grad", consts, args, groups }
        }
        Product::Tiled => {
            let groups = [(in_pad / cb) as u32, (out_pad / ib) as u32, (points * splits) as u32];
            let fits = groups.iter().all(|&g| g <= 65_535);
            let shader = "conv2d_winograd_wgrad_tiled.wgsl";
            fits.then_some(Dispatch { shader, entry: "weight_grad", consts, args, groups })?
        }
    };
    let (groups, row) = grid(p.c_out * p.c_in, 64)?;
    let finish = Dispatch {
        shader: "conv2d_winograd_wgrad_end.wgsl",
        entry: "finish",
        consts: vec![
            ("M", u(m)),
            ("C_IN", u(p.c_in)),
            ("C_OUT", u(p.c_out)),
            ("IN_PAD", u(in_pad)),
            ("OUT_PAD", u(out_pad)),
            ("SPLITS", u(splits)),
            ("ROW", u(row)),
        ],
        args: vec![sums, Arg::Output],
        groups,
    };
    let mut dispatches = Vec::with_capacity(4 * tiles.chunks + 1);
    for chunk in 0..tiles.chunks {
        dispatches.push(tick(if chunk == 0 { "reset" } else { "next" }, counter));
        dispatches.extend([x.clone(), dy.clone(), product.clone()]);
    }
    dispatches.push(finish);
    let block = tiles.chunk * points * 16;
    Some(Lowering { dispatches, scratch: vec![1, block * in_pad, block * out_pad, splits * points * out_pad * in_pad] })
}
