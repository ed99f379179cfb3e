//! `optimizer_step`: one step of an optimizer over the whole flat vector of parameters, in place.
//!
//! With the parameter `p`, the gradient from the graph `g`, and `d = scale g + weight_decay p` (AdamW: `d = scale g`):
//!
//! - SGD: `b = momentum b + fresh d`, `p -= lr b`; with Nesterov `p -= lr (d + momentum b)`; without momentum `p -= lr d`.
//!   `fresh` is 1 in the first step and `1 - dampening` later.
//! - Adam: `m += (1 - beta1) (d - m)`, `v = beta2 v + (1 - beta2) d^2`, `p -= lr / c1 * m / (sqrt(v / c2) + eps)`;
//!   AdamW first shrinks `p` by `1 - lr weight_decay`. `c1 = 1 - beta1^t`, `c2 = 1 - beta2^t` undo the bias of the zero start.
//! - RMSprop: `v = alpha v + (1 - alpha) d^2`, `d' = d / (sqrt(v) + eps)`; centred: `a += (1 - alpha) (d - a)` and
//!   `v - a^2` in the root; with momentum `b = momentum b + d'`, `p -= lr b`, else `p -= lr d'`.
//!
//! These are PyTorch's formulas. What changes from step to step is a float input of four numbers, so that nothing is
//! recompiled: see [`OptimizerKind::hyper`]. The gaps between parameters hold zeros in `p`, `g` and the state, and every
//! formula leaves zeros there.
//!
//! The node's value is an empty tensor: all that it does is the update.

use rayon::prelude::*;

use super::{Eval, Kernel, LowerCx, Op, elementwise_page, elementwise_variants};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId, VarView};
use crate::optim::OptimizerKind;
use crate::real::Real;
use crate::shape::{DType, ShapeError, Spec, arity};

/// A step; its inputs are the gradients `[P]` and the four numbers of [`OptimizerKind::hyper`].
#[derive(Clone, Debug)]
pub struct OptimizerStep {
    /// Which optimizer.
    pub kind: OptimizerKind,
    /// The parameters, `[P]`.
    pub params: VarView,
    /// The state, each `[P]` and zero at first, in the order of [`OptimizerKind::slot_names`].
    pub slots: Vec<VarView>,
}

impl OptimizerKind {
    /// What an optimizer step is told each time: `(learning rate, c1, c2, gradient scale)`. For Adam and AdamW,
    /// `c = 1 - beta^t`; for SGD c1 is the share of the gradient that joins the momentum, 1 in the first step and
    /// `1 - dampening` later; else they are 1. The scale is 1: whoever clips gradients or averages over several batches
    /// multiplies it.
    ///
    /// `t` counts the steps from 1. All is computed in `f64` and rounded at the end.
    #[must_use]
    pub fn hyper(&self, lr: f64, t: u64) -> [f32; 4] {
        let (c1, c2) = match *self {
            Self::Adam { betas, .. } | Self::AdamW { betas, .. } => {
                // Decays are below one, so past 2^24 steps nothing is left of their powers.
                let t = t.clamp(1, 1 << 24) as i32;
                (1.0 - betas[0].powi(t), 1.0 - betas[1].powi(t))
            }
            Self::Sgd { dampening, .. } if t > 1 => (1.0 - dampening, 1.0),
            Self::Sgd { .. } | Self::RmsProp { .. } => (1.0, 1.0),
        };
        [lr as f32, c1 as f32, c2 as f32, 1.0]
    }
}

/// A stretch of the parameters with what belongs to it.
struct Piece<'a, T> {
    p: &'a mut [T],
    g: &'a [T],
    slots: Vec<&'a mut [T]>,
}

const CHUNK: usize = 1 << 14;

impl<T: Real> Kernel<T> for OptimizerStep {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (g, hyper) = (cx.float(0), cx.float(1));
        let hyper = [hyper[0], hyper[1], hyper[2], hyper[3]];
        let Some((p, slots)) = cx.state.split_first_mut() else {
            return;
        };
        let mut pieces: Vec<Piece<'_, T>> = p
            .chunks_mut(CHUNK)
            .zip(g.chunks(CHUNK))
            .map(|(p, g)| Piece { p, g, slots: Vec::with_capacity(slots.len()) })
            .collect();
        for slot in slots {
            for (piece, slot) in pieces.iter_mut().zip(slot.chunks_mut(CHUNK)) {
                piece.slots.push(slot);
            }
        }
        pieces.into_par_iter().for_each(|piece| step(&self.kind, hyper, piece));
    }
}

fn step<T: Real>(kind: &OptimizerKind, hyper: [T; 4], piece: Piece<'_, T>) {
    let Piece { p, g, mut slots } = piece;
    let [lr, c1, c2, scale] = hyper;
    match (*kind, &mut slots[..]) {
        (OptimizerKind::Sgd { momentum, nesterov, weight_decay, .. }, slots) => {
            let (mu, decay) = (T::of(momentum), T::of(weight_decay));
            for i in 0..p.len() {
                let mut d = scale * g[i] + decay * p[i];
                if let [b] = slots {
                    b[i] = mu * b[i] + c1 * d;
                    d = if nesterov { d + mu * b[i] } else { b[i] };
                }
                p[i] -= lr * d;
            }
        }
        (OptimizerKind::Adam { betas, eps, weight_decay }, [m, v]) => {
            let decay = T::of(weight_decay);
            let moments = Moments::new(betas, eps, lr, c1, c2);
            for i in 0..p.len() {
                let d = scale * g[i] + decay * p[i];
                p[i] -= moments.step(d, &mut m[i], &mut v[i]);
            }
        }
        (OptimizerKind::AdamW { betas, eps, weight_decay }, [m, v]) => {
            let keep = T::one() - lr * T::of(weight_decay);
            let moments = Moments::new(betas, eps, lr, c1, c2);
            for i in 0..p.len() {
                p[i] = keep * p[i] - moments.step(scale * g[i], &mut m[i], &mut v[i]);
            }
        }
        (OptimizerKind::RmsProp { alpha, eps, weight_decay, momentum, centered }, [v, rest @ ..]) => {
            let (mu, decay, eps) = (T::of(momentum), T::of(weight_decay), T::of(eps));
            let (old, new) = (T::of(alpha), T::of(1.0 - alpha));
            let (mean, buffer) = rest.split_at_mut(usize::from(centered));
            for i in 0..p.len() {
                let d = scale * g[i] + decay * p[i];
                v[i] = old * v[i] + new * d * d;
                let mut spread = v[i];
                if let [a] = mean {
                    a[i] += new * (d - a[i]);
                    // Rounding may take a variance of zero below zero.
                    spread = (spread - a[i] * a[i]).max(T::zero());
                }
                let mut d = d / (spread.sqrt() + eps);
                if let [b] = buffer {
                    b[i] = mu * b[i] + d;
                    d = b[i];
                }
                p[i] -= lr * d;
            }
        }
        _ => unreachable!("the shape rule counted the slots"),
    }
}

/// Adam's rule for one element.
struct Moments<T> {
    fresh1: T,
    old2: T,
    fresh2: T,
    eps: T,
    rate: T,
    root: T,
}

impl<T: Real> Moments<T> {
    fn new([beta1, beta2]: [f64; 2], eps: f64, lr: T, c1: T, c2: T) -> Self {
        Self {
            fresh1: T::of(1.0 - beta1),
            old2: T::of(beta2),
            fresh2: T::of(1.0 - beta2),
            eps: T::of(eps),
            rate: lr / c1,
            root: c2.sqrt(),
        }
    }

    fn step(&self, d: T, m: &mut T, v: &mut T) -> T {
        *m += self.fresh1 * (d - *m);
        *v = self.old2 * *v + self.fresh2 * d * d;
        self.rate * *m / (v.sqrt() / self.root + self.eps)
    }
}

impl Op for OptimizerStep {
    fn name(&self) -> &'static str {
        "optimizer_step"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        let params = &self.params.spec;
        if let Err(error) = self.kind.validate() {
            return Err(ShapeError::invalid(self.name(), error.to_string(), params));
        }
        if params.shape.len() != 1 || params.dtype != DType::Float || params.numel() == 0 {
            let what = "the parameters must be floats [P], P at least 1";
            return Err(ShapeError::invalid(self.name(), what, params));
        }
        if inputs[0] != params {
            let what = "the gradients must be shaped like the parameters";
            return Err(ShapeError::mismatch(self.name(), what, inputs[0], params));
        }
        if *inputs[1] != Spec::float([4]) {
            let what = "the second input must be the four numbers of OptimizerKind::hyper";
            return Err(ShapeError::invalid(self.name(), what, inputs[1]));
        }
        if self.slots.len() != self.kind.slots() {
            let (needed, got) = (self.kind.slots(), self.slots.len());
            let what = format!("{} keeps {needed} state vectors, got {got}", self.kind.name());
            return Err(ShapeError::invalid(self.name(), what, params));
        }
        if let Some(slot) = self.slots.iter().find(|s| s.spec != *params) {
            let what = "the state must be shaped like the parameters";
            return Err(ShapeError::mismatch(self.name(), what, &slot.spec, params));
        }
        Ok(Spec::float([0]))
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        elementwise_variants(cx.inputs[0].numel())
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let f = |x: f64| Const::F(x as f32);
        let moments = |betas: [f64; 2], eps, weight_decay| {
            vec![
                ("WEIGHT_DECAY", f(weight_decay)),
                ("FRESH_1", f(1.0 - betas[0])),
                ("OLD_2", f(betas[1])),
                ("FRESH_2", f(1.0 - betas[1])),
                ("EPS", f(eps)),
            ]
        };
        let mut consts = match self.kind {
            OptimizerKind::Sgd { momentum, nesterov, weight_decay, .. } => vec![
                ("WEIGHT_DECAY", f(weight_decay)),
                ("MU", f(momentum)),
                ("NESTEROV", Const::B(nesterov)),
                ("MOMENTUM", Const::B(momentum != 0.0)),
            ],
            OptimizerKind::Adam { betas, eps, weight_decay } | OptimizerKind::AdamW { betas, eps, weight_decay } => {
                moments(betas, eps, weight_decay)
            }
            OptimizerKind::RmsProp { alpha, eps, weight_decay, momentum, centered } => vec![
                ("WEIGHT_DECAY", f(weight_decay)),
                ("MU", f(momentum)),
                ("OLD_2", f(alpha)),
                ("FRESH_2", f(1.0 - alpha)),
                ("EPS", f(eps)),
                ("MOMENTUM", Const::B(momentum > 0.0)),
                ("CENTERED", Const::B(centered)),
            ],
        };
        consts.push(("KIND", Const::Text(self.kind.name())));
        let state = (0..=self.slots.len()).map(Arg::State);
        let args = [Arg::Input(0), Arg::Input(1)].into_iter().chain(state).collect();
        let count = cx.inputs[0].numel();
        let (page, count) = elementwise_page(cx.variant, count, "optimizer_step.wgsl", "optimizer_step_vec4.wgsl");
        let d = Dispatch::elementwise(page, self.kind.name(), count, args, consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        let each = match self.kind {
            OptimizerKind::Sgd { .. } => 4 + 3 * self.slots.len() as u64,
            OptimizerKind::Adam { .. } | OptimizerKind::AdamW { .. } => 15,
            OptimizerKind::RmsProp { .. } => 7 + 4 * self.slots.len() as u64,
        };
        each * inputs[0].numel() as u64
    }

    fn updates(&self) -> Vec<VarView> {
        let params = std::iter::once(&self.params);
        params.chain(&self.slots).cloned().collect()
    }

    fn detail(&self) -> String {
        self.kind.to_string()
    }
}

impl Graph {
    /// Updates the parameters and the optimizer's state by `grads [P]`; `hyper` is the float input `[4]` that the host
    /// fills with [`OptimizerKind::hyper`] before each step. The node's value is an empty tensor.
    ///
    /// # Errors
    /// The settings are invalid, the number of state vectors is not the optimizer's, or lengths differ.
    pub fn optimizer_step(
        &mut self,
        kind: OptimizerKind,
        params: VarView,
        slots: &[VarView],
        grads: NodeId,
        hyper: NodeId,
    ) -> Result<NodeId, ShapeError> {
        let slots = slots.to_vec();
        let op = OptimizerStep { kind, params, slots };
        self.apply(op, &[grads, hyper])
    }
}
