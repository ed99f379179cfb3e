//! What augmentation makes of images, to be looked at before a training.

use std::sync::Arc;

use super::TrainError;
use super::step::Augmentation;
use crate::data::Images;
use crate::exec::Executor;
use crate::graph::Graph;
use crate::ops::augment::AugmentImages;
use crate::report::sheet::Sheet;
use crate::rng::{Rng, Stream};
use crate::shape::Spec;
use crate::store::ParamStore;
use crate::tensor::{Data, Tensor};

/// Pictures on a contact sheet are magnified until they have so many pixels a side.
const SHOWN: usize = 128;

/// Images of each class in turn, drawn at random; fewer where there are not so many.
#[must_use]
pub fn choose(images: &Images, classes: usize, n: usize, seed: u32) -> Vec<usize> {
    let mut rng = Rng::new(seed, 0, Stream::Sample as u32);
    let mut members = vec![Vec::new(); classes.max(1)];
    for (i, &label) in images.labels.iter().enumerate() {
        members[label as usize % classes.max(1)].push(i);
    }
    members.iter_mut().for_each(|m| rng.shuffle(m));
    let longest = members.iter().map(Vec::len).max().unwrap_or(0);
    let turns = (0..longest).flat_map(|k| members.iter().filter_map(move |m| m.get(k).copied()));
    turns.take(n).collect()
}

/// A contact sheet of some of the images: a row each, first the image as it is, then `draws` pictures that a training could
/// see; behind them, where repeats are augmented otherwise, as many as it could see of a repeat. The pictures come from the kernels
/// that a training runs.
///
/// # Errors
/// A setting out of its range, or the device failed.
pub fn sheet(
    executor: &mut dyn Executor,
    images: &Images,
    chosen: &[usize],
    augmentation: Augmentation<'_>,
    draws: usize,
    seed: u32,
) -> Result<Sheet, TrainError> {
    let size = [images.height, images.width];
    let columns = draws * if augmentation.repeats.is_some() { 2 } else { 1 };
    let pixels: Vec<u8> = chosen.iter().flat_map(|&i| images.image(i).unwrap_or_default().iter().copied()).collect();
    let pictures = if chosen.is_empty() || columns == 0 {
        Vec::new()
    } else {
        run(executor, images, (&pixels, chosen.len()), augmentation, [draws, columns], seed)?
    };
    let stride = images.stride();
    let rows = pixels
        .chunks_exact(stride.max(1))
        .enumerate()
        .map(|(r, original)| {
            let drawn = pictures.chunks_exact(stride).skip(r * columns).take(columns).map(<[u8]>::to_vec);
            std::iter::once(original.to_vec()).chain(drawn).collect()
        })
        .collect();
    let scale = (SHOWN / images.height.max(images.width).max(1)).max(1);
    Ok(Sheet { channels: images.channels, size, scale, rows })
}

/// The pictures of all rows, one after the other, as bytes.
fn run(
    executor: &mut dyn Executor,
    images: &Images,
    (pixels, n): (&[u8], usize),
    augmentation: Augmentation<'_>,
    [draws, columns]: [usize; 2],
    seed: u32,
) -> Result<Vec<u8>, TrainError> {
    let (mean, _) = images.mean_std();
    let batch = n * columns;
    let whole = "as many numbers as the shape says";
    let spec = Spec::u8([n, images.channels, images.height, images.width]);
    let value = Tensor::new(spec.shape.clone(), Data::U8(pixels.to_vec())).ok();
    let mut store = ParamStore::new();
    let var = store.add_var("images", spec, value);
    let mut g = Graph::new();
    let rng = g.input("seed and step", Spec::u32([2]));
    let indices = g.input("indices", Spec::u32([batch]));
    let repeats = augmentation.repeats.map(|_| g.input("repeats", Spec::u32([batch])));
    let source = g.var("images", var);
    // Divided by 1, the result is the pixel less the mean.
    let op = AugmentImages {
        mean: mean.clone(),
        std: vec![1.0; images.channels],
        augment: augmentation.images.cloned().unwrap_or_default(),
        repeats: augmentation.repeats.cloned(),
    };
    let drawn = g.augment_images(op, [source, indices, rng], repeats)?;
    executor.load(&store)?;
    let program = executor.compile(&Arc::new(g), &[drawn])?;
    let words = |v: Vec<u32>| Tensor::new([v.len()], Data::U32(v)).expect(whole);
    executor.set(program, rng, &words(vec![seed, 0]))?;
    executor.set(program, indices, &words((0..batch).map(|k| (k / columns) as u32).collect()))?;
    if let Some(repeats) = repeats {
        executor.set(program, repeats, &words((0..batch).map(|k| u32::from(k % columns >= draws)).collect()))?;
    }
    executor.run(program)?;
    let values = executor.read(program, drawn)?.to_f32();
    executor.release(program);
    let plane = images.height * images.width;
    let byte =
        |(at, v): (usize, f32)| ((v + mean[at / plane % images.channels]) * 255.0).round().clamp(0.0, 255.0) as u8;
    Ok(values.into_iter().enumerate().map(byte).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::ops::augment::{Augment, settings::Chance};

    fn images() -> Images {
        Images {
            channels: 3,
            height: 2,
            width: 4,
            pixels: (0..5 * 24).map(|v| (v * 2) as u8).collect(),
            labels: vec![0, 0, 0, 1, 0],
            names: (0..5).map(|i| i.to_string()).collect(),
            patients: (0..5).map(|i| i.to_string()).collect(),
        }
    }

    #[test]
    fn classes_take_turns() {
        let chosen = choose(&images(), 2, 4, 1);
        assert_eq!((chosen.len(), images().labels[chosen[0]], chosen[1]), (4, 0, 3));
        assert_eq!(choose(&images(), 2, 100, 1).len(), 5);
    }

    #[test]
    fn rows_begin_with_the_image_and_repeats_come_last() {
        let flip = Augment { hflip: Some(Chance { p: 1.0 }), ..Augment::default() };
        let images = images();
        let mut cpu = cpu::Executor::<f32>::fast();
        let augmentation = Augmentation { images: None, repeats: Some(&flip) };
        let sheet = sheet(&mut cpu, &images, &[3, 1], augmentation, 2, 0).unwrap();
        assert_eq!((sheet.rows.len(), sheet.rows[0].len(), sheet.scale), (2, 5, 32));
        for (row, i) in sheet.rows.iter().zip([3, 1]) {
            let original = images.image(i).unwrap();
            let mirrored: Vec<u8> = original.chunks(4).flat_map(|line| line.iter().rev().copied()).collect();
            assert!(row[..3].iter().all(|p| p == original));
            assert!(row[3..].iter().all(|p| *p == mirrored));
        }
    }
}
