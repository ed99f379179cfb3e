//! `channel_mean` and `channel_var`: the statistics that batch normalisation takes from its batch.
//!
//! For `x [N, C, H, W]` and `m = N H W`: `mean[c] = 1/m * sum of x[n,c,i,j]` and `var[c] = 1/m * sum of (x[n,c,i,j] - mean[c])^2`,
//! the biased variance. The second takes the mean as an input, so it is a second pass over x: the one-pass formula
//! `E[x^2] - E[x]^2` loses all digits where the mean is large against the deviation.
//!
//! Gradients: `dx = dmean[c] / m`, and `dx = 2/m * (x - mean[c]) * dvar[c]`. No gradient flows from the variance into the
//! mean: at the mean of the batch that derivative, `-2/m * sum of (x - mean)`, is zero.
//!
//! Kernels: `plain`, one invocation a channel; `split`, many invocations a channel, whose partial sums a second dispatch adds
//! in a fixed order.

use rayon::prelude::*;

use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering, in_series};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{Shape, ShapeError, Spec, arity, image};

/// The mean of each channel.
#[derive(Clone, Debug)]
pub struct ChannelMean;

/// The biased variance of each channel around the given mean.
#[derive(Clone, Debug)]
pub struct ChannelVar;

pub(super) const SPLIT: &str = "split";

/// An image batch as a sum over channels sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    pub n: usize,
    pub c: usize,
    /// Values of one channel of one image.
    pub pixels: usize,
}

impl Channels {
    /// From the shape of an image batch that a shape rule has let through.
    pub fn of(x: &Spec) -> Self {
        Self { n: x.shape[0], c: x.shape[1], pixels: x.shape[2] * x.shape[3] }
    }

    /// The same, where `x` is checked to be an image batch that is not empty.
    pub fn check(op: &'static str, x: &Spec) -> Result<Self, ShapeError> {
        image(op, x)?;
        if x.numel() == 0 {
            return Err(ShapeError::invalid(op, "the tensor is empty", x));
        }
        Ok(Self::of(x))
    }

    /// Values of one channel in the whole batch.
    pub fn count(self) -> usize {
        self.n * self.pixels
    }

    /// The slices of channel `c`, image after image.
    pub fn planes<T>(self, x: &[T], c: usize) -> impl Iterator<Item = &[T]> {
        x.chunks(self.pixels).skip(c).step_by(self.c)
    }

    /// The sizes as the shaders know them, with `width` values to an item.
    pub fn consts(self, width: usize) -> Vec<(&'static str, Const)> {
        let u = |x: usize| Const::U(x as u32);
        vec![("N", u(self.n)), ("C", u(self.c)), ("PIXELS", u(self.pixels / width))]
    }

    /// A dispatch whose invocations each add up a channel, in blocks of 256 values, as a series that software Vulkan can run.
    pub fn in_series(self, dispatch: Dispatch) -> Vec<Dispatch> {
        const BLOCK: usize = 256;
        in_series(dispatch, self.n * self.pixels.div_ceil(BLOCK), BLOCK)
    }

    /// `plain`, and `split` where a channel has enough values to share out.
    pub fn variants(self) -> Vec<&'static str> {
        if self.count() < 256 { vec![PLAIN] } else { vec![PLAIN, SPLIT] }
    }

    /// Two dispatches of `file`: `first` puts partial sums of each channel into scratch, `second` adds them. What is bound
    /// besides the sums comes first.
    pub fn split(
        self,
        file: &'static str,
        [first, second]: [&'static str; 2],
        [mut reads, mut rest]: [Vec<Arg>; 2],
        extra: Option<(&'static str, Const)>,
    ) -> Lowering {
        // Enough partial sums to fill a device, few enough that adding them up is nothing.
        let parts = (self.count() / 64).clamp(1, (16_384 / self.c).clamp(64, 1024));
        let mut consts = self.consts(1);
        consts.push(("PARTS", Const::U(parts as u32)));
        consts.extend(extra);
        reads.push(Arg::Scratch(0));
        rest.extend([Arg::Scratch(0), Arg::Output]);
        let count = self.c * parts;
        Lowering {
            dispatches: vec![
                Dispatch::elementwise(file, first, count, reads, consts.clone()),
                Dispatch::elementwise(file, second, self.c, rest, consts),
            ],
            scratch: vec![count],
        }
    }
}

/// The sum of `f(v)` over all values. Lanes let the compiler vectorise it; blocks keep the rounding error small.
fn sum_by<'a, T: Real>(planes: impl Iterator<Item = &'a [T]>, f: impl Fn(T) -> T) -> f64 {
    const LANES: usize = 8;
    planes
        .flat_map(|plane| plane.chunks(4096))
        .map(|block| {
            let mut lanes = [T::zero(); LANES];
            let (chunks, rest) = block.as_chunks::<LANES>();
            for chunk in chunks {
                for (lane, &v) in lanes.iter_mut().zip(chunk) {
                    *lane += f(v);
                }
            }
            let rest = rest.iter().map(|&v| f(v));
            lanes.into_iter().chain(rest).sum::<T>().f64()
        })
        .sum()
}

impl<T: Real> Kernel<T> for ChannelMean {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (x, g) = (cx.float(0), Channels::of(cx.specs[0]));
        cx.out().par_iter_mut().enumerate().for_each(|(c, mean)| {
            *mean = T::of(sum_by(g.planes(x, c), |v| v) / g.count() as f64);
        });
    }
}

impl<T: Real> Kernel<T> for ChannelVar {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (x, means, g) = (cx.float(0), cx.float(1), Channels::of(cx.specs[0]));
        cx.out().par_iter_mut().enumerate().for_each(|(c, var)| {
            let squares = sum_by(g.planes(x, c), |v| (v - means[c]) * (v - means[c]));
            *var = T::of(squares / g.count() as f64);
        });
    }
}

/// `[C]` times a factor, as `[C, 1, 1]`.
fn scaled_channels(g: &mut Graph, v: NodeId, factor: f64) -> Result<NodeId, ShapeError> {
    let c = g.spec(v).numel();
    let v = g.scale(v, factor)?;
    g.reshape(v, &Shape::from([c, 1, 1]))
}

impl Op for ChannelMean {
    fn name(&self) -> &'static str {
        "channel_mean"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let g = Channels::check(self.name(), inputs[0])?;
        Ok(Spec::float([g.c]))
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let x = g.spec(cx.inputs[0]).clone();
        let share = scaled_channels(g, cx.dy, 1.0 / Channels::of(&x).count() as f64)?;
        Ok(vec![Some(g.broadcast_to(share, &x.shape)?)])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        Channels::of(cx.inputs[0]).variants()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        lower(cx, ["mean", "mean_partial"], vec![Arg::Input(0)])
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        inputs[0].numel() as u64
    }
}

impl Op for ChannelVar {
    fn name(&self) -> &'static str {
        "channel_var"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        let g = Channels::check(self.name(), inputs[0])?;
        if *inputs[1] != Spec::float([g.c]) {
            let what = "the mean must be [C] for an input [N, C, H, W]";
            return Err(ShapeError::mismatch(self.name(), what, inputs[1], inputs[0]));
        }
        Ok(Spec::float([g.c]))
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        if !cx.needs[0] {
            return Ok(vec![None, None]);
        }
        let count = Channels::of(g.spec(cx.inputs[0])).count();
        let shift = scaled_channels(g, cx.inputs[1], -1.0)?;
        let centred = g.add(cx.inputs[0], shift)?;
        let slope = scaled_channels(g, cx.dy, 2.0 / count as f64)?;
        Ok(vec![Some(g.mul(centred, slope)?), None])
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        Channels::of(cx.inputs[0]).variants()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        lower(cx, ["variance", "variance_partial"], vec![Arg::Input(0), Arg::Input(1)])
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        3 * inputs[0].numel() as u64
    }
}

fn lower(cx: &LowerCx, [plain, partial]: [&'static str; 2], mut args: Vec<Arg>) -> Lowering {
    let g = Channels::of(cx.inputs[0]);
    if cx.variant == SPLIT {
        let entries = [partial, "total"];
        return g.split("channel_stats_split.wgsl", entries, [args, Vec::new()], None);
    }
    args.push(Arg::Output);
    Lowering {
        dispatches: g.in_series(Dispatch::elementwise("channel_stats.wgsl", plain, g.c, args, g.consts(1))),
        scratch: Vec::new(),
    }
}

impl Graph {
    /// The mean of each channel: `[N, C, H, W] -> [C]`.
    ///
    /// # Errors
    /// The input is no image batch or empty.
    pub fn channel_mean(&mut self, x: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(ChannelMean, &[x])
    }

    /// The biased variance of each channel, `[N, C, H, W] -> [C]`, given its [`Graph::channel_mean`].
    ///
    /// # Errors
    /// The input is no image batch or empty, or the mean is not `[C]`.
    pub fn channel_var(&mut self, x: NodeId, mean: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(ChannelVar, &[x, mean])
    }
}

/// Samples of `channel_mean` and `channel_var`.
#[must_use]
pub fn samples(name: &'static str) -> Vec<Sample> {
    let s = |what: &str, x: &[usize]| {
        Sample::new(what, vec![sample::x(x)], move |g, i| {
            let mean = g.channel_mean(i[0])?;
            match name {
                "channel_mean" => Ok(mean),
                _ => g.channel_var(i[0], mean),
            }
        })
        .terms(x[0] * x[2] * x[3])
    };
    let mut samples = vec![
        s("one channel", &[3, 1, 5, 7]),
        s("one pixel", &[9, 4, 1, 1]),
        s("one image", &[1, 5, 3, 2]),
        s("batch of 65", &[65, 3, 2, 2]),
        s("shared out", &[4, 3, 9, 15]),
        s("shared out, one channel", &[2, 1, 33, 31]),
        s("more channels than a workgroup", &[2, 130, 12, 11]),
        s("many terms", &[16, 2, 100, 101]).large(),
        s("more than 65,535 workgroups", &[2, 65_536 * 64 + 3, 1, 1]).large(),
    ];
    if name == "channel_mean" {
        // Its variance is zero, against which no error can be measured.
        samples.push(s("one value", &[1, 3, 1, 1]));
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Array, View};

    #[test]
    fn the_variance_keeps_its_digits_beside_a_large_mean() {
        let x: Vec<f32> = (0..1000).map(|i| 10_000.0 + (i % 2) as f32).collect();
        let (spec, stat) = (Spec::float([10, 1, 10, 10]), Spec::float([1]));
        let run = |op: &dyn Op, inputs: &[View<'_, f32>], specs: &[&Spec]| {
            let mut out = Array::Float(vec![f32::NAN]);
            let mut cx = Eval { inputs, specs, out_spec: &stat, out: &mut out, state: &mut [], fast: true };
            f32::run(op, &mut cx);
            cx.out()[0]
        };
        let mean = run(&ChannelMean, &[View::Float(&x)], &[&spec]);
        assert_eq!(mean, 10_000.5);
        let var = run(&ChannelVar, &[View::Float(&x), View::Float(&[mean])], &[&spec, &stat]);
        assert_eq!(var, 0.25);
    }
}
