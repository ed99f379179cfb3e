//! `optim/NAME-NNN.safetensors`: `start` [n], `grads` [steps, n], `values` [steps, n] (the parameter after each step);
//! the metadata holds `optimizer` and `params`, PyTorch's arguments with the learning rate.

use std::path::Path;

use num_traits::{AsPrimitive, Float};
use radiograd::optim::{OptimizerKind, update};
use radiograd::weights::{self, WeightsFile};

/// A case as it lies on disk.
pub struct OptimCase {
    /// The optimizer.
    pub kind: OptimizerKind,
    /// The learning rate of every step.
    pub lr: f64,
    /// The parameter before the first step.
    pub start: Vec<f32>,
    /// The gradient of each step.
    pub grads: Vec<Vec<f32>>,
    /// The parameter after each step.
    pub values: Vec<Vec<f32>>,
}

/// Reads a case.
///
/// # Errors
/// One line: unreadable, unknown optimizer or argument, tensors that do not fit each other.
pub fn read_case(path: &Path) -> Result<OptimCase, String> {
    let fail = |what: String| format!("{}: {what}", path.display());
    let file = weights::load(path).map_err(|e| e.to_string())?;
    let text = |key: &str| file.metadata.get(key).ok_or_else(|| fail(format!("no `{key}` in the metadata")));
    let mut params: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text("params")?).map_err(|e| fail(e.to_string()))?;
    let lr = params.remove("lr").and_then(|v| v.as_f64()).ok_or_else(|| fail("no lr".into()))?;
    params.insert("name".into(), text("optimizer")?.as_str().into());
    let kind: OptimizerKind = serde_json::from_value(params.into()).map_err(|e| fail(e.to_string()))?;
    let start = floats(&file, "start").map_err(fail)?;
    let rows = |name: &str| -> Result<Vec<Vec<f32>>, String> {
        let rows: Vec<Vec<f32>> = floats(&file, name)?.chunks(start.len().max(1)).map(<[f32]>::to_vec).collect();
        match rows.last() {
            Some(last) if last.len() == start.len() => Ok(rows),
            _ => Err(format!("`{name}` is not a number of rows of {}", start.len())),
        }
    };
    let (grads, values) = (rows("grads").map_err(fail)?, rows("values").map_err(fail)?);
    if grads.len() != values.len() {
        return Err(fail("`grads` and `values` have different numbers of steps".into()));
    }
    Ok(OptimCase { kind, lr, start, grads, values })
}

fn floats(file: &WeightsFile, name: &str) -> Result<Vec<f32>, String> {
    let tensor = file.get(name).ok_or_else(|| format!("no tensor `{name}`"))?;
    Ok(tensor.data.as_f32().ok_or_else(|| format!("`{name}` holds no floats"))?.to_vec())
}

/// Replays one case in `T`; the relative error of the parameter in the Euclidean norm after every step must stay
/// within `tolerance`.
///
/// # Errors
/// One line that names the file and the first step that differs.
pub fn check_case<T>(path: &Path, tolerance: f64) -> Result<(), String>
where
    T: Float + 'static + Into<f64>,
    f64: AsPrimitive<T>,
{
    let case = read_case(path)?;
    let cast = |v: &[f32]| -> Vec<T> { v.iter().map(|&x| f64::from(x).as_()).collect() };
    let mut p = cast(&case.start);
    let mut state = vec![vec![T::zero(); p.len()]; case.kind.slots()];
    for (i, (g, want)) in case.grads.iter().zip(&case.values).enumerate() {
        update(&case.kind, case.lr, i as u64 + 1, &mut p, &cast(g), &mut state)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        let (mut difference, mut norm) = (0.0, 0.0);
        for (&got, &want) in p.iter().zip(want) {
            difference += (got.into() - f64::from(want)).powi(2);
            norm += f64::from(want).powi(2);
        }
        let error = (difference / norm).sqrt();
        if error.is_nan() || error > tolerance {
            return Err(format!("{}: step {}: relative error {error:e}", path.display(), i + 1));
        }
    }
    Ok(())
}
