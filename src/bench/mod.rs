//! Measuring: kernels one by one beside what the device can do at best, a person's own kernel, whole training steps, and the
//! way of an image onto the device.

pub mod cases;
pub mod custom;
pub mod data;
pub mod kernels;
pub mod measure;
pub mod peaks;
pub mod sets;
pub mod shapes;
pub mod step;
pub mod tune;
