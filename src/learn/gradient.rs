//! The gradient of a convolution by its input.

use super::convolution::{IMAGE, KERNEL};
use super::grid::{compute, side_by_side};
use crate::check::CheckError;
use crate::ops::conv2d::Conv2d;
use crate::shape::ShapeError;

/// dx of the 5x5 image for a square dy.
fn back(conv: &Conv2d, kernel: &[f64; 9], dy: &[f64]) -> Result<Vec<f64>, CheckError> {
    let side = dy.len().isqrt();
    let found = compute(&[(&[1, 1, 5, 5], &IMAGE), (&[1, 1, 3, 3], kernel), (&[1, 1, side, side], dy)], |g, i| {
        let y = g.conv2d(i[0], i[1], None, conv.clone())?;
        let dx = g.gradients(y, Some(i[2]), &[i[0]])?[0];
        Ok(vec![dx.ok_or(ShapeError::NoDerivative { op: "conv2d", input: 0 })?])
    })?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// A dy of N pixels with these values at these places.
fn asked<const N: usize>(of: &[(usize, f64)]) -> [f64; N] {
    let mut dy = [0.0; N];
    for &(at, v) in of {
        dy[at] = v;
    }
    dy
}

pub(super) fn input() -> Result<String, CheckError> {
    let once = Conv2d::default();
    let one: [f64; 9] = asked(&[(4, 1.0)]);
    let two: [f64; 9] = asked(&[(4, 1.0), (5, 1.0)]);
    Ok(format!(
        "Say the loss would fall if output pixel (1, 1) were smaller: its gradient, `dy`, is 1 there and 0 elsewhere. That pixel was made from\n\
         a window of the image, each pixel times a weight. So each pixel of the window has that weight as its gradient:\n\n{}\n\n\
         The kernel itself appears, at the window's place. With two output pixels their windows overlap, and what they ask adds up:\n\n{}\n\n\
         Two ways lead there. One scatters: each output adds its weights into the image, and two of them may want to write to the same\n\
         place at once. The kernel gathers instead: each pixel of the image asks which outputs saw it, and through which weight. Then nobody\n\
         writes where another does, and the sum has the same order each time. That order is why the same seed gives the same bits.\n\n{}\n\n{}\n\n\
         `grad_input` in `shaders/conv2d.wgsl` does it, and `radiograd explain` steps through it.",
        side_by_side(&[("dy", &one, 3), ("dx", &back(&once, &KERNEL, &one)?, 5)]),
        side_by_side(&[("dy", &two, 3), ("dx", &back(&once, &KERNEL, &two)?, 5)]),
        padding()?,
        stride()?,
    ))
}

/// What a rim of zeros does to it.
fn padding() -> Result<String, CheckError> {
    // The upper edge, and the lower right corner.
    let edges: [f64; 25] = asked(&[(2, 1.0), (24, 1.0)]);
    Ok(format!(
        "With padding 1 there are outputs whose windows hang over the edge. One at the upper edge and one in the lower right corner:\n\n{}\n\n\
         Of the first, the upper row of the kernel is missing; of the second, only the upper left quarter is there. The other weights met\n\
         the rim. A zero of the rim would have a gradient like any pixel, but no layer made it and none could change it, so it is dropped.",
        side_by_side(&[("dy", &edges, 5), ("dx", &back(&Conv2d::same(3), &KERNEL, &edges)?, 5)]),
    ))
}

/// What a stride does to it.
fn stride() -> Result<String, CheckError> {
    let (once, twice) = (Conv2d::default(), Conv2d { stride: [2, 2], ..Conv2d::default() });
    let row: [f64; 4] = asked(&[(0, 1.0), (1, 2.0)]);
    // With all weights and all that is asked 1, the gradient counts through how many weights an output sees a pixel.
    let count = [back(&once, &[1.0; 9], &[1.0; 9])?, back(&twice, &[1.0; 9], &[1.0; 4])?];
    Ok(format!(
        "With stride 2 (and no padding) the windows lie two pixels apart, and these two share only one column of the image. There the left\n\
         one asks with its right weights, 1 times 1, and the right one with its left weights, 2 times -1:\n\n{}\n\n\
         Now from the pixel's side. With stride 1 the pixel in the middle, (2, 2), is seen by nine outputs, by each through another weight.\n\
         Through the middle weight it would be the window that begins at (1, 1); with stride 2 windows begin at even places only, so that\n\
         weight finds no output and adds nothing. The four corners of the kernel are all that is left. In general, a pixel was seen through\n\
         weight k where `(pixel + padding - k) / stride` is whole and the place of an output; the kernel asks that along each axis, for\n\
         each weight. How many outputs see each pixel:\n\n{}",
        side_by_side(&[("dy", &row, 2), ("dx", &back(&twice, &KERNEL, &row)?, 5)]),
        side_by_side(&[("stride 1", &count[0], 5), ("stride 2", &count[1], 5)]),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grids_are_what_scattering_by_hand_gives() {
        let strided = Conv2d { stride: [2, 2], ..Conv2d::default() };
        let both = Conv2d { stride: [2, 2], ..Conv2d::same(3) };
        for (conv, side) in [(Conv2d::default(), 3), (Conv2d::same(3), 5), (strided, 2), (both, 3)] {
            let dy: Vec<f64> = (0..side * side).map(|i| (i * i) as f64 - 3.0).collect();
            let mut expected = vec![0.0; 25];
            for (at, asked) in dy.iter().enumerate() {
                for (tap, weight) in KERNEL.iter().enumerate() {
                    let row = (at / side * conv.stride[0] + tap / 3).wrapping_sub(conv.padding[0]);
                    let column = (at % side * conv.stride[1] + tap % 3).wrapping_sub(conv.padding[1]);
                    if row < 5 && column < 5 {
                        expected[row * 5 + column] += asked * weight;
                    }
                }
            }
            assert_eq!(back(&conv, &KERNEL, &dy).unwrap(), expected, "{conv}");
        }
    }
}
