//! One formula for every element, by all threads.

use rayon::prelude::*;

use super::{check_len, vectorised};

/// Elements a task takes at a time: enough to pay for the task, little enough to stay in cache.
pub(super) const CHUNK: usize = 1 << 14;

/// Sets every element to `value`.
pub fn fill(out: &mut [f32], value: f32) {
    out.par_chunks_mut(CHUNK).for_each(|out| out.fill(value));
}

/// `out[i] = f(x[i])`.
///
/// # Panics
/// When the lengths differ.
pub fn map1(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    check_len("map input", x.len(), out.len());
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
        vectorised(|| out.iter_mut().zip(x).for_each(|(out, &x)| *out = f(x)));
    });
}

/// `out[i] = f(x[i], y[i])`.
///
/// # Panics
/// When the lengths differ.
pub fn map2(x: &[f32], y: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    check_len("map first input", x.len(), out.len());
    check_len("map second input", y.len(), out.len());
    let inputs = x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK));
    out.par_chunks_mut(CHUNK).zip(inputs).for_each(|(out, (x, y))| {
        vectorised(|| out.iter_mut().zip(x).zip(y).for_each(|((out, &x), &y)| *out = f(x, y)));
    });
}

/// `out[i] = f(x[i], y[i], z[i])`.
///
/// # Panics
/// When the lengths differ.
pub fn map3(x: &[f32], y: &[f32], z: &[f32], out: &mut [f32], f: impl Fn(f32, f32, f32) -> f32 + Sync) {
    check_len("map first input", x.len(), out.len());
    check_len("map second input", y.len(), out.len());
    check_len("map third input", z.len(), out.len());
    let inputs = x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)).zip(z.par_chunks(CHUNK));
    out.par_chunks_mut(CHUNK).zip(inputs).for_each(|(out, ((x, y), z))| {
        vectorised(|| out.iter_mut().zip(x).zip(y).zip(z).for_each(|(((out, &x), &y), &z)| *out = f(x, y, z)));
    });
}

/// `out = max(x, 0)`; NaN stays NaN, as in PyTorch.
///
/// # Panics
/// When the lengths differ.
pub fn relu(x: &[f32], out: &mut [f32]) {
    map1(x, out, |x| if x <= 0.0 { 0.0 } else { x });
}

/// The gradient of [`relu`]: `dy` where `x > 0`, else 0. `x` may be the input or the output of [`relu`].
///
/// # Panics
/// When the lengths differ.
pub fn relu_grad(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    map2(x, dy, dx, |x, dy| if x <= 0.0 { 0.0 } else { dy });
}
