//! `optim/NAME-NNN.safetensors`: `start` [n], `grads` [steps, n], `values` [steps, n] (the parameter after each step);
//! the metadata holds `optimizer` and `params`, PyTorch's arguments with the learning rate.

use std::path::Path;
use std::sync::Arc;

use num_traits::{AsPrimitive, Float};
use radiograd::exec::{ExecError, Executor};
use radiograd::graph::Graph;
use radiograd::optim::{OptimizerKind, update};
use radiograd::shape::Spec;
use radiograd::store::{ParamStore, Role};
use radiograd::tensor::{Tensor, relative_error};
use radiograd::weights::{self, WeightsFile};

use super::Target;

/// The largest relative error of the parameters in `f32`.
const TOLERANCE: f64 = 1e-5;
/// The same in `f64`: the cases are stored as `f32`.
const DOUBLE_TOLERANCE: f64 = 1e-6;

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

/// Replays a case by the host's update rule in both number types, and as a recorded optimizer step on every target: a line
/// for each that fails.
pub fn check(path: &Path, targets: &mut [Target]) -> Vec<String> {
    let case = match read_case(path) {
        Ok(case) => case,
        Err(e) => return vec![e],
    };
    let mut results = vec![
        check_case::<f64>(path, DOUBLE_TOLERANCE).map_err(|e| format!("{e}, by the update rule in f64")),
        check_case::<f32>(path, TOLERANCE).map_err(|e| format!("{e}, by the update rule in f32")),
    ];
    results.extend(targets.iter_mut().map(|target| {
        let tolerance = if target.double { DOUBLE_TOLERANCE } else { TOLERANCE };
        replay(&case, target.executor.as_mut(), tolerance)
            .map_err(|e| format!("{}: {} on {}: {e}", path.display(), case.kind, target.name))
    }));
    results.into_iter().filter_map(Result::err).collect()
}

/// Runs the case as training does: the parameters in the store, the step as a node of the graph.
fn replay(case: &OptimCase, executor: &mut dyn Executor, tolerance: f64) -> Result<(), String> {
    let n = case.start.len();
    let mut store = ParamStore::new();
    store.add_param("start", Role::Trainable, [n], &case.start);
    let view = store.trainable_view();
    let slots: Vec<_> =
        case.kind.slot_names().iter().map(|name| store.add_var(name, view.spec.clone(), None)).collect();
    let mut g = Graph::new();
    let grads = g.input("gradient", view.spec.clone());
    let hyper = g.input("hyper", Spec::float([4]));
    let root = g.optimizer_step(case.kind, view.clone(), &slots, grads, hyper).map_err(|e| e.to_string())?;

    let text = |e: ExecError| e.to_string();
    executor.load(&store).map_err(text)?;
    let program = executor.compile(&Arc::new(g), &[root]).map_err(text)?;
    for (step, (gradient, want)) in (1u64..).zip(case.grads.iter().zip(&case.values)) {
        let mut gradient = gradient.clone();
        gradient.resize(view.spec.numel(), 0.0);
        let vector = |v: Vec<f32>| Tensor::f32([v.len()], v).map_err(|e| e.to_string());
        executor.set(program, grads, &vector(gradient)?).map_err(text)?;
        executor.set(program, hyper, &vector(case.kind.hyper(case.lr, step).to_vec())?).map_err(text)?;
        executor.run(program).map_err(text)?;
        let got = executor.read_var(view.var).map_err(text)?.to_f64();
        let want: Vec<f64> = want.iter().map(|&x| f64::from(x)).collect();
        let error = relative_error(&got[..n], &want);
        if error.is_nan() || error > tolerance {
            return Err(format!("step {step}: relative error {error:.1e} ABOVE {tolerance:.0e}"));
        }
        if got[n..].iter().any(|&x| x != 0.0) {
            return Err(format!("step {step}: the gap behind the parameters does not stay zero"));
        }
    }
    executor.release(program);
    Ok(())
}
