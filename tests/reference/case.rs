//! `ops/OP/OP-NNN.safetensors`: one call of an op with its output and gradients, run on every executor.
//!
//! The metadata holds `op` and `params` (JSON). Tensors: `input.K` in the order of PyTorch's function, `output`,
//! `grad_output`, and `grad.K`, the gradient of `sum(output * grad_output)` with respect to `input.K`; for batch
//! normalisation in training also the updated `running_mean` and `running_var`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use radiograd::exec::Executor;
use radiograd::graph::{Graph, NodeId, VarView};
use radiograd::shape::{Shape, Spec};
use radiograd::store::ParamStore;
use radiograd::tensor::{Tensor, relative_error};
use radiograd::weights::{self, NamedTensor};

use super::Target;
use super::call::Call;
use super::ops;

/// Sums of more terms than this may be ten times less exact in `f32`.
const LONG_SUM: usize = 10_000;

/// Where a compared value is found after a run.
enum From {
    Node(NodeId),
    Var(VarView),
}

/// One value that the case knows.
struct Check {
    name: String,
    from: From,
    want: Vec<f64>,
    terms: usize,
}

/// A case, recorded.
struct Recorded {
    graph: Arc<Graph>,
    store: ParamStore,
    inputs: Vec<(NodeId, Tensor)>,
    checks: Vec<Check>,
}

/// Records the case of a file and compares all its values on every target: a line for each target that fails, with the
/// errors of all values, or one line that says why the case cannot be run.
pub fn check(path: &Path, targets: &mut [Target]) -> Vec<String> {
    let (op, recorded) = match record(path) {
        Ok(recorded) => recorded,
        Err(e) => return vec![e],
    };
    let mut failures = Vec::new();
    for target in targets {
        let line = match recorded.errors(target.executor.as_mut()) {
            Err(e) => e,
            Ok(errors) => match report(&recorded.checks, &errors, target.double) {
                Some(line) => line,
                None => continue,
            },
        };
        failures.push(format!("{}: {op} on {}: {line}", path.display(), target.name));
    }
    failures
}

/// All errors in one line, if one of them is too large.
fn report(checks: &[Check], errors: &[f64], double: bool) -> Option<String> {
    let mut failed = false;
    let parts: Vec<String> = checks
        .iter()
        .zip(errors)
        .map(|(check, &error)| {
            let limit = match (double, check.terms > LONG_SUM) {
                (true, _) => 1e-6,
                (false, false) => 1e-5,
                (false, true) => 1e-4,
            };
            // Written so that NaN fails.
            if error <= limit {
                format!("{} {error:.1e}", check.name)
            } else {
                failed = true;
                format!("{} {error:.1e} ABOVE {limit:.0e}", check.name)
            }
        })
        .collect();
    failed.then(|| format!("relative error of {}", parts.join(", ")))
}

/// Reads and records a case; gives its op too.
fn record(path: &Path) -> Result<(String, Recorded), String> {
    let file = weights::load(path).map_err(|e| e.to_string())?;
    let at = |e: String| format!("{}: {e}", path.display());
    let text = |key: &str| file.metadata.get(key).cloned().ok_or_else(|| at(format!("no `{key}` in the metadata")));
    let (op, params) = (text("op")?, text("params")?);
    if let Some(key) = file.metadata.keys().find(|k| !["op", "params"].contains(&k.as_str())) {
        return Err(at(format!("{op}: unknown key `{key}` in the metadata")));
    }
    let at = |e: String| at(format!("{op}: {e}"));
    let params = serde_json::from_str(&params).map_err(|e| at(format!("`params` is no JSON object: {e}")))?;
    let mut tensors: BTreeMap<String, NamedTensor> = file.tensors.into_iter().map(|t| (t.name.clone(), t)).collect();
    let inputs = numbered(&mut tensors, "input.").map_err(at)?;
    let mut call = Call::new(inputs, params);
    let output = ops::record(&op, &mut call).and_then(|node| call.finish().map(|()| node)).map_err(at)?;
    let recorded = differentiate(&op, output, call, tensors).map_err(at)?;
    Ok((op, recorded))
}

/// Appends the gradients that the case has, and collects what is to be compared.
fn differentiate(
    op: &str,
    output: NodeId,
    call: Call,
    mut tensors: BTreeMap<String, NamedTensor>,
) -> Result<Recorded, String> {
    let Call { graph: mut g, store, inputs, statistics, .. } = call;
    let last = inputs.iter().map(|i| i.0).max().map_or(0, |k| k + 1);
    let mut shapes = vec![Shape::scalar(); last];
    for (k, _, value) in &inputs {
        shapes[*k] = value.shape().clone();
    }
    let terms = ops::terms(op, &shapes, &g.spec(output).shape);
    let terms = |slot: usize| terms.get(slot).copied().unwrap_or(1);

    let mut checks = Vec::new();
    let mut add = |name: String, tensor: NamedTensor, from: From, spec: &Spec, terms: usize| {
        if tensor.shape != *spec.shape {
            return Err(format!("`{name}` has the shape {spec} here, and {:?} in the case", tensor.shape));
        }
        let floats = tensor.data.as_f32().ok_or_else(|| format!("`{name}` holds no floats"))?;
        checks.push(Check { name, from, want: floats.iter().map(|&x| f64::from(x)).collect(), terms });
        Ok(())
    };
    let want = tensors.remove("output").ok_or("no tensor `output`")?;
    add("output".into(), want, From::Node(output), g.spec(output), terms(0))?;

    let mut values: Vec<(NodeId, Tensor)> = inputs.iter().map(|(_, node, value)| (*node, value.clone())).collect();
    let grads = numbered(&mut tensors, "grad.")?;
    if !grads.is_empty() {
        let seed = tensors.remove("grad_output").ok_or("no tensor `grad_output`")?;
        let floats = seed.data.as_f32().ok_or("`grad_output` holds no floats")?.to_vec();
        let seed = Tensor::f32(seed.shape, floats).map_err(|e| format!("`grad_output`: {e}"))?;
        let node = g.input("grad_output", seed.spec());
        let leaf = |k: usize| inputs.iter().find(|i| i.0 == k).map(|i| i.1);
        let leaves: Vec<NodeId> = grads
            .keys()
            .map(|&k| {
                leaf(k).ok_or_else(|| format!("`grad.{k}`, but `input.{k}` is not there or no variable of the op"))
            })
            .collect::<Result<_, _>>()?;
        let recorded = g.gradients(output, Some(node), &leaves).map_err(|e| e.to_string())?;
        values.push((node, seed));
        for ((k, want), node) in grads.into_iter().zip(recorded) {
            let node = node.ok_or_else(|| format!("`grad.{k}`: the engine gives no gradient"))?;
            add(format!("grad.{k}"), want, From::Node(node), g.spec(node), terms(k + 1))?;
        }
    }
    tensors.remove("grad_output");
    for (name, view) in statistics {
        let want = tensors.remove(name).ok_or_else(|| format!("no tensor `{name}`"))?;
        let spec = view.spec.clone();
        add(name.to_owned(), want, From::Var(view), &spec, terms(0))?;
    }
    match tensors.keys().next() {
        Some(name) => Err(format!("unknown tensor `{name}`")),
        None => Ok(Recorded { graph: Arc::new(g), store, inputs: values, checks }),
    }
}

/// Takes out the tensors `PREFIX0`, `PREFIX1`, ... by number.
fn numbered(tensors: &mut BTreeMap<String, NamedTensor>, prefix: &str) -> Result<BTreeMap<usize, NamedTensor>, String> {
    let names: Vec<String> = tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    let mut found = BTreeMap::new();
    for name in names {
        // No function has that many inputs; a larger number would only cost memory.
        let number = name[prefix.len()..].parse().ok().filter(|&k: &usize| k < 100 && name == format!("{prefix}{k}"));
        let number = number.ok_or_else(|| format!("unknown tensor `{name}`"))?;
        found.extend(tensors.remove(&name).map(|t| (number, t)));
    }
    Ok(found)
}

impl Recorded {
    /// The relative error of each check.
    fn errors(&self, executor: &mut dyn Executor) -> Result<Vec<f64>, String> {
        let roots: Vec<NodeId> =
            self.checks.iter().filter_map(|c| if let From::Node(n) = c.from { Some(n) } else { None }).collect();
        let text = |e: radiograd::exec::ExecError| e.to_string();
        executor.load(&self.store).map_err(text)?;
        let program = executor.compile(&self.graph, &roots).map_err(text)?;
        for (node, value) in &self.inputs {
            executor.set(program, *node, value).map_err(text)?;
        }
        executor.run(program).map_err(text)?;
        let mut errors = Vec::with_capacity(self.checks.len());
        for check in &self.checks {
            let got = match &check.from {
                From::Node(node) => executor.read(program, *node).map_err(text)?.to_f64(),
                From::Var(view) => {
                    let whole = executor.read_var(view.var).map_err(text)?.to_f64();
                    whole[view.offset..view.offset + view.spec.numel()].to_vec()
                }
            };
            errors.push(relative_error(&got, &check.want));
        }
        executor.release(program);
        Ok(errors)
    }
}
