//! How far a long command has come, on stderr and only where a person watches.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Context;
use crate::data::{ProgressFn, Stage};

/// A bar of `total` steps; it shows nothing where stderr is no terminal, with `--quiet`, and after it is dropped.
pub(super) fn bar(cx: &Context, total: u64) -> ProgressBar {
    let target = if cx.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Shows how far reading a data set has come.
pub(super) fn loading(cx: &Context) -> ProgressFn {
    let bar = bar(cx, 0);
    Arc::new(move |p| {
        let what = match p.stage {
            Stage::Reading => "reading",
            Stage::Decoding => "decoding",
            Stage::Drawing => "drawing",
        };
        bar.set_length(p.total as u64);
        bar.set_position(p.done as u64);
        bar.set_message(format!("{what} {}", p.split));
        if p.done == p.total {
            bar.finish_and_clear();
        }
    })
}
