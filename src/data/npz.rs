//! MedMNIST files: `{train,val,test}_{images,labels}`, images (n,h,w) or (n,h,w,3) of bytes, labels (n,) or (n,1) of
//! integers. Other image sizes than the wanted one are resized. Patients are unknown: every image is its own.

use std::borrow::Cow;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use fast_image_resize::Resizer;
use rayon::prelude::*;
use zip::ZipArchive;
use zip::result::ZipError;

use super::error::{DataError, one_line, shown};
use super::images::Images;
use super::npy::{Header, read_header};
use super::{Dataset, LoadOptions, Need, Originals, Stage, check_bytes, check_classes, decode, split_train};
use crate::fsio::FsError;
use crate::zip_directory;

/// Images of a split, at most: a small archive can hold any number of equal labels, each of which takes a hundred bytes here.
const MAX_IMAGES: u64 = 1 << 24;
/// Entries of a file, at most; MedMNIST's have six.
const MAX_ENTRIES: u64 = 1024;
/// Deflate never makes more than this out of one byte; an entry that claims more is no honest array.
const MAX_RATIO: u64 = 1032;
/// Source images are read and resized in blocks of about this many bytes.
const BLOCK: usize = 16 << 20;

/// Where the bytes of a `.npz` file come from.
trait Bytes: Read + Seek {}

impl<T: Read + Seek> Bytes for T {}

/// An open `.npz` file.
pub(crate) struct Npz<'a> {
    path: &'a Path,
    zip: ZipArchive<Box<dyn Bytes>>,
    file_bytes: u64,
}

/// The images of one array, one after another.
pub(crate) struct ImageArray {
    /// Number of images, height, width, channels (1 or 3).
    pub shape: [usize; 4],
}

impl<'a> Npz<'a> {
    pub fn open(path: &'a Path) -> Result<Self, DataError> {
        let fail = |e| DataError::Fs(FsError::new("read", path, e));
        let file = File::open(path).map_err(fail)?;
        let file_bytes = file.metadata().map_err(fail)?.len();
        Self::of(path, Box::new(BufReader::new(file)), file_bytes)
    }

    fn of(path: &'a Path, mut bytes: Box<dyn Bytes>, file_bytes: u64) -> Result<Self, DataError> {
        let error = |problem| DataError::Npz { path: path.to_owned(), key: "file".into(), problem };
        let broken = |e: &dyn Display| {
            error(format!("not a whole .npz (zip) archive ({}); download it again", one_line(&e.to_string())))
        };
        match zip_directory::claimed(&mut bytes, file_bytes).map_err(|e| broken(&e))? {
            Some(0..=MAX_ENTRIES) => {}
            Some(n) => return Err(error(format!("claims {n} arrays, and at most {MAX_ENTRIES} are read"))),
            None => return Err(broken(&"its end records are apart")),
        }
        let zip = ZipArchive::new(bytes).map_err(|e| broken(&e))?;
        Ok(Self { path, zip, file_bytes })
    }

    fn has(&self, key: &str) -> bool {
        self.zip.index_for_name(&format!("{key}.npy")).is_some()
    }

    /// True where the file has one of the split's two arrays: the absence of the other is then named.
    pub fn has_split(&self, split: &str) -> bool {
        self.has(&format!("{split}_images")) || self.has(&format!("{split}_labels"))
    }

    pub fn no_splits(&self) -> DataError {
        self.error("file", "holds none of train_images, val_images, test_images; give a MedMNIST file")
    }

    pub fn error(&self, key: &str, problem: impl Into<String>) -> DataError {
        DataError::Npz { path: self.path.to_owned(), key: key.to_owned(), problem: problem.into() }
    }

    /// Opens an array, checks that it can be what it claims, and calls `f` with its header and elements. After `f`
    /// nothing may be left, and the archive's checksum must hold.
    fn array<T>(
        &mut self,
        key: &str,
        f: impl FnOnce(&Header, &mut dyn Read) -> Result<T, String>,
    ) -> Result<T, DataError> {
        let (path, file_bytes) = (self.path, self.file_bytes);
        let error = |problem: String| DataError::Npz {
            path: path.to_owned(),
            key: key.to_owned(),
            problem: one_line(&problem),
        };
        let mut entry = match self.zip.by_name(&format!("{key}.npy")) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => return Err(error("missing; a MedMNIST file has it".into())),
            Err(e) => return Err(error(format!("cannot be read ({e}); download the file again"))),
        };
        let (packed, size) = (entry.compressed_size(), entry.size());
        if packed > file_bytes || size > packed.saturating_mul(MAX_RATIO).saturating_add(1024) {
            return Err(error(format!(
                "claims {size} bytes out of {packed} packed ones, which cannot be; download it again"
            )));
        }
        let header = read_header(&mut entry).map_err(error)?;
        let data = header.data_bytes().and_then(|n| n.checked_add(header.length));
        if data != Some(size) {
            let shape = &header.shape;
            return Err(error(format!("its shape {shape:?} of {} does not fit its {size} bytes", header.descr)));
        }
        let value = f(&header, &mut entry).map_err(error)?;
        // Reading on at the end makes the archive compare its checksum.
        match entry.read(&mut [0]) {
            Ok(0) => Ok(value),
            Ok(_) => Err(error("holds more than its shape says".into())),
            Err(e) => Err(error(format!("is damaged ({e}); download the file again"))),
        }
    }

    /// The labels of a split.
    pub fn labels(&mut self, split: &str) -> Result<Vec<i64>, DataError> {
        self.array(&format!("{split}_labels"), |header, reader| {
            match header.shape[..] {
                [_] | [_, 1] => {}
                [_, k] => {
                    return Err(format!(
                        "{k} labels an image; only one class an image (shape (n,) or (n,1)) is supported"
                    ));
                }
                _ => return Err(format!("shape {:?}; labels have the shape (n,) or (n,1)", header.shape)),
            }
            if !matches!((header.kind, header.size), ('u' | 'i', 1 | 2 | 4 | 8) | ('b', 1)) {
                return Err(format!("type {}; labels are integers", header.descr));
            }
            if header.shape[0] > MAX_IMAGES {
                return Err(format!("{} labels; at most {MAX_IMAGES} images are read", header.shape[0]));
            }
            let mut labels = Vec::new();
            let mut left = header.shape[0];
            let mut block = Vec::new();
            while left > 0 {
                let n = left.min(1 << 20);
                block.resize(n as usize * header.size, 0);
                reader.read_exact(&mut block).map_err(cut_short)?;
                labels.extend(block.chunks_exact(header.size).map(|b| integer(b, header)));
                left -= n;
            }
            Ok(labels)
        })
    }

    /// Reads the images of a split block by block; `each` gets the number of the first image and the block's bytes.
    pub fn images(
        &mut self,
        split: &str,
        mut each: impl FnMut(&ImageArray, usize, &[u8]) -> Result<(), String>,
    ) -> Result<ImageArray, DataError> {
        self.array(&format!("{split}_images"), |header, reader| {
            let array = image_array(header)?;
            let [n, h, w, c] = array.shape;
            let stride = h * w * c;
            let mut block = Vec::new();
            let mut at = 0;
            while at < n {
                let count = (BLOCK / stride).clamp(1, n - at);
                block.resize(count * stride, 0);
                reader.read_exact(&mut block).map_err(cut_short)?;
                each(&array, at, &block)?;
                at += count;
            }
            Ok(array)
        })
    }
}

fn cut_short(e: std::io::Error) -> String {
    format!("cannot be read to its end ({e}); download the file again")
}

fn integer(bytes: &[u8], header: &Header) -> i64 {
    let fill =
        if header.kind == 'i' && bytes[if header.big_endian { 0 } else { bytes.len() - 1 }] >= 0x80 { 0xff } else { 0 };
    let mut wide = [fill; 8];
    for (i, to) in wide.iter_mut().enumerate().take(bytes.len()) {
        *to = bytes[if header.big_endian { bytes.len() - 1 - i } else { i }];
    }
    let value = i64::from_le_bytes(wide);
    // An unsigned number beyond i64 is no label either way.
    if header.kind != 'i' && value < 0 { i64::MAX } else { value }
}

fn image_array(header: &Header) -> Result<ImageArray, String> {
    if (header.kind, header.size) != ('u', 1) {
        return Err(format!("type {}; images are unsigned bytes (uint8)", header.descr));
    }
    let shape = header.shape.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<usize>>>();
    let (n, h, w, c) = match shape.as_deref() {
        Some(&[n, h, w]) => (n, h, w, 1),
        Some(&[n, h, w, c @ (1 | 3)]) => (n, h, w, c),
        _ => return Err(format!("shape {:?}; images have the shape (n,h,w) or (n,h,w,3)", header.shape)),
    };
    let side = decode::MAX_SIDE as usize;
    if h == 0 || w == 0 || h > side || w > side || (h * w * c) as u64 > decode::MAX_DECODED {
        return Err(format!("images of {h}x{w}; sides of 1 to {side} pixels are read"));
    }
    Ok(ImageArray { shape: [n, h, w, c] })
}

/// Grey to RGB or RGB to grey, interleaved.
pub(crate) fn convert(pixels: &[u8], from: usize, to: usize) -> Cow<'_, [u8]> {
    match (from, to) {
        (3, 1) => pixels.as_chunks::<3>().0.iter().map(|&p| decode::luma(p)).collect::<Vec<_>>().into(),
        (1, 3) => pixels.iter().flat_map(|&v| [v; 3]).collect::<Vec<_>>().into(),
        _ => pixels.into(),
    }
}

/// The class names that the MedMNIST paper gives for a file, where this crate knows them.
fn known_classes(path: &Path) -> Option<Vec<String>> {
    let name = path.file_stem()?.to_str()?.to_ascii_lowercase();
    (name == "pneumoniamnist" || name.starts_with("pneumoniamnist_"))
        .then(|| vec!["normal".to_owned(), "pneumonia".to_owned()])
}

/// Class names from the labels that define them: those of train, or of the only split that is read.
pub(crate) fn classes(path: &Path, split: &str, labels: &[i64]) -> Result<Vec<String>, DataError> {
    if let Some(known) = known_classes(path) {
        return Ok(known);
    }
    let key = format!("{split}_labels");
    let mut sorted: Vec<i64> = labels.iter().copied().filter(|&l| l >= 0).collect();
    sorted.sort_unstable();
    sorted.dedup();
    // Classes count from 0 without a gap; a label beyond a gap is a slip, not a class.
    let classes = sorted.iter().zip(0..).take_while(|&(&l, i)| l == i).count();
    if classes == 0 && !labels.is_empty() {
        let problem = "no image has label 0; labels must count from 0 without a gap".to_owned();
        return Err(DataError::Npz { path: path.to_owned(), key, problem });
    }
    Ok((0..classes).map(|i| i.to_string()).collect())
}

pub(crate) fn load(path: &Path, o: &LoadOptions) -> Result<Dataset, DataError> {
    read(Npz::open(path)?, o)
}

/// As [`load`], of a file that is in memory; `path` is what messages call it.
pub(crate) fn load_bytes(path: &Path, bytes: Vec<u8>, o: &LoadOptions) -> Result<Dataset, DataError> {
    let length = bytes.len() as u64;
    read(Npz::of(path, Box::new(Cursor::new(bytes)), length)?, o)
}

fn read(mut npz: Npz<'_>, o: &LoadOptions) -> Result<Dataset, DataError> {
    let path = npz.path;
    let has = ["train", "val", "test"].map(|s| npz.has_split(s));
    if has == [false; 3] {
        return Err(npz.no_splits());
    }
    let wanted = |split: &'static str, need, there, hint: &str| match (need, there) {
        (Need::No, _) | (Need::IfPresent, false) => Ok(false),
        (Need::Yes, false) => Err(DataError::MissingSplit { path: path.to_owned(), split, hint: hint.to_owned() }),
        (_, true) => Ok(true),
    };
    let absent = "the file holds no such arrays; choose another split or another file";
    let wants_train = wanted("train", o.splits.train, has[0], absent)?;
    let wants_val = wanted("val", o.splits.val, has[0] || has[1], absent)?;
    let wants_test = wanted("test", o.splits.test, has[2], absent)?;
    wanted("official_val", o.splits.official_val, false, "only image folders have one; the val of this file is val")?;

    let mut data = Dataset {
        source: shown(path),
        notes: vec!["patients are unknown in an .npz file: every image counts as its own".to_owned()],
        ..Dataset::default()
    };
    if wants_val && has[1] {
        data.notes.push("validation: the val arrays of the file".into());
    }
    // Labels are small: all that are needed come first, so that a slip shows before the images are read.
    let mut labels: [Option<Vec<i64>>; 3] = [None, None, None];
    let reads = [has[0], has[1] && wants_val, wants_test];
    for (i, split) in ["train", "val", "test"].into_iter().enumerate() {
        if reads[i] {
            labels[i] = Some(npz.labels(split)?);
        }
    }
    let define = labels.iter().zip(["train", "val", "test"]).find_map(|(l, s)| Some((s, l.as_ref()?)));
    if let Some((split, labels)) = define {
        data.classes = classes(path, split, labels)?;
    }
    let train_is_read = wants_train || (wants_val && !has[1]);
    let wants = [train_is_read, reads[1], wants_test];
    for (i, split) in ["train", "val", "test"].into_iter().enumerate() {
        let Some(labels) = labels[i].take().filter(|_| wants[i]) else { continue };
        let (images, size) = read_split(&mut npz, split, &labels, &data.classes, o)?;
        data.originals.push(Originals { set: split, sizes: vec![size; images.len()] });
        match split {
            "train" if wants_val && !has[1] => {
                let (train, val) = split_train(path, images, &data.classes, o, &mut data.notes)?;
                data.train = wants_train.then_some(train);
                data.val = val;
            }
            "train" => data.train = Some(images),
            "val" => data.val = Some(images),
            _ => data.test = Some(images),
        }
    }
    if data.val.is_none() && o.splits.val == Need::Yes {
        let hint = "the file has no val arrays and the validation fraction is 0; give one above".to_owned();
        return Err(DataError::MissingSplit { path: path.to_owned(), split: "val", hint });
    }
    Ok(data)
}

/// Labels as class numbers; the first that is none is named.
pub(crate) fn check_labels(
    path: &Path,
    split: &str,
    labels: &[i64],
    classes: &[String],
) -> Result<Vec<u32>, DataError> {
    let check = |(index, &label): (usize, &i64)| match u32::try_from(label) {
        Ok(l) if (l as usize) < classes.len() => Ok(l),
        _ => {
            let (key, last) = (format!("{split}_labels"), classes.len() as i64 - 1);
            Err(DataError::LabelOutOfRange { path: path.to_owned(), key, index, label, last })
        }
    };
    labels.iter().enumerate().map(check).collect()
}

pub(crate) fn check_count(split: &str, images: usize, labels: usize) -> Result<(), String> {
    if images == labels { Ok(()) } else { Err(format!("{images} images, but {split}_labels has {labels} labels")) }
}

/// The images of a split, and their width and height in the file.
fn read_split(
    npz: &mut Npz,
    split: &'static str,
    labels: &[i64],
    classes: &[String],
    o: &LoadOptions,
) -> Result<(Images, (u32, u32)), DataError> {
    let checked = check_labels(npz.path, split, labels, classes)?;
    check_classes(npz.path, split, classes, &checked, &[])?;
    check_bytes(npz.path, labels.len(), o)?;
    let stride = o.channels * o.size.0 * o.size.1;
    let mut pixels: Vec<u8> = Vec::new();
    let read = npz.images(split, |array, at, block| {
        let [n, h, w, c] = array.shape;
        check_count(split, n, labels.len())?;
        let from = h * w * c;
        let count = block.len() / from;
        pixels.try_reserve(count * stride).map_err(|e| e.to_string())?;
        pixels.resize((at + count) * stride, 0);
        pixels[at * stride..].par_chunks_exact_mut(stride).zip(block.par_chunks_exact(from)).try_for_each_init(
            Resizer::new,
            |resizer, (out, image)| {
                let image = convert(image, c, o.channels);
                decode::resize_into(resizer, (&image, w as u32, h as u32, o.channels), o.size, out)
            },
        )?;
        o.report(Stage::Reading, split, at + count, n);
        Ok(())
    })?;
    // Without images no block came by to be compared.
    check_count(split, read.shape[0], labels.len())
        .map_err(|problem| npz.error(&format!("{split}_images"), problem))?;
    let names: Vec<String> = (0..labels.len()).map(|i| format!("{split}/{i}")).collect();
    let (height, width) = o.size;
    let original = (read.shape[2] as u32, read.shape[1] as u32);
    let images =
        Images { channels: o.channels, height, width, pixels, labels: checked, patients: names.clone(), names };
    Ok((images, original))
}
