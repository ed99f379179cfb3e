//! The gradient ops of `batch_norm2d`; the maths is on its page.

use rayon::prelude::*;

use super::{check_stats, fast_shape, for_planes, inverse_std, lower, variants};
use crate::cpu::fast;
use crate::gpu::lower::{Arg, Const, Lowering};
use crate::ops::channel_stats::{Channels, SPLIT};
use crate::ops::{Eval, Kernel, LowerCx, Op};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, arity};

/// `dgain` from `(x, dy, mean, var)`.
#[derive(Clone, Debug)]
pub struct GainGrad {
    /// As in the normalisation.
    pub eps: f64,
}

/// `dx` of training from `(x, dy, gain, mean, var, dgain, dbias)`.
#[derive(Clone, Debug)]
pub struct InputGrad {
    /// As in the normalisation.
    pub eps: f64,
}

/// `dx` of evaluation from `(dy, gain, var)`.
#[derive(Clone, Debug)]
pub struct EvalInputGrad {
    /// As in the normalisation.
    pub eps: f64,
}

impl<T: Real> Kernel<T> for GainGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Channels::of(cx.specs[0]);
        let eps = self.eps;
        if let [Some(x), Some(dy), Some(mean), Some(var)] = [0, 1, 2, 3].map(|i| cx.fast_f32(i)) {
            if let Some(dgain) = cx.fast_out() {
                let shape = fast_shape(g);
                // The fast kernel gives both sums in one pass; the graph takes the bias's from `sum_to`.
                let mut dbias = vec![0.0; g.c];
                fast::batch_norm2d_param_grads(x, dy, mean, var, eps as f32, &shape, dgain, &mut dbias);
            }
            return;
        }
        let [x, dy, mean, var] = [0, 1, 2, 3].map(|i| cx.float(i));
        cx.out().par_iter_mut().enumerate().for_each(|(c, dgain)| {
            let products: T = g
                .planes(x, c)
                .zip(g.planes(dy, c))
                .map(|(x, dy)| {
                    let pairs = x.iter().zip(dy);
                    pairs.map(|(&x, &dy)| (x - mean[c]) * dy).sum::<T>()
                })
                .sum();
            *dgain = products * inverse_std(var[c], eps);
        });
    }
}

impl<T: Real> Kernel<T> for InputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Channels::of(cx.specs[0]);
        let eps = self.eps;
        if let [Some(x), Some(dy), Some(gain), Some(mean), Some(var), Some(dgain), Some(dbias)] =
            [0, 1, 2, 3, 4, 5, 6].map(|i| cx.fast_f32(i))
        {
            if let Some(dx) = cx.fast_out() {
                let (shape, eps) = (fast_shape(g), eps as f32);
                fast::batch_norm2d_input_grad(x, dy, mean, var, gain, dgain, dbias, eps, &shape, dx);
            }
            return;
        }
        let [x, dy, gain, mean, var, dgain, dbias] = [0, 1, 2, 3, 4, 5, 6].map(|i| cx.float(i));
        let m = T::of(g.count() as f64);
        for_planes(g, cx.out(), |c, at, dx| {
            let inverse = inverse_std(var[c], eps);
            for (dx, (&x, &dy)) in dx.iter_mut().zip(x[at..].iter().zip(&dy[at..])) {
                let x_hat = (x - mean[c]) * inverse;
                *dx = gain[c] * inverse * (dy - dbias[c] / m - x_hat * dgain[c] / m);
            }
        });
    }
}

impl<T: Real> Kernel<T> for EvalInputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Channels::of(cx.specs[0]);
        let [dy, gain, var] = [0, 1, 2].map(|i| cx.float(i));
        for_planes(g, cx.out(), |c, at, dx| {
            let scale = gain[c] * inverse_std(var[c], self.eps);
            for (dx, &dy) in dx.iter_mut().zip(&dy[at..]) {
                *dx = dy * scale;
            }
        });
    }
}

/// Checks that `dy` is shaped like `x`.
fn check_dy(op: &'static str, x: &Spec, dy: &Spec) -> Result<(), ShapeError> {
    if x == dy {
        return Ok(());
    }
    let what = "the gradient must be shaped like x";
    Err(ShapeError::mismatch(op, what, dy, x))
}

impl Op for GainGrad {
    fn name(&self) -> &'static str {
        "batch_norm2d_gain_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 4)?;
        check_dy(self.name(), inputs[0], inputs[1])?;
        let g = check_stats(self.name(), inputs[0], &inputs[2..])?;
        Ok(Spec::float([g.c]))
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        Channels::of(cx.inputs[0]).variants()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let x = cx.inputs[0];
        let [values, dy, mean, var] = [0, 1, 2, 3].map(Arg::Input);
        if cx.variant == SPLIT {
            let args = [vec![values, dy, mean], vec![var]];
            let eps = ("EPS", Const::F(self.eps as f32));
            let entries = ["gain_partial", "gain_total"];
            return Channels::of(x).split("batch_norm2d_split.wgsl", entries, args, Some(eps));
        }
        let args = vec![values, dy, Arg::Output, mean, var];
        lower("grad_gain", cx.variant, x, args, self.eps)
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        3 * inputs[0].numel() as u64
    }
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "batch_norm2d_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 7)?;
        check_dy(self.name(), inputs[0], inputs[1])?;
        check_stats(self.name(), inputs[0], &inputs[2..])?;
        Ok(inputs[0].clone())
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        variants(cx.output)
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let [x, dy, gain, mean, var, dgain, dbias] = [0, 1, 2, 3, 4, 5, 6].map(Arg::Input);
        // What the forward pass reads too keeps its place.
        let args = vec![x, gain, dbias, mean, var, dgain, dy, Arg::Output];
        lower("grad_input_training", cx.variant, cx.output, args, self.eps)
    }

    fn flops(&self, _: &[&Spec], output: &Spec) -> u64 {
        5 * output.numel() as u64
    }
}

impl Op for EvalInputGrad {
    fn name(&self) -> &'static str {
        "batch_norm2d_eval_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 3)?;
        check_stats(self.name(), inputs[0], &inputs[1..])?;
        Ok(inputs[0].clone())
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        variants(cx.output)
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let [dy, gain, var] = [0, 1, 2].map(Arg::Input);
        let args = vec![dy, gain, Arg::Output, var];
        lower("grad_input_evaluation", cx.variant, cx.output, args, self.eps)
    }
}
