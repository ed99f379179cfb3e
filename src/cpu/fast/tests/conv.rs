use super::super::*;
use super::{Random, assert_close, naive, run};

/// A random convolution: most are small, all odd combinations occur.
fn random_shape(r: &mut Random) -> ConvShape {
    loop {
        let groups = if r.chance(0.3) { r.size(2, 4) } else { 1 };
        let depthwise = r.chance(0.1);
        let c_in = if depthwise { groups } else { groups * r.size(1, 5) };
        let c_out = groups * r.size(1, 6);
        let point = r.chance(0.2);
        let (k_h, k_w) = if point { (1, 1) } else { (r.size(1, 5), r.size(1, 5)) };
        let plain = r.chance(0.4);
        let pick = |r: &mut Random, high: usize| if plain { 1 } else { r.size(1, high) };
        let stride = [pick(r, 3), pick(r, 3)];
        let dilation = [pick(r, 3), pick(r, 3)];
        let padding = match r.size(0, 2) {
            0 => [0, 0],
            1 => [k_h / 2 * dilation[0], k_w / 2 * dilation[1]],
            // More than the kernel reaches: whole windows lie in the padding.
            _ => [r.size(0, k_h * dilation[0] + 2), r.size(0, k_w * dilation[1] + 2)],
        };
        let (h_in, w_in) = (r.size(1, 24), r.size(1, 24));
        let out = |input: usize, k: usize, a: usize| {
            (input + 2 * padding[a]).checked_sub(dilation[a] * (k - 1) + 1).map(|d| d / stride[a] + 1)
        };
        if let (Some(h_out), Some(w_out)) = (out(h_in, k_h, 0), out(w_in, k_w, 1)) {
            let n = r.size(1, 5);
            return ConvShape { n, c_in, h_in, w_in, c_out, h_out, w_out, k_h, k_w, stride, padding, dilation, groups };
        }
    }
}

fn same(n: usize, c_in: usize, c_out: usize, size: [usize; 2], k: usize) -> ConvShape {
    ConvShape {
        n,
        c_in,
        h_in: size[0],
        w_in: size[1],
        c_out,
        h_out: size[0],
        w_out: size[1],
        k_h: k,
        k_w: k,
        stride: [1, 1],
        padding: [k / 2, k / 2],
        dilation: [1, 1],
        groups: 1,
    }
}

fn check(shape: &ConvShape, r: &mut Random) {
    let (x, w) = (r.values(shape.input_len()), r.values(shape.weight_len()));
    let (bias, dy) = (r.values(shape.c_out), r.values(shape.output_len()));
    let y = run(dy.len(), |y| conv2d(&x, &w, None, shape, y));
    assert_close(&y, &naive::conv2d(&x, &w, None, shape), shape);
    let y = run(dy.len(), |y| conv2d(&x, &w, Some(&bias), shape, y));
    assert_close(&y, &naive::conv2d(&x, &w, Some(&bias), shape), shape);
    let dx = run(x.len(), |dx| conv2d_input_grad(&dy, &w, shape, dx));
    assert_close(&dx, &naive::conv2d_input_grad(&dy, &w, shape), shape);
    let dw = run(w.len(), |dw| conv2d_weight_grad(&x, &dy, shape, dw));
    assert_close(&dw, &naive::conv2d_weight_grad(&x, &dy, shape), shape);
    let db = run(bias.len(), |db| conv2d_bias_grad(&dy, shape, db));
    let pixels = shape.h_out * shape.w_out;
    let mut expected = vec![0.0; shape.c_out];
    for (i, &dy) in dy.iter().enumerate() {
        expected[i / pixels % shape.c_out] += f64::from(dy);
    }
    assert_close(&db, &expected, shape);
}

#[test]
fn random_convolutions_agree_with_the_definition() {
    let mut r = Random::new(11);
    let shapes: Vec<ConvShape> = (0..300).map(|_| random_shape(&mut r)).collect();
    // The generator must not quietly stop making the awkward kinds.
    type Is = fn(&ConvShape) -> bool;
    let kinds: [(&str, Is); 9] = [
        ("groups", |s| s.groups > 1),
        ("depthwise", |s| s.groups > 1 && s.c_in == s.groups),
        ("stride", |s| s.stride != [1, 1]),
        ("remainder", |s| !(s.h_in + 2 * s.padding[0] - s.dilation[0] * (s.k_h - 1) - 1).is_multiple_of(s.stride[0])),
        ("dilation", |s| s.dilation != [1, 1]),
        ("one channel", |s| s.c_in == 1),
        ("1x1", |s| s.k_h * s.k_w == 1),
        ("padding beyond the kernel", |s| s.padding[0] > s.dilation[0] * (s.k_h - 1)),
        ("not square", |s| s.h_in != s.w_in && s.k_h != s.k_w),
    ];
    for (kind, is) in kinds {
        assert!(shapes.iter().filter(|s| is(s)).count() >= 5, "too few shapes with {kind}");
    }
    shapes.iter().for_each(|shape| check(shape, &mut r));
}

#[test]
fn shapes_that_cross_block_limits_agree_with_the_definition() {
    let mut r = Random::new(12);
    let mut strided = same(3, 5, 7, [40, 36], 3);
    (strided.stride, strided.h_out, strided.w_out) = ([2, 2], 20, 18);
    let mut grouped = same(3, 8, 6, [33, 17], 3);
    grouped.groups = 2;
    for shape in [
        // Several blocks of pixels an image, the last one partial and starting inside a row.
        same(2, 1, 3, [61, 47], 3),
        same(2, 40, 50, [19, 23], 3),
        same(1, 1, 1, [70, 90], 1),
        // Small images side by side, the last batch of images partial.
        same(37, 3, 50, [4, 5], 3),
        same(9, 10, 97, [7, 7], 3),
        // More partial weight gradients than one an image; wide kernel.
        same(67, 2, 3, [15, 14], 5),
        same(2, 70, 49, [15, 14], 1),
        strided,
        grouped,
    ] {
        check(&shape, &mut r);
    }
}

#[test]
#[should_panic(expected = "conv2d input: the slice holds 1 values, its shape 45")]
fn a_short_slice_is_refused() {
    let shape = same(1, 1, 1, [5, 9], 3);
    conv2d(&[0.0], &[0.0; 9], None, &shape, &mut [0.0; 45]);
}

#[test]
#[should_panic(expected = "the sizes do not belong together")]
fn a_wrong_output_size_is_refused() {
    let shape = ConvShape { h_out: 6, ..same(1, 1, 1, [5, 9], 3) };
    conv2d(&[0.0; 45], &[0.0; 9], None, &shape, &mut [0.0; 54]);
}
