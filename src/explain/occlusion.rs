//! Occlusion: what becomes of the answer when a part of the image is covered (Zeiler and Fergus 2014).
//!
//! A square of the image's mean grey moves over the image; the network answers anew at each place. Where the logit falls, there
//! was something that spoke for the class. Unlike a gradient, this asks the network itself, and it is slow: one pass for each place.

use std::sync::Arc;

use super::{ExplainError, Request};
use crate::exec::{ExecError, Executor};
use crate::graph::Graph;
use crate::nn::Mode;
use crate::shape::Spec;

/// Images in a pass, where the device has room for them.
const BATCH: usize = 32;

/// How the square moves, each pair `[rows, columns]` in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Size of the square: an eighth of the image, at least one pixel.
    pub patch: [usize; 2],
    /// Its step: half of its size.
    pub stride: [usize; 2],
    /// Places along each axis.
    pub places: [usize; 2],
}

impl Grid {
    /// For an image of so many rows and columns. The last square reaches the border or over it.
    #[must_use]
    pub fn of(size: [usize; 2]) -> Self {
        let patch = size.map(|n| n.div_ceil(8));
        let stride = patch.map(|p| p.div_ceil(2));
        let places = [0, 1].map(|k| (size[k] - patch[k]).div_ceil(stride[k]) + 1);
        Self { patch, stride, places }
    }
}

/// The logits at each place.
#[derive(Clone, Debug, PartialEq)]
pub struct Occluded {
    /// How the square moved.
    pub grid: Grid,
    /// What each channel was covered with, normalised.
    pub fill: Vec<f32>,
    /// The network's outputs, place by place, row by row.
    pub logits: Vec<Vec<f32>>,
}

/// Covers the image `x`, normalised, place by place.
///
/// # Errors
/// The device failed.
pub fn run(executor: &mut dyn Executor, request: &Request<'_>, x: &[f32]) -> Result<Occluded, ExplainError> {
    let [c, h, w] = request.model.input();
    let grid = Grid::of([h, w]);
    let plane = h * w;
    let mean = |k: usize| x[k * plane..(k + 1) * plane].iter().map(|&v| f64::from(v)).sum::<f64>() / plane as f64;
    let fill: Vec<f32> = (0..c).map(|k| mean(k) as f32).collect();
    let covered = |place: usize| {
        let mut x = x.to_vec();
        let top = place / grid.places[1] * grid.stride[0];
        let left = place % grid.places[1] * grid.stride[1];
        for (k, &grey) in fill.iter().enumerate() {
            for row in top..(top + grid.patch[0]).min(h) {
                let start = (k * h + row) * w;
                x[start + left..start + (left + grid.patch[1]).min(w)].fill(grey);
            }
        }
        x
    };
    let places = grid.places[0] * grid.places[1];
    let mut batch = BATCH.min(places);
    let logits = loop {
        match answers(executor, request, batch, places, &covered) {
            // What the device has no room for at once it may take in smaller steps.
            Err(ExplainError::Exec(ExecError::TooLarge { .. } | ExecError::OutOfMemory(_))) if batch > 1 => batch /= 2,
            other => break other?,
        }
    };
    Ok(Occluded { grid, fill, logits })
}

fn answers(
    executor: &mut dyn Executor,
    request: &Request<'_>,
    batch: usize,
    places: usize,
    covered: &dyn Fn(usize) -> Vec<f32>,
) -> Result<Vec<Vec<f32>>, ExplainError> {
    let [c, h, w] = request.model.input();
    let mut g = Graph::new();
    let spec = Spec::float([batch, c, h, w]);
    let x = g.input("images", spec.clone());
    let logits = request.model.forward(&mut g, request.store.params(), x, Mode::Eval)?.logits;
    let program = executor.compile(&Arc::new(g), &[logits])?;
    let mut out = Vec::with_capacity(places);
    for start in (0..places).step_by(batch) {
        // The last pass repeats the last place where there is no other.
        let images: Vec<f32> = (start..start + batch).flat_map(|p| covered(p.min(places - 1))).collect();
        executor.set(program, x, &super::pass::tensor(&spec, &images)?)?;
        executor.run(program)?;
        let rows = executor.read(program, logits)?.to_f32();
        let rows = rows.chunks_exact((rows.len() / batch).max(1)).map(<[f32]>::to_vec);
        out.extend(rows.take(places - start));
    }
    executor.release(program);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_square_reaches_every_pixel() {
        for n in 1..130 {
            let g = Grid::of([n, 64]);
            let last = (g.places[0] - 1) * g.stride[0];
            assert!(last < n && last + g.patch[0] >= n && g.stride[0] <= g.patch[0], "{n}: {g:?}");
            assert!(g.places[0] <= 17, "{n}: {g:?}");
        }
    }
}
