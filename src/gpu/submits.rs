//! How much is sent to the device at once. A driver's watchdog resets a device that works for seconds on one submit, and a desktop that
//! shares it stands still as long. How long a submit takes is not known before it has run, so the first ones are closed by a count of
//! operations, and those that turn out to be too long are divided. Results do not depend on it: the dispatches are the same, in the
//! same order.

use std::ops::Range;
use std::time::Duration;

use super::lower::AdapterKind;

/// A submit that takes longer is divided.
pub(super) const LONGEST: Duration = Duration::from_millis(500);

/// Floating-point operations after which a submit is closed, until it is known how long it takes. Kernels that wait for memory take longer
/// than their operations tell.
fn most_operations(kind: AdapterKind) -> u64 {
    match kind {
        AdapterKind::Discrete => 40_000_000_000,
        AdapterKind::Integrated => 20_000_000_000,
        AdapterKind::Software => 8_000_000_000,
    }
}

/// The dispatches of each submit at first; `work` are the operations of each dispatch.
pub(super) fn first(work: &[u64], kind: AdapterKind) -> Vec<Range<usize>> {
    let most = most_operations(kind);
    let (mut all, mut start, mut sum) = (Vec::new(), 0, 0);
    for (i, operations) in work.iter().enumerate() {
        sum += operations;
        if sum >= most || i + 1 == work.len() {
            all.push(start..i + 1);
            (start, sum) = (i + 1, 0);
        }
    }
    all
}

/// Parts that something is divided into at once, at most: one bad measurement makes no thousands of submits.
const MOST_PARTS: f64 = 64.0;

/// Into how many parts goes what takes so long; each has some room below `limit`.
pub(super) fn parts(time: Duration, limit: Duration) -> usize {
    (1.5 * time.as_secs_f64() / limit.as_secs_f64()).ceil().clamp(2.0, MOST_PARTS) as usize
}

/// Divides a submit into as many, or one a dispatch where it has fewer.
pub(super) fn divide(submits: &mut Vec<Range<usize>>, at: usize, parts: usize) {
    let whole = submits[at].clone();
    let parts = parts.min(whole.len());
    let cut = |i: usize| whole.start + i * whole.len() / parts;
    submits.splice(at..=at, (0..parts).map(|i| cut(i)..cut(i + 1)));
}

/// A part of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The number of its first workgroup on each axis.
    pub(super) first: [u32; 3],
    /// How many it has.
    pub(super) groups: [u32; 3],
}

/// A grid of workgroups in as many parts, or fewer where it has no axis so long: slices of its longest one.
pub(super) fn cut(groups: [u32; 3], parts: usize) -> Vec<Part> {
    // Of equally long ones the last, whose slices lie together where the grid is folded.
    let axis = (0..3).max_by_key(|&axis| groups[axis]).unwrap_or(0);
    let length = u64::from(groups[axis]);
    let parts = (parts as u64).min(length);
    let at = |i: u64| (i * length / parts) as u32;
    let part = |i| {
        let mut part = Part { first: [0; 3], groups };
        (part.first[axis], part.groups[axis]) = (at(i), at(i + 1) - at(i));
        part
    };
    (0..parts).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submits_cover_all_dispatches_in_order_however_they_are_divided() {
        let giga = 1_000_000_000;
        let work = [giga, 30 * giga, 10 * giga, 0, 0, 90 * giga, 0];
        assert_eq!(first(&work, AdapterKind::Discrete), [0..3, 3..6, 6..7]);
        assert_eq!(first(&work, AdapterKind::Software), [0..2, 2..3, 3..6, 6..7]);
        assert!(first(&[], AdapterKind::Software).is_empty());
        let mut submits = first(&work, AdapterKind::Discrete);
        for (at, parts) in [(1, 2), (0, 100), (5, 3)] {
            divide(&mut submits, at, parts);
            let all: Vec<usize> = submits.iter().cloned().flatten().collect();
            assert_eq!(all, (0..7).collect::<Vec<_>>(), "{submits:?}");
        }
        assert!(submits.iter().filter(|s| s.len() == 1).count() >= 5);
    }

    #[test]
    fn parts_cover_a_grid_once() {
        assert_eq!([1, 8, 1000].map(|n| parts(n * LONGEST, LONGEST)), [2, 12, 64]);
        for (groups, wanted, got) in [([7, 1, 1], 3, 3), ([2, 3, 5], 9, 5), ([1, 1, 1], 4, 1), ([65_535, 9, 1], 2, 2)] {
            let all = cut(groups, wanted);
            assert_eq!(all.len(), got);
            let count: u64 = all.iter().map(|p| p.groups.iter().map(|&g| u64::from(g)).product::<u64>()).sum();
            assert_eq!(count, groups.iter().map(|&g| u64::from(g)).product::<u64>());
            let axis = (0..3).find(|&a| all[got - 1].first[a] > 0).unwrap_or(0);
            assert!(all.windows(2).all(|w| w[0].first[axis] + w[0].groups[axis] == w[1].first[axis]));
            assert!(all.iter().all(|p| p.groups.iter().all(|&g| g > 0)));
        }
    }
}
