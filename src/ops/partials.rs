//! Long sums in a fixed order: how they are cut, on the CPU and on the GPU.
//!
//! A sum is cut into pieces that depend on its length alone. The pieces are added up side by side, then their partial sums
//! one after the other. So a result has the same bits whatever the number of threads, and rounding errors stay small.

use rayon::prelude::*;

use crate::real::Real;

/// Terms of one piece on the CPU.
const CHUNK: usize = 2048;

/// The sums over `i` in `0..n` of `term(i)`, for `K` quantities at once.
pub(crate) fn sum<T: Real, const K: usize>(n: usize, term: impl Fn(usize) -> [T; K] + Sync) -> [T; K] {
    let add = |mut total: [T; K], part: [T; K]| {
        for (t, p) in total.iter_mut().zip(part) {
            *t += p;
        }
        total
    };
    let zero = [T::zero(); K];
    let pieces: Vec<[T; K]> = (0..n.div_ceil(CHUNK))
        .into_par_iter()
        .map(|piece| {
            let start = piece * CHUNK;
            (start..n.min(start + CHUNK)).map(&term).fold(zero, add)
        })
        .collect();
    pieces.into_iter().fold(zero, add)
}

/// How many invocations share a sum of `n` terms whose partial sums a single invocation then adds up: all terms one each
/// where they are few, at most 1,024.
pub(crate) fn count(n: usize) -> usize {
    n.min((n / 64).clamp(256, 1024)).max(1)
}
