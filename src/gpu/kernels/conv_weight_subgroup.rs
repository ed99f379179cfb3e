//! Weight gradient of the convolution by subgroups.

use super::conv_parts::{Gate, Reads, channels, gated_input, images, is_wide, most_sums, sizes, textures_fit};
use super::grid::{grid, late, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Held, Lowering, MAX_TURNS, Texel};

/// How much of the sum and of the result an invocation of the weight gradient has at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patch {
    rows: usize,
    pixels: usize,
    /// Whether x, and the gradient, are read as vec4s.
    x_vec: bool,
    d_vec: bool,
    lead: usize,
}

/// `(x, dy) -> dw`, or `(x, dy, gate) -> dw`; `None` where another kernel has to serve.
#[must_use]
pub fn weight_grad(p: &Conv2dShape, lanes: Option<u32>, reads: Reads, gate: Gate) -> Option<Lowering> {
    let lanes = lanes? as usize;
    let pooled = gate == Gate::Pool;
    let tiled = |size: usize| if pooled { size / 2 * 2 } else { size };
    let (h, w) = (tiled(p.h_out()), tiled(p.w_out()));
    if p.groups != 1 || p.k_w > 11 || is_wide(p) || [h * w, p.x_len(), p.w_len()].contains(&0) {
        return None;
    }
    let ob = channels(p.c_out, lanes);
    // All rows of taps where they fit; else one at a time.
    let most = most_sums(p);
    let kb = if ob * p.k_h * p.k_w <= most { p.k_h } else { 1 };
    let ib = (most / (ob * kb * p.k_w)).clamp(1, 8).min(p.c_in);
    let patch = patch(p, [h, w], [ob, ib, kb], lanes, pooled, reads);
    let tiles = p.c_out.div_ceil(ob * lanes) * p.c_in.div_ceil(ib) * p.k_h.div_ceil(kb);
    let x_size = p.c_in * p.h_in * p.w_in;
    let dy = gated_input(gate, [p.h_out(), p.w_out()], false);
    let parts = reads.parts(p.n, x_size.max(p.c_out * dy.size));
    // Some dozens of workgroups for all cores, and no more turns of the loops than software Vulkan allows.
    let items = parts[0][1] * h.div_ceil(patch.rows);
    let least = if reads == Reads::Textures { 16usize } else { 64 };
    let turns = (items * w.div_ceil(patch.pixels)).div_ceil(MAX_TURNS / 2);
    let splits = least.div_ceil(tiles).max(turns).min(items);
    let (groups, row) = grid(tiles * splits, 1)?;
    let mut consts = sizes(p, [p.h_out(), p.w_out()], [h, w], [p.pad_h as i64, p.pad_w as i64]);
    consts.extend([
        ("GATE", u(gate.number())),
        ("TEXTURES", Const::B(reads == Reads::Textures)),
        ("LANES", u(lanes)),
        ("OB", u(ob)),
        ("IB", u(ib)),
        ("KB", u(kb)),
        ("RB", u(patch.rows)),
        ("PB", u(patch.pixels)),
        ("X_VEC", Const::B(patch.x_vec)),
        ("D_VEC", Const::B(patch.d_vec)),
        ("LEAD", u(patch.lead)),
        ("SPLITS", u(splits)),
        ("ROW", u(row)),
    ]);
    let texel = |vec: bool| if vec { Texel::F4 } else { Texel::F1 };
    let mut dispatches = Vec::new();
    for (i, &part) in parts.iter().enumerate() {
        let mut args = vec![
            reads.bind(Held::Input(0), texel(patch.x_vec), part, x_size),
            reads.bind(Held::Input(1), texel(patch.d_vec), part, p.c_out * dy.size),
        ];
        if let Some((codes, size)) = dy.gate {
            let texel = if pooled { codes } else { texel(patch.d_vec) };
            args.push(reads.bind(Held::Input(2), texel, part, p.c_out * size));
        }
        args.push(Arg::Scratch(0));
        if !textures_fit(&args) {
            return None;
        }
        let mut consts = consts.clone();
        consts.extend(images(reads, part, p.n));
        if reads == Reads::Textures {
            consts.push(("SPLIT", late(i * splits)));
        }
        dispatches.push(Dispatch { shader: "conv2d_wgrad_subgroup.wgsl", entry: "weight_grad", consts, args, groups });
    }
    let splits = splits * parts.len();
    dispatches.push(Dispatch::sum_partials(p.w_len(), splits));
    Some(Lowering { dispatches, scratch: vec![splits * p.w_len()] })
}

/// The patch that costs least for the whole sum.
fn patch(
    p: &Conv2dShape,
    [h, w]: [usize; 2],
    [ob, ib, kb]: [usize; 3],
    lanes: usize,
    pooled: bool,
    reads: Reads,
) -> Patch {
    let costs = reads.costs();
    // With few sums to hold, both rows of a pooling window are at hand together.
    let rows = if pooled && ob * ib * kb * p.k_w <= most_sums(p) / 2 { 2 } else { 1 };
    let all = if pooled { [8usize, 6, 4, 2].as_slice() } else { [8, 7, 6, 5, 4, 3, 2, 1].as_slice() };
    let pixels = all.iter().copied().filter(|&pixels| !pooled || pixels == 8 || pixels >= w);
    let patches = pixels.map(|pixels| {
        let x_vec = p.w_in.is_multiple_of(4) && (pixels * p.stride_w).is_multiple_of(4);
        let stored = if pooled { [p.w_out() / 2, pixels / 2] } else { [p.w_out(), pixels] };
        let d_vec = stored[0].is_multiple_of(4) && stored[1].is_multiple_of(4);
        let lead = if x_vec { (-(p.pad_w as i64)).rem_euclid(4) as usize } else { 0 };
        Patch { rows, pixels, x_vec, d_vec, lead }
    });
    let cost = |t: &Patch| {
        let span = t.lead + (t.pixels - 1) * p.stride_w + (p.k_w - 1) * p.dil_w + 1;
        let in_rows = (t.rows - 1) * p.stride_h + (kb - 1) * p.dil_h + 1;
        let columns = if t.x_vec { span.div_ceil(4) } else { span };
        let x_loads = (ib * in_rows * columns).div_ceil(lanes) * costs[usize::from(!t.x_vec)];
        let read = if pooled { t.pixels / 2 } else { t.pixels * t.rows };
        let d_loads = ob * if t.d_vec { read / 4 * costs[0] } else { read * costs[1] };
        let sums = ob * ib * kb * p.k_w * t.rows * t.pixels;
        h.div_ceil(t.rows) * w.div_ceil(t.pixels) * (sums + x_loads + d_loads)
    };
    patches.min_by_key(cost).expect("there are candidates")
}
