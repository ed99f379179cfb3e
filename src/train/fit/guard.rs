//! What keeps NaN and infinity out of a run.
//!
//! The device is ahead of the host, and the log is read every 50 steps. So the state of the training (weights, running statistics,
//! optimizer) is copied aside one update before each look. If the look shows that all is finite, the copy is known to be good:
//! the last update before the look began with it and gave a finite loss. If not, the run goes back to the good copy of the look
//! before, repeats its steps to the first bad one, whose numbers come again bit by bit, and has that step's values kept. Whatever
//! came after the bad step is thus undone, as if it had been seen at once. Steps that are fine cost a copy every 50.

use std::path::{Path, PathBuf};

use super::journal::{Entry, Happened};
use super::{Event, Fit, LOOK_EVERY, is_bad, mean};
use crate::data::EpochOrder;
use crate::exec::{ExecError, Pending};
use crate::optim::Scheduler;
use crate::store::{ParamStore, VarId};
use crate::tensor::Tensor;
use crate::train::TrainError;
use crate::train::checkpoint;
use crate::train::numbers::{NonFinite, OnNan, spoiled_slot, spoiled_weights};
use crate::train::step::{Host, LOG_COLUMNS, Turn};

/// The last good weights of a run that NaN or infinity ended.
pub const GOOD: &str = "good.safetensors";
/// Halvings of the learning rate without getting past the step in question, at most.
const HALVINGS: u32 = 10;
/// Updates left out one after the other, at most.
const LEFT_OUT: usize = 50;

/// A place in an epoch.
pub(super) struct Walk<'a> {
    pub epoch: u32,
    pub order: &'a EpochOrder,
    /// Steps done in this epoch.
    pub row: usize,
    /// Steps done in all.
    pub step: u64,
    pub scheduler: Scheduler,
}

/// A training between two updates.
#[derive(Clone)]
struct State {
    row: usize,
    step: u64,
    scheduler: Scheduler,
    vars: Vec<(VarId, Tensor)>,
}

/// A state on its way from the device.
struct Begun {
    row: usize,
    step: u64,
    scheduler: Scheduler,
    vars: Vec<(VarId, Pending)>,
}

impl Begun {
    fn arrive(self) -> Result<State, ExecError> {
        let Self { row, step, scheduler, vars } = self;
        let vars = vars.into_iter().map(|(var, value)| Ok((var, arrived(value)?)));
        Ok(State { row, step, scheduler, vars: vars.collect::<Result<_, ExecError>>()? })
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn arrived(value: Pending) -> Result<Tensor, ExecError> {
    pollster::block_on(value)
}

/// A page cannot wait; it drives its training itself ([`super::Live`]).
#[cfg(target_arch = "wasm32")]
fn arrived(_: Pending) -> Result<Tensor, ExecError> {
    Err(ExecError::Device("a page in a browser cannot wait for its device; use Live in the place of run".to_owned()))
}

/// What a loop knows of its epoch.
pub(super) struct Guard {
    good: State,
    begun: Option<Begun>,
    /// The log's rows that were looked at; NaN for updates that were left out.
    pub rows: Vec<[f32; LOG_COLUMNS]>,
    /// How many of them the journal has.
    judged: usize,
    /// Where the next look is.
    next: usize,
    /// From one look to the next.
    interval: usize,
    /// Halvings of which none got past step `beyond`.
    halved: u32,
    beyond: usize,
    /// Updates left out in this epoch, and of those the last in a row.
    left_out: usize,
    in_a_row: usize,
    /// The last state whose loss and gradient were finite, while updates are left out.
    proven: Option<State>,
}

/// The first step that gave no numbers.
struct Found {
    /// Loss, gradient, weights or validation output.
    what: &'static str,
    /// Its row.
    row: usize,
    tensor: Option<NonFinite>,
    /// The state before its update (with gradients that are summed: before the first step of that update).
    before: State,
    /// The last state whose loss and gradient were finite.
    proven: State,
    /// Whether a lower learning rate could have helped: not where an epoch's first step gives no numbers.
    by_rate: bool,
}

impl Fit {
    /// A guard for an epoch that goes on from here; `rows` is its log so far.
    ///
    /// # Errors
    /// The weights hold NaN or infinity.
    pub(super) fn guard(&mut self, walk: &Walk<'_>, rows: Vec<[f32; LOG_COLUMNS]>) -> Result<Guard, TrainError> {
        let good = self.take(walk)?;
        if let Some(tensor) = self.spoiled(&good) {
            return Err(TrainError::SpoiledWeights(Box::new(tensor)));
        }
        let interval = LOOK_EVERY.next_multiple_of(self.config.accumulate);
        // Looks lie between updates, wherever the run goes on.
        let next = ((walk.row + interval) / self.config.accumulate * self.config.accumulate).min(self.steps);
        let (begun, beyond, proven, judged) = (None, walk.row, None, rows.len());
        Ok(Guard { good, begun, rows, judged, next, interval, halved: 0, beyond, left_out: 0, in_a_row: 0, proven })
    }

    /// Submits the next step of an epoch; looks at the log and takes care of bad numbers where that is due.
    pub(super) fn go_on(
        &mut self,
        guard: &mut Guard,
        walk: &mut Walk<'_>,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainError> {
        if walk.row + self.config.accumulate == guard.next && walk.row > guard.good.row {
            guard.begun = Some(self.begin_taking(walk));
        }
        self.advance(walk)?;
        if walk.row == guard.next {
            self.look(guard, walk, folder, events)?;
        }
        Ok(())
    }

    /// Looks at the log and takes care of bad numbers. Gives whether all steps so far and the state that they led to are fine; else the
    /// run has gone back, or past the bad step. It may be called between the looks that are due, for a checkpoint.
    pub(super) fn look(
        &mut self,
        guard: &mut Guard,
        walk: &mut Walk<'_>,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, TrainError> {
        let (seen, due) = (guard.rows.len(), walk.row == guard.next);
        let log = self.stages[self.current.stage].step.log(self.executor.as_mut(), walk.row)?;
        guard.rows.extend_from_slice(&log[seen..]);
        let bad = (seen..walk.row).find(|&row| is_bad(&guard.rows[row]));
        let taken = guard.begun.take_if(|_| due).map(Begun::arrive).transpose()?;
        let mut spoiled = taken.as_ref().is_some_and(|state| self.spoiled(state).is_some());
        if bad.is_none() && !spoiled && (!due || walk.row == self.steps) {
            // No step has shown yet what the last update made of the weights.
            let end = self.take(walk)?;
            spoiled = self.spoiled(&end).is_some();
        }
        if spoiled || bad.is_some() {
            guard.begun = None;
            let found = self.locate(&guard.good, walk, bad, &guard.rows)?;
            self.treat(guard, walk, found, folder, events)?;
            return Ok(false);
        }
        self.judge(guard, walk.epoch, events);
        if walk.row > seen {
            let loss = mean(&guard.rows[seen..], 0);
            events(Event::Step { epoch: walk.epoch, step: walk.row, steps: self.steps, loss });
        }
        if !due {
            return Ok(true);
        }
        if let Some(state) = taken {
            guard.good = state;
        }
        if walk.row >= guard.beyond {
            guard.halved = 0;
        }
        (guard.in_a_row, guard.proven) = (0, None);
        guard.interval = (2 * guard.interval).min(LOOK_EVERY.next_multiple_of(self.config.accumulate));
        guard.next = (walk.row + guard.interval).min(self.steps);
        Ok(true)
    }

    /// Tells the journal of the rows that are new to it, without those of updates that were left out.
    fn judge(&mut self, guard: &mut Guard, epoch: u32, events: &mut dyn FnMut(Event<'_>)) {
        for (row, cells) in guard.rows.iter().enumerate().skip(guard.judged).filter(|(_, cells)| !is_bad(cells)) {
            self.journal.norm((epoch, row + 1), cells[2], events);
        }
        // Rows that are done again are known.
        guard.judged = guard.judged.max(guard.rows.len());
    }

    /// What follows where the validation images give no numbers with the weights of an epoch's end: `image` is the first of them.
    pub(super) fn bad_validation(
        &mut self,
        guard: &mut Guard,
        walk: &mut Walk<'_>,
        image: usize,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainError> {
        let tensor = self.first_in_validation(image)?;
        let (before, row) = (guard.good.clone(), self.steps.saturating_sub(1));
        let by_rate = before.row < self.steps;
        let found = Found { what: "validation output", row, tensor, proven: before.clone(), before, by_rate };
        // The last look of the epoch found all steps fine, and does so again.
        guard.beyond = self.steps + 1;
        if by_rate {
            return self.treat(guard, walk, found, folder, events);
        }
        Err(self.stop(guard, walk, found, folder, None, events)?)
    }

    /// Does what the settings say.
    fn treat(
        &mut self,
        guard: &mut Guard,
        walk: &mut Walk<'_>,
        found: Found,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainError> {
        let group = self.config.accumulate;
        let (epoch, step, what) = (walk.epoch, found.row + 1, found.what.to_owned());
        let tensor = found.tensor.as_ref().map(ToString::to_string);
        match self.config.on_nan {
            OnNan::Stop => Err(self.stop(guard, walk, found, folder, None, events)?),
            OnNan::Skip => {
                (guard.left_out, guard.in_a_row) = (guard.left_out + 1, guard.in_a_row + 1);
                let all = guard.left_out == self.steps / group;
                if all || guard.in_a_row >= LEFT_OUT {
                    let tried = format!("{} updates in a row were left out", guard.in_a_row);
                    return Err(self.stop(guard, walk, found, folder, Some(tried), events)?);
                }
                let before = self.without_sums(found.before);
                self.go_back(&before, walk)?;
                guard.rows.truncate(walk.row);
                self.judge(guard, epoch, events);
                self.pass_over(walk);
                guard.rows.resize(walk.row, [f32::NAN; LOG_COLUMNS]);
                let state = State { row: walk.row, step: walk.step, scheduler: walk.scheduler.clone(), ..before };
                guard.good = state;
                guard.proven.get_or_insert(found.proven);
                (guard.interval, guard.next) = (group, (walk.row + group).min(self.steps));
                self.journal.add(Entry { epoch, step, what: Happened::LeftOut { what, tensor } }, events);
                Ok(())
            }
            OnNan::HalveLr => {
                let tried = if guard.halved == HALVINGS {
                    Some(format!("{HALVINGS} halvings of the learning rate did not help"))
                } else {
                    (!found.by_rate).then(|| "no learning rate changes that".to_owned())
                };
                if tried.is_some() {
                    return Err(self.stop(guard, walk, found, folder, tried, events)?);
                }
                (guard.halved, guard.beyond) = (guard.halved + 1, guard.beyond.max(walk.row.max(found.row + 1)));
                self.go_back(&guard.good, walk)?;
                walk.scheduler.halve();
                guard.good.scheduler = walk.scheduler.clone();
                guard.rows.truncate(walk.row);
                let (back_to, learning_rate) = (walk.row, walk.scheduler.lr());
                let what = Happened::Halved { what, tensor, back_to, learning_rate };
                self.journal.add(Entry { epoch, step, what }, events);
                Ok(())
            }
        }
    }

    /// Goes back to the last good state, keeps it in a file, and says why the run ends.
    fn stop(
        &mut self,
        guard: &mut Guard,
        walk: &mut Walk<'_>,
        found: Found,
        folder: Option<&Path>,
        tried: Option<String>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<TrainError, TrainError> {
        let Found { what, row, tensor, proven, .. } = found;
        let state = guard.proven.take().unwrap_or(proven);
        self.go_back(&state, walk)?;
        if let Some(folder) = folder.filter(|_| state.step > 0) {
            self.journal.write(folder)?;
        }
        let kept = folder.filter(|_| state.step > 0).and_then(|folder| match self.keep(&state, folder) {
            Ok(path) => Some(path),
            Err(e) => {
                events(Event::Note(&format!("the last good weights could not be kept: {e}")));
                None
            }
        });
        let tensor = tensor.map(Box::new);
        Ok(TrainError::Diverged { what, epoch: walk.epoch, step: row + 1, tensor, tried, kept })
    }

    fn keep(&self, state: &State, folder: &Path) -> Result<PathBuf, TrainError> {
        let [(_, trainable), (_, buffers), ..] = &state.vars[..] else {
            return Err(TrainError::setting("weights", "there are none"));
        };
        let path = folder.join(GOOD);
        let tensors = checkpoint::tensors_of(&self.params, trainable, buffers);
        checkpoint::save_best(&path, &tensors, state.step, &self.metadata)?;
        Ok(path)
    }

    /// Repeats the steps since a good state until the first bad one, and looks for what was bad first. `bad` is the first bad row of
    /// the log; where there is none, an update made bad weights.
    fn locate(
        &mut self,
        good: &State,
        walk: &mut Walk<'_>,
        bad: Option<usize>,
        rows: &[[f32; LOG_COLUMNS]],
    ) -> Result<Found, TrainError> {
        let (group, reached) = (self.config.accumulate, walk.row);
        self.go_back(good, walk)?;
        if let Some(row) = bad {
            let (first, mut proven) = (row - row % group, None);
            while walk.row < first {
                if walk.row + group == first {
                    proven = Some(self.take(walk)?);
                }
                self.update(walk)?;
            }
            let before = self.take(walk)?;
            if self.spoiled(&before).is_none() {
                let what = if rows[row][0].is_finite() { "gradient" } else { "loss" };
                let tensor = self.first_in_step(walk, row)?;
                let by_rate = proven.is_some();
                let proven = proven.unwrap_or_else(|| before.clone());
                return Ok(Found { what, row, tensor, before, proven, by_rate });
            }
            // An update before it made bad weights.
            self.go_back(good, walk)?;
        }
        while walk.row < reached {
            let before = self.take(walk)?;
            self.update(walk)?;
            let after = self.take(walk)?;
            if let Some(spoiled) = self.spoiled(&after) {
                let row = walk.row - 1;
                let tensor = Some(self.first_in_update(&before, walk)?.unwrap_or(spoiled));
                return Ok(Found { what: "weights", row, tensor, proven: before.clone(), before, by_rate: true });
            }
        }
        let problem = format!(
            "the weights held NaN or infinity in epoch {}, and the same steps done again gave none: the device does not repeat its results",
            walk.epoch
        );
        Err(ExecError::Device(problem).into())
    }

    /// The first tensor with NaN or infinity in a step of the group of steps that comes next.
    fn first_in_step(&mut self, walk: &mut Walk<'_>, row: usize) -> Result<Option<NonFinite>, TrainError> {
        while walk.row < row {
            self.advance(walk)?;
        }
        let state = self.take(walk)?;
        let turn = self.next_turn(walk);
        let Self { executor, stages, train, current, .. } = self;
        let host = Host { images: train, features: current.features() };
        let step = &stages[current.stage].step;
        Ok(step.first_non_finite(executor.as_mut(), host, &turn, &mut |executor| state.write(executor))?)
    }

    /// The first tensor with NaN or infinity in the update that follows `before`, for which the weights alone speak otherwise.
    fn first_in_update(&mut self, before: &State, walk: &mut Walk<'_>) -> Result<Option<NonFinite>, TrainError> {
        self.go_back(before, walk)?;
        let group = self.config.accumulate;
        if group == 1 {
            return self.first_in_step(walk, before.row);
        }
        while !(walk.row + 1).is_multiple_of(group) {
            self.advance(walk)?;
        }
        let turn = self.next_turn(walk);
        let (lr, number) = (turn.lr, turn.update);
        self.submit(&turn)?;
        let state = self.take(walk)?;
        let Self { executor, stages, current, .. } = self;
        let step = &stages[current.stage].step;
        Ok(step.first_non_finite_of_update(executor.as_mut(), (lr, number), &mut |executor| state.write(executor))?)
    }

    fn first_in_validation(&mut self, image: usize) -> Result<Option<NonFinite>, TrainError> {
        let Self { executor, stages, others, current, evals, .. } = self;
        let Some((_, images)) = others.iter().find(|(name, _)| *name == "val") else { return Ok(None) };
        let cached = stages[current.stage].cache.as_ref().map(|cache| &cache.eval);
        let pass = cached.or_else(|| evals.iter().find(|(name, ..)| *name == "val").map(|(_, pass, _)| pass));
        let Some(pass) = pass else { return Ok(None) };
        let host = Host { images, features: current.val_features() };
        Ok(pass.first_non_finite(executor.as_mut(), host, image)?)
    }

    /// Submits the next step, and the update that belongs to it.
    fn advance(&mut self, walk: &mut Walk<'_>) -> Result<(), TrainError> {
        let batch = self.config.batch;
        let range = walk.row * batch..(walk.row + 1) * batch;
        let images = (&walk.order.images[range.clone()], &walk.order.repeats[range]);
        self.turn((walk.epoch, walk.row), images, &mut walk.step, &mut walk.scheduler)?;
        walk.row += 1;
        Ok(())
    }

    /// How many steps there are up to the next update.
    fn steps_of_update(&self, walk: &Walk<'_>) -> usize {
        self.config.accumulate - walk.row % self.config.accumulate
    }

    /// A state whose sum of gradients is forgotten, if it was taken within an update, as a resumed run may begin.
    fn without_sums(&self, mut state: State) -> State {
        let sums = state.vars.iter_mut().filter(|(var, _)| self.gradients.as_ref().is_some_and(|sum| sum.var == *var));
        sums.for_each(|(_, value)| *value = Tensor::zeros(&value.spec()));
        state
    }

    /// Submits the steps of the next update.
    fn update(&mut self, walk: &mut Walk<'_>) -> Result<(), TrainError> {
        (0..self.steps_of_update(walk)).try_for_each(|_| self.advance(walk))
    }

    /// Goes past the steps of the next update without doing them.
    fn pass_over(&self, walk: &mut Walk<'_>) {
        let steps = self.steps_of_update(walk);
        walk.row += steps;
        walk.step += steps as u64;
        if !self.per_epoch(self.current.stage) {
            walk.scheduler.step(None);
        }
    }

    fn next_turn<'a>(&self, walk: &Walk<'a>) -> Turn<'a> {
        let (batch, row) = (self.config.batch, walk.row);
        let range = row * batch..(row + 1) * batch;
        let (chosen, repeats) = (&walk.order.images[range.clone()], &walk.order.repeats[range]);
        let update = self.update_number(walk.epoch, row);
        Turn { chosen, repeats, seed: self.config.seed, step: walk.step, update, lr: walk.scheduler.lr(), row }
    }

    /// Submits a step without its update.
    fn submit(&mut self, turn: &Turn<'_>) -> Result<(), TrainError> {
        let Self { executor, stages, train, current, .. } = self;
        let host = Host { images: train, features: current.features() };
        Ok(stages[current.stage].step.run(executor.as_mut(), current.programs.step, host, turn)?)
    }

    /// The variables that a step changes, the log apart. The weights come first.
    fn changing(&self) -> Vec<VarId> {
        let slots = self.slots.iter().map(|(_, slot)| slot.var);
        [ParamStore::TRAINABLE, ParamStore::BUFFERS]
            .into_iter()
            .chain(slots)
            .chain(self.gradients.as_ref().map(|sum| sum.var))
            .collect()
    }

    fn take(&mut self, walk: &Walk<'_>) -> Result<State, TrainError> {
        let vars = self.changing().into_iter().map(|var| Ok((var, self.executor.read_var(var)?)));
        let vars = vars.collect::<Result<_, ExecError>>()?;
        Ok(State { row: walk.row, step: walk.step, scheduler: walk.scheduler.clone(), vars })
    }

    fn begin_taking(&mut self, walk: &Walk<'_>) -> Begun {
        let vars = self.changing().into_iter().map(|var| (var, self.executor.fetch_var(var))).collect();
        Begun { row: walk.row, step: walk.step, scheduler: walk.scheduler.clone(), vars }
    }

    fn go_back(&mut self, state: &State, walk: &mut Walk<'_>) -> Result<(), TrainError> {
        state.write(self.executor.as_mut())?;
        (walk.row, walk.step, walk.scheduler) = (state.row, state.step, state.scheduler.clone());
        Ok(())
    }

    /// What in a state is NaN or infinite.
    fn spoiled(&self, state: &State) -> Option<NonFinite> {
        let [(_, trainable), (_, buffers), rest @ ..] = &state.vars[..] else { return None };
        spoiled_weights(&self.params, trainable, buffers).or_else(|| {
            let mut slots = self.slots.iter().zip(rest);
            slots.find_map(|((name, _), (_, value))| spoiled_slot(&self.params, name, value))
        })
    }
}

impl State {
    fn write(&self, executor: &mut dyn crate::exec::Executor) -> Result<(), ExecError> {
        self.vars.iter().try_for_each(|(var, value)| executor.write_var(*var, value))
    }
}
