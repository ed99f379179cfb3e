//! `augment_images`: a batch, picked by index, changed at random and normalised; what `gather_images` is where training
//! images are augmented.
//!
//! For image `b` of the batch, a map of the plane is drawn: flip, zoom, shear, rotation and shift, in this order, about the
//! image's centre ((W - 1) / 2, (H - 1) / 2) in coordinates of pixel centres, as torchvision's `RandomAffine` composes them.
//! With q = p - t its inverse is
//!
//! ```text
//! source(p) = F Z^-1 S^-1 R^-1 q          R^-1 = [cos a, -sin a; sin a, cos a]    S^-1 = [1, -tan s; 0, 1]
//! ```
//!
//! Each pixel of the result is mixed from the four pixels around its source (bilinear interpolation); [`Fill`] says what
//! lies beyond the border. Then, with x from 0 to 1:
//!
//! ```text
//! x' = clamp(contrast brightness x + (1 - contrast) mean[c], 0, 1) + noise
//! y  = (x' - mean[c]) / std[c]            and 0 in the erased rectangle
//! ```
//!
//! Contrast is about the mean of the training images, which is known, and not about the image's own, for which a pass over
//! it would be needed. Noise comes after the clamp so that its mean is zero on black and on white too. A rectangle of the mean
//! is a rectangle of zeros.
//!
//! **Draws** are counter-based (`draw.rs`): of the image's place in the batch, the step and the seed, so the same seed gives the
//! same pictures on the CPU and on the GPU. Where nothing is drawn for an image, its bits are those of `gather_images`.
//! An input may flag images as repeats (of a rare class, say), for which a second table of settings holds.
//!
//! **Tolerance.** Decisions are exact; the rest is continuous in what was drawn. The error of f32 against f64 grows with
//! the displacement in pixels and the difference of neighbouring pixels, and stays below 1e-5 of the norm for displacements
//! of tens of pixels, even of white noise.
//!
//! Pixels, indices, seeds and flags have no derivative. Kernels: `plain`, one invocation an element; `strip`, where W is a
//! multiple of 4, one invocation up to 16 elements of a row. Both come after a small dispatch that draws.

use rayon::prelude::*;

use super::gather::{self, GatherImages};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::cpu::fast;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::rng::Stream;
use crate::shape::{ShapeError, Spec, arity};

pub mod draw;
mod samples;
pub mod settings;

use draw::{Row, Words, number};
pub use samples::samples;
pub use settings::{Augment, AugmentError, Fill};

/// The variant that computes a piece of a row in one invocation.
const STRIP: &str = "strip";

/// The most pixels in an image of which rectangles are erased: their areas are drawn in 32-bit integers.
pub const MAX_ERASE_PIXELS: usize = 1 << 22;

/// Picks, augments and normalises images.
#[derive(Clone, Debug)]
pub struct AugmentImages {
    /// What is taken from each channel, in units of the full scale.
    pub mean: Vec<f32>,
    /// What each channel is divided by, in units of the full scale.
    pub std: Vec<f32>,
    /// What happens to images.
    pub augment: Augment,
    /// What happens to those that are flagged; there is an input of flags where this is given.
    pub repeats: Option<Augment>,
}

/// The stream of a draw.
fn stream(number: u32) -> u32 {
    Stream::Augment as u32 + number
}

impl AugmentImages {
    fn fill(&self) -> Fill {
        match &self.repeats {
            Some(repeats) if self.augment.is_identity() => repeats.fill,
            _ => self.augment.fill,
        }
    }

    /// The settings for an image.
    fn of(&self, flag: u32) -> &Augment {
        self.repeats.as_ref().filter(|_| flag != 0).unwrap_or(&self.augment)
    }

    fn noisy(&self) -> bool {
        let noisy = |a: &Augment| a.noise.is_some_and(|n| n.p > 0.0 && n.std > 0.0);
        noisy(&self.augment) || self.repeats.as_ref().is_some_and(noisy)
    }

    /// The sides of the images and the pixels of a plane are refused where a rectangle's area would not fit 32 bits.
    fn check(&self, pixels: &Spec) -> Result<(), ShapeError> {
        let name = self.name();
        let all = || std::iter::once(&self.augment).chain(&self.repeats);
        for settings in all() {
            settings.validate().map_err(|e| ShapeError::invalid(name, e.to_string(), pixels))?;
        }
        if let Some(repeats) = &self.repeats
            && !self.augment.is_identity()
            && !repeats.is_identity()
            && self.augment.fill != repeats.fill
        {
            return Err(ShapeError::invalid(name, "repeats must have the same fill as the other images", pixels));
        }
        let plane: usize = pixels.shape[2..].iter().product();
        if all().any(|a| a.erase.is_some()) && plane > MAX_ERASE_PIXELS {
            let what = format!("erase serves images of up to {MAX_ERASE_PIXELS} pixels");
            return Err(ShapeError::invalid(name, what, pixels));
        }
        Ok(())
    }
}

/// The row or column that stands in for `k` beyond the border of `n`; `None` for black.
fn border(fill: Fill, k: i64, n: usize) -> Option<usize> {
    let n = n as i64;
    let at = match fill {
        Fill::Nearest => k.clamp(0, n - 1),
        Fill::Constant if (0..n).contains(&k) => k,
        Fill::Constant => return None,
        Fill::Reflect => {
            let turn = k.rem_euclid(2 * n);
            turn.min(2 * n - 1 - turn)
        }
    };
    Some(at as usize)
}

/// The pixel of a plane at the source of row `i`, column `j`, from 0 to 255.
fn sample_at<T: Real>(plane: &[u8], [h, w]: [usize; 2], fill: Fill, row: &Row<T>, i: usize, j: usize) -> T {
    let u = T::of(j as f64 - 0.5 * (w - 1) as f64);
    let v = T::of(i as f64 - 0.5 * (h - 1) as f64);
    let dx = row.across[0] * u + row.across[1] * v + row.across[2];
    let dy = row.down[0] * u + row.down[1] * v + row.down[2];
    let (fx, fy) = (dx - dx.floor(), dy - dy.floor());
    let left = if row.mirror { w - 1 - j } else { j } as i64 + dx.floor().f64() as i64;
    let top = i as i64 + dy.floor().f64() as i64;
    let tap = |i: i64, j: i64| match (border(fill, i, h), border(fill, j, w)) {
        (Some(i), Some(j)) => T::of(f64::from(plane[i * w + j])),
        _ => T::zero(),
    };
    // Exactly `a` where `f` is 0.
    let mix = |a: T, b: T, f: T| a + f * (b - a);
    mix(mix(tap(top, left), tap(top, left + 1), fx), mix(tap(top + 1, left), tap(top + 1, left + 1), fx), fy)
}

impl AugmentImages {
    /// Turns a plane of sources (0 to 255) into the result: tone, noise, normalisation, erasing. `first` is the number of
    /// its first element.
    fn finish<T: Real>(&self, row: &Row<T>, words: Words, channel: usize, first: usize, w: usize, out: &mut [T]) {
        let mean = T::of(f64::from(self.mean[channel]));
        let std = T::of(f64::from(self.std[channel]));
        for (at, out) in out.iter_mut().enumerate() {
            let mut shown = (*out / T::of(255.0) * row.gain + row.pull * mean).max(T::zero()).min(T::one());
            if row.sigma > T::zero() {
                shown += row.sigma * words.normal((first + at) as u32);
            }
            *out = (shown - mean) / std;
        }
        let [top, left, bottom, right] = row.erased.map(|e| e as usize);
        for line in out.chunks_exact_mut(w).take(bottom).skip(top) {
            line[left..right].fill(T::zero());
        }
    }
}

impl<T: Real> Kernel<T> for AugmentImages {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (pixels, indices, rng) = (cx.u8(0), cx.u32(1), cx.u32(2));
        let flags = self.repeats.is_some().then(|| cx.u32(3));
        let [count, c, h, w] = cx.specs[0].shape.nchw().unwrap_or([1; 4]);
        let words = Words { seed: rng[0], step: rng[1] };
        let (fill, fast, plane) = (self.fill(), cx.fast, h * w);
        cx.out().par_chunks_mut(plane).enumerate().for_each(|(k, out)| {
            let (b, channel) = (k / c, k % c);
            let row: Row<T> = self.of(flags.map_or(0, |f| f[b])).draw(words, b as u32, [h, w]);
            let start = (indices[b].min((count - 1) as u32) as usize * c + channel) * plane;
            let source = &pixels[start..start + plane];
            match T::as_f32_mut(out) {
                Some(out) if fast => fast::bilinear(source, [h, w], &row.placement(), border_of(fill), out),
                _ => {
                    for (at, out) in out.iter_mut().enumerate() {
                        *out = sample_at(source, [h, w], fill, &row, at / w, at % w);
                    }
                }
            }
            self.finish(&row, words, channel, k * plane, w, out);
        });
    }
}

/// The fast kernel's name for a fill.
fn border_of(fill: Fill) -> fast::Border {
    match fill {
        Fill::Nearest => fast::Border::Nearest,
        Fill::Constant => fast::Border::Zero,
        Fill::Reflect => fast::Border::Reflect,
    }
}

impl Op for AugmentImages {
    fn name(&self) -> &'static str {
        "augment_images"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        let name = self.name();
        arity(name, inputs, if self.repeats.is_some() { 4 } else { 3 })?;
        let gather = GatherImages { mean: self.mean.clone(), std: self.std.clone() };
        let out = gather.infer(&inputs[..2])?;
        if *inputs[2] != Spec::u32([2]) {
            return Err(ShapeError::invalid(name, "takes the two words seed and step as u32 [2]", inputs[2]));
        }
        if let Some(flags) = inputs.get(3)
            && *flags != inputs[1]
        {
            return Err(ShapeError::mismatch(name, "needs a flag for each index", inputs[1], flags));
        }
        if u32::try_from(out.numel()).is_err() {
            let what = "kernels count elements with 32 bits: the batch must have less than 2^32";
            return Err(ShapeError::invalid(name, what, inputs[0]));
        }
        self.check(inputs[0])?;
        Ok(out)
    }

    fn differentiable(&self, _: usize) -> bool {
        false
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let width = cx.inputs[0].shape[3];
        if width.is_multiple_of(4) { vec![PLAIN, STRIP] } else { vec![PLAIN] }
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let dims = &cx.inputs[0].shape;
        let (batch, elements) = (cx.inputs[1].numel(), cx.output.numel());
        let mut rest = vec![Arg::Input(2), Arg::Scratch(0)];
        if self.repeats.is_some() {
            rest.push(Arg::Input(3));
        }
        let consts = self.consts([dims[0], dims[1], dims[2], dims[3]]);
        let draw = Dispatch::elementwise("augment_images.wgsl", "draw", batch, rest, consts.clone());
        let (entry, count) = match cx.variant {
            PLAIN => ("forward", elements),
            _ => ("strip", elements / strip(dims[3])),
        };
        let mut args = vec![Arg::Input(0), Arg::Input(1), Arg::Scratch(0), Arg::Output];
        if self.noisy() {
            args.push(Arg::Input(2));
        }
        let pixels = Dispatch::elementwise("augment_images.wgsl", entry, count, args, consts);
        Lowering { dispatches: vec![draw, pixels], scratch: vec![16 * batch] }
    }

    fn flops(&self, _: &[&Spec], output: &Spec) -> u64 {
        // Two sums of three products, three mixes, tone and normalisation.
        26 * output.numel() as u64
    }

    fn detail(&self) -> String {
        match &self.repeats {
            Some(repeats) => format!("{}; repeats: {repeats}", self.augment),
            None => self.augment.to_string(),
        }
    }
}

/// Elements of a row that an invocation of `strip` computes.
fn strip(width: usize) -> usize {
    [16, 8].into_iter().find(|n| width.is_multiple_of(*n)).unwrap_or(4)
}

impl AugmentImages {
    /// Everything that the page is specialised by.
    fn consts(&self, [images, channels, h, w]: [usize; 4]) -> Vec<(&'static str, Const)> {
        let u = |v: usize| Const::U(v as u32);
        let mut consts = vec![
            ("IMAGES", u(images)),
            ("CHANNELS", u(channels)),
            ("H", u(h)),
            ("W", u(w)),
            ("STRIP", u(strip(w))),
            ("STREAM", Const::U(stream(0))),
            ("MEAN", Const::Formula(gather::choice(&self.mean))),
            ("STD", Const::Formula(gather::choice(&self.std))),
            ("FILL", Const::Text(self.fill().name())),
            ("NOISY", Const::B(self.noisy())),
            ("REPEATS", Const::B(self.repeats.is_some())),
            ("BYTES_SCALE", Const::Formula(literal(draw::BYTES_SCALE))),
        ];
        let numbers = [
            ("HFLIP", number::HFLIP),
            ("ROTATE", number::ROTATE),
            ("SHIFT", number::SHIFT),
            ("ZOOM", number::ZOOM),
            ("SHEAR", number::SHEAR),
            ("BRIGHTNESS", number::BRIGHTNESS),
            ("CONTRAST", number::CONTRAST),
            ("NOISE", number::NOISE),
            ("ERASE", number::ERASE),
            ("PLACE", number::PLACE),
            ("PIXEL", number::PIXEL),
        ];
        consts.extend(numbers.map(|(name, n)| (name, Const::Formula(n.to_string()))));
        let usual = formulas(&self.augment, [h, w]);
        let repeats = self.repeats.as_ref().map(|r| formulas(r, [h, w]));
        for (k, (name, usual)) in usual.into_iter().enumerate() {
            let formula = match repeats.as_ref().map(|r| &r[k].1) {
                Some(other) if *other != usual => format!("select({usual}, {other}, repeat)"),
                _ => usual,
            };
            consts.push((name, Const::Formula(formula)));
        }
        consts
    }
}

/// WGSL for a number.
fn literal(v: f64) -> String {
    format!("f32({:e})", v as f32)
}

/// The settings as WGSL, angles in radians and lengths in pixels. What never happens has probability 0.
fn formulas(a: &Augment, [h, w]: [usize; 2]) -> Vec<(&'static str, String)> {
    let by = |v: f64| literal(v);
    let mut all = vec![("HFLIP_P", by(a.hflip.map_or(0.0, |c| c.p)))];
    let rotate = a.rotate.map_or([0.0; 2], |c| [c.p, c.degrees.to_radians()]);
    let shear = a.shear.map_or([0.0; 2], |c| [c.p, c.degrees.to_radians()]);
    let shift = a.shift.map_or([0.0; 3], |c| [c.p, c.fraction * w as f64, c.fraction * h as f64]);
    let factor = |f: Option<settings::Factor>| f.map_or([0.0, 1.0, 1.0], |c| [c.p, c.min, c.max]);
    let (zoom, brightness, contrast) = (factor(a.zoom), factor(a.brightness), factor(a.contrast));
    let noise = a.noise.map_or([0.0; 2], |c| [c.p, c.std]);
    all.extend([
        ("ROTATE_P", by(rotate[0])),
        ("ROTATE_BY", by(rotate[1])),
        ("SHEAR_P", by(shear[0])),
        ("SHEAR_BY", by(shear[1])),
        ("SHIFT_P", by(shift[0])),
        ("SHIFT_X", by(shift[1])),
        ("SHIFT_Y", by(shift[2])),
        ("ZOOM_P", by(zoom[0])),
        ("ZOOM_MIN", by(zoom[1])),
        ("ZOOM_MAX", by(zoom[2])),
        ("BRIGHTNESS_P", by(brightness[0])),
        ("BRIGHTNESS_MIN", by(brightness[1])),
        ("BRIGHTNESS_MAX", by(brightness[2])),
        ("CONTRAST_P", by(contrast[0])),
        ("CONTRAST_MIN", by(contrast[1])),
        ("CONTRAST_MAX", by(contrast[2])),
        ("NOISE_P", by(noise[0])),
        ("NOISE_STD", by(noise[1])),
        ("ERASE_P", by(a.erase.map_or(0.0, |c| c.p))),
    ]);
    let ([least, most], slimmest) = a.erase.map_or(([1, 1], 64), |c| draw::erase_bounds(c.area, c.aspect, h * w));
    let bounds = [("ERASE_LEAST", least), ("ERASE_MOST", most), ("ERASE_SLIMMEST", slimmest)];
    all.extend(bounds.map(|(name, v)| (name, format!("{v}u"))));
    all
}

impl Graph {
    /// The images of `pixels` (u8 `[D, C, H, W]`) that `indices` (u32 `[B]`) name, changed at random and normalised, as floats
    /// `[B, C, H, W]`. `rng` is a u32 tensor of two words, the seed and the number of the step; `flags` (u32 `[B]`), which
    /// goes with `op.repeats`, is not 0 for the images that are repeats.
    ///
    /// # Errors
    /// The tensors have other types or ranks, a setting is out of its range, or there are flags without settings for them.
    pub fn augment_images(
        &mut self,
        op: AugmentImages,
        [pixels, indices, rng]: [NodeId; 3],
        flags: Option<NodeId>,
    ) -> Result<NodeId, ShapeError> {
        let inputs: Vec<NodeId> = [pixels, indices, rng].into_iter().chain(flags).collect();
        self.apply(op, &inputs)
    }
}

#[cfg(test)]
mod tests;
