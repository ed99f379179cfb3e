//! Data sets: drawn in the page, or out of files that are dropped onto it.

use std::path::Path;

use radiograd::data::phantom::PhantomSizes;
use radiograd::data::{
    CachePolicy, Dataset, Dropped, Images, LoadOptions, Need, Source, Splits, image_from_bytes, load, load_npz, phantom,
};
use radiograd::train::Shared;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use crate::{fail, json};

/// How images are read, as the page says it.
#[derive(Deserialize)]
#[serde(default)]
struct Wanted {
    size: usize,
    seed: u32,
    /// Phantom images in all, divided as 12 to 2 to 3; absent: as the command line draws them.
    images: Option<usize>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { size: 28, seed: 0, images: None }
    }
}

impl Wanted {
    fn options(&self) -> LoadOptions {
        LoadOptions {
            size: (self.size, self.size),
            splits: Splits { official_val: Need::No, test: Need::No, ..Splits::STUDY },
            seed: self.seed,
            cache: CachePolicy::Off,
            phantom: self.images.map_or_else(PhantomSizes::default, PhantomSizes::of_total),
            ..LoadOptions::default()
        }
    }
}

fn wanted(text: &str) -> Result<LoadOptions, JsError> {
    serde_json::from_str::<Wanted>(text).map(|w| w.options()).map_err(fail)
}

/// A data set in memory.
#[wasm_bindgen]
pub struct Data {
    pub(crate) shared: Shared,
    source: String,
    synthetic: bool,
    notes: Vec<String>,
    skipped: usize,
    size: [usize; 2],
}

/// What the page says of a data set.
#[derive(Serialize)]
struct Summary<'a> {
    source: &'a str,
    synthetic: bool,
    classes: &'a [String],
    notes: &'a [String],
    skipped: usize,
    size: [usize; 2],
    hash: &'a str,
    train: Vec<usize>,
    val: Vec<usize>,
}

/// What the page says of one split.
#[derive(Serialize)]
struct Split<'a> {
    labels: &'a [u32],
    names: &'a [String],
}

impl Data {
    fn new(data: Dataset, options: &LoadOptions) -> Self {
        let (source, synthetic, notes, skipped) =
            (data.source.clone(), data.synthetic, data.notes.clone(), data.skipped.len());
        let size = [options.size.0, options.size.1];
        Self { shared: data.into(), source, synthetic, notes, skipped, size }
    }
}

#[wasm_bindgen]
impl Data {
    /// The phantom set, drawn here.
    ///
    /// # Errors
    /// A size out of range.
    pub fn phantom(options: &str) -> Result<Data, JsError> {
        let options = wanted(options)?;
        Ok(Self::new(load(&Source::Phantom, &options).map_err(fail)?, &options))
    }

    /// As many images as the phantom set has, of the same size, with nothing on them: what a training will run can be told from that.
    ///
    /// # Errors
    /// Settings that do not read.
    pub fn blank(options: &str) -> Result<Data, JsError> {
        let options = wanted(options)?;
        let (height, width) = options.size;
        let images = |count: usize| Images {
            channels: 1,
            height,
            width,
            pixels: vec![0; count * height * width],
            labels: (0..count as u32).map(|i| i % 2).collect(),
            names: vec![String::new(); count],
            patients: vec![String::new(); count],
        };
        let data = Dataset {
            classes: phantom::CLASSES.map(str::to_owned).to_vec(),
            synthetic: true,
            train: Some(images(options.phantom.train)),
            val: Some(images(options.phantom.val)),
            ..Dataset::default()
        };
        Ok(Self::new(data, &options))
    }

    /// A MedMNIST file.
    ///
    /// # Errors
    /// It is none, or holds too little.
    pub fn npz(name: &str, bytes: Vec<u8>, options: &str) -> Result<Data, JsError> {
        let options = wanted(options)?;
        Ok(Self::new(load_npz(name, bytes, &options).map_err(fail)?, &options))
    }

    /// Source, classes, counts and notes as JSON.
    ///
    /// # Errors
    /// None.
    pub fn summary(&self) -> Result<String, JsError> {
        let classes = self.shared.classes();
        let counts = |split| self.shared.images(split).map_or_else(Vec::new, |i| i.class_counts(classes.len()));
        json(&Summary {
            source: &self.source,
            synthetic: self.synthetic,
            classes,
            notes: &self.notes,
            skipped: self.skipped,
            size: self.size,
            hash: self.shared.content_hash(),
            train: counts("train"),
            val: counts("val"),
        })
    }

    /// Labels and names of a split as JSON.
    ///
    /// # Errors
    /// There is no such split.
    pub fn split(&self, split: &str) -> Result<String, JsError> {
        let images = self.shared.images(split).ok_or_else(|| fail(format!("there is no {split} split")))?;
        json(&Split { labels: &images.labels, names: &images.names })
    }

    /// The bytes of an image, `H*W`.
    ///
    /// # Errors
    /// There is no such image.
    pub fn image(&self, split: &str, index: usize) -> Result<Vec<u8>, JsError> {
        let image = self.shared.images(split).and_then(|images| images.image(index));
        image.map(<[u8]>::to_vec).ok_or_else(|| fail(format!("there is no image {index} in {split}")))
    }

    /// Many images side by side: those of `indices`, one after another.
    ///
    /// # Errors
    /// There is no such image.
    pub fn images(&self, split: &str, indices: &[u32]) -> Result<Vec<u8>, JsError> {
        let mut all = Vec::with_capacity(indices.len() * self.size[0] * self.size[1]);
        for &i in indices {
            all.extend(self.image(split, i as usize)?);
        }
        Ok(all)
    }
}

/// An image file as the network takes it: `size * size` grey bytes.
///
/// # Errors
/// It is no image, or of a kind that is not read.
#[wasm_bindgen]
pub fn image(name: &str, bytes: &[u8], size: usize) -> Result<Vec<u8>, JsError> {
    image_from_bytes(Path::new(name), bytes, (size, size), 1).map_err(fail)
}

/// An image folder that arrives file by file.
#[wasm_bindgen]
pub struct Folder {
    files: Dropped,
    options: LoadOptions,
}

#[wasm_bindgen]
impl Folder {
    /// Nothing yet.
    ///
    /// # Errors
    /// A size out of range.
    #[wasm_bindgen(constructor)]
    pub fn new(name: &str, options: &str) -> Result<Folder, JsError> {
        let options = wanted(options)?;
        Ok(Self { files: Dropped::new(name, &options).map_err(fail)?, options })
    }

    /// Whether a file of this path is to be read at all.
    #[must_use]
    pub fn wants(path: &str) -> bool {
        Dropped::wants(path)
    }

    /// Takes a file.
    pub fn add(&mut self, path: &str, bytes: &[u8]) {
        self.files.add(path, bytes);
    }

    /// The data set.
    ///
    /// # Errors
    /// It is no set of images in class folders.
    pub fn finish(self) -> Result<Data, JsError> {
        Ok(Data::new(self.files.finish().map_err(fail)?, &self.options))
    }
}
