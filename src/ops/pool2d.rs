//! What `max_pool2d` and `avg_pool2d` share: the window, its shape rule and its walk over an image.
//!
//! Along each axis `out = floor((in + 2 padding - kernel) / stride) + 1`, as in PyTorch with `ceil_mode=False`. The padding
//! is at most half the kernel, so that every window holds at least one pixel of the image.

use std::fmt;
use std::ops::Range;

use super::sample::Sample;
use crate::cpu::fast::PoolShape;
use crate::gpu::lower::Const;
use crate::shape::{ShapeError, Spec, image};

/// A pooling window; each pair is `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2d {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub stride: [usize; 2],
    /// Rim around the image: never the maximum, zeros that count for the average.
    pub padding: [usize; 2],
}

impl Pool2d {
    /// Square windows that lie side by side: kernel `k`, stride `k`, no padding.
    #[must_use]
    pub fn square(k: usize) -> Self {
        Self::new(k, k, 0)
    }

    /// Square windows in the order of PyTorch's arguments: `Pool2d::new(3, 2, 1)` is a 3x3 window at stride 2 with padding 1.
    #[must_use]
    pub fn new(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    /// Output size along an axis; `None` where the window does not fit.
    #[must_use]
    pub fn extent(&self, axis: usize, input: usize) -> Option<usize> {
        let padded = input.checked_add(self.padding[axis].checked_mul(2)?)?;
        let steps = padded.checked_sub(self.kernel[axis])?.checked_div(self.stride[axis])?;
        Some(steps + 1)
    }

    /// The shape rule of a pooling called `op`.
    pub(super) fn infer(&self, op: &'static str, input: &Spec) -> Result<Spec, ShapeError> {
        const LIMIT: usize = i32::MAX as usize;
        let [n, c, h, w] = image(op, input)?;
        let in_range = |v: &usize| (1..=LIMIT).contains(v);
        if !self.kernel.iter().chain(&self.stride).all(in_range) {
            let what = format!(
                "kernel and stride must be from 1 to {LIMIT}, got kernel {:?}, stride {:?}",
                self.kernel, self.stride
            );
            return Err(ShapeError::invalid(op, what, input));
        }
        if (0..2).any(|axis| self.padding[axis] > self.kernel[axis] / 2) {
            let what = format!(
                "the padding must be at most half the kernel, got padding {:?}, kernel {:?}",
                self.padding, self.kernel
            );
            return Err(ShapeError::invalid(op, what, input));
        }
        match (self.extent(0, h), self.extent(1, w)) {
            (Some(oh), Some(ow)) if h > 0 && w > 0 => Ok(Spec::float([n, c, oh, ow])),
            _ => {
                let what = format!("the window {:?} is larger than the padded image", self.kernel);
                Err(ShapeError::invalid(op, what, input))
            }
        }
    }
}

impl fmt::Display for Pool2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |[a, b]: [usize; 2]| {
            if a == b { format!("{a}") } else { format!("{a}x{b}") }
        };
        let (k, s, p) = (pair(self.kernel), pair(self.stride), pair(self.padding));
        write!(f, "k{k} s{s} p{p}")
    }
}

/// All sizes of one pooling.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub pool: Pool2d,
    /// Batch times channels.
    pub planes: usize,
    /// Height and width of x.
    pub input: [usize; 2],
    /// Height and width of y.
    pub out: [usize; 2],
}

impl Geometry {
    /// From the shapes of x and y, which the shape rule has found to fit.
    pub fn of(pool: Pool2d, x: &Spec, y: &Spec) -> Self {
        let (x, y) = (&x.shape, &y.shape);
        Self { pool, planes: x[0] * x[1], input: [x[2], x[3]], out: [y[2], y[3]] }
    }

    /// Elements of one plane of x.
    pub fn x_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Elements of one plane of y.
    pub fn y_plane(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// The pixels along `axis` that the window at output position `o` covers.
    pub fn window(&self, axis: usize, o: usize) -> Range<usize> {
        let (start, pad) = (o * self.pool.stride[axis], self.pool.padding[axis]);
        let end = (start + self.pool.kernel[axis] - pad).min(self.input[axis]);
        start.saturating_sub(pad)..end
    }

    /// Calls `f(index in a plane of y, rows, columns)` for each window.
    pub fn each_window(&self, mut f: impl FnMut(usize, Range<usize>, Range<usize>)) {
        for i in 0..self.out[0] {
            for j in 0..self.out[1] {
                f(i * self.out[1] + j, self.window(0, i), self.window(1, j));
            }
        }
    }

    /// The sizes as the fast CPU kernels take them.
    pub fn fast(&self) -> PoolShape {
        PoolShape {
            planes: self.planes,
            h_in: self.input[0],
            w_in: self.input[1],
            h_out: self.out[0],
            w_out: self.out[1],
            kernel: self.pool.kernel,
            stride: self.pool.stride,
            padding: self.pool.padding,
        }
    }

    /// The sizes as the shaders know them.
    pub fn consts(&self) -> Vec<(&'static str, Const)> {
        let u = |x: usize| Const::U(x as u32);
        vec![
            ("H_IN", u(self.input[0])),
            ("W_IN", u(self.input[1])),
            ("H_OUT", u(self.out[0])),
            ("W_OUT", u(self.out[1])),
            ("K_H", u(self.pool.kernel[0])),
            ("K_W", u(self.pool.kernel[1])),
            ("STRIDE_H", u(self.pool.stride[0])),
            ("STRIDE_W", u(self.pool.stride[1])),
            ("PAD_H", u(self.pool.padding[0])),
            ("PAD_W", u(self.pool.padding[1])),
        ]
    }
}

/// The samples of both poolings: `make(name, shape of x, window)` records one.
pub(super) fn samples(make: impl Fn(&'static str, &[usize], Pool2d) -> Sample) -> Vec<Sample> {
    let square = Pool2d::square;
    let pool = |kernel, stride, padding| Pool2d { kernel, stride, padding };
    vec![
        make("one pixel", &[1, 1, 1, 1], square(1)),
        make("2x2", &[2, 3, 8, 8], square(2)),
        make("2x2, width of two", &[3, 2, 4, 2], square(2)),
        make("2x2, odd height", &[2, 3, 7, 12], square(2)),
        make("2x2, odd width", &[2, 1, 6, 9], square(2)),
        make("2x2, both odd", &[1, 5, 5, 7], square(2)),
        make("2x2 at stride 1", &[1, 2, 5, 6], Pool2d::new(2, 1, 0)),
        make("3x3 stride 2 pad 1", &[2, 3, 11, 10], Pool2d::new(3, 2, 1)),
        make("3x3 stride 2", &[1, 3, 13, 12], Pool2d::new(3, 2, 0)),
        make("1x1 at stride 3", &[2, 2, 7, 8], Pool2d::new(1, 3, 0)),
        make("gaps between windows", &[1, 3, 9, 11], pool([2, 1], [3, 4], [0, 0])),
        make("uneven everything", &[3, 1, 9, 7], pool([4, 2], [3, 1], [2, 1])),
        make("stride leaves a remainder", &[1, 2, 10, 9], pool([3, 2], [3, 2], [0, 1])),
        make("window as large as the image", &[2, 5, 4, 6], pool([4, 6], [4, 6], [0, 0])),
        make("batch of 65", &[65, 2, 4, 4], square(2)),
        make("more than 65,535 workgroups", &[1, 3, 2366, 1184], square(2)).large(),
        make("more than 65,535 workgroups of outputs", &[1, 1, 2051, 2050], Pool2d::new(3, 1, 1)).large(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_windows_are_refused_in_one_line() {
        let x = Spec::float([1, 1, 4, 4]);
        let refused = |pool: Pool2d, why: &str| {
            let e = pool.infer("max_pool2d", &x).unwrap_err().to_string();
            assert!(e.contains(why) && !e.contains('\n'), "{e}");
        };
        refused(Pool2d::square(0), "from 1 to");
        refused(Pool2d::new(2, 0, 0), "from 1 to");
        refused(Pool2d::square(usize::MAX), "from 1 to");
        refused(Pool2d::new(3, 1, 2), "at most half the kernel");
        refused(Pool2d::new(3, 1, usize::MAX), "at most half the kernel");
        refused(Pool2d::square(5), "larger than the padded image");
        let empty = Spec::float([1, 1, 0, 4]);
        assert!(Pool2d::new(2, 1, 1).infer("max_pool2d", &empty).is_err());
        let flat = Spec::float([4, 4]);
        assert!(Pool2d::square(2).infer("max_pool2d", &flat).is_err());
    }
}
