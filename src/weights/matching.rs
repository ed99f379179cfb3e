//! Which tensor of a weight file belongs to which parameter of a model.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::{NamedTensor, TensorData, WeightsFile};

/// The way in which tensors were matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The file uses the model's names.
    ByName,
    /// The names differ; order and shapes agree from the first tensor to the last.
    ByOrder,
}

/// A parameter and the tensor that goes into it; both have this shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The model's name.
    pub model: String,
    /// The file's name.
    pub file: String,
    /// The shape of both.
    pub shape: Vec<usize>,
}

/// The result of [`match_tensors`]. `Display` prints it as a listing, one tensor a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// What goes where, in the model's order.
    pub pairs: Vec<Pair>,
    /// Parameters of the model for which the file has nothing (by name only).
    pub missing: Vec<String>,
    /// Float tensors of the file for which the model has no place (by name only).
    pub unexpected: Vec<String>,
    /// Integer tensors of the file that were left aside, such as `num_batches_tracked`.
    pub ignored: Vec<String>,
    /// By name or by order.
    pub how: How,
}

/// A file whose tensors do not fit the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// Two tensors that belong together have different shapes.
    #[error(
        "`{model}` of the model has the shape {model_shape:?}, but `{file}` of the file has {file_shape:?}; \
         choose the model that the weights were trained with"
    )]
    Shape {
        /// The model's parameter.
        model: String,
        /// Its shape.
        model_shape: Vec<usize>,
        /// The file's tensor.
        file: String,
        /// Its shape.
        file_shape: Vec<usize>,
    },
    /// The file ends before the model does.
    #[error(
        "the file has no tensor for `{model}` of shape {shape:?} (and {more} more); \
         choose the model that the weights were trained with"
    )]
    Missing {
        /// The first parameter that gets nothing.
        model: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many others get nothing.
        more: usize,
    },
    /// The file has more tensors than the model.
    #[error(
        "the model has no place for `{file}` of shape {shape:?} (and {more} more); \
         choose the model that the weights were trained with"
    )]
    Unexpected {
        /// The first tensor without a place.
        file: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many others have no place.
        more: usize,
    },
    /// A parameter would get integers.
    #[error("`{file}` of the file holds integers, but `{model}` of the model needs floats; convert it to float32")]
    NotFloat {
        /// The model's parameter.
        model: String,
        /// The file's tensor.
        file: String,
    },
}

/// Prefixes that wrappers put before every name: `DataParallel`, `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// The prefix that a wrapper has put before every name of the file.
pub(super) fn wrapper(file: &WeightsFile) -> Option<&'static str> {
    WRAPPERS.into_iter().find(|p| !file.tensors.is_empty() && file.tensors.iter().all(|t| t.name.starts_with(p)))
}

/// A name without a wrapper's prefix.
pub(super) fn bare<'n>(name: &'n str, prefix: Option<&str>) -> &'n str {
    prefix.and_then(|p| name.strip_prefix(p)).unwrap_or(name)
}

/// Matches a model's parameters and running statistics, `(name, shape)` in recording order, to a file's tensors.
///
/// By name, if every parameter is found under its own name (a wrapper's prefix such as `module.` on all names of the
/// file is looked through). Else by order and shape over the float tensors, if all of them fit and no name that both
/// sides know would be paired with another. Else, if some names agree, by name, with what is missing and unexpected
/// listed; see [`Matching::complete`]. Integer tensors that the model does not name are left aside.
///
/// # Errors
/// [`MatchError`] names the first tensor that does not fit, with both shapes.
pub fn match_tensors(model: &[(String, Vec<usize>)], file: &WeightsFile) -> Result<Matching, MatchError> {
    let prefix = wrapper(file);
    let by_name: HashMap<String, &NamedTensor> =
        file.tensors.iter().map(|t| (bare(&t.name, prefix).to_owned(), t)).collect();
    let common = model.iter().filter(|(name, _)| by_name.contains_key(name)).count();
    if common == model.len() {
        return match_by_name(model, file, &by_name);
    }
    match match_by_order(model, file) {
        Ok(m) if m.pairs.iter().all(|p| by_name.get(&p.model).is_none_or(|t| t.name == p.file)) => Ok(m),
        Err(e) if common == 0 => Err(e),
        _ => match_by_name(model, file, &by_name),
    }
}

fn match_by_name(
    model: &[(String, Vec<usize>)],
    file: &WeightsFile,
    by_name: &HashMap<String, &NamedTensor>,
) -> Result<Matching, MatchError> {
    let mut out = Matching {
        pairs: Vec::new(),
        missing: Vec::new(),
        unexpected: Vec::new(),
        ignored: Vec::new(),
        how: How::ByName,
    };
    let mut used = HashSet::new();
    for entry in model {
        match by_name.get(&entry.0) {
            Some(tensor) => {
                out.pairs.push(pair(entry, tensor)?);
                used.insert(tensor.name.as_str());
            }
            None => out.missing.push(entry.0.clone()),
        }
    }
    for t in file.tensors.iter().filter(|t| !used.contains(t.name.as_str())) {
        if is_counter(t) { &mut out.ignored } else { &mut out.unexpected }.push(t.name.clone());
    }
    Ok(out)
}

fn match_by_order(model: &[(String, Vec<usize>)], file: &WeightsFile) -> Result<Matching, MatchError> {
    let (counters, floats): (Vec<&NamedTensor>, Vec<&NamedTensor>) = file.tensors.iter().partition(|t| is_counter(t));
    let pairs = model.iter().zip(&floats).map(|(m, f)| pair(m, f)).collect::<Result<Vec<_>, _>>()?;
    if let Some((name, shape)) = model.get(floats.len()) {
        let more = model.len() - floats.len() - 1;
        return Err(MatchError::Missing { model: name.clone(), shape: shape.clone(), more });
    }
    if let Some(t) = floats.get(model.len()) {
        let more = floats.len() - model.len() - 1;
        return Err(MatchError::Unexpected { file: t.name.clone(), shape: t.shape.clone(), more });
    }
    let ignored = counters.into_iter().map(|t| t.name.clone()).collect();
    Ok(Matching { pairs, missing: Vec::new(), unexpected: Vec::new(), ignored, how: How::ByOrder })
}

/// Integers are never weights.
fn is_counter(t: &NamedTensor) -> bool {
    !matches!(t.data, TensorData::F32(_)) || t.name.ends_with("num_batches_tracked")
}

fn pair((name, shape): &(String, Vec<usize>), t: &NamedTensor) -> Result<Pair, MatchError> {
    if *shape != t.shape {
        return Err(MatchError::Shape {
            model: name.clone(),
            model_shape: shape.clone(),
            file: t.name.clone(),
            file_shape: t.shape.clone(),
        });
    }
    if !matches!(t.data, TensorData::F32(_)) {
        return Err(MatchError::NotFloat { model: name.clone(), file: t.name.clone() });
    }
    Ok(Pair { model: name.clone(), file: t.name.clone(), shape: shape.clone() })
}

impl Matching {
    /// Demands that every parameter got a tensor and every float tensor of the file found a place.
    ///
    /// # Errors
    /// [`MatchError::Missing`] or [`MatchError::Unexpected`] with the first one.
    pub fn complete(self, model: &[(String, Vec<usize>)], file: &WeightsFile) -> Result<Self, MatchError> {
        self.nothing_missing(model)?;
        if let Some(name) = self.unexpected.first() {
            let shape = file.get(name).map(|t| t.shape.clone()).unwrap_or_default();
            return Err(MatchError::Unexpected { file: name.clone(), shape, more: self.unexpected.len() - 1 });
        }
        Ok(self)
    }

    /// Demands that every parameter got a tensor.
    ///
    /// # Errors
    /// [`MatchError::Missing`] with the first one.
    pub fn nothing_missing(&self, model: &[(String, Vec<usize>)]) -> Result<(), MatchError> {
        let Some(name) = self.missing.first() else { return Ok(()) };
        let shape = model.iter().find(|(n, _)| n == name).map(|(_, s)| s.clone()).unwrap_or_default();
        Err(MatchError::Missing { model: name.clone(), shape, more: self.missing.len() - 1 })
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::ByName => "by name",
            How::ByOrder => "by order and shape",
        };
        write!(f, "{} tensors matched {how}", self.pairs.len())?;
        let width = self.pairs.iter().map(|p| p.model.len()).max().unwrap_or(0);
        for p in &self.pairs {
            write!(f, "\n  {:width$} <- {} {:?}", p.model, p.file, p.shape)?;
        }
        let lists = [
            ("missing in the file", &self.missing),
            ("no place in the model", &self.unexpected),
            ("left aside", &self.ignored),
        ];
        for (what, names) in lists {
            for name in names {
                write!(f, "\n  {what}: {name}")?;
            }
        }
        Ok(())
    }
}
