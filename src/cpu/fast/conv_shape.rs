//! The sizes of a two-dimensional convolution.

/// The sizes of a convolution: input `[n, c_in, h_in, w_in]`, weight `[c_out, c_in / groups, k_h, k_w]`, output
/// `[n, c_out, h_out, w_out]`. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images in the batch.
    pub n: usize,
    /// Input channels.
    pub c_in: usize,
    /// Input height.
    pub h_in: usize,
    /// Input width.
    pub w_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Output height.
    pub h_out: usize,
    /// Output width.
    pub w_out: usize,
    /// Kernel height.
    pub k_h: usize,
    /// Kernel width.
    pub k_w: usize,
    /// Steps of the kernel between neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros put around the input, on both sides.
    pub padding: [usize; 2],
    /// Distance between neighbouring taps of the kernel.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl ConvShape {
    /// Values in the input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.n * self.c_in * self.h_in * self.w_in
    }

    /// Values in the output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.n * self.c_out * self.h_out * self.w_out
    }

    /// Values in the weight.
    #[must_use]
    pub fn weight_len(&self) -> usize {
        self.c_out * self.patch_len()
    }

    /// Values that one output value looks at: the rows of the unfolded input.
    #[must_use]
    pub fn patch_len(&self) -> usize {
        self.c_in / self.groups.max(1) * self.k_h * self.k_w
    }

    /// Floating-point operations of one forward pass; each gradient takes as many.
    #[must_use]
    pub fn flops(&self) -> u64 {
        2 * self.output_len() as u64 * self.patch_len() as u64
    }

    /// Panics unless the sizes belong together by the formula of `torch.nn.Conv2d`.
    pub(super) fn check(&self) {
        let fits = |input: usize, output: usize, kernel: usize, axis: usize| {
            let reach = self.dilation[axis] * kernel.saturating_sub(1) + 1;
            let padded = input + 2 * self.padding[axis];
            kernel > 0
                && self.stride[axis] > 0
                && self.dilation[axis] > 0
                && padded >= reach
                && output == (padded - reach) / self.stride[axis] + 1
        };
        assert!(
            fits(self.h_in, self.h_out, self.k_h, 0)
                && fits(self.w_in, self.w_out, self.k_w, 1)
                && self.groups > 0
                && self.c_in.is_multiple_of(self.groups)
                && self.c_out.is_multiple_of(self.groups),
            "conv2d: the sizes do not belong together: {self:?}"
        );
    }
}
