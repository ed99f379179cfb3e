//! Sample images as PNG data URIs.

use std::io::Cursor;

use base64::Engine as _;
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

use super::ReportError;
use super::data::SampleImage;

/// The longest side of a sample image; a page with larger ones would not open well.
pub const MAX_SIDE: u32 = 2048;

/// The image as `data:image/png;base64,...`.
///
/// # Errors
/// [`ReportError::Image`] when size, channels and bytes do not fit; [`ReportError::Png`] when encoding fails.
pub fn data_uri(sample: &SampleImage) -> Result<String, ReportError> {
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
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new(&mut png)
        .write_image(&sample.pixels, sample.width, sample.height, colour)
        .map_err(|e| ReportError::Png { name: sample.name.clone(), reason: e.to_string() })?;
    let text = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    Ok(format!("data:image/png;base64,{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(channels: u32, bytes: usize) -> SampleImage {
        SampleImage {
            name: "a.png".into(),
            width: 3,
            height: 2,
            channels,
            pixels: (0..bytes as u32).map(|i| (i * 40) as u8).collect(),
            label: 0,
            probabilities: vec![0.5, 0.5],
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
    fn what_does_not_fit_is_refused() {
        for (channels, bytes) in [(1, 5), (2, 12), (0, 0), (4, 24)] {
            let error = data_uri(&sample(channels, bytes)).unwrap_err().to_string();
            assert!(error.contains("a.png") && !error.contains('\n'), "{error}");
        }
        let huge = SampleImage { width: u32::MAX, height: u32::MAX, ..sample(1, 6) };
        assert!(matches!(data_uri(&huge), Err(ReportError::Image { .. })));
    }
}
