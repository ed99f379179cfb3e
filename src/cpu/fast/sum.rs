//! Sums in a fixed order that lose little to rounding.
//!
//! Short runs are added in `f32`, in sixteen lanes that the compiler keeps in vector registers; the runs are added in
//! `f64`. The order depends on the shape alone.

use rayon::prelude::*;

use super::{Loop, check_len, vectorised};

const LANES: usize = 16;
/// Values that are added in `f32` before `f64` takes over: 64 a lane.
const RUN: usize = 64 * LANES;

/// The sum of `f(x[i])`, by lanes.
pub(super) fn sum_by(x: &[f32], f: impl Fn(f32) -> f32 + Copy) -> f64 {
    x.chunks(RUN).map(|x| f64::from(vectorised(SumRun { x, y: x, f: |x, _| f(x) }))).sum()
}

/// The sum of `f(x[i], y[i])`, by lanes.
pub(super) fn sum_by2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Copy) -> f64 {
    x.chunks(RUN).zip(y.chunks(RUN)).map(|(x, y)| f64::from(vectorised(SumRun { x, y, f }))).sum()
}

struct SumRun<'a, F> {
    x: &'a [f32],
    y: &'a [f32],
    f: F,
}

impl<F: Fn(f32, f32) -> f32> Loop for SumRun<'_, F> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let ((x, x_rest), (y, y_rest)) = (self.x.as_chunks::<LANES>(), self.y.as_chunks::<LANES>());
        for (x, y) in x.iter().zip(y) {
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += (self.f)(x, y);
            }
        }
        for ((lane, &x), &y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
            *lane += (self.f)(x, y);
        }
        add_lanes(lanes)
    }
}

/// Adds the lanes as a balanced tree.
#[inline(always)]
fn add_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of all values.
#[must_use]
pub fn sum_all(x: &[f32]) -> f64 {
    const PIECE: usize = 64 * RUN;
    let pieces: Vec<f64> = x.par_chunks(PIECE).map(|piece| sum_by(piece, |v| v)).collect();
    pieces.iter().sum()
}

/// Sums the middle axis of `x` `[outer, len, inner]` into `out` `[outer, inner]`.
///
/// Any run of neighbouring axes is summed this way: the sizes before it multiplied are `outer`, those after it `inner`.
///
/// # Panics
/// When a slice has another length.
pub fn sum_axis(x: &[f32], outer: usize, len: usize, inner: usize, out: &mut [f32]) {
    check_len("sum input", x.len(), outer * len * inner);
    check_len("sum output", out.len(), outer * inner);
    if x.is_empty() {
        return out.fill(0.0);
    }
    if inner == 1 {
        let rows = out.par_iter_mut().zip(x.par_chunks(len));
        rows.with_min_len(1 + (1 << 14) / len).for_each(|(out, row)| *out = sum_by(row, |v| v) as f32);
        return;
    }
    // Columns side by side: each is summed in `f64`, a strip of columns at a time so that the sums stay in cache.
    const STRIP: usize = 512;
    for (out, x) in out.chunks_mut(inner).zip(x.chunks(len * inner)) {
        out.par_chunks_mut(STRIP).enumerate().for_each(|(strip, out)| {
            let mut sums = [0.0f64; STRIP];
            for row in x.chunks(inner) {
                for (sum, &value) in sums.iter_mut().zip(&row[strip * STRIP..][..out.len()]) {
                    *sum += f64::from(value);
                }
            }
            for (out, &sum) in out.iter_mut().zip(&sums) {
                *out = sum as f32;
            }
        });
    }
}
