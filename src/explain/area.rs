//! Parts of an image: what of a large layer is kept.

use serde::Serialize;

/// Some rows and columns of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Area {
    /// The first row and column.
    pub start: [usize; 2],
    /// Rows and columns.
    pub size: [usize; 2],
}

impl Area {
    /// All of an image of `[channels, height, width]`.
    #[must_use]
    pub fn whole([_, h, w]: [usize; 3]) -> Self {
        Self { start: [0, 0], size: [h, w] }
    }

    /// `count` rows and columns, or as many as there are, around a pixel.
    #[must_use]
    pub fn around([_, h, w]: [usize; 3], [row, column]: [usize; 2], count: usize) -> Self {
        let axis = |at: usize, n: usize| (at.saturating_sub(count / 2).min(n - count.min(n)), count.min(n));
        let (rows, columns) = (axis(row, h), axis(column, w));
        Self { start: [rows.0, columns.0], size: [rows.1, columns.1] }
    }

    /// Pixels.
    #[must_use]
    pub fn numel(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Where a pixel stands among those of the area, row by row; `None` outside of it.
    #[must_use]
    pub fn at(&self, [row, column]: [usize; 2]) -> Option<usize> {
        let row = row.checked_sub(self.start[0]).filter(|&r| r < self.size[0])?;
        let column = column.checked_sub(self.start[1]).filter(|&c| c < self.size[1])?;
        Some(row * self.size[1] + column)
    }

    /// The area's pixels of an image `width` wide, row by row.
    pub(super) fn cut<'a>(self, plane: &'a [f32], width: usize) -> impl Iterator<Item = f32> + 'a {
        let rows = self.start[0]..self.start[0] + self.size[0];
        rows.flat_map(move |r| plane[r * width + self.start[1]..][..self.size[1]].iter().copied())
    }

    /// The pixels from `low` to `high`, both counted in, as far as the image has them and at least one.
    fn between([_, h, w]: [usize; 3], low: [usize; 2], high: [usize; 2]) -> Self {
        let start = [low[0].min(h - 1), low[1].min(w - 1)];
        let end = [high[0].clamp(start[0], h - 1), high[1].clamp(start[1], w - 1)];
        Self { start, size: [end[0] + 1 - start[0], end[1] + 1 - start[1]] }
    }
}

/// How the window of a convolution moves; each pair is of rows and columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    /// Channels, height and width of what it reads.
    pub x: [usize; 3],
    /// Of what it gives.
    pub y: [usize; 3],
}

impl Windows {
    /// From the first pixel of a window to its last.
    fn reach(&self, k: usize) -> usize {
        (self.kernel[k] - 1) * self.dilation[k]
    }

    /// What the outputs of an area read.
    pub fn sources(&self, y: Area) -> Area {
        let low = [0, 1].map(|k| (y.start[k] * self.stride[k]).saturating_sub(self.padding[k]));
        let last = |k: usize| (y.start[k] + y.size[k] - 1) * self.stride[k] + self.reach(k);
        Area::between(self.x, low, [0, 1].map(|k| last(k).saturating_sub(self.padding[k])))
    }

    /// The outputs that read any pixel of an area.
    pub fn readers(&self, x: Area) -> Area {
        let first = |k: usize| (x.start[k] + self.padding[k]).saturating_sub(self.reach(k)).div_ceil(self.stride[k]);
        let last = |k: usize| (x.start[k] + x.size[k] - 1 + self.padding[k]) / self.stride[k];
        Area::between(self.y, [0, 1].map(first), [0, 1].map(last))
    }
}

/// The largest square around a pixel of `shape` for which `needs` has at most `most` numbers; a single pixel in any case.
pub(super) fn largest(shape: [usize; 3], middle: [usize; 2], most: usize, needs: impl Fn(Area) -> usize) -> Area {
    let area = |count: usize| Area::around(shape, middle, count);
    let fits = (2..=shape[1].max(shape[2])).take_while(|&count| needs(area(count)) <= most).last();
    area(fits.unwrap_or(1))
}

/// The pixel at which value times gradient, summed over the channels, is largest.
pub(super) fn loudest(values: &[f32], gradients: &[f32], [c, h, w]: [usize; 3]) -> [usize; 2] {
    let plane = h * w;
    let at = |p: usize| (0..c).map(|k| f64::from(values[k * plane + p]) * f64::from(gradients[k * plane + p])).sum();
    let best = super::argmax((0..plane).map(at));
    [best / w, best % w]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_stay_inside_and_find_their_pixels() {
        let shape = [3, 5, 9];
        for (middle, count) in [([0, 0], 1), ([4, 8], 3), ([2, 4], 4), ([2, 4], 40)] {
            let area = Area::around(shape, middle, count);
            assert_eq!(area.size, [count.min(5), count.min(9)]);
            assert!(
                area.at(middle).is_some() && area.start[0] + area.size[0] <= 5 && area.start[1] + area.size[1] <= 9
            );
        }
        let plane: Vec<f32> = (0..45).map(|i| i as f32).collect();
        let area = Area { start: [1, 2], size: [2, 3] };
        assert_eq!(area.cut(&plane, 9).collect::<Vec<_>>(), [11.0, 12.0, 13.0, 20.0, 21.0, 22.0]);
        assert_eq!((area.at([2, 3]), area.at([0, 3]), area.at([2, 5])), (Some(4), None, None));
    }

    /// Against a look at every pixel.
    #[test]
    fn sources_and_readers_are_those_of_the_windows() {
        for (kernel, stride, padding, dilation) in
            [(3, 1, 1, 1), (3, 2, 1, 1), (1, 2, 0, 1), (2, 3, 2, 2), (7, 2, 3, 1)]
        {
            let n = 17;
            let out = (n + 2 * padding - (kernel - 1) * dilation - 1) / stride + 1;
            let windows = Windows {
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [padding; 2],
                dilation: [dilation; 2],
                x: [1, n, n],
                y: [1, out, out],
            };
            let reads = |i: usize, p: usize| (0..kernel).any(|k| i * stride + k * dilation == p + padding);
            for (start, size) in [(0, 1), (1, 2), (0, out), (out - 1, 1)] {
                let of = windows.sources(Area { start: [start; 2], size: [size; 2] });
                for p in (0..n).filter(|&p| (start..start + size).any(|i| reads(i, p))) {
                    assert!(of.at([p, p]).is_some(), "{windows:?} {start} {size} {p}");
                }
            }
            for (start, size) in [(0, 1), (5, 3), (0, n), (n - 1, 1)] {
                let of = windows.readers(Area { start: [start; 2], size: [size; 2] });
                for i in (0..out).filter(|&i| (start..start + size).any(|p| reads(i, p))) {
                    assert!(of.at([i, i]).is_some(), "{windows:?} {start} {size} {i}");
                }
            }
        }
    }
}
