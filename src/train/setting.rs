//! TOML values read into typed settings, with errors that say which setting is wrong by its whole dotted key and, where a
//! key or a name is misspelt, which one comes nearest.
//!
//! serde tells an error type of its own which names were expected ([`serde::de::Error::unknown_field`]), so every struct
//! and every tagged enum is served, whatever settings it holds.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::{MapAccessDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use toml::{Table, Value};

use super::TrainError;
use crate::fsio;
use crate::nn::error::nearest;

/// The longest file of settings that is read. The parser takes some hundred bytes for a setting of a few.
const MAX_TEXT: u64 = 1 << 20;

/// A setting that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SettingError {
    /// The keys that lead to it.
    path: Vec<String>,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    /// No setting has this name; these are known there.
    Key(&'static [&'static str]),
    /// No choice has this name; these are known.
    Choice(String, &'static [&'static str]),
    /// Anything else.
    Other(String),
}

impl SettingError {
    /// Something is wrong with the setting `key`, which may be dotted.
    pub fn new(key: &str, problem: impl Into<String>) -> Self {
        let path = key.split('.').filter(|k| !k.is_empty()).map(str::to_owned).collect();
        Self { path, problem: Problem::Other(problem.into()) }
    }

    /// The setting's dotted key; empty where no one key is to blame.
    #[must_use]
    pub fn key(&self) -> String {
        self.path.join(".")
    }

    fn below(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        match &self.problem {
            Problem::Key(known) => {
                let last = self.path.last().map_or("", String::as_str);
                match nearest(last, known.iter().copied()) {
                    Some(near) => {
                        let whole = [&self.path[..self.path.len() - 1], &[near.to_owned()]].concat().join(".");
                        write!(f, "unknown setting `{key}`: did you mean `{whole}`?")
                    }
                    None if known.is_empty() => write!(f, "unknown setting `{key}`: there is none at this place"),
                    None => write!(f, "unknown setting `{key}`; known: {}", known.join(", ")),
                }
            }
            Problem::Choice(value, known) => {
                write!(f, "{key}: unknown choice `{value}`")?;
                match nearest(value, known.iter().copied()) {
                    Some(near) => write!(f, ": did you mean `{near}`? Known: {}", known.join(", ")),
                    None => write!(f, "; known: {}", known.join(", ")),
                }
            }
            Problem::Other(problem) if key.is_empty() => f.write_str(problem),
            Problem::Other(problem) => write!(f, "{key}: {problem}"),
        }
    }
}

impl de::Error for SettingError {
    fn custom<T: fmt::Display>(msg: T) -> Self {
        Self { path: Vec::new(), problem: Problem::Other(msg.to_string()) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self { path: vec![field.to_owned()], problem: Problem::Key(expected) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self { path: Vec::new(), problem: Problem::Choice(variant.to_owned(), expected) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("{field} is missing"))
    }
}

/// Reads a table into typed settings.
///
/// # Errors
/// [`SettingError`] names the key.
pub fn read_table<T: DeserializeOwned>(table: Table) -> Result<T, SettingError> {
    T::deserialize(Node(Value::Table(table)))
}

/// A TOML file with its text, so that an error can name the line.
#[derive(Clone, Debug)]
pub struct TomlFile {
    path: PathBuf,
    text: String,
    /// What it says.
    pub table: Table,
}

impl TomlFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TrainError::Fs`], or [`TrainError::Config`] with the line that is no TOML.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let fail = |problem: String| TrainError::Config { path: path.to_owned(), problem };
        let text = String::from_utf8(fsio::read_at_most(path, MAX_TEXT)?).map_err(|_| fail("is no text".to_owned()))?;
        let table = text.parse::<Table>().map_err(|e| {
            let message = e.message().split_whitespace().collect::<Vec<_>>().join(" ");
            fail(format!("line {}: {message}", line_at(&text, e.span().map_or(0, |s| s.start))))
        })?;
        Ok(Self { path: path.to_owned(), text, table })
    }

    /// What is wrong in this file, with its name and the line; `below` are the keys of the table that was read.
    #[must_use]
    pub fn error(&self, below: &[&str], error: &SettingError) -> TrainError {
        let keys: Vec<&str> = below.iter().copied().chain(error.path.iter().map(String::as_str)).collect();
        let line = self.line(&keys).map_or_else(String::new, |line| format!("line {line}: "));
        TrainError::Config { path: self.path.clone(), problem: format!("{line}{error}") }
    }

    /// The line of the last of `keys` that the file has.
    fn line(&self, keys: &[&str]) -> Option<usize> {
        let document = toml::de::DeTable::parse(&self.text).ok()?;
        let mut table = document.get_ref();
        let mut found = None;
        for key in keys {
            let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else { break };
            found = Some(line_at(&self.text, name.span().start));
            let toml::de::DeValue::Table(inner) = value.get_ref() else { break };
            table = inner;
        }
        found
    }
}

fn line_at(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|&b| b == b'\n').count() + 1
}

/// A value on its way through serde.
struct Node(Value);

impl<'de> IntoDeserializer<'de, SettingError> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Node {
    type Error = SettingError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        match self.0 {
            Value::String(v) => visitor.visit_string(v),
            Value::Integer(v) => visitor.visit_i64(v),
            Value::Float(v) => visitor.visit_f64(v),
            Value::Boolean(v) => visitor.visit_bool(v),
            Value::Datetime(v) => visitor.visit_string(v.to_string()),
            Value::Array(v) => visitor.visit_seq(SeqDeserializer::new(v.into_iter().map(Node))),
            Value::Table(v) => visitor.visit_map(Access::new(v)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SettingError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SettingError> {
        match self.0 {
            Value::String(v) => StringDeserializer::new(v).deserialize_enum(name, variants, visitor),
            Value::Table(v) => MapAccessDeserializer::new(Access::new(v)).deserialize_enum(name, variants, visitor),
            other => Node(other).deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// Entries of a table; an error below one of them gets its key.
struct Access {
    entries: toml::map::IntoIter<String, Value>,
    key: String,
    value: Option<Value>,
}

impl Access {
    fn new(table: Table) -> Self {
        Self { entries: table.into_iter(), key: String::new(), value: None }
    }
}

impl<'de> MapAccess<'de> for Access {
    type Error = SettingError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, SettingError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        self.key.clone_from(&key);
        seed.deserialize(StringDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, SettingError> {
        let value = self.value.take().ok_or_else(|| de::Error::custom("a key without a value"))?;
        seed.deserialize(Node(value)).map_err(|e| e.below(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;

    fn error(text: &str) -> String {
        read_table::<TrainConfig>(text.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_key_is_named_with_the_one_that_was_meant() {
        let cases = [
            ("modle = 'cnn1'", "unknown setting `modle`: did you mean `model`?"),
            (
                "[optimizer]\nname = 'adam'\nweight_decai = 0.1",
                "unknown setting `optimizer.weight_decai`: did you mean `optimizer.weight_decay`?",
            ),
            (
                "class_weights = 'balancd'",
                "class_weights: unknown choice `balancd`: did you mean `balanced`? Known: none, balanced, values",
            ),
            (
                "optimizer = { name = 'sdg' }",
                "optimizer.name: unknown choice `sdg`: did you mean `sgd`? Known: sgd, adam, adamw, rmsprop",
            ),
            (
                "schedule = { name = 'warmup', then = { name = 'step', step_size = 3, gama = 1 } }",
                "unknown setting `schedule.gama`: did you mean `schedule.gamma`?",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(error(text), want, "{text}");
        }
        let far = error("colour = 1");
        assert!(far.starts_with("unknown setting `colour`; known: ") && far.contains("epochs"), "{far}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_by_its_key() {
        assert_eq!(error("lr = 'fast'"), "lr: invalid type: string \"fast\", expected f64");
        assert!(error("batch = -3").starts_with("batch: invalid value: integer `-3`"));
        assert_eq!(error("schedule = { name = 'exponential' }"), "schedule: gamma is missing");
    }

    #[test]
    fn good_tables_read_as_toml_reads_them() {
        let text = "lr = 1\nmean = [0.5]\nclass_weights = { values = [1, 2.5] }\nschedule = { name = 'constant' }\n\
            optimizer = { name = 'sgd', momentum = 0.9, nesterov = true }";
        assert_eq!(read_table::<TrainConfig>(text.parse().unwrap()), Ok(toml::from_str(text).unwrap()));
    }
}
