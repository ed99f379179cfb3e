//! The GPU executor. This is the only folder that names wgpu; ops know no more of it than [`lower`].

mod ahead;
mod bind;
pub mod choice;
mod compile;
pub mod conv;
mod device;
mod encode;
mod executor;
#[cfg(not(target_arch = "wasm32"))]
pub mod foreign;
pub mod kernels;
pub mod lower;
pub mod matmul;
mod memory;
#[cfg(not(target_arch = "wasm32"))]
pub mod micro;
mod pages;
mod pipeline_disk;
mod pipelines;
pub mod plan;
#[cfg(not(target_arch = "wasm32"))]
mod raw;
mod schedule;
mod submits;
mod template;
pub mod tuned;

pub use ahead::{Ahead, Wish, Wishes};
pub use device::{AdapterSummary, Gpu};
#[cfg(not(target_arch = "wasm32"))]
pub use device::{Wanted, list};
pub use executor::{Executor, Options};
#[doc(hidden)]
pub use schedule::{Memory, Region};
pub use schedule::{Schedule, StepMemory, Target};
pub use template::{render, wgsl};
