//! The CPU executor: interprets a graph node by node with each op's reference.
//!
//! In `f64` it judges every gradient; in `f32` it also is what runs where there is no GPU, and then fast kernels
//! (`cpu::fast`) stand in for the readable loops of convolution, linear layers and pooling.

use std::sync::Arc;

use web_time::Instant;

use crate::exec::{ExecError, Executor as ExecutorTrait, Program, Programs, check_vars, host_has_room};
use crate::graph::{Graph, NodeId, Source};
use crate::ops::{Array, Eval, View};
use crate::profile::{HostTimes, NodeTime, RunProfile};
use crate::real::Real;
use crate::shape::{DType, Spec};
use crate::store::{ParamStore, VarId};
use crate::tensor::{Data, Tensor};

pub mod fast;

/// Interprets graphs in the number type `T`.
#[derive(Debug)]
pub struct Executor<T: Real> {
    fast: bool,
    vars: Vec<Array<T>>,
    var_names: Vec<String>,
    var_specs: Vec<Spec>,
    programs: Programs<Compiled<T>>,
}

/// A graph with the moments at which its values may be forgotten.
#[derive(Debug)]
struct Compiled<T> {
    graph: Arc<Graph>,
    /// Nodes to run, in order.
    order: Vec<NodeId>,
    /// Which node owns the memory of a node: itself, or what it is a view of.
    owner: Vec<NodeId>,
    /// For each step of `order`: the owners that nothing reads afterwards.
    dead: Vec<Vec<NodeId>>,
    values: Vec<Option<Array<T>>>,
    /// Memory of forgotten values, for the next ones of the same size.
    pool: Vec<Array<T>>,
}

impl<T: Real> Executor<T> {
    /// The judge: readable references only.
    #[must_use]
    pub fn reference() -> Self {
        Self {
            fast: false,
            vars: Vec::new(),
            var_names: Vec::new(),
            var_specs: Vec::new(),
            programs: Programs::default(),
        }
    }

    /// Fast kernels where they exist (in `f32`), references elsewhere.
    #[must_use]
    pub fn fast() -> Self {
        Self { fast: true, ..Self::reference() }
    }

    /// Runs every node in order and tells `done` of each that was computed.
    fn replay(&mut self, program: Program, mut done: impl FnMut(NodeId)) -> Result<(), ExecError> {
        let p = self.programs.get_mut(program)?;
        let graph = Arc::clone(&p.graph);
        for step in 0..p.order.len() {
            let id = p.order[step];
            let node = graph.node(id);
            match &node.source {
                Source::Input if p.values[id.index()].is_none() => {
                    // An input that was never written is zero, on the GPU too.
                    p.values[id.index()] = Some(zeros(&node.spec, || graph.describe(id))?);
                }
                Source::Op { op, inputs } if !op.is_view() => {
                    let mut out = match p.values[id.index()].take() {
                        Some(out) => out,
                        None => p.allocate(&node.spec, || graph.describe(id))?,
                    };
                    let updates = op.updates();
                    let mut state: Vec<Vec<T>> = Vec::with_capacity(updates.len());
                    for u in &updates {
                        let Array::Float(v) = &mut self.vars[u.var.index()] else {
                            return Err(ExecError::Device(format!("{} updates a variable of integers", op.name())));
                        };
                        let whole = u.offset == 0 && u.spec.numel() == v.len();
                        let range = u.offset..u.offset + u.spec.numel();
                        state.push(if whole { std::mem::take(v) } else { v[range].to_vec() });
                    }
                    let views: Vec<View<'_, T>> = inputs
                        .iter()
                        .map(|&i| view(&graph, &p.owner, &p.values, &self.vars, i))
                        .collect::<Option<_>>()
                        .ok_or_else(|| ExecError::NotKept(graph.describe(id)))?;
                    let specs: Vec<&Spec> = inputs.iter().map(|&i| graph.spec(i)).collect();
                    T::run(
                        op.as_ref(),
                        &mut Eval {
                            inputs: &views,
                            specs: &specs,
                            out_spec: &node.spec,
                            out: &mut out,
                            state: &mut state,
                            fast: self.fast,
                        },
                    );
                    for (u, new) in updates.iter().zip(state) {
                        if let Array::Float(v) = &mut self.vars[u.var.index()] {
                            if v.is_empty() {
                                *v = new;
                            } else {
                                v[u.offset..u.offset + new.len()].copy_from_slice(&new);
                            }
                        }
                    }
                    p.values[id.index()] = Some(out);
                    done(id);
                }
                _ => {}
            }
            for id in &p.dead[step] {
                if let Some(array) = p.values[id.index()].take() {
                    p.pool.push(array);
                }
            }
        }
        Ok(())
    }

    fn import(tensor: &Tensor) -> Array<T> {
        match tensor.data() {
            Data::F32(v) => Array::Float(v.iter().map(|&x| T::of(f64::from(x))).collect()),
            Data::F64(v) => Array::Float(v.iter().map(|&x| T::of(x)).collect()),
            Data::U32(v) => Array::U32(v.clone()),
            Data::U8(v) => Array::U8(v.clone()),
        }
    }

    fn export(spec: &Spec, view: View<'_, T>) -> Tensor {
        let data = match view {
            View::Float(v) => match T::as_f32(v) {
                Some(v) => Data::F32(v.to_vec()),
                None => Data::F64(v.iter().map(|x| x.f64()).collect()),
            },
            View::U32(v) => Data::U32(v.to_vec()),
            View::U8(v) => Data::U8(v.to_vec()),
        };
        Tensor::new(spec.shape.clone(), data).expect("a value fills its shape")
    }
}

impl<T: Real> Compiled<T> {
    fn new(graph: &Arc<Graph>, roots: &[NodeId]) -> Self {
        let live = graph.live(roots);
        let order: Vec<NodeId> = graph.ids().filter(|id| live[id.index()]).collect();
        let mut owner: Vec<NodeId> = graph.ids().collect();
        for id in graph.ids() {
            let node = graph.node(id);
            if node.op().is_some_and(|op| op.is_view()) {
                owner[id.index()] = owner[node.inputs()[0].index()];
            }
        }
        let mut last: Vec<usize> = vec![0; graph.nodes().len()];
        for (step, id) in order.iter().enumerate() {
            last[owner[id.index()].index()] = step;
            for input in graph.node(*id).inputs() {
                last[owner[input.index()].index()] = step;
            }
        }
        for root in roots {
            last[owner[root.index()].index()] = usize::MAX;
        }
        let mut dead = vec![Vec::new(); order.len()];
        for id in &order {
            let computed = graph.node(*id).op().is_some();
            let step = last[id.index()];
            if owner[id.index()] == *id && computed && step != usize::MAX {
                dead[step].push(*id);
            }
        }
        let values = vec![None; graph.nodes().len()];
        Self { graph: Arc::clone(graph), order, owner, dead, values, pool: Vec::new() }
    }

    fn allocate(&mut self, spec: &Spec, name: impl FnOnce() -> String) -> Result<Array<T>, ExecError> {
        let n = spec.numel();
        let fits = |a: &Array<T>| match a {
            Array::Float(v) => spec.dtype == DType::Float && v.len() == n,
            Array::U32(v) => spec.dtype == DType::U32 && v.len() == n,
            Array::U8(v) => spec.dtype == DType::U8 && v.len() == n,
        };
        match self.pool.iter().position(fits) {
            Some(i) => Ok(self.pool.swap_remove(i)),
            None => zeros(spec, name),
        }
    }
}

/// Zeros, where there is room for them.
fn zeros<T: Real>(spec: &Spec, name: impl FnOnce() -> String) -> Result<Array<T>, ExecError> {
    room::<T>(spec, 1, name)?;
    Ok(Array::zeros(spec))
}

/// That the system gives memory for `copies` of a tensor: where it does not, allocating it would end the process.
fn room<T>(spec: &Spec, copies: usize, name: impl FnOnce() -> String) -> Result<(), ExecError> {
    let size = match spec.dtype {
        DType::Float => size_of::<T>(),
        DType::U32 => size_of::<u32>(),
        DType::U8 => size_of::<u8>(),
    };
    let bytes = spec.shape.dims().iter().try_fold(size * copies, |bytes, &d| bytes.checked_mul(d));
    if bytes.is_some_and(host_has_room) {
        return Ok(());
    }
    let size = bytes.map_or_else(|| "more bytes than there are numbers".to_owned(), |b| format!("{} MiB", b >> 20));
    Err(ExecError::OutOfMemory(format!("the host has no room for {} {spec} ({size})", name())))
}

/// The memory behind a node, as the kernel of another node reads it.
fn view<'a, T: Real>(
    graph: &Graph,
    owner: &[NodeId],
    values: &'a [Option<Array<T>>],
    vars: &'a [Array<T>],
    id: NodeId,
) -> Option<View<'a, T>> {
    let len = graph.spec(id).numel();
    let id = owner[id.index()];
    match &graph.node(id).source {
        Source::Var(v) => Some(vars[v.var.index()].view(v.offset, len)),
        _ => values[id.index()].as_ref().map(|a| a.view(0, len)),
    }
}

impl<T: Real> ExecutorTrait for Executor<T> {
    fn describe(&self) -> String {
        let threads = rayon::current_num_threads();
        let kind = if self.fast { "CPU executor" } else { "CPU reference" };
        let bits = if T::as_f32(&[]).is_some() { 32 } else { 64 };
        format!("{kind} (f{bits}, {threads} threads)")
    }

    fn load(&mut self, store: &ParamStore) -> Result<(), ExecError> {
        self.programs.clear();
        self.vars.clear();
        self.var_specs = store.vars().iter().map(|v| v.spec.clone()).collect();
        self.var_names = store.vars().iter().map(|v| v.name.clone()).collect();
        for (i, var) in (0..).zip(store.vars()) {
            // What has a first value is copied twice on its way.
            room::<T>(&var.spec, 2, || var.name.clone())?;
            self.vars.push(match store.initial(VarId(i)) {
                Some(tensor) => Self::import(&tensor),
                None => Array::zeros(&var.spec),
            });
        }
        Ok(())
    }

    fn compile(&mut self, graph: &Arc<Graph>, roots: &[NodeId]) -> Result<Program, ExecError> {
        check_vars(graph, self.vars.len())?;
        Ok(self.programs.push(Compiled::new(graph, roots)))
    }

    fn set(&mut self, program: Program, input: NodeId, value: &Tensor) -> Result<(), ExecError> {
        let p = self.programs.get_mut(program)?;
        if *p.graph.spec(input) != value.spec() {
            let (node, expected) = (p.graph.describe(input), p.graph.spec(input).clone());
            return Err(ExecError::Input { node, expected, got: value.spec() });
        }
        p.values[input.index()] = Some(Self::import(value));
        Ok(())
    }

    fn run(&mut self, program: Program) -> Result<(), ExecError> {
        self.replay(program, |_| {})
    }

    fn wait(&mut self) -> Result<(), ExecError> {
        Ok(())
    }

    fn running(&self, program: Program) -> Result<&Arc<Graph>, ExecError> {
        Ok(&self.programs.get(program)?.graph)
    }

    fn run_profiled(&mut self, program: Program) -> Result<RunProfile, ExecError> {
        let nodes_start = Instant::now();
        let (mut nodes, mut last) = (Vec::new(), nodes_start);
        self.replay(program, |id| {
            let now = Instant::now();
            nodes.push((id, last, now));
            last = now;
        })?;
        let graph = &self.programs.get(program)?.graph;
        let nodes = nodes
            .into_iter()
            .map(|(id, start, end)| NodeTime {
                node: id.index(),
                name: graph.describe(id),
                op: graph.node(id).kind(),
                variant: "cpu",
                start: (start - nodes_start).as_secs_f64(),
                seconds: (end - start).as_secs_f64(),
            })
            .collect();
        Ok(RunProfile { host: Vec::new(), nodes_start, nodes: Some(nodes) })
    }

    fn host_times(&self) -> Option<HostTimes> {
        None
    }

    fn read(&mut self, program: Program, node: NodeId) -> Result<Tensor, ExecError> {
        let p = self.programs.get(program)?;
        let view = view(&p.graph, &p.owner, &p.values, &self.vars, node);
        match view {
            Some(view) => Ok(Self::export(p.graph.spec(node), view)),
            None => Err(ExecError::NotKept(p.graph.describe(node))),
        }
    }

    fn read_var(&mut self, var: VarId) -> Result<Tensor, ExecError> {
        let (Some(spec), Some(value)) = (self.var_specs.get(var.index()), self.vars.get(var.index())) else {
            return Err(ExecError::NotLoaded(format!("variable {}", var.index())));
        };
        Ok(Self::export(spec, value.view(0, spec.numel())))
    }

    fn write_var(&mut self, var: VarId, value: &Tensor) -> Result<(), ExecError> {
        let (Some(expected), true) = (self.var_specs.get(var.index()), var.index() < self.vars.len()) else {
            return Err(ExecError::NotLoaded(format!("variable {}", var.index())));
        };
        if *expected != value.spec() {
            let node = self.var_names[var.index()].clone();
            return Err(ExecError::Input { node, expected: expected.clone(), got: value.spec() });
        }
        self.vars[var.index()] = Self::import(value);
        Ok(())
    }

    fn release(&mut self, program: Program) {
        self.programs.release(program);
    }

    fn max_tensor_bytes(&self) -> Option<u64> {
        None
    }
}
