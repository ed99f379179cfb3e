//! Convolution by subgroups: forward and input gradient by one page, weight gradient by another.

use super::grid::{grid, late, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Held, Lowering, MAX_TURNS, Texel, Texture};

/// What follows the convolution in the same kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// ReLU.
    Relu,
    /// ReLU and a 2x2 max-pool; `codes` keeps the winners in the companion ([`Arg::Companion`]).
    Pool {
        /// Whether the gradient will ask for the winners.
        codes: bool,
    },
}

/// What a gradient passes on its way to the convolution's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing.
    None,
    /// ReLU, by the activation.
    Relu,
    /// A 2x2 max-pool and ReLU, by the codes.
    Pool,
}

impl Epilogue {
    /// As the pages know it.
    pub(super) fn number(self) -> usize {
        match self {
            Self::None => 0,
            Self::Relu => 1,
            Self::Pool { .. } => 2,
        }
    }
}

impl Gate {
    pub(super) fn number(self) -> usize {
        match self {
            Self::None => 0,
            Self::Relu => 1,
            Self::Pool => 2,
        }
    }
}

/// Most accumulators of an invocation: more spill. The time to compile grows with them, so layers below [`SHORT`] multiply-adds, which a
/// software adapter computes in some milliseconds, get by with a few less.
const MOST_SUMS: [usize; 2] = [128, 144];
const SHORT: usize = 500_000_000;

fn most_sums(p: &Conv2dShape) -> usize {
    let work = p.n * p.c_out * p.h_out() * p.w_out() * p.c_in * p.k_h * p.k_w;
    MOST_SUMS[usize::from(work >= SHORT)]
}
/// Most taps: all of them are unrolled.
const MOST_TAPS: usize = 25;
/// Numbers of a tensor that are in a texture at a time, where they are more than one image: enough work for a dispatch, little
/// memory.
const WINDOW: usize = 1 << 17;

/// Where the kernels read their inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// In the buffers in which they lie.
    Buffers,
    /// In textures, into which some images at a time are copied.
    Textures,
}

impl Reads {
    /// What loads cost on a software adapter, in multiply-adds: a `vec4`, a single number.
    fn costs(self) -> [usize; 2] {
        match self {
            Self::Buffers => [100, 60],
            Self::Textures => [28, 26],
        }
    }

    /// An input or scratch as a binding: `images` images of `size` numbers each, from the `first` on.
    fn bind(self, of: Held, texel: Texel, [first, images]: [usize; 2], size: usize) -> Arg {
        match (self, of) {
            (Self::Textures, _) => Arg::Texture(Texture::run(of, texel, first * size, images * size)),
            (Self::Buffers, Held::Input(k)) => Arg::Input(k),
            (Self::Buffers, Held::Scratch(k)) => Arg::Scratch(k),
        }
    }

    /// The images of each dispatch, `[first, count]`, where the largest input has `size` numbers an image.
    fn parts(self, n: usize, size: usize) -> Vec<[usize; 2]> {
        let most = match self {
            Self::Buffers => n,
            Self::Textures => (WINDOW / size.max(1)).clamp(1, n),
        };
        // All alike, as far as they can be.
        let count = n.div_ceil(n.div_ceil(most));
        (0..n).step_by(count).map(|first| [first, count.min(n - first)]).collect()
    }
}

/// Whether all textures can be had.
fn textures_fit(args: &[Arg]) -> bool {
    args.iter().all(|arg| if let Arg::Texture(t) = arg { t.fits() } else { true })
}

/// A correlation with any padding, which is what both directions come down to.
struct Correlation {
    shape: Conv2dShape,
    h_out: usize,
    w_out: usize,
    pad_h: i64,
    pad_w: i64,
    flip: bool,
    epilogue: Epilogue,
    gate: Gate,
    reads: Reads,
    /// Which of the node's inputs the weights are.
    weights: usize,
    /// Writes what is correlated into scratch buffer 1, which has so many numbers; `None`: it is the node's first input.
    spread: Option<(Dispatch, usize)>,
}

/// `(x, w, bias) -> y`; `None` where another kernel has to serve.
#[must_use]
pub fn forward(p: &Conv2dShape, lanes: Option<u32>, reads: Reads, epilogue: Epilogue) -> Option<Lowering> {
    let c = Correlation {
        shape: *p,
        h_out: p.h_out(),
        w_out: p.w_out(),
        pad_h: p.pad_h as i64,
        pad_w: p.pad_w as i64,
        flip: false,
        epilogue,
        gate: Gate::None,
        reads,
        weights: 1,
        spread: None,
    };
    lower(&c, lanes? as usize)
}

/// `(dy, w) -> dx`, or `(dy, gate, w) -> dx`: the correlation of `dy` with the flipped, transposed weights, padded by
/// `dil (k - 1) - pad`. For other strides than 1 `dy` is spread first, with zeros where no output was computed; `None` where such
/// a gradient would pass a pool on its way.
#[must_use]
pub fn input_grad(p: &Conv2dShape, lanes: Option<u32>, reads: Reads, gate: Gate) -> Option<Lowering> {
    let strided = (p.stride_h, p.stride_w) != (1, 1);
    let spread = if strided { Some(spread(p, gate)?) } else { None };
    let [h_in, w_in] = spread.as_ref().map_or([p.h_out(), p.w_out()], |s| s.size);
    let (c_in, c_out) = (p.c_out, p.c_in);
    let shape = Conv2dShape { c_in, c_out, h_in, w_in, stride_h: 1, stride_w: 1, bias: false, ..*p };
    let c = Correlation {
        shape,
        h_out: p.h_in,
        w_out: p.w_in,
        pad_h: (p.dil_h * (p.k_h - 1)) as i64 - p.pad_h as i64,
        pad_w: (p.dil_w * (p.k_w - 1)) as i64 - p.pad_w as i64,
        flip: true,
        epilogue: Epilogue::None,
        gate: if strided { Gate::None } else { gate },
        reads,
        weights: 1 + usize::from(gate != Gate::None),
        spread: spread.map(|s| (s.dispatch, p.n * p.c_out * h_in * w_in)),
    };
    lower(&c, lanes? as usize)
}

/// A gradient with zeros between its pixels.
struct Spread {
    dispatch: Dispatch,
    /// Height and width.
    size: [usize; 2],
}

/// Spreads the gradient of a strided convolution; a width of whole vec4s costs at most three columns of zeros more.
fn spread(p: &Conv2dShape, gate: Gate) -> Option<Spread> {
    let spaced = |size: usize, stride: usize| Some((size.checked_sub(1)?).checked_mul(stride)? + 1);
    let size = [spaced(p.h_out(), p.stride_h)?, spaced(p.w_out(), p.stride_w)?.next_multiple_of(4)];
    let count = size.iter().try_fold(p.n * p.c_out, |n, &k| n.checked_mul(k))?;
    let (groups, row) = grid(count, 64)?;
    let mut args = vec![Arg::Input(0)];
    match gate {
        Gate::None => {}
        Gate::Relu => args.push(Arg::Input(1)),
        Gate::Pool => return None,
    }
    args.push(Arg::Scratch(1));
    let consts = vec![
        ("COUNT", u(count)),
        ("H_OUT", u(p.h_out())),
        ("W_OUT", u(p.w_out())),
        ("H", u(size[0])),
        ("W", u(size[1])),
        ("STRIDE_H", u(p.stride_h)),
        ("STRIDE_W", u(p.stride_w)),
        ("GATE", Const::B(gate == Gate::Relu)),
        ("ROW", u(row)),
    ];
    let dispatch = Dispatch { shader: "conv2d_spread.wgsl", entry: "spread", consts, args, groups };
    Some(Spread { dispatch, size })
}

/// How much of the output a subgroup owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    rows: usize,
    pixels: usize,
    /// Whether the inputs are read as vec4s.
    vec: bool,
    /// Numbers in front of the first pixel's window, from an aligned address.
    lead: usize,
}

/// Numbers, or vec4s of them, of the tile's inputs: rows and columns.
fn window(c: &Correlation, t: &Tile) -> [usize; 2] {
    let p = &c.shape;
    let rows = (t.rows - 1) * p.stride_h + (p.k_h - 1) * p.dil_h + 1;
    let span = t.lead + (t.pixels - 1) * p.stride_w + (p.k_w - 1) * p.dil_w + 1;
    [rows, if t.vec { span.div_ceil(4) } else { span }]
}

/// Output channels an invocation owns: as many as keep all lanes busy.
fn channels(c_out: usize, lanes: usize) -> usize {
    match c_out.div_ceil(lanes) {
        0 | 1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// The tile that costs least for the whole output.
fn choose(c: &Correlation, h: usize, w: usize, ob: usize, lanes: usize) -> Option<Tile> {
    let p = &c.shape;
    let taps = p.k_h * p.k_w;
    let pooled = matches!(c.epilogue, Epilogue::Pool { .. });
    let [four, one] = c.reads.costs();
    let most = most_sums(p);
    let mut best: Option<(usize, Tile)> = None;
    for pixels in 1..=16 {
        for rows in 1..=8 {
            if rows * pixels * ob > most || (pooled && (rows % 2 != 0 || pixels % 2 != 0)) {
                continue;
            }
            // The words of codes are written whole.
            if pooled && pixels % 8 != 0 && pixels < w {
                continue;
            }
            let vec = p.w_in.is_multiple_of(4) && (pixels * p.stride_w).is_multiple_of(4);
            let lead = if vec { (-c.pad_w).rem_euclid(4) as usize } else { 0 };
            let t = Tile { rows, pixels, vec, lead };
            let [r, cols] = window(c, &t);
            let loads = (r * cols).div_ceil(lanes) * if vec { four } else { one };
            let weights = taps * if ob == 1 { one } else { four };
            let cost = h.div_ceil(rows) * w.div_ceil(pixels) * (taps * rows * pixels * ob + loads + weights);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, t));
            }
        }
    }
    best.map(|(_, t)| t)
}

fn lower(c: &Correlation, lanes: usize) -> Option<Lowering> {
    let p = &c.shape;
    let empty = [p.n, p.c_in, p.c_out, c.h_out, c.w_out, p.h_in, p.w_in].contains(&0);
    let wide = p.dil_h * (p.k_h - 1) > 16 || p.dil_w * (p.k_w - 1) > 16 || p.stride_h > 4 || p.stride_w > 4;
    if p.groups != 1 || p.k_h * p.k_w > MOST_TAPS || wide || empty || p.c_in > MAX_TURNS {
        return None;
    }
    let pooled = matches!(c.epilogue, Epilogue::Pool { .. });
    let (h, w) = if pooled { (c.h_out / 2 * 2, c.w_out / 2 * 2) } else { (c.h_out, c.w_out) };
    if h * w == 0 || (c.gate == Gate::Pool && (p.h_in < 2 || p.w_in < 2)) {
        return None;
    }
    let ob = channels(p.c_out, lanes);
    let tile = choose(c, h, w, ob, lanes)?;
    let blocks = p.c_out.div_ceil(ob).next_multiple_of(lanes);
    // The page puts room for a bias behind the weights, which here is read where it lies.
    let packed = blocks * ob * (p.c_in * p.k_h * p.k_w + 1);
    let (repack_groups, repack_row) = grid(packed, 64)?;
    let (width, per_store) = if pooled { (c.w_out / 2, 8) } else { (c.w_out, 4) };
    let y_vec = width.is_multiple_of(4) && tile.pixels.is_multiple_of(per_store);
    let codes = c.epilogue == Epilogue::Pool { codes: true };
    let repack = Dispatch {
        shader: "conv2d_repack.wgsl",
        entry: "repack",
        consts: vec![
            ("C_IN", u(p.c_in)),
            ("C_OUT", u(p.c_out)),
            ("K_H", u(p.k_h)),
            ("K_W", u(p.k_w)),
            ("OB", u(ob * lanes)),
            ("FLIP", Const::B(c.flip)),
            ("BIAS", Const::B(false)),
            ("ROW", u(repack_row)),
        ],
        args: vec![Arg::Input(c.weights), Arg::Scratch(0)],
        groups: repack_groups,
    };
    let consts = vec![
        ("C_IN", u(p.c_in)),
        ("H_IN", u(p.h_in)),
        ("W_IN", u(p.w_in)),
        ("C_OUT", u(p.c_out)),
        ("H_OUT", u(c.h_out)),
        ("W_OUT", u(c.w_out)),
        ("H_TILED", u(h)),
        ("W_TILED", u(w)),
        ("K_H", u(p.k_h)),
        ("K_W", u(p.k_w)),
        ("STRIDE_H", u(p.stride_h)),
        ("STRIDE_W", u(p.stride_w)),
        ("PAD_H", Const::I(c.pad_h as i32)),
        ("PAD_W", Const::I(c.pad_w as i32)),
        ("DIL_H", u(p.dil_h)),
        ("DIL_W", u(p.dil_w)),
        ("BIAS", Const::B(p.bias)),
        ("EPILOGUE", u(c.epilogue.number())),
        ("CODES", Const::B(codes)),
        ("GATE", u(c.gate.number())),
        ("TEXTURES", Const::B(c.reads == Reads::Textures)),
        ("LANES", u(lanes)),
        ("OB", u(ob)),
        ("RB", u(tile.rows)),
        ("PB", u(tile.pixels)),
        ("X_VEC", Const::B(tile.vec)),
        ("LEAD", u(tile.lead)),
        ("Y_VEC", Const::B(y_vec)),
    ];
    let weights = match ob {
        1 => Texel::F1,
        2 => Texel::F2,
        _ => Texel::F4,
    };
    let input = gated_input(c.gate, [p.h_in, p.w_in], tile.vec);
    let mut dispatches = vec![repack];
    let mut scratch = vec![packed];
    let mut source = Held::Input(0);
    if let Some((dispatch, numbers)) = &c.spread {
        dispatches.push(dispatch.clone());
        scratch.push(*numbers);
        source = Held::Scratch(1);
    }
    for part in c.reads.parts(p.n, p.c_in * input.size) {
        let mut args = vec![c.reads.bind(source, input.texel, part, p.c_in * input.size)];
        if let Some((texel, size)) = input.gate {
            args.push(c.reads.bind(Held::Input(1), texel, part, p.c_in * size));
        }
        args.push(c.reads.bind(Held::Scratch(0), weights, [0, 1], blocks * ob * p.c_in * p.k_h * p.k_w));
        if p.bias {
            args.push(Arg::Input(2));
        }
        args.push(Arg::Output);
        if codes {
            args.push(Arg::Companion);
        }
        if !textures_fit(&args) {
            return None;
        }
        let tiles = blocks / lanes * w.div_ceil(tile.pixels) * h.div_ceil(tile.rows) * part[1];
        let (groups, row) = grid(tiles, 1)?;
        let mut consts = consts.clone();
        consts.push(("ROW", u(row)));
        consts.extend(images(c.reads, part, p.n));
        dispatches.push(Dispatch { shader: "conv2d_subgroup.wgsl", entry: "forward", consts, args, groups });
    }
    Some(Lowering { dispatches, scratch })
}

/// A gradient as it lies in memory with what it passes.
struct Gated {
    /// Numbers of a plane.
    size: usize,
    texel: Texel,
    /// The gate's texels, and numbers of a plane of it.
    gate: Option<(Texel, usize)>,
}

/// How a tensor of planes `h` by `w` lies in memory where it passes `gate`, and whether it is read four numbers at a time.
fn gated_input(gate: Gate, [h, w]: [usize; 2], vec: bool) -> Gated {
    let texel = if vec { Texel::F4 } else { Texel::F1 };
    match gate {
        Gate::None => Gated { size: h * w, texel, gate: None },
        Gate::Relu => Gated { size: h * w, texel, gate: Some((texel, h * w)) },
        Gate::Pool => {
            let [h, w] = [h / 2, w / 2];
            let texel = if vec { Texel::F2 } else { Texel::F1 };
            Gated { size: h * w, texel, gate: Some((Texel::U1, h * w.div_ceil(4))) }
        }
    }
}

/// The constants that say which images a dispatch is for.
fn images(reads: Reads, [first, count]: [usize; 2], n: usize) -> Vec<(&'static str, Const)> {
    match reads {
        Reads::Buffers => vec![("N", u(n))],
        Reads::Textures => vec![("FIRST", late(first)), ("IMAGES", late(count))],
    }
}

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
    let wide = p.dil_h * (p.k_h - 1) > 16 || p.dil_w * (p.k_w - 1) > 16 || p.stride_h > 4 || p.stride_w > 4;
    if p.groups != 1 || p.k_w > 11 || wide || [h * w, p.x_len(), p.w_len()].contains(&0) {
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
    let consts = vec![
        ("C_IN", u(p.c_in)),
        ("H_IN", u(p.h_in)),
        ("W_IN", u(p.w_in)),
        ("C_OUT", u(p.c_out)),
        ("H_OUT", u(p.h_out())),
        ("W_OUT", u(p.w_out())),
        ("H_TILED", u(h)),
        ("W_TILED", u(w)),
        ("K_H", u(p.k_h)),
        ("K_W", u(p.k_w)),
        ("STRIDE_H", u(p.stride_h)),
        ("STRIDE_W", u(p.stride_w)),
        ("PAD_H", Const::I(p.pad_h as i32)),
        ("PAD_W", Const::I(p.pad_w as i32)),
        ("DIL_H", u(p.dil_h)),
        ("DIL_W", u(p.dil_w)),
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
    ];
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
