//! Optimizer steps over whole parameter buffers, by the formulas of `torch.optim`.

use rayon::prelude::*;

use super::check_len;
use super::elementwise::CHUNK;

/// The settings of one Adam or AdamW step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// AdamW: the decay shrinks the parameter (Loshchilov and Hutter, 2019) instead of joining the gradient.
    pub decoupled: bool,
    /// Number of this step, from 1.
    pub step: u32,
}

/// One Adam step (Kingma and Ba, 2015): updates the parameters `p` and both moments in place.
///
/// # Panics
/// When the lengths differ.
pub fn adam(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], settings: &Adam) {
    check_len("gradient", g.len(), p.len());
    check_len("first moment", m.len(), p.len());
    check_len("second moment", v.len(), p.len());
    let &Adam { lr, beta1, beta2, eps, weight_decay, decoupled, step } = settings;
    let correction = |beta: f32| 1.0 - f64::from(beta).powi(step.min(i32::MAX as u32) as i32);
    let step_size = (f64::from(lr) / correction(beta1)) as f32;
    let root = (1.0 / correction(beta2).sqrt()) as f32;
    let (shrink, joined) = if decoupled { (1.0 - lr * weight_decay, 0.0) } else { (1.0, weight_decay) };
    let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
    let slices = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(moments);
    slices.for_each(|((p, g), (m, v))| {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g + joined * *p;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *p = shrink * *p - step_size * *m / (v.sqrt() * root + eps);
        }
    });
}

/// The settings of one step of stochastic gradient descent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate of this step.
    pub lr: f32,
    /// Momentum; 0 for none.
    pub momentum: f32,
    /// Share of the gradient that the momentum does not take.
    pub dampening: f32,
    /// Weight decay, added to the gradient.
    pub weight_decay: f32,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Whether this is the first step: the momentum buffer then starts as the gradient itself.
    pub first: bool,
}

/// One step of stochastic gradient descent: updates the parameters `p` and the momentum buffer in place.
/// `buffer` may be empty where `momentum` is 0.
///
/// # Panics
/// When the lengths differ.
pub fn sgd(p: &mut [f32], g: &[f32], buffer: &mut [f32], settings: &Sgd) {
    check_len("gradient", g.len(), p.len());
    let &Sgd { lr, momentum, dampening, weight_decay, nesterov, first } = settings;
    let slices = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK));
    if momentum == 0.0 {
        slices.for_each(|(p, g)| {
            for (p, &g) in p.iter_mut().zip(g) {
                *p -= lr * (g + weight_decay * *p);
            }
        });
        return;
    }
    check_len("momentum buffer", buffer.len(), g.len());
    slices.zip(buffer.par_chunks_mut(CHUNK)).for_each(|((p, g), buffer)| {
        for ((p, &g), b) in p.iter_mut().zip(g).zip(buffer) {
            let g = g + weight_decay * *p;
            *b = if first { g } else { momentum * *b + (1.0 - dampening) * g };
            *p -= lr * if nesterov { g + momentum * *b } else { *b };
        }
    });
}
