//! Maps over the image: Grad-CAM, saliency, and what brings a small map to the image's size.
//!
//! Grad-CAM (Selvaraju et al. 2017): with the feature maps `A^k` of a layer and the logit `z` of a class,
//! `alpha_k = mean over pixels of dz/dA^k` and `L = max(sum over k of alpha_k A^k, 0)`. It is taken behind the activation of
//! a convolution, as the paper does.
//!
//! The mean over pixels takes a gradient to be alike everywhere, as it is where a global mean follows. A dense layer on all pixels weighs
//! each place by itself, and then the mean says little: HiResCAM (Draelos and Carin 2020, arXiv 2011.08891) leaves it out,
//! `L = max(sum over k of dz/dA^k A^k, 0)`. In front of a global mean both are the same.

use crate::nn::plan::{Action, Step};
use crate::nn::spec::Activation;
use crate::nn::{Layer, Model};

/// A layer whose maps can be laid over the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its step: what follows a convolution without changing the shape (norm, sum, activation), or the convolution itself.
    pub step: usize,
    /// Channels, height and width.
    pub shape: [usize; 3],
}

/// The steps that read the output of `step`.
fn readers(steps: &[Step], step: usize) -> impl Iterator<Item = usize> + '_ {
    (0..steps.len()).filter(move |&s| steps[s].inputs.contains(&(step + 1)))
}

/// A layer that belongs to the convolution in front of it.
fn follows(step: &Step) -> bool {
    match &step.action {
        Action::Layer(Layer::BatchNorm | Layer::Dropout { .. }) | Action::Add => true,
        Action::Layer(Layer::Activation(a)) => *a != Activation::Softmax,
        _ => false,
    }
}

/// From a convolution to the end of what belongs to it.
fn end_of(steps: &[Step], conv: usize) -> usize {
    let mut at = conv;
    loop {
        let mut next = readers(steps, at);
        match (next.next(), next.next()) {
            (Some(next), None) if follows(&steps[next]) && steps[next].output == steps[at].output => at = next,
            _ => return at,
        }
    }
}

/// One place a convolution, in order, and as the last one the layer in front of the network's last pooling or flattening, which
/// Grad-CAM takes unless told otherwise.
#[must_use]
pub fn places(model: &Model) -> Vec<Place> {
    let steps = model.steps();
    let image = |step: usize| <[usize; 3]>::try_from(steps[step].output.dims()).ok();
    let conv = |s: &Step| matches!(s.action, Action::Layer(Layer::Conv { .. }));
    let convs = (0..steps.len()).filter(|&i| conv(&steps[i]));
    let mut ends: Vec<usize> = convs.clone().map(|i| end_of(steps, i)).collect();
    let pool = |s: &Step| {
        matches!(s.action, Action::Layer(Layer::Pool { .. } | Layer::AdaptiveAvgPool { .. } | Layer::Flatten))
    };
    if let Some(first) = convs.min() {
        let last = (first..steps.len()).rev().find(|&i| image(i).is_some() && !pool(&steps[i]));
        ends.extend(last.filter(|last| ends.iter().all(|end| end < last)));
    }
    ends.sort_unstable();
    ends.dedup();
    ends.into_iter().filter_map(|step| Some(Place { step, shape: image(step)? })).collect()
}

/// Grad-CAM from a layer's activations and the gradients of a logit by them, both `[c, h, w]`: `h * w` numbers, none below 0.
#[must_use]
pub fn grad_cam(activations: &[f32], gradients: &[f32], [c, h, w]: [usize; 3]) -> Vec<f32> {
    let plane = (h * w).max(1);
    let mut map = vec![0.0f64; h * w];
    for k in 0..c {
        let part = k * plane..(k + 1) * plane;
        let alpha = gradients[part.clone()].iter().map(|&g| f64::from(g)).sum::<f64>() / plane as f64;
        for (sum, &a) in map.iter_mut().zip(&activations[part]) {
            *sum += alpha * f64::from(a);
        }
    }
    map.into_iter().map(|v| v.max(0.0) as f32).collect()
}

/// HiResCAM: gradient times activation at each pixel, summed over the channels of `[c, h, w]`; `h * w` numbers, none below 0.
#[must_use]
pub fn hires_cam(activations: &[f32], gradients: &[f32], [c, h, w]: [usize; 3]) -> Vec<f32> {
    let plane = h * w;
    let at = |p: usize| {
        (0..c).map(|k| f64::from(activations[k * plane + p]) * f64::from(gradients[k * plane + p])).sum::<f64>()
    };
    (0..plane).map(|p| at(p).max(0.0) as f32).collect()
}

/// Whether a dense layer weighs the places of the last maps by themselves: behind them, more than one pixel is flattened.
#[must_use]
pub fn by_place(model: &Model) -> bool {
    let steps = model.steps();
    let pixels = |step: &Step| match step.inputs[0].checked_sub(1) {
        Some(at) => steps[at].output[1..].iter().product::<usize>(),
        None => model.input()[1..].iter().product(),
    };
    steps.iter().any(|s| matches!(s.action, Action::Layer(Layer::Flatten)) && pixels(s) > 1)
}

/// `|d logit / d pixel|` for grey levels 0 to 255, the largest of the channels: `h * w` numbers. `gradient` is that by the normalised
/// image `[c, h, w]`.
#[must_use]
pub fn saliency(gradient: &[f32], std: &[f32], [c, h, w]: [usize; 3]) -> Vec<f32> {
    let plane = h * w;
    let at = |k: usize, p: usize| (gradient[k * plane + p] / (255.0 * std[k])).abs();
    (0..plane).map(|p| (0..c).map(|k| at(k, p)).fold(0.0, f32::max)).collect()
}

/// A map of `from` pixels at `to` pixels, bilinear between the centres, as PyTorch's `interpolate(align_corners=False)`; each pair is
/// `[height, width]`.
#[must_use]
pub fn upsample(map: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let axis = |k: usize| -> Vec<(usize, usize, f64)> {
        let scale = from[k] as f64 / to[k] as f64;
        (0..to[k])
            .map(|i| {
                let at = ((i as f64 + 0.5) * scale - 0.5).max(0.0);
                let low = (at as usize).min(from[k].saturating_sub(1));
                (low, (low + 1).min(from[k].saturating_sub(1)), at - low as f64)
            })
            .collect()
    };
    let (rows, columns) = (axis(0), axis(1));
    let value = |r: usize, c: usize| f64::from(map[r * from[1] + c]);
    let mut out = Vec::with_capacity(to[0] * to[1]);
    for &(r0, r1, tr) in &rows {
        for &(c0, c1, tc) in &columns {
            let top = value(r0, c0) * (1.0 - tc) + value(r0, c1) * tc;
            let bottom = value(r1, c0) * (1.0 - tc) + value(r1, c1) * tc;
            out.push((top * (1.0 - tr) + bottom * tr) as f32);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let model = Model::new(text, [1, 32, 32], 2).unwrap();
        places(&model).iter().map(|p| model.steps()[p.step].name.clone()).collect()
    }

    #[test]
    fn maps_are_taken_behind_the_activation() {
        assert_eq!(names("cnn3"), ["relu1", "relu2", "relu3"]);
        assert_eq!(names("conv4-bn-pool-conv4nb-flatten-dense2"), ["bn1", "conv2"]);
        assert_eq!(names("mlp"), Vec::<String>::new());
        // Behind the sum of a residual block, and once for both of its sides.
        assert_eq!(
            names("conv4-relu-[conv4-relu-conv4-bn]+[conv4k1]-relu-gap-flatten-dense2"),
            ["relu1", "relu2", "relu3"]
        );
        // The last layer of a dense block holds few of the channels that the head sees.
        assert_eq!(names("conv4-[relu-conv4]++-bn-relu-gap-flatten-dense2"), ["conv1", "conv2", "relu2"]);
    }

    #[test]
    fn grad_cam_weighs_maps_by_their_mean_gradient() {
        let a = [1.0, 2.0, 3.0, 4.0, /**/ 1.0, 0.0, 0.0, 1.0];
        let g = [0.5, 0.5, 0.5, 0.5, /**/ -8.0, 0.0, 0.0, 0.0];
        assert_eq!(grad_cam(&a, &g, [2, 2, 2]), [0.0, 1.0, 1.5, 0.0]);
        assert_eq!(hires_cam(&a, &g, [2, 2, 2]), [0.0, 1.0, 1.5, 2.0]);
        let flat = [0.5, 0.5, 0.5, 0.5, /**/ -2.0, -2.0, -2.0, -2.0];
        assert_eq!(grad_cam(&a, &flat, [2, 2, 2]), hires_cam(&a, &flat, [2, 2, 2]));
    }

    #[test]
    fn a_dense_layer_on_pixels_weighs_places() {
        let by_place = |text: &str| by_place(&Model::new(text, [1, 8, 8], 2).unwrap());
        assert!(by_place("cnn2") && by_place("mlp"));
        assert!(!by_place("conv4-relu-gap-flatten-dense2") && !by_place("conv4k8p0-flatten-bn-dense2"));
    }

    #[test]
    fn upsampling_keeps_constants_means_and_places() {
        assert_eq!(upsample(&[3.0; 6], [2, 3], [5, 7]), vec![3.0; 35]);
        assert_eq!(upsample(&[0.0, 1.0], [1, 2], [1, 4]), [0.0, 0.25, 0.75, 1.0]);
        let mut peak = vec![0.0; 16];
        peak[6] = 1.0;
        let large = upsample(&peak, [4, 4], [16, 16]);
        let at = crate::explain::argmax(large.iter().map(|&v| f64::from(v)));
        // Row 1, column 2 of four: rows 4 to 7, columns 8 to 11 of sixteen.
        assert!((4..8).contains(&(at / 16)) && (8..12).contains(&(at % 16)), "{at}");
    }

    #[test]
    fn saliency_is_of_grey_levels() {
        let map = saliency(&[-2.55, 0.0, 5.1, 1.0], &[0.5, 0.25], [2, 1, 2]);
        assert!((map[0] - 0.08).abs() < 1e-7 && (map[1] - 1.0 / 63.75).abs() < 1e-7, "{map:?}");
    }
}
