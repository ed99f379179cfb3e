//! GRID.toml: what is searched.
//!
//! `[base]` holds settings that all trials share, `[grid]` lists of values for settings (dotted keys lead into tables),
//! `[vars]` lists for the `{holes}` in `model`, and `[search]` how to go about it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::SearchError;
use crate::train::TrainError;
use crate::train::overrides::{self, Override};
use crate::train::setting::{SettingError, TomlFile, read_table};

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
pub(super) fn axes(table: &Table, hole: bool) -> Result<Vec<Axis>, SettingError> {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::train::search::Plan;

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
