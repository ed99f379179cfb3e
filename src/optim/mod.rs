//! Optimizers and learning-rate schedules: their settings, their checks, and the readable update rules.
//!
//! The updates here are the reference, element by element in `f32` or `f64`; the GPU kernels are checked against them.

pub mod kind;
pub mod schedule;
pub mod scheduler;
mod update;

pub use kind::{OptimError, OptimizerKind};
pub use schedule::{Schedule, ScheduleError};
pub use scheduler::{Scheduler, SchedulerState};
pub use update::update;
