//! Ctrl-C, and the signals by which schedulers end a process: what runs is brought to a clean end first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Context, Failure};

/// The exit status of a command that was interrupted.
pub(super) const STATUS: u8 = 130;

/// A flag that the first Ctrl-C raises; the second one ends the program at once. `what` says what the first one waits for.
///
/// # Errors
/// The system takes no handler.
pub(super) fn flag(cx: &Context, what: &'static str) -> Result<Arc<AtomicBool>, Failure> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::clone(FLAG.get_or_init(Arc::default));
    let (raised, cx) = (Arc::clone(&flag), cx.clone());
    let set = ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(STATUS));
        }
        cx.note(format!("stopping {what}; once more stops at once"));
    });
    set.map_err(|e| Failure::Message(format!("no handler for Ctrl-C could be set: {e}")))?;
    Ok(flag)
}
