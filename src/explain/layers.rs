//! The layers of an explanation, with as much of each as there is room for.

use super::encode::{Bytes, Floats, Quantised, factor, push_bytes, range, shrink};
use super::field;
use super::histogram::Histogram;
use super::pass::{Gradients, Values};
use super::stepped::{Stepped, Whole, strongest};
use super::view::{FiltersView, LayerView, MapsView, ParamView, SilentView, WinnersView};
use super::{ExplainError, Request};
use crate::nn::Layer;
use crate::nn::plan::{Action, Step};
use crate::nn::spec::{Activation, PoolKind};
use crate::nn::summary::Summary;
use crate::ops::pool2d::Pool2d;

/// How much is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    /// The longest side of a feature map, in pixels.
    pub map_side: usize,
    /// Feature maps of a layer.
    pub map_channels: usize,
    /// Numbers of each tensor that is stepped through.
    pub numbers: usize,
    /// Weights of each tensor of them that is stepped through.
    pub weights: usize,
    /// Convolutions that can be stepped through.
    pub stepped: usize,
    /// Bytes of the filters of a layer.
    pub filters: usize,
    /// Bytes of the winners of a pool.
    pub winners: usize,
}

const fn caps(side: usize, channels: usize, kilo: [usize; 4], stepped: usize) -> Caps {
    let [numbers, weights, filters, winners] = kilo;
    Caps {
        map_side: side,
        map_channels: channels,
        numbers: numbers << 10,
        weights: weights << 10,
        filters: filters << 10,
        winners: winners << 10,
        stepped,
    }
}

/// From all that a small network has to what is left of one with hundreds of layers; the first that fits is taken.
pub(super) const CAPS: [Caps; 8] = [
    caps(64, 512, [160, 80, 40, 60], usize::MAX),
    caps(64, 256, [80, 40, 30, 40], usize::MAX),
    caps(64, 128, [70, 20, 20, 30], 8),
    caps(56, 64, [66, 12, 12, 20], 6),
    caps(32, 32, [60, 8, 8, 12], 4),
    caps(28, 16, [50, 6, 6, 8], 3),
    caps(16, 8, [30, 4, 4, 4], 2),
    caps(12, 4, [16, 2, 2, 2], 1),
];

/// Numbers that are shown of a layer without images.
const VALUES: usize = 1024;
/// Silent units that are named.
const NAMED: usize = 64;

/// What the layers are made of.
pub(super) struct Material<'a> {
    pub request: &'a Request<'a>,
    pub values: &'a Values,
    pub target: &'a Gradients,
    pub loss: Option<&'a Gradients>,
    /// The normalised image.
    pub x: &'a [f32],
}

impl Material<'_> {
    fn steps(&self) -> &[Step] {
        self.request.model.steps()
    }

    /// The value that a step reads first, with its shape.
    fn input(&self, step: &Step) -> (&[f32], Vec<usize>) {
        match step.inputs.first().and_then(|v| v.checked_sub(1)) {
            Some(at) => (&self.values.steps[at], self.steps()[at].output.to_vec()),
            None => (self.x, self.request.model.input().to_vec()),
        }
    }

    fn param(&self, at: usize) -> &[f32] {
        self.request.store.value(&self.request.store.params()[at])
    }

    /// A convolution with all its numbers.
    fn whole(&self, i: usize) -> Option<Whole<'_>> {
        let step = &self.steps()[i];
        let Action::Layer(Layer::Conv { kernel, conv, bias, .. }) = &step.action else { return None };
        let (x, x_shape) = self.input(step);
        Some(Whole {
            conv,
            kernel: *kernel,
            x_shape: x_shape.try_into().ok()?,
            y_shape: step.output.dims().try_into().ok()?,
            x,
            w: self.param(step.params.start),
            bias: bias.then(|| self.param(step.params.start + 1)),
            y: &self.values.steps[i],
            dy: &self.target.steps[i],
            dx: self.target.conv_inputs.get(&i)?,
            dw: self.target.params.get(&step.params.start)?,
        })
    }
}

/// All layers, and what was left out of them.
pub(super) fn assemble(m: &Material<'_>, caps: &Caps) -> Result<(Vec<LayerView>, Vec<String>), ExplainError> {
    let summary = Summary::new(m.request.model, 1)?;
    let fields = field::fields(m.request.model);
    let steps = m.steps();
    let stepped = choose(m, caps);
    let mut left_out = LeftOut::default();
    let mut out = Vec::with_capacity(steps.len());
    for (i, (step, row)) in steps.iter().zip(&summary.layers).enumerate() {
        let (values, gradients) = (&m.values.steps[i], &m.target.steps[i]);
        let maps = maps(step, values, gradients, caps);
        left_out.channels |= maps.as_ref().is_some_and(|maps| maps.channels.len() < step.output[0]);
        let winners = winners(m, step, maps.as_ref(), caps);
        let steps_through = stepped.contains(&i).then(|| m.whole(i)).flatten();
        let steps_through = steps_through.map(|whole| Stepped::new(&whole, caps.numbers, caps.weights));
        let conv = matches!(step.action, Action::Layer(Layer::Conv { .. }));
        left_out.convs += usize::from(conv && steps_through.is_none());
        left_out.cut += usize::from(steps_through.as_ref().is_some_and(|t| !t.is_whole()));
        out.push(LayerView {
            name: step.name.clone(),
            kind: kind(&step.action),
            text: row.layer.clone(),
            inputs: step.inputs.iter().map(|v| v.checked_sub(1)).collect(),
            output: step.output.to_vec(),
            parameters: row.parameters,
            buffers: row.buffers,
            flops: row.flops,
            field: fields[i],
            activations: Histogram::of(values),
            gradients: Histogram::of(gradients),
            loss_gradients: m.loss.map(|loss| Histogram::of(&loss.steps[i])),
            maps,
            values: (step.output.len() == 1).then(|| Floats(values.iter().copied().take(VALUES).collect())),
            silent: silent(step, values),
            params: params(m, step),
            filters: filters(m, i, caps),
            stepped: steps_through,
            winners,
        });
    }
    Ok((out, left_out.notes(caps)))
}

#[derive(Default)]
struct LeftOut {
    channels: bool,
    convs: usize,
    cut: usize,
}

impl LeftOut {
    fn notes(&self, caps: &Caps) -> Vec<String> {
        let mut notes = Vec::new();
        if self.channels {
            notes.push(format!(
                "Of layers with more than {} channels those are shown whose sum of activation times gradient is largest in size.",
                caps.map_channels
            ));
        }
        if self.convs > 0 {
            notes.push(format!(
                "{} of the convolutions cannot be stepped through: their numbers would not fit onto this page. A smaller network or \
                 image shows all of them.",
                self.convs
            ));
        }
        if self.cut > 0 {
            notes.push(format!(
                "{} of the convolutions can be stepped through only around the place that speaks most for the class: all of their \
                 numbers would not fit onto this page. Those that are here are exact.",
                self.cut
            ));
        }
        notes
    }
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Layer(layer) => layer.kind(),
        Action::Add => "add",
        Action::Concat => "concat",
    }
}

/// The convolutions that are stepped through: evenly spread, with the first and the last.
fn choose(m: &Material<'_>, caps: &Caps) -> Vec<usize> {
    let all: Vec<usize> = (0..m.steps().len()).filter(|&i| m.whole(i).is_some()).collect();
    let count = caps.stepped.min(all.len());
    if count == all.len() {
        return all;
    }
    let mut at: Vec<usize> = (0..count).map(|k| k * (all.len() - 1) / (count - 1).max(1)).collect();
    at.dedup();
    at.into_iter().map(|k| all[k]).collect()
}

fn maps(step: &Step, values: &[f32], gradients: &[f32], caps: &Caps) -> Option<MapsView> {
    let [_, h, w] = <[usize; 3]>::try_from(step.output.dims()).ok()?;
    let channels = strongest(values, gradients, h * w, caps.map_channels);
    let shrunk = factor([h, w], caps.map_side);
    let [height, width] = [h, w].map(|n| n.div_ceil(shrunk));
    let (mut low, mut high, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for &c in &channels {
        let map = shrink(&values[c * h * w..(c + 1) * h * w], [h, w], shrunk);
        let (l, t) = range(&map);
        low.push(l);
        high.push(t);
        push_bytes(&map, (l, t), &mut data);
    }
    Some(MapsView { height, width, shrunk, channels, low, high, data: Bytes(data) })
}

fn silent(step: &Step, values: &[f32]) -> Option<SilentView> {
    let Action::Layer(Layer::Activation(Activation::Relu)) = step.action else { return None };
    let of = step.output[0];
    let plane = (values.len() / of.max(1)).max(1);
    let quiet = |unit: &usize| values[unit * plane..(unit + 1) * plane].iter().all(|&v| v <= 0.0);
    let mut units: Vec<usize> = (0..of).filter(quiet).collect();
    let count = units.len();
    units.truncate(NAMED);
    Some(SilentView { of, count, units })
}

fn params(m: &Material<'_>, step: &Step) -> Vec<ParamView> {
    let view = |at: usize| {
        let spec = &m.request.model.params()[at];
        ParamView {
            name: spec.name.clone(),
            shape: spec.shape.to_vec(),
            values: Histogram::of(m.param(at)),
            gradients: m.target.params.get(&at).map(|g| Histogram::of(g)),
        }
    };
    step.params.clone().map(view).collect()
}

fn filters(m: &Material<'_>, i: usize, caps: &Caps) -> Option<FiltersView> {
    let whole = m.whole(i)?;
    let taps = whole.kernel[0] * whole.kernel[1];
    let c_group = whole.x_shape[0] / whole.conv.groups;
    // As many outputs as inputs, or all of either.
    let room = (caps.filters / taps.max(1)).max(1);
    let square = room.isqrt().max(1);
    let o = whole.y_shape[0].min(square.max(room / c_group.max(1)));
    let c = c_group.min((room / o.max(1)).max(1));
    let outputs = strongest(whole.y, whole.dy, whole.y_shape[1] * whole.y_shape[2], o);
    let inputs: Vec<usize> = match whole.conv.groups {
        1 => strongest(whole.x, whole.dx, whole.x_shape[1] * whole.x_shape[2], c),
        _ => (0..c).collect(),
    };
    let kernel = |(o, c): (usize, usize)| &whole.w[(o * c_group + c) * taps..(o * c_group + c + 1) * taps];
    let pairs = outputs.iter().flat_map(|&o| inputs.iter().map(move |&c| (o, c)));
    let values: Vec<f32> = pairs.flat_map(kernel).copied().collect();
    let most = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let mut data = Vec::with_capacity(values.len());
    push_bytes(&values, (-most, most), &mut data);
    let weights = Quantised { low: -most, high: most, data: Bytes(data) };
    Some(FiltersView { kernel: whole.kernel, outputs, inputs, weights })
}

/// Which pixel of each window won, by the rule of [`crate::ops::max_pool2d`]: of equal ones the first.
fn winners(m: &Material<'_>, step: &Step, maps: Option<&MapsView>, caps: &Caps) -> Option<WinnersView> {
    let Action::Layer(Layer::Pool { kind: PoolKind::Max, window }) = &step.action else { return None };
    let (x, shape) = m.input(step);
    let [_, h, w] = <[usize; 3]>::try_from(shape).ok()?;
    let [_, oh, ow] = <[usize; 3]>::try_from(step.output.dims()).ok()?;
    if window.kernel[0] * window.kernel[1] > 256 {
        return None;
    }
    let mut channels = maps?.channels.clone();
    channels.truncate(caps.winners / (oh * ow).max(1));
    let mut data = Vec::with_capacity(channels.len() * oh * ow);
    for &c in &channels {
        let plane = &x[c * h * w..(c + 1) * h * w];
        for i in 0..oh {
            for j in 0..ow {
                data.push(winner(plane, [h, w], window, [i, j]));
            }
        }
    }
    let Pool2d { kernel, stride, padding } = *window;
    Some(WinnersView { kernel, stride, padding, channels, data: Bytes(data) })
}

/// Row in the window times the window's width plus column.
fn winner(x: &[f32], [h, w]: [usize; 2], window: &Pool2d, [i, j]: [usize; 2]) -> u8 {
    let mut best: Option<(usize, f32)> = None;
    for k in 0..window.kernel[0] {
        for l in 0..window.kernel[1] {
            let row = (i * window.stride[0] + k).checked_sub(window.padding[0]).filter(|&r| r < h);
            let column = (j * window.stride[1] + l).checked_sub(window.padding[1]).filter(|&c| c < w);
            if let (Some(row), Some(column)) = (row, column) {
                let value = x[row * w + column];
                if best.is_none_or(|(_, most)| value > most) {
                    best = Some((k * window.kernel[1] + l, value));
                }
            }
        }
    }
    best.map_or(0, |(at, _)| at as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_pixels_wins_and_padding_never() {
        let pool = Pool2d::square(2);
        assert_eq!(winner(&[1.0, 3.0, 3.0, 2.0], [2, 2], &pool, [0, 0]), 1);
        let padded = Pool2d::new(3, 2, 1);
        // Only the lower right four of nine lie inside.
        assert_eq!(winner(&[-5.0, -6.0, -7.0, -4.0], [2, 2], &padded, [0, 0]), 8);
    }
}
