//! Shapes on which every kernel of `conv2d_block` is held against its reference.

use super::super::conv2d::Conv2d;
use super::super::sample::{Fill, Sample, filled, x};
use super::Post;

/// All of them, for one kind of block.
#[must_use]
pub fn samples(post: Post) -> Vec<Sample> {
    let conv = |stride, padding| Conv2d { stride, padding, ..Conv2d::default() };
    let cases = [
        ("3x3 same", [2, 3, 8, 8], [32, 3, 3], Conv2d::same(3), true),
        ("one channel", [3, 1, 9, 10], [33, 3, 3], Conv2d::same(3), true),
        ("no bias", [2, 4, 6, 12], [16, 3, 3], Conv2d::same(3), false),
        ("wide", [1, 2, 7, 40], [9, 3, 3], Conv2d::same(3), true),
        ("odd sizes", [2, 5, 7, 13], [7, 3, 3], Conv2d::same(3), true),
        ("one window", [2, 3, 2, 2], [4, 3, 3], Conv2d::same(3), true),
        ("one window, a row and a column left", [2, 3, 3, 3], [4, 1, 1], Conv2d::same(1), true),
        ("5x5 without padding", [2, 6, 14, 14], [16, 5, 5], conv([1, 1], [0, 0]), true),
        ("rows of 28", [2, 1, 28, 28], [8, 3, 3], Conv2d::same(3), true),
        ("more padding than taps", [1, 2, 6, 8], [6, 1, 1], conv([1, 1], [2, 1]), true),
        ("stride 2", [2, 3, 12, 12], [8, 3, 3], conv([2, 2], [1, 1]), true),
        ("many channels", [1, 70, 6, 6], [66, 3, 3], Conv2d::same(3), true),
    ];
    let mut samples: Vec<Sample> =
        cases.into_iter().map(|(name, xs, w, conv, bias)| sample(name, xs, w, conv, bias, post)).collect();
    let large = sample("long sums", [4, 3, 96, 96], [32, 3, 3], Conv2d::same(3), true, post);
    samples.push(large.terms(4 * 96 * 96).large());
    samples
}

fn sample(name: &str, xs: [usize; 4], [o, kh, kw]: [usize; 3], conv: Conv2d, bias: bool, post: Post) -> Sample {
    let mut inputs = vec![x(&xs), x(&[o, xs[1] / conv.groups, kh, kw])];
    if bias {
        inputs.push(filled(&[o], Fill::AwayFromZero));
    }
    let outputs = xs[0] * o * xs[2] * xs[3];
    let sample =
        Sample::new(name, inputs, move |g, i| g.conv2d_block(i[0], i[1], i.get(2).copied(), conv.clone(), post));
    // Among many outputs some lie so close to a kink (0, or a tie in a window) that a difference steps over it.
    if outputs > 2_000 { sample.large() } else { sample }
}
