//! The shader pages, embedded.

macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/", $name)))),*]
    };
}

/// Name below `shaders/` and text of every page.
pub static PAGES: &[(&str, &str)] = pages![
    "binary.wgsl",
    "broadcast_to.wgsl",
    "conv2d.wgsl",
    "copy.wgsl",
    "fill.wgsl",
    "matmul.wgsl",
    "pointwise.wgsl",
    "sum_to.wgsl",
    "sum_to_split.wgsl",
];
