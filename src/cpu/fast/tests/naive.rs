//! The definitions, as loops in `f64`.

use super::super::{ConvShape, PoolShape};

/// Calls `f(input offset, weight offset, output offset)` for every product of a convolution.
fn for_each_product(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let (ci_count, co_count) = (s.c_in / s.groups, s.c_out / s.groups);
    for n in 0..s.n {
        for co in 0..s.c_out {
            for ci in 0..ci_count {
                let channel = co / co_count * ci_count + ci;
                for oy in 0..s.h_out {
                    for ox in 0..s.w_out {
                        for kh in 0..s.k_h {
                            for kw in 0..s.k_w {
                                let y = (oy * s.stride[0] + kh * s.dilation[0]).wrapping_sub(s.padding[0]);
                                let x = (ox * s.stride[1] + kw * s.dilation[1]).wrapping_sub(s.padding[1]);
                                if y < s.h_in && x < s.w_in {
                                    f(
                                        ((n * s.c_in + channel) * s.h_in + y) * s.w_in + x,
                                        ((co * ci_count + ci) * s.k_h + kh) * s.k_w + kw,
                                        ((n * s.c_out + co) * s.h_out + oy) * s.w_out + ox,
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn conv2d(x: &[f32], w: &[f32], bias: Option<&[f32]>, s: &ConvShape) -> Vec<f64> {
    let pixels = s.h_out * s.w_out;
    let mut y: Vec<f64> =
        (0..s.output_len()).map(|i| bias.map_or(0.0, |b| f64::from(b[i / pixels % s.c_out]))).collect();
    for_each_product(s, |i, j, o| y[o] += f64::from(x[i]) * f64::from(w[j]));
    y
}

pub(super) fn conv2d_input_grad(dy: &[f32], w: &[f32], s: &ConvShape) -> Vec<f64> {
    let mut dx = vec![0.0; s.input_len()];
    for_each_product(s, |i, j, o| dx[i] += f64::from(dy[o]) * f64::from(w[j]));
    dx
}

pub(super) fn conv2d_weight_grad(x: &[f32], dy: &[f32], s: &ConvShape) -> Vec<f64> {
    let mut dw = vec![0.0; s.weight_len()];
    for_each_product(s, |i, j, o| dw[j] += f64::from(dy[o]) * f64::from(x[i]));
    dw
}

/// Sums the middle axis of `[outer, len, inner]`.
pub(super) fn sum_axis(x: &[f32], outer: usize, len: usize, inner: usize) -> Vec<f64> {
    let mut out = vec![0.0; outer * inner];
    for o in 0..outer {
        for l in 0..len {
            for i in 0..inner {
                out[o * inner + i] += f64::from(x[(o * len + l) * inner + i]);
            }
        }
    }
    out
}

/// `[m, k]` times `[k, n]`, where element `(i, j)` of a factor is `f(i, j)`.
pub(super) fn product(
    [m, k, n]: [usize; 3],
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            let a = f64::from(a(i, l));
            for j in 0..n {
                c[i * n + j] += a * f64::from(b(l, j));
            }
        }
    }
    c
}

/// The offsets of the input values under each window that lie inside the image, window by window in row-major order.
pub(super) fn windows(s: &PoolShape) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    for plane in 0..s.planes {
        for oy in 0..s.h_out {
            for ox in 0..s.w_out {
                let mut window = Vec::new();
                for kh in 0..s.kernel[0] {
                    for kw in 0..s.kernel[1] {
                        let y = (oy * s.stride[0] + kh).wrapping_sub(s.padding[0]);
                        let x = (ox * s.stride[1] + kw).wrapping_sub(s.padding[1]);
                        if y < s.h_in && x < s.w_in {
                            window.push((plane * s.h_in + y) * s.w_in + x);
                        }
                    }
                }
                all.push(window);
            }
        }
    }
    all
}
