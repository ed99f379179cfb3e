//! Static shapes of the two ops that cost nearly all the time of a CNN.

use crate::gpu::lower::Const;

/// Shape of a 2-d convolution, NCHW, weight `[c_out, c_in / groups, k_h, k_w]`, as PyTorch's `Conv2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dShape {
    /// Images in the batch.
    pub n: usize,
    /// Input channels.
    pub c_in: usize,
    /// Input height in pixels.
    pub h_in: usize,
    /// Input width in pixels.
    pub w_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Kernel height.
    pub k_h: usize,
    /// Kernel width.
    pub k_w: usize,
    /// Vertical stride.
    pub stride_h: usize,
    /// Horizontal stride.
    pub stride_w: usize,
    /// Rows of zeros above and below.
    pub pad_h: usize,
    /// Columns of zeros left and right.
    pub pad_w: usize,
    /// Distance between the rows that neighbouring taps read.
    pub dil_h: usize,
    /// Distance between the columns that neighbouring taps read.
    pub dil_w: usize,
    /// Channel groups.
    pub groups: usize,
    /// Whether the forward op adds a bias `[c_out]`.
    pub bias: bool,
}

impl Conv2dShape {
    /// Output height, `(h_in + 2 pad_h - dil_h (k_h - 1) - 1) / stride_h + 1`; 0 where the kernel does not fit.
    #[must_use]
    pub fn h_out(&self) -> usize {
        out_size(self.h_in, self.k_h, self.stride_h, self.pad_h, self.dil_h)
    }

    /// Output width, by the same rule.
    #[must_use]
    pub fn w_out(&self) -> usize {
        out_size(self.w_in, self.k_w, self.stride_w, self.pad_w, self.dil_w)
    }

    /// Elements of the input.
    #[must_use]
    pub fn x_len(&self) -> usize {
        self.n * self.c_in * self.h_in * self.w_in
    }

    /// Elements of the weight.
    #[must_use]
    pub fn w_len(&self) -> usize {
        self.c_out * (self.c_in / self.groups) * self.k_h * self.k_w
    }

    /// Elements of the output.
    #[must_use]
    pub fn y_len(&self) -> usize {
        self.n * self.c_out * self.h_out() * self.w_out()
    }

    /// Floating-point operations of one direction: two for each multiply-add, padding included.
    #[must_use]
    pub fn flops(&self) -> f64 {
        2.0 * self.y_len() as f64 * (self.c_in / self.groups * self.k_h * self.k_w) as f64
    }

    /// What the table may choose a convolution kernel by: the fields; the output's size; `macs`, the multiply-adds.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, u64)> {
        let u = |v: usize| v as u64;
        let taps = self.c_in / self.groups.max(1) * self.k_h * self.k_w;
        vec![
            ("n", u(self.n)),
            ("c_in", u(self.c_in)),
            ("h_in", u(self.h_in)),
            ("w_in", u(self.w_in)),
            ("c_out", u(self.c_out)),
            ("h_out", u(self.h_out())),
            ("w_out", u(self.w_out())),
            ("k_h", u(self.k_h)),
            ("k_w", u(self.k_w)),
            ("stride_h", u(self.stride_h)),
            ("stride_w", u(self.stride_w)),
            ("pad_h", u(self.pad_h)),
            ("pad_w", u(self.pad_w)),
            ("dil_h", u(self.dil_h)),
            ("dil_w", u(self.dil_w)),
            ("groups", u(self.groups)),
            ("bias", self.bias.into()),
            ("macs", self.y_len() as u64 * taps as u64),
        ]
    }

    /// The constants that every convolution kernel sees.
    #[must_use]
    pub fn consts(&self) -> Vec<(&'static str, Const)> {
        let u = |v: usize| Const::U(v as u32);
        vec![
            ("N", u(self.n)),
            ("C_IN", u(self.c_in)),
            ("H_IN", u(self.h_in)),
            ("W_IN", u(self.w_in)),
            ("C_OUT", u(self.c_out)),
            ("H_OUT", u(self.h_out())),
            ("W_OUT", u(self.w_out())),
            ("K_H", u(self.k_h)),
            ("K_W", u(self.k_w)),
            ("STRIDE_H", u(self.stride_h)),
            ("STRIDE_W", u(self.stride_w)),
            ("PAD_H", u(self.pad_h)),
            ("PAD_W", u(self.pad_w)),
            ("DIL_H", u(self.dil_h)),
            ("DIL_W", u(self.dil_w)),
            ("GROUPS", u(self.groups)),
            ("BIAS", Const::B(self.bias)),
        ]
    }
}

fn out_size(size: usize, k: usize, stride: usize, pad: usize, dil: usize) -> usize {
    (size + 2 * pad).checked_sub(dil * (k - 1) + 1).map_or(0, |room| room / stride + 1)
}

/// Shape of a linear layer: `y[n, m] = sum_k x[n, k] w[m, k] + bias[m]`, as PyTorch's `Linear`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Rows of the input.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Output features.
    pub m: usize,
    /// Whether the forward op adds a bias `[m]`.
    pub bias: bool,
}

impl LinearShape {
    /// Floating-point operations of one direction.
    #[must_use]
    pub fn flops(&self) -> f64 {
        2.0 * self.n as f64 * self.k as f64 * self.m as f64
    }
}
