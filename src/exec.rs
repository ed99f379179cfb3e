//! What the CPU and the GPU executor have in common, so that training runs on either.

use std::pin::Pin;
use std::sync::Arc;

use crate::graph::{Graph, NodeId};
use crate::profile::{HostTimes, RunProfile};
use crate::shape::Spec;
use crate::store::{ParamStore, VarId};
use crate::tensor::Tensor;

/// A value on its way back from a device: see [`Executor::fetch`].
pub type Pending = Pin<Box<dyn Future<Output = Result<Tensor, ExecError>>>>;

/// A compiled graph of an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program(pub(crate) usize);

/// Running a graph failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// A value of another shape than the node's was written.
    #[error("{node} takes {expected}, got {got}")]
    Input {
        /// The node.
        node: String,
        /// Its shape.
        expected: Spec,
        /// The shape of the value.
        got: Spec,
    },
    /// A value was asked for that the program does not keep.
    #[error("{0} is not kept by this program: name it among the roots when compiling")]
    NotKept(String),
    /// A tensor is larger than the adapter can bind.
    #[error("{tensor} takes {} MiB, and this adapter binds at most {} MiB: use a smaller --batch (with --accumulate for the rest) or --size, narrower layers, or --device cpu", .bytes >> 20, .limit >> 20)]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its size.
        bytes: u64,
        /// What the adapter allows.
        limit: u64,
    },
    /// The whole program needs more memory than the device gives.
    #[error(
        "out of device memory: {0}; use a smaller batch or image size, --recompute to hold fewer activations, or --device cpu"
    )]
    OutOfMemory(String),
    /// The adapter, the driver or a shader failed.
    #[error("the GPU failed: {0}")]
    Device(String),
    /// No adapter that was asked for.
    #[error("{0}")]
    NoAdapter(String),
}

/// Holds persistent variables and replays graphs.
pub trait Executor {
    /// The device in words, for the first line that a command prints.
    fn describe(&self) -> String;

    /// Takes over all variables of a store; what was held before is dropped, programs included.
    ///
    /// # Errors
    /// The device has no room for them.
    fn load(&mut self, store: &ParamStore) -> Result<(), ExecError>;

    /// Prepares a graph whose `roots` can be read after a run.
    ///
    /// # Errors
    /// A tensor is too large for the device, or a kernel does not compile.
    fn compile(&mut self, graph: &Arc<Graph>, roots: &[NodeId]) -> Result<Program, ExecError>;

    /// Writes an input for the next run.
    ///
    /// # Errors
    /// The value has another shape than the node.
    fn set(&mut self, program: Program, input: NodeId, value: &Tensor) -> Result<(), ExecError>;

    /// The graph that runs: the recorded one, or what the fusion pass made of it. The nodes of [`Self::run_profiled`] are its.
    fn running(&self, program: Program) -> &Arc<Graph>;

    /// Replays the graph once. On a GPU it returns when the work is submitted.
    ///
    /// # Errors
    /// The device failed.
    fn run(&mut self, program: Program) -> Result<(), ExecError>;

    /// Waits until everything that was submitted has run.
    ///
    /// # Errors
    /// The device failed or hangs.
    fn wait(&mut self) -> Result<(), ExecError>;

    /// As [`Executor::run`], with a look at the clock around each node, and waits. The results are those of `run`, bit by bit;
    /// the time is longer.
    ///
    /// # Errors
    /// The device failed.
    fn run_profiled(&mut self, program: Program) -> Result<RunProfile, ExecError>;

    /// What the host did in the last [`Executor::run`]; `None` where the host is the device.
    fn host_times(&self) -> Option<HostTimes>;

    /// A root's value after the last run.
    ///
    /// # Errors
    /// The node was no root, or the device failed.
    fn read(&mut self, program: Program, node: NodeId) -> Result<Tensor, ExecError>;

    /// A variable's value.
    ///
    /// # Errors
    /// The device failed.
    fn read_var(&mut self, var: VarId) -> Result<Tensor, ExecError>;

    /// As [`Executor::read`], for a host that must not wait, such as a page in a browser. The value is that of the moment of the call,
    /// whatever runs before it arrives; errors arrive with it.
    fn fetch(&mut self, program: Program, node: NodeId) -> Pending {
        Box::pin(std::future::ready(self.read(program, node)))
    }

    /// As [`Executor::read_var`], for a host that must not wait; see [`Executor::fetch`].
    fn fetch_var(&mut self, var: VarId) -> Pending {
        Box::pin(std::future::ready(self.read_var(var)))
    }

    /// Overwrites a variable.
    ///
    /// # Errors
    /// The value has another size than the variable.
    fn write_var(&mut self, var: VarId, value: &Tensor) -> Result<(), ExecError>;

    /// Drops a program.
    fn release(&mut self, program: Program);

    /// Names the kernels that measuring (`radiograd tune`) put in place of the table's in the programs that are compiled;
    /// `None` where it changed nothing. The same seed on the same adapter gives the same bits only with the same set.
    fn kernel_set(&self) -> Option<String> {
        None
    }

    /// The largest tensor that the device can hold, in bytes, if it has a limit.
    fn max_tensor_bytes(&self) -> Option<u64>;
}
