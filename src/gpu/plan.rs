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

/// Placements that are tried while one is above the lower bound, at most.
const ATTEMPTS: usize = 400;
/// Pairs of requests that may be looked at in all attempts, so that large graphs are planned in a blink too.
const PAIRS: usize = 20_000_000;

impl Plan {
    /// Places one request after another, each at the lowest offset where nothing that lives at the same time lies; opens
    /// another buffer where one would grow past `capacity`.
    ///
    /// Which one comes first decides how much memory is lost between them. The best order is an NP-hard question, so a few are
    /// tried: the largest first, the largest times the longest first, the longest first, by birth, by death. Then what lies on top
    /// of the best placement is moved to the front, again and again, until the lower bound is reached or the attempts are spent.
    ///
    /// With `guard` bytes on both sides of each tensor, no memory is shared: for tests.
    #[must_use]
    pub fn new(requests: &[Request], capacity: u64, guard: Option<u64>) -> Self {
        let life = |r: &Request| (r.death.min(usize::MAX / 2) - r.birth) as u64 + 1;
        let last = requests.iter().map(|r| r.death.min(usize::MAX / 2)).max().unwrap_or(0) as u64;
        // Ascending, so that "first" is the smallest key.
        type Key = (u64, u64);
        let keys: [&dyn Fn(&Request) -> Key; 5] = [
            &|r| (u64::MAX - r.bytes, r.birth as u64),
            &|r| (u64::MAX - r.bytes.saturating_mul(life(r).min(1 << 20)), r.birth as u64),
            &|r| (u64::MAX - life(r), u64::MAX - r.bytes),
            &|r| (r.birth as u64, u64::MAX - r.bytes),
            &|r| (last - r.death.min(usize::MAX / 2) as u64, u64::MAX - r.bytes),
        ];
        let orders = keys.iter().map(|key| {
            let mut order: Vec<usize> = (0..requests.len()).collect();
            order.sort_by_key(|&i| (key(&requests[i]), i));
            order
        });
        let least = lower_bound(requests).next_multiple_of(ALIGN);
        let mut best: Option<(Self, Vec<usize>)> = None;
        let keep_better = |plan: Self, order: &[usize], best: &mut Option<(Self, Vec<usize>)>| {
            if best.as_ref().is_none_or(|(b, _)| plan.total() < b.total()) {
                *best = Some((plan, order.to_vec()));
            }
            guard.is_some() || best.as_ref().is_some_and(|(b, _)| b.total() <= least)
        };
        for order in orders {
            if keep_better(Self::place(requests, &order, capacity, guard), &order, &mut best) {
                break;
            }
        }
        let Some((plan, mut order)) = best.clone() else { return Self::default() };
        if guard.is_some() || plan.total() <= least {
            return plan;
        }
        let attempts = ATTEMPTS.min(PAIRS / (requests.len() * requests.len()).max(1));
        let mut plan = plan;
        for _ in 0..attempts {
            // What ends where a buffer ends made it this large.
            let on_top = |&i: &usize| {
                let place = plan.places[i];
                (place.offset + requests[i].bytes).next_multiple_of(ALIGN) == plan.pools[place.pool]
            };
            let (top, rest): (Vec<usize>, Vec<usize>) = order.iter().partition(|i| on_top(i));
            order = top.into_iter().chain(rest).collect();
            plan = Self::place(requests, &order, capacity, guard);
            if keep_better(plan.clone(), &order, &mut best) {
                break;
            }
        }
        best.map(|(plan, _)| plan).unwrap_or_default()
    }

    /// Places in the order given.
    fn place(requests: &[Request], order: &[usize], capacity: u64, guard: Option<u64>) -> Self {
        let margin = guard.unwrap_or(0);
        let mut places = vec![Place { pool: 0, offset: 0 }; requests.len()];
        let mut pools: Vec<u64> = Vec::new();
        let mut placed: Vec<usize> = Vec::new();
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for &i in order {
            let request = &requests[i];
            let size = (request.bytes + 2 * margin).next_multiple_of(ALIGN);
            let mut pool = 0;
            let place = loop {
                taken.clear();
                taken.extend(
                    placed
                        .iter()
                        .filter(|&&j| places[j].pool == pool)
                        .filter(|&&j| {
                            guard.is_some()
                                || (requests[j].birth <= request.death && request.birth <= requests[j].death)
                        })
                        .map(|&j| {
                            let start = places[j].offset - margin;
                            (start, start + (requests[j].bytes + 2 * margin).next_multiple_of(ALIGN))
                        }),
                );
                taken.sort_unstable();
                let mut offset = 0;
                for &(start, end) in &taken {
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
    fn no_placement_is_larger_than_the_largest_first_and_most_are_close_to_the_bound() {
        let mut ratios = Vec::new();
        for seed in 0..60 {
            let requests = random(seed);
            let mut order: Vec<usize> = (0..requests.len()).collect();
            order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].bytes), requests[i].birth, i));
            let plain = Plan::place(&requests, &order, u64::MAX, None).total();
            let plan = Plan::new(&requests, u64::MAX, None);
            assert!(plan.total() <= plain, "seed {seed}");
            assert_eq!(plan, Plan::new(&requests, u64::MAX, None), "the same requests have the same plan");
            ratios.push(plan.total() as f64 / lower_bound(&requests) as f64);
        }
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!(mean < 1.2, "{mean}");
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
