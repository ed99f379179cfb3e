//! A network as an ONNX model: operator set 17 and IR version 8, those of ONNX 1.12.
//!
//! What is written is the evaluation pass, a node for each planned layer ([`Model::steps`]) under the layer's own name, with the
//! parameters under those of the state_dict. The plan and not the recorded graph is the source because its layers are
//! ONNX's operators, one to one, while a recorded graph has the shapes of one batch size in it. Dropout does nothing there
//! and is left out.
//!
//! | name | what |
//! |---|---|
//! | `input` | floats `[N, C, H, W]`; `N` is free, the others are those that the network was planned for |
//! | `logits` | floats `[N, outputs]`, before softmax or sigmoid |
//! | `layer1.0.conv1`, `layer1.0.conv1/output` | a node and what it computes |
//! | `layer1.0.conv1.weight` | a parameter |
//!
//! A layer's name has no `/` and a parameter's always a dot, so no two values share a name, whatever a chain calls its layers.

pub mod proto;

use std::collections::BTreeMap;

use prost::Message;

use crate::nn::model::BATCH_NORM_EPS;
use crate::nn::plan::{Action, Step};
use crate::nn::spec::{Activation, Layer, PoolKind};
use crate::nn::{Head, Model};
use crate::ops::adaptive_avg_pool2d::window;
use crate::ops::pool2d::Pool2d;
use crate::store::ParamStore;
use proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// Name of the images.
pub const INPUT: &str = "input";
/// Name of the result.
pub const LOGITS: &str = "logits";
/// Name of the free axis.
pub const BATCH: &str = "N";
/// Version of the operators.
pub const OPSET: i64 = 17;
/// Version of the file format.
pub const IR_VERSION: i64 = 8;
const NOTICE: &str = "Software for study, not a medical device.";
/// Most bytes of a protocol buffer: sizes in it are signed numbers of 32 bits.
pub const MAX_BYTES: usize = i32::MAX as usize;

/// A network that cannot become an ONNX file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// Weights of another network.
    #[error("layer {layer}: the weights have no {name} of shape {shape}; choose the network that they belong to")]
    Parameter {
        /// The layer.
        layer: String,
        /// Its parameter.
        name: String,
        /// The shape that the layer needs.
        shape: String,
    },
    /// More than a file can hold.
    #[error("the network needs {bytes} bytes, and an ONNX file holds at most {MAX_BYTES}: write .safetensors instead")]
    TooLarge {
        /// Bytes that were needed.
        bytes: usize,
    },
}

/// An operator's name and its parameters.
type Operator = (&'static str, Vec<AttributeProto>);

/// How the images of a network are normalised, with one number a channel: `(pixel / 255 - mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pixels<'a> {
    /// Subtracted from `pixel / 255`.
    pub mean: &'a [f32],
    /// Divided by.
    pub std: &'a [f32],
    /// Whether the exported network does so itself, in its first two nodes, and takes pixels from 0 to 255.
    pub inside: bool,
}

/// The evaluation pass of `model` with the values of `store`, which [`Model::init`] set up. What must be known to use it goes into
/// the file's metadata, and so does `known`.
///
/// # Errors
/// [`OnnxError::Parameter`] where the store is another network's.
pub fn export(
    model: &Model,
    store: &ParamStore,
    pixels: Pixels<'_>,
    known: &BTreeMap<String, String>,
) -> Result<ModelProto, OnnxError> {
    let graph = GraphProto { name: model.text().to_owned(), ..GraphProto::default() };
    let mut builder = Builder { graph };
    builder.graph.input.push(value(INPUT, &model.input()));
    let first = if pixels.inside { builder.normalise(pixels) } else { INPUT.to_owned() };
    let mut values = vec![first];
    for step in model.steps() {
        for i in step.params.clone() {
            let spec = &model.params()[i];
            let found = store.params().get(i).filter(|p| p.name == spec.name && p.view.spec.shape == spec.shape);
            let param = found.ok_or_else(|| OnnxError::Parameter {
                layer: step.name.clone(),
                name: spec.name.clone(),
                shape: spec.shape.to_string(),
            })?;
            builder.constant(&spec.name, &spec.shape, store.value(param));
        }
        let inputs = step.inputs.iter().map(|&i| values[i].clone()).collect();
        let params = model.params()[step.params.clone()].iter().map(|p| p.name.clone()).collect();
        // The shape of one image, for a layer whose windows depend on it.
        let image = match step.inputs[0].checked_sub(1) {
            Some(before) => model.steps()[before].output.to_vec(),
            None => model.input().to_vec(),
        };
        values.push(builder.step(step, inputs, params, &image));
    }
    let last = values.pop().unwrap_or_default();
    let mut graph = builder.graph;
    for name in graph.node.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)).filter(|n| **n == last) {
        LOGITS.clone_into(name);
    }
    graph.value_info.retain(|v| v.name != last);
    graph.output.push(value(LOGITS, &[model.outputs()]));
    Ok(ModelProto {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: NOTICE.to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: metadata(model, pixels, known),
    })
}

/// What the numbers of `logits` are.
#[must_use]
pub fn meaning(head: Head) -> &'static str {
    match head {
        Head::Softmax => "one for each class, before softmax",
        Head::Sigmoid => "that of the second class, before the sigmoid",
    }
}

/// Enough to use the file by itself.
fn metadata(model: &Model, pixels: Pixels<'_>, known: &BTreeMap<String, String>) -> Vec<StringStringEntryProto> {
    let [c, h, w] = model.input();
    let takes = if pixels.inside { "pixels from 0 to 255" } else { "(pixel / 255 - mean) / std" };
    let colour = if c == 1 { "grey (ITU-R BT.601)" } else { "RGB" };
    let input =
        format!("{takes}; images are {colour}, resized to {h}x{w} (bilinear, antialiased, aspect ratio not kept)");
    let mut all = known.clone();
    all.extend(
        [
            ("model", model.network().to_string()),
            ("size", if h == w { h.to_string() } else { format!("{h}x{w}") }),
            ("channels", c.to_string()),
            ("mean", format!("{:?}", pixels.mean)),
            ("std", format!("{:?}", pixels.std)),
            (INPUT, input),
            (LOGITS, meaning(model.head()).to_owned()),
            ("notice", NOTICE.to_owned()),
        ]
        .map(|(key, value)| (format!("radiograd.{key}"), value)),
    );
    all.into_iter().map(|(key, value)| StringStringEntryProto { key, value }).collect()
}

/// The bytes of a file.
///
/// # Errors
/// [`OnnxError::TooLarge`].
pub fn to_bytes(model: &ModelProto) -> Result<Vec<u8>, OnnxError> {
    fits(model.encoded_len())?;
    Ok(model.encode_to_vec())
}

fn fits(bytes: usize) -> Result<(), OnnxError> {
    if bytes > MAX_BYTES { Err(OnnxError::TooLarge { bytes }) } else { Ok(()) }
}

/// Floats of this shape, for any number of images.
fn value(name: &str, one: &[usize]) -> ValueInfoProto {
    let batch = DimensionProto { dim_value: None, dim_param: Some(BATCH.to_owned()) };
    let fixed = one.iter().map(|&d| DimensionProto { dim_value: Some(d as i64), dim_param: None });
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(fixed).collect() };
    let tensor = TensorTypeProto { elem_type: TensorProto::FLOAT, shape: Some(shape) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

fn int(name: &str, value: usize) -> AttributeProto {
    let (name, i) = (name.to_owned(), Some(value as i64));
    AttributeProto { name, i, r#type: AttributeProto::INT, ..AttributeProto::default() }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let (name, ints) = (name.to_owned(), values.iter().map(|&v| v as i64).collect());
    AttributeProto { name, ints, r#type: AttributeProto::INTS, ..AttributeProto::default() }
}

fn float(name: &str, value: f64) -> AttributeProto {
    let (name, f) = (name.to_owned(), Some(value as f32));
    AttributeProto { name, f, r#type: AttributeProto::FLOAT, ..AttributeProto::default() }
}

/// Window, stride and padding, which is the same on both sides of an axis.
fn windows(kernel: [usize; 2], stride: [usize; 2], [top, left]: [usize; 2]) -> Vec<AttributeProto> {
    vec![ints("kernel_shape", &kernel), ints("strides", &stride), ints("pads", &[top, left, top, left])]
}

fn pool(kind: PoolKind, window: Pool2d) -> Operator {
    let mut attributes = windows(window.kernel, window.stride, window.padding);
    match kind {
        PoolKind::Max => ("MaxPool", attributes),
        PoolKind::Avg => {
            attributes.push(int("count_include_pad", 1));
            ("AveragePool", attributes)
        }
    }
}

fn activation(activation: Activation) -> Operator {
    match activation {
        Activation::Relu => ("Relu", Vec::new()),
        Activation::LeakyRelu { slope } => ("LeakyRelu", vec![float("alpha", slope)]),
        Activation::Elu { alpha } => ("Elu", vec![float("alpha", alpha)]),
        Activation::Sigmoid => ("Sigmoid", Vec::new()),
        Activation::Tanh => ("Tanh", Vec::new()),
        Activation::Softmax => ("Softmax", vec![int("axis", 1)]),
    }
}

/// `[out, size]`: row `i` takes the mean of window `i` of an adaptive pool along an axis.
fn means(out: usize, size: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; out * size];
    for i in 0..out {
        let window = window(i, out, size);
        let share = 1.0 / window.len() as f32;
        matrix[i * size..][window].fill(share);
    }
    matrix
}

/// `[n, m]` as `[m, n]`.
fn transposed(matrix: &[f32], m: usize) -> Vec<f32> {
    (0..m).flat_map(|j| matrix.iter().skip(j).step_by(m).copied()).collect()
}

struct Builder {
    graph: GraphProto,
}

impl Builder {
    fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let dims = shape.iter().map(|&d| d as i64).collect();
        let mut raw_data = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| raw_data.extend_from_slice(&v.to_le_bytes()));
        let name = name.to_owned();
        self.graph.initializer.push(TensorProto { dims, data_type: TensorProto::FLOAT, name, raw_data });
    }

    /// Adds a node and gives the name of its output.
    fn node(&mut self, name: &str, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let output = format!("{name}/output");
        let (name, op_type) = (name.to_owned(), op.to_owned());
        self.graph.node.push(NodeProto { input, output: vec![output.clone()], name, op_type, attribute });
        output
    }

    /// `(pixel / 255 - mean) / std` as one product and one sum for each channel.
    fn normalise(&mut self, Pixels { mean, std, .. }: Pixels<'_>) -> String {
        let shape = [1, mean.len(), 1, 1];
        let [factor, offset] = ["normalise/factor", "normalise/offset"];
        let each = |f: fn(f64, f64) -> f64| -> Vec<f32> {
            mean.iter().zip(std).map(|(&m, &s)| f(m.into(), s.into()) as f32).collect()
        };
        self.constant(factor, &shape, &each(|_, s| 1.0 / (255.0 * s)));
        self.constant(offset, &shape, &each(|m, s| -m / s));
        let scaled = self.node("normalise/scale", "Mul", vec![INPUT.to_owned(), factor.to_owned()], Vec::new());
        self.node("normalise/shift", "Add", vec![scaled, offset.to_owned()], Vec::new())
    }

    /// Adds the nodes of a layer on images or rows of shape `image`, and gives the name of its value.
    fn step(&mut self, step: &Step, mut inputs: Vec<String>, params: Vec<String>, image: &[usize]) -> String {
        let layer = match &step.action {
            Action::Layer(layer) => layer,
            Action::Add => return self.layer(step, ("Add", Vec::new()), inputs),
            Action::Concat => return self.layer(step, ("Concat", vec![int("axis", 1)]), inputs),
        };
        let operator = match layer {
            Layer::Conv { kernel, conv, .. } => {
                let mut attributes = windows(*kernel, conv.stride, conv.padding);
                attributes.extend([ints("dilations", &conv.dilation), int("group", conv.groups)]);
                ("Conv", attributes)
            }
            Layer::Dense { .. } => ("Gemm", vec![int("transB", 1)]),
            Layer::Pool { kind, window } => pool(*kind, *window),
            Layer::AdaptiveAvgPool { out } => {
                let size = *image.last_chunk().unwrap_or(out);
                self.adaptive(&step.name, &mut inputs, size, *out)
            }
            Layer::BatchNorm => ("BatchNormalization", vec![float("epsilon", BATCH_NORM_EPS)]),
            Layer::Activation(a) => activation(*a),
            Layer::Flatten => ("Flatten", vec![int("axis", 1)]),
            // Dropout gives what it is given; the plan has taken the others apart.
            Layer::Dropout { .. } | Layer::Init(_) | Layer::Named { .. } | Layer::Block(_) => {
                return inputs.swap_remove(0);
            }
        };
        inputs.extend(params);
        self.layer(step, operator, inputs)
    }

    /// The node that has the layer's name.
    fn layer(&mut self, step: &Step, (op, attributes): Operator, inputs: Vec<String>) -> String {
        let output = self.node(&step.name, op, inputs, attributes);
        self.graph.value_info.push(value(&output, &step.output));
        output
    }

    /// An adaptive pool over planes of `[h, w]` pixels; `inputs` becomes what its last node reads.
    fn adaptive(
        &mut self,
        name: &str,
        inputs: &mut Vec<String>,
        [h, w]: [usize; 2],
        [rows, columns]: [usize; 2],
    ) -> Operator {
        if [rows, columns] == [1, 1] {
            return ("GlobalAveragePool", Vec::new());
        }
        if h % rows == 0 && w % columns == 0 {
            let size = [h / rows, w / columns];
            return ("AveragePool", windows(size, size, [0, 0]));
        }
        // Windows of different sizes are no pool of ONNX's, but the mean of a rectangle is the mean along one axis of the means
        // along the other.
        let [down, across] = ["rows", "columns"].map(|part| format!("{name}/{part}"));
        self.constant(&down, &[rows, h], &means(rows, h));
        self.constant(&across, &[w, columns], &transposed(&means(columns, w), w));
        let read = [vec![down.clone()], std::mem::take(inputs)].concat();
        *inputs = vec![self.node(&down, "MatMul", read, Vec::new()), across];
        ("MatMul", Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_ends_where_its_sizes_do() {
        assert_eq!(fits(MAX_BYTES), Ok(()));
        let error = fits(MAX_BYTES + 1).unwrap_err().to_string();
        assert!(error.contains("2147483648") && error.contains(".safetensors"), "{error}");
    }

    #[test]
    fn means_are_those_of_pytorchs_windows() {
        // Windows of 3 over 5 pixels: 0..2, 1..4, 3..5.
        let third = 1.0 / 3.0;
        let rows = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, third, third, third, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5];
        assert_eq!(means(3, 5), rows);
        assert_eq!(means(2, 1), [1.0, 1.0]);
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
