//! A case on several sets of random inputs, which a bench runs in turn: each set has its own memory, and together they are
//! larger than the last cache, so that no run finds its inputs there.

use std::sync::Arc;

use rayon::prelude::*;

use super::cases::Case;
use crate::exec::{ExecError, Executor, Program};
use crate::graph::{Graph, NodeId, Pass, VarView};
use crate::nn::summary;
use crate::ops::sample::{Fill, SampleInput};
use crate::rng::{Rng, Stream};
use crate::shape::{DType, ShapeError, Spec};
use crate::store::ParamStore;
use crate::tensor::{Data, Tensor};

/// The most memory that all sets of a case may take together, unless one set alone takes more.
pub const MAX_BYTES: u64 = 512 << 20;
/// Most sets of a case.
const MAX_SETS: u64 = 16;
/// Least sets of a case.
const MIN_SETS: u64 = 2;

/// One set: a graph of its own on variables of its own.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) graph: Arc<Graph>,
    pub(super) roots: Vec<NodeId>,
    inputs: Vec<VarView>,
    state: Vec<VarView>,
}

/// A case with its sets of inputs.
#[derive(Debug)]
pub struct Sets<'a> {
    pub(super) case: &'a Case,
    pub(super) sets: Vec<Set>,
    store: ParamStore,
    /// Values of the inputs and of the state in the first set.
    base: Vec<Tensor>,
    /// Floating-point operations of one run.
    pub flops: u64,
    /// The fewest bytes that one run can move: every input and every result once, what it updates twice.
    pub bytes: u64,
}

/// The size of the last cache of the processor in bytes, as Linux names it; 32 MiB where it does not say.
#[must_use]
pub fn last_level_cache() -> u64 {
    let size = |index: u32| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()?;
        let text = text.trim();
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = match unit {
            "" => 0,
            "K" => 10,
            "M" => 20,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_shl(unit)
    };
    (0..8).filter_map(size).max().filter(|&s| s > 0).unwrap_or(32 << 20)
}

impl<'a> Sets<'a> {
    /// Records a case as often as it takes to outgrow twice a cache of `cache` bytes, but at least twice and within
    /// [`MAX_BYTES`].
    ///
    /// # Errors
    /// The case cannot be recorded.
    pub fn new(case: &'a Case, seed: u32, cache: u64) -> Result<Self, ShapeError> {
        let all = || case.inputs.iter().chain(&case.state);
        let base: Vec<Tensor> = all().enumerate().map(|(i, input)| values(input, seed, i as u32)).collect();
        let mut new = Self { case, sets: Vec::new(), store: ParamStore::new(), base, flops: 0, bytes: 0 };
        let first = new.record()?;
        new.sets.push(first);
        let (graph, roots) = (Arc::clone(&new.sets[0].graph), new.sets[0].roots.clone());
        let live = graph.live(&roots);
        let rows = summary::nodes(&graph);
        new.flops = rows.iter().filter(|r| live[r.node]).map(|r| r.flops).sum();
        let size = |id: NodeId| graph.spec(id).bytes() as u64;
        let read: u64 = graph.ids().filter(|&id| live[id.index()] && graph.node(id).op().is_none()).map(size).sum();
        let written: u64 = roots.iter().map(|&id| size(id)).sum();
        let updated: u64 = case.state.iter().map(|s| 2 * s.spec.bytes() as u64).sum();
        new.bytes = read - case.unread + written + updated;
        let each = (read + written + updated / 2).max(1);
        let count = (2 * cache).div_ceil(each).clamp(MIN_SETS, MAX_SETS).min((MAX_BYTES / each).max(1));
        for _ in 1..count {
            let set = new.record()?;
            new.sets.push(set);
        }
        Ok(new)
    }

    fn record(&mut self) -> Result<Set, ShapeError> {
        let mut g = Graph::new();
        let mut var = |input: &SampleInput| self.store.add_var("input", input.spec.clone(), None);
        let inputs: Vec<VarView> = self.case.inputs.iter().map(&mut var).collect();
        let state: Vec<VarView> = self.case.state.iter().map(var).collect();
        let nodes: Vec<NodeId> = inputs.iter().map(|v| g.var("input", v.clone())).collect();
        let roots = self.case.record(&mut g, &nodes, &state)?;
        Ok(Set { graph: Arc::new(g), roots, inputs, state })
    }

    /// How many sets there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sets.len()
    }

    /// Bytes of the inputs, results and updated variables of all sets.
    #[must_use]
    pub fn footprint(&self) -> u64 {
        let state: u64 = self.case.state.iter().map(|s| s.spec.bytes() as u64).sum();
        (self.bytes + self.case.unread - state) * self.count() as u64
    }

    /// The value of input `i` (behind the inputs: of the state) in a set: that of the first set, turned around by a share of
    /// its length, so that no two sets hold the same numbers in the same places.
    pub(super) fn value(&self, set: usize, i: usize) -> Tensor {
        let base = &self.base[i];
        let n = base.data().len();
        let by = set * n / self.count().max(1);
        let data = match base.data() {
            Data::F32(v) => Data::F32([&v[by..], &v[..by]].concat()),
            Data::F64(v) => Data::F64([&v[by..], &v[..by]].concat()),
            Data::U32(v) => Data::U32([&v[by..], &v[..by]].concat()),
            Data::U8(v) => Data::U8([&v[by..], &v[..by]].concat()),
        };
        Tensor::new(base.shape().clone(), data).expect("as many elements as before")
    }

    /// Gives an executor the variables of all sets, still zero.
    ///
    /// # Errors
    /// The device has no room for them.
    pub fn load(&self, executor: &mut dyn Executor) -> Result<(), ExecError> {
        executor.load(&self.store)
    }

    /// Writes the inputs of a set.
    ///
    /// # Errors
    /// The device failed.
    pub fn write_inputs(&self, executor: &mut dyn Executor, set: usize) -> Result<(), ExecError> {
        let write = |(i, v): (usize, &VarView)| executor.write_var(v.var, &self.value(set, i));
        self.sets[set].inputs.iter().enumerate().try_for_each(write)
    }

    /// Writes what a set updates, so that its next run is as the first.
    ///
    /// # Errors
    /// The device failed.
    pub fn write_state(&self, executor: &mut dyn Executor, set: usize) -> Result<(), ExecError> {
        let first = self.case.inputs.len();
        let write = |(i, v): (usize, &VarView)| executor.write_var(v.var, &self.value(set, first + i));
        self.sets[set].state.iter().enumerate().try_for_each(write)
    }

    /// Prepares the run of a set.
    ///
    /// # Errors
    /// A kernel does not compile, or a tensor is too large for the device.
    pub fn compile(&self, executor: &mut dyn Executor, set: usize) -> Result<Program, ExecError> {
        executor.compile(&self.sets[set].graph, &self.sets[set].roots)
    }

    /// The results of a set after a run: its roots, then what it updates.
    ///
    /// # Errors
    /// The device failed.
    pub fn results(&self, executor: &mut dyn Executor, program: Program, set: usize) -> Result<Vec<Tensor>, ExecError> {
        let Set { roots, state, .. } = &self.sets[set];
        let mut all = roots.iter().map(|&r| executor.read(program, r)).collect::<Result<Vec<_>, _>>()?;
        for v in state {
            all.push(executor.read_var(v.var)?);
        }
        Ok(all)
    }

    /// Which nodes are the case: for a gradient those of the backward pass, else all.
    pub(super) fn measured(&self, node: usize) -> bool {
        self.case.direction.leaf().is_none()
            || self.sets[0].graph.nodes()[node].pass == Pass::Backward
            || self.sets[0].roots.iter().any(|r| r.index() == node)
    }

    /// A variable of the store, for kernels that are run beside an executor.
    #[must_use]
    pub fn specs(&self) -> Vec<Spec> {
        self.case.inputs.iter().map(|i| i.spec.clone()).collect()
    }

    /// Which of the case's inputs a node of the first set reads; `None` for a node that is computed.
    pub(super) fn input_of(&self, node: NodeId) -> Option<usize> {
        match &self.sets[0].graph.node(node).source {
            crate::graph::Source::Var(view) => self.sets[0].inputs.iter().position(|v| v.var == view.var),
            _ => None,
        }
    }
}

/// Numbers from a stretch of their own for every 65,536 elements, so that all processors share the work.
fn values(input: &SampleInput, seed: u32, index: u32) -> Tensor {
    const STRETCH: usize = 1 << 16;
    let n = input.spec.numel();
    let draw = |rng: &mut Rng| match input.fill {
        Fill::Positive => rng.range(0.5, 2.0),
        Fill::Below(bound) => rng.below(bound) as f32,
        _ => rng.normal(),
    };
    let mut numbers = vec![0.0f32; n];
    numbers.par_chunks_mut(STRETCH).enumerate().for_each(|(i, stretch)| {
        let mut rng = Rng::new(seed, i as u32, Stream::Sample as u32 + 8 + index);
        stretch.fill_with(|| draw(&mut rng));
    });
    let data = match input.spec.dtype {
        DType::Float => Data::F32(numbers),
        DType::U32 => Data::U32(numbers.iter().map(|&v| v as u32).collect()),
        DType::U8 => Data::U8(numbers.iter().map(|&v| v as u8).collect()),
    };
    Tensor::new(input.spec.shape.clone(), data).expect("as many numbers as elements")
}

#[cfg(test)]
mod tests {
    use super::super::cases::{cases, matmul};
    use super::*;

    #[test]
    fn a_gradient_is_measured_without_its_forward_pass() {
        for case in cases().iter().filter(|c| c.direction.leaf().is_some()) {
            let mut g = Graph::new();
            let x: Vec<NodeId> = case.inputs.iter().map(|i| g.input("x", i.spec.clone())).collect();
            let roots = case.record(&mut g, &x, &[]).unwrap();
            let live = g.live(&roots);
            for id in g.ids().filter(|id| live[id.index()] && g.node(*id).op().is_some()) {
                assert!(g.node(id).pass == Pass::Backward || roots.contains(&id), "{case:?}: {}", g.describe(id));
            }
        }
    }

    #[test]
    fn flops_and_bytes_of_a_known_product() {
        let case = matmul([1024, 1024, 1024]).unwrap().remove(0);
        let sets = Sets::new(&case, 1, 32 << 20).unwrap();
        assert_eq!((sets.flops, sets.bytes), (2 << 30, (3 * 4) << 20));
        // 12 MiB a set: six outgrow twice 32 MiB.
        assert_eq!((sets.count(), sets.footprint()), (6, (6 * 12) << 20));
    }

    #[test]
    fn sets_hold_the_same_numbers_in_other_places() {
        let case = matmul([8, 8, 8]).unwrap().remove(0);
        let sets = Sets::new(&case, 1, 1 << 20).unwrap();
        assert_eq!(sets.count(), MAX_SETS as usize);
        let sorted = |set| {
            let mut v = sets.value(set, 0).to_f32();
            v.sort_by(f32::total_cmp);
            v
        };
        assert_eq!(sorted(0), sorted(3));
        assert_ne!(sets.value(0, 0), sets.value(3, 0));
        assert_ne!(sets.value(0, 0), sets.value(0, 1));
    }

    #[test]
    fn memory_is_bounded() {
        let case = matmul([2048, 2048, 2048]).unwrap().remove(0);
        let sets = Sets::new(&case, 1, 1 << 40).unwrap();
        assert_eq!(sets.count(), 10);
        assert!(sets.footprint() <= MAX_BYTES, "{}", sets.footprint());
    }
}
