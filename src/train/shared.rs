//! A data set that several trainings share: the images are in memory once.

use std::sync::Arc;

use crate::data::{Dataset, Images};

/// Images behind reference counts; a clone costs nothing.
#[derive(Clone, Debug)]
pub struct Shared {
    pub(super) classes: Vec<String>,
    pub(super) content_hash: String,
    pub(super) train: Option<Arc<Images>>,
    pub(super) others: Vec<(&'static str, Arc<Images>)>,
    pub(super) streamed: bool,
}

impl Shared {
    /// Each step hands over its own batch, where else the device takes a copy of all images. The results are the same bits.
    #[must_use]
    pub fn streamed(self) -> Self {
        Self { streamed: true, ..self }
    }

    /// The images of a split, by the name that `--split` takes.
    #[must_use]
    pub fn images(&self, split: &str) -> Option<&Images> {
        match split {
            "train" => self.train.as_deref(),
            other => self.others.iter().find(|(name, _)| *name == other).map(|(_, images)| &**images),
        }
    }

    /// Class names, by label.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// BLAKE3 of everything that was loaded, as in [`Dataset`].
    #[must_use]
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// Whether another clone is alive.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.train.as_ref().is_some_and(|images| Arc::strong_count(images) > 1)
    }
}

impl From<Dataset> for Shared {
    fn from(data: Dataset) -> Self {
        let others = [("val", data.val), ("official_val", data.official_val), ("test", data.test)];
        let others = others.into_iter().filter_map(|(name, images)| images.map(|i| (name, Arc::new(i))));
        Self {
            classes: data.classes,
            content_hash: data.content_hash,
            train: data.train.map(Arc::new),
            others: others.filter(|(_, images)| !images.is_empty()).collect(),
            streamed: false,
        }
    }
}
