//! Contact sheets: pictures in rows and columns, as one PNG.

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

use super::ReportError;

/// Pixels between two pictures.
const GAP: usize = 4;
/// Pixels between the first column and the others.
const FIRST_GAP: usize = 16;
/// Grey between the pictures: neither black nor white, so that a seam at a border shows.
const GROUND: u8 = 128;
/// The most pixels of a sheet.
const MOST: usize = 1 << 26;

/// Pictures of one size in rows of one length. The first column is what the others are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Height and width of a picture.
    pub size: [usize; 2],
    /// How often each pixel is repeated along both axes.
    pub scale: usize,
    /// Each picture `[channels, height, width]`.
    pub rows: Vec<Vec<Vec<u8>>>,
}

impl Sheet {
    /// Height and width in pixels.
    #[must_use]
    pub fn pixels(&self) -> [usize; 2] {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let [h, w] = self.size.map(|s| s * self.scale + GAP);
        let first = if columns > 1 { FIRST_GAP - GAP } else { 0 };
        [GAP + h * self.rows.len(), GAP + w * columns + first]
    }

    /// The sheet as a PNG file.
    ///
    /// # Errors
    /// [`ReportError::Sheet`] when it would be empty or too large, a picture has another size, or encoding fails.
    pub fn png(&self) -> Result<Vec<u8>, ReportError> {
        let fail = |problem: String| Err(ReportError::Sheet { problem });
        let [height, width] = self.pixels();
        let [h, w] = self.size;
        let one = self.channels * h * w;
        if one == 0 || self.scale == 0 || self.rows.iter().all(Vec::is_empty) {
            return fail("it has no pictures".to_owned());
        }
        if self.rows.iter().flatten().any(|p| p.len() != one) {
            return fail(format!("not all pictures have {one} bytes"));
        }
        if height.saturating_mul(width) > MOST {
            return fail(format!("{height}x{width} pixels are too many; show fewer images, or smaller ones"));
        }
        let mut out = vec![GROUND; height * width * self.channels];
        for (r, row) in self.rows.iter().enumerate() {
            for (k, picture) in row.iter().enumerate() {
                let top = GAP + r * (h * self.scale + GAP);
                let left = GAP + k * (w * self.scale + GAP) + if k > 0 { FIRST_GAP - GAP } else { 0 };
                for i in 0..h * self.scale {
                    for j in 0..w * self.scale {
                        let from = i / self.scale * w + j / self.scale;
                        let to = ((top + i) * width + left + j) * self.channels;
                        for c in 0..self.channels {
                            out[to + c] = picture[c * h * w + from];
                        }
                    }
                }
            }
        }
        let colour = if self.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let mut png = Cursor::new(Vec::new());
        PngEncoder::new(&mut png)
            .write_image(&out, width as u32, height as u32, colour)
            .map_err(|e| ReportError::Sheet { problem: format!("cannot be written as PNG: {e}") })?;
        Ok(png.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lie_where_they_should() {
        let picture = |v: u8| vec![v, v + 1, v + 2, v + 3, v + 4, v + 5];
        let sheet = Sheet {
            channels: 1,
            size: [2, 3],
            scale: 2,
            rows: vec![vec![picture(10), picture(20)], vec![picture(30), picture(40)]],
        };
        let png = image::load_from_memory(&sheet.png().unwrap()).unwrap().into_luma8();
        assert_eq!((png.height(), png.width()), (4 + 8 + 8, 4 + 10 + 10 + 12));
        for (x, y, want) in [(4, 4, 10), (5, 5, 10), (9, 7, 15), (26, 4, 20), (31, 7, 25), (4, 12, 30), (26, 15, 43)] {
            assert_eq!(png.get_pixel(x, y).0[0], want, "({x}, {y})");
        }
        for (x, y) in [(0, 0), (10, 5), (25, 5), (5, 8), (32, 5), (35, 19)] {
            assert_eq!(png.get_pixel(x, y).0[0], GROUND, "({x}, {y})");
        }
    }

    #[test]
    fn colours_stay_together_and_what_does_not_fit_is_refused() {
        let sheet = Sheet { channels: 3, size: [1, 1], scale: 1, rows: vec![vec![vec![1, 2, 3]]] };
        let png = image::load_from_memory(&sheet.png().unwrap()).unwrap().into_rgb8();
        assert_eq!(png.get_pixel(4, 4).0, [1, 2, 3]);
        for wrong in [
            Sheet { rows: Vec::new(), ..sheet.clone() },
            Sheet { rows: vec![vec![vec![1, 2]]], ..sheet.clone() },
            Sheet { scale: 1 << 20, ..sheet.clone() },
        ] {
            let error = wrong.png().unwrap_err().to_string();
            assert!(error.starts_with("contact sheet: "), "{error}");
        }
    }
}
