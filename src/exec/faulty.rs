//! An executor that fails when it is told to, to try what others make of it.

use std::sync::Arc;

use super::{ExecError, Executor, Pending, Program};
use crate::graph::{Graph, NodeId};
use crate::profile::{HostTimes, RunProfile};
use crate::store::{ParamStore, VarId};
use crate::tensor::Tensor;

/// What an executor is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Memory for the variables: [`Executor::load`].
    Load,
    /// [`Executor::compile`].
    Compile,
    /// [`Executor::set`].
    Set,
    /// [`Executor::run`] and [`Executor::run_profiled`].
    Run,
    /// [`Executor::wait`].
    Wait,
    /// [`Executor::read`], [`Executor::read_var`] and what fetches instead of reading.
    Read,
    /// [`Executor::write_var`].
    Write,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Verdict {
    /// It is done.
    Go,
    /// It fails, and nothing is done.
    Before(ExecError),
    /// It is done, and fails all the same: a step whose updates may have happened.
    After(ExecError),
}

/// Decides about a call; its second argument names the op, the variable, or what is done, as messages of the GPU executor name it.
pub type Judge = Box<dyn FnMut(Call, &str) -> Verdict>;

/// Passes everything on to another executor, unless told to fail.
///
/// The judge sees each call before it happens. So it can fail the N-th run or reading, each with the error it likes, or do something to
/// the device behind the executor's back, such as [`Gpu::lose`](crate::gpu::Gpu::lose), and let the call find out.
pub struct Faulty {
    inner: Box<dyn Executor>,
    judge: Judge,
    /// Names of the variables.
    vars: Vec<String>,
}

impl Faulty {
    /// An executor that asks `judge` about each call to `inner`.
    #[must_use]
    pub fn new(inner: Box<dyn Executor>, judge: Judge) -> Self {
        Self { inner, judge, vars: Vec::new() }
    }

    /// Does what the judge says.
    fn judged<R>(
        &mut self,
        call: Call,
        at: &str,
        done: impl FnOnce(&mut dyn Executor) -> Result<R, ExecError>,
    ) -> Result<R, ExecError> {
        match (self.judge)(call, at) {
            Verdict::Go => done(self.inner.as_mut()),
            Verdict::Before(e) => Err(e),
            Verdict::After(e) => done(self.inner.as_mut()).and(Err(e)),
        }
    }

    /// The last op of a program, which stands for all that it runs.
    fn op(&self, program: Program) -> Result<String, ExecError> {
        let graph = self.inner.running(program)?;
        let op = graph.ids().rev().find(|&id| graph.node(id).op().is_some());
        Ok(op.map_or_else(|| "an empty program".to_owned(), |id| graph.describe(id)))
    }

    fn var(&self, var: VarId) -> String {
        self.vars.get(var.index()).cloned().unwrap_or_default()
    }
}

impl Executor for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn load(&mut self, store: &ParamStore) -> Result<(), ExecError> {
        self.vars = store.vars().iter().map(|var| var.name.clone()).collect();
        let largest = store.vars().iter().max_by_key(|var| var.spec.bytes()).map(|var| var.name.clone());
        self.judged(Call::Load, &largest.unwrap_or_default(), |inner| inner.load(store))
    }

    fn compile(&mut self, graph: &Arc<Graph>, roots: &[NodeId]) -> Result<Program, ExecError> {
        let first = graph.ids().find(|&id| graph.node(id).op().is_some());
        let first = first.map(|id| graph.describe(id)).unwrap_or_default();
        self.judged(Call::Compile, &first, |inner| inner.compile(graph, roots))
    }

    fn set(&mut self, program: Program, input: NodeId, value: &Tensor) -> Result<(), ExecError> {
        self.judged(Call::Set, "an input", |inner| inner.set(program, input, value))
    }

    fn running(&self, program: Program) -> Result<&Arc<Graph>, ExecError> {
        self.inner.running(program)
    }

    fn run(&mut self, program: Program) -> Result<(), ExecError> {
        let op = self.op(program)?;
        self.judged(Call::Run, &op, |inner| inner.run(program))
    }

    fn wait(&mut self) -> Result<(), ExecError> {
        self.judged(Call::Wait, "waiting for the device", |inner| inner.wait())
    }

    fn run_profiled(&mut self, program: Program) -> Result<RunProfile, ExecError> {
        let op = self.op(program)?;
        self.judged(Call::Run, &op, |inner| inner.run_profiled(program))
    }

    fn host_times(&self) -> Option<HostTimes> {
        self.inner.host_times()
    }

    fn read(&mut self, program: Program, node: NodeId) -> Result<Tensor, ExecError> {
        let op = self.op(program)?;
        self.judged(Call::Read, &op, |inner| inner.read(program, node))
    }

    fn read_var(&mut self, var: VarId) -> Result<Tensor, ExecError> {
        let name = self.var(var);
        self.judged(Call::Read, &name, |inner| inner.read_var(var))
    }

    fn fetch(&mut self, program: Program, node: NodeId) -> Pending {
        let fetched =
            self.op(program).and_then(|op| self.judged(Call::Read, &op, |inner| Ok(inner.fetch(program, node))));
        fetched.unwrap_or_else(|e| Box::pin(std::future::ready(Err(e))))
    }

    fn fetch_var(&mut self, var: VarId) -> Pending {
        let name = self.var(var);
        let fetched = self.judged(Call::Read, &name, |inner| Ok(inner.fetch_var(var)));
        fetched.unwrap_or_else(|e| Box::pin(std::future::ready(Err(e))))
    }

    fn write_var(&mut self, var: VarId, value: &Tensor) -> Result<(), ExecError> {
        let name = self.var(var);
        self.judged(Call::Write, &name, |inner| inner.write_var(var, value))
    }

    fn release(&mut self, program: Program) {
        self.inner.release(program);
    }

    fn kernel_set(&self) -> Option<String> {
        self.inner.kernel_set()
    }

    fn max_tensor_bytes(&self) -> Option<u64> {
        self.inner.max_tensor_bytes()
    }
}
