//! Image folders with every sort of broken file in them. Each file is either read for what it is or left out and named, in one
//! line; nothing panics, hangs or takes memory without end, and the sound images beside it are learned from.

#[path = "common/counting.rs"]
mod counting;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, RgbaImage};
use radiograd::data::{CachePolicy, Dataset, LoadOptions, Source, Splits, decode, load, read_image};
use tempfile::TempDir;

/// No folder here may take longer to read.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of two classes with four sound images each, and what is put beside them.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        for class in ["A", "B"] {
            let path = folder.0.path().join("train").join(class);
            fs::create_dir_all(&path).expect("a folder");
            for i in 0..4u32 {
                let image = GrayImage::from_fn(12, 10, |x, y| Luma([(i * 40 + x * y) as u8]));
                image.save(path.join(format!("person{i}{class}_virus_1.png"))).expect("an image");
            }
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("train/A").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file");
        path
    }

    fn load(&self, strict: bool) -> Result<Dataset, String> {
        let options = LoadOptions {
            size: (8, 8),
            strict,
            splits: Splits::FIT,
            cache: CachePolicy::Off,
            ..LoadOptions::default()
        };
        let start = Instant::now();
        let result = load(&Source::Folder(self.0.path().to_owned()), &options).map_err(|e| e.to_string());
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        result
    }

    /// The file is left out with such words, the others are read; `--strict` names it.
    fn left_out(&self, name: &str, words: &[&str]) {
        let data = self.load(false).expect("the sound images are read");
        let images = [&data.train, &data.val].into_iter().flatten().map(|i| i.len()).sum::<usize>();
        assert_eq!((images, data.skipped.len()), (8, 1), "{name}: {:?}", data.skipped);
        let skipped = &data.skipped[0];
        assert!(skipped.name.contains(name), "{name}: {skipped:?}");
        assert!(words.iter().all(|w| skipped.reason.contains(w)), "{name}: {skipped:?}");
        assert!(!skipped.reason.contains(char::is_control), "{skipped:?}");
        let line = self.load(true).expect_err("strict");
        assert!(line.contains(name) && line.contains("replace or remove the file"), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }

    /// The file is read.
    fn is_read(&self, name: &str) {
        let data = self.load(true).unwrap_or_else(|e| panic!("{name}: {e}"));
        let images = [&data.train, &data.val].into_iter().flatten().map(|i| i.len()).sum::<usize>();
        assert_eq!((images, data.skipped.len()), (9, 0), "{name}");
    }

    /// The file is as if it were not there.
    fn is_passed_over(&self) {
        let data = self.load(true).expect("the sound images are read");
        assert_eq!([&data.train, &data.val].into_iter().flatten().map(|i| i.len()).sum::<usize>(), 8);
    }
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).expect("an image");
    out.into_inner()
}

fn sample() -> RgbImage {
    RgbImage::from_fn(16, 12, |x, y| Rgb([(x * 15) as u8, (y * 20) as u8, 90]))
}

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&[kind, body].concat());
    [&(body.len() as u32).to_be_bytes()[..], kind, body, &sum.to_be_bytes()].concat()
}

/// A PNG out of its chunks; `depth`, `colour` and `rows` as the format has them, the rows without compression.
fn png([width, height]: [u32; 2], depth: u8, colour: u8, before: &[Vec<u8>], rows: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour, 0, 0, 0]].concat();
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in rows {
        a = (a + u32::from(byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let length = rows.len() as u16;
    let adler = (b << 16 | a).to_be_bytes();
    let data = [&[0x78, 1, 1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), rows, &adler].concat();
    let before = before.concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &before, &chunk(b"IDAT", &data), &chunk(b"IEND", &[])]
        .concat()
}

/// A baseline JPEG of one block of each of four components, all of one value: what printers' programs write.
fn cmyk_jpeg(values: [u8; 4]) -> Vec<u8> {
    let mut out = b"\xff\xd8".to_vec();
    // Adobe's marker: four components as they are.
    out.extend(b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00");
    out.extend(b"\xff\xdb\x00\x43\x00");
    out.extend([1; 64]);
    out.extend(b"\xff\xc0\x00\x14\x08\x00\x08\x00\x08\x04\x01\x11\x00\x02\x11\x00\x03\x11\x00\x04\x11\x00");
    // The sixteen counts of codes by length, then what they stand for: twelve sizes of a difference by four bits each, and the end of
    // a block by one bit.
    let counts = |length: usize, codes: u8| (1..=16).map(move |l| if l == length { codes } else { 0 });
    out.extend(b"\xff\xc4\x00\x1f\x00");
    out.extend(counts(4, 12).chain(0..12));
    out.extend(b"\xff\xc4\x00\x14\x10");
    out.extend(counts(1, 1).chain([0]));
    out.extend(b"\xff\xda\x00\x0e\x04\x01\x00\x02\x00\x03\x00\x04\x00\x00\x3f\x00");
    let mut bits = Vec::new();
    for value in values {
        // The mean of a block times eight, from the middle.
        let dc = 8 * (i32::from(value) - 128);
        let size = 32 - dc.unsigned_abs().leading_zeros();
        let code = if dc >= 0 { dc } else { dc - 1 };
        bits.extend((0..4).rev().map(|i| size >> i & 1 == 1));
        bits.extend((0..size).rev().map(|i| code >> i & 1 == 1));
        bits.push(false);
    }
    while !bits.len().is_multiple_of(8) {
        bits.push(true);
    }
    for byte in bits.chunks(8) {
        let byte = byte.iter().fold(0u8, |n, &bit| n << 1 | u8::from(bit));
        out.push(byte);
        if byte == 0xff {
            out.push(0);
        }
    }
    out.extend(b"\xff\xd9");
    out
}

/// A WebP of two frames around the picture of a still one.
fn animated_webp(still: &[u8], [width, height]: [u32; 2]) -> Vec<u8> {
    let chunk = |kind: &[u8], body: &[u8]| {
        let pad = vec![0; body.len() % 2];
        [kind, &(body.len() as u32).to_le_bytes(), body, &pad].concat()
    };
    let three = |n: u32| n.to_le_bytes()[..3].to_vec();
    let canvas = [vec![0x02, 0, 0, 0], three(width - 1), three(height - 1)].concat();
    // Behind `RIFF`, its length and `WEBP`: the chunk of the picture.
    let frame = [vec![0; 6], three(width - 1), three(height - 1), three(100), vec![0], still[12..].to_vec()].concat();
    let frame = chunk(b"ANMF", &frame);
    let body = [&b"WEBP"[..], &chunk(b"VP8X", &canvas), &chunk(b"ANIM", &[0; 6]), &frame, &frame].concat();
    chunk(b"RIFF", &body)
}

#[test]
fn files_that_are_no_whole_image() {
    let whole = encoded(sample(), ImageFormat::Jpeg);
    let png = encoded(sample(), ImageFormat::Png);
    let mut sum = png.clone();
    let at = sum.len() - 20;
    sum[at] ^= 0xff;
    let cases: [(&str, &[u8], &[&str]); 8] = [
        ("empty.jpeg", b"", &["empty"]),
        ("one_byte.png", b"\x89", &["not a JPEG"]),
        ("words.jpeg", b"this is no image at all", &["not a JPEG"]),
        ("head.jpeg", &whole[..40], &[]),
        ("cut.png", &png[..png.len() / 2], &[]),
        ("magic.gif", b"GIF89a", &[]),
        ("flipped.png", &sum, &[]),
        ("page.png", b"<!doctype html><html>404</html>", &["not a JPEG"]),
    ];
    for (name, bytes, words) in cases {
        let folder = Folder::new();
        folder.put(name, bytes);
        folder.left_out(name, words);
    }
}

#[test]
fn every_way_to_hold_pixels_is_read() {
    let grey16 = ImageBuffer::<Luma<u16>, _>::from_fn(9, 7, |x, y| Luma([(x * 7000 + y) as u16]));
    let palette = png([2, 2], 8, 3, &[chunk(b"PLTE", &[255, 0, 0, 0, 0, 255])], &[0, 0, 1, 0, 1, 0]);
    let clear = [chunk(b"PLTE", &[255, 0, 0, 0, 0, 255]), chunk(b"tRNS", &[0])];
    let one_bit = png([2, 2], 1, 0, &[], &[0, 0x40, 0, 0x80]);
    let rgba = RgbaImage::from_fn(9, 7, |x, y| image::Rgba([(x * 25) as u8, (y * 30) as u8, 9, (x * y) as u8]));
    let mut gif = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    let frames = [60, 200].map(|v| image::Frame::new(RgbaImage::from_pixel(9, 7, image::Rgba([v, v, v, 255]))));
    encoder.encode_frames(frames).expect("frames");
    drop(encoder);
    let webp = animated_webp(&encoded(sample(), ImageFormat::WebP), [16, 12]);
    let cases = [
        ("16bit.png", encoded(grey16.clone(), ImageFormat::Png)),
        ("16bit.tiff", encoded(grey16, ImageFormat::Tiff)),
        ("palette.png", palette.clone()),
        ("palette_clear.png", png([2, 2], 8, 3, &clear, &[0, 0, 1, 0, 1, 0])),
        ("one_bit.png", one_bit.clone()),
        ("alpha.png", encoded(rgba.clone(), ImageFormat::Png)),
        ("cmyk.jpeg", cmyk_jpeg([255, 255, 255, 100])),
        ("animated.gif", gif.clone()),
        ("animated.webp", webp.clone()),
        ("a_png_called.jpeg", encoded(sample(), ImageFormat::Png)),
        ("no_ending", encoded(sample(), ImageFormat::Bmp)),
    ];
    for (name, bytes) in &cases {
        let folder = Folder::new();
        folder.put(name, bytes);
        folder.is_read(name);
    }
    // What they are read as.
    let pixels = |bytes: &[u8], channels| decode::decode(bytes, channels).expect("an image").pixels;
    assert_eq!(pixels(&palette, 3), [255, 0, 0, 0, 0, 255, 0, 0, 255, 255, 0, 0]);
    assert_eq!(pixels(&one_bit, 1), [0, 255, 255, 0]);
    assert!(pixels(&gif, 1).iter().all(|v| v.abs_diff(60) < 3), "the first frame");
    // Laid on an empty canvas, which rounds.
    let (webp, still) = (pixels(&webp, 3), sample().into_raw());
    assert!(webp.len() == still.len() && webp.iter().zip(&still).all(|(a, b)| a.abs_diff(*b) < 3), "the first frame");
    let grey = pixels(&cmyk_jpeg([255, 255, 255, 100]), 1);
    // Adobe's four components are inverted: full ink of black alone dims the white.
    assert!(grey.len() == 64 && grey.iter().all(|v| v.abs_diff(100) < 3), "{grey:?}");
}

#[test]
fn sizes_beyond_the_limits_take_no_memory() {
    let wide = png([30_000, 1], 8, 0, &[], &vec![0; 30_001]);
    // Few bytes that promise pixels: 512 TiB, 3 GiB within the sides' limit, none.
    let sizes = [[0x7f_ffff, 0x7f_ffff], [20_000, 20_000], [0, 5]];
    let bombs = sizes.map(|size| png(size, 16, 6, &[], &[0; 9]));
    let cases: [(&str, &[u8]); 4] =
        [("wide.png", &wide), ("bomb.png", &bombs[0]), ("within.png", &bombs[1]), ("none.png", &bombs[2])];
    for (name, bytes) in cases {
        let (result, peak) = counting::peak(|| decode::decode(bytes, 1));
        assert!(result.is_err(), "{name}");
        assert!(peak < 1 << 20, "{name}: {peak} bytes");
        let folder = Folder::new();
        folder.put(name, bytes);
        folder.left_out(name, &[]);
    }
    // What is within them takes its pixels, as they are packed and as they are: 40 MB in 40 KB.
    let large = encoded(GrayImage::new(decode::MAX_SIDE, 2000), ImageFormat::Png);
    let (result, peak) = counting::peak(|| decode::decode(&large, 1).map(|p| p.pixels.len()));
    assert_eq!(result, Ok(40_000_000));
    assert!(large.len() < 200_000 && peak <= 3 * 40_000_000, "{} {peak}", large.len());
}

#[test]
fn what_systems_leave_behind_is_passed_over() {
    for name in ["Thumbs.db", "thumbs.DB", "desktop.ini", ".DS_Store", "._person1.jpeg", ".hidden.png"] {
        let folder = Folder::new();
        folder.put(name, b"junk");
        folder.is_passed_over();
    }
    let folder = Folder::new();
    fs::create_dir(folder.path("folder.jpeg")).expect("a folder");
    folder.left_out("folder.jpeg", &["a folder, not an image"]);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn links_pipes_and_devices_end_at_once() {
        let links: [(&str, &str, &[&str]); 7] = [
            ("itself.png", "itself.png", &[]),
            ("round.png", "../A/round.png", &[]),
            ("up.png", "..", &["folder"]),
            ("root.png", "/", &["folder"]),
            ("nowhere.png", "missing.png", &[]),
            ("zero.png", "/dev/zero", &["not a regular file"]),
            ("random.png", "/dev/urandom", &["not a regular file"]),
        ];
        for (name, target, words) in links {
            let folder = Folder::new();
            symlink(target, folder.path(name)).expect("a link");
            folder.left_out(name, words);
        }
        // Of two that point at each other both are left out.
        let folder = Folder::new();
        symlink("b.png", folder.path("a.png")).expect("a link");
        symlink("a.png", folder.path("b.png")).expect("a link");
        assert_eq!(folder.load(false).expect("the sound images").skipped.len(), 2);
        // A class that is a loop has no image, which is said.
        let folder = Folder::new();
        symlink(".", folder.0.path().join("train/LOOP")).expect("a link");
        let line = folder.load(false).expect_err("a class without images");
        assert!(line.contains("LOOP") && line.contains("no readable image") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = Folder::new();
        let pipe = folder.path("pipe.png");
        let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        folder.left_out("pipe.png", &["not a regular file"]);
        let line = read_image(&pipe, (8, 8), 1).expect_err("a pipe").to_string();
        assert!(line.contains("pipe.png") && line.contains("not a regular file"), "{line}");
    }

    #[test]
    fn names_may_be_anything() {
        let png = encoded(sample(), ImageFormat::Png);
        for name in [&b"\xff\xfe.png"[..], b"a\nb.png", b"\x1b[31mred.png", "x\u{202e}gnp.exe".as_bytes()] {
            let folder = Folder::new();
            fs::write(folder.0.path().join("train/A").join(std::ffi::OsStr::from_bytes(name)), &png).expect("a file");
            folder.is_read("an odd name");
            fs::write(folder.0.path().join("train/A").join(std::ffi::OsStr::from_bytes(name)), b"x").expect("a file");
            let line = folder.load(true).expect_err("strict");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }

    /// Files that grow, shrink, vanish and come back, or become links and folders while they are read.
    #[test]
    fn files_that_change_while_they_are_read() {
        let folder = Folder::new();
        let (path, stop) = (folder.path("changing.png"), AtomicBool::new(false));
        let whole = encoded(sample(), ImageFormat::Png);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut turn = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    // Each may fail because of the turn before.
                    let _ = match turn % 6 {
                        0 => fs::write(&path, &whole),
                        1 => fs::write(&path, &whole[..30]),
                        2 => fs::remove_file(&path),
                        3 => symlink("/dev/zero", &path),
                        4 => fs::remove_file(&path),
                        _ => fs::write(&path, vec![0; 100_000]),
                    };
                    turn += 1;
                }
            });
            let start = Instant::now();
            let mut times = 0;
            while times < 20 || (start.elapsed() < Duration::from_secs(2) && times < 400) {
                let data = folder.load(false).expect("the sound images are read");
                let images = [&data.train, &data.val].into_iter().flatten().map(|i| i.len()).sum::<usize>();
                assert!((8..=9).contains(&images) && images + data.skipped.len() <= 9);
                times += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    /// Also what is no image is not waited for: settings, tables, weights.
    #[test]
    fn pipes_and_devices_are_no_files_anywhere() {
        let dir = tempfile::tempdir().expect("a folder");
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        let zero = dir.path().join("zero.npz");
        symlink("/dev/zero", &zero).expect("a link");
        for path in [&pipe, &zero, &dir.path().to_owned()] {
            let lines = [
                radiograd::train::TrainConfig::read(path).expect_err("no file").to_string(),
                radiograd::train::predictions::Predictions::read(path).expect_err("no file").to_string(),
                radiograd::weights::load(path).expect_err("no file").to_string(),
            ];
            for line in lines {
                assert!(line.contains(&path.display().to_string()) && !line.contains('\n'), "{line}");
            }
        }
        assert!(Source::parse(&zero).is_err() && Source::parse(&pipe).is_err());
    }
}

/// The sizes that name a limit are those that hold.
#[test]
fn one_image_is_read_by_its_own_rules() {
    let folder = Folder::new();
    let fails = |path: &Path, words: &[&str]| {
        let line = read_image(path, (8, 8), 1).expect_err("no image").to_string();
        assert!(words.iter().all(|w| line.contains(w)) && !line.contains('\n'), "{line}");
    };
    fails(&folder.put("none.png", b""), &["none.png", "empty", "replace or remove"]);
    fails(&folder.path("missing.png"), &["missing.png", "replace or remove"]);
    fails(&folder.0.path().join("train"), &["a folder, not an image"]);
}
