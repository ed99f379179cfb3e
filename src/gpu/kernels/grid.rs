//! What all lowerings share: how many workgroups, and constants from sizes.

use crate::gpu::lower::Const;

/// Workgroups `[x, y, 1]` for `threads` threads in groups of `size`, and the constant `ROW`: the threads in one row of
/// workgroups, by which a kernel finds its number, `id.y * ROW + id.x`. `None` for no threads, or more than a grid holds.
#[must_use]
pub fn grid(threads: usize, size: usize) -> Option<([u32; 3], usize)> {
    let groups = threads.div_ceil(size);
    let x = groups.min(65_535);
    let y = groups.div_ceil(x.max(1));
    (groups > 0 && y <= 65_535 && threads < (1 << 31)).then(|| ([x as u32, y as u32, 1], x * size))
}

/// A size as a constant.
#[must_use]
pub fn u(v: usize) -> Const {
    Const::U(v as u32)
}

/// A size that is set when the dispatch is encoded.
#[must_use]
pub fn late(v: usize) -> Const {
    Const::Late(v as u32)
}

/// A size that only the running kernel reads.
#[must_use]
pub fn loose(v: usize) -> Const {
    Const::Loose(v as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_workgroups_stay_within_the_limit_and_hold_every_thread() {
        for threads in [1, 7, 64, 65_535 * 8, 65_535 * 8 + 1, 300_000_000] {
            for size in [8, 64] {
                let ([x, y, _], row) = grid(threads, size).unwrap();
                assert!(x <= 65_535 && y <= 65_535);
                assert_eq!(row, x as usize * size);
                assert!(row * y as usize >= threads && row * (y as usize - 1) < threads);
            }
        }
        assert_eq!(grid(0, 64), None);
    }
}
