//! Softmax along an axis that is not the last one: all rows side by side, so that every loop runs over neighbours in memory.
//!
//! `x` is `[outer, len, inner]`, and a row is the `len` values of one place in `inner`. The sums are taken in the order of the
//! readable reference.

use rayon::prelude::*;

use super::simd::exp;
use super::{Loop, check_len, vectorised};

/// `exp(x - max) / sum`, or its logarithm.
///
/// # Panics
/// When a slice is no whole number of `len * inner`, or the two differ in length.
pub fn softmax(x: &[f32], [len, inner]: [usize; 2], log: bool, y: &mut [f32]) {
    let block = len * inner;
    check_len("softmax input", x.len(), y.len());
    check_len("softmax output", y.len() % block, 0);
    let rows = y.par_chunks_mut(block).zip(x.par_chunks(block));
    rows.for_each(|(y, x)| vectorised(Forward { x, inner, log, y }));
}

struct Forward<'a> {
    x: &'a [f32],
    inner: usize,
    log: bool,
    y: &'a mut [f32],
}

impl Loop for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { x, inner, log, y } = self;
        let mut max = vec![f32::MIN; inner];
        for x in x.chunks_exact(inner) {
            max.iter_mut().zip(x).for_each(|(m, &v)| *m = m.max(v));
        }
        let mut sum = vec![0.0_f32; inner];
        for (y, x) in y.chunks_exact_mut(inner).zip(x.chunks_exact(inner)) {
            for (((y, x), m), sum) in y.iter_mut().zip(x).zip(&max).zip(&mut sum) {
                *y = exp(x - m);
                *sum += *y;
            }
        }
        if log {
            sum.iter_mut().for_each(|s| *s = s.ln());
        }
        for (y, x) in y.chunks_exact_mut(inner).zip(x.chunks_exact(inner)) {
            for (((y, x), m), sum) in y.iter_mut().zip(x).zip(&max).zip(&sum) {
                *y = if log { x - m - sum } else { *y / sum };
            }
        }
    }
}

/// The gradient of [`softmax`] from its result and `dy`.
///
/// # Panics
/// As [`softmax`].
pub fn softmax_grad(y: &[f32], dy: &[f32], [len, inner]: [usize; 2], log: bool, dx: &mut [f32]) {
    let block = len * inner;
    check_len("softmax result", y.len(), dx.len());
    check_len("softmax gradient", dy.len(), dx.len());
    check_len("softmax input gradient", dx.len() % block, 0);
    let gradients = y.par_chunks(block).zip(dy.par_chunks(block));
    dx.par_chunks_mut(block).zip(gradients).for_each(|(dx, (y, dy))| vectorised(Backward { y, dy, inner, log, dx }));
}

struct Backward<'a> {
    y: &'a [f32],
    dy: &'a [f32],
    inner: usize,
    log: bool,
    dx: &'a mut [f32],
}

impl Loop for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { y, dy, inner, log, dx } = self;
        let rows = || y.chunks_exact(inner).zip(dy.chunks_exact(inner));
        // The dy of the largest y of each row; see the reference.
        let (mut largest, mut pivot) = (vec![0.0_f32; inner], vec![0.0_f32; inner]);
        if !log {
            for (y, dy) in rows() {
                for (((largest, pivot), &y), &dy) in largest.iter_mut().zip(&mut pivot).zip(y).zip(dy) {
                    let more = y > *largest;
                    *largest = if more { y } else { *largest };
                    *pivot = if more { dy } else { *pivot };
                }
            }
        }
        let mut sum = vec![0.0_f32; inner];
        for (y, dy) in rows() {
            for (((sum, pivot), y), dy) in sum.iter_mut().zip(&pivot).zip(y).zip(dy) {
                *sum += if log { *dy } else { (dy - pivot) * y };
            }
        }
        for (dx, (y, dy)) in dx.chunks_exact_mut(inner).zip(rows()) {
            for ((((dx, y), dy), pivot), sum) in dx.iter_mut().zip(y).zip(dy).zip(&pivot).zip(&sum) {
                *dx = if log { dy - exp(*y) * sum } else { y * (dy - pivot - sum) };
            }
        }
    }
}
