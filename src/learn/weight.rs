//! The gradient of a convolution by its weights.

use super::convolution::{IMAGE, KERNEL};
use super::grid::{compute, number, side_by_side};
use crate::check::CheckError;
use crate::ops::conv2d::Conv2d;
use crate::shape::ShapeError;

/// 1,234,567.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

pub(super) fn weight() -> Result<String, CheckError> {
    let dy = [0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, -1.0];
    let found = compute(&[(&[1, 1, 5, 5], &IMAGE), (&[1, 1, 3, 3], &KERNEL), (&[1, 1, 3, 3], &dy)], |g, i| {
        let y = g.conv2d(i[0], i[1], None, Conv2d::default())?;
        let dw = g.gradients(y, Some(i[2]), &[i[1]])?[0];
        Ok(vec![dw.ok_or(ShapeError::NoDerivative { op: "conv2d", input: 1 })?])
    })?;
    let dw = &found[0];
    let at = |row: usize, column: usize| IMAGE[row * 5 + column];
    let terms = [at(0, 1) * dy[1], at(1, 1) * dy[4], at(2, 2) * dy[8]];
    let mut rows =
        String::from("| layer, batch 32 | terms of an output | terms of a weight | weights |\n|---|---|---|---|\n");
    for (name, c, o, size) in [("cnn3 at 64, conv1", 1, 32, 64), ("conv2", 32, 64, 32), ("conv3", 64, 128, 16)] {
        let (output, each, weights) = (c * 9, 32 * size * size, o * c * 9);
        rows += &format!("| {name} | {} | {} | {} |\n", grouped(output), grouped(each), grouped(weights));
    }
    Ok(format!(
        "A weight is used at every place of the image. So its gradient is a sum over all output pixels: the pixel that it met there times\n\
         what is asked of the output. With three outputs that ask for something, the upper left weight gets\n\
         {} + {} + {} = {}:\n\n{}\n\n\
         Where a window hangs over the edge, the weights over the rim met zeros and get nothing from that output. With stride 2 there are a\n\
         quarter of the outputs, and so a quarter of the terms. In a batch the sum goes over all images too:\n\n{rows}\n\
         That is the hard kernel. There are few sums, so few can be computed side by side, and each is very long: with one thread a weight,\n\
         the 288 weights of the first layer would keep 288 threads busy and leave the others idle. And a long sum in `f32` loses digits.\n\n\
         What is done: the sum is cut into parts that many workgroups add up at once; a second dispatch adds the parts, in an order that depends on\n\
         the shape alone. The plain kernel adds up one row of outputs before it joins the total, which keeps the rounding small.\n\
         `radiograd bench kernels --op conv2d --direction weight_grad --ladder` times each way on your device.",
        number(terms[0]),
        number(terms[1]),
        number(terms[2]),
        number(dw[0]),
        side_by_side(&[("x", &IMAGE, 5), ("dy", &dy, 3), ("dw", dw, 3)]),
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(super::grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
