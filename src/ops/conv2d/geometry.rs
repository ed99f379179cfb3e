//! The parameters of a convolution and the walk over its taps.

use std::fmt;

use crate::gpu::conv::Conv2dShape;
use crate::shape::{ShapeError, Spec};

/// Stride, padding, dilation (each `[height, width]`) and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Step of the window.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub padding: [usize; 2],
    /// Distance of the taps.
    pub dilation: [usize; 2],
    /// Channels are split into this many independent convolutions.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Conv2d {
    /// Stride 1 and padding that keeps the size, for an odd square kernel.
    #[must_use]
    pub fn same(kernel: usize) -> Self {
        Self { padding: [kernel / 2; 2], ..Self::default() }
    }

    /// Output size along an axis; `None` where the kernel does not fit.
    #[must_use]
    pub fn extent(&self, axis: usize, input: usize, kernel: usize) -> Option<usize> {
        let reach = self.dilation[axis].checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
        let padded = input.checked_add(self.padding[axis].checked_mul(2)?)?;
        Some(padded.checked_sub(reach)? / self.stride[axis] + 1)
    }

    pub(super) fn check(&self, input: &Spec) -> Result<(), ShapeError> {
        let zero = self.stride.contains(&0) || self.dilation.contains(&0) || self.groups == 0;
        if zero {
            return Err(ShapeError::invalid("conv2d", "stride, dilation and groups must be at least 1", input));
        }
        Ok(())
    }
}

impl fmt::Display for Conv2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |[a, b]: [usize; 2]| {
            if a == b { format!("{a}") } else { format!("{a}x{b}") }
        };
        write!(f, "s{} p{}", pair(self.stride), pair(self.padding))?;
        if self.dilation != [1, 1] {
            write!(f, " d{}", pair(self.dilation))?;
        }
        if self.groups != 1 {
            write!(f, " g{}", self.groups)?;
        }
        Ok(())
    }
}

/// All sizes of one convolution.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Parameters.
    pub conv: Conv2d,
    /// Batch.
    pub n: usize,
    /// Input channels.
    pub c_in: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Output channels.
    pub c_out: usize,
    /// Output height and width.
    pub out: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
}

impl Geometry {
    /// From the shapes of x, w and y, which the shape rule has found to fit.
    #[must_use]
    pub fn of(conv: &Conv2d, x: &Spec, w: &Spec, y: &Spec) -> Self {
        let (x, w, y) = (&x.shape, &w.shape, &y.shape);
        Self {
            conv: conv.clone(),
            n: x[0],
            c_in: x[1],
            input: [x[2], x[3]],
            c_out: y[1],
            out: [y[2], y[3]],
            kernel: [w[2], w[3]],
        }
    }

    /// Elements of one input channel.
    #[must_use]
    pub fn x_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// The sizes as the GPU kernels take them.
    #[must_use]
    pub fn shape(&self, bias: bool) -> Conv2dShape {
        Conv2dShape {
            n: self.n,
            c_in: self.c_in,
            h_in: self.input[0],
            w_in: self.input[1],
            c_out: self.c_out,
            k_h: self.kernel[0],
            k_w: self.kernel[1],
            stride_h: self.conv.stride[0],
            stride_w: self.conv.stride[1],
            pad_h: self.conv.padding[0],
            pad_w: self.conv.padding[1],
            dil_h: self.conv.dilation[0],
            dil_w: self.conv.dilation[1],
            groups: self.conv.groups,
            bias,
        }
    }

    /// The sizes as the fast CPU kernels take them.
    #[must_use]
    pub fn fast(&self) -> crate::cpu::fast::ConvShape {
        crate::cpu::fast::ConvShape {
            n: self.n,
            c_in: self.c_in,
            h_in: self.input[0],
            w_in: self.input[1],
            c_out: self.c_out,
            h_out: self.out[0],
            w_out: self.out[1],
            k_h: self.kernel[0],
            k_w: self.kernel[1],
            stride: self.conv.stride,
            padding: self.conv.padding,
            dilation: self.conv.dilation,
            groups: self.conv.groups,
        }
    }

    /// Calls `f(input channel, [k, l], index of the weight)` for each weight of output channel `o`.
    pub fn each_tap(&self, o: usize, mut f: impl FnMut(usize, [usize; 2], usize)) {
        let per_group = self.c_in / self.conv.groups;
        let group = o / (self.c_out / self.conv.groups);
        let [kh, kw] = self.kernel;
        for c in 0..per_group {
            for k in 0..kh {
                for l in 0..kw {
                    f(group * per_group + c, [k, l], ((o * per_group + c) * kh + k) * kw + l);
                }
            }
        }
    }

    /// Calls `f(index in a plane of y, index in a plane of x)` for each pair that tap `[k, l]` joins.
    pub fn each_pair(&self, [k, l]: [usize; 2], mut f: impl FnMut(usize, usize)) {
        let at = |axis: usize, o: usize, tap: usize| {
            (o * self.conv.stride[axis] + tap * self.conv.dilation[axis])
                .checked_sub(self.conv.padding[axis])
                .filter(|&i| i < self.input[axis])
        };
        for i in 0..self.out[0] {
            let Some(row) = at(0, i, k) else { continue };
            for j in 0..self.out[1] {
                if let Some(column) = at(1, j, l) {
                    f(i * self.out[1] + j, row * self.input[1] + column);
                }
            }
        }
    }
}
