//! The list of all ops. Tests, `gradcheck` and the benches loop over it, so an op that is not here is not checked, and a
//! test fails for one that lacks samples.

use super::sample::Sample;
use super::{binary, conv2d, matmul, pointwise, reshape, sum_to};

/// One op: its name and how to get its samples.
pub struct Entry {
    /// The name, which is PyTorch's where it has one.
    pub name: &'static str,
    /// What it computes, in a line.
    pub what: &'static str,
    samples: Box<dyn Fn() -> Vec<Sample> + Send + Sync>,
}

impl Entry {
    fn new(name: &'static str, what: &'static str, samples: impl Fn() -> Vec<Sample> + Send + Sync + 'static) -> Self {
        Self { name, what, samples: Box::new(samples) }
    }

    /// Its samples, awkward shapes included.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        (self.samples)()
    }
}

/// All ops.
#[must_use]
pub fn registry() -> Vec<Entry> {
    let mut entries = vec![
        Entry::new("conv2d", "2-d convolution", conv2d::samples),
        Entry::new("linear", "x w^T + b", || matmul::samples("linear")),
        Entry::new("matmul", "a b", || matmul::samples("matmul")),
        Entry::new("add", "a + b, broadcast", || binary::samples("add")),
        Entry::new("mul", "a * b, broadcast", || binary::samples("mul")),
        Entry::new("broadcast_to", "repeats along axes", || binary::samples("broadcast_to")),
        Entry::new("sum_to", "sums along axes", sum_to::samples),
        Entry::new("reshape", "the same elements under another shape", || reshape::samples("reshape")),
        Entry::new("fill", "a constant", || reshape::samples("fill")),
        Entry::new("pack", "tensors side by side in one vector", || reshape::samples("pack")),
    ];
    for row in pointwise::TABLE {
        entries.push(Entry::new(row.name, row.forward, || pointwise::samples(row)));
    }
    entries
}

/// The entry of that name.
#[must_use]
pub fn find(name: &str) -> Option<Entry> {
    registry().into_iter().find(|e| e.name == name)
}
