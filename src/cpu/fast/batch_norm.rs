//! Batch normalisation over `[n, c, h, w]`, each channel by itself (Ioffe and Szegedy, 2015).

use rayon::prelude::*;

use super::check_len;
use super::sum::{sum_by, sum_by2};

/// The sizes of a batch `[n, c, pixels]`; `pixels` is height times width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchNormShape {
    /// Images in the batch.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Values of one channel of one image.
    pub pixels: usize,
}

impl BatchNormShape {
    fn check(&self, what: &str, len: usize) {
        check_len(what, len, self.n * self.c * self.pixels);
    }

    /// The slices of one channel, image after image.
    fn planes<'a>(&self, x: &'a [f32], channel: usize) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        x.chunks(self.pixels.max(1)).skip(channel).step_by(self.c)
    }

    fn count(&self) -> f64 {
        (self.n * self.pixels) as f64
    }

    /// Runs `f(plane number, channel, plane)` over all planes of `out`.
    fn for_planes(&self, out: &mut [f32], f: impl Fn(usize, usize, &mut [f32]) + Sync) {
        let planes = out.par_chunks_mut(self.pixels.max(1)).enumerate();
        planes
            .with_min_len(1 + (1 << 14) / self.pixels.max(1))
            .for_each(|(i, out)| f(i * self.pixels, i % self.c, out));
    }
}

/// The mean and the biased variance of each channel of `x`, in two passes.
///
/// # Panics
/// When a slice has another length.
pub fn batch_norm2d_stats(x: &[f32], shape: &BatchNormShape, mean: &mut [f32], var: &mut [f32]) {
    shape.check("batch_norm2d input", x.len());
    check_len("batch_norm2d mean", mean.len(), shape.c);
    check_len("batch_norm2d variance", var.len(), shape.c);
    let outputs = mean.par_iter_mut().zip(var.par_iter_mut()).enumerate();
    outputs.for_each(|(channel, (mean, var))| {
        let sum: f64 = shape.planes(x, channel).map(|plane| sum_by(plane, |v| v)).sum();
        let exact = sum / shape.count();
        let centre = exact as f32;
        let squares: f64 = shape.planes(x, channel).map(|plane| sum_by(plane, |v| (v - centre) * (v - centre))).sum();
        // The squares were taken around the rounded mean.
        let shift = exact - f64::from(centre);
        *mean = centre;
        *var = (squares / shape.count() - shift * shift).max(0.0) as f32;
    });
}

/// `y = (x - mean) / sqrt(var + eps) * gain + bias`: in training with the statistics of the batch
/// ([`batch_norm2d_stats`]), in evaluation with the running ones.
///
/// # Panics
/// When a slice has another length.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm2d(
    x: &[f32],
    mean: &[f32],
    var: &[f32],
    gain: &[f32],
    bias: &[f32],
    eps: f32,
    shape: &BatchNormShape,
    y: &mut [f32],
) {
    shape.check("batch_norm2d input", x.len());
    shape.check("batch_norm2d output", y.len());
    for (what, slice) in [("mean", mean), ("variance", var), ("gain", gain), ("bias", bias)] {
        check_len(what, slice.len(), shape.c);
    }
    shape.for_planes(y, |start, c, y| {
        let (scale, mean, bias) = (gain[c] * inverse_std(var[c], eps), mean[c], bias[c]);
        for (y, &x) in y.iter_mut().zip(&x[start..]) {
            *y = (x - mean) * scale + bias;
        }
    });
}

fn inverse_std(var: f32, eps: f32) -> f32 {
    (1.0 / (f64::from(var) + f64::from(eps)).sqrt()) as f32
}

/// The gradients of gain and bias: `dgain[c]` is the sum of `dy * x_hat`, `dbias[c]` that of `dy`.
///
/// # Panics
/// When a slice has another length.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm2d_param_grads(
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    var: &[f32],
    eps: f32,
    shape: &BatchNormShape,
    dgain: &mut [f32],
    dbias: &mut [f32],
) {
    shape.check("batch_norm2d input", x.len());
    shape.check("batch_norm2d output gradient", dy.len());
    check_len("mean", mean.len(), shape.c);
    check_len("variance", var.len(), shape.c);
    check_len("gain gradient", dgain.len(), shape.c);
    check_len("bias gradient", dbias.len(), shape.c);
    let outputs = dgain.par_iter_mut().zip(dbias.par_iter_mut()).enumerate();
    outputs.for_each(|(c, (dgain, dbias))| {
        let (mean, scale) = (mean[c], f64::from(inverse_std(var[c], eps)));
        let (mut sum, mut product) = (0.0, 0.0);
        for (x, dy) in shape.planes(x, c).zip(shape.planes(dy, c)) {
            sum += sum_by(dy, |v| v);
            product += sum_by2(x, dy, |x, dy| (x - mean) * dy);
        }
        *dbias = sum as f32;
        *dgain = (product * scale) as f32;
    });
}

/// The gradient of the input in training, where the statistics are those of the batch:
/// `dx = gain / sqrt(var + eps) * (dy - dbias / count - x_hat * dgain / count)`.
///
/// `dgain` and `dbias` are those of [`batch_norm2d_param_grads`].
///
/// # Panics
/// When a slice has another length.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm2d_input_grad(
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    var: &[f32],
    gain: &[f32],
    dgain: &[f32],
    dbias: &[f32],
    eps: f32,
    shape: &BatchNormShape,
    dx: &mut [f32],
) {
    shape.check("batch_norm2d input", x.len());
    shape.check("batch_norm2d output gradient", dy.len());
    shape.check("batch_norm2d input gradient", dx.len());
    for (what, slice) in
        [("mean", mean), ("variance", var), ("gain", gain), ("gain gradient", dgain), ("bias gradient", dbias)]
    {
        check_len(what, slice.len(), shape.c);
    }
    let count = shape.count() as f32;
    shape.for_planes(dx, |start, c, dx| {
        let inverse = inverse_std(var[c], eps);
        let (scale, mean) = (gain[c] * inverse, mean[c]);
        let (slope, offset) = (dgain[c] / count * inverse, dbias[c] / count);
        for ((dx, &x), &dy) in dx.iter_mut().zip(&x[start..]).zip(&dy[start..]) {
            *dx = scale * (dy - offset - (x - mean) * slope);
        }
    });
}
