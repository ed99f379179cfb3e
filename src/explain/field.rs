//! Where in the image a pixel of a feature map looks.
//!
//! [`crate::nn::plan::Field`] has the size and the stride; here is where the first one begins. The field of pixel `(i, j)` is
//! `start + (i, j) * stride`, `size` pixels large; what lies outside of the image is padding.

use serde::Serialize;

use crate::nn::plan::{Action, Step};
use crate::nn::{Layer, Model};

/// The receptive field of a layer's output, each pair `[rows, columns]` in pixels of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FieldView {
    /// What one output pixel sees, padding counted in.
    pub size: [usize; 2],
    /// How far apart the fields of neighbours lie.
    pub stride: [usize; 2],
    /// Upper left pixel of the first one's field; negative inside the padding.
    pub start: [i64; 2],
}

/// The fields of all steps; `None` where each output sees the whole image.
#[must_use]
pub fn fields(model: &Model) -> Vec<Option<FieldView>> {
    // Start and stride of each value: the network's input, then the steps' outputs.
    let mut at: Vec<Option<([i64; 2], [usize; 2])>> = vec![Some(([0, 0], [1, 1]))];
    let mut out = Vec::with_capacity(model.steps().len());
    for step in model.steps() {
        let inputs: Option<Vec<_>> = step.inputs.iter().map(|&i| at[i]).collect();
        let place = inputs.zip(step.field).map(|(inputs, field)| {
            let start = inputs.iter().map(|(start, stride)| begin(step, *start, *stride)).reduce(|a, b| {
                // Of two sides the one that sees more begins earlier.
                [0, 1].map(|k| a[k].min(b[k]))
            });
            (start.unwrap_or_default(), field)
        });
        at.push(place.map(|(start, field)| (start, field.stride)));
        out.push(place.map(|(start, field)| FieldView { size: field.size, stride: field.stride, start }));
    }
    out
}

/// Where the first window of a step begins, whose input begins at `start` and moves by `stride`.
fn begin(step: &Step, start: [i64; 2], stride: [usize; 2]) -> [i64; 2] {
    let padding = match &step.action {
        Action::Layer(Layer::Conv { conv, .. }) => conv.padding,
        Action::Layer(Layer::Pool { window, .. }) => window.padding,
        _ => [0, 0],
    };
    [0, 1].map(|k| start[k] - (padding[k] * stride[k]) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str, name: &str) -> FieldView {
        let model = Model::new(text, [1, 32, 32], 2).unwrap();
        let at = model.steps().iter().position(|s| s.name == name).unwrap();
        fields(&model)[at].unwrap()
    }

    #[test]
    fn fields_begin_in_the_padding() {
        let cnn = "conv4-relu-pool-conv4k5-pool-flatten-dense2";
        assert_eq!(field(cnn, "conv1"), FieldView { size: [3, 3], stride: [1, 1], start: [-1, -1] });
        assert_eq!(field(cnn, "pool1"), FieldView { size: [4, 4], stride: [2, 2], start: [-1, -1] });
        // Two pixels of padding, two image pixels each, in front of what begins at -1.
        assert_eq!(field(cnn, "conv2"), FieldView { size: [12, 12], stride: [2, 2], start: [-5, -5] });
        assert_eq!(field("conv4k2s2p0-flatten-dense2", "conv1").start, [0, 0]);
    }

    #[test]
    fn a_block_sees_what_its_wider_side_sees() {
        let text = "[conv4-conv4]+[conv4k1]-flatten-dense2";
        assert_eq!(field(text, "add1"), FieldView { size: [5, 5], stride: [1, 1], start: [-2, -2] });
        let model = Model::new(text, [1, 8, 8], 2).unwrap();
        assert_eq!(fields(&model).last(), Some(&None));
    }
}
