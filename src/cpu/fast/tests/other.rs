use super::super::*;
use super::{Random, assert_close, naive, run, wide};

#[test]
fn batch_norm_agrees_with_the_definition() {
    let mut r = Random::new(41);
    for (n, c, pixels, offset) in
        [(2, 3, 35, 0.0), (1, 1, 6, 0.0), (5, 7, 1, 0.0), (3, 2, 5000, 100.0), (2, 1, 20_000, 0.0), (4, 40, 9, -3.0)]
    {
        let shape = BatchNormShape { n, c, pixels };
        let eps = 1e-5;
        let x: Vec<f32> = r.values(n * c * pixels).iter().map(|v| v + offset).collect();
        let (gain, bias, dy) = (r.values(c), r.values(c), r.values(x.len()));
        let count = (n * pixels) as f64;
        let channel = |i: usize| i / pixels % c;
        let by_channel = |f: &dyn Fn(usize) -> f64| {
            let mut sums = vec![0.0; c];
            (0..x.len()).for_each(|i| sums[channel(i)] += f(i));
            sums
        };
        let at = |i: usize| f64::from(x[i]);
        let mean: Vec<f64> = by_channel(&at).iter().map(|s| s / count).collect();
        let var: Vec<f64> = by_channel(&|i| (at(i) - mean[channel(i)]).powi(2)).iter().map(|s| s / count).collect();
        let std = |i: usize| (var[channel(i)] + f64::from(eps)).sqrt();
        let x_hat = |i: usize| (at(i) - mean[channel(i)]) / std(i);
        let (gain_at, dy_at) = (|i: usize| f64::from(gain[channel(i)]), |i: usize| f64::from(dy[i]));

        let both = run(2 * c, |out| {
            let (m, v) = out.split_at_mut(c);
            batch_norm2d_stats(&x, &shape, m, v);
        });
        let (m, v) = both.split_at(c);
        assert_close(m, &mean, &shape);
        assert_close(v, &var, &shape);

        let y = run(x.len(), |y| batch_norm2d(&x, m, v, &gain, &bias, eps, &shape, y));
        let expected: Vec<f64> = (0..x.len()).map(|i| x_hat(i) * gain_at(i) + f64::from(bias[channel(i)])).collect();
        // Far from zero the mean itself is rounded to f32, which shows in the differences from it.
        let near_zero = offset.abs() < 10.0;
        if near_zero {
            assert_close(&y, &expected, &shape);
        }

        let grads = run(2 * c, |out| {
            let (dg, db) = out.split_at_mut(c);
            batch_norm2d_param_grads(&x, &dy, m, v, eps, &shape, dg, db);
        });
        let (dgain, dbias) = grads.split_at(c);
        let expected_gain = by_channel(&|i| dy_at(i) * x_hat(i));
        let expected_bias = by_channel(&dy_at);
        assert_close(dbias, &expected_bias, &shape);
        let dx = run(x.len(), |dx| {
            batch_norm2d_input_grad(&x, &dy, m, v, &gain, dgain, dbias, eps, &shape, dx);
        });
        let expected: Vec<f64> = (0..x.len())
            .map(|i| {
                let (dg, db) = (expected_gain[channel(i)], expected_bias[channel(i)]);
                gain_at(i) / std(i) * (dy_at(i) - db / count - x_hat(i) * dg / count)
            })
            .collect();
        if near_zero {
            assert_close(dgain, &expected_gain, &shape);
            assert_close(&dx, &expected, &shape);
        }
    }
}

#[test]
fn sums_agree_with_the_definition() {
    let mut r = Random::new(42);
    for [outer, len, inner] in
        [[1, 1, 1], [3, 5, 7], [7, 5000, 1], [1, 300, 1300], [4, 1, 600], [2, 33, 513], [40, 17, 1], [3, 0, 4]]
    {
        let x = r.values(outer * len * inner);
        let out = run(outer * inner, |out| sum_axis(&x, outer, len, inner, out));
        assert_close(&out, &naive::sum_axis(&x, outer, len, inner), &[outer, len, inner]);
    }
    let x = r.values(200_001);
    let total = run(1, |out| out[0] = sum_all(&x) as f32);
    assert_close(&total, &[wide(&x).iter().sum()], &"sum_all");
}

#[test]
fn maps_apply_their_formula_everywhere() {
    let mut r = Random::new(43);
    let mut x = r.values(50_001);
    (x[7], x[8], x[9]) = (f32::NAN, 0.0, -0.0);
    let (y, z) = (r.values(x.len()), r.values(x.len()));
    let out = run(x.len(), |out| relu(&x, out));
    let grad = run(x.len(), |out| relu_grad(&x, &y, out));
    for i in 0..x.len() {
        if x[i].is_nan() {
            assert!(out[i].is_nan());
            continue;
        }
        assert_eq!(out[i], x[i].max(0.0));
        assert_eq!(grad[i], if x[i] > 0.0 { y[i] } else { 0.0 });
    }
    let out = run(y.len(), |out| map3(&y, &z, &y, out, |a, b, c| a * b - c));
    assert!((0..y.len()).all(|i| out[i] == y[i] * z[i] - y[i]));
    assert!(run(3, |out| fill(out, 2.5)) == [2.5; 3]);
}

#[test]
fn optimizers_follow_their_formulas_over_several_steps() {
    let mut r = Random::new(44);
    let len = 40_001;
    let start = r.values(len);
    let grads: Vec<Vec<f32>> = (0..3).map(|_| r.values(len)).collect();
    for decoupled in [false, true] {
        let (lr, beta1, beta2, eps, weight_decay) = (0.01, 0.9, 0.999, 1e-8, 0.1);
        let p = run(len, |p| {
            p.copy_from_slice(&start);
            let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
            for (i, g) in grads.iter().enumerate() {
                let step = i as u32 + 1;
                adam(p, g, &mut m, &mut v, &Adam { lr, beta1, beta2, eps, weight_decay, decoupled, step });
            }
        });
        let [lr, b1, b2, eps, decay] = [lr, beta1, beta2, eps, weight_decay].map(f64::from);
        let expected: Vec<f64> = (0..len)
            .map(|i| {
                let (mut p, mut m, mut v) = (f64::from(start[i]), 0.0, 0.0);
                for (t, g) in (1..).zip(&grads) {
                    let mut g = f64::from(g[i]);
                    if decoupled {
                        p -= lr * decay * p;
                    } else {
                        g += decay * p;
                    }
                    m = b1 * m + (1.0 - b1) * g;
                    v = b2 * v + (1.0 - b2) * g * g;
                    p -= lr * (m / (1.0 - b1.powi(t))) / ((v / (1.0 - b2.powi(t))).sqrt() + eps);
                }
                p
            })
            .collect();
        assert_close(&p, &expected, &("adam", decoupled));
    }
    for (momentum, dampening, nesterov) in [(0.0, 0.0, false), (0.9, 0.3, false), (0.9, 0.0, true)] {
        let (lr, weight_decay) = (0.1, 0.05);
        let p = run(len, |p| {
            p.copy_from_slice(&start);
            let mut buffer = vec![f32::NAN; len];
            for (i, g) in grads.iter().enumerate() {
                let settings = Sgd { lr, momentum, dampening, weight_decay, nesterov, first: i == 0 };
                sgd(p, g, &mut buffer, &settings);
            }
        });
        let [lr, mu, dampening, decay] = [lr, momentum, dampening, weight_decay].map(f64::from);
        let expected: Vec<f64> = (0..len)
            .map(|i| {
                let (mut p, mut b) = (f64::from(start[i]), 0.0);
                for (t, g) in grads.iter().enumerate() {
                    let g = f64::from(g[i]) + decay * p;
                    b = if t == 0 { g } else { mu * b + (1.0 - dampening) * g };
                    let direction = if mu == 0.0 {
                        g
                    } else if nesterov {
                        g + mu * b
                    } else {
                        b
                    };
                    p -= lr * direction;
                }
                p
            })
            .collect();
        assert_close(&p, &expected, &("sgd", momentum, nesterov));
    }
}

#[test]
fn gathered_images_are_normalised() {
    let mut r = Random::new(45);
    let image = ImageBatch { c: 3, h: 5, w: 7 };
    let (count, plane) = (9, 35);
    let pixels: Vec<u8> = (0..count * 3 * plane).map(|_| r.size(0, 255) as u8).collect();
    let indices = [8, 0, 3, 3];
    let (mean, std) = ([0.5, 0.4, 0.3], [0.2, 0.25, 1.0]);
    let out = run(4 * 3 * plane, |out| gather_normalise(&pixels, &indices, &mean, &std, image, out));
    let expected: Vec<f64> = (0..out.len())
        .map(|i| {
            let (b, c, p) = (i / (3 * plane), i / plane % 3, i % plane);
            let byte = pixels[(indices[b] as usize * 3 + c) * plane + p];
            (f64::from(byte) / 255.0 - f64::from(mean[c])) / f64::from(std[c])
        })
        .collect();
    assert_close(&out, &expected, &image);
}

#[test]
#[should_panic(expected = "gather: image 2 is asked for, there are 2")]
fn an_index_beyond_the_images_is_refused() {
    let image = ImageBatch { c: 1, h: 1, w: 3 };
    gather_normalise(&[0; 6], &[2], &[0.0], &[1.0], image, &mut [0.0; 3]);
}

#[test]
fn softmax_along_outer_axes_agrees_with_the_definition() {
    let mut r = Random::new(43);
    for ([outer, len, inner], log) in [([2, 5, 7], false), ([2, 5, 7], true), ([3, 64, 49], false), ([1, 1, 4], true)] {
        let (x, dy) = (r.values(outer * len * inner), r.values(outer * len * inner));
        let at = |i: usize, k: usize| i / inner * len * inner + k * inner + i % inner;
        let (mut expected, mut gradient) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for i in 0..outer * inner {
            let value = |k: usize| f64::from(x[at(i, k)]).exp();
            let dy = |k: usize| f64::from(dy[at(i, k)]);
            let total: f64 = (0..len).map(value).sum();
            let dot: f64 = (0..len).map(|k| if log { dy(k) } else { dy(k) * value(k) / total }).sum();
            for k in 0..len {
                let share = value(k) / total;
                expected[at(i, k)] = if log { share.ln() } else { share };
                gradient[at(i, k)] = if log { dy(k) - share * dot } else { share * (dy(k) - dot) };
            }
        }
        let y = run(x.len(), |y| softmax(&x, [len, inner], log, y));
        assert_close(&y, &expected, &[outer, len, inner]);
        let dx = run(x.len(), |dx| softmax_grad(&y, &dy, [len, inner], log, dx));
        // Of one value each gradient is 0, and its relative error means nothing.
        if len > 1 {
            assert_close(&dx, &gradient, &[outer, len, inner]);
        }
    }
    let mut bad = vec![0.5_f32; 12];
    (bad[1], bad[2]) = (f32::NAN, f32::INFINITY);
    let y = run(12, |y| softmax(&bad, [3, 4], false, y));
    let broken: Vec<bool> = y.chunks(4).flat_map(|row| row.iter().map(|v| v.is_nan())).collect();
    assert_eq!(broken[..4], [false, true, true, false]);
    assert!(y[1].is_nan() && y[5].is_nan() && y[9].is_nan());
}
