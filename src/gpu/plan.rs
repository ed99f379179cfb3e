//! The memory plan: which tensors may share memory, from when each is born and when it is last read.

/// A tensor to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Size in bytes.
    pub bytes: u64,
    /// The step that writes it.
    pub birth: usize,
    /// The last step that reads it; it must keep its content through this step.
    pub death: usize,
}

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which buffer.
    pub pool: usize,
    /// Offset in bytes.
    pub offset: u64,
}

/// A finished plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// A place for each request.
    pub places: Vec<Place>,
    /// Sizes of the buffers in bytes.
    pub pools: Vec<u64>,
}

/// Alignment of every place in bytes: the strictest that WebGPU asks of a binding.
pub const ALIGN: u64 = 256;

impl Plan {
    /// Places the largest first, each at the lowest offset where nothing that lives at the same time lies; opens another
    /// buffer where one would grow past `capacity`.
    ///
    /// With `guard` bytes on both sides of each tensor, no memory is shared: for tests.
    #[must_use]
    pub fn new(requests: &[Request], capacity: u64, guard: Option<u64>) -> Self {
        let margin = guard.unwrap_or(0);
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].bytes), requests[i].birth, i));
        let mut places = vec![Place { pool: 0, offset: 0 }; requests.len()];
        let mut pools: Vec<u64> = Vec::new();
        let mut placed: Vec<usize> = Vec::new();
        for i in order {
            let request = &requests[i];
            let size = (request.bytes + 2 * margin).next_multiple_of(ALIGN);
            let mut pool = 0;
            let place = loop {
                let mut taken: Vec<(u64, u64)> = placed
                    .iter()
                    .filter(|&&j| places[j].pool == pool)
                    .filter(|&&j| {
                        guard.is_some() || (requests[j].birth <= request.death && request.birth <= requests[j].death)
                    })
                    .map(|&j| {
                        let start = places[j].offset - margin;
                        (start, start + (requests[j].bytes + 2 * margin).next_multiple_of(ALIGN))
                    })
                    .collect();
                taken.sort_unstable();
                let mut offset = 0;
                for (start, end) in taken {
                    if offset + size <= start {
                        break;
                    }
                    offset = offset.max(end);
                }
                let is_new = pool == pools.len();
                if offset + size <= capacity || is_new {
                    break Place { pool, offset: offset + margin };
                }
                pool += 1;
            };
            if place.pool == pools.len() {
                pools.push(0);
            }
            pools[place.pool] = pools[place.pool].max(place.offset - margin + size);
            places[i] = place;
            placed.push(i);
        }
        Self { places, pools }
    }

    /// All memory, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.pools.iter().sum()
    }
}

/// The least memory that any plan needs: the largest sum of tensors alive in one step.
#[must_use]
pub fn lower_bound(requests: &[Request]) -> u64 {
    let mut events: Vec<(usize, i64)> = Vec::new();
    for r in requests {
        events.push((r.birth, r.bytes as i64));
        events.push((r.death.saturating_add(1), -(r.bytes as i64)));
    }
    // Deaths before births of the same step: a tensor that died in the step before is gone.
    events.sort_unstable();
    let (mut now, mut peak) = (0, 0);
    for (_, change) in events {
        now += change;
        peak = peak.max(now);
    }
    peak as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn random(seed: u32) -> Vec<Request> {
        let mut rng = Rng::new(seed, 0, 1);
        (0..60)
            .map(|_| {
                let birth = rng.below(40) as usize;
                let bytes = u64::from(rng.below(5000)) * 4 + 4;
                Request { bytes, birth, death: birth + rng.below(12) as usize }
            })
            .collect()
    }

    #[test]
    fn tensors_alive_at_the_same_time_never_overlap() {
        for seed in 0..200 {
            let requests = random(seed);
            let plan = Plan::new(&requests, 40_000, None);
            for i in 0..requests.len() {
                assert_eq!(plan.places[i].offset % ALIGN, 0);
                assert!(plan.places[i].offset + requests[i].bytes <= plan.pools[plan.places[i].pool]);
                for j in 0..i {
                    let (a, b) = (&requests[i], &requests[j]);
                    let (p, q) = (plan.places[i], plan.places[j]);
                    let together = a.birth <= b.death && b.birth <= a.death && p.pool == q.pool;
                    let apart = p.offset + a.bytes <= q.offset || q.offset + b.bytes <= p.offset;
                    assert!(!together || apart, "seed {seed}: {i} and {j} overlap");
                }
            }
        }
    }

    #[test]
    fn memory_is_shared_close_to_the_lower_bound() {
        let requests: Vec<Request> = (0..100).map(|i| Request { bytes: 4096, birth: i, death: i + 1 }).collect();
        assert_eq!(lower_bound(&requests), 2 * 4096);
        assert_eq!(Plan::new(&requests, u64::MAX, None).total(), 2 * 4096);
    }

    #[test]
    fn guards_keep_tensors_apart() {
        let requests = random(3);
        let plan = Plan::new(&requests, u64::MAX, Some(256));
        let mut spans: Vec<(u64, u64)> =
            requests.iter().zip(&plan.places).map(|(r, p)| (p.offset, p.offset + r.bytes)).collect();
        spans.sort_unstable();
        assert!(spans[0].0 >= 256);
        assert!(spans.windows(2).all(|w| w[1].0 >= w[0].1 + 256));
    }
}
