//! The shader pages, embedded.

macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/", $name)))),*]
    };
}

/// Name below `shaders/` and text of every page.
pub static PAGES: &[(&str, &str)] = pages![
    "adaptive_avg_pool2d.wgsl",
    "avg_pool2d.wgsl",
    "batch_norm2d.wgsl",
    "batch_norm2d_split.wgsl",
    "bce_with_logits.wgsl",
    "binary.wgsl",
    "broadcast_to.wgsl",
    "channel_stats.wgsl",
    "channel_stats_split.wgsl",
    "concat.wgsl",
    "conv2d.wgsl",
    "conv2d_grey_wgrad.wgsl",
    "conv2d_nhwc.wgsl",
    "conv2d_pad.wgsl",
    "conv2d_regblock.wgsl",
    "conv2d_repack.wgsl",
    "conv2d_wgrad_gather.wgsl",
    "conv2d_wgrad_regblock.wgsl",
    "copy.wgsl",
    "copy_rate.wgsl",
    "count_correct.wgsl",
    "cross_entropy.wgsl",
    "dropout.wgsl",
    "ema_update.wgsl",
    "fill.wgsl",
    "gather_images.wgsl",
    "gather_labels.wgsl",
    "gemm_tiled.wgsl",
    "grad_stats.wgsl",
    "lib/rng.wgsl",
    "linear_regblock.wgsl",
    "matmul.wgsl",
    "max_pool2d.wgsl",
    "max_pool2d_2x2.wgsl",
    "narrow.wgsl",
    "optimizer_step.wgsl",
    "peak_fma.wgsl",
    "pointwise.wgsl",
    "softmax.wgsl",
    "softmax_split.wgsl",
    "sum_partials.wgsl",
    "sum_to.wgsl",
    "sum_to_split.wgsl",
    "write_rows.wgsl",
];
