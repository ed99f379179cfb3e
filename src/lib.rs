//! Radiograd: a from-scratch GPU tensor engine whose kernels are hand-written WGSL, made to train small CNNs on chest
//! X-rays, to check every gradient, and to let a person see how a convolution learns.
//!
//! Calling an op records a node in a [`graph::Graph`]; [`graph::Graph::gradients`] appends the derivative as ordinary
//! nodes; an [`exec::Executor`] replays the list: [`gpu::Executor`] on any WebGPU adapter, [`cpu::Executor`] with each op's
//! readable reference, in `f64` as the judge of every gradient and in `f32` with fast kernels where there is no GPU.
//!
//! ```
//! use std::sync::Arc;
//!
//! use radiograd::cpu;
//! use radiograd::exec::Executor;
//! use radiograd::graph::Graph;
//! use radiograd::ops::conv2d::Conv2d;
//! use radiograd::shape::Spec;
//! use radiograd::store::ParamStore;
//! use radiograd::tensor::Tensor;
//!
//! let mut g = Graph::new();
//! let x = g.input("x", Spec::float([1, 1, 3, 3]));
//! let w = g.input("w", Spec::float([1, 1, 3, 3]));
//! let y = g.conv2d(x, w, None, Conv2d::same(3))?;
//! let loss = g.sum(y)?;
//! let dw = g.gradients(loss, None, &[w])?[0].expect("the loss depends on w");
//!
//! let mut device = cpu::Executor::<f32>::fast();
//! device.load(&ParamStore::new())?;
//! let program = device.compile(&Arc::new(g), &[y, dw])?;
//! device.set(program, x, &Tensor::f32([1, 1, 3, 3], (0..9).map(|i| i as f32).collect())?)?;
//! device.set(program, w, &Tensor::f32([1, 1, 3, 3], vec![1.0; 9])?)?;
//! device.run(program)?;
//! // The middle weight meets every pixel once.
//! assert_eq!(device.read(program, dw)?.to_f32()[4], 36.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Software for study, not a medical device.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod autodiff;
#[cfg(feature = "cli")]
pub mod bench;
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cpu;
pub mod data;
pub mod exec;
pub mod explain;
pub mod fsio;
pub mod fuse;
pub mod gpu;
pub mod graph;
#[cfg(feature = "cli")]
pub mod learn;
pub mod metrics;
pub mod nn;
pub mod onnx;
pub mod ops;
pub mod optim;
pub mod profile;
pub mod real;
pub mod recompute;
pub mod report;
pub mod rng;
pub mod shape;
pub mod stats;
pub mod store;
pub mod tensor;
pub mod train;
pub mod weights;
mod zip_directory;
