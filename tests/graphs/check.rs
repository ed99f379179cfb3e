//! The properties of one graph.

use std::sync::Arc;

use radiograd::cpu;
use radiograd::exec::ExecError;
use radiograd::fuse::fuse;
use radiograd::gpu::{Executor, Options};
use radiograd::graph::{NodeId, Pass};
use radiograd::recompute::recompute;
use radiograd::rng::{Rng, Stream};
use radiograd::store::ParamStore;
use radiograd::tensor::{Data, Tensor};

use super::judge::{Outcome, Reference, Running, run, same_bits, same_numbers};
use super::{Built, Leaf, Recipe, plan};

/// What was seen, over all graphs.
#[derive(Debug, Default)]
pub struct Seen {
    pub graphs: usize,
    pub nodes: usize,
    /// Values that are not finite in `f64`.
    pub skipped: usize,
    /// A difference that other values of the same graph do not show: something lies at a kink or between two roundings.
    pub rare: usize,
    pub leaves: usize,
    pub kinks: usize,
    pub fused: usize,
    pub recomputed: usize,
    pub pairs: usize,
    /// The largest share of a bound.
    pub closest: f64,
}

/// A graph fails where it fails with three different sets of values: with one, a ReLU's input may lie within rounding of zero.
pub fn thrice(
    recipe: &Recipe,
    seen: &mut Seen,
    mut f: impl FnMut(&Built, &mut Seen) -> Result<(), String>,
) -> Result<(), String> {
    let mut last = String::new();
    for salt in 0..3 {
        let built = recipe.build(salt).map_err(|e| e.to_string())?;
        if salt == 0 {
            seen.graphs += 1;
            seen.nodes += built.graph.nodes().len();
        }
        match f(&built, seen) {
            Ok(()) => {
                seen.rare += usize::from(salt > 0);
                return Ok(());
            }
            Err(e) => last = format!("{e}\n{built}"),
        }
    }
    Err(last)
}

fn text(e: ExecError) -> String {
    e.to_string()
}

/// What needs no device: plans, differences, the fast executor, and the rewritten graphs.
pub fn on_the_cpu(built: &Built, seen: &mut Seen) -> Result<(), String> {
    seen.pairs += plan::check(&built.graph, &built.roots)?;
    let fused = fuse(&built.graph, &built.roots, |_, _, _| true);
    if let Some(fused) = &fused {
        let roots: Vec<NodeId> = built.roots.iter().map(|r| fused.places[r.index()].expect("roots are kept")).collect();
        seen.pairs += plan::check(&Arc::new(fused.graph.clone()), &roots).map_err(|e| format!("fused: {e}"))?;
    }
    let Some(reference) = Reference::new(built).map_err(text)? else {
        seen.skipped += 1;
        return Ok(());
    };
    let fast = run(built, &mut cpu::Executor::<f32>::fast()).map_err(text)?;
    seen.closest = seen.closest.max(reference.judge("the fast CPU executor", &fast)?);
    if let Some(fused) = fused {
        seen.fused += 1;
        let moved = rewritten(built, fused.graph, |id| fused.places[id.index()]);
        exact("fused", &reference, &moved)?;
    }
    if let Some(moved) = with_recomputing(built) {
        seen.recomputed += 1;
        exact("recomputed", &reference, &moved)?;
    }
    differences(built, seen)
}

/// The same, after a rewriting of the graph.
fn rewritten(built: &Built, graph: radiograd::graph::Graph, place: impl Fn(NodeId) -> Option<NodeId>) -> Built {
    Built {
        graph: Arc::new(graph),
        store: built.store.clone(),
        inputs: built.inputs.iter().filter_map(|(id, v)| Some((place(*id)?, v.clone()))).collect(),
        roots: built.roots.iter().filter_map(|id| place(*id)).collect(),
        loss: built.loss.and_then(&place),
        grads: Vec::new(),
        recorded: built.recorded,
    }
}

/// The graph with activations computed twice, if any of them is large enough.
fn with_recomputing(built: &Built) -> Option<Built> {
    let is_forward = |id: &NodeId| {
        let node = built.graph.node(*id);
        node.pass == Pass::Forward && node.op().is_some()
    };
    let forward: Vec<NodeId> = built.graph.ids().filter(is_forward).collect();
    // Every third value is kept, and the last.
    let mut kept: Vec<NodeId> = forward.iter().copied().step_by(3).collect();
    kept.extend(forward.last());
    let (graph, places) = recompute(&built.graph, &kept);
    (graph.nodes().len() > built.graph.nodes().len()).then(|| rewritten(built, graph, |id| Some(places[id.index()])))
}

/// A rewritten graph computes the same in `f64`, but for the order of a sum.
fn exact(what: &str, reference: &Reference, built: &Built) -> Result<(), String> {
    let outcome = run(built, &mut cpu::Executor::<f64>::reference()).map_err(text)?;
    for (a, b) in outcome.roots.iter().zip(&reference.outcome.roots) {
        let (a, b) = (a.to_f64(), b.to_f64());
        let norm = b.iter().map(|v| v * v).sum::<f64>().sqrt();
        let off = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        // NaN is off, too.
        let near = off <= 1e-9 * norm + 1e-12 * (b.len() as f64).sqrt();
        if a.len() != b.len() || !near {
            return Err(format!("{what}: off by {off:.2e} of {norm:.2e}\n{built}"));
        }
    }
    Ok(())
}

/// The gradient against central differences, along one random direction of each leaf.
fn differences(built: &Built, seen: &mut Seen) -> Result<(), String> {
    let Some(loss) = built.loss else { return Ok(()) };
    let mut executor = cpu::Executor::<f64>::reference();
    let mut all = Running::new(built, &mut executor).map_err(text)?;
    let outcome = all.outcome(None).map_err(text)?;
    let at = |id: NodeId| built.roots.iter().position(|&r| r == id).expect("gradients and loss are roots");
    let program = all.program;
    for (leaf, grad) in &built.grads {
        let grad = outcome.roots[at(*grad)].to_f64();
        let mut rng = Rng::new(11, 0, Stream::Sample as u32);
        let direction: Vec<f64> = grad.iter().map(|_| f64::from(rng.normal())).collect();
        let analytic: f64 = grad.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let size = grad.iter().map(|g| g * g).sum::<f64>().sqrt();
        let mut loss_at = |h: f64| -> Result<f64, ExecError> {
            // The run changes the variables: each begins from the start.
            for (id, value) in &built.inputs {
                all.executor.set(program, *id, value)?;
            }
            for var in super::judge::variables(built) {
                let spec = &built.store.vars()[var.index()].spec;
                let value = built.store.initial(var).unwrap_or_else(|| Tensor::zeros(spec));
                all.executor.write_var(var, &value)?;
            }
            match leaf {
                Leaf::Input(i) => {
                    let (id, value) = &built.inputs[*i];
                    all.executor.set(program, *id, &along(value, 0, &direction, h))?;
                }
                Leaf::Param(i) => {
                    let view = &built.store.params()[*i].view;
                    let value = built.store.initial(ParamStore::TRAINABLE).expect("it has values");
                    all.executor.write_var(view.var, &along(&value, view.offset, &direction, h))?;
                }
            }
            all.executor.run(program)?;
            Ok(all.executor.read(program, loss)?.to_f64()[0])
        };
        let h = 1e-5;
        let mut three = || -> Result<[f64; 5], ExecError> {
            Ok([loss_at(-h)?, loss_at(-0.5 * h)?, loss_at(0.0)?, loss_at(0.5 * h)?, loss_at(h)?])
        };
        let l = three().map_err(text)?;
        let (coarse, fine) = ((l[4] - l[0]) / (2.0 * h), (l[3] - l[1]) / h);
        // Richardson's extrapolation.
        let numeric = (4.0 * fine - coarse) / 3.0;
        let bound = 1e-6 * (size + analytic.abs()) + 1e-7 * (1.0 + l[2].abs());
        seen.leaves += 1;
        if (numeric - analytic).abs() <= bound {
            continue;
        }
        // Slopes that differ on the two sides, or with the width: a kink lies within h, and there is no gradient to compare.
        let (left, right) = ((l[2] - l[1]) / (0.5 * h), (l[3] - l[2]) / (0.5 * h));
        let bend = 1e-4 * (1.0 + size);
        if (left - right).abs() > bend || (coarse - fine).abs() > bend {
            seen.kinks += 1;
            continue;
        }
        return Err(format!(
            "the gradient of {leaf:?} is {analytic:.9e} along a direction, differences say {numeric:.9e} (bound {bound:.1e})"
        ));
    }
    Ok(())
}

/// `value` with `h` times `direction` added from element `offset` on.
fn along(value: &Tensor, offset: usize, direction: &[f64], h: f64) -> Tensor {
    let mut values = value.to_f64();
    for (v, d) in values[offset..].iter_mut().zip(direction) {
        *v += h * d;
    }
    Tensor::new(value.shape().clone(), Data::F64(values)).expect("the same length")
}

/// Executors with what can be set, on one device. They keep their pipelines from graph to graph.
pub struct Gpus {
    main: Executor,
    apart: Executor,
    checked: Executor,
    plain: Executor,
}

impl Gpus {
    pub fn new(first: &Executor) -> Self {
        let with = |options| Executor::new(first.gpu().clone(), options);
        let guards = Options { guards: true, ..Options::default() };
        Self {
            main: with(Options::default()),
            apart: with(Options { apart: true, ..Options::default() }),
            checked: with(Options { checked: true, ..guards.clone() }),
            plain: with(Options { variant: Some("plain".to_owned()), ..guards }),
        }
    }

    pub fn pipelines(&self) -> usize {
        [&self.main, &self.apart, &self.checked, &self.plain].map(Executor::pipeline_count).iter().sum()
    }

    /// The main executor on each graph, and one of the others, in turn.
    pub fn check(&mut self, built: &Built, turn: usize, seen: &mut Seen) -> Result<(), String> {
        let Some(reference) = Reference::new(built).map_err(text)? else {
            seen.skipped += 1;
            return Ok(());
        };
        let mut judge = |what: &str, outcome: &Outcome| -> Result<(), String> {
            seen.closest = seen.closest.max(reference.judge(what, outcome)?);
            Ok(())
        };
        let mut running = Running::new(built, &mut self.main).map_err(text)?;
        let first = running.outcome(None).map_err(text)?;
        judge("GPU", &first)?;
        let two = running.twice().map_err(text)?;
        same_bits("two runs", &first, &running.outcome(None).map_err(text)?)?;
        same_bits("two runs of two steps", &two, &running.twice().map_err(text)?)?;
        if self.main.fuse(&built.graph, &built.roots).is_some() {
            seen.fused += 1;
            self.main.set_fusion(false);
            let unfused = run(built, &mut self.main);
            self.main.set_fusion(true);
            judge("GPU, not fused", &unfused.map_err(text)?)?;
        }
        match turn % 4 {
            0 => same_numbers("bindings apart", &run(built, &mut self.apart).map_err(text)?, &first)?,
            1 => same_numbers("checked, between guards", &guarded(built, &mut self.checked)?, &first)?,
            2 => judge("GPU, plain kernels", &guarded(built, &mut self.plain)?)?,
            _ => {
                if let Some(moved) = with_recomputing(built) {
                    seen.recomputed += 1;
                    judge("GPU, recomputed", &run(&moved, &mut self.main).map_err(text)?)?;
                }
            }
        }
        Ok(())
    }
}

fn guarded(built: &Built, executor: &mut Executor) -> Result<Outcome, String> {
    let mut running = Running::new(built, executor).map_err(text)?;
    let outcome = running.outcome(None).map_err(text)?;
    let program = running.program;
    executor.check_guards(program)?;
    Ok(outcome)
}
