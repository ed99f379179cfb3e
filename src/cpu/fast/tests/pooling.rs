use super::super::*;
use super::{Random, assert_close, naive, run};

fn random_shape(r: &mut Random) -> PoolShape {
    loop {
        let tiles = r.chance(0.3);
        let (h_in, w_in) = (r.size(1, 20), r.size(1, 40));
        let kernel = if tiles { [2, 2] } else { [r.size(1, 4), r.size(1, 4)] };
        let stride = if tiles { [2, 2] } else { [r.size(1, 4), r.size(1, 4)] };
        let padding = if tiles { [0, 0] } else { [r.size(0, kernel[0]), r.size(0, kernel[1])] };
        let out = |input: usize, a: usize| (input + 2 * padding[a]).checked_sub(kernel[a]).map(|d| d / stride[a] + 1);
        if let (Some(h_out), Some(w_out)) = (out(h_in, 0), out(w_in, 1)) {
            let planes = r.size(1, 6);
            return PoolShape { planes, h_in, w_in, h_out, w_out, kernel, stride, padding };
        }
    }
}

/// The last NaN of a window, else its first maximum, as PyTorch chooses.
fn chosen(x: &[f32], window: &[usize]) -> Option<usize> {
    let nan = window.iter().rev().find(|&&i| x[i].is_nan());
    let max = window.iter().map(|&i| x[i]).fold(f32::NEG_INFINITY, f32::max);
    nan.or_else(|| window.iter().find(|&&i| x[i] == max)).copied()
}

#[test]
fn max_pooling_agrees_with_the_definition() {
    let mut r = Random::new(31);
    for case in 0..200 {
        let s = random_shape(&mut r);
        let mut x = r.levels(s.planes * s.h_in * s.w_in);
        if case % 4 == 0 {
            for _ in 0..3 {
                let at = r.size(0, x.len() - 1);
                x[at] = [f32::NAN, f32::NEG_INFINITY][r.size(0, 1)];
            }
        }
        let dy = r.values(s.planes * s.h_out * s.w_out);
        let choices: Vec<_> = naive::windows(&s).iter().map(|w| chosen(&x, w)).collect();
        let y = run(dy.len(), |y| max_pool2d(&x, &s, y));
        for (y, choice) in y.iter().zip(&choices) {
            let expected = choice.map_or(f32::NEG_INFINITY, |i| x[i]);
            assert!(*y == expected || y.is_nan() && expected.is_nan(), "{s:?}: {y} for {expected}");
        }
        let mut expected = vec![0.0; x.len()];
        for (choice, &dy) in choices.iter().zip(&dy) {
            if let Some(i) = choice {
                expected[*i] += f64::from(dy);
            }
        }
        let dx = run(x.len(), |dx| max_pool2d_grad(&x, &dy, &s, dx));
        assert_close(&dx, &expected, &s);
    }
}

#[test]
fn average_pooling_agrees_with_the_definition() {
    let mut r = Random::new(32);
    for _ in 0..200 {
        let s = random_shape(&mut r);
        let (x, dy) = (r.values(s.planes * s.h_in * s.w_in), r.values(s.planes * s.h_out * s.w_out));
        let count = (s.kernel[0] * s.kernel[1]) as f64;
        let windows = naive::windows(&s);
        let mean = |w: &Vec<usize>| w.iter().map(|&i| f64::from(x[i])).sum::<f64>() / count;
        let y = run(dy.len(), |y| avg_pool2d(&x, &s, y));
        assert_close(&y, &windows.iter().map(mean).collect::<Vec<_>>(), &s);
        let mut expected = vec![0.0; x.len()];
        for (window, &dy) in windows.iter().zip(&dy) {
            window.iter().for_each(|&i| expected[i] += f64::from(dy) / count);
        }
        let dx = run(x.len(), |dx| avg_pool2d_grad(&dy, &s, dx));
        assert_close(&dx, &expected, &s);
    }
}
