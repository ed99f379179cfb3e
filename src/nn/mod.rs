//! Networks: how they are written ([`spec`], [`parse`], [`brackets`], [`named`]), what they need ([`plan`]), how they are recorded
//! ([`model`]) and what they cost ([`summary`]).
//!
//! A network text becomes a [`spec::Network`] (what the user wrote), that becomes a [`plan::Plan`] (every shape and
//! every parameter known, nothing allocated), and [`model::Model::forward`] records the plan into a graph.

pub mod brackets;
pub mod error;
pub mod init;
pub mod model;
pub mod named;
pub mod parse;
pub mod plan;
mod scope;
pub mod spec;
pub mod summary;

#[cfg(test)]
mod tests;

pub use error::{LayerError, ModelError};
pub use model::{Forward, Head, Mode, Model};
pub use plan::ParamSpec;
pub use spec::{Layer, Network};
