//! Settings laid over others: `--set key=value`, the options of a command, the points of a search.

use std::cmp::Reverse;
use std::str::FromStr;

use toml::{Table, Value};

use super::config::TrainConfig;
use super::setting::{SettingError, read_table};
use crate::optim::OptimizerKind;

/// One setting and its new value.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// The setting; a dot leads into a table: `optimizer.weight_decay`.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl Override {
    /// Sets `key` to `value`.
    pub fn new(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

impl FromStr for Override {
    type Err = String;

    /// Reads `key=value`. The value is TOML; what is no TOML is taken as a bare word, so that `model=conv8-relu` needs no
    /// quotation marks.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write key=value, for example lr=0.01 or optimizer.weight_decay=0.1";
        let (key, value) = text.split_once('=').ok_or_else(|| form.to_owned())?;
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() || key.split('.').any(|part| part.trim().is_empty()) {
            return Err(form.to_owned());
        }
        let document = format!("value = {value}").parse::<Table>();
        let value = match document {
            // A date is nothing that a setting takes, but a name may look like one.
            Ok(mut table) if table.len() == 1 && !matches!(table["value"], Value::Datetime(_)) => {
                table.remove("value").unwrap_or_else(|| value.into())
            }
            Err(e) if value.starts_with(['[', '{', '"', '\'']) => {
                return Err(format!("{value} does not read as TOML: {}", e.message()));
            }
            _ => value.into(),
        };
        Ok(Self { key: key.to_owned(), value })
    }
}

/// Reads the table of a config file. Beside what [`TrainConfig`] reads, `optimizer` may be a text such as
/// `sgd:momentum=0.9`, and `schedule` the name of one that needs no further settings.
///
/// # Errors
/// [`SettingError`] names the key, and for an unknown one the nearest that there is.
pub fn resolve(mut table: Table) -> Result<TrainConfig, SettingError> {
    for key in ["optimizer", "schedule"] {
        if let Some(Value::String(_)) = table.get(key)
            && let Some(value) = table.remove(key)
        {
            insert(&mut table, &[key], value)?;
        }
    }
    let mut config: TrainConfig = read_table(table)?;
    config.settle();
    Ok(config)
}

/// Lays settings over a config. Of two that name the same key the later one counts. A whole table (`optimizer=sgd`) comes
/// before what it holds (`optimizer.momentum=0.9`), whichever stands first; another `name` of an optimizer or schedule drops the
/// arguments of the old one.
///
/// # Errors
/// [`SettingError`] names the key, and for an unknown one the nearest that there is.
pub fn apply(base: &TrainConfig, overrides: &[Override]) -> Result<TrainConfig, SettingError> {
    let mut table = Table::try_from(base).map_err(|e| SettingError::new("", e.to_string()))?;
    let mut ordered: Vec<(Vec<&str>, &Value)> =
        overrides.iter().map(|o| (o.key.split('.').map(str::trim).collect(), &o.value)).collect();
    // A schedule given by its name takes its highest rate from `lr`, which must have its value by then.
    ordered.sort_by_key(|(keys, _)| (keys.len(), keys == &["schedule"], Reverse(keys.last() == Some(&"name"))));
    for (keys, value) in ordered {
        insert(&mut table, &keys, value.clone())?;
    }
    let mut config: TrainConfig = read_table(table)?;
    // `augment=none` takes away what the config file said.
    config.augment = config.augment.filter(|a| !a.is_identity());
    config.settle();
    Ok(config)
}

/// Puts one value into its place; what is no table on the way becomes one.
fn insert(table: &mut Table, keys: &[&str], value: Value) -> Result<(), SettingError> {
    match keys {
        [] => {}
        ["schedule"] if value.as_str() == Some("cosine") => {
            table.remove("schedule");
        }
        [key] => {
            let value = match (*key, value) {
                ("optimizer", Value::String(text)) => optimizer(&text)?,
                ("schedule", Value::String(name)) => schedule(&name, table.get("lr")),
                ("name", value) => {
                    if table.get("name") != Some(&value) {
                        table.clear();
                    }
                    value
                }
                (_, value) => value,
            };
            table.insert((*key).to_owned(), value);
        }
        [key, rest @ ..] => {
            let inner = table.entry(*key).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                insert(inner, rest, value)?;
            }
        }
    }
    Ok(())
}

fn optimizer(text: &str) -> Result<Value, SettingError> {
    let kind: OptimizerKind = text.parse().map_err(|e| SettingError::new("optimizer", format!("{e}")))?;
    Value::try_from(kind).map_err(|e| SettingError::new("optimizer", e.to_string()))
}

/// A schedule by its name alone, with PyTorch's defaults. One cycle goes up to `lr` and takes the whole run, whose steps the
/// loop fills in where they are 0.
fn schedule(name: &str, lr: Option<&Value>) -> Value {
    let mut table = Table::new();
    let name = if name == "plateau" { "reduce_on_plateau" } else { name };
    table.insert("name".to_owned(), name.into());
    if name == "one_cycle" {
        table.insert("max_lr".to_owned(), lr.cloned().unwrap_or(TrainConfig::default().lr.into()));
        table.insert("total_steps".to_owned(), 0.into());
    }
    Value::Table(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Schedule;
    use crate::train::ClassWeights;

    fn set(texts: &[&str]) -> Result<TrainConfig, String> {
        let overrides: Vec<Override> = texts.iter().map(|t| t.parse().unwrap()).collect();
        apply(&TrainConfig::default(), &overrides).map_err(|e| e.to_string())
    }

    #[test]
    fn values_are_toml_or_bare_words() {
        let c = set(&["model=conv8-relu-flatten-dense2", "lr=1e-2", "strict=true", "mean=[0.5]", "data='1'"]).unwrap();
        assert_eq!((c.model.as_str(), c.lr, c.strict), ("conv8-relu-flatten-dense2", 0.01, true));
        assert_eq!((c.mean, c.data.as_str()), (Some(vec![0.5]), "1"));
        assert_eq!(set(&["data=2024-01-02"]).unwrap().data, "2024-01-02");
        for wrong in ["lr", "=1", "lr=", "optimizer..eps=1", "mean=[0.5"] {
            assert!(wrong.parse::<Override>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn tables_come_before_what_they_hold() {
        let sgd = OptimizerKind::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.1 };
        for texts in [
            ["optimizer.weight_decay=0.1", "optimizer=sgd:momentum=0.9"],
            ["optimizer={name='sgd', momentum=0.9}", "optimizer.weight_decay=0.1"],
        ] {
            assert_eq!(set(&texts).unwrap().optimizer, sgd, "{texts:?}");
        }
        let named = set(&["optimizer.momentum=0.9", "optimizer.weight_decay=0.1", "optimizer.name=sgd"]);
        assert_eq!(named.unwrap().optimizer, sgd);
        let decay = set(&["optimizer.weight_decay=0.1"]).unwrap().optimizer;
        assert!(matches!(decay, OptimizerKind::AdamW { weight_decay: 0.1, .. }), "{decay:?}");
        assert_eq!(set(&["lr=1", "lr=2"]).unwrap().lr, 2.0);
        assert_eq!(set(&["class_weights.values=[1, 2]"]).unwrap().class_weights, ClassWeights::Values(vec![1.0, 2.0]));
    }

    #[test]
    fn schedules_go_by_name() {
        let cycle = set(&["schedule=one_cycle", "lr=0.5", "schedule.pct_start=0.1"]).unwrap().schedule;
        assert!(matches!(cycle, Some(Schedule::OneCycle { max_lr: 0.5, pct_start: 0.1, .. })), "{cycle:?}");
        assert_eq!(set(&["schedule=constant"]).unwrap().schedule, Some(Schedule::Constant {}));
        let back = Override::new("schedule", "cosine");
        let constant = TrainConfig { schedule: Some(Schedule::Constant {}), ..TrainConfig::default() };
        assert_eq!(apply(&constant, &[back]).unwrap().schedule, None);
        assert!(set(&["schedule=exponential"]).unwrap_err().contains("gamma is missing"));
        let read = resolve("schedule = 'constant'\noptimizer = 'sgd'".parse().unwrap()).unwrap();
        assert_eq!((read.schedule, read.optimizer.name()), (Some(Schedule::Constant {}), "sgd"));
    }

    #[test]
    fn what_is_unknown_is_refused_with_the_nearest() {
        let cases = [
            ("modle=cnn1", "unknown setting `modle`: did you mean `model`?"),
            ("optimizer.betes=[0.9, 0.99]", "unknown setting `optimizer.betes`: did you mean `optimizer.betas`?"),
            ("optimizer=adm", "write sgd, adam"),
            ("lr=fast", "lr: invalid type"),
        ];
        for (text, part) in cases {
            let error = set(&[text]).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn an_image_that_is_repeated_has_three_channels() {
        let c = set(&["init=resnet34", "grey=repeat", "key_map=['a=b']"]).unwrap();
        assert_eq!((c.channels, c.init.as_deref(), c.key_map.len()), (3, Some("resnet34"), 1));
        assert_eq!(resolve("init = 'x'\ngrey = 'repeat'".parse().unwrap()).unwrap().channels, 3);
        assert_eq!(set(&["init=x", "grey=sum"]).unwrap().channels, 1);
        assert!(set(&["grey=summ"]).unwrap_err().contains("did you mean `sum`?"));
    }

    #[test]
    fn a_config_survives_the_way_through_tables() {
        let odd =
            TrainConfig { mean: Some(vec![0.1, 1.0 / 3.0]), lr: 0.1 + 0.2, seed: u32::MAX, ..TrainConfig::default() };
        assert_eq!(apply(&odd, &[]).unwrap(), odd);
        assert_eq!(resolve(odd.to_toml().unwrap().parse().unwrap()).unwrap(), odd);
    }
}
