//! Radiograd: a from-scratch GPU tensor engine whose kernels are hand-written WGSL.

pub mod autodiff;
pub mod check;
pub mod cpu;
pub mod exec;
pub mod fsio;
pub mod gpu;
pub mod graph;
pub mod ops;
pub mod real;
pub mod rng;
pub mod shape;
pub mod store;
pub mod tensor;
