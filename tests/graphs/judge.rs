//! Runs recorded graphs, and says how far a result may be from the `f64` reference.
//!
//! The rule of one op, `||a - b|| <= 1e-5 ||b||`, does not hold for a chain of thirty: a difference of nearly equal numbers loses
//! digits in any `f32`. So each tensor's bound is `1e-5 ||b||`, and thirty times what the same graph loses on the CPU: once
//! computed in `f32` by the readable references, once in `f64` with inputs that are off by a rounding of `f32`; and 1e-6 for each
//! element where the answer is close to zero.

use radiograd::cpu;
use radiograd::exec::{ExecError, Executor, Program};
use radiograd::graph::{NodeId, Source};
use radiograd::rng::{Rng, Stream};
use radiograd::shape::DType;
use radiograd::store::VarId;
use radiograd::tensor::Tensor;

use super::{Built, moved};

const KERNEL: f64 = 1e-5;
const SHARE: f64 = 30.0;
const ROUNDING: f64 = 1e-7;
const NEAR_ZERO: f64 = 1e-6;

/// What a run gives: the roots, and the variables after it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub roots: Vec<Tensor>,
    pub vars: Vec<Tensor>,
}

impl Outcome {
    fn all(&self) -> impl Iterator<Item = &Tensor> {
        self.roots.iter().chain(&self.vars)
    }
}

/// The variables that a graph reads or writes.
pub fn variables(built: &Built) -> Vec<VarId> {
    let mut all: Vec<VarId> = built
        .graph
        .nodes()
        .iter()
        .flat_map(|node| match &node.source {
            Source::Var(view) => vec![view.var],
            Source::Op { op, .. } => op.updates().iter().map(|u| u.var).collect(),
            Source::Input => Vec::new(),
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Values of inputs and variables other than the recorded ones.
pub type Change<'a> = &'a dyn Fn(&Tensor, u32) -> Tensor;

/// A graph on its executor.
pub struct Running<'a> {
    pub built: &'a Built,
    pub executor: &'a mut dyn Executor,
    pub program: Program,
    vars: Vec<VarId>,
}

impl<'a> Running<'a> {
    pub fn new(built: &'a Built, executor: &'a mut dyn Executor) -> Result<Self, ExecError> {
        executor.load(&built.store)?;
        let program = executor.compile(&built.graph, &built.roots)?;
        Ok(Self { built, executor, program, vars: variables(built) })
    }

    /// One run from the start: inputs and variables as they were at first.
    pub fn outcome(&mut self, change: Option<Change<'_>>) -> Result<Outcome, ExecError> {
        self.reset(change)?;
        self.executor.run(self.program)?;
        self.look()
    }

    fn reset(&mut self, change: Option<Change<'_>>) -> Result<(), ExecError> {
        let changed = |t: &Tensor, i: usize| change.map_or_else(|| t.clone(), |change| change(t, i as u32));
        for (i, (node, value)) in self.built.inputs.iter().enumerate() {
            self.executor.set(self.program, *node, &changed(value, i))?;
        }
        for (i, &var) in self.vars.iter().enumerate() {
            let spec = &self.built.store.vars()[var.index()].spec;
            let value = self.built.store.initial(var).unwrap_or_else(|| Tensor::zeros(spec));
            self.executor.write_var(var, &changed(&value, 1000 + i))?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<Outcome, ExecError> {
        let program = self.program;
        let roots = self.built.roots.iter().map(|&r| self.executor.read(program, r)).collect::<Result<_, _>>()?;
        let vars = self.vars.iter().map(|&v| self.executor.read_var(v)).collect::<Result<_, _>>()?;
        Ok(Outcome { roots, vars })
    }

    /// Two runs on end, so that the second sees what the first left in the variables.
    pub fn twice(&mut self) -> Result<Outcome, ExecError> {
        self.reset(None)?;
        self.executor.run(self.program)?;
        self.executor.run(self.program)?;
        self.look()
    }
}

/// Runs it once and forgets the program.
pub fn run(built: &Built, executor: &mut dyn Executor) -> Result<Outcome, ExecError> {
    let mut running = Running::new(built, executor)?;
    let outcome = running.outcome(None);
    let program = running.program;
    executor.release(program);
    outcome
}

/// The judge: values in `f64`, and how far each tensor may be from them.
pub struct Reference {
    pub outcome: Outcome,
    bounds: Vec<f64>,
    names: Vec<String>,
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

impl Reference {
    /// `None` where a value is not finite in `f64`, of which nothing can be said.
    pub fn new(built: &Built) -> Result<Option<Self>, ExecError> {
        let mut exact = cpu::Executor::<f64>::reference();
        let mut running = Running::new(built, &mut exact)?;
        let outcome = running.outcome(None)?;
        let rounded = running.outcome(Some(&|t: &Tensor, i: u32| {
            let mut rng = Rng::new(7, i, Stream::Sample as u32);
            moved(t, |v| v * (1.0 + ROUNDING * f64::from(rng.normal())))
        }))?;
        let single = run(built, &mut cpu::Executor::<f32>::reference())?;
        let bounds: Vec<f64> = outcome
            .all()
            .zip(rounded.all().zip(single.all()))
            .map(|(b, (rounded, single))| {
                let norm = b.to_f64().iter().map(|v| v * v).sum::<f64>().sqrt();
                let lost = distance(rounded, b).max(distance(single, b));
                KERNEL * norm + SHARE * lost + NEAR_ZERO * (b.shape().numel() as f64).sqrt()
            })
            .collect();
        let root = |id: &NodeId| built.graph.describe(*id);
        let var = |v: &VarId| format!("variable {} after the run", built.store.vars()[v.index()].name);
        let names = built.roots.iter().map(root).chain(variables(built).iter().map(var)).collect();
        Ok(bounds.iter().all(|b| b.is_finite()).then_some(Self { outcome, bounds, names }))
    }

    /// That an outcome is close enough; the largest share of a bound that was used.
    pub fn judge(&self, what: &str, outcome: &Outcome) -> Result<f64, String> {
        let mut most = 0.0f64;
        for ((a, b), (bound, name)) in outcome.all().zip(self.outcome.all()).zip(self.bounds.iter().zip(&self.names)) {
            if a.spec() != b.spec() {
                return Err(format!("{what}: {name} is {}, not {}", a.spec(), b.spec()));
            }
            if b.spec().dtype != DType::Float {
                if a.data() != b.data() {
                    return Err(format!("{what}: {name}: {:?} against {:?}", a.data(), b.data()));
                }
                continue;
            }
            let off = distance(a, b);
            // NaN is not within it, either.
            let within = off <= *bound;
            if !within {
                let show = |t: &Tensor| t.to_f64().into_iter().take(8).collect::<Vec<_>>();
                let (first, wanted) = (show(a), show(b));
                return Err(format!(
                    "{what}: {name} is off by {off:.2e}, bound {bound:.2e}: {first:?} against {wanted:?}"
                ));
            }
            most = most.max(off / bound);
        }
        Ok(most)
    }
}

/// That two outcomes have the same bits.
pub fn same_bits(what: &str, a: &Outcome, b: &Outcome) -> Result<(), String> {
    same(what, a, b, f32::to_bits)
}

/// That two outcomes have the same bits, but for the sign of zero, which WGSL leaves to whoever compiles a shader: other text, such as
/// that with checks of every index, may give the other one.
pub fn same_numbers(what: &str, a: &Outcome, b: &Outcome) -> Result<(), String> {
    same(what, a, b, |v| if v == 0.0 { 0 } else { v.to_bits() })
}

fn same(what: &str, a: &Outcome, b: &Outcome, bits: impl Fn(f32) -> u32) -> Result<(), String> {
    let bits = |t: &Tensor| -> Vec<u32> { t.to_f32().into_iter().map(&bits).collect() };
    for (i, (a, b)) in a.all().zip(b.all()).enumerate() {
        if bits(a) != bits(b) {
            let show = |t: &Tensor| t.to_f32().into_iter().take(8).collect::<Vec<_>>();
            return Err(format!("{what}: value {i} of {} differs: {:?} against {:?}", a.spec(), show(a), show(b)));
        }
    }
    Ok(())
}
