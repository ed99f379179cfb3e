//! The update rules, element by element: what the optimizer kernels are checked against.

use num_traits::{AsPrimitive, Float};

use super::{OptimError, OptimizerKind};

/// One step of one parameter tensor, in place.
///
/// `lr` is the learning rate of this step and `t` its number, counted from 1. `p` and `g` are the parameter and its
/// gradient, `state` the tensors of [`OptimizerKind::slot_names`], zero before the first step; all have the
/// parameter's length. Factors that do not depend on the element are computed in `f64`, the rest in `T`. The formulas
/// are those on PyTorch's pages of the same optimizers.
///
/// # Errors
/// [`OptimError`] for invalid settings, step 0, a negative or infinite rate, or lengths that differ; nothing is then
/// changed.
pub fn update<T>(
    kind: &OptimizerKind,
    lr: f64,
    t: u64,
    p: &mut [T],
    g: &[T],
    state: &mut [Vec<T>],
) -> Result<(), OptimError>
where
    T: Float + 'static,
    f64: AsPrimitive<T>,
{
    check(kind, lr, t, p.len(), g.len(), &state.iter().map(Vec::len).collect::<Vec<_>>())?;
    match *kind {
        OptimizerKind::Sgd { momentum, dampening, nesterov, weight_decay } => {
            let (rate, mu, decay): (T, T, T) = (lr.as_(), momentum.as_(), weight_decay.as_());
            // PyTorch starts the momentum with the whole gradient, whatever the dampening.
            let fresh: T = if t == 1 { T::one() } else { (1.0 - dampening).as_() };
            for i in 0..p.len() {
                let mut d = g[i] + decay * p[i];
                if let [buffer, ..] = state {
                    buffer[i] = mu * buffer[i] + fresh * d;
                    d = if nesterov { d + mu * buffer[i] } else { buffer[i] };
                }
                p[i] = p[i] - rate * d;
            }
        }
        OptimizerKind::Adam { betas, eps, weight_decay } => {
            let decay: T = weight_decay.as_();
            adam(lr, t, betas, eps, p, state, |i, p| (p, g[i] + decay * p));
        }
        OptimizerKind::AdamW { betas, eps, weight_decay } => {
            let keep: T = (1.0 - lr * weight_decay).as_();
            adam(lr, t, betas, eps, p, state, |i, p| (p * keep, g[i]));
        }
        OptimizerKind::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
            let (rate, mu, decay): (T, T, T) = (lr.as_(), momentum.as_(), weight_decay.as_());
            let (old, new, eps): (T, T, T) = (alpha.as_(), (1.0 - alpha).as_(), eps.as_());
            let Some((square, rest)) = state.split_first_mut() else { return Ok(()) };
            let (mean, buffer) = rest.split_at_mut(usize::from(centered));
            for i in 0..p.len() {
                let d = g[i] + decay * p[i];
                square[i] = old * square[i] + new * d * d;
                let mut spread = square[i];
                if let [mean] = mean {
                    mean[i] = mean[i] + new * (d - mean[i]);
                    // Rounding may take a variance of zero below zero.
                    spread = (spread - mean[i] * mean[i]).max(T::zero());
                }
                let mut d = d / (spread.sqrt() + eps);
                if let [buffer] = buffer {
                    buffer[i] = mu * buffer[i] + d;
                    d = buffer[i];
                }
                p[i] = p[i] - rate * d;
            }
        }
    }
    Ok(())
}

/// Adam's rule; `decayed` gives the parameter and the gradient after weight decay of either kind.
fn adam<T>(
    lr: f64,
    t: u64,
    [beta1, beta2]: [f64; 2],
    eps: f64,
    p: &mut [T],
    state: &mut [Vec<T>],
    decayed: impl Fn(usize, T) -> (T, T),
) where
    T: Float + 'static,
    f64: AsPrimitive<T>,
{
    let [m, v] = state else { return };
    // Bias corrections, folded into the step size and the root.
    let t = t as f64;
    let rate: T = (lr / (1.0 - beta1.powf(t))).as_();
    let root: T = (1.0 - beta2.powf(t)).sqrt().as_();
    let (fresh, old2, fresh2, eps): (T, T, T, T) = ((1.0 - beta1).as_(), beta2.as_(), (1.0 - beta2).as_(), eps.as_());
    for i in 0..p.len() {
        let (kept, d) = decayed(i, p[i]);
        m[i] = m[i] + fresh * (d - m[i]);
        v[i] = old2 * v[i] + fresh2 * d * d;
        p[i] = kept - rate * m[i] / (v[i].sqrt() / root + eps);
    }
}

fn check(kind: &OptimizerKind, lr: f64, t: u64, p: usize, g: usize, state: &[usize]) -> Result<(), OptimError> {
    kind.validate()?;
    let optimizer = kind.name();
    if !(lr.is_finite() && lr >= 0.0) {
        return Err(OptimError::LearningRate(lr));
    }
    if t == 0 {
        return Err(OptimError::StepZero);
    }
    if state.len() != kind.slots() {
        return Err(OptimError::Slots { optimizer, given: state.len(), needed: kind.slots() });
    }
    let slots = kind.slot_names().iter().copied().zip(state.iter().copied());
    match std::iter::once(("the gradient", g)).chain(slots).find(|&(_, len)| len != p) {
        Some((what, len)) => Err(OptimError::Length { optimizer, what, len, parameter: p }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str, n: u64) -> f64 {
        let kind: OptimizerKind = text.parse().unwrap();
        let (mut p, mut state) = ([1.0f64], vec![vec![0.0]; kind.slots()]);
        for t in 1..=n {
            let g = [2.0 * p[0]];
            update(&kind, 0.1, t, &mut p, &g, &mut state).unwrap();
        }
        p[0]
    }

    #[test]
    fn first_steps_by_hand() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(steps("sgd", 1), 0.8);
        // The second momentum is 0.9 * 2 + 0.5 * 1.6.
        close(steps("sgd:momentum=0.9,dampening=0.5", 2), 0.8 - 0.1 * 2.6);
        close(steps("sgd:momentum=0.9,nesterov=true", 1), 1.0 - 0.1 * (2.0 + 0.9 * 2.0));
        // Adam's first step is the rate itself, but for eps.
        close(steps("adam:eps=0", 1), 0.9);
        close(steps("adamw:eps=0,weight_decay=0.5", 1), 0.95 - 0.1);
        close(steps("rmsprop:alpha=0.75,eps=0", 1), 1.0 - 0.1 * 2.0);
        // Centred: mean 0.5, mean square 1, variance 0.75.
        close(steps("rmsprop:alpha=0.75,eps=0,centered=true", 1), 1.0 - 0.1 * 2.0 / 0.75f64.sqrt());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let adam: OptimizerKind = "adam".parse().unwrap();
        let mut p = [1.0f32; 3];
        let mut good = vec![vec![0.0; 3]; 2];
        assert!(matches!(update(&adam, 0.1, 1, &mut p, &[1.0; 2], &mut good), Err(OptimError::Length { .. })));
        assert!(matches!(update(&adam, 0.1, 0, &mut p, &[1.0; 3], &mut good), Err(OptimError::StepZero)));
        assert!(matches!(update(&adam, f64::NAN, 1, &mut p, &[1.0; 3], &mut good), Err(OptimError::LearningRate(_))));
        assert!(matches!(update(&adam, 0.1, 1, &mut p, &[1.0; 3], &mut good[..1]), Err(OptimError::Slots { .. })));
        good[1].pop();
        let error = update(&adam, 0.1, 1, &mut p, &[1.0; 3], &mut good).unwrap_err().to_string();
        assert!(error.contains("exp_avg_sq"), "{error}");
        assert_eq!(p, [1.0; 3]);
    }
}
