//! The samples of `conv2d`: each names what is awkward about it.

use super::Conv2d;
use crate::ops::sample::{Sample, x};

struct Case {
    name: &'static str,
    x: [usize; 4],
    w: [usize; 3],
    conv: Conv2d,
    bias: bool,
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let same = Conv2d::same;
    let conv = |stride, padding, dilation, groups| Conv2d { stride, padding, dilation, groups };
    let case = |name, x, w, conv, bias| Case { name, x, w, conv, bias };
    let mut samples: Vec<Sample> = vec![
        case("3x3 same", [2, 3, 8, 8], [8, 3, 3], same(3), true),
        case("one channel", [3, 1, 9, 10], [32, 3, 3], same(3), true),
        case("one channel, few filters", [2, 1, 7, 5], [3, 3, 3], same(3), false),
        case("1x1", [2, 12, 5, 7], [20, 1, 1], same(1), false),
        case("1x1 on one pixel", [1, 5, 1, 1], [7, 1, 1], same(1), true),
        case("K % 8 = 1", [2, 33, 6, 5], [17, 3, 3], same(3), true),
        case("K % 8 = 7", [1, 15, 7, 18], [23, 3, 3], same(3), true),
        case("tile fits", [2, 16, 4, 32], [16, 3, 3], same(3), true),
        case("tile short by one", [2, 8, 5, 31], [15, 3, 3], same(3), true),
        case("tile and one", [1, 9, 5, 33], [17, 3, 3], same(3), true),
        case("5x5", [2, 6, 14, 14], [16, 5, 5], conv([1, 1], [0, 0], [1, 1], 1), true),
        case("7x7 stride 2", [2, 3, 23, 22], [8, 7, 7], conv([2, 2], [3, 3], [1, 1], 1), false),
        case("11x11 stride 4", [1, 3, 37, 35], [8, 11, 11], conv([4, 4], [2, 2], [1, 1], 1), true),
        case("3x3 stride 2, whole vec4s", [2, 9, 16, 16], [17, 3, 3], conv([2, 2], [1, 1], [1, 1], 1), false),
        case("stride wider than the kernel", [1, 3, 13, 14], [5, 2, 2], conv([3, 4], [0, 1], [1, 1], 1), true),
        case("stride leaves a remainder", [2, 4, 10, 9], [6, 3, 3], conv([3, 2], [0, 1], [1, 1], 1), true),
        case("1x1 stride 2", [2, 12, 9, 8], [20, 1, 1], conv([2, 2], [0, 0], [1, 1], 1), false),
        case("non-square everything", [1, 2, 9, 11], [2, 2, 4], conv([3, 2], [1, 3], [1, 1], 1), true),
        case("dilation", [2, 4, 12, 10], [6, 3, 3], conv([1, 1], [2, 2], [2, 2], 1), true),
        case("uneven dilation and stride", [1, 4, 13, 9], [4, 3, 2], conv([2, 1], [3, 1], [3, 2], 1), true),
        case("depthwise", [2, 8, 8, 8], [8, 3, 3], conv([1, 1], [1, 1], [1, 1], 8), true),
        case("three groups", [2, 6, 7, 8], [9, 3, 3], conv([2, 1], [1, 0], [1, 1], 3), true),
        case("padding wider than the image", [1, 2, 2, 3], [3, 3, 3], conv([1, 1], [4, 5], [1, 1], 1), true),
        case("many channels, few pixels", [1, 130, 3, 3], [5, 3, 3], same(3), true),
        case("no padding, width % 4 = 0", [1, 5, 9, 20], [6, 3, 3], conv([1, 1], [0, 0], [1, 1], 1), true),
        case("padding 2, width % 4 = 0", [1, 3, 6, 12], [5, 3, 3], conv([1, 1], [2, 2], [1, 1], 1), true),
        case("one row", [2, 3, 1, 9], [4, 3, 3], same(3), true),
        case("one column", [2, 4, 9, 1], [3, 3, 3], same(3), true),
        case("a tile of 64 channels and some", [1, 66, 6, 8], [70, 3, 3], same(3), true),
        case("batch of 65", [65, 1, 4, 4], [2, 3, 3], same(3), true),
    ]
    .into_iter()
    .map(sample)
    .collect();
    let large = case("long weight sums", [8, 8, 64, 64], [16, 3, 3], same(3), true);
    samples.push(sample(large).terms(8 * 64 * 64).large());
    let large = case("256 tiles of 128 x 128", [8, 2, 64, 64], [128, 1, 1], same(1), true);
    samples.push(sample(large).terms(8 * 64 * 64).large());
    let large = case("more than 65,535 workgroups", [1, 1, 2050, 2050], [1, 1, 1], same(1), false);
    samples.push(sample(large).terms(2050 * 2050).large());
    samples
}

fn sample(case: Case) -> Sample {
    let Case { name, x: xs, w: [o, kh, kw], conv, bias } = case;
    let mut inputs = vec![x(&xs), x(&[o, xs[1] / conv.groups, kh, kw])];
    if bias {
        inputs.push(x(&[o]));
    }
    Sample::new(name, inputs, move |g, i| g.conv2d(i[0], i[1], i.get(2).copied(), conv.clone()))
}
