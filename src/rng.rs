//! Counter-based randomness: a hash of `(seed, step, stream, element)`.
//!
//! Nothing is carried from one draw to the next, so the same four numbers give the same draw on every
//! thread, on every device and after every restart. `shaders/lib/rng.wgsl` computes the very same bits.
//!
//! The hash is PCG4D (Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020): integer
//! multiplications, additions and shifts only, which WGSL and Rust define alike.

/// PCG4D: mixes four words into four words.
#[inline(always)]
#[must_use]
pub fn pcg4d(v: [u32; 4]) -> [u32; 4] {
    let mut v = v.map(|x| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    for round in 0..2 {
        v[0] = v[0].wrapping_add(v[1].wrapping_mul(v[3]));
        v[1] = v[1].wrapping_add(v[2].wrapping_mul(v[0]));
        v[2] = v[2].wrapping_add(v[0].wrapping_mul(v[1]));
        v[3] = v[3].wrapping_add(v[1].wrapping_mul(v[2]));
        if round == 0 {
            v = v.map(|x| x ^ (x >> 16));
        }
    }
    v
}

/// One 32-bit draw for `element` of `stream` at `step`.
#[inline(always)]
#[must_use]
pub fn bits(seed: u32, step: u32, stream: u32, element: u32) -> u32 {
    pcg4d([element, stream, step, seed])[0]
}

/// Maps 32 random bits to `[0, 1)` with 24 bits, exact in `f32`.
#[inline]
#[must_use]
pub fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Maps 32 random bits to `0..n` without modulo bias that matters (`n` far below 2^32); `0` for `n == 0`.
#[inline]
#[must_use]
pub fn below(bits: u32, n: u32) -> u32 {
    ((u64::from(bits) * u64::from(n)) >> 32) as u32
}

/// What a stream of draws is for; each purpose has its own number so that no two share their draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial weights.
    Init = 0x1000,
    /// The order of the training images.
    Shuffle = 0x2000,
    /// The split of patients into training and validation.
    Split = 0x3000,
    /// The phantom images.
    Phantom = 0x4000,
    /// Bootstrap resampling.
    Bootstrap = 0x5000,
    /// Random inputs of checks and benchmarks.
    Sample = 0x6000,
    /// The order in which a sampler repeats the images of a class; the class is added.
    Balance = 0x8000,
    /// The draws of a random search.
    Search = 0x9000,
    /// Dropout masks; the layer's number is added.
    Dropout = 0x0001_0000,
    /// Augmentation of training images; the number of the change is added.
    Augment = 0x0010_0000,
}

/// A sequence of draws for host-side work: draw number `i` is `bits(seed, step, stream, i)`.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u32,
    step: u32,
    stream: u32,
    next: u32,
}

impl Rng {
    /// A sequence that depends on nothing but these three numbers.
    #[must_use]
    pub fn new(seed: u32, step: u32, stream: u32) -> Self {
        Self { seed, step, stream, next: 0 }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        let r = bits(self.seed, self.step, self.stream, self.next);
        self.next = self.next.wrapping_add(1);
        r
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f32 {
        unit(self.next_u32())
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..n` without modulo bias that matters (`n` far below 2^32); `0` for `n == 0`.
    pub fn below(&mut self, n: u32) -> u32 {
        below(self.next_u32(), n)
    }

    /// Standard normal, by Box and Muller's transform.
    pub fn normal(&mut self) -> f32 {
        let u = 1.0 - f64::from(self.uniform());
        let v = f64::from(self.uniform());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u32 + 1) as usize;
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_independent_of_order() {
        let n = 100_000;
        let mut rng = Rng::new(7, 0, Stream::Sample as u32);
        let draws: Vec<f32> = (0..n).map(|_| rng.uniform()).collect();
        let mean = draws.iter().sum::<f32>() / n as f32;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        assert!(draws.iter().all(|&u| (0.0..1.0).contains(&u)));
        assert_eq!(draws[1234], unit(bits(7, 0, Stream::Sample as u32, 1234)));
    }

    #[test]
    fn normal_has_unit_variance() {
        let n = 100_000;
        let mut rng = Rng::new(3, 1, Stream::Init as u32);
        let draws: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f32>() / n as f32;
        let var = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n as f32;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.02, "{mean} {var}");
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut v: Vec<u32> = (0..1000).collect();
        Rng::new(1, 2, 3).shuffle(&mut v);
        assert_ne!(v, (0..1000).collect::<Vec<_>>());
        v.sort_unstable();
        assert_eq!(v, (0..1000).collect::<Vec<_>>());
    }
}
