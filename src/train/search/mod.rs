//! Searching for good settings: grids, random draws and successive halving over any setting of a training.
//!
//! [`grid`] reads a TOML file, [`candidates`] is what it gives, [`trials`] keeps what was trained in a journal that survives `kill -9`,
//! [`run`] trains what is missing side by side, [`rungs`] says which candidates go on, [`shard`] splits the work over
//! machines, [`ranking`] orders the results and [`finish`] writes them down.
//!
//! A trial is one training with one resolved config. Its id is a hash of that config, so nothing depends on the order in
//! which trials run, and what is in the journal is never trained again.

pub mod candidates;
mod draw;
pub mod effects;
mod error;
pub mod finish;
pub mod folder;
pub mod grid;
pub mod ranking;
pub mod run;
pub mod rungs;
pub mod shard;
pub mod trials;

pub use candidates::{Plan, Trial};
pub use error::SearchError;
pub use grid::{Method, Metric, Spec};
pub use run::{Machine, Options, Told};
pub use shard::Shard;
pub use trials::{Journal, Outcome, Record, Results, Scores};
