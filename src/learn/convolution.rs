//! The first lessons: a window that moves, and how far.

use super::grid::{compute, grid, number, side_by_side};
use crate::check::CheckError;
use crate::ops::conv2d::Conv2d;

/// A bright bar on dark ground.
pub(super) const IMAGE: [f64; 25] = [
    1.0, 1.0, 5.0, 5.0, 1.0, //
    1.0, 2.0, 5.0, 5.0, 1.0, //
    1.0, 1.0, 6.0, 5.0, 1.0, //
    1.0, 1.0, 5.0, 5.0, 2.0, //
    1.0, 1.0, 5.0, 5.0, 1.0,
];
/// Right minus left: large where it becomes brighter to the right (Sobel).
pub(super) const KERNEL: [f64; 9] = [-1.0, 0.0, 1.0, -2.0, 0.0, 2.0, -1.0, 0.0, 1.0];

/// The convolution of [`IMAGE`] with [`KERNEL`].
pub(super) fn filtered(conv: &Conv2d) -> Result<Vec<f64>, CheckError> {
    let found = compute(&[(&[1, 1, 5, 5], &IMAGE), (&[1, 1, 3, 3], &KERNEL)], |g, x| {
        Ok(vec![g.conv2d(x[0], x[1], None, conv.clone())?])
    })?;
    Ok(found.into_iter().next().unwrap_or_default())
}

pub(super) fn window() -> Result<String, CheckError> {
    let y = filtered(&Conv2d::default())?;
    let window: Vec<f64> = (0..9).map(|t| IMAGE[t / 3 * 5 + t % 3]).collect();
    let products: Vec<f64> = window.iter().zip(&KERNEL).map(|(a, b)| a * b).collect();
    let sum: f64 = products.iter().sum();
    Ok(format!(
        "An image is a table of numbers, and so is a kernel. This one asks: is it brighter on the right than on the left?\n\n{}\n\n\
         Lay the kernel over the upper left corner, multiply each pair, add up:\n\n{}\n\n\
         The sum is {}. That is output pixel (0, 0). Move the window by one and do it again, until the image is covered:\n\n{}\n\n\
         Large on the left edge of the bar, negative on its right edge; where nothing changes it would be 0. Nobody has to invent such\n\
         kernels: training finds them. A layer has many, each with a window on every channel of its input, and each gives a\n\
         feature map. The engine computed the table with the op that trains, `conv2d`; the page `shaders/conv2d.wgsl` is its plain\n\
         kernel, and `radiograd explain` steps through it with your network and your image.",
        side_by_side(&[("image", &IMAGE, 5), ("kernel", &KERNEL, 3)]),
        side_by_side(&[("window", &window, 3), ("times", &KERNEL, 3), ("products", &products, 3)]),
        number(sum),
        grid(&y, 3),
    ))
}

pub(super) fn stride() -> Result<String, CheckError> {
    let padded = filtered(&Conv2d::same(3))?;
    let strided = filtered(&Conv2d { stride: [2, 2], ..Conv2d::same(3) })?;
    let mut rows =
        String::from("| image | kernel | stride | padding | dilation | output |\n|---|---|---|---|---|---|\n");
    for (size, kernel, stride, padding, dilation) in [
        (5, 3, 1, 0, 1),
        (5, 3, 1, 1, 1),
        (5, 3, 2, 1, 1),
        (64, 3, 1, 1, 1),
        (64, 5, 2, 2, 1),
        (64, 3, 1, 2, 2),
        (224, 7, 2, 3, 1),
    ] {
        let conv = Conv2d { stride: [stride; 2], padding: [padding; 2], dilation: [dilation; 2], groups: 1 };
        let out = conv.extent(0, size, kernel).map_or_else(|| "does not fit".to_owned(), |n| n.to_string());
        rows += &format!("| {size} | {kernel} | {stride} | {padding} | {dilation} | {out} |\n");
    }
    Ok(format!(
        "Without padding the window must stay inside, and a 5x5 image gives 3x3 pixels. With a rim of zeros (padding 1) the output is\n\
         as large as the image. With stride 2 the window moves by two, and every second pixel is left out:\n\n{}\n\n\
         Along each axis, as in PyTorch:\n\n\
         `out = floor((in + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`\n\n{rows}\n\
         The last line is the first layer of a ResNet.\n\n\
         What a pixel sees grows from layer to layer: a kernel adds `(kernel - 1) dilation` times the product of all strides in\n\
         front of it. Two 3x3 layers see 5x5 pixels, with a 2x2 pooling between them 8x8. `radiograd explain` shows it\n\
         for each layer. What the rim and the stride do to the gradients is in `radiograd learn gradient`.",
        side_by_side(&[("padding 1", &padded, 5), ("and stride 2", &strided, 3)]),
    ))
}
