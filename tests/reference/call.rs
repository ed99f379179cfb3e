//! What a case hands to an op: inputs and parameters, each of which must be used.

use std::collections::BTreeMap;

use radiograd::graph::{Graph, NodeId, VarView};
use radiograd::shape::{Shape, Spec};
use radiograd::store::{ParamStore, Role};
use radiograd::tensor::{Data, Tensor};
use radiograd::weights::{NamedTensor, TensorData};
use serde_json::{Map, Value};

/// The graph that is recorded for a case, and what of the case was not used yet.
pub struct Call {
    /// The graph.
    pub graph: Graph,
    /// The running statistics.
    pub store: ParamStore,
    /// Each graph input with its number in the case and its value.
    pub inputs: Vec<(usize, NodeId, Tensor)>,
    /// The name and place of each statistic that the case changes.
    pub statistics: Vec<(&'static str, VarView)>,
    tensors: BTreeMap<usize, NamedTensor>,
    params: Map<String, Value>,
}

impl Call {
    /// A call with `input.K` by K and the case's `params`.
    pub fn new(tensors: BTreeMap<usize, NamedTensor>, params: Map<String, Value>) -> Self {
        let (graph, store) = (Graph::new(), ParamStore::new());
        Self { graph, store, inputs: Vec::new(), statistics: Vec::new(), tensors, params }
    }

    /// Fails for the first parameter or input that the op did not ask for.
    pub fn finish(&self) -> Result<(), String> {
        if let Some(key) = self.params.keys().next() {
            return Err(format!("unknown parameter `{key}`"));
        }
        self.tensors.keys().next().map_or(Ok(()), |k| Err(format!("unexpected tensor `input.{k}`")))
    }

    /// The shape of a node.
    pub fn shape(&self, node: NodeId) -> Shape {
        self.graph.spec(node).shape.clone()
    }

    /// `input.K`, which must be there and hold floats.
    pub fn input(&mut self, k: usize) -> Result<NodeId, String> {
        self.optional(k)?.ok_or_else(|| format!("no tensor `input.{k}`"))
    }

    /// `input.K`; `None` where it is missing.
    pub fn optional(&mut self, k: usize) -> Result<Option<NodeId>, String> {
        let Some(tensor) = self.tensors.remove(&k) else { return Ok(None) };
        let shape = tensor.shape.clone();
        let TensorData::F32(values) = tensor.data else {
            return Err(format!("`input.{k}` holds integers where floats are needed"));
        };
        let value = Tensor::f32(shape, values).map_err(|e| format!("`input.{k}`: {e}"))?;
        Ok(Some(self.add(k, value)))
    }

    /// All inputs from 0 on.
    pub fn all(&mut self) -> Result<Vec<NodeId>, String> {
        (0..self.tensors.len()).map(|k| self.input(k)).collect()
    }

    /// The labels `input.K` of `classes` classes as a vector of `u32`.
    pub fn labels(&mut self, k: usize, classes: usize) -> Result<NodeId, String> {
        let tensor = self.tensors.remove(&k).ok_or_else(|| format!("no tensor `input.{k}`"))?;
        let numbers: Vec<f64> = match &tensor.data {
            TensorData::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            TensorData::I64(v) => v.iter().map(|&x| x as f64).collect(),
            TensorData::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        };
        let fits = |x: &f64| x.fract() == 0.0 && (0.0..classes as f64).contains(x);
        if let Some(i) = numbers.iter().position(|x| !fits(x)) {
            return Err(format!("`input.{k}`: label {} at {i} is none of the {classes} classes from 0", numbers[i]));
        }
        // One label a row; PyTorch's [N, 1] of the binary losses is the same list.
        let shape = match tensor.shape[..] {
            [n, 1] => vec![n],
            _ => tensor.shape,
        };
        let labels = Data::U32(numbers.iter().map(|&x| x as u32).collect());
        let value = Tensor::new(shape, labels).map_err(|e| format!("`input.{k}`: {e}"))?;
        Ok(self.add(k, value))
    }

    fn add(&mut self, k: usize, value: Tensor) -> NodeId {
        let node = self.graph.input(&format!("input.{k}"), value.spec());
        self.inputs.push((k, node, value));
        node
    }

    /// `input.K` as a persistent statistic, whose value after the run the case holds under `name`.
    pub fn statistic(&mut self, k: usize, name: &'static str) -> Result<Option<VarView>, String> {
        let Some(tensor) = self.tensors.remove(&k) else { return Ok(None) };
        let values = tensor.data.as_f32().ok_or_else(|| format!("`input.{k}` holds no floats"))?;
        if Spec::float(tensor.shape.clone()).numel() != values.len() {
            return Err(format!("`input.{k}`: the values do not fill the shape"));
        }
        let view = self.store.add_param(name, Role::Buffer, tensor.shape, values).view;
        self.statistics.push((name, view.clone()));
        Ok(Some(view))
    }

    /// A parameter; `null` counts as absent.
    fn param(&mut self, key: &str) -> Option<Value> {
        self.params.remove(key).filter(|v| !v.is_null())
    }

    fn get<T>(
        &mut self,
        key: &str,
        default: Option<T>,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, String> {
        match (self.param(key), default) {
            (Some(v), _) => read(&v).ok_or_else(|| format!("parameter `{key}`: {v} is not {what}")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(format!("no parameter `{key}`")),
        }
    }

    /// A number.
    pub fn number(&mut self, key: &str, default: Option<f64>) -> Result<f64, String> {
        self.get(key, default, "a number", Value::as_f64)
    }

    /// A count from 0.
    pub fn count(&mut self, key: &str, default: Option<usize>) -> Result<usize, String> {
        self.get(key, default, "a count", as_count)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool, String> {
        self.get(key, Some(default), "true or false", Value::as_bool)
    }

    /// A word.
    pub fn word(&mut self, key: &str, default: &str) -> Result<String, String> {
        self.get(key, Some(default.to_owned()), "a word", |v| v.as_str().map(str::to_owned))
    }

    /// `[height, width]`, or one count for both.
    pub fn pair(&mut self, key: &str, default: Option<[usize; 2]>) -> Result<[usize; 2], String> {
        self.get(key, default, "a count or a pair of counts", |v| match v.as_array().map(Vec::as_slice) {
            None => as_count(v).map(|n| [n, n]),
            Some([one]) => as_count(one).map(|n| [n, n]),
            Some([h, w]) => Some([as_count(h)?, as_count(w)?]),
            Some(_) => None,
        })
    }

    /// `[height, width]` where `null` keeps the input's size, as in PyTorch's adaptive pooling.
    pub fn size(&mut self, key: &str, input: [usize; 2]) -> Result<[usize; 2], String> {
        let mut value = self.params.remove(key).ok_or_else(|| format!("no parameter `{key}`"))?;
        match &mut value {
            Value::Null => value = input.to_vec().into(),
            Value::Array(items) => {
                for (item, size) in items.iter_mut().zip(input).filter(|(item, _)| item.is_null()) {
                    *item = size.into();
                }
            }
            _ => {}
        }
        self.params.insert(key.to_owned(), value);
        self.pair(key, None)
    }

    /// An axis of a tensor of that rank; negative numbers count from the last.
    pub fn dim(&mut self, key: &str, default: Option<usize>, rank: usize) -> Result<usize, String> {
        self.get(key, default, &format!("an axis of {rank}"), |v| as_dim(v, rank))
    }

    /// Several axes, or all of them where the parameter is absent.
    pub fn dims(&mut self, key: &str, rank: usize) -> Result<Vec<usize>, String> {
        self.get(key, Some((0..rank).collect()), &format!("a list of axes of {rank}"), |v| match v.as_array() {
            None => as_dim(v, rank).map(|d| vec![d]),
            // PyTorch: no axis named means every axis.
            Some(list) if list.is_empty() => Some((0..rank).collect()),
            Some(list) => list.iter().map(|d| as_dim(d, rank)).collect(),
        })
    }

    /// A shape; where the number of elements is given, one axis may be -1.
    pub fn new_shape(&mut self, key: &str, numel: Option<usize>) -> Result<Shape, String> {
        let sizes =
            self.get(key, None, "a shape", |v| v.as_array()?.iter().map(Value::as_i64).collect::<Option<Vec<_>>>())?;
        let known =
            sizes.iter().filter(|&&d| d != -1).try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        let free = known.filter(|&n| n > 0).and_then(|n| Some(numel? / n));
        let axis = |d: i64| if d == -1 { free } else { usize::try_from(d).ok() };
        let shape: Option<Vec<usize>> = sizes.iter().map(|&d| axis(d)).collect();
        shape.map(Shape::from).ok_or_else(|| format!("parameter `{key}`: {sizes:?} is not a shape"))
    }

    /// Accepts a parameter that the engine does not have where it says what the engine does anyhow.
    pub fn only(&mut self, key: &str, neutral: impl Into<Value>) -> Result<(), String> {
        let neutral = neutral.into();
        match self.param(key) {
            Some(v) if v != neutral => Err(format!("parameter `{key}`: {v} is not supported, only {neutral}")),
            _ => Ok(()),
        }
    }
}

fn as_count(v: &Value) -> Option<usize> {
    usize::try_from(v.as_u64()?).ok()
}

fn as_dim(v: &Value, rank: usize) -> Option<usize> {
    let d = v.as_i64()?;
    let d = if d < 0 { d.checked_add_unsigned(rank as u64)? } else { d };
    usize::try_from(d).ok().filter(|&d| d < rank)
}
