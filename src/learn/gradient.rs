//! The gradient of a convolution by its input.

use super::convolution::{IMAGE, KERNEL};
use super::grid::{compute, side_by_side};
use crate::check::CheckError;
use crate::ops::conv2d::Conv2d;
use crate::shape::ShapeError;

/// dx for a dy of 3x3.
fn back(dy: &[f64; 9]) -> Result<Vec<f64>, CheckError> {
    let found = compute(&[(&[1, 1, 5, 5], &IMAGE), (&[1, 1, 3, 3], &KERNEL), (&[1, 1, 3, 3], dy)], |g, i| {
        let y = g.conv2d(i[0], i[1], None, Conv2d::default())?;
        let dx = g.gradients(y, Some(i[2]), &[i[0]])?[0];
        Ok(vec![dx.ok_or(ShapeError::NoDerivative { op: "conv2d", input: 0 })?])
    })?;
    Ok(found.into_iter().next().unwrap_or_default())
}

pub(super) fn input() -> Result<String, CheckError> {
    let mut one = [0.0; 9];
    one[4] = 1.0;
    let mut two = [0.0; 9];
    (two[4], two[5]) = (1.0, 1.0);
    let (of_one, of_two) = (back(&one)?, back(&two)?);
    Ok(format!(
        "Say the loss would fall if output pixel (1, 1) were smaller: its gradient, `dy`, is 1 there and 0 elsewhere. That pixel was made from\n\
         a window of the image, each pixel times a weight. So each pixel of the window has that weight as its gradient:\n\n{}\n\n\
         The kernel itself appears, at the window's place. With two output pixels their windows overlap, and what they ask adds up:\n\n{}\n\n\
         Two ways lead there. One scatters: each output adds its weights into the image, and two of them may want to write to the same\n\
         place at once. The kernel gathers instead: each pixel of the image asks which outputs saw it, and through which weight. Then nobody\n\
         writes where another does, and the sum has the same order each time. That order is why the same seed gives the same bits.\n\n\
         `grad_input` in `shaders/conv2d.wgsl` does it, and `radiograd explain` steps through it.",
        side_by_side(&[("dy", &one, 3), ("dx", &of_one, 5)]),
        side_by_side(&[("dy", &two, 3), ("dx", &of_two, 5)]),
    ))
}
