//! Training: the recorded step, the loop around it, checkpoints, run folders, previews of augmentation, and the depth study.

pub mod checkpoint;
pub mod config;
mod error;
pub mod fit;
pub mod infer;
pub mod preview;
pub mod profile;
pub mod run;
pub mod step;
pub mod study;

pub use crate::ops::augment::Augment;
pub use config::{ClassWeights, TrainConfig};
pub use error::TrainError;
pub use fit::{Event, Fit, Outcome, Start};
pub use profile::Profile;
