//! Unfolding an image into the columns that a convolution multiplies, and its adjoint.
//!
//! Row `(c, kh, kw)` of the unfolded block holds, for each output pixel, the input value under tap `(kh, kw)` of channel
//! `c`; a convolution is then a product of matrices (Chellapilla, Puri and Simard, "High Performance Convolutional Neural
//! Networks for Document Processing", 2006). Only a block of pixels is unfolded at a time, so that it stays in cache.

use std::ops::Range;

/// How output pixels look at an input plane. Axis 0 is the height.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Input height and width.
    pub(super) input: [usize; 2],
    /// Output height and width.
    pub(super) output: [usize; 2],
    /// Kernel height and width.
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    /// Negative where an input gradient leaves out the rim.
    pub(super) padding: [isize; 2],
    pub(super) dilation: [usize; 2],
}

impl Window {
    pub(super) fn pixels_in(&self) -> usize {
        self.input[0] * self.input[1]
    }

    pub(super) fn pixels_out(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Whether unfolding would only copy: one tap on each pixel.
    pub(super) fn is_identity(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// Input position minus `stride` times output position, under tap `tap` of `axis`.
    fn shift(&self, axis: usize, tap: usize) -> isize {
        (tap * self.dilation[axis]) as isize - self.padding[axis]
    }

    /// The output positions of `axis` whose input under tap `tap` lies inside the image.
    fn inside(&self, axis: usize, tap: usize) -> Range<usize> {
        let (stride, shift) = (self.stride[axis] as isize, self.shift(axis, tap));
        // ceil(d / stride) for any sign of d.
        let first_at_least = |d: isize| (d + stride - 1).div_euclid(stride);
        let limit = self.output[axis] as isize;
        let low = first_at_least(-shift).clamp(0, limit);
        let high = first_at_least(self.input[axis] as isize - shift).clamp(low, limit);
        low as usize..high as usize
    }

    /// The rows of pixel block `pixels`: row number, and the columns of that row that the block holds.
    fn rows(&self, pixels: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + Clone {
        let (width, pixels) = (self.output[1], pixels.clone());
        (pixels.start / width..pixels.end.div_ceil(width)).map(move |row| {
            let start = row * width;
            (row, pixels.start.max(start) - start..pixels.end.min(start + width) - start)
        })
    }

    /// Fills `columns[row * pitch + i]` with the input under tap `row` of output pixel `pixels.start + i`.
    ///
    /// `planes` holds whole input planes; there are as many taps as planes times kernel size.
    pub(super) fn unfold(&self, planes: &[f32], pixels: &Range<usize>, columns: &mut [f32], pitch: usize) {
        let whole_rows = self.stride == [1, 1] && self.output[1] == self.input[1];
        let taps = self.kernel[0] * self.kernel[1];
        let rows = self.rows(pixels);
        for tap in 0..taps {
            // What depends on the tap alone is found once for all planes.
            let view = self.tap(tap / self.kernel[1], tap % self.kernel[1]);
            for (i, plane) in planes.chunks(self.pixels_in()).enumerate() {
                let out = &mut columns[(i * taps + tap) * pitch..][..pixels.len()];
                if whole_rows {
                    self.unfold_shifted(plane, &view, pixels, rows.clone(), out);
                } else {
                    self.unfold_row(plane, &view, rows.clone(), out);
                }
            }
        }
    }

    fn tap(&self, kh: usize, kw: usize) -> Tap {
        Tap { shift: [self.shift(0, kh), self.shift(1, kw)], inside: [self.inside(0, kh), self.inside(1, kw)] }
    }

    /// Stride 1 and an output as wide as the input: the taps of all pixels are one shifted copy of the plane, in
    /// which the pixels that look past the left or right rim are then cleared.
    fn unfold_shifted(
        &self,
        plane: &[f32],
        tap: &Tap,
        pixels: &Range<usize>,
        rows: impl Iterator<Item = (usize, Range<usize>)>,
        out: &mut [f32],
    ) {
        let width = self.output[1];
        let shift = tap.shift[0] * width as isize + tap.shift[1];
        let [inside_y, inside_x] = &tap.inside;
        // The pixels whose shifted position is in the plane at all.
        let low = (inside_y.start * width).max(shift.min(0).unsigned_abs());
        let high = (plane.len() as isize - shift).clamp(0, (inside_y.end * width) as isize) as usize;
        let low = low.clamp(pixels.start, pixels.end);
        let high = high.clamp(low, pixels.end);
        out[..low - pixels.start].fill(0.0);
        out[high - pixels.start..].fill(0.0);
        if low < high {
            let from = (low as isize + shift) as usize;
            out[low - pixels.start..high - pixels.start].copy_from_slice(&plane[from..from + high - low]);
        }
        if inside_x.len() == width {
            return;
        }
        let mut rest = out;
        for (_, block) in rows {
            let (out, after) = rest.split_at_mut(block.len());
            rest = after;
            // The rim is narrow as a rule: a loop is quicker than a call to fill memory.
            for column in block.start..inside_x.start.min(block.end) {
                out[column - block.start] = 0.0;
            }
            for column in inside_x.end.max(block.start)..block.end {
                out[column - block.start] = 0.0;
            }
        }
    }

    fn unfold_row(&self, plane: &[f32], tap: &Tap, rows: impl Iterator<Item = (usize, Range<usize>)>, out: &mut [f32]) {
        let mut rest = out;
        for (row, block) in rows {
            let (out, after) = rest.split_at_mut(block.len());
            rest = after;
            let Some((source, seen)) = self.source(tap, row, &block) else {
                out.fill(0.0);
                continue;
            };
            out[..seen.start].fill(0.0);
            out[seen.end..].fill(0.0);
            let (out, source) = (&mut out[seen], &plane[source]);
            if self.stride[1] == 1 {
                out.copy_from_slice(&source[..out.len()]);
            } else {
                for (out, value) in out.iter_mut().zip(source.iter().step_by(self.stride[1])) {
                    *out = *value;
                }
            }
        }
    }

    /// What a tap sees from columns `block` of an output row: the part of the plane from the first value seen to the end of
    /// its row, and which columns see anything, counted from the start of `block`. `None` where none does.
    fn source(&self, tap: &Tap, row: usize, block: &Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
        let low = tap.inside[1].start.clamp(block.start, block.end);
        let high = tap.inside[1].end.clamp(low, block.end);
        if !tap.inside[0].contains(&row) || low == high {
            return None;
        }
        let at = |axis: usize, out: usize| ((out * self.stride[axis]) as isize + tap.shift[axis]) as usize;
        let start = at(0, row) * self.input[1];
        let source = start + at(1, low)..start + self.input[1];
        Some((source, low - block.start..high - block.start))
    }

    /// The adjoint of [`Window::unfold`]: adds each column value to the input pixel that it was taken from.
    pub(super) fn fold_add(&self, columns: &[f32], pitch: usize, pixels: &Range<usize>, planes: &mut [f32]) {
        let taps = self.kernel[0] * self.kernel[1];
        let rows = self.rows(pixels);
        for tap in 0..taps {
            let view = self.tap(tap / self.kernel[1], tap % self.kernel[1]);
            for (i, plane) in planes.chunks_mut(self.pixels_in()).enumerate() {
                let mut rest = &columns[(i * taps + tap) * pitch..][..pixels.len()];
                for (row, block) in rows.clone() {
                    let (values, after) = rest.split_at(block.len());
                    rest = after;
                    let Some((target, seen)) = self.source(&view, row, &block) else {
                        continue;
                    };
                    let (target, values) = (&mut plane[target], &values[seen]);
                    if self.stride[1] == 1 {
                        target.iter_mut().zip(values).for_each(|(t, v)| *t += v);
                    } else {
                        let target = target.iter_mut().step_by(self.stride[1]);
                        target.zip(values).for_each(|(t, v)| *t += v);
                    }
                }
            }
        }
    }
}

/// How one tap of the kernel looks at a plane. Axis 0 is the height.
struct Tap {
    /// Input position minus `stride` times output position.
    shift: [isize; 2],
    /// The output positions whose input lies inside the image.
    inside: [Range<usize>; 2],
}

/// Values of an unfolded block that stay in the second-level cache beside the weights and the result.
const BLOCK_VALUES: usize = 96 * 1024;
/// Images with fewer pixels than this are unfolded several at a time.
const FEW_PIXELS: usize = 192;

/// How the pixels of a batch are cut into unfolded blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocks {
    /// One image at a time, that many pixels at a time.
    Pixels(usize),
    /// That many whole images side by side, because one has too few pixels to keep the product busy.
    Images(usize),
}

impl Blocks {
    /// The cut for images of `pixels` output pixels with `taps` rows in the unfolded block.
    pub(super) fn choose(pixels: usize, taps: usize, most_pixels: usize) -> Self {
        if pixels < FEW_PIXELS {
            return Self::Images((4 * FEW_PIXELS / 3).div_ceil(pixels.max(1)));
        }
        Self::Pixels((BLOCK_VALUES / taps.max(1) / 64 * 64).clamp(64, most_pixels))
    }
}
