//! GRID.toml: what is searched, and the candidates that it gives.
//!
//! `[base]` holds settings that all trials share, `[grid]` lists of values for settings (dotted keys lead into tables),
//! `[vars]` lists for the `{holes}` in `model`, and `[search]` how to go about it.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{SearchError, draw};
use crate::nn::error::nearest;
use crate::train::overrides::{self, Override};
use crate::train::setting::{SettingError, TomlFile, read_table};
use crate::train::{TrainConfig, TrainError};

/// Candidates of one search, at most.
pub const MAX_CANDIDATES: usize = 100_000;

/// How candidates come about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every combination of the listed values.
    #[default]
    Grid,
    /// So many draws.
    Random,
    /// Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): all candidates for few epochs, the best of them
    /// for more. The candidates are drawn where `trials` says how many, else every combination.
    Halving,
}

/// What trials are ranked by, on the validation images with the kept weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The log loss; small is good.
    #[default]
    ValLoss,
    /// The share of right decisions.
    ValAccuracy,
    /// The area under the ROC curve.
    ValAuc,
}

impl Metric {
    /// As tables and axes name it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::ValLoss => "Val. loss",
            Self::ValAccuracy => "Val. accuracy",
            Self::ValAuc => "Val. ROC-AUC",
        }
    }

    /// Whether large values are good.
    #[must_use]
    pub fn large_is_good(self) -> bool {
        self != Self::ValLoss
    }
}

/// `[search]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How candidates come about.
    pub method: Method,
    /// How many are drawn.
    pub trials: Option<u32>,
    /// The seed of the draws.
    pub seed: u32,
    /// Trainings of each candidate: with the seed of `[base]`, the next one, ...; all on the same split.
    pub seeds: u32,
    /// What candidates are ranked by.
    pub metric: Metric,
    /// Halving: epochs of the first rung.
    pub min_epochs: Option<u32>,
    /// Halving: epochs of the last rung; those of `[base]` where absent.
    pub max_epochs: Option<u32>,
    /// Halving: one candidate in so many goes on, with so many times the epochs.
    pub eta: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::Grid,
            trials: None,
            seed: 0,
            seeds: 1,
            metric: Metric::ValLoss,
            min_epochs: None,
            max_epochs: None,
            eta: 3,
        }
    }
}

/// A whole GRID.toml.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// How.
    pub search: Settings,
    /// Settings of all trials.
    pub base: Table,
    /// Settings with the values to try.
    pub grid: Table,
    /// Holes of the model with the values to try.
    pub vars: Table,
}

/// What varies, and over what.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The dotted setting, or the name of a hole.
    pub name: String,
    /// Whether it is a hole.
    pub hole: bool,
    /// Its values.
    pub values: Values,
}

/// The values of an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// These.
    List(Vec<Value>),
    /// Any between two numbers, for draws.
    Range(Span),
}

/// `{ min, max, log }`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The least value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// Drawn evenly by logarithm.
    pub log: bool,
    /// Whole numbers.
    pub whole: bool,
}

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

impl Spec {
    /// Reads a file, with `sets` laid over `[base]`.
    ///
    /// # Errors
    /// [`TrainError::Config`] names file, line and key; for an unknown key the nearest that there is.
    pub fn read(path: &Path, sets: &[Override]) -> Result<Self, TrainError> {
        let file = TomlFile::read(path)?;
        let mut spec: Self = read_table(file.table.clone()).map_err(|e| file.error(&[], &e))?;
        let base = overrides::resolve(spec.base.clone()).map_err(|e| file.error(&["base"], &e))?;
        // A key of [grid] is tried alone, so that a misspelt one is found with its line.
        for axis in axes(&spec.grid, false).map_err(|e| file.error(&["grid"], &e))? {
            let values = match &axis.values {
                Values::List(values) => values.clone(),
                Values::Range(span) => vec![span.value(0.0)],
            };
            for value in values {
                let set = Override::new(axis.name.clone(), value);
                // An argument of another optimizer than the base's is met with its own optimizer only.
                let alone = !axis.name.contains('.');
                match overrides::apply(&base, &[set]) {
                    Err(e) if alone || !e.key().starts_with(axis.name.split('.').next().unwrap_or_default()) => {
                        return Err(file.error(&["grid"], &e));
                    }
                    _ => {}
                }
            }
        }
        axes(&spec.vars, true).map_err(|e| file.error(&["vars"], &e))?;
        let base = overrides::apply(&base, sets).map_err(|e| TrainError::from(e).at("--set"))?;
        spec.base = Table::try_from(&base).map_err(|e| SettingError::new("base", e.to_string()))?;
        Ok(spec)
    }

    /// The file that a search folder keeps.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, SearchError> {
        toml::to_string(self).map_err(|e| SearchError::Grid(format!("the grid cannot be written: {e}")))
    }
}

/// The axes of a table of lists and ranges.
fn axes(table: &Table, hole: bool) -> Result<Vec<Axis>, SettingError> {
    let mut found = Vec::new();
    collect(table, "", hole, &mut found)?;
    Ok(found)
}

fn collect(table: &Table, prefix: &str, hole: bool, to: &mut Vec<Axis>) -> Result<(), SettingError> {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        let values = match value {
            Value::Array(values) if values.is_empty() => {
                return Err(SettingError::new(&name, "has no value to try"));
            }
            Value::Array(values) => Values::List(values.clone()),
            Value::Table(inner) if inner.contains_key("min") || inner.contains_key("max") => {
                Values::Range(Span::read(&name, inner)?)
            }
            Value::Table(inner) if !hole => {
                collect(inner, &format!("{name}."), hole, to)?;
                continue;
            }
            _ => {
                let form =
                    "needs a list of values such as [1, 2], or for draws a range { min = 1, max = 9, log = true }";
                return Err(SettingError::new(&name, form));
            }
        };
        to.push(Axis { name, hole, values });
    }
    Ok(())
}

impl Span {
    fn read(name: &str, table: &Table) -> Result<Self, SettingError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Form {
            min: f64,
            max: f64,
            #[serde(default)]
            log: bool,
        }
        let form: Form = read_table(table.clone()).map_err(|e| SettingError::new(name, e.to_string()))?;
        let whole = [&table["min"], &table["max"]].iter().all(|v| v.is_integer());
        let Form { min, max, log } = form;
        if !(min.is_finite() && max.is_finite() && min < max) {
            return Err(SettingError::new(name, "min must be below max, and both finite"));
        }
        if log && min <= 0.0 {
            return Err(SettingError::new(name, "a logarithmic range begins above 0"));
        }
        Ok(Self { min, max, log, whole })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let spec = Spec::read(file.path(), &[]).map_err(|e| e.to_string())?;
        Plan::new(spec).map_err(|e| e.to_string())
    }

    const GRID: &str = "[base]\nepochs = 2\nmodel = 'flatten-dense{units}-{act}-dense2'\n\
        [grid]\nlr = [0.1, 0.01]\noptimizer.weight_decay = [0, 0.1]\noptimizer.name = ['adam', 'sgd']\n\
        [vars]\nunits = [12, 20, 100]\nact = ['relu', 'elu']\n";

    #[test]
    fn a_grid_is_every_combination_once() {
        let p = plan(GRID).unwrap();
        assert_eq!(p.candidates.len(), 2 * 2 * 2 * 3 * 2);
        let ids: BTreeSet<String> = (0..p.candidates.len()).map(|c| p.trials(c, None).unwrap()[0].id.clone()).collect();
        assert_eq!(ids.len(), 48);
        let c = &p.candidates[p.candidates.len() - 1];
        assert_eq!(c.config.model, "flatten-dense100-elu-dense2");
        assert_eq!((c.config.lr, c.config.optimizer.name(), c.config.split_seed), (0.01, "sgd", None));
        assert_eq!(plan(&GRID.replace("[0.1, 0.01]", "[0.1, 0.1]")).unwrap().candidates.len(), 24);
    }

    #[test]
    fn an_id_depends_on_the_settings_alone() {
        let trials = |text: &str| {
            let p = plan(text).unwrap();
            (0..p.candidates.len()).map(|c| p.trials(c, None).unwrap()[0].id.clone()).collect::<BTreeSet<_>>()
        };
        let all = trials(GRID);
        assert_eq!(all, trials(&GRID.replace("[0.1, 0.01]", "[0.01, 0.1]")));
        assert_eq!(all, trials(&GRID.replace("epochs = 2", "epochs = 2\ndata = 'elsewhere'")));
        assert!(all.is_disjoint(&trials(&GRID.replace("epochs = 2", "epochs = 3"))));
    }

    #[test]
    fn repetitions_share_their_split() {
        let p = plan(&format!("{GRID}[search]\nseeds = 3\n")).unwrap();
        let trials = p.trials(5, Some(7)).unwrap();
        let seeds: Vec<_> = trials.iter().map(|t| (t.config.seed, t.config.split_seed, t.config.epochs)).collect();
        assert_eq!(seeds, [(0, Some(0), 7), (1, Some(0), 7), (2, Some(0), 7)]);
    }

    #[test]
    fn draws_are_the_same_every_time_and_more_of_them_begin_alike() {
        let text = |n: u32| {
            format!(
                "[base]\nmodel = 'flatten-dense{{units}}-dense2'\n[grid]\nlr = {{ min = 1e-4, max = 1e-1, log = true }}\n\
                [vars]\nunits = {{ min = 4, max = 64 }}\n[search]\nmethod = 'random'\ntrials = {n}\n"
            )
        };
        let (few, many) = (plan(&text(10)).unwrap(), plan(&text(40)).unwrap());
        assert_eq!((few.candidates.len(), many.candidates.len()), (10, 40));
        assert_eq!(few.candidates[..], many.candidates[..10]);
        assert!(many.candidates.iter().all(|c| (1e-4..=1e-1).contains(&c.config.lr)));
        let low = many.candidates.iter().filter(|c| c.config.lr < 1e-2).count();
        assert!((15..40).contains(&low), "{low} of 40 below the middle two thirds of three decades");
        let small = "[grid]\nlr = [0.1, 0.2]\n[search]\nmethod = 'random'\ntrials = 50\n";
        assert_eq!(plan(small).unwrap().candidates.len(), 2);
    }

    #[test]
    fn mistakes_are_named_in_one_line() {
        let cases = [
            ("[base]\nmodle = 'cnn1'", "line 2: unknown setting `modle`: did you mean `model`?"),
            ("[base]\nlr = 1\n\n[grid]\nbach = [1]", "line 5: unknown setting `bach`: did you mean `batch`?"),
            ("[grid]\noptimizer.weight_decai = [1]", "did you mean `optimizer.weight_decay`?"),
            ("[serch]\n", "did you mean `search`?"),
            ("[search]\nmetod = 'grid'", "did you mean `search.method`?"),
            ("[search]\nmethod = 'gird'", "did you mean `grid`?"),
            ("[grid]\nlr = 0.1", "needs a list"),
            ("[grid]\nlr = []", "no value"),
            ("[grid]\nlr = ['fast']", "lr: invalid type"),
            ("[grid]\nlr = { min = 1, max = 2 }", "a range is for draws"),
            ("[grid]\nlr = { min = 2, max = 1 }", "below max"),
            ("[grid]\nlr = { min = 0, max = 1, log = true }", "above 0"),
            ("[base]\nmodel = 'dense{unit}-dense2'\n[vars]\nunits = [1]", "did you mean `units`?"),
            ("[base]\nmodel = 'dense{units-dense2'\n[vars]\nunits = [1]", "a hole is written {name}"),
            ("[vars]\nunits = [1]", "no model has the hole {units}"),
            ("[search]\nmethod = 'random'", "trials is missing"),
            ("[search]\ntrials = 3", "trials is for"),
            ("[search]\nseeds = 0", "at least 1"),
            ("[grid]\nseed = [1]\n[search]\nseeds = 2", "keep one"),
            ("[grid]\nepochs = [1]\n[search]\nmethod = 'halving'", "halving decides"),
            ("[search]\nmethod = 'halving'\neta = 1", "at least 2"),
            ("[search]\nmin_epochs = 1", "are for method"),
        ];
        for (text, part) in cases {
            let error = plan(text).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
        let values: Vec<String> = (1..=100).map(|v| v.to_string()).collect();
        let list = values.join(", ");
        let huge = format!("[grid]\nlr = [{list}]\nbatch = [{list}]\nepochs = [{list}]");
        assert!(plan(&huge).unwrap_err().contains("more than 100000"));
    }
}
