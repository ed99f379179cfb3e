//! The candidates that a GRID.toml gives, and the trials of each.

use std::collections::BTreeSet;

use toml::Value;

use super::grid::{Axis, Method, Spec, Values, axes};
use super::{SearchError, draw};
use crate::nn::error::nearest;
use crate::train::TrainConfig;
use crate::train::overrides::{self, Override};

/// Candidates of one search, at most.
pub const MAX_CANDIDATES: usize = 100_000;

/// One point of the space: a config for each seed and number of epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The value on each axis.
    pub point: Vec<Value>,
    /// Its config for the first seed.
    pub config: TrainConfig,
}

/// One training.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// 16 hexadecimal digits of the BLAKE3 hash of the config, the path of the data left out.
    pub id: String,
    /// What is trained.
    pub config: TrainConfig,
    /// The candidate that it belongs to.
    pub candidate: usize,
}

/// All candidates of a search.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was asked for, with the settings of all trials filled in.
    pub spec: Spec,
    /// The settings of all trials.
    pub base: TrainConfig,
    /// What varies: settings by name, then holes by name.
    pub axes: Vec<Axis>,
    /// What is tried.
    pub candidates: Vec<Candidate>,
}

impl Plan {
    /// Expands a grid, or draws from it.
    ///
    /// # Errors
    /// [`SearchError::Grid`] in one line: holes without a variable, variables without a hole, ranges in a full grid, settings that
    /// contradict the method, too many candidates.
    pub fn new(spec: Spec) -> Result<Self, SearchError> {
        let fail = |text: String| Err(SearchError::Grid(text));
        let base = overrides::resolve(spec.base.clone()).map_err(|e| SearchError::Grid(format!("[base] {e}")))?;
        let mut all = axes(&spec.grid, false).map_err(|e| SearchError::Grid(format!("[grid] {e}")))?;
        all.extend(axes(&spec.vars, true).map_err(|e| SearchError::Grid(format!("[vars] {e}")))?);
        check_holes(&base, &all)?;
        let s = &spec.search;
        let drawn = match (s.method, s.trials) {
            (Method::Grid, Some(_)) => {
                return fail(
                    "[search] trials is for method = \"random\" and \"halving\"; a grid has as many as it has".into(),
                );
            }
            (Method::Random, None) => return fail("[search] trials is missing: how many draws?".into()),
            (_, Some(0)) => return fail("[search] trials must be at least 1".into()),
            (_, trials) => trials,
        };
        if s.seeds == 0 {
            return fail("[search] seeds must be at least 1".into());
        }
        if s.method == Method::Halving {
            if all.iter().any(|a| a.name == "epochs") {
                return fail("[grid] epochs: halving decides the epochs itself".into());
            }
            let (min, max) = (s.min_epochs.unwrap_or(1), s.max_epochs.unwrap_or(base.epochs));
            if s.eta < 2 || min == 0 || min > max {
                return fail("[search] halving needs eta of at least 2 and 1 <= min_epochs <= max_epochs".into());
            }
        } else if s.min_epochs.is_some() || s.max_epochs.is_some() {
            return fail("[search] min_epochs and max_epochs are for method = \"halving\"".into());
        }
        if s.seeds > 1 && all.iter().any(|a| a.name == "seed") {
            return fail("[grid] seed and [search] seeds both choose seeds: keep one of them".into());
        }
        let mut plan = Self { base, axes: all, candidates: Vec::new(), spec };
        match drawn {
            Some(trials) => plan.draw(trials)?,
            None => plan.expand()?,
        }
        Ok(plan)
    }

    fn expand(&mut self) -> Result<(), SearchError> {
        let mut lists = Vec::new();
        for axis in &self.axes {
            match &axis.values {
                Values::List(values) => lists.push(values.clone()),
                Values::Range(_) => {
                    return Err(SearchError::Grid(format!(
                        "{}: a range is for draws: give a list, or [search] trials with method = \"random\" or \"halving\"",
                        axis.name
                    )));
                }
            }
        }
        let count = lists.iter().try_fold(1usize, |n, list| n.checked_mul(list.len()));
        let Some(count) = count.filter(|&n| n <= MAX_CANDIDATES) else {
            return Err(SearchError::Grid(format!(
                "the grid has more than {MAX_CANDIDATES} combinations: shorten lists, or draw from it with method = \"random\""
            )));
        };
        let mut seen = BTreeSet::new();
        for mut number in 0..count {
            let mut point = Vec::with_capacity(lists.len());
            for list in &lists {
                point.push(list[number % list.len()].clone());
                number /= list.len();
            }
            self.push(point, &mut seen)?;
        }
        Ok(())
    }

    fn draw(&mut self, trials: u32) -> Result<(), SearchError> {
        let wanted = (trials as usize).min(MAX_CANDIDATES);
        let mut seen = BTreeSet::new();
        // A small space is soon drawn out; a hundred draws in a row that were there before say so.
        let (mut number, mut old) = (0, 0);
        while self.candidates.len() < wanted && old < 100 {
            let point = draw::point(&self.axes, self.spec.search.seed, number);
            number += 1;
            let before = self.candidates.len();
            self.push(point, &mut seen)?;
            old = if self.candidates.len() > before { 0 } else { old + 1 };
        }
        Ok(())
    }

    /// Adds a candidate, unless its settings are those of an earlier one.
    fn push(&mut self, point: Vec<Value>, seen: &mut BTreeSet<String>) -> Result<(), SearchError> {
        let sets: Vec<Override> = self
            .axes
            .iter()
            .zip(&point)
            .filter(|(axis, _)| !axis.hole)
            .map(|(axis, value)| Override::new(axis.name.clone(), value.clone()))
            .collect();
        let mut config = overrides::apply(&self.base, &sets).map_err(|e| SearchError::Grid(format!("[grid] {e}")))?;
        let vars = self.axes.iter().zip(&point).filter(|(axis, _)| axis.hole);
        for (axis, value) in vars {
            config.model = config.model.replace(&format!("{{{}}}", axis.name), &word(value));
        }
        // Repetitions and seeds that are searched over are compared on one split.
        if self.spec.search.seeds > 1 || self.axes.iter().any(|a| a.name == "seed") {
            config.split_seed.get_or_insert(self.base.seed);
        }
        if seen.insert(id(&config)?) {
            self.candidates.push(Candidate { point, config });
        }
        Ok(())
    }

    /// The trainings of a candidate, one a seed, for so many epochs or for those of its config.
    ///
    /// # Errors
    /// A config that cannot be written.
    pub fn trials(&self, candidate: usize, epochs: Option<u32>) -> Result<Vec<Trial>, SearchError> {
        let config = &self.candidates[candidate].config;
        (0..self.spec.search.seeds)
            .map(|k| {
                let seed = config.seed.wrapping_add(k);
                let config = TrainConfig { seed, epochs: epochs.unwrap_or(config.epochs), ..config.clone() };
                Ok(Trial { id: id(&config)?, config, candidate })
            })
            .collect()
    }
}

/// The id of a config.
fn id(config: &TrainConfig) -> Result<String, SearchError> {
    let text = TrainConfig { data: String::new(), ..config.clone() }.to_toml()?;
    Ok(blake3::hash(text.as_bytes()).to_hex().as_str()[..16].to_owned())
}

/// A value as it stands in a model, a table or a file name: texts without quotation marks.
#[must_use]
pub fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every hole must have a variable, and every variable a hole in some model.
fn check_holes(base: &TrainConfig, axes: &[Axis]) -> Result<(), SearchError> {
    let vars: Vec<&str> = axes.iter().filter(|a| a.hole).map(|a| a.name.as_str()).collect();
    let listed = axes.iter().find(|a| !a.hole && a.name == "model").map(|a| &a.values);
    let models: Vec<&str> = match listed {
        Some(Values::List(values)) => values.iter().filter_map(Value::as_str).collect(),
        _ => vec![&base.model],
    };
    let mut used = BTreeSet::new();
    for model in models {
        let mut rest = model;
        while let Some(start) = rest.find(['{', '}']) {
            let end = rest[start..].find('}').filter(|_| rest[start..].starts_with('{'));
            let Some(end) = end else {
                return Err(SearchError::Grid(format!("model {model}: a hole is written {{name}}")));
            };
            let name = &rest[start + 1..start + end];
            if !vars.contains(&name) {
                let hint = nearest(name, vars.iter().copied())
                    .map_or_else(|| format!("add {name} = [...] to [vars]"), |near| format!("did you mean `{near}`?"));
                return Err(SearchError::Grid(format!("model {model}: the hole {{{name}}} has no variable: {hint}")));
            }
            used.insert(name);
            rest = &rest[start + end + 1..];
        }
    }
    match vars.iter().find(|v| !used.contains(*v)) {
        Some(var) => Err(SearchError::Grid(format!("[vars] {var}: no model has the hole {{{var}}}"))),
        None => Ok(()),
    }
}
