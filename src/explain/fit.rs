//! What is cut of an explanation that would be longer than its limit.
//!
//! Two things grow: what is told of the layers, for which there are [`CAPS`], and the maps over the image ([`Overlays`]), of which there are
//! two for each class at each convolution, however large. Large maps are shrunk before layers lose much, because a screen shows no more of
//! them; but they are left exact where there is room.

use super::ExplainError;
use super::encode::{Floats, factor, shrink};
use super::layers::{CAPS, Caps, Material, assemble};
use super::path::PathView;
use super::view::{CamView, Explanation, SaliencyView};

/// Longest sides of the maps over the image, in pixels: the first that fits is taken.
const SIDES: [usize; 11] = [usize::MAX, 256, 192, 128, 96, 64, 48, 32, 24, 16, 8];

/// Fifths of the limit that the maps over the image may take before they are shrunk rather than layers cut.
const FIFTHS: usize = 2;

/// The maps over the image as they were computed.
struct Overlays {
    cams: Vec<CamView>,
    saliency: Vec<SaliencyView>,
    paths: Vec<PathView>,
}

impl Overlays {
    fn of(whole: &Explanation) -> Self {
        Self { cams: whole.cams.clone(), saliency: whole.saliency.clone(), paths: whole.paths.clone() }
    }

    /// Puts them into an explanation with no side longer than `most`.
    fn put(&self, most: usize, whole: &mut Explanation) {
        let image = [whole.image.height, whole.image.width];
        let by = factor(image, most);
        whole.cams = self.cams.iter().map(|cam| shrunk_cam(cam, most)).collect();
        let saliency = |s: &SaliencyView| SaliencyView { class: s.class, shrunk: by, map: s.map.shrunk(image, by) };
        whole.saliency = self.saliency.iter().map(saliency).collect();
        let path = |p: &PathView| PathView { shrunk: by, image: p.image.shrunk(image, by), ..p.clone() };
        whole.paths = self.paths.iter().map(path).collect();
    }
}

fn shrunk_cam(cam: &CamView, most: usize) -> CamView {
    let size = [cam.height, cam.width];
    let by = factor(size, most);
    let [height, width] = size.map(|n| n.div_ceil(by));
    let small = |map: &Floats| Floats(shrink(&map.0, size, by));
    CamView { height, width, shrunk: by, values: small(&cam.values), hires: small(&cam.hires), ..*cam }
}

/// Adds the layers with as much detail as the limit allows, and shrinks the maps over the image where they leave too little of it. What
/// is longer than the limit even so is given nevertheless, with a note.
pub(super) fn fit(mut whole: Explanation, material: &Material<'_>) -> Result<Explanation, ExplainError> {
    let limit = material.request.bytes;
    if fits(&mut whole, material, &CAPS[0])? {
        return Ok(whole);
    }
    let overlays = Overlays::of(&whole);
    let mut sides = SIDES.into_iter();
    for side in sides.by_ref() {
        overlays.put(side, &mut whole);
        if serde_json::to_vec(&(&whole.cams, &whole.saliency, &whole.paths))?.len() <= limit / 5 * FIFTHS {
            break;
        }
    }
    // The first was tried above, but perhaps with larger maps.
    for caps in &CAPS {
        if fits(&mut whole, material, caps)? {
            return Ok(whole);
        }
    }
    let least = &CAPS[CAPS.len() - 1];
    for side in sides {
        overlays.put(side, &mut whole);
        if fits(&mut whole, material, least)? {
            return Ok(whole);
        }
    }
    let length = serde_json::to_vec(&whole)?.len();
    whole.notes.push(format!(
        "This explanation has {} kB, more than the {} kB that it was to keep to: the image itself and the facts of all layers take so \
         much, with everything else cut to the least.",
        length.div_ceil(1000),
        limit / 1000
    ));
    Ok(whole)
}

/// Adds the layers with the detail of `caps`, and the notes; whether that keeps to the limit.
fn fits(whole: &mut Explanation, material: &Material<'_>, caps: &Caps) -> Result<bool, ExplainError> {
    (whole.layers, whole.notes) = assemble(material, caps)?;
    whole.notes.extend(remarks(whole, caps));
    Ok(serde_json::to_vec(whole)?.len() <= material.request.bytes)
}

/// What a reader should know about the numbers.
fn remarks(whole: &Explanation, caps: &Caps) -> Vec<String> {
    let shrunk = |cam: &CamView| cam.shrunk > 1;
    let exact =
        if whole.cams.iter().any(shrunk) { "those Grad-CAM maps that are not shrunk" } else { "the Grad-CAM maps" };
    let mut notes = vec![
        format!(
            "Pictures of feature maps, filters and saliency are rounded to 256 steps of their own range. The numbers of the stepped \
             convolution and of {exact} are the executor's own f32, bit by bit."
        ),
        "Units are called silent where they give 0 everywhere on this one image; on others they may speak.".to_owned(),
    ];
    let all = whole.model.classes.len();
    if whole.classes.len() < all {
        notes.push(format!(
            "Maps are made for {} of the {all} classes: the target and the likeliest.",
            whole.classes.len()
        ));
    }
    if let Some(largest) = whole.layers.iter().filter_map(|l| l.maps.as_ref()).map(|m| m.shrunk).max()
        && largest > 1
    {
        notes.push(format!(
            "Feature maps of more than {} pixels a side are shown shrunk, each pixel the mean of a square.",
            caps.map_side
        ));
    }
    let mut layers: Vec<usize> = whole.cams.iter().filter(|cam| shrunk(cam)).map(|cam| cam.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    if !layers.is_empty() {
        let names: Vec<&str> = layers.iter().map(|&layer| whole.layers[layer].name.as_str()).collect();
        notes.push(format!(
            "Grad-CAM and HiResCAM of {} are shown shrunk, each pixel the mean of a square: all of their numbers would not fit onto \
             this page.",
            names.join(", ")
        ));
    }
    if let Some(by) = whole.saliency.iter().map(|s| s.shrunk).max().filter(|&by| by > 1) {
        notes.push(format!(
            "Saliency and the picture of the strongest path are shown shrunk, each pixel the mean of {by} x {by} of the image's."
        ));
    }
    notes
}
