//! Measuring: kernels one by one, whole training steps, and the way of an image onto the device.

pub mod data;
pub mod kernels;
pub mod measure;
pub mod step;
