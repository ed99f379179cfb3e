use super::super::*;
use super::{Random, assert_close, naive, run};

/// Small sizes, and sizes that take each way of sharing out a product: rows, columns, terms of the sum.
const SIZES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [1, 300, 1],
    [3, 5, 2],
    [17, 31, 65],
    [33, 257, 127],
    [100, 64, 100],
    [2, 9000, 3],
    [16, 20_001, 10],
    [5, 12, 5000],
    [40, 100, 2500],
    [200, 3, 4000],
    [70, 9, 1],
];

#[test]
fn matrix_products_agree_with_the_definition() {
    let mut r = Random::new(21);
    for sizes in SIZES {
        let [m, k, n] = sizes;
        let (a, b, dc) = (r.values(m * k), r.values(k * n), r.values(m * n));
        let at_a = |i: usize, j: usize| a[i * k + j];
        let at_b = |i: usize, j: usize| b[i * n + j];
        let at_dc = |i: usize, j: usize| dc[i * n + j];
        let c = run(m * n, |c| matmul(&a, &b, sizes, c));
        assert_close(&c, &naive::product(sizes, at_a, at_b), &sizes);
        let da = run(m * k, |da| matmul_grad_lhs(&dc, &b, sizes, da));
        assert_close(&da, &naive::product([m, n, k], at_dc, |i, j| at_b(j, i)), &sizes);
        let db = run(k * n, |db| matmul_grad_rhs(&a, &dc, sizes, db));
        assert_close(&db, &naive::product([k, m, n], |i, j| at_a(j, i), at_dc), &sizes);
    }
}

#[test]
fn linear_layers_agree_with_the_definition() {
    let mut r = Random::new(22);
    for sizes in SIZES {
        let [n, k, m] = sizes;
        let (x, w, bias, dy) = (r.values(n * k), r.values(m * k), r.values(m), r.values(n * m));
        let at_x = |i: usize, j: usize| x[i * k + j];
        let at_w = |i: usize, j: usize| w[i * k + j];
        let at_dy = |i: usize, j: usize| dy[i * m + j];
        let mut expected = naive::product(sizes, at_x, |i, j| at_w(j, i));
        let y = run(n * m, |y| linear(&x, &w, None, sizes, y));
        assert_close(&y, &expected, &sizes);
        for (i, value) in expected.iter_mut().enumerate() {
            *value += f64::from(bias[i % m]);
        }
        let y = run(n * m, |y| linear(&x, &w, Some(&bias), sizes, y));
        assert_close(&y, &expected, &sizes);
        let dx = run(n * k, |dx| linear_input_grad(&dy, &w, sizes, dx));
        assert_close(&dx, &naive::product([n, m, k], at_dy, at_w), &sizes);
        let dw = run(m * k, |dw| linear_weight_grad(&x, &dy, sizes, dw));
        assert_close(&dw, &naive::product([m, n, k], |i, j| at_dy(j, i), at_x), &sizes);
        let db = run(m, |db| linear_bias_grad(&dy, [n, m], db));
        assert_close(&db, &naive::sum_axis(&dy, 1, n, m), &sizes);
    }
}

#[test]
fn a_product_accumulates_between_the_rows_of_its_result() {
    let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
    let mut c = [1.0, 1.0, 9.0, 1.0, 1.0];
    gemm(Matrix::new(&a, 2, 2, 2), Matrix::new(&b, 2, 2, 2).transposed(), &mut c, 3, true);
    assert_eq!(c, [18.0, 24.0, 9.0, 40.0, 54.0]);
}

#[test]
fn empty_products_are_zero() {
    let mut c = [f32::NAN; 6];
    gemm(Matrix::new(&[], 2, 0, 0), Matrix::new(&[], 0, 3, 3), &mut c, 3, false);
    assert_eq!(c, [0.0; 6]);
    matmul(&[], &[], [0, 3, 0], &mut []);
}

#[test]
#[should_panic(expected = "gemm: a 3x4 matrix with strides 5 and 1 does not fit in 13 values")]
fn a_matrix_that_reaches_past_its_slice_is_refused() {
    let _ = Matrix::new(&[0.0; 13], 3, 4, 5);
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_stride_that_overflows_is_refused() {
    let _ = Matrix::new(&[0.0; 13], 3, 4, usize::MAX / 2);
}

#[test]
#[should_panic(expected = "gemm: a 2x2 result with row stride 1 does not fit in 4 values")]
fn overlapping_result_rows_are_refused() {
    let a = [0.0; 4];
    gemm(Matrix::new(&a, 2, 2, 2), Matrix::new(&a, 2, 2, 2), &mut [0.0; 4], 1, false);
}
