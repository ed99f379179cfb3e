//! What the CPU and the GPU executor have in common, so that training runs on either.

mod faulty;
mod programs;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::graph::{Graph, NodeId, Source};
use crate::profile::{HostTimes, RunProfile};
use crate::shape::Spec;
use crate::store::{ParamStore, VarId};
use crate::tensor::Tensor;

pub use faulty::{Call, Faulty, Judge, Verdict};
pub(crate) use programs::Programs;

/// A value on its way back from a device: see [`Executor::fetch`].
pub type Pending = Pin<Box<dyn Future<Output = Result<Tensor, ExecError>>>>;

/// A compiled graph of an executor. No two of a process are equal, so one that was released, or that belongs to another executor, is
/// known as such: [`ExecError::Stale`].
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
    /// A variable that the executor does not hold.
    #[error("{0} is not on the device: load the variables of its store first")]
    NotLoaded(String),
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
    /// The device, or the host where that computes, has no room: for which tensor.
    #[error(
        "out of memory: {0}; use a smaller --batch (with --accumulate for the rest) or --size, narrower layers, or --recompute to hold fewer activations"
    )]
    OutOfMemory(String),
    /// The device is gone, with all that it held: pulled out, reset by its driver, or destroyed.
    #[error(
        "the GPU was lost at {at}: {reason}; where this happens again, use a smaller --batch or --device cpu, and look for its driver in the system's log"
    )]
    Lost {
        /// The node, or the first and the last one of what was sent to the device together; else what was being done.
        at: String,
        /// What the driver says.
        reason: String,
    },
    /// The device refuses what it was given: wrong for its driver, or for WebGPU.
    #[error("the GPU refuses {at}: {reason}; update its driver, or use --device cpu")]
    Validation {
        /// As in [`ExecError::Lost`].
        at: String,
        /// What it says.
        reason: String,
    },
    /// What was waited for did not come.
    #[error(
        "{at} did not end within {limit:?}: the GPU hangs, or is too slow for it; use a smaller --batch, or --device cpu"
    )]
    TimedOut {
        /// As in [`ExecError::Lost`].
        at: String,
        /// How long was waited.
        limit: Duration,
    },
    /// A program that was released, or dropped when variables were loaded, or that belongs to another executor.
    #[error("a program is used that was released, or dropped by loading variables: compile its graph again")]
    Stale,
    /// Anything else of the adapter, the driver or a shader.
    #[error("the GPU failed: {0}")]
    Device(String),
    /// No adapter that was asked for.
    #[error("{0}")]
    NoAdapter(String),
}

impl ExecError {
    /// Whether it came while the device worked, and not from what was asked of it: the same again may go well.
    #[must_use]
    pub fn is_device_fault(&self) -> bool {
        match self {
            Self::OutOfMemory(_)
            | Self::Lost { .. }
            | Self::Validation { .. }
            | Self::TimedOut { .. }
            | Self::Device(_) => true,
            Self::Input { .. }
            | Self::NotKept(_)
            | Self::NotLoaded(_)
            | Self::TooLarge { .. }
            | Self::Stale
            | Self::NoAdapter(_) => false,
        }
    }
}

/// Whether the system gives the host so many bytes. Asking for more than that in the usual way would end the process.
pub(crate) fn host_has_room(bytes: usize) -> bool {
    // Asked for and given back: large zeros are made of pages that the system hands out as such, which filling would touch.
    let mut probe = Vec::<u8>::new();
    let given = probe.try_reserve_exact(bytes).is_ok();
    // Without it the compiler may take the memory for granted.
    std::hint::black_box(&probe);
    given
}

/// That an executor with so many variables holds those of a graph: it does not where loading them failed.
pub(crate) fn check_vars(graph: &Graph, held: usize) -> Result<(), ExecError> {
    let missing = |id: &NodeId| match &graph.node(*id).source {
        Source::Input => false,
        Source::Var(view) => view.var.index() >= held,
        Source::Op { op, .. } => op.updates().iter().any(|update| update.var.index() >= held),
    };
    match graph.ids().find(missing) {
        Some(id) => Err(ExecError::NotLoaded(graph.describe(id))),
        None => Ok(()),
    }
}

/// Holds persistent variables and replays graphs. Whatever is asked of a program that is no more is [`ExecError::Stale`].
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
    ///
    /// # Errors
    /// [`ExecError::Stale`].
    fn running(&self, program: Program) -> Result<&Arc<Graph>, ExecError>;

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
