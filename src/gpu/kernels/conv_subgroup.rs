//! Convolution by subgroups: forward and input gradient, which are one correlation.

use super::conv_parts::{
    Epilogue, Gate, Reads, channels, gated_input, images, is_wide, most_sums, repack, sizes, textures_fit,
};
use super::grid::{grid, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Held, Lowering, MAX_TURNS, Texel};

/// Most taps: all of them are unrolled.
const MOST_TAPS: usize = 25;

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
    if p.groups != 1 || p.k_h * p.k_w > MOST_TAPS || is_wide(p) || empty || p.c_in > MAX_TURNS {
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
    let (repack, packed) = repack(p, c.weights, ob * lanes, [c.flip, false])?;
    let (width, per_store) = if pooled { (c.w_out / 2, 8) } else { (c.w_out, 4) };
    let y_vec = width.is_multiple_of(4) && tile.pixels.is_multiple_of(per_store);
    let codes = c.epilogue == Epilogue::Pool { codes: true };
    let mut consts = sizes(p, [c.h_out, c.w_out], [h, w], [c.pad_h, c.pad_w]);
    consts.extend([
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
    ]);
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
