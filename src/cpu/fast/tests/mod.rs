//! Every fast kernel against naive loops in `f64`, and one thread against two by the bits.

mod conv;
mod dense;
mod naive;
mod other;
mod pooling;

use crate::rng::{Rng, Stream};

/// Random inputs, and sizes within bounds.
struct Random(Rng);

impl Random {
    fn new(seed: u32) -> Self {
        Self(Rng::new(seed, 0, Stream::Sample as u32))
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.0.range(-1.0, 1.0)).collect()
    }

    /// Values of few levels, so that windows hold equal maxima.
    fn levels(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.0.below(4) as f32 - 1.5).collect()
    }

    /// A size in `low..=high`.
    fn size(&mut self, low: usize, high: usize) -> usize {
        low + self.0.below((high - low + 1) as u32) as usize
    }

    fn chance(&mut self, probability: f32) -> bool {
        self.0.uniform() < probability
    }
}

/// Runs `f` on a poisoned output of `len` values in pools of one and of two threads: the bits must be the same.
fn run(len: usize, f: impl Fn(&mut [f32]) + Sync) -> Vec<f32> {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        let mut out = vec![f32::NAN; len];
        pool.install(|| f(&mut out));
        out
    };
    let (one, two) = (with(1), with(2));
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&one) == bits(&two), "one and two threads differ");
    one
}

/// Asserts that the relative norm of the error is below 1e-5.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], what: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), expected.len(), "{what:?}");
    let norm = expected.iter().map(|e| e * e).sum::<f64>().sqrt();
    let difference = found.iter().zip(expected).map(|(&f, e)| (f64::from(f) - e).powi(2));
    let error = difference.sum::<f64>().sqrt();
    // NaN must fail too.
    assert!(error <= 1e-5 * norm + 1e-30, "{what:?}: error {error:e} of norm {norm:e}");
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}
