//! The list of the ops that a sample can express. Tests, `gradcheck` and the benches loop over it, and a test fails for one
//! that lacks samples. The three that change persistent variables (`optimizer_step`, `ema_update`, `write_rows`) are tested
//! in `tests/updates.rs` and beside their code.

use super::conv2d_block::Post;
use super::sample::Sample;
use super::{
    adaptive_avg_pool2d, augment, avg_pool2d, batch_norm2d, bce_with_logits, binary, channel_stats, clip_grad_norm,
    concat, conv2d, conv2d_block, count_correct, cross_entropy, dropout, gather, gather_rows, grad_stats, matmul,
    max_pool2d, narrow, pointwise, reshape, softmax, sum_to,
};

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
        Entry::new("conv2d_relu", "convolution and ReLU in one", || conv2d_block::samples(Post::Relu)),
        Entry::new("conv2d_relu_max_pool2d", "convolution, ReLU and 2x2 max-pool in one", || {
            conv2d_block::samples(Post::ReluMaxPool)
        }),
        Entry::new("linear", "x w^T + b", || matmul::samples("linear")),
        Entry::new("matmul", "a b", || matmul::samples("matmul")),
        Entry::new("add", "a + b, broadcast", || binary::samples("add")),
        Entry::new("mul", "a * b, broadcast", || binary::samples("mul")),
        Entry::new("broadcast_to", "repeats along axes", || binary::samples("broadcast_to")),
        Entry::new("sum_to", "sums along axes", sum_to::samples),
        Entry::new("reshape", "the same elements under another shape", || reshape::samples("reshape")),
        Entry::new("fill", "a constant", || reshape::samples("fill")),
        Entry::new("pack", "tensors side by side in one vector", || reshape::samples("pack")),
        Entry::new("max_pool2d", "the largest pixel of each window", max_pool2d::samples),
        Entry::new("avg_pool2d", "the mean of each window", avg_pool2d::samples),
        Entry::new("adaptive_avg_pool2d", "means of as many windows as asked for", adaptive_avg_pool2d::samples),
        Entry::new("concat", "tensors one behind the other", concat::samples),
        Entry::new("narrow", "a part along an axis", narrow::samples),
        Entry::new("dropout", "random zeros", dropout::samples),
        Entry::new("channel_mean", "the mean of each channel", || channel_stats::samples("channel_mean")),
        Entry::new("channel_var", "the biased variance of each channel", || channel_stats::samples("channel_var")),
        Entry::new("batch_norm2d", "(x - mean) / sqrt(var + eps) * gain + bias", batch_norm2d::samples),
        Entry::new("softmax", "exp(x) / sum of exp(x)", || softmax::samples(false)),
        Entry::new("log_softmax", "x - log(sum of exp(x))", || softmax::samples(true)),
        Entry::new("cross_entropy", "-log softmax(x) at the label", cross_entropy::samples),
        Entry::new("bce_with_logits", "binary cross-entropy of sigmoid(x)", bce_with_logits::samples),
        Entry::new("gather_images", "picks images and normalises them", gather::image_samples),
        Entry::new("augment_images", "picks, augments and normalises images", augment::samples),
        Entry::new("gather_labels", "picks labels", gather::label_samples),
        Entry::new("gather_rows", "picks rows", gather_rows::samples),
        Entry::new("count_correct", "rows whose largest value is at the label", count_correct::samples),
        Entry::new("grad_stats", "sum of squares, count of NaN and infinity", grad_stats::samples),
        Entry::new("clip_grad_norm", "the gradient's scale, less above a largest norm", clip_grad_norm::samples),
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
