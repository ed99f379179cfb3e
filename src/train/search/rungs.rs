//! Which trials come next: all of them, or for halving rung by rung.
//!
//! Successive halving here trains afresh on every rung: a trial of the rung of 9 epochs is a training of 9 epochs with its own
//! learning-rate schedule, exactly what `train` with its config does. That costs the epochs of the lower rungs once more (a
//! quarter to a half of the whole for `eta` of 3 or 2), and in exchange each trial is comparable, can be repeated on its own, and
//! a killed search goes on from the journal alone. Which candidates go on depends on finished rungs only, never on the order in
//! which trials ended.

use super::candidates::{Plan, Trial};
use super::grid::Method;
use super::ranking::{self, Standing};
use super::{Results, SearchError};

/// Trials that may run now, in any order.
#[derive(Clone, Debug)]
pub struct Stage {
    /// From 0.
    pub rung: usize,
    /// Epochs of its trials; those of their configs where there is one rung only.
    pub epochs: Option<u32>,
    /// All trials of the rung, finished ones included.
    pub trials: Vec<Trial>,
}

impl Plan {
    /// Epochs of each rung: `min_epochs`, times `eta`, ..., and `max_epochs` last. One rung with the configs' epochs without halving.
    #[must_use]
    pub fn rungs(&self) -> Vec<Option<u32>> {
        let s = &self.spec.search;
        if s.method != Method::Halving {
            return vec![None];
        }
        let max = s.max_epochs.unwrap_or(self.base.epochs);
        let mut rungs = Vec::new();
        let mut epochs = s.min_epochs.unwrap_or(1);
        while epochs < max {
            rungs.push(Some(epochs));
            epochs = epochs.saturating_mul(s.eta);
        }
        rungs.push(Some(max));
        rungs
    }

    /// The rungs that the results lead to: all finished ones, and the first that is not.
    ///
    /// # Errors
    /// A config that cannot be written.
    pub fn stages(&self, results: &Results) -> Result<Vec<Stage>, SearchError> {
        let mut alive: Vec<usize> = (0..self.candidates.len()).collect();
        let mut stages = Vec::new();
        for (rung, epochs) in self.rungs().into_iter().enumerate() {
            let mut trials = Vec::new();
            for &candidate in &alive {
                trials.extend(self.trials(candidate, epochs)?);
            }
            let finished = trials.iter().all(|t| results.get(&t.id).is_some());
            stages.push(Stage { rung, epochs, trials });
            if !finished {
                break;
            }
            let standings = ranking::of_stage(self, &stages[rung], results);
            let most = survivors(alive.len(), self.spec.search.eta);
            alive = standings.iter().filter(|s| s.score.is_some()).take(most).map(|s: &Standing| s.candidate).collect();
            alive.sort_unstable();
            if alive.is_empty() {
                break;
            }
        }
        Ok(stages)
    }

    /// Trainings of the whole search as far as is known: of the rungs to come each takes the share that survives.
    #[must_use]
    pub fn expected(&self) -> usize {
        let mut candidates = self.candidates.len();
        let mut all = 0;
        for _ in self.rungs() {
            all += candidates * self.spec.search.seeds as usize;
            candidates = survivors(candidates, self.spec.search.eta);
        }
        all
    }
}

/// How many of `n` go on: one in `eta`, rounded up.
fn survivors(n: usize, eta: u32) -> usize {
    n.div_ceil(eta.max(1) as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::grid::Spec;
    use super::super::{Outcome, Record, Scores};
    use super::*;

    fn plan() -> Plan {
        let text = "[grid]\nlr = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]\n\
            [search]\nmethod = 'halving'\nmin_epochs = 1\nmax_epochs = 9\neta = 3\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Plan::new(Spec::read(file.path(), &[]).unwrap()).unwrap()
    }

    fn finish(trial: &Trial, val_loss: Option<f64>) -> Record {
        let scores = |val_loss| Scores { best_epoch: 1, val_loss, val_accuracy: 0.5, val_auc: None, parameters: 1 };
        let outcome = match val_loss {
            Some(val_loss) => Outcome::Done(scores(val_loss)),
            None => Outcome::Failed { reason: "it burst".to_owned() },
        };
        Record {
            id: trial.id.clone(),
            settings: BTreeMap::new(),
            seed: 0,
            epochs: trial.config.epochs,
            outcome,
            seconds: 1.0,
            data: String::new(),
        }
    }

    #[test]
    fn one_in_eta_goes_on_with_eta_times_the_epochs() {
        let plan = plan();
        assert_eq!(plan.rungs(), [Some(1), Some(3), Some(9)]);
        assert_eq!(plan.expected(), 9 + 3 + 1);
        let mut results = Results::default();
        let mut kept = Vec::new();
        for rung in 0..3 {
            let stages = plan.stages(&results).unwrap();
            assert_eq!(stages.len(), rung + 1);
            let last = stages.last().unwrap();
            kept.push(last.trials.iter().map(|t| t.config.lr).collect::<Vec<_>>());
            // The larger the rate the better; half of the rung alone decides nothing.
            let (some, rest) = last.trials.split_at(last.trials.len() / 2);
            some.iter().for_each(|t| results.insert(finish(t, Some(1.0 - t.config.lr))));
            assert_eq!(plan.stages(&results).unwrap().len(), rung + 1);
            rest.iter().for_each(|t| results.insert(finish(t, Some(1.0 - t.config.lr))));
        }
        assert_eq!(kept[1..], [vec![0.7, 0.8, 0.9], vec![0.9]]);
        assert_eq!(plan.stages(&results).unwrap().len(), 3);
    }

    #[test]
    fn what_failed_does_not_go_on() {
        let plan = plan();
        let mut results = Results::default();
        for trial in &plan.stages(&results).unwrap()[0].trials {
            results.insert(finish(trial, (trial.config.lr < 0.25).then_some(trial.config.lr)));
        }
        let next: Vec<f64> = plan.stages(&results).unwrap()[1].trials.iter().map(|t| t.config.lr).collect();
        assert_eq!(next, [0.1, 0.2]);
        let mut none = Results::default();
        plan.stages(&none).unwrap()[0].trials.iter().for_each(|t| none.insert(finish(t, None)));
        assert_eq!(plan.stages(&none).unwrap().len(), 1);
    }
}
