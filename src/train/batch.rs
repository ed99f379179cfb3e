//! Images on the device, and the batch that a step gathers from them.

use super::TrainError;
use crate::data::Images;
use crate::exec::{ExecError, Executor, Program};
use crate::graph::{Graph, NodeId, VarView};
use crate::ops::augment::{Augment, AugmentImages};
use crate::shape::Spec;
use crate::store::ParamStore;
use crate::tensor::{Data, Tensor};

/// Images and labels on the device, as bytes; where the device cannot hold all of them in one tensor, each step uploads its
/// own batch instead.
#[derive(Clone, Debug)]
pub struct DeviceImages {
    pixels: Option<VarView>,
    pub(super) labels: VarView,
    image: [usize; 3],
    len: usize,
}

impl DeviceImages {
    /// Adds the variables of a split to a store. `limit` is the largest tensor in bytes that the device holds.
    pub fn add(store: &mut ParamStore, name: &str, images: &Images, limit: Option<u64>) -> Self {
        let image = [images.channels, images.height, images.width];
        let spec = Spec::u8([images.len(), image[0], image[1], image[2]]);
        let fits = limit.is_none_or(|limit| spec.bytes() as u64 <= limit);
        let pixels = fits.then(|| {
            let value = Tensor::new(spec.shape.clone(), Data::U8(images.pixels.clone())).ok();
            store.add_var(&format!("{name} images"), spec, value)
        });
        let labels = Spec::u32([images.len()]);
        let value = Tensor::new(labels.shape.clone(), Data::U32(images.labels.clone())).ok();
        let labels = store.add_var(&format!("{name} labels"), labels, value);
        Self { pixels, labels, image, len: images.len() }
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What the host has of a split, for passes that the device cannot hold all of it for.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// The images.
    pub images: &'a Images,
    /// Features of them, image by image ([`super::features`]).
    pub features: Option<&'a [f32]>,
}

impl<'a> From<&'a Images> for Host<'a> {
    fn from(images: &'a Images) -> Self {
        Self { images, features: None }
    }
}

/// The inputs by which a pass is told its batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    pub indices: NodeId,
    /// Where the images do not lie on the device: the batch's pixels, and which of them to take (all, in order).
    pub streamed: Option<(NodeId, NodeId)>,
    /// Where features do not lie on the device: the batch's, and how many numbers each image has.
    pub features: Option<(NodeId, usize)>,
    /// Where repeats are augmented otherwise than the other images: which images of the batch are repeats.
    pub repeats: Option<NodeId>,
}

/// A recorded batch: normalised images `[B, C, H, W]`, labels `[B]`.
pub(super) struct Batch {
    pub feed: Feed,
    pub x: NodeId,
    pub labels: NodeId,
}

/// How the images of a batch are changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Augmentation<'a> {
    /// All of them; `None`: not at all.
    pub images: Option<&'a Augment>,
    /// Those that are repeats; `None`: as the others.
    pub repeats: Option<&'a Augment>,
}

impl Augmentation<'_> {
    fn is_identity(&self) -> bool {
        [self.images, self.repeats].into_iter().flatten().all(Augment::is_identity)
    }
}

/// `augmentation` goes with the node of seed and step.
pub(super) fn record_batch(
    g: &mut Graph,
    images: &DeviceImages,
    batch: usize,
    (mean, std): (&[f32], &[f32]),
    augmentation: Option<(Augmentation<'_>, NodeId)>,
) -> Result<Batch, TrainError> {
    g.set_scope("batch");
    let indices = g.input("indices", Spec::u32([batch]));
    let (pixels, chosen, streamed) = match &images.pixels {
        Some(pixels) => (g.var("images", pixels.clone()), indices, None),
        None => {
            let [c, h, w] = images.image;
            let pixels = g.input("images of the batch", Spec::u8([batch, c, h, w]));
            let all = g.input("all of the batch", Spec::u32([batch]));
            (pixels, all, Some((pixels, all)))
        }
    };
    let (x, repeats) = match augmentation.filter(|(a, _)| !a.is_identity()) {
        None => (g.gather_images(pixels, chosen, mean, std)?, None),
        Some((a, rng)) => {
            let repeats = a.repeats.map(|_| g.input("repeats", Spec::u32([batch])));
            let op = AugmentImages {
                mean: mean.to_vec(),
                std: std.to_vec(),
                augment: a.images.cloned().unwrap_or_default(),
                repeats: a.repeats.cloned(),
            };
            (g.augment_images(op, [pixels, chosen, rng], repeats)?, repeats)
        }
    };
    let labels = g.var("labels", images.labels.clone());
    let labels = g.gather_labels(labels, indices)?;
    g.set_scope("");
    Ok(Batch { feed: Feed { indices, streamed, features: None, repeats }, x, labels })
}

impl Feed {
    pub fn set(
        &self,
        executor: &mut dyn Executor,
        p: Program,
        chosen: &[u32],
        host: Host<'_>,
    ) -> Result<(), ExecError> {
        let n = chosen.len();
        if let (Some((node, len)), Some(all)) = (self.features, host.features) {
            let row = |&i: &u32| all.get(i as usize * len..(i as usize + 1) * len).unwrap_or_default();
            let rows: Vec<f32> = chosen.iter().flat_map(row).copied().collect();
            executor.set(p, node, &Tensor::f32([n, len], rows).expect("a row an image"))?;
        }
        let host = host.images;
        let tensor = |data| Tensor::new([n], data).expect("as many numbers as images");
        executor.set(p, self.indices, &tensor(Data::U32(chosen.to_vec())))?;
        if let Some((pixels, all)) = self.streamed {
            let bytes: Vec<u8> =
                chosen.iter().flat_map(|&i| host.image(i as usize).unwrap_or_default().iter().copied()).collect();
            let shape = [n, host.channels, host.height, host.width];
            executor.set(p, pixels, &Tensor::new(shape, Data::U8(bytes)).expect("whole images"))?;
            executor.set(p, all, &tensor(Data::U32((0..n as u32).collect())))?;
        }
        Ok(())
    }
}
