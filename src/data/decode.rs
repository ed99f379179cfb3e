//! From the bytes of an image file to `C*H*W` bytes of one size.
//!
//! - Grey is luma by ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B, in 16-bit fixed point as Pillow computes it), taken
//!   before resizing. RGB of a grey file is the grey value three times.
//! - 16-bit values are divided by 257, floating-point ones are cut to [0, 1]. Alpha is laid on black, which is what
//!   surrounds a radiograph. The rotation that an EXIF tag asks for is carried out.
//! - Resizing is bilinear (a triangle as wide as the step between output pixels, so that shrinking averages and does
//!   not alias), as PyTorch's `antialias=True` and Pillow's `BILINEAR`. The aspect ratio is not kept.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::error::{DataError, one_line};

/// The largest file that is read.
pub const MAX_FILE: u64 = 256 << 20;
/// The largest width or height that is decoded.
pub const MAX_SIDE: u32 = 20_000;
/// The most memory that decoding one file may take, in bytes.
pub const MAX_DECODED: u64 = 512 << 20;

/// Pictures that take more than this are decoded one at a time, whatever the number of threads: a folder of a few small files could
/// otherwise ask for [`MAX_DECODED`] on each.
const LARGE: u64 = 64 << 20;

/// Held while a large picture is decoded.
static ONE_LARGE: Mutex<()> = Mutex::new(());

/// The bytes of a file, and what they are the bytes of.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let meta = std::fs::metadata(path).map_err(|e| one_line(&e.to_string()))?;
    if meta.is_dir() {
        return Err("a folder, not an image".into());
    }
    if !meta.is_file() {
        // A pipe or a device would block or never end.
        return Err("not a regular file".into());
    }
    if meta.len() > MAX_FILE {
        return Err(format!("{} bytes, more than the {MAX_FILE} that are read", meta.len()));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
    let file = File::open(path).map_err(|e| one_line(&e.to_string()))?;
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|e| one_line(&e.to_string()))?;
    Ok(bytes)
}

/// A decoded file before resizing: `height * width` pixels of `channels` interleaved bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 or 3.
    pub channels: usize,
    /// How the file stores its pixels: `L8`, `Rgb8`, `La16`, ...
    pub mode: String,
    /// Interleaved bytes.
    pub pixels: Vec<u8>,
}

/// Decodes JPEG, PNG, GIF (first frame), BMP, TIFF (first page) or WebP, whatever the file is called.
///
/// # Errors
/// The reason, in one line, when the bytes are no such image, are damaged, or describe an image beyond the limits.
pub fn decode(bytes: &[u8], channels: usize) -> Result<Picture, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    // Image decoders are many lines of other people's code that read hostile bytes: one that panics costs one image.
    match catch_unwind(AssertUnwindSafe(|| decode_inner(bytes, channels))) {
        Ok(result) => result.map_err(|e| one_line(&e)),
        Err(_) => Err("the decoder gave up on damaged data".into()),
    }
}

fn decode_inner(bytes: &[u8], channels: usize) -> Result<Picture, String> {
    let text = |e: image::ImageError| e.to_string();
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err("not a JPEG, PNG, GIF, BMP, TIFF or WebP image".into());
    }
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (w, h) = decoder.dimensions();
    if w == 0 || h == 0 {
        return Err("an image without pixels".into());
    }
    limits.reserve(decoder.total_bytes()).map_err(text)?;
    // A decoder that panicked under it has left nothing behind that others could see.
    let _alone = (decoder.total_bytes() > LARGE).then(|| ONE_LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    decoder.set_limits(limits).map_err(text)?;
    let mode = format!("{:?}", decoder.original_color_type());
    let orientation = decoder.orientation().map_err(text)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(text)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    let pixels = match (channels, image) {
        (1, DynamicImage::ImageLuma8(grey)) => grey.into_raw(),
        (1, DynamicImage::ImageLuma16(grey)) => grey.into_raw().into_iter().map(|v| narrow(v.into())).collect(),
        (3, DynamicImage::ImageRgb8(rgb)) => rgb.into_raw(),
        (1, DynamicImage::ImageRgb8(rgb)) => rgb.as_raw().as_chunks::<3>().0.iter().map(|&p| luma(p)).collect(),
        (_, image) if image.color().has_alpha() => {
            let rgb = image.to_rgba8().pixels().map(|p| over_black(p.0)).collect::<Vec<_>>();
            if channels == 1 { rgb.into_iter().map(luma).collect() } else { rgb.into_flattened() }
        }
        (1, image) => image.to_rgb8().as_raw().as_chunks::<3>().0.iter().map(|&p| luma(p)).collect(),
        (_, image) => image.to_rgb8().into_raw(),
    };
    Ok(Picture { width, height, channels, mode, pixels })
}

/// 16 bits to 8, rounded: v / 257.
fn narrow(v: u32) -> u8 {
    ((v + 128) / 257) as u8
}

/// BT.601 luma of 8-bit RGB. The weights add up to 65,536, so that grey stays what it is.
pub(crate) fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

fn over_black([r, g, b, a]: [u8; 4]) -> [u8; 3] {
    [r, g, b].map(|v| ((u32::from(v) * u32::from(a) + 127) / 255) as u8)
}

/// Resizes interleaved pixels to `size` (height, width) and writes them channel by channel into `out` (`C*H*W`).
///
/// # Errors
/// The reason, in one line, where the picture does not hold what its sizes say.
pub(crate) fn resize_into(
    resizer: &mut Resizer,
    picture: (&[u8], u32, u32, usize),
    size: (usize, usize),
    out: &mut [u8],
) -> Result<(), String> {
    let (pixels, width, height, channels) = picture;
    let (h, w) = size;
    if (width as usize, height as usize) == (w, h) {
        return interleaved_to_planes(pixels, channels, out);
    }
    let (from, to) = ((pixels, width, height), (w as u32, h as u32));
    if channels == 1 {
        return resize::<U8>(resizer, from, to, out);
    }
    let mut interleaved = vec![0; out.len()];
    resize::<U8x3>(resizer, from, to, &mut interleaved)?;
    interleaved_to_planes(&interleaved, channels, out)
}

/// For one type of pixel: what the crate has for the others, tables of half a megabyte among it, then stays out of the program.
fn resize<P: PixelTrait>(
    resizer: &mut Resizer,
    (pixels, width, height): (&[u8], u32, u32),
    (w, h): (u32, u32),
    out: &mut [u8],
) -> Result<(), String> {
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    let from = TypedImageRef::<P>::from_buffer(width, height, pixels).map_err(|e| e.to_string())?;
    let mut to = TypedImage::<P>::from_buffer(w, h, out).map_err(|e| e.to_string())?;
    resizer.resize_typed(&from, &mut to, &options).map_err(|e| e.to_string())
}

fn interleaved_to_planes(pixels: &[u8], channels: usize, out: &mut [u8]) -> Result<(), String> {
    if pixels.len() != out.len() {
        return Err(format!("{} bytes of pixels where {} belong", pixels.len(), out.len()));
    }
    let plane = (out.len() / channels).max(1);
    for (c, to) in out.chunks_exact_mut(plane).enumerate() {
        for (p, v) in to.iter_mut().enumerate() {
            *v = pixels[p * channels + c];
        }
    }
    Ok(())
}

/// Reads one image file as the network wants it: `channels * height * width` bytes, channel by channel.
///
/// # Errors
/// [`DataError::Unreadable`] with the file and the reason; [`DataError::Options`] for a size or channel count out of
/// range.
pub fn read_image(path: &Path, size: (usize, usize), channels: usize) -> Result<Vec<u8>, DataError> {
    let bytes = read_file(path).map_err(|reason| DataError::Unreadable { path: path.to_owned(), reason })?;
    image_from_bytes(path, &bytes, size, channels)
}

/// As [`read_image`], of a file that was read already; messages name `path`.
///
/// # Errors
/// As [`read_image`].
pub fn image_from_bytes(
    path: &Path,
    bytes: &[u8],
    size: (usize, usize),
    channels: usize,
) -> Result<Vec<u8>, DataError> {
    super::check_size(size, channels)?;
    let unreadable = |reason| DataError::Unreadable { path: path.to_owned(), reason };
    let p = decode(bytes, channels).map_err(unreadable)?;
    let mut out = vec![0; channels * size.0 * size.1];
    resize_into(&mut Resizer::new(), (&p.pixels, p.width, p.height, channels), size, &mut out).map_err(unreadable)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Luma, LumaA, Rgb, Rgba};

    fn bytes(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.into().write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    fn pixel(image: impl Into<DynamicImage>, channels: usize) -> Vec<u8> {
        decode(&bytes(image, ImageFormat::Png), channels).unwrap().pixels
    }

    #[test]
    fn every_colour_mode_becomes_grey_or_rgb() {
        let one = |p: [u8; 3]| image::RgbImage::from_pixel(1, 1, Rgb(p));
        assert_eq!(pixel(one([255, 0, 0]), 1), [76]);
        assert_eq!(pixel(one([0, 255, 0]), 1), [150]);
        assert_eq!(pixel(one([0, 0, 255]), 1), [29]);
        assert_eq!(pixel(one([1, 2, 3]), 3), [1, 2, 3]);
        for v in 0..=255 {
            assert_eq!(pixel(one([v; 3]), 1), [v], "grey stays what it is");
        }
        let grey16 = |v: u16| image::ImageBuffer::<Luma<u16>, _>::from_pixel(1, 1, Luma([v]));
        assert_eq!((pixel(grey16(0xffff), 1), pixel(grey16(257 * 9 + 129), 1)), (vec![255], vec![10]));
        assert_eq!(pixel(grey16(257 * 9), 3), [9; 3]);
        let alpha = image::RgbaImage::from_pixel(1, 1, Rgba([200, 100, 50, 128]));
        assert_eq!(pixel(alpha, 3), [100, 50, 25]);
        let clear = image::GrayAlphaImage::from_pixel(1, 1, LumaA([200, 0]));
        assert_eq!(pixel(clear, 1), [0]);
        let rgb16 = image::ImageBuffer::<Rgb<u16>, _>::from_pixel(1, 1, Rgb([0xffff, 0, 257]));
        assert_eq!(pixel(rgb16, 3), [255, 0, 1]);
    }

    #[test]
    fn every_format_is_read_whatever_its_name() {
        let image = image::RgbImage::from_fn(9, 7, |x, y| Rgb([(x * 20) as u8, (y * 30) as u8, 90]));
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
            let p = decode(&bytes(image.clone(), format), 3).unwrap();
            assert_eq!((p.width, p.height, &p.pixels), (9, 7, image.as_raw()), "{format:?}");
        }
        for format in [ImageFormat::Jpeg, ImageFormat::Gif] {
            let p = decode(&bytes(image.clone(), format), 3).unwrap();
            assert_eq!((p.width, p.height), (9, 7), "{format:?}");
        }
    }

    #[test]
    fn shrinking_averages() {
        // Stripes of one pixel would alias to black or white; an antialiased filter gives their mean.
        let stripes: Vec<u8> = (0..64 * 64).map(|i| if i % 2 == 0 { 0 } else { 255 }).collect();
        let mut out = vec![0; 8 * 8];
        resize_into(&mut Resizer::new(), (&stripes, 64, 64, 1), (8, 8), &mut out).unwrap();
        assert!(out.iter().all(|v| (120..=135).contains(v)), "{out:?}");
        // A constant stays constant, channel by channel, up and down.
        let flat: Vec<u8> = [7, 130, 255].repeat(30);
        for size in [(3, 2), (50, 41)] {
            let mut out = vec![0; 3 * size.0 * size.1];
            resize_into(&mut Resizer::new(), (&flat, 6, 5, 3), size, &mut out).unwrap();
            for (c, plane) in out.chunks_exact(size.0 * size.1).enumerate() {
                assert!(plane.iter().all(|&v| v == [7, 130, 255][c]));
            }
        }
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let image = image::RgbImage::from_fn(16, 16, |x, y| Rgb([(x * 16) as u8, (y * 16) as u8, 9]));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::WebP] {
            let whole = bytes(image.clone(), format);
            for i in 0..whole.len() {
                // Either outcome is right; a panic or a hang is not.
                let _ = decode(&whole[..i], 1);
                let mut damaged = whole.clone();
                damaged[i] ^= 0xa5;
                let _ = decode(&damaged, 1);
            }
        }
        assert!(decode(b"", 1).unwrap_err().contains("empty"));
    }
}
