//! Max-pooling and its gradient.

use super::grid::{compute, number, side_by_side};
use crate::check::CheckError;
use crate::ops::max_pool2d::Pool2d;
use crate::shape::ShapeError;

pub(super) fn pooling() -> Result<String, CheckError> {
    let x = [1.0, 3.0, 2.0, 2.0, 4.0, 2.0, 0.0, 1.0, 0.0, 1.0, 5.0, 6.0, 7.0, 1.0, 8.0, 3.0];
    let dy = [10.0, 20.0, 30.0, 40.0];
    let found = compute(&[(&[1, 1, 4, 4], &x), (&[1, 1, 2, 2], &dy)], |g, i| {
        let y = g.max_pool2d(i[0], Pool2d::square(2))?;
        let dx = g.gradients(y, Some(i[1]), &[i[0]])?[0];
        let dx = dx.ok_or(ShapeError::NoDerivative { op: "max_pool2d", input: 0 })?;
        Ok(vec![y, dx])
    })?;
    Ok(format!(
        "Of each 2x2 window the largest pixel goes on. A quarter of the numbers is left, and it matters less where something was:\n\n\
         {}\n\n\
         On the way back each gradient goes to the pixel that won, and to no other; a pixel that lost could change a little and\n\
         nothing would happen:\n\n\
         {}\n\n\
         In the upper right window two pixels are {}; the first one wins, as in PyTorch. Behind a 2x2 pool at least three quarters\n\
         of all gradients are therefore 0. `radiograd explain` marks the winners of every pool over the maps of your image.",
        side_by_side(&[("x", &x, 4), ("y", &found[0], 2)]),
        side_by_side(&[("dy", &dy, 2), ("dx", &found[1], 4)]),
        number(x[2]),
    ))
}
