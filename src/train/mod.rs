//! Training: the recorded step, the loop around it, weights to begin with, checkpoints, run folders, previews of augmentation, and the depth study.

pub mod batch;
pub mod checkpoint;
pub mod compare;
pub mod config;
pub mod describe;
mod error;
pub mod evaluate;
pub mod features;
pub mod fit;
pub mod folds;
pub mod infer;
pub mod init;
pub mod normalize;
pub mod overrides;
pub mod predictions;
pub mod preview;
pub mod profile;
pub mod run;
pub mod search;
pub mod setting;
mod shared;
pub mod stages;
pub mod step;
pub mod study;
pub mod tta;
pub mod update;

pub use crate::ops::augment::Augment;
pub use config::{ClassWeights, TrainConfig};
pub use error::TrainError;
pub use fit::{Event, Fit, Live, Outcome, Start};
pub use normalize::Normalize;
pub use overrides::Override;
pub use profile::Profile;
pub use setting::SettingError;
pub use shared::Shared;
