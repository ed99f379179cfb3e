//! A schedule on its way through a run: the step number and what reduce-on-plateau remembers.

use serde::{Deserialize, Serialize};

use super::schedule::{Mode, Schedule, ScheduleError, ThresholdMode};

/// A running schedule: [`Scheduler::lr`] is the rate of the coming step, [`Scheduler::step`] goes on after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduler {
    schedule: Schedule,
    base_lr: f64,
    state: SchedulerState,
}

/// What a checkpoint must keep of a [`Scheduler`]; the settings are kept with the run's configuration.
///
/// As JSON it needs a parser that reads floats exactly (`serde_json` with `float_roundtrip`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerState {
    /// Steps that are done.
    pub step: u64,
    /// What reduce-on-plateau remembers; absent for other schedules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plateau: Option<PlateauState>,
    /// What every rate is multiplied by: 1, and less where a run halved its rates ([`Scheduler::halve`]).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub scale: f64,
}

impl Default for SchedulerState {
    fn default() -> Self {
        Self { step: 0, plateau: None, scale: 1.0 }
    }
}

fn one() -> f64 {
    1.0
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref, clippy::float_cmp)]
fn is_one(scale: &f64) -> bool {
    *scale == 1.0
}

/// The memory of reduce-on-plateau.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauState {
    /// The present rate.
    pub lr: f64,
    /// The best metric; none before the first.
    pub best: Option<f64>,
    /// Steps without improvement since the best one or the last reduction.
    pub bad_steps: u64,
    /// Steps of the cooldown that are left.
    pub cooldown_left: u64,
}

impl Scheduler {
    /// A schedule at its beginning.
    ///
    /// # Errors
    /// [`ScheduleError`] for senseless settings or a base rate that is negative or not finite.
    pub fn new(schedule: Schedule, base_lr: f64) -> Result<Self, ScheduleError> {
        schedule.validate()?;
        if !(base_lr.is_finite() && base_lr >= 0.0) {
            return Err(ScheduleError::BaseRate(base_lr));
        }
        let fresh = PlateauState { lr: base_lr, best: None, bad_steps: 0, cooldown_left: 0 };
        let plateau = plateau_of(&schedule).map(|_| fresh);
        Ok(Self { schedule, base_lr, state: SchedulerState { plateau, ..SchedulerState::default() } })
    }

    /// A schedule that goes on where [`Scheduler::state`] was taken; its rates are the same bit for bit.
    ///
    /// # Errors
    /// As [`Scheduler::new`]; [`ScheduleError::State`] if the state is that of another schedule.
    pub fn resume(schedule: Schedule, base_lr: f64, state: SchedulerState) -> Result<Self, ScheduleError> {
        let mut scheduler = Self::new(schedule, base_lr)?;
        let schedule = scheduler.schedule.name();
        if state.plateau.is_some() != scheduler.state.plateau.is_some() {
            let reason = "it was saved by another kind of schedule";
            return Err(ScheduleError::State { schedule, reason });
        }
        if state.plateau.as_ref().is_some_and(|p| !(p.lr.is_finite() && p.lr >= 0.0)) {
            return Err(ScheduleError::State { schedule, reason: "its rate is negative or not finite" });
        }
        if !(state.scale > 0.0 && state.scale <= 1.0) {
            return Err(ScheduleError::State {
                schedule,
                reason: "the factor of its rates is not above 0 and at most 1",
            });
        }
        scheduler.state = state;
        Ok(scheduler)
    }

    /// Halves all rates from here on. A power of two changes no digits, so the rates are half of what they were, bit for bit.
    pub fn halve(&mut self) {
        self.state.scale /= 2.0;
    }

    /// The learning rate of the coming step.
    #[must_use]
    pub fn lr(&self) -> f64 {
        let rate = match &self.state.plateau {
            Some(plateau) if self.state.step >= self.warmup() => plateau.lr,
            _ => self.schedule.rate(self.base_lr, self.state.step),
        };
        self.state.scale * rate
    }

    /// Goes on by one step. Reduce-on-plateau judges `metric`: one that is not a number counts as no improvement, and
    /// without a metric (none was measured this time) it waits. Other schedules do not look at it.
    pub fn step(&mut self, metric: Option<f64>) {
        let warming = self.state.step < self.warmup();
        self.state.step = self.state.step.saturating_add(1);
        if let (Some(metric), false) = (metric, warming) {
            self.judge(metric);
        }
    }

    /// What a checkpoint must keep.
    #[must_use]
    pub fn state(&self) -> &SchedulerState {
        &self.state
    }

    /// The settings.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Steps of a warm-up that comes before another schedule.
    fn warmup(&self) -> u64 {
        match self.schedule {
            Schedule::Warmup { total_iters, .. } => total_iters,
            _ => 0,
        }
    }

    fn judge(&mut self, metric: f64) {
        let (Some(state), Some(schedule)) = (&mut self.state.plateau, plateau_of(&self.schedule)) else { return };
        let &Schedule::ReduceOnPlateau { mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps } =
            schedule
        else {
            return;
        };
        // PyTorch starts from an infinitely bad best value.
        let best = state.best.unwrap_or(if mode == Mode::Min { f64::INFINITY } else { f64::NEG_INFINITY });
        let better = match (mode, threshold_mode) {
            (Mode::Min, ThresholdMode::Rel) => metric < best * (1.0 - threshold),
            (Mode::Min, ThresholdMode::Abs) => metric < best - threshold,
            (Mode::Max, ThresholdMode::Rel) => metric > best * (1.0 + threshold),
            (Mode::Max, ThresholdMode::Abs) => metric > best + threshold,
        };
        if better {
            // An infinity cannot be saved as JSON, and nothing can improve on it: the largest number stands for it.
            state.best = Some(metric.clamp(f64::MIN, f64::MAX));
            state.bad_steps = 0;
        } else {
            state.bad_steps = state.bad_steps.saturating_add(1);
        }
        if state.cooldown_left > 0 {
            state.cooldown_left -= 1;
            state.bad_steps = 0;
        }
        if state.bad_steps > patience {
            let lower = (state.lr * factor).max(min_lr);
            if state.lr - lower > eps {
                state.lr = lower;
            }
            state.cooldown_left = cooldown;
            state.bad_steps = 0;
        }
    }
}

/// The schedule itself or what follows its warm-up, if that is reduce-on-plateau.
fn plateau_of(schedule: &Schedule) -> Option<&Schedule> {
    match schedule {
        Schedule::ReduceOnPlateau { .. } => Some(schedule),
        Schedule::Warmup { then, .. } => plateau_of(then),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Schedule {
        serde_json::from_str(json).unwrap()
    }

    fn rates(json: &str, base: f64, n: usize) -> Vec<f64> {
        let mut s = Scheduler::new(parse(json), base).unwrap();
        (0..n).map(|_| (s.lr(), s.step(None)).0).collect()
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() <= 1e-12 * w.abs(), "{got:?} {want:?}");
        }
    }

    #[test]
    fn warm_up_alone_and_before_another() {
        let linear = r#"{"name":"linear","start_factor":0.25,"total_iters":3}"#;
        close(&rates(linear, 0.4, 5), &[0.1, 0.2, 0.3, 0.4, 0.4]);
        let then =
            r#"{"name":"warmup","start_factor":0.5,"total_iters":2,"then":{"name":"step","step_size":2,"gamma":0.1}}"#;
        close(&rates(then, 1.0, 7), &[0.5, 0.75, 1.0, 1.0, 0.1, 0.1, 0.01]);
        close(&rates(r#"{"name":"constant"}"#, 0.3, 2), &[0.3, 0.3]);
    }

    #[test]
    fn halved_rates_stay_halved_in_a_saved_state() {
        let schedule = parse(r#"{"name":"cosine","t_max":10}"#);
        let mut plain = Scheduler::new(schedule.clone(), 0.3).unwrap();
        assert!(!serde_json::to_string(plain.state()).unwrap().contains("scale"), "equal runs write equal checkpoints");
        let mut halved = plain.clone();
        halved.step(None);
        halved.halve();
        halved.halve();
        let text = serde_json::to_string(halved.state()).unwrap();
        let mut resumed = Scheduler::resume(schedule.clone(), 0.3, serde_json::from_str(&text).unwrap()).unwrap();
        for _ in 0..12 {
            plain.step(None);
            assert_eq!(halved.lr().to_bits(), (plain.lr() / 4.0).to_bits());
            assert_eq!(resumed.lr().to_bits(), halved.lr().to_bits());
            halved.step(None);
            resumed.step(None);
        }
        let bad = SchedulerState { scale: f64::NAN, ..SchedulerState::default() };
        assert!(Scheduler::resume(schedule, 0.3, bad).is_err());
    }

    #[test]
    fn one_cycle_rises_falls_and_stays() {
        let line = r#"{"name":"one_cycle","max_lr":1.0,"total_steps":10,"pct_start":0.3,"anneal_strategy":"linear","div_factor":10,"final_div_factor":10}"#;
        let got = rates(line, 5.0, 12);
        close(&got[..4], &[0.1, 0.55, 1.0, 1.0 - 0.99 / 7.0]);
        close(&got[9..], &[0.01; 3]);
        let three = r#"{"name":"one_cycle","max_lr":1.0,"total_steps":10,"pct_start":0.3,"anneal_strategy":"linear","div_factor":10,"final_div_factor":10,"three_phase":true}"#;
        close(&rates(three, 5.0, 10)[2..6], &[1.0, 0.55, 0.1, 0.1 - 0.09 / 5.0]);
        // A cycle whose rise has no length starts at the top.
        let short = r#"{"name":"one_cycle","max_lr":1.0,"total_steps":10,"pct_start":0.1}"#;
        close(&rates(short, 5.0, 1), &[1.0]);
    }

    #[test]
    fn cosine_comes_back_up() {
        let got = rates(r#"{"name":"cosine","t_max":4,"eta_min":0.2}"#, 1.0, 9);
        close(&[got[0], got[4], got[8]], &[1.0, 0.2, 1.0]);
        assert!((got[3] - got[5]).abs() < 1e-12);
    }

    #[test]
    fn plateau_cools_down_stops_at_the_floor_and_waits_for_a_metric() {
        let json = r#"{"name":"reduce_on_plateau","mode":"max","factor":0.1,"patience":0,"threshold":0.5,"threshold_mode":"abs","cooldown":1,"min_lr":0.02}"#;
        let mut s = Scheduler::new(parse(json), 1.0).unwrap();
        let mut got = Vec::new();
        for metric in [Some(0.5), Some(0.9), Some(0.9), None, Some(f64::NAN), Some(0.9), Some(0.9), Some(2.0)] {
            s.step(metric);
            got.push(s.lr());
        }
        // 0.9 improves by less than 0.5: reduced; one step of cooldown; none; not a number: reduced to the floor.
        close(&got, &[1.0, 0.1, 0.1, 0.1, 0.02, 0.02, 0.02, 0.02]);
    }

    #[test]
    fn a_resumed_schedule_gives_the_same_rates() {
        let schedules = [
            r#"{"name":"cosine","t_max":7}"#,
            r#"{"name":"warmup","total_iters":3,"then":{"name":"reduce_on_plateau","patience":1,"factor":0.7}}"#,
        ];
        let metric = |i: i32| Some(1.0 / f64::from(1 + i.min(4)) + 0.1);
        for json in schedules {
            let mut whole = Scheduler::new(parse(json), 0.1).unwrap();
            for i in 0..25 {
                let text = serde_json::to_string(whole.state()).unwrap();
                let state = serde_json::from_str(&text).unwrap();
                let mut resumed = Scheduler::resume(parse(json), 0.1, state).unwrap();
                assert_eq!(resumed, whole);
                whole.step(metric(i));
                resumed.step(metric(i));
                assert_eq!(resumed.lr().to_bits(), whole.lr().to_bits());
            }
        }
        let plateau = Scheduler::new(parse(r#"{"name":"reduce_on_plateau"}"#), 0.1).unwrap();
        let wrong = Scheduler::resume(parse(schedules[0]), 0.1, plateau.state().clone());
        assert!(matches!(wrong, Err(ScheduleError::State { .. })));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let cases = [
            (r#"{"name":"step","step_size":0}"#, "step_size"),
            (r#"{"name":"multi_step","milestones":[5,3]}"#, "milestones"),
            (r#"{"name":"exponential","gamma":-1}"#, "gamma"),
            (r#"{"name":"cosine","t_max":0}"#, "t_max"),
            (r#"{"name":"one_cycle","max_lr":0.1,"total_steps":0}"#, "total_steps"),
            (r#"{"name":"one_cycle","max_lr":0.1,"total_steps":9,"pct_start":1.5}"#, "pct_start"),
            (r#"{"name":"reduce_on_plateau","factor":1}"#, "factor"),
            (r#"{"name":"linear","start_factor":0}"#, "start_factor"),
            (r#"{"name":"warmup","then":{"name":"linear"}}"#, "warm-up"),
            (r#"{"name":"warmup","then":{"name":"cosine","t_max":0}}"#, "t_max"),
        ];
        for (json, part) in cases {
            let error = Scheduler::new(parse(json), 0.1).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{json}: {error}");
        }
        assert!(matches!(Scheduler::new(Schedule::Constant {}, f64::NAN), Err(ScheduleError::BaseRate(_))));
        for (json, part) in
            [(r#"{"name":"polynomial"}"#, "polynomial"), (r#"{"name":"cosine","t_max":3,"x":1}"#, "`x`")]
        {
            let error = serde_json::from_str::<Schedule>(json).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
