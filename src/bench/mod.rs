//! Measuring: kernels one by one beside what the device can do at best, a person's own kernel, and whole training steps.

pub mod cases;
pub mod custom;
pub mod kernels;
pub mod measure;
pub mod peaks;
pub mod sets;
pub mod shapes;
pub mod step;
pub mod tune;
