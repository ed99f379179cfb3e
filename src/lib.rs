//! Radiograd: a from-scratch GPU tensor engine whose kernels are hand-written WGSL.

pub mod autodiff;
pub mod bench;
pub mod check;
pub mod cli;
pub mod cpu;
pub mod data;
pub mod exec;
pub mod fsio;
pub mod gpu;
pub mod graph;
pub mod metrics;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod real;
pub mod report;
pub mod rng;
pub mod shape;
pub mod stats;
pub mod store;
pub mod tensor;
pub mod train;
pub mod weights;
