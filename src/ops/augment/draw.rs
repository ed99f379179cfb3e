//! What is drawn for one image of a batch: the map from its pixels to the source, and the changes of their values.
//!
//! Draw `k` of image `b` is `pcg4d(b, Stream::Augment + k, step, seed)`, four words for each kind of change: the first
//! decides whether it happens, the others how. `shaders/augment_images.wgsl` computes the same. Whatever is a decision
//! (happens or not, the corners of the erased rectangle) is made in integers, or by comparing exact floats, so that CPU and GPU
//! decide alike.

use super::settings::{Angle, Augment, Factor};
use crate::cpu::fast;
use crate::real::Real;
use crate::rng::{below, pcg4d, unit};

/// The number of the draw for each kind of change.
pub(super) mod number {
    pub const HFLIP: u32 = 0;
    pub const ROTATE: u32 = 1;
    pub const SHIFT: u32 = 2;
    pub const ZOOM: u32 = 3;
    pub const SHEAR: u32 = 4;
    pub const BRIGHTNESS: u32 = 5;
    pub const CONTRAST: u32 = 6;
    pub const NOISE: u32 = 7;
    pub const ERASE: u32 = 8;
    pub const PLACE: u32 = 9;
    pub const PIXEL: u32 = 16;
}

/// The mean of a sum of sixteen bytes, and one over its standard deviation: `sqrt(16 (256^2 - 1) / 12)`.
const BYTES_MEAN: f64 = 2040.0;
pub(super) const BYTES_SCALE: f64 = 0.003_382_937_543_396_614;

/// One image's changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<T> {
    /// Displacement in pixels of the source along x: `[0] u + [1] v + [2]`, where (u, v) is the pixel's distance from the
    /// centre.
    pub across: [T; 3],
    /// The same along y.
    pub down: [T; 3],
    /// Columns count from the right.
    pub mirror: bool,
    /// What the pixels are multiplied by: brightness times contrast.
    pub gain: T,
    /// Share of the mean that is then added: 1 - contrast.
    pub pull: T,
    /// Standard deviation of the noise.
    pub sigma: T,
    /// Top, left, bottom (excluded) and right (excluded) of the erased rectangle; all zero without one.
    pub erased: [u32; 4],
}

impl<T: Real> Row<T> {
    /// Where its pixels come from, for the fast kernel.
    pub(super) fn placement(&self) -> fast::Placement {
        let narrow = |k: [T; 3]| k.map(|v| v.f64() as f32);
        fast::Placement { across: narrow(self.across), down: narrow(self.down), mirror: self.mirror }
    }
}

/// The random words of a step: seed and step.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The run's seed.
    pub seed: u32,
    /// The number of the step.
    pub step: u32,
}

impl Words {
    fn of(self, number: u32, element: u32) -> [u32; 4] {
        pcg4d([element, super::stream(number), self.step, self.seed])
    }

    /// Nearly standard normal: the sum of sixteen random bytes, scaled. Its mean and variance are exact, its excess
    /// kurtosis is -0.075, and it never passes 6.9.
    #[must_use]
    pub fn normal<T: Real>(self, element: u32) -> T {
        let bytes = self.of(number::PIXEL, element).map(|w| w.to_le_bytes().iter().map(|&b| u32::from(b)).sum::<u32>());
        T::of((f64::from(bytes.iter().sum::<u32>()) - BYTES_MEAN) * BYTES_SCALE)
    }
}

/// Whether a change of probability `p` happens.
fn happens(word: u32, p: f64) -> bool {
    // The draw is exact in f32, and so is what a shader compares it with.
    unit(word) < p as f32
}

fn between<T: Real>(word: u32, low: f64, high: f64) -> T {
    T::of(low) + (T::of(high) - T::of(low)) * T::of(f64::from(unit(word)))
}

/// The ratio of a rectangle's sides is drawn in whole 64ths.
pub(super) const RATIO_UNIT: f64 = 64.0;

/// Bounds of the erased area in pixels, and of the ratio of its sides in 64ths.
pub(super) fn erase_bounds(area: [f64; 2], aspect: f64, pixels: usize) -> ([u32; 2], u32) {
    let least = ((area[0] * pixels as f64).round() as u32).max(1);
    let most = ((area[1] * pixels as f64).round() as u32).max(least);
    ([least, most], (RATIO_UNIT * aspect).round() as u32)
}

impl Augment {
    /// What happens to image number `b` of a batch of images of `h` x `w` pixels.
    #[must_use]
    pub fn draw<T: Real>(&self, words: Words, b: u32, [h, w]: [usize; 2]) -> Row<T> {
        let (zero, one) = (T::zero(), T::one());
        let angle = |change: Option<Angle>, number| {
            let [coin, value, ..] = words.of(number, b);
            change.filter(|c| happens(coin, c.p)).map_or(zero, |c| {
                let radians = c.degrees.to_radians();
                between::<T>(value, -radians, radians)
            })
        };
        let factor = |change: Option<Factor>, number| {
            let [coin, value, ..] = words.of(number, b);
            change.filter(|c| happens(coin, c.p)).map_or(one, |c| between::<T>(value, c.min, c.max))
        };
        let mirror = self.hflip.is_some_and(|c| happens(words.of(number::HFLIP, b)[0], c.p));
        let (sin, cos) = angle(self.rotate, number::ROTATE).sin_cos();
        let slant = angle(self.shear, number::SHEAR).tan();
        let zoom = factor(self.zoom, number::ZOOM);
        let [coin, x, y, _] = words.of(number::SHIFT, b);
        let (tx, ty) = match self.shift.filter(|c| happens(coin, c.p)) {
            Some(c) => {
                let (x_most, y_most) = (c.fraction * w as f64, c.fraction * h as f64);
                (between::<T>(x, -x_most, x_most), between::<T>(y, -y_most, y_most))
            }
            None => (zero, zero),
        };
        // The inverse of: flip, zoom, shear, rotate, shift. The flip itself is in `mirror`.
        let m = [(cos - slant * sin) / zoom, (-sin - slant * cos) / zoom, sin / zoom, cos / zoom];
        let f = if mirror { -one } else { one };
        let contrast = factor(self.contrast, number::CONTRAST);
        let noise = self.noise.filter(|c| happens(words.of(number::NOISE, b)[0], c.p));
        Row {
            across: [f * (m[0] - one), f * m[1], -f * (m[0] * tx + m[1] * ty)],
            down: [m[2], m[3] - one, -(m[2] * tx + m[3] * ty)],
            mirror,
            gain: contrast * factor(self.brightness, number::BRIGHTNESS),
            pull: one - contrast,
            sigma: noise.map_or(zero, |c| T::of(c.std)),
            erased: self.draw_rectangle(words, b, [h, w]),
        }
    }

    fn draw_rectangle(&self, words: Words, b: u32, [h, w]: [usize; 2]) -> [u32; 4] {
        let [coin, area, ratio, upright] = words.of(number::ERASE, b);
        let Some(erase) = self.erase.filter(|c| happens(coin, c.p)) else { return [0; 4] };
        let ([least, most], slimmest) = erase_bounds(erase.area, erase.aspect, h * w);
        let area = least + below(area, most - least + 1);
        let ratio = RATIO_UNIT as u32 + below(ratio, slimmest - RATIO_UNIT as u32 + 1);
        // The root of 64 is 8; half of it rounds.
        let long = ((area * ratio).isqrt() + 4) / 8;
        let upright = upright >> 31 == 1;
        let (h, w) = (h as u32, w as u32);
        let (limit, other_limit) = if upright { (h, w) } else { (w, h) };
        let long = long.clamp(1, limit);
        let short = ((area + long / 2) / long).clamp(1, other_limit);
        let (height, width) = if upright { (long, short) } else { (short, long) };
        let [y, x, ..] = words.of(number::PLACE, b);
        let (top, left) = (below(y, h - height + 1), below(x, w - width + 1));
        [top, left, top + height, left + width]
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Chance, Erase, Noise, Shift};
    use super::*;

    const DRAWS: u32 = 10_000;

    fn rows(a: &Augment) -> Vec<Row<f64>> {
        (0..DRAWS).map(|b| a.draw(Words { seed: 3, step: b / 32 }, b % 32, [40, 60])).collect()
    }

    /// That a share of the draws agrees with a probability, to four standard deviations.
    fn share(rows: &[Row<f64>], p: f64, happened: impl Fn(&Row<f64>) -> bool) {
        let n = rows.len() as f64;
        let found = rows.iter().filter(|r| happened(r)).count() as f64;
        assert!((found - n * p).abs() <= 4.0 * (n * p * (1.0 - p)).sqrt(), "{found} of {n}, p {p}");
    }

    /// That values are spread evenly between two bounds: inside, with the right mean and variance, and close to both ends.
    fn even(values: &[f64], low: f64, high: f64) {
        let (n, width) = (values.len() as f64, high - low);
        assert!(n > 100.0, "{n} values show nothing");
        assert!(values.iter().all(|v| (low - 1e-9..=high + 1e-9).contains(v)));
        let mean = values.iter().sum::<f64>() / n;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let middle = 0.5 * (low + high);
        assert!((mean - middle).abs() < 4.0 * width / (12.0 * n).sqrt(), "mean {mean} of {low} to {high}");
        assert!((var / (width * width / 12.0) - 1.0).abs() < 4.0 * (0.8 / n).sqrt(), "variance {var}");
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
        assert!(least < low + 0.05 * width && most > high - 0.05 * width);
    }

    #[test]
    fn probabilities_and_ranges_are_respected() {
        for p in [0.0, 0.2, 0.5, 1.0] {
            let r = rows(&Augment { hflip: Some(Chance { p }), ..Augment::default() });
            share(&r, p, |r| r.mirror);
            let r = rows(&Augment { rotate: Some(Angle { p, degrees: 30.0 }), ..Augment::default() });
            share(&r, p, |r| r.down[0] != 0.0);
            let turned: Vec<f64> =
                r.iter().filter(|r| r.down[0] != 0.0).map(|r| r.down[0].asin().to_degrees()).collect();
            if p > 0.0 {
                even(&turned, -30.0, 30.0);
            }
            let r = rows(&Augment { noise: Some(Noise { p, std: 0.1 }), ..Augment::default() });
            share(&r, p, |r| r.sigma == 0.1);
            share(&r, 1.0 - p, |r| r.sigma == 0.0);
        }
        let half = |min, max| Some(Factor { p: 0.5, min, max });
        let r = rows(&Augment { zoom: half(0.5, 2.0), brightness: half(0.7, 1.1), ..Augment::default() });
        share(&r, 0.5, |r| r.down[1] != 0.0);
        even(&r.iter().filter(|r| r.down[1] != 0.0).map(|r| 1.0 / (1.0 + r.down[1])).collect::<Vec<_>>(), 0.5, 2.0);
        even(&r.iter().filter(|r| r.gain != 1.0).map(|r| r.gain).collect::<Vec<_>>(), 0.7, 1.1);
        // Whether one change happens says nothing about another.
        share(&r, 0.25, |r| r.gain != 1.0 && r.down[1] != 0.0);
        let r = rows(&Augment {
            contrast: half(0.5, 1.5),
            shear: Some(Angle { p: 0.5, degrees: 20.0 }),
            ..Augment::default()
        });
        even(&r.iter().filter(|r| r.pull != 0.0).map(|r| 1.0 - r.pull).collect::<Vec<_>>(), 0.5, 1.5);
        assert!(r.iter().all(|r| (r.gain + r.pull - 1.0).abs() < 1e-12));
        let slants: Vec<f64> =
            r.iter().filter(|r| r.across[1] != 0.0).map(|r| r.across[1].atan().to_degrees()).collect();
        even(&slants, -20.0, 20.0);
        let r = rows(&Augment { shift: Some(Shift { p: 1.0, fraction: 0.1 }), ..Augment::default() });
        even(&r.iter().map(|r| r.across[2]).collect::<Vec<_>>(), -6.0, 6.0);
        even(&r.iter().map(|r| r.down[2]).collect::<Vec<_>>(), -4.0, 4.0);
        let product: f64 = r.iter().map(|r| r.across[2] * r.down[2]).sum::<f64>() / f64::from(DRAWS);
        // Independent: the mean of the product is 0, its deviation (6 * 4 / 3) / sqrt(n).
        assert!(product.abs() < 4.0 * 8.0 / f64::from(DRAWS).sqrt(), "{product}");
    }

    #[test]
    fn rectangles_have_the_area_and_the_sides_that_were_asked_for() {
        let erase = Some(Erase { p: 0.7, area: [0.05, 0.3], aspect: 2.0 });
        let r = rows(&Augment { erase, ..Augment::default() });
        share(&r, 0.7, |r| r.erased[2] > 0);
        let found: Vec<[u32; 4]> = r.iter().map(|r| r.erased).filter(|e| e[2] > 0).collect();
        let (mut areas, mut upright, mut ends) = (Vec::new(), 0, [false; 4]);
        for [top, left, bottom, right] in &found {
            assert!(top < bottom && left < right && *bottom <= 40 && *right <= 60);
            let (h, w) = (f64::from(bottom - top), f64::from(right - left));
            // Sides are whole pixels: half a pixel more or less.
            assert!(h.max(w) - 0.5 <= 2.0 * (h.min(w) + 0.5), "{h}x{w}");
            areas.push(h * w);
            upright += usize::from(h > w);
            for (end, here) in ends.iter_mut().zip([*top == 0, *left == 0, *bottom == 40, *right == 60]) {
                *end |= here;
            }
        }
        assert!(ends.iter().all(|&e| e), "no rectangle reaches {ends:?}");
        let n = areas.len() as f64;
        let mean = areas.iter().sum::<f64>() / n / 2400.0;
        assert!((mean - 0.175).abs() < 0.003, "mean area {mean}");
        assert!(areas.iter().all(|a| (0.04..=0.32).contains(&(a / 2400.0))));
        assert!((upright as f64 / n - 0.5).abs() < 0.05, "{upright} of {n} upright");
        // Larger than the image is cut to it.
        let all = Augment { erase: Some(Erase { p: 1.0, area: [1.0, 1.0], aspect: 10.0 }), ..Augment::default() };
        assert!(rows(&all).iter().any(|r| r.erased == [0, 0, 40, 60]));
    }

    #[test]
    fn noise_is_nearly_normal() {
        let words = Words { seed: 1, step: 2 };
        let draws: Vec<f64> = (0..200_000).map(|e| words.normal(e)).collect();
        let n = draws.len() as f64;
        let moment = |k: i32| draws.iter().map(|v| v.powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 4.0 / n.sqrt(), "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "variance {}", moment(2));
        assert!(moment(3).abs() < 4.0 * (15.0 / n).sqrt(), "skew {}", moment(3));
        assert!((moment(4) - 2.925).abs() < 4.0 * (96.0 / n).sqrt(), "kurtosis {}", moment(4));
        let within = draws.iter().filter(|v| v.abs() < 1.96).count() as f64 / n;
        assert!((within - 0.95).abs() < 0.003, "{within}");
        assert!((BYTES_SCALE - (16.0 * 65_535.0 / 12.0_f64).sqrt().recip()).abs() < 1e-15);
    }

    #[test]
    fn nothing_named_is_nothing_done() {
        let row: Row<f64> = Augment::default().draw(Words { seed: 1, step: 1 }, 0, [8, 8]);
        assert_eq!((row.across, row.down, row.mirror), ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], false));
        assert_eq!((row.gain, row.pull, row.sigma, row.erased), (1.0, 0.0, 0.0, [0; 4]));
    }
}
