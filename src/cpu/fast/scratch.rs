//! Scratch memory that is kept between calls.
//!
//! Each thread keeps the buffers it has given back, so that a training step allocates nothing once it has run.
//! A buffer belongs to whoever took it: a task that rayon runs in the middle of another one takes a different buffer.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// More buffers than this are not kept by a thread; the smallest goes first.
const KEPT: usize = 8;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A borrowed buffer; it goes back to the thread that drops it.
pub(super) struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// A buffer of `len` values, whatever they are.
    pub(super) fn take(len: usize) -> Self {
        let mut buffer = FREE.with_borrow_mut(|free| take_best(free, len)).unwrap_or_default();
        if buffer.len() < len {
            // Dropping first keeps the peak at the new size and spares the copy of stale values.
            drop(std::mem::take(&mut buffer));
            buffer = vec![0.0; len];
        }
        Self { buffer, len }
    }

    /// A buffer of `len` zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        let mut scratch = Self::take(len);
        scratch.fill(0.0);
        scratch
    }
}

/// The smallest free buffer that is large enough, else the largest.
fn take_best(free: &mut Vec<Vec<f32>>, len: usize) -> Option<Vec<f32>> {
    let enough = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
    let best = enough.or_else(|| (0..free.len()).max_by_key(|&i| free[i].len()))?;
    Some(free.swap_remove(best))
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that is shutting down has no list any more; its buffers are simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            free.push(buffer);
            if free.len() > KEPT
                && let Some(smallest) = (0..free.len()).min_by_key(|&i| free[i].len())
            {
                free.swap_remove(smallest);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_two_are_never_the_same() {
        let address = Scratch::take(1000).as_ptr();
        let mut first = Scratch::take(500);
        assert_eq!(first.as_ptr(), address);
        let mut second = Scratch::zeroed(500);
        first.fill(1.0);
        second.fill(2.0);
        assert!(first.iter().all(|&v| v == 1.0) && first.len() == 500);
    }
}
