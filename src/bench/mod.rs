//! Measuring: kernels one by one, and whole training steps.

pub mod kernels;
pub mod measure;
pub mod step;
pub mod tune;
