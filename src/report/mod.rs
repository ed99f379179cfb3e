//! What a person reads at the end: tables, pictures and one self-contained HTML page.
//!
//! [`table`] holds rows once and shows them as plain text, Markdown or HTML. [`plot`] draws SVG. [`html`] puts blocks
//! on a page. [`run_report`] and [`study_report`] fill such pages from the plain structs of [`data`], which know
//! nothing about training. [`explain`] is the page about one image. [`tensorboard`] writes the curves where TensorBoard finds them.

mod compare;
pub mod comparison;
pub mod data;
mod dataset;
pub mod explain;
mod folds;
pub mod html;
pub mod image;
mod parts;
pub mod plot;
mod run;
pub mod search;
pub mod sheet;
mod study;
pub mod table;
pub mod tensorboard;
mod trust;

pub use compare::{compare_report, error_table, group_table, pair_table, run_table};
pub use folds::{FoldRow, FoldStudy, FoldSummary, fold_table, folds_report};
pub use run::{estimate_table, run_report, split_table};
pub use study::{published_depth_figures, seed_table, study_report, study_table};
pub use trust::threshold_table;

use crate::fsio::FsError;

/// A report that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The page could not be put together.
    #[error("cannot render the report: {0}; this is a fault of the program, please report it")]
    Template(#[from] minijinja::Error),
    /// A sample image whose size and pixels do not fit.
    #[error(
        "sample image {name}: {width} x {height} x {channels} needs another number of bytes than the {bytes} given; \
         pass grey (1) or RGB (3) pixels, row by row, at most {max} a side"
    )]
    Image {
        /// The image's name.
        name: String,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Values a pixel.
        channels: u32,
        /// How many values there are.
        bytes: usize,
        /// The longest side allowed.
        max: u32,
    },
    /// The PNG of a sample image could not be encoded.
    #[error("sample image {name}: cannot encode it as PNG: {reason}; leave it out of the report")]
    Png {
        /// The image's name.
        name: String,
        /// What the encoder said.
        reason: String,
    },
    /// A contact sheet that cannot be made.
    #[error("contact sheet: {problem}")]
    Sheet {
        /// What is wrong.
        problem: String,
    },
    /// The data of an explain page could not be written.
    #[error("cannot write the page's data: {0}; this is a fault of the program, please report it")]
    Json(#[from] serde_json::Error),
    /// The file could not be written.
    #[error(transparent)]
    Fs(#[from] FsError),
}
