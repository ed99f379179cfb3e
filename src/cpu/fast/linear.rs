//! Linear layers and matrix products with their gradients.

use rayon::prelude::*;

use super::check_len;
use super::gemm::{Matrix, par_gemm};
use super::sum::sum_axis;

/// `y = x wᵀ + bias`, as `torch.nn.functional.linear`: `x` `[n, k]`, `w` `[m, k]`, `bias` `[m]`, `y` `[n, m]`.
///
/// # Panics
/// When a slice has another length.
pub fn linear(x: &[f32], w: &[f32], bias: Option<&[f32]>, [n, k, m]: [usize; 3], y: &mut [f32]) {
    check_len("linear input", x.len(), n * k);
    check_len("linear weight", w.len(), m * k);
    check_len("linear output", y.len(), n * m);
    par_gemm(Matrix::new(x, n, k, k), Matrix::new(w, m, k, k).transposed(), y);
    let Some(bias) = bias else { return };
    check_len("linear bias", bias.len(), m);
    if m > 0 {
        y.par_chunks_mut(m).with_min_len(1 + (1 << 14) / m).for_each(|row| {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        });
    }
}

/// The gradient of [`linear`]'s input: `dx = dy w`, `[n, k]`.
///
/// # Panics
/// When a slice has another length.
pub fn linear_input_grad(dy: &[f32], w: &[f32], [n, k, m]: [usize; 3], dx: &mut [f32]) {
    check_len("linear output gradient", dy.len(), n * m);
    check_len("linear weight", w.len(), m * k);
    check_len("linear input gradient", dx.len(), n * k);
    par_gemm(Matrix::new(dy, n, m, m), Matrix::new(w, m, k, k), dx);
}

/// The gradient of [`linear`]'s weight: `dw = dyᵀ x`, `[m, k]`.
///
/// # Panics
/// When a slice has another length.
pub fn linear_weight_grad(x: &[f32], dy: &[f32], [n, k, m]: [usize; 3], dw: &mut [f32]) {
    check_len("linear input", x.len(), n * k);
    check_len("linear output gradient", dy.len(), n * m);
    check_len("linear weight gradient", dw.len(), m * k);
    par_gemm(Matrix::new(dy, n, m, m).transposed(), Matrix::new(x, n, k, k), dw);
}

/// The gradient of [`linear`]'s bias: `db[j]` is the sum of `dy[.., j]`, `dy` being `[n, m]`.
///
/// # Panics
/// When a slice has another length.
pub fn linear_bias_grad(dy: &[f32], [n, m]: [usize; 2], db: &mut [f32]) {
    sum_axis(dy, 1, n, m, db);
}

/// `c = a b`: `a` `[m, k]`, `b` `[k, n]`, `c` `[m, n]`.
///
/// # Panics
/// When a slice has another length.
pub fn matmul(a: &[f32], b: &[f32], [m, k, n]: [usize; 3], c: &mut [f32]) {
    check_len("matmul left factor", a.len(), m * k);
    check_len("matmul right factor", b.len(), k * n);
    par_gemm(Matrix::new(a, m, k, k), Matrix::new(b, k, n, n), c);
}

/// The gradient of [`matmul`]'s left factor: `da = dc bᵀ`, `[m, k]`.
///
/// # Panics
/// When a slice has another length.
pub fn matmul_grad_lhs(dc: &[f32], b: &[f32], [m, k, n]: [usize; 3], da: &mut [f32]) {
    check_len("matmul product gradient", dc.len(), m * n);
    check_len("matmul right factor", b.len(), k * n);
    par_gemm(Matrix::new(dc, m, n, n), Matrix::new(b, k, n, n).transposed(), da);
}

/// The gradient of [`matmul`]'s right factor: `db = aᵀ dc`, `[k, n]`.
///
/// # Panics
/// When a slice has another length.
pub fn matmul_grad_rhs(a: &[f32], dc: &[f32], [m, k, n]: [usize; 3], db: &mut [f32]) {
    check_len("matmul left factor", a.len(), m * k);
    check_len("matmul product gradient", dc.len(), m * n);
    par_gemm(Matrix::new(a, m, k, k).transposed(), Matrix::new(dc, m, n, n), db);
}
