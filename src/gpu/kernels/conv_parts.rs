//! What kernels of the convolution have in common: weights laid out anew; and of the subgroup kernels what is fused to them, where they
//! read, how many numbers they hold.

use super::grid::{grid, late, u};
use super::shapes::Conv2dShape;
use crate::gpu::lower::{Arg, Const, Dispatch, Held, Texel, Texture};

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

pub(super) fn most_sums(p: &Conv2dShape) -> usize {
    let work = p.n * p.c_out * p.h_out() * p.w_out() * p.c_in * p.k_h * p.k_w;
    MOST_SUMS[usize::from(work >= SHORT)]
}

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
    pub(super) fn costs(self) -> [usize; 2] {
        match self {
            Self::Buffers => [100, 60],
            Self::Textures => [28, 26],
        }
    }

    /// An input or scratch as a binding: `images` images of `size` numbers each, from the `first` on.
    pub(super) fn bind(self, of: Held, texel: Texel, [first, images]: [usize; 2], size: usize) -> Arg {
        match (self, of) {
            (Self::Textures, _) => Arg::Texture(Texture::run(of, texel, first * size, images * size)),
            (Self::Buffers, Held::Input(k)) => Arg::Input(k),
            (Self::Buffers, Held::Scratch(k)) => Arg::Scratch(k),
        }
    }

    /// The images of each dispatch, `[first, count]`, where the largest input has `size` numbers an image.
    pub(super) fn parts(self, n: usize, size: usize) -> Vec<[usize; 2]> {
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
pub(super) fn textures_fit(args: &[Arg]) -> bool {
    args.iter().all(|arg| if let Arg::Texture(t) = arg { t.fits() } else { true })
}

/// Output channels an invocation owns: as many as keep all lanes busy.
pub(super) fn channels(c_out: usize, lanes: usize) -> usize {
    match c_out.div_ceil(lanes) {
        0 | 1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// A gradient as it lies in memory with what it passes.
pub(super) struct Gated {
    /// Numbers of a plane.
    pub size: usize,
    pub texel: Texel,
    /// The gate's texels, and numbers of a plane of it.
    pub gate: Option<(Texel, usize)>,
}

/// How a tensor of planes `h` by `w` lies in memory where it passes `gate`, and whether it is read four numbers at a time.
pub(super) fn gated_input(gate: Gate, [h, w]: [usize; 2], vec: bool) -> Gated {
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
pub(super) fn images(reads: Reads, [first, count]: [usize; 2], n: usize) -> Vec<(&'static str, Const)> {
    match reads {
        Reads::Buffers => vec![("N", u(n))],
        Reads::Textures => vec![("FIRST", late(first)), ("IMAGES", late(count))],
    }
}

/// Whether gaps or strides are too wide for a tile's inputs.
pub(super) fn is_wide(p: &Conv2dShape) -> bool {
    p.dil_h * (p.k_h - 1) > 16 || p.dil_w * (p.k_w - 1) > 16 || p.stride_h > 4 || p.stride_w > 4
}

/// The sizes that both pages see. `out` is what the correlation gives, `tiled` how much of it tiles cover, `pad` what lies in front of the
/// input.
pub(super) fn sizes(p: &Conv2dShape, out: [usize; 2], tiled: [usize; 2], pad: [i64; 2]) -> Vec<(&'static str, Const)> {
    vec![
        ("C_IN", u(p.c_in)),
        ("H_IN", u(p.h_in)),
        ("W_IN", u(p.w_in)),
        ("C_OUT", u(p.c_out)),
        ("H_OUT", u(out[0])),
        ("W_OUT", u(out[1])),
        ("H_TILED", u(tiled[0])),
        ("W_TILED", u(tiled[1])),
        ("K_H", u(p.k_h)),
        ("K_W", u(p.k_w)),
        ("STRIDE_H", u(p.stride_h)),
        ("STRIDE_W", u(p.stride_w)),
        ("PAD_H", Const::I(pad[0] as i32)),
        ("PAD_W", Const::I(pad[1] as i32)),
        ("DIL_H", u(p.dil_h)),
        ("DIL_W", u(p.dil_w)),
    ]
}

/// Writes the weights, the node's input number `weights`, into scratch buffer 0: `block` output channels beside each other, and behind each
/// block its part of the bias, or zeros, so that one page serves both directions. Beside it, how many numbers that are.
pub(super) fn repack(
    p: &Conv2dShape,
    weights: usize,
    block: usize,
    [flip, bias]: [bool; 2],
) -> Option<(Dispatch, usize)> {
    let packed = p.c_out.next_multiple_of(block) * (p.c_in * p.k_h * p.k_w + 1);
    let (groups, row) = grid(packed, 64)?;
    let consts = vec![
        ("C_IN", u(p.c_in)),
        ("C_OUT", u(p.c_out)),
        ("K_H", u(p.k_h)),
        ("K_W", u(p.k_w)),
        ("OB", u(block)),
        ("FLIP", Const::B(flip)),
        ("BIAS", Const::B(bias)),
        ("ROW", u(row)),
    ];
    let mut args = vec![Arg::Input(weights), Arg::Scratch(0)];
    if bias {
        args.push(Arg::Input(2));
    }
    Some((Dispatch { shader: "conv2d_repack.wgsl", entry: "repack", consts, args, groups }, packed))
}
