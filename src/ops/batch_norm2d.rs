//! `batch_norm2d`: each channel shifted and scaled to mean `bias` and deviation `gain` (Ioffe and Szegedy, ICML 2015).
//!
//! `y[n,c,i,j] = x_hat * gain[c] + bias[c]` with `x_hat = (x[n,c,i,j] - mean[c]) / sqrt(var[c] + eps)`. In training mean and
//! variance are those of the batch (`channel_stats.rs`), in evaluation running ones (`ema_update.rs`).
//!
//! Gradients, with sums over all but the channel and `m = N H W`: `dbias = sum of dy`, `dgain = sum of dy * x_hat`;
//! in evaluation `dx = gain / sqrt(var + eps) * dy`; in training the statistics depend on x too, which makes it
//! `dx = gain / sqrt(var + eps) * (dy - dbias / m - x_hat * dgain / m)`. That is the whole of x's derivative, so no gradient
//! flows into the mean and the variance.
//!
//! Kernels: `plain`; `vec4`, the same with four values an invocation; for `dgain`, a long sum, also `split` as in
//! `channel_stats.rs`.

use rayon::prelude::*;

use super::channel_stats::Channels;
use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::cpu::fast::{self, BatchNormShape};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering, in_series};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, arity};

mod grads;

use grads::{EvalInputGrad, GainGrad, InputGrad};

/// The normalisation of `(x, gain, bias, mean, var)`.
#[derive(Clone, Debug)]
pub struct BatchNorm2d {
    /// Added to the variance, so that a constant channel does not divide by zero.
    pub eps: f64,
    /// Whether mean and variance are those of x itself.
    pub training: bool,
}

/// What batch normalisation gives in training.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// The normalised batch, shaped like x.
    pub y: NodeId,
    /// The mean of each channel, `[C]`.
    pub mean: NodeId,
    /// The biased variance of each channel, `[C]`.
    pub var: NodeId,
    /// Values of one channel, `N H W`.
    pub count: usize,
}

impl BatchNorm {
    /// `m / (m - 1)`, which makes the biased variance unbiased: running variances are of that kind, as in PyTorch.
    #[must_use]
    pub fn bessel(&self) -> f64 {
        self.count as f64 / (self.count as f64 - 1.0)
    }
}

fn fast_shape(g: Channels) -> BatchNormShape {
    BatchNormShape { n: g.n, c: g.c, pixels: g.pixels }
}

/// `1 / sqrt(var + eps)`
fn inverse_std<T: Real>(var: T, eps: f64) -> T {
    T::one() / (var + T::of(eps)).sqrt()
}

/// Runs `f(channel, index of the plane's first value, plane)` over the planes of `out`.
fn for_planes<T: Real>(g: Channels, out: &mut [T], f: impl Fn(usize, usize, &mut [T]) + Sync) {
    out.par_chunks_mut(g.pixels).enumerate().for_each(|(p, plane)| f(p % g.c, p * g.pixels, plane));
}

/// Checks that all of `stats` are `[C]`.
fn check_stats(op: &'static str, x: &Spec, stats: &[&Spec]) -> Result<Channels, ShapeError> {
    let g = Channels::check(op, x)?;
    match stats.iter().find(|s| ***s != Spec::float([g.c])) {
        Some(stat) => {
            let what = "gain, bias, mean and variance must be [C] for an input [N, C, H, W]";
            Err(ShapeError::mismatch(op, what, stat, x))
        }
        None => Ok(g),
    }
}

fn variants(x: &Spec) -> Vec<&'static str> {
    if Channels::of(x).pixels.is_multiple_of(4) { vec![PLAIN, "vec4"] } else { vec![PLAIN] }
}

/// One dispatch of `batch_norm2d.wgsl` over `x`, in steps of the variant's width.
fn lower(entry: &'static str, variant: &str, x: &Spec, args: Vec<Arg>, eps: f64) -> Lowering {
    let (width, item) = match variant {
        "vec4" => (4, "vec4<f32>"),
        _ => (1, "f32"),
    };
    let g = Channels::of(x);
    let mut consts = g.consts(width);
    consts.extend([("ITEM", Const::Text(item)), ("VALUES", Const::U(g.count() as u32)), ("EPS", Const::F(eps as f32))]);
    let count = match entry {
        "grad_gain" => g.c,
        _ => x.numel() / width,
    };
    let dispatch = Dispatch::elementwise("batch_norm2d.wgsl", entry, count, args, consts);
    let dispatches = if entry == "grad_gain" { g.in_series(dispatch) } else { in_series(dispatch, 1, 0) };
    Lowering { dispatches, scratch: Vec::new() }
}

impl<T: Real> Kernel<T> for BatchNorm2d {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Channels::of(cx.specs[0]);
        let eps = self.eps;
        if let [Some(x), Some(gain), Some(bias), Some(mean), Some(var)] = [0, 1, 2, 3, 4].map(|i| cx.fast_f32(i)) {
            if let Some(y) = cx.fast_out() {
                fast::batch_norm2d(x, mean, var, gain, bias, eps as f32, &fast_shape(g), y);
            }
            return;
        }
        let [x, gain, bias, mean, var] = [0, 1, 2, 3, 4].map(|i| cx.float(i));
        for_planes(g, cx.out(), |c, at, y| {
            let scale = gain[c] * inverse_std(var[c], eps);
            for (y, &x) in y.iter_mut().zip(&x[at..]) {
                *y = (x - mean[c]) * scale + bias[c];
            }
        });
    }
}

impl Op for BatchNorm2d {
    fn name(&self) -> &'static str {
        "batch_norm2d"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 5)?;
        let g = check_stats(self.name(), inputs[0], &inputs[1..])?;
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            let what = format!("eps must be positive, got {}", self.eps);
            return Err(ShapeError::invalid(self.name(), what, inputs[0]));
        }
        if self.training && g.count() == 1 {
            let what = "training needs more than one value per channel: raise the batch or image size";
            return Err(ShapeError::invalid(self.name(), what, inputs[0]));
        }
        Ok(inputs[0].clone())
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let [x, gain, _, mean, var] = [0, 1, 2, 3, 4].map(|i| cx.inputs[i]);
        let eps = self.eps;
        let through_stats = self.training && cx.needs[0];
        let dgain = match cx.needs[1] || through_stats {
            true => Some(g.apply(GainGrad { eps }, &[x, cx.dy, mean, var])?),
            false => None,
        };
        let dbias = match cx.needs[2] || through_stats {
            true => Some(g.channel_sum(cx.dy)?),
            false => None,
        };
        let dx = match (dgain, dbias) {
            (Some(dgain), Some(dbias)) if through_stats => {
                Some(g.apply(InputGrad { eps }, &[x, cx.dy, gain, mean, var, dgain, dbias])?)
            }
            _ if cx.needs[0] => Some(g.apply(EvalInputGrad { eps }, &[cx.dy, gain, var])?),
            _ => None,
        };
        Ok(vec![dx, dgain, dbias, None, None])
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 3
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        variants(cx.inputs[0])
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let mut args: Vec<Arg> = (0..5).map(Arg::Input).collect();
        args.push(Arg::Output);
        lower("forward", cx.variant, cx.output, args, self.eps)
    }

    fn flops(&self, _: &[&Spec], output: &Spec) -> u64 {
        3 * output.numel() as u64
    }

    fn detail(&self) -> String {
        match self.training {
            true => "training".to_owned(),
            false => "evaluation".to_owned(),
        }
    }
}

impl Graph {
    /// Normalises `x [N, C, H, W]` by the mean and variance of this very batch; `gain` and `bias` are `[C]`.
    ///
    /// # Errors
    /// The shapes do not fit, `eps` is not positive, or a channel has a single value, whose variance says nothing.
    pub fn batch_norm2d_train(
        &mut self,
        x: NodeId,
        gain: NodeId,
        bias: NodeId,
        eps: f64,
    ) -> Result<BatchNorm, ShapeError> {
        let mean = self.channel_mean(x)?;
        let var = self.channel_var(x, mean)?;
        let op = BatchNorm2d { eps, training: true };
        let y = self.apply(op, &[x, gain, bias, mean, var])?;
        let count = Channels::of(self.spec(x)).count();
        Ok(BatchNorm { y, mean, var, count })
    }

    /// Normalises `x [N, C, H, W]` by the given mean and variance, which are constants to the gradient; `gain`, `bias`, `mean`
    /// and `var` are `[C]`.
    ///
    /// # Errors
    /// The shapes do not fit, or `eps` is not positive.
    pub fn batch_norm2d(
        &mut self,
        x: NodeId,
        [gain, bias]: [NodeId; 2],
        [mean, var]: [NodeId; 2],
        eps: f64,
    ) -> Result<NodeId, ShapeError> {
        let op = BatchNorm2d { eps, training: false };
        self.apply(op, &[x, gain, bias, mean, var])
    }
}

/// Samples of both modes.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let inputs = |x: &[usize]| {
        let c = [x[1]];
        vec![sample::x(x), sample::filled(&c, Fill::Positive), sample::x(&c)]
    };
    let train = |name: &str, x: &[usize]| {
        Sample::new(format!("training, {name}"), inputs(x), |g, i| Ok(g.batch_norm2d_train(i[0], i[1], i[2], 1e-5)?.y))
            .terms(x[0] * x[2] * x[3])
    };
    let eval = |name: &str, x: &[usize]| {
        let c = [x[1]];
        let mut inputs = inputs(x);
        inputs.push(sample::fixed(&c, Fill::Normal));
        inputs.push(sample::fixed(&c, Fill::Positive));
        Sample::new(format!("evaluation, {name}"), inputs, |g, i| {
            g.batch_norm2d(i[0], [i[1], i[2]], [i[3], i[4]], 1e-3)
        })
        .terms(x[0] * x[2] * x[3])
    };
    vec![
        train("one channel", &[3, 1, 5, 7]),
        train("four values a channel", &[4, 3, 1, 1]),
        train("planes of four", &[4, 65, 2, 2]),
        train("one image", &[1, 5, 9, 7]),
        train("long sums", &[2, 3, 33, 31]),
        train("long sums, planes of four", &[5, 2, 16, 18]),
        train("more than 65,535 workgroups", &[1, 3, 1183, 1185]).large(),
        eval("one value", &[1, 1, 1, 1]),
        eval("odd planes", &[2, 3, 5, 5]),
        eval("planes of four", &[3, 7, 4, 3]),
        eval("long sums", &[4, 3, 12, 13]),
        eval("more than 65,535 workgroups", &[2, 2, 1025, 1026]).large(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_per_channel_is_refused_in_training_alone() {
        let mut g = Graph::new();
        let x = g.input("x", Spec::float([1, 3, 1, 1]));
        let [a, b, c, d] = ["gain", "bias", "mean", "var"].map(|n| g.input(n, Spec::float([3])));
        let e = g.batch_norm2d_train(x, a, b, 1e-5).unwrap_err();
        assert!(e.to_string().contains("more than one value"), "{e}");
        assert!(g.batch_norm2d(x, [a, b], [c, d], 1e-5).is_ok());
        assert!(g.batch_norm2d(x, [a, b], [c, d], 0.0).is_err());
        let wrong = g.input("wrong", Spec::float([4]));
        assert!(g.batch_norm2d(x, [a, wrong], [c, d], 1e-5).is_err());
    }
}
