//! Pictures as PNG data URIs.

use std::io::Cursor;

use base64::Engine as _;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};

use super::ReportError;
use super::data::Picture;

/// The longest side of a picture that is taken.
pub const MAX_SIDE: u32 = 2048;
/// The longest side of a picture on a page; a page with larger ones would not open well.
const SHOWN: u32 = 160;

/// The picture as `data:image/png;base64,...`. One longer than 160 pixels is shrunk by a whole number, each pixel the mean of a
/// square.
///
/// # Errors
/// [`ReportError::Image`] when size, channels and bytes do not fit; [`ReportError::Png`] when encoding fails.
pub fn data_uri(sample: &Picture) -> Result<String, ReportError> {
    let colour = match sample.channels {
        1 => Some(ExtendedColorType::L8),
        3 => Some(ExtendedColorType::Rgb8),
        _ => None,
    };
    let sides = 1..=MAX_SIDE;
    // In range, so that the product is far below 2^64.
    let fits = sides.contains(&sample.width)
        && sides.contains(&sample.height)
        && u64::from(sample.width) * u64::from(sample.height) * u64::from(sample.channels)
            == sample.pixels.len() as u64;
    let (Some(colour), true) = (colour, fits) else {
        return Err(ReportError::Image {
            name: sample.name.clone(),
            width: sample.width,
            height: sample.height,
            channels: sample.channels,
            bytes: sample.pixels.len(),
            max: MAX_SIDE,
        });
    };
    let shrunk = shrink(sample);
    let (pixels, width, height) =
        shrunk.as_ref().map_or((&sample.pixels, sample.width, sample.height), |s| (&s.0, s.1, s.2));
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut png, CompressionType::Best, FilterType::Adaptive)
        .write_image(pixels, width, height, colour)
        .map_err(|e| ReportError::Png { name: sample.name.clone(), reason: e.to_string() })?;
    let text = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    Ok(format!("data:image/png;base64,{text}"))
}

/// Pixels, width and height of a picture that is too large for a page, made smaller; `None` for others.
fn shrink(p: &Picture) -> Option<(Vec<u8>, u32, u32)> {
    let step = p.width.max(p.height).div_ceil(SHOWN);
    if step <= 1 {
        return None;
    }
    let (width, height) = (p.width.div_ceil(step), p.height.div_ceil(step));
    let mut out = Vec::with_capacity((width * height * p.channels) as usize);
    for y in 0..height {
        for x in 0..width {
            let rows = y * step..((y + 1) * step).min(p.height);
            let columns = x * step..((x + 1) * step).min(p.width);
            let count = rows.len() * columns.len();
            for c in 0..p.channels {
                let sum: usize = rows
                    .clone()
                    .flat_map(|i| columns.clone().map(move |j| ((i * p.width + j) * p.channels + c) as usize))
                    .map(|at| usize::from(p.pixels[at]))
                    .sum();
                out.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    Some((out, width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(channels: u32, bytes: usize) -> Picture {
        Picture {
            name: "a.png".into(),
            width: 3,
            height: 2,
            channels,
            pixels: (0..bytes as u32).map(|i| (i * 40) as u8).collect(),
        }
    }

    #[test]
    fn the_png_holds_the_pixels() {
        for (channels, bytes) in [(1, 6), (3, 18)] {
            let uri = data_uri(&sample(channels, bytes)).unwrap();
            let text = uri.strip_prefix("data:image/png;base64,").unwrap();
            let png = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            let back = image::load_from_memory(&png).unwrap();
            assert_eq!((back.width(), back.height()), (3, 2));
            assert_eq!(back.as_bytes(), sample(channels, bytes).pixels);
        }
    }

    #[test]
    fn large_pictures_are_shrunk_to_their_means() {
        // 161 wide: squares of two, the last column one pixel wide.
        let pixels = (0..161 * 3).flat_map(|i| [if i % 161 % 2 == 0 { 10 } else { 21 }, 200, 7]).collect();
        let large = Picture { name: "l".into(), width: 161, height: 3, channels: 3, pixels };
        let (pixels, width, height) = shrink(&large).unwrap();
        assert_eq!((width, height, pixels.len()), (81, 2, 81 * 2 * 3));
        assert_eq!((&pixels[..3], &pixels[80 * 3..81 * 3]), (&[16, 200, 7][..], &[10, 200, 7][..]));
        assert_eq!(shrink(&sample(1, 6)), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (channels, bytes) in [(1, 5), (2, 12), (0, 0), (4, 24)] {
            let error = data_uri(&sample(channels, bytes)).unwrap_err().to_string();
            assert!(error.contains("a.png") && !error.contains('\n'), "{error}");
        }
        let huge = Picture { width: u32::MAX, height: u32::MAX, ..sample(1, 6) };
        assert!(matches!(data_uri(&huge), Err(ReportError::Image { .. })));
    }
}
