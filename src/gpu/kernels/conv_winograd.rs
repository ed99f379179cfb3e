//! Winograd convolution F(m x m, 3 x 3): forward, and the input gradient by the same kernels.

use super::conv_parts::{Epilogue, Gate};
use super::grid::{grid, late, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};

/// How the products in the middle are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Blocks in registers, for software adapters.
    Registers,
    /// Subgroups of so many lanes that share what they fetch.
    Subgroup(usize),
    /// Tiles in workgroup memory, for adapters with a GPU behind them.
    Tiled,
}

/// Sizes that the caller may set, for experiments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of the result that one thread owns (a multiple of 4).
    pub rows: Option<usize>,
    /// Blocks of tiles that are worked on together.
    pub chunk: Option<usize>,
}

/// The tiles of one plane of outputs, dealt out to chunks of blocks of 4 quads of 4 tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    /// Outputs along the side of a tile.
    pub m: usize,
    /// Rows of tiles of an image.
    pub rows: usize,
    /// Quads of tiles in a row.
    pub row_quads: usize,
    /// Blocks in a chunk.
    pub chunk: usize,
    /// Chunks.
    pub chunks: usize,
}

/// Words of scratch that all values of one chunk may take: what the last-level cache of a CPU holds beside other things, and
/// for GPUs a size at which one dispatch is long enough, below the 128 MiB that every adapter binds.
const WORDS: [usize; 2] = [1 << 19, 1 << 24];

impl Tiles {
    /// The tiles of `n` images of `h` x `w` outputs; `words` are needed for each block.
    pub(super) fn new(m: usize, [n, h, w]: [usize; 3], words: usize, product: Product, chunk: Option<usize>) -> Self {
        let (rows, row_quads) = (h.div_ceil(m), w.div_ceil(4 * m));
        let blocks = (n * rows * row_quads).div_ceil(4);
        let most = chunk.unwrap_or(WORDS[usize::from(product == Product::Tiled)] / words).max(1);
        let chunks = blocks.div_ceil(most);
        // Subgroups take blocks by twos.
        let whole = if matches!(product, Product::Subgroup(_)) { 2 } else { 1 };
        Self { m, rows, row_quads, chunk: blocks.div_ceil(chunks).next_multiple_of(whole), chunks }
    }

    pub(super) fn consts(&self, n: usize) -> Vec<(&'static str, Const)> {
        let all = [("M", self.m), ("N", n), ("TILE_ROWS", self.rows), ("ROW_QUADS", self.row_quads)];
        all.into_iter().chain([("CHUNK", self.chunk)]).map(|(name, v)| (name, u(v))).collect()
    }

    /// The transform of the tiles of a tensor `[n, c, h, w]`, padded by `pad`, into `c_pad` channels; with `dy`, of its M x M tiles.
    pub(super) fn input(&self, t: &Transform) -> Option<Dispatch> {
        let (groups, row) = grid(self.chunk * t.c_pad * 4, 64)?;
        let lead = t.pad[1].div_euclid(4) + i64::from(t.pad[1].rem_euclid(4) != 0);
        let mut consts = self.consts(t.n);
        consts.extend([
            ("C", u(t.c)),
            ("C_PAD", u(t.c_pad)),
            ("H", u(t.h)),
            ("W", u(t.w)),
            ("PAD_H", Const::I(t.pad[0] as i32)),
            ("PAD_W", Const::I(t.pad[1] as i32)),
            // In vec4s: how far left of the tile's corner the first load is, and where the first column lies in it.
            ("LEAD", Const::I(lead as i32)),
            ("SHIFT", u((4 * lead - t.pad[1]) as usize)),
            ("DY", Const::B(t.dy)),
            ("GATE", u(t.gate.map_or(0, |(gate, _)| gate.number()))),
            ("ROW", u(row)),
        ]);
        let mut args = vec![t.counter, t.source];
        args.extend(t.gate.map(|(_, arg)| arg));
        args.push(t.to);
        Some(Dispatch { shader: "conv2d_winograd_input.wgsl", entry: "input", consts, args, groups })
    }
}

/// What a transform of tiles reads and writes.
pub(super) struct Transform {
    pub n: usize,
    pub c: usize,
    pub c_pad: usize,
    pub h: usize,
    pub w: usize,
    pub pad: [i64; 2],
    pub dy: bool,
    pub counter: Arg,
    pub source: Arg,
    /// What the source passes on its way, and where that lies.
    pub gate: Option<(Gate, Arg)>,
    pub to: Arg,
}

/// Sets the chunk counter back, or forward.
pub(super) fn tick(entry: &'static str, counter: Arg) -> Dispatch {
    Dispatch { shader: "conv2d_winograd_tick.wgsl", entry, consts: vec![], args: vec![counter], groups: [1, 1, 1] }
}

/// Whether Winograd's filtering serves the shape at all: 3x3, stride 1, no dilation, no groups.
pub(super) fn serves(p: &Conv2dShape) -> bool {
    let steps = [p.stride_h, p.stride_w, p.dil_h, p.dil_w, p.groups];
    let sizes = [p.n, p.c_in, p.c_out, p.h_in, p.w_in, p.h_out(), p.w_out()];
    (p.k_h, p.k_w) == (3, 3) && steps == [1; 5] && !sizes.contains(&0) && p.pad_h.max(p.pad_w) < 1 << 20
}

/// A correlation of stride 1, which is what both directions come down to.
struct Correlation {
    shape: Conv2dShape,
    out: [usize; 2],
    pad: [i64; 2],
    flip: bool,
    epilogue: Epilogue,
    gate: Gate,
}

/// The forward convolution `(x, w, bias) -> y` by F(m x m, 3 x 3), `m` 2 or 4; `None` where another kernel has to serve.
#[must_use]
pub fn forward(p: &Conv2dShape, m: usize, product: Product, sizes: Sizes, epilogue: Epilogue) -> Option<Lowering> {
    serves(p).then_some(())?;
    let pad = [p.pad_h as i64, p.pad_w as i64];
    let c = Correlation { shape: *p, out: [p.h_out(), p.w_out()], pad, flip: false, epilogue, gate: Gate::None };
    lower(&c, m, product, sizes)
}

/// The input gradient `(dy, w) -> dx`, or `(dy, gate, w) -> dx`: the correlation of `dy` with the flipped, transposed weights,
/// padded by `2 - pad`.
#[must_use]
pub fn input_grad(p: &Conv2dShape, m: usize, product: Product, sizes: Sizes, gate: Gate) -> Option<Lowering> {
    serves(p).then_some(())?;
    let shape = Conv2dShape { c_in: p.c_out, c_out: p.c_in, h_in: p.h_out(), w_in: p.w_out(), bias: false, ..*p };
    let pad = [2 - p.pad_h as i64, 2 - p.pad_w as i64];
    let c = Correlation { shape, out: [p.h_in, p.w_in], pad, flip: true, epilogue: Epilogue::None, gate };
    lower(&c, m, product, sizes)
}

fn lower(c: &Correlation, m: usize, product: Product, sizes: Sizes) -> Option<Lowering> {
    let (p, [h_out, w_out]) = (&c.shape, c.out);
    // A window that is cut is no window.
    let (h, w) = match c.epilogue {
        Epilogue::Pool { .. } => (h_out / 2 * 2, w_out / 2 * 2),
        _ => (h_out, w_out),
    };
    if h * w == 0 || (c.gate == Gate::Pool && (p.h_in < 2 || p.w_in < 2)) {
        return None;
    }
    let rows = match product {
        // A block that the channels fill.
        Product::Registers => sizes.rows.unwrap_or(16).min(p.c_out.next_multiple_of(4)),
        Product::Subgroup(lanes) if !matches!(lanes, 4 | 8 | 16 | 32) || p.c_in % (lanes / 8).max(1) != 0 => {
            return None;
        }
        Product::Subgroup(lanes) => 4 * lanes,
        Product::Tiled => 64,
    };
    let out_pad = p.c_out.next_multiple_of(rows);
    let points = (m + 2) * (m + 2);
    let tiles = Tiles::new(m, [p.n, h, w], points * 16 * p.c_in.max(out_pad), product, sizes.chunk);
    let (counter, filters, inputs, sums) = (Arg::Scratch(0), Arg::Scratch(1), Arg::Scratch(2), Arg::Scratch(3));
    let filter = {
        let (groups, row) = grid(p.c_in * out_pad, 64)?;
        let consts = vec![
            ("M", u(m)),
            ("C_IN", u(p.c_in)),
            ("C_OUT", u(p.c_out)),
            ("OUT_PAD", u(out_pad)),
            ("FLIP", Const::B(c.flip)),
            ("ROW", u(row)),
        ];
        let args = vec![Arg::Input(if c.gate == Gate::None { 1 } else { 2 }), filters];
        Dispatch { shader: "conv2d_winograd_filter.wgsl", entry: "filters", consts, args, groups }
    };
    let input = tiles.input(&Transform {
        n: p.n,
        c: p.c_in,
        c_pad: p.c_in,
        h: p.h_in,
        w: p.w_in,
        pad: c.pad,
        dy: false,
        counter,
        source: Arg::Input(0),
        gate: (c.gate != Gate::None).then_some((c.gate, Arg::Input(1))),
        to: inputs,
    })?;
    // Set late, so that all layers share the products' pipelines.
    let sizes = [("POINTS", u(points)), ("CHUNK", late(tiles.chunk)), ("K", late(p.c_in)), ("OUT_PAD", late(out_pad))];
    let args = vec![filters, inputs, sums];
    let product = match product {
        Product::Registers => {
            let (groups, row) = grid(tiles.chunk * points * (out_pad / rows), 8)?;
            let step = if p.c_in.is_multiple_of(2) { 2 } else { 1 };
            let consts = sizes.into_iter().chain([("IB", u(rows)), ("STEP", u(step)), ("ROW", late(row))]).collect();
            Dispatch { shader: "conv2d_winograd_product.wgsl", entry: "product", consts, args, groups }
        }
        Product::Subgroup(lanes) => {
            let (groups, row) = grid(tiles.chunk / 2 * points * (out_pad / rows), 1)?;
            // A load by all lanes brings LANES vec4s of v, and a step of k needs 8.
            let step = if p.c_in.is_multiple_of(2) { 2.max(lanes / 8) } else { 1 };
            let consts =
                sizes.into_iter().chain([("LANES", u(lanes)), ("STEP", u(step)), ("ROW", late(row))]).collect();
            Dispatch { shader: "conv2d_winograd_subgroup.wgsl", entry: "product", consts, args, groups }
        }
        Product::Tiled => {
            let (x, y) = (tiles.chunk.div_ceil(8), out_pad / 64);
            let groups = (x <= 65_535 && y <= 65_535).then_some([x as u32, y as u32, points as u32])?;
            let consts = sizes.into_iter().collect();
            Dispatch { shader: "conv2d_winograd_tiled.wgsl", entry: "product", consts, args, groups }
        }
    };
    let output = {
        let (groups, row) = grid(tiles.chunk * p.c_out * 4, 64)?;
        let mut consts = tiles.consts(p.n);
        consts.extend([
            ("C_OUT", u(p.c_out)),
            ("OUT_PAD", u(out_pad)),
            ("H_OUT", u(h_out)),
            ("W_OUT", u(w_out)),
            ("BIAS", Const::B(p.bias)),
            ("EPILOGUE", u(c.epilogue.number())),
            ("CODES", Const::B(c.epilogue == Epilogue::Pool { codes: true })),
            ("ROW", u(row)),
        ]);
        let mut args = vec![counter, sums];
        args.extend(p.bias.then_some(Arg::Input(2)));
        args.push(Arg::Output);
        args.extend((c.epilogue == Epilogue::Pool { codes: true }).then_some(Arg::Companion));
        Dispatch { shader: "conv2d_winograd_output.wgsl", entry: "output", consts, args, groups }
    };
    let mut dispatches = vec![filter];
    for chunk in 0..tiles.chunks {
        dispatches.push(tick(if chunk == 0 { "reset" } else { "next" }, counter));
        dispatches.extend([input.clone(), product.clone(), output.clone()]);
    }
    let block = tiles.chunk * points * 16;
    Some(Lowering { dispatches, scratch: vec![1, points * p.c_in * out_pad, block * p.c_in, block * out_pad] })
}
