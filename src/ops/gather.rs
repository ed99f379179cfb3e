//! `gather_images` and `gather_labels`: a batch, picked by index from a data set that lies on the device.
//!
//! `gather_images: y[b,c,i,j] = (x[k[b],c,i,j] / 255 - mean[c]) / std[c]` for bytes `x [D, C, H, W]` and indices `k [B]`, as
//! `torchvision.transforms.Normalize` after `ToTensor`. `gather_labels: y[b] = t[k[b]]`.
//!
//! Pixels, labels and indices have no derivative. The sampler draws indices below D; a kernel takes one that is not as
//! D - 1, so that nothing is read out of place.
//!
//! Bytes lie four to a word on the GPU, the first in the lowest bits. Kernels: `plain`, one invocation a pixel; `words`, where
//! an image fills whole words, one invocation a word, which is four pixels.

use rayon::prelude::*;

use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::cpu::fast;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, ShapeError, Spec, arity};

/// Picks and normalises images.
#[derive(Clone, Debug)]
pub struct GatherImages {
    /// What is taken from each channel, in units of the full scale.
    pub mean: Vec<f32>,
    /// What each channel is divided by, in units of the full scale.
    pub std: Vec<f32>,
}

/// Picks labels.
#[derive(Clone, Copy, Debug)]
pub struct GatherLabels;

impl<T: Real> Kernel<T> for GatherImages {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (pixels, indices) = (cx.u8(0), cx.u32(1));
        let [count, c, h, w] = cx.specs[0].shape.nchw().unwrap_or([1; 4]);
        let last = (count - 1) as u32;
        if let Some(out) = cx.fast_out() {
            let indices: Vec<u32> = indices.iter().map(|&i| i.min(last)).collect();
            let image = fast::ImageBatch { c, h, w };
            fast::gather_normalise(pixels, &indices, &self.mean, &self.std, image, out);
            return;
        }
        let plane = h * w;
        cx.out().par_chunks_mut(plane).enumerate().for_each(|(i, out)| {
            let (b, channel) = (i / c, i % c);
            let start = (indices[b].min(last) as usize * c + channel) * plane;
            let mean = T::of(f64::from(self.mean[channel]));
            let std = T::of(f64::from(self.std[channel]));
            for (out, &byte) in out.iter_mut().zip(&pixels[start..start + plane]) {
                *out = (T::of(f64::from(byte)) / T::of(255.0) - mean) / std;
            }
        });
    }
}

impl<T: Real> Kernel<T> for GatherLabels {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (labels, indices) = (cx.u32(0), cx.u32(1));
        let last = labels.len() - 1;
        for (out, &i) in cx.out_u32().iter_mut().zip(indices) {
            *out = labels[(i as usize).min(last)];
        }
    }
}

/// The length of a vector of indices.
pub(super) fn batch(op: &'static str, indices: &Spec) -> Result<usize, ShapeError> {
    match *indices.shape {
        [b] if indices.dtype == DType::U32 => Ok(b),
        _ => Err(ShapeError::invalid(op, "the indices must be u32 [B]", indices)),
    }
}

impl Op for GatherImages {
    fn name(&self) -> &'static str {
        "gather_images"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        let pixels = inputs[0];
        let dims = pixels.shape.nchw().filter(|_| pixels.dtype == DType::U8 && pixels.numel() > 0);
        let Some([_, c, h, w]) = dims else {
            let what = "the images must be u8 [D, C, H, W] with at least one image and one pixel";
            return Err(ShapeError::invalid(self.name(), what, pixels));
        };
        if u32::try_from(pixels.numel()).is_err() {
            let what = "kernels address bytes with 32 bits: the images must take less than 4 GiB";
            return Err(ShapeError::invalid(self.name(), what, pixels));
        }
        if self.mean.len() != c || self.std.len() != c {
            let (m, s) = (self.mean.len(), self.std.len());
            let what = format!("needs a mean and a deviation for each channel, got {m} and {s}");
            return Err(ShapeError::invalid(self.name(), what, pixels));
        }
        let usable = |(m, s): (&f32, &f32)| m.is_finite() && s.is_finite() && *s > 0.0;
        if !self.mean.iter().zip(&self.std).all(usable) {
            let what = "means must be finite and deviations above 0";
            return Err(ShapeError::invalid(self.name(), what, pixels));
        }
        Ok(Spec::float([batch(self.name(), inputs[1])?, c, h, w]))
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        if image_size(cx).is_multiple_of(4) { vec![PLAIN, "words"] } else { vec![PLAIN] }
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let dims = &cx.inputs[0].shape;
        let (size, pixels) = (image_size(cx), cx.output.numel());
        let consts = vec![
            ("IMAGES", Const::Loose(dims[0] as u32)),
            ("SIZE", Const::U(size as u32)),
            ("PLANE", Const::U((dims[2] * dims[3]) as u32)),
            ("CHANNELS", Const::U(dims[1] as u32)),
            ("MEAN", Const::Formula(choice(&self.mean))),
            ("STD", Const::Formula(choice(&self.std))),
        ];
        let (entry, count) = match cx.variant {
            PLAIN => ("forward", pixels),
            _ => ("words", pixels / 4),
        };
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Output];
        let d = Dispatch::elementwise("gather_images.wgsl", entry, count, args, consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }

    fn flops(&self, _: &[&Spec], output: &Spec) -> u64 {
        3 * output.numel() as u64
    }
}

/// Bytes of an image.
pub(super) fn image_size(cx: &LowerCx) -> usize {
    cx.inputs[0].shape[1..].iter().product()
}

/// WGSL for `values[c]`. A module cannot index a constant array at run time on every driver; a choice it can make.
pub(super) fn choice(values: &[f32]) -> String {
    let literal = |v: f32| format!("f32({v:e})");
    let Some((&last, rest)) = values.split_last() else {
        return literal(0.0);
    };
    rest.iter()
        .enumerate()
        .rev()
        .fold(literal(last), |other, (c, &v)| format!("select({other}, {}, c == {c}u)", literal(v)))
}

impl Op for GatherLabels {
    fn name(&self) -> &'static str {
        "gather_labels"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        let labels = inputs[0];
        if labels.shape.len() != 1 || labels.dtype != DType::U32 || labels.numel() == 0 {
            let what = "the labels must be u32 [D], D at least 1";
            return Err(ShapeError::invalid(self.name(), what, labels));
        }
        Ok(Spec::u32([batch(self.name(), inputs[1])?]))
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let consts = vec![("LABELS", Const::U(cx.inputs[0].numel() as u32))];
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Output];
        let count = cx.output.numel();
        let d = Dispatch::elementwise("gather_labels.wgsl", "forward", count, args, consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }
}

impl Graph {
    /// The images of `pixels` (u8 `[D, C, H, W]`) that `indices` (u32 `[B]`) name, as floats `[B, C, H, W]`:
    /// `(byte / 255 - mean[c]) / std[c]`.
    ///
    /// # Errors
    /// The tensors have other types or ranks, there is no image, or `mean` and `std` do not have C usable numbers.
    pub fn gather_images(
        &mut self,
        pixels: NodeId,
        indices: NodeId,
        mean: &[f32],
        std: &[f32],
    ) -> Result<NodeId, ShapeError> {
        let (mean, std) = (mean.to_vec(), std.to_vec());
        self.apply(GatherImages { mean, std }, &[pixels, indices])
    }

    /// The labels (of u32 `[D]`) that `indices` (u32 `[B]`) name, u32 `[B]`.
    ///
    /// # Errors
    /// The tensors have other types or ranks, or there is no label.
    pub fn gather_labels(&mut self, labels: NodeId, indices: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(GatherLabels, &[labels, indices])
    }
}

/// Samples of `gather_images`.
#[must_use]
pub fn image_samples() -> Vec<Sample> {
    let s = |what: &str, dims: [usize; 4], b: usize, bound: u32| {
        let inputs = vec![sample::bytes(&dims), sample::words(&[b], Fill::Below(bound))];
        Sample::new(what, inputs, move |g, x| {
            let channels = dims[1];
            let mean: Vec<f32> = (0..channels).map(|c| 0.4 + 0.05 * c as f32).collect();
            let std: Vec<f32> = (0..channels).map(|c| 0.2 + 0.03 * c as f32).collect();
            g.gather_images(x[0], x[1], &mean, &std)
        })
    };
    vec![
        s("one pixel", [1, 1, 1, 1], 1, 1),
        s("one channel, whole words", [5, 1, 6, 6], 7, 5),
        s("three channels, planes that share words", [4, 4, 3, 5], 3, 4),
        s("images that begin inside a word", [7, 3, 5, 3], 9, 7),
        s("indices past the end", [3, 2, 2, 3], 8, 9),
        s("more than 65,535 workgroups", [5, 1, 61, 67], 1027, 5).large(),
        s("more than 65,535 workgroups of words", [3, 1, 128, 128], 1025, 3).large(),
    ]
}

/// Samples of `gather_labels`.
#[must_use]
pub fn label_samples() -> Vec<Sample> {
    let s = |what: &str, d: usize, b: usize, bound: u32| {
        let inputs = vec![sample::words(&[d], Fill::Below(1000)), sample::words(&[b], Fill::Below(bound))];
        Sample::new(what, inputs, |g, x| g.gather_labels(x[0], x[1]))
    };
    vec![s("one", 1, 1, 1), s("not a multiple of 64", 100, 65, 100), s("indices past the end", 5, 20, 12)]
}
