//! Matrix products: the one place that calls the `gemm` crate, and how large products are cut for the threads.

use rayon::prelude::*;

use super::scratch::Scratch;

/// A matrix seen in a slice: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `cols` values that start `row_stride` values apart.
    ///
    /// # Panics
    /// When the last element lies outside `data`.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let matrix = Self { data, rows, cols, row_stride, col_stride: 1 };
        matrix.check();
        matrix
    }

    /// The same values with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn check(&self) {
        let reached = extent(self.rows, self.cols, self.row_stride, self.col_stride);
        assert!(
            reached.is_some_and(|r| r <= self.data.len()),
            "gemm: a {}x{} matrix with strides {} and {} does not fit in {} values",
            self.rows,
            self.cols,
            self.row_stride,
            self.col_stride,
            self.data.len()
        );
    }

    pub(super) fn height(self) -> usize {
        self.rows
    }

    pub(super) fn width(self) -> usize {
        self.cols
    }

    pub(super) fn rows_from(self, start: usize, count: usize) -> Self {
        let data = if count == 0 { &[] } else { &self.data[start * self.row_stride..] };
        Self { data, rows: count, ..self }
    }

    fn cols_from(self, start: usize, count: usize) -> Self {
        self.transposed().rows_from(start, count).transposed()
    }
}

/// One past the largest offset that a strided matrix reaches, `None` where that, or a stride, overflows a pointer's range.
fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Option<usize> {
    // Also of an axis of one element, whose stride is never walked: what cannot be a pointer's offset is not handed on.
    if row_stride.max(col_stride) > isize::MAX as usize / size_of::<f32>() {
        return None;
    }
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    let last = (rows - 1).checked_mul(row_stride)?.checked_add((cols - 1).checked_mul(col_stride)?)?;
    let reached = last.checked_add(1)?;
    (reached <= isize::MAX as usize / size_of::<f32>()).then_some(reached)
}

/// `c = a b`, or `c += a b` with `accumulate`, on the calling thread.
///
/// `a` is `[m, k]`, `b` is `[k, n]`; `c` has `m` rows of `n` values that start `c_stride` apart. Values of `c` between
/// its rows are left alone.
///
/// # Panics
/// When the inner sizes differ, when `c` is too short, or when its rows overlap.
pub fn gemm(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], c_stride: usize, accumulate: bool) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(k == b.rows, "gemm: {m}x{k} times {}x{n} does not fit", b.rows);
    assert!(
        (c_stride >= n || m <= 1) && extent(m, n, c_stride, 1).is_some_and(|r| r <= c.len()),
        "gemm: a {m}x{n} result with row stride {c_stride} does not fit in {} values",
        c.len()
    );
    a.check();
    b.check();
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: `gemm` reads `a[i * row_stride + l * col_stride]` for i < m, l < k and `b` likewise for l < k, j < n, and
    // reads (with `accumulate`) and writes `c[i * c_stride + j]` for i < m, j < n. The largest of these offsets were compared
    // with the slice lengths by the assertions above, which hold in every build, without overflow; so every access is inside its slice,
    // and every offset and stride fits `isize` in bytes. With k = 0 neither `a` nor `b` is read.
    // `c` is an exclusive borrow, so it overlaps neither `a` nor `b`; its rows do not overlap because
    // `c_stride >= n` (or there is one row), so no element is written twice. `f32` has no invalid values. One thread
    // does all the work (`Parallelism::None`).
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Rows of the result that one task computes when the rows are shared out.
const ROWS_A_TASK: usize = 32;
/// Columns of the result that one task computes when the columns are shared out.
const COLS_A_TASK: usize = 1024;
/// Terms of the inner sum that one task adds when the sum is shared out.
const DEPTH_A_TASK: usize = 4096;
/// A product with fewer multiplications than this is not worth sharing out.
const SMALL: usize = 64 * 64 * 64;

/// `c = a b` with `c` `[m, n]` contiguous, by all threads of the pool.
///
/// The cut depends on the sizes alone, so the bits do not depend on the number of threads.
pub(super) fn par_gemm(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32]) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    super::check_len("gemm result", c.len(), m * n);
    if m * n == 0 {
        return;
    }
    if m.saturating_mul(n).saturating_mul(k) <= SMALL {
        return gemm(a, b, c, n, false);
    }
    if k >= 2 * DEPTH_A_TASK && m * n <= 4 * k {
        return split_depth(a, b, c);
    }
    if m >= 2 * ROWS_A_TASK || n < 2 * COLS_A_TASK {
        c.par_chunks_mut(ROWS_A_TASK * n).enumerate().for_each(|(task, c)| {
            gemm(a.rows_from(task * ROWS_A_TASK, c.len() / n), b, c, n, false);
        });
        return;
    }
    split_columns(a, b, c);
}

/// Each task computes some columns in its own buffer, then copies them into the rows of `c`.
fn split_columns(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32]) {
    let (m, n) = (a.rows, b.cols);
    let mut tasks: Vec<Vec<&mut [f32]>> = (0..n.div_ceil(COLS_A_TASK)).map(|_| Vec::with_capacity(m)).collect();
    for row in c.chunks_mut(n) {
        for (task, part) in tasks.iter_mut().zip(row.chunks_mut(COLS_A_TASK)) {
            task.push(part);
        }
    }
    tasks.into_par_iter().enumerate().for_each(|(task, rows)| {
        let start = task * COLS_A_TASK;
        let cols = COLS_A_TASK.min(n - start);
        let mut block = Scratch::take(m * cols);
        gemm(a, b.cols_from(start, cols), &mut block, cols, false);
        for (row, values) in rows.into_iter().zip(block.chunks(cols)) {
            row.copy_from_slice(values);
        }
    });
}

/// Each task adds some terms of the inner sum into its own partial result; these are added in order at the end.
fn split_depth(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32]) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    // `gemm` packs the factor on the side that it works on in vectors, which is dear where that means transposing it:
    // better the smaller factor.
    let flip = m < n && b.row_stride == 1;
    // At most 64 partial results, whatever the depth, so that their memory stays in proportion.
    let depth = DEPTH_A_TASK.max(k.div_ceil(64));
    let mut partial = Scratch::take(k.div_ceil(depth) * m * n);
    partial.par_chunks_mut(m * n).enumerate().for_each(|(task, c)| {
        let start = task * depth;
        let terms = depth.min(k - start);
        let (a, b) = (a.cols_from(start, terms), b.rows_from(start, terms));
        if flip {
            gemm(b.transposed(), a.transposed(), c, m, false);
        } else {
            gemm(a, b, c, n, false);
        }
    });
    if flip {
        add_transposed_partials(&partial, [m, n], c);
    } else {
        add_partials(&partial, c);
    }
}

/// `c = ` the sum of the equally long pieces of `partial`, in their order.
pub(super) fn add_partials(partial: &[f32], c: &mut [f32]) {
    let len = c.len();
    const CHUNK: usize = 4096;
    c.par_chunks_mut(CHUNK).enumerate().for_each(|(i, c)| {
        let start = i * CHUNK;
        c.copy_from_slice(&partial[start..start + c.len()]);
        for piece in partial.chunks(len).skip(1) {
            for (c, p) in c.iter_mut().zip(&piece[start..]) {
                *c += p;
            }
        }
    });
}

/// As [`add_partials`], where `c` holds matrices `[rows, columns]` and each piece their transposes.
pub(super) fn add_transposed_partials(partial: &[f32], [rows, columns]: [usize; 2], c: &mut [f32]) {
    let mut sum = Scratch::take(c.len());
    add_partials(partial, &mut sum);
    let sum = &*sum;
    c.par_chunks_mut(columns).with_min_len(8).enumerate().for_each(|(i, c)| {
        let (matrix, row) = (i / rows, i % rows);
        let from = sum[matrix * rows * columns + row..].iter().step_by(rows);
        for (c, from) in c.iter_mut().zip(from) {
            *c = *from;
        }
    });
}
