//! Maximum and average pooling with their gradients, plane by plane.

use std::ops::Range;

use rayon::prelude::*;

use super::{Loop, check_len, vectorised};

/// The sizes of a pooling: input `[planes, h_in, w_in]`, output `[planes, h_out, w_out]`, where `planes` is batch times
/// channels. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Batch times channels.
    pub planes: usize,
    /// Input height.
    pub h_in: usize,
    /// Input width.
    pub w_in: usize,
    /// Output height.
    pub h_out: usize,
    /// Output width.
    pub w_out: usize,
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Steps of the window.
    pub stride: [usize; 2],
    /// Rim around the input: minus infinity for the maximum, zeros that count for the average.
    pub padding: [usize; 2],
}

impl PoolShape {
    fn check(&self, x: usize, y: usize) {
        check_len("pooling input", x, self.planes * self.h_in * self.w_in);
        check_len("pooling output", y, self.planes * self.h_out * self.w_out);
        assert!(
            self.kernel.iter().chain(&self.stride).all(|&v| v > 0),
            "pooling: window and stride must be at least 1: {self:?}"
        );
    }

    /// Runs `f(plane number, plane)` over the planes of `out`, each `size` long.
    fn for_planes(&self, out: &mut [f32], size: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        if size > 0 {
            let planes = out.par_chunks_mut(size).enumerate();
            planes.with_min_len(1 + (1 << 14) / size).for_each(|(i, out)| f(i, out));
        }
    }

    /// The part of the window at output position `out` that lies inside the input, along `axis`.
    fn window(&self, axis: usize, out: usize) -> Range<usize> {
        let limit = [self.h_in, self.w_in][axis];
        let start = out * self.stride[axis];
        let end = (start + self.kernel[axis]).saturating_sub(self.padding[axis]).min(limit);
        start.saturating_sub(self.padding[axis]).min(end)..end
    }

    /// Whether the windows are 2x2 tiles that never leave the input.
    fn is_tiles_of_two(&self) -> bool {
        self.kernel == [2, 2]
            && self.stride == [2, 2]
            && self.padding == [0, 0]
            && 2 * self.h_out <= self.h_in
            && 2 * self.w_out <= self.w_in
    }

    fn plane<'a>(&self, x: &'a [f32], i: usize) -> &'a [f32] {
        let size = self.h_in * self.w_in;
        &x[i * size..(i + 1) * size]
    }

    fn plane_out<'a>(&self, y: &'a [f32], i: usize) -> &'a [f32] {
        let size = self.h_out * self.w_out;
        &y[i * size..(i + 1) * size]
    }

    /// The offset in `plane` of the first maximum of a window; the last NaN, where there is one, as in PyTorch.
    /// `None` for a window that lies wholly in the padding.
    fn first_max(&self, plane: &[f32], rows: &Range<usize>, columns: &Range<usize>) -> Option<usize> {
        let mut best: Option<(usize, f32)> = None;
        for row in rows.clone() {
            let start = row * self.w_in;
            for (i, &value) in plane[start + columns.start..start + columns.end].iter().enumerate() {
                if best.is_none_or(|(_, max)| takes_over(value, max)) {
                    best = Some((start + columns.start + i, value));
                }
            }
        }
        best.map(|(offset, _)| offset)
    }
}

/// PyTorch's rule: a later value takes the place of an earlier maximum when it is larger or NaN.
#[inline(always)]
fn takes_over(value: f32, max: f32) -> bool {
    // Not `||`: a branch here would keep the compiler from working on several windows at once.
    (value > max) | value.is_nan()
}

/// Maximum pooling, as `torch.nn.functional.max_pool2d`. A window wholly in the padding gives minus infinity.
///
/// # Panics
/// When a slice has another length.
pub fn max_pool2d(x: &[f32], shape: &PoolShape, y: &mut [f32]) {
    shape.check(x.len(), y.len());
    let tiles = shape.is_tiles_of_two();
    shape.for_planes(y, shape.h_out * shape.w_out, |i, y| {
        let x = shape.plane(x, i);
        for (row, y) in y.chunks_mut(shape.w_out).enumerate() {
            if tiles {
                max_row_of_two(two_rows(x, shape.w_in, row), y);
                continue;
            }
            let rows = shape.window(0, row);
            for (column, y) in y.iter_mut().enumerate() {
                let columns = shape.window(1, column);
                *y = shape.first_max(x, &rows, &columns).map_or(f32::NEG_INFINITY, |at| x[at]);
            }
        }
    });
}

/// Input rows `2 row` and `2 row + 1`, as pairs of neighbours.
fn two_rows(x: &[f32], width: usize, row: usize) -> (&[[f32; 2]], &[[f32; 2]]) {
    let (top, bottom) = x[2 * row * width..(2 * row + 2) * width].split_at(width);
    (top.as_chunks().0, bottom.as_chunks().0)
}

fn max_row_of_two((top, bottom): (&[[f32; 2]], &[[f32; 2]]), y: &mut [f32]) {
    let larger = |max: f32, value: f32| if takes_over(value, max) { value } else { max };
    for ((y, &[a, b]), &[c, d]) in y.iter_mut().zip(top).zip(bottom) {
        *y = larger(larger(larger(a, b), c), d);
    }
}

/// The gradient of [`max_pool2d`]: `dy` goes to the first maximum of each window, found again in `x`.
///
/// # Panics
/// When a slice has another length.
pub fn max_pool2d_grad(x: &[f32], dy: &[f32], shape: &PoolShape, dx: &mut [f32]) {
    shape.check(x.len(), dy.len());
    check_len("pooling input gradient", dx.len(), x.len());
    let tiles = shape.is_tiles_of_two();
    shape.for_planes(dx, shape.h_in * shape.w_in, |i, dx| {
        let (x, dy) = (shape.plane(x, i), shape.plane_out(dy, i));
        if tiles {
            return max_grad_of_two(x, dy, shape, dx);
        }
        dx.fill(0.0);
        for (row, dy) in dy.chunks(shape.w_out.max(1)).enumerate() {
            let rows = shape.window(0, row);
            for (column, dy) in dy.iter().enumerate() {
                if let Some(at) = shape.first_max(x, &rows, &shape.window(1, column)) {
                    dx[at] += dy;
                }
            }
        }
    });
}

fn max_grad_of_two(x: &[f32], dy: &[f32], shape: &PoolShape, dx: &mut [f32]) {
    let width = shape.w_in;
    for (row, dx) in dx.chunks_mut(2 * width).enumerate() {
        if row >= shape.h_out {
            dx.fill(0.0);
            continue;
        }
        let (top, bottom) = two_rows(x, width, row);
        let (dx_top, dx_bottom) = dx.split_at_mut(width);
        dx_top[2 * shape.w_out..].fill(0.0);
        dx_bottom[2 * shape.w_out..].fill(0.0);
        let dy = &dy[row * shape.w_out..(row + 1) * shape.w_out];
        let (dx_top, dx_bottom) = (dx_top.as_chunks_mut().0, dx_bottom.as_chunks_mut().0);
        vectorised(MaxGradOfTwo { top, bottom, dy_row: dy, dx_top, dx_bottom });
    }
}

/// A row of windows; the pixels are pairs of neighbours, from the upper and the lower row of each window.
struct MaxGradOfTwo<'a> {
    top: &'a [[f32; 2]],
    bottom: &'a [[f32; 2]],
    dy_row: &'a [f32],
    dx_top: &'a mut [[f32; 2]],
    dx_bottom: &'a mut [[f32; 2]],
}

impl Loop for MaxGradOfTwo<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { top, bottom, dy_row, dx_top, dx_bottom } = self;
        // Through arrays, so that the compiler works on several windows at once. A loop straight over the slices becomes
        // branches, which are mispredicted at every other window.
        const WINDOWS: usize = 64;
        let (mut a, mut b, mut c, mut d) = ([0.0; WINDOWS], [0.0; WINDOWS], [0.0; WINDOWS], [0.0; WINDOWS]);
        let mut dy = [0.0; WINDOWS];
        for (block, from) in dy_row.chunks(WINDOWS).enumerate() {
            let range = block * WINDOWS..block * WINDOWS + from.len();
            for (i, (top, bottom)) in top[range.clone()].iter().zip(&bottom[range.clone()]).enumerate() {
                ([a[i], b[i]], [c[i], d[i]]) = (*top, *bottom);
            }
            dy[..from.len()].copy_from_slice(from);
            for i in 0..WINDOWS {
                let b_wins = takes_over(b[i], a[i]);
                let max = if b_wins { b[i] } else { a[i] };
                let c_wins = takes_over(c[i], max);
                let max = if c_wins { c[i] } else { max };
                let d_wins = takes_over(d[i], max);
                let share = |wins: bool| if wins { dy[i] } else { 0.0 };
                a[i] = share(!(b_wins | c_wins | d_wins));
                b[i] = share(b_wins & !(c_wins | d_wins));
                c[i] = share(c_wins & !d_wins);
                d[i] = share(d_wins);
            }
            let out = dx_top[range.clone()].iter_mut().zip(&mut dx_bottom[range]);
            for (i, (dx_top, dx_bottom)) in out.enumerate() {
                (*dx_top, *dx_bottom) = ([a[i], b[i]], [c[i], d[i]]);
            }
        }
    }
}

/// Average pooling, as `torch.nn.functional.avg_pool2d` with `count_include_pad=True`: the zeros of the padding count.
///
/// # Panics
/// When a slice has another length.
pub fn avg_pool2d(x: &[f32], shape: &PoolShape, y: &mut [f32]) {
    shape.check(x.len(), y.len());
    let scale = 1.0 / (shape.kernel[0] * shape.kernel[1]) as f32;
    shape.for_planes(y, shape.h_out * shape.w_out, |i, y| {
        let x = shape.plane(x, i);
        for (row, y) in y.chunks_mut(shape.w_out).enumerate() {
            let rows = shape.window(0, row);
            for (column, y) in y.iter_mut().enumerate() {
                let columns = shape.window(1, column);
                let mut sum = 0.0;
                for row in rows.clone() {
                    let start = row * shape.w_in;
                    sum += x[start + columns.start..start + columns.end].iter().sum::<f32>();
                }
                *y = sum * scale;
            }
        }
    });
}

/// The gradient of [`avg_pool2d`]: each window hands its `dy` to its pixels in equal parts.
///
/// # Panics
/// When a slice has another length.
pub fn avg_pool2d_grad(dy: &[f32], shape: &PoolShape, dx: &mut [f32]) {
    shape.check(dx.len(), dy.len());
    let scale = 1.0 / (shape.kernel[0] * shape.kernel[1]) as f32;
    shape.for_planes(dx, shape.h_in * shape.w_in, |i, dx| {
        dx.fill(0.0);
        for (row, dy) in shape.plane_out(dy, i).chunks(shape.w_out.max(1)).enumerate() {
            let rows = shape.window(0, row);
            for (column, dy) in dy.iter().enumerate() {
                let columns = shape.window(1, column);
                for row in rows.clone() {
                    let start = row * shape.w_in;
                    for dx in &mut dx[start + columns.start..start + columns.end] {
                        *dx += dy * scale;
                    }
                }
            }
        }
    });
}
