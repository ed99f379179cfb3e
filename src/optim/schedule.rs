//! Learning-rate schedules with the meaning, the names and the defaults of `torch.optim.lr_scheduler`.
//!
//! All but reduce-on-plateau are functions of the step number, so nothing adds up from step to step. A step is
//! whatever the caller calls [`Scheduler::step`](super::Scheduler::step) after: a batch or an epoch.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// A schedule and its settings. In files: `name = "cosine"` beside the arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The base rate throughout.
    Constant {},
    /// Times `gamma` every `step_size` steps (`StepLR`).
    Step {
        /// Steps between two changes.
        step_size: u64,
        /// The factor.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// Times `gamma` at each milestone (`MultiStepLR`).
    MultiStep {
        /// Step numbers in ascending order; one that stands twice counts twice.
        milestones: Vec<u64>,
        /// The factor.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// Times `gamma` every step (`ExponentialLR`).
    Exponential {
        /// The factor.
        gamma: f64,
    },
    /// Half a cosine from the base rate to `eta_min` in `t_max` steps, then back up (`CosineAnnealingLR`).
    Cosine {
        /// Steps from the top to the bottom; 0 in a training's settings: all that are left.
        #[serde(default, alias = "T_max")]
        t_max: u64,
        /// The lowest rate.
        #[serde(default)]
        eta_min: f64,
    },
    /// Up to `max_lr`, then far down (`OneCycleLR`; Smith and Topin 2018, arXiv 1708.07120). The base rate plays no
    /// part, and momentum is left alone (`cycle_momentum=False`). After `total_steps` the last rate stays.
    OneCycle {
        /// The highest rate.
        max_lr: f64,
        /// The length of the cycle.
        total_steps: u64,
        /// The share of the cycle in which the rate rises.
        #[serde(default = "pct_start")]
        pct_start: f64,
        /// The shape of rise and fall.
        #[serde(default)]
        anneal_strategy: Anneal,
        /// The first rate is `max_lr / div_factor`.
        #[serde(default = "div_factor")]
        div_factor: f64,
        /// The last rate is the first one divided by this.
        #[serde(default = "final_div_factor")]
        final_div_factor: f64,
        /// Falls as long as it rose, then from the first rate to the last one.
        #[serde(default)]
        three_phase: bool,
    },
    /// Times `factor` when a metric has not improved for more than `patience` steps (`ReduceLROnPlateau`).
    ReduceOnPlateau {
        /// Whether small or large is good.
        #[serde(default)]
        mode: Mode,
        /// The factor, below 1.
        #[serde(default = "tenth")]
        factor: f64,
        /// Steps without improvement that are borne.
        #[serde(default = "patience")]
        patience: u64,
        /// What counts as an improvement.
        #[serde(default = "threshold")]
        threshold: f64,
        /// Whether `threshold` is a share of the best value or a difference from it.
        #[serde(default)]
        threshold_mode: ThresholdMode,
        /// Steps after a reduction in which bad values do not count.
        #[serde(default)]
        cooldown: u64,
        /// The lowest rate.
        #[serde(default)]
        min_lr: f64,
        /// A smaller change of the rate than this is not made.
        #[serde(default = "eps")]
        eps: f64,
    },
    /// Linear warm-up: the factor goes from `start_factor` to `end_factor` in `total_iters` steps, and stays
    /// (`LinearLR`).
    #[serde(alias = "linear_warmup", alias = "linear_warm_up")]
    Linear {
        /// The first factor.
        #[serde(default = "third")]
        start_factor: f64,
        /// The last factor.
        #[serde(default = "one")]
        end_factor: f64,
        /// Steps from the first to the last.
        #[serde(default = "total_iters")]
        total_iters: u64,
    },
    /// Linear warm-up for `total_iters` steps, then another schedule from its beginning (`SequentialLR` of `LinearLR`
    /// and another, with the milestone `total_iters`).
    Warmup {
        /// The first factor.
        #[serde(default = "third")]
        start_factor: f64,
        /// The factor that the warm-up goes to.
        #[serde(default = "one")]
        end_factor: f64,
        /// Steps of the warm-up.
        #[serde(default = "total_iters")]
        total_iters: u64,
        /// What follows; no warm-up itself.
        then: Box<Schedule>,
    },
}

/// Whether a metric is to fall (a loss) or to rise (an accuracy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Small is good.
    #[default]
    Min,
    /// Large is good.
    Max,
}

/// How the threshold of reduce-on-plateau is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMode {
    /// A share of the best value.
    #[default]
    Rel,
    /// A difference from the best value.
    Abs,
}

/// The curve between two rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cos,
    /// A line.
    Linear,
}

impl Anneal {
    /// The value at the share `x` of the way from `start` to `end`.
    fn at(self, start: f64, end: f64, x: f64) -> f64 {
        match self {
            Self::Cos => end + (start - end) / 2.0 * (1.0 + (PI * x).cos()),
            Self::Linear => start + (end - start) * x,
        }
    }
}

fn tenth() -> f64 {
    0.1
}
fn third() -> f64 {
    1.0 / 3.0
}
fn one() -> f64 {
    1.0
}
fn total_iters() -> u64 {
    5
}
fn pct_start() -> f64 {
    0.3
}
fn div_factor() -> f64 {
    25.0
}
fn final_div_factor() -> f64 {
    1e4
}
fn patience() -> u64 {
    10
}
fn threshold() -> f64 {
    1e-4
}
fn eps() -> f64 {
    1e-8
}

/// A schedule that makes no sense, or a saved state that does not belong to it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// An argument out of its range.
    #[error("schedule {schedule}: {argument} is {value}, it must be {range}; change it")]
    Argument {
        /// The schedule.
        schedule: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// Milestones that go back.
    #[error("schedule multi_step: the milestones {0:?} are not in ascending order; sort them")]
    Milestones(Vec<u64>),
    /// A base rate below zero or not finite.
    #[error("the base learning rate is {0}, it must be finite and at least 0; change it")]
    BaseRate(f64),
    /// A warm-up before a warm-up.
    #[error("schedule warmup: `then` is a warm-up itself; use one warm-up")]
    Nested,
    /// A state of another schedule, or a broken one.
    #[error("the saved state of the schedule does not fit {schedule}: {reason}; resume with the settings of that run")]
    State {
        /// The schedule.
        schedule: &'static str,
        /// What does not fit.
        reason: &'static str,
    },
}

impl Schedule {
    /// The name as files have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Constant {} => "constant",
            Self::Step { .. } => "step",
            Self::MultiStep { .. } => "multi_step",
            Self::Exponential { .. } => "exponential",
            Self::Cosine { .. } => "cosine",
            Self::OneCycle { .. } => "one_cycle",
            Self::ReduceOnPlateau { .. } => "reduce_on_plateau",
            Self::Linear { .. } => "linear",
            Self::Warmup { .. } => "warmup",
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`ScheduleError`] with the argument, its value and its range.
    pub fn validate(&self) -> Result<(), ScheduleError> {
        let schedule = self.name();
        let demand = |ok: bool, argument, value: f64, range| match ok {
            true => Ok(()),
            false => Err(ScheduleError::Argument { schedule, argument, value, range }),
        };
        let from_zero = |argument, x: f64| demand(x.is_finite() && x >= 0.0, argument, x, "finite and at least 0");
        let above_zero = |argument, x: f64| demand(x.is_finite() && x > 0.0, argument, x, "finite and above 0");
        let at_least_1 = |argument, n: u64| demand(n >= 1, argument, n as f64, "at least 1");
        // PyTorch's bounds of LinearLR.
        let ramp = |start: f64, end: f64, iters: u64| {
            demand(start > 0.0 && start <= 1.0, "start_factor", start, "above 0 and at most 1")?;
            demand((0.0..=1.0).contains(&end), "end_factor", end, "in 0 to 1")?;
            at_least_1("total_iters", iters)
        };
        match self {
            Self::Constant {} => Ok(()),
            Self::Step { step_size, gamma } => {
                at_least_1("step_size", *step_size)?;
                from_zero("gamma", *gamma)
            }
            Self::MultiStep { milestones, gamma } => {
                if !milestones.is_sorted() {
                    return Err(ScheduleError::Milestones(milestones.clone()));
                }
                from_zero("gamma", *gamma)
            }
            Self::Exponential { gamma } => from_zero("gamma", *gamma),
            Self::Cosine { t_max, eta_min } => {
                at_least_1("t_max", *t_max)?;
                from_zero("eta_min", *eta_min)
            }
            Self::OneCycle { max_lr, total_steps, pct_start, div_factor, final_div_factor, three_phase, .. } => {
                above_zero("max_lr", *max_lr)?;
                at_least_1("total_steps", *total_steps)?;
                let (top, range) = if *three_phase { (0.5, "in 0 to 0.5") } else { (1.0, "in 0 to 1") };
                demand((0.0..=top).contains(pct_start), "pct_start", *pct_start, range)?;
                above_zero("div_factor", *div_factor)?;
                above_zero("final_div_factor", *final_div_factor)
            }
            Self::ReduceOnPlateau { factor, threshold, min_lr, eps, .. } => {
                demand((0.0..1.0).contains(factor), "factor", *factor, "in 0 to 1, 1 excluded")?;
                from_zero("threshold", *threshold)?;
                from_zero("min_lr", *min_lr)?;
                from_zero("eps", *eps)
            }
            Self::Linear { start_factor, end_factor, total_iters } => ramp(*start_factor, *end_factor, *total_iters),
            Self::Warmup { start_factor, end_factor, total_iters, then } => {
                ramp(*start_factor, *end_factor, *total_iters)?;
                match **then {
                    Self::Warmup { .. } | Self::Linear { .. } => Err(ScheduleError::Nested),
                    _ => then.validate(),
                }
            }
        }
    }

    /// The rate at step `t`, counted from 0; for reduce-on-plateau, whose rate depends on more, the base rate.
    pub(super) fn rate(&self, base: f64, t: u64) -> f64 {
        match self {
            Self::Constant {} | Self::ReduceOnPlateau { .. } => base,
            Self::Step { step_size, gamma } => base * power(*gamma, t / (*step_size).max(1)),
            Self::MultiStep { milestones, gamma } => {
                base * power(*gamma, milestones.partition_point(|&m| m <= t) as u64)
            }
            Self::Exponential { gamma } => base * power(*gamma, t),
            Self::Cosine { t_max, eta_min } => {
                // The phase is reduced by whole periods first, so that it stays exact however long a run is.
                let phase = (t % (2 * *t_max).max(1)) as f64 / *t_max as f64;
                eta_min + (base - eta_min) * (1.0 + (PI * phase).cos()) / 2.0
            }
            Self::OneCycle { .. } => self.one_cycle(t),
            Self::Linear { start_factor, end_factor, total_iters } => {
                base * ramp(*start_factor, *end_factor, *total_iters, t)
            }
            Self::Warmup { start_factor, end_factor, total_iters, then } => match t.checked_sub(*total_iters) {
                None => base * ramp(*start_factor, *end_factor, *total_iters, t),
                Some(t) => then.rate(base, t),
            },
        }
    }

    fn one_cycle(&self, t: u64) -> f64 {
        let Self::OneCycle {
            max_lr,
            total_steps,
            pct_start,
            anneal_strategy,
            div_factor,
            final_div_factor,
            three_phase,
        } = *self
        else {
            return f64::NAN;
        };
        let first = max_lr / div_factor;
        let last = first / final_div_factor;
        let end = total_steps.saturating_sub(1) as f64;
        let t = (t as f64).min(end);
        let peak = pct_start * total_steps as f64 - 1.0;
        // Phases: up to which step, from which rate, to which rate.
        let phases: &[(f64, f64, f64)] = if three_phase {
            &[(peak, first, max_lr), (2.0 * pct_start * total_steps as f64 - 2.0, max_lr, first), (end, first, last)]
        } else {
            &[(peak, first, max_lr), (end, max_lr, last)]
        };
        let mut start = 0.0;
        for &(stop, from, to) in phases {
            if t <= stop {
                let share = if stop > start { (t - start) / (stop - start) } else { 1.0 };
                return anneal_strategy.at(from, to, share);
            }
            start = stop;
        }
        last
    }
}

/// The factor of linear warm-up at step `t`.
fn ramp(start: f64, end: f64, iters: u64, t: u64) -> f64 {
    start + (end - start) * (t.min(iters) as f64 / iters.max(1) as f64)
}

/// `x^n` for any count.
fn power(x: f64, n: u64) -> f64 {
    i32::try_from(n).map_or_else(|_| x.powf(n as f64), |n| x.powi(n))
}
