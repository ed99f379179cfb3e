//! What a device can do at best, measured in the same run as the kernels, and the floor that follows for each of them.
//!
//! `floor = max(flops / peak, bytes / bandwidth)`: no kernel that computes its result by the counted operations, from inputs
//! that lie in memory, can be faster. (A kernel may need fewer operations, as Winograd's does: then it may pass below.)

use std::time::Duration;

use rayon::prelude::*;
use serde::Serialize;

use super::cases::{OPS, matmul};
use super::kernels::{KernelResult, OnCpu, on_gpu};
use super::measure::{Budget, repeat, wall};
use super::sets::last_level_cache;
use crate::check::CheckError;
use crate::gpu::Gpu;
use crate::gpu::micro::{Best, Way, memory_rates, peak_fma};

/// The least time of a kernel on the device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// Seconds.
    pub seconds: f64,
    /// What sets it: `compute` or `memory`.
    pub bound: &'static str,
    /// The median over it: 1 is a kernel that cannot be faster.
    pub over: f64,
}

/// What the device can do at best.
#[derive(Clone, Debug, Serialize)]
pub struct Peaks {
    /// Multiply-adds on registers, two operations each, in operations a second. On the CPU: the matrix products.
    pub compute: Best,
    /// A copy, in bytes a second, read and written both counted.
    pub copy: Best,
    /// Reading alone, in bytes a second.
    pub read: Best,
    /// Bytes of the buffer that was copied.
    pub buffer_bytes: u64,
    /// The best matrix product that was seen in the run, in operations a second.
    pub product: Way,
    /// The kernel that moved the most bytes a second, where it passed the copy and the reading.
    pub stream: Option<Way>,
}

impl Peaks {
    /// Measures an adapter: WGSL pages of their own for multiply-adds and for copies, in several ways each.
    ///
    /// # Errors
    /// The device failed.
    pub fn of_gpu(gpu: &Gpu, seed: u32) -> Result<Self, CheckError> {
        let compute = peak_fma(gpu)?;
        let memory = memory_rates(gpu)?;
        let mut peaks = Self {
            compute,
            copy: memory.copy,
            read: memory.read,
            buffer_bytes: memory.buffer_bytes,
            product: Way { what: String::new(), rate: 0.0 },
            stream: None,
        };
        peaks.see(&on_gpu(&square()?, gpu, BUDGET, false, seed)?);
        Ok(peaks)
    }

    /// Measures the CPU executor: matrix products, and copies shared among all threads.
    ///
    /// # Errors
    /// A product cannot be recorded.
    pub fn of_cpu(seed: u32) -> Result<Self, CheckError> {
        let mut tried = Vec::new();
        for size in [512, 1024, 2048] {
            let case = matmul([size; 3])?.remove(0);
            let mut bench = OnCpu::new(&case, seed)?;
            let times = repeat(BUDGET, || bench.run())?;
            tried.push(Way { what: case.name(), rate: bench.sets().flops as f64 / times.min });
        }
        let bytes = (8 * last_level_cache()).clamp(128 << 20, 512 << 20) as usize;
        let (from, mut to) = (vec![1.0f32; bytes / 4], vec![2.0f32; bytes / 4]);
        let (mut copy, mut read) = (Vec::new(), Vec::new());
        for piece in [1 << 14, 1 << 18, from.len() / rayon::current_num_threads().max(1)] {
            let what =
                |verb| format!("{verb}, pieces of {} KiB on {} threads", piece >> 8, rayon::current_num_threads());
            let rate = |bytes: usize, once: &mut dyn FnMut()| {
                let times = (0..5).map(|_| {
                    let seconds: Result<f64, std::convert::Infallible> = wall(|| {
                        once();
                        Ok(())
                    });
                    seconds.unwrap_or_else(|never| match never {})
                });
                bytes as f64 / times.fold(f64::INFINITY, f64::min)
            };
            let copied = rate(2 * bytes, &mut || {
                to.par_chunks_mut(piece).zip(from.par_chunks(piece)).for_each(|(to, from)| to.copy_from_slice(from));
            });
            copy.push(Way { what: what("copy"), rate: copied });
            let mut sum = 0.0;
            let summed = rate(bytes, &mut || {
                sum += from.par_chunks(piece).map(sum_of).sum::<f32>();
            });
            // Used, so that no compiler leaves the reading out.
            if sum > 0.0 {
                read.push(Way { what: what("read"), rate: summed });
            }
        }
        let missing = || crate::exec::ExecError::Device("nothing could be measured".to_owned());
        let compute = Best::of(tried).ok_or_else(missing)?;
        let product = compute.best.clone();
        let copy = Best::of(copy).ok_or_else(missing)?;
        let read = Best::of(read).ok_or_else(missing)?;
        Ok(Self { compute, copy, read, buffer_bytes: bytes as u64, product, stream: None })
    }

    /// Operations a second that no kernel passes.
    #[must_use]
    pub fn flops_per_second(&self) -> f64 {
        self.compute.best.rate.max(self.product.rate)
    }

    /// Bytes a second that no kernel passes: a kernel that mostly reads may be faster than a copy, on a processor that
    /// reads a line before it writes it. A kernel that was seen to be faster than both takes their place.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        let measured = self.copy.best.rate.max(self.read.best.rate);
        self.stream.as_ref().map_or(measured, |s| s.rate.max(measured))
    }

    /// Notes the best matrix product among some results, and a kernel that moves more bytes than the measured bandwidth: the
    /// device is able to do what a kernel did, whatever the microbenchmarks say.
    pub fn see(&mut self, results: &[KernelResult]) {
        for r in results.iter().filter(|r| r.correct && r.footprint_bytes >= LARGE) {
            if r.bytes_per_second > self.bytes_per_second() {
                let what = format!("{} {} {} ({})", r.op, r.direction.words(), r.shapes, r.kernel);
                self.stream = Some(Way { what, rate: r.bytes_per_second });
            }
        }
        for r in results.iter().filter(|r| r.correct && [OPS[1], OPS[2]].contains(&r.op)) {
            if r.flops_per_second > self.product.rate {
                let what = format!("{} {} {} ({})", r.op, r.direction.words(), r.shapes, r.kernel);
                self.product = Way { what, rate: r.flops_per_second };
            }
        }
    }

    /// The floor of so many operations and bytes, and how far above it `seconds` are.
    #[must_use]
    pub fn floor(&self, flops: u64, bytes: u64, seconds: f64) -> Floor {
        let compute = flops as f64 / self.flops_per_second();
        let memory = bytes as f64 / self.bytes_per_second();
        let (floor, bound) = if compute >= memory { (compute, "compute") } else { (memory, "memory") };
        Floor { seconds: floor, bound, over: seconds / floor }
    }

    /// Gives each result its floor.
    pub fn judge(&mut self, results: &mut [KernelResult]) {
        self.see(results);
        for r in results {
            r.floor = Some(self.floor(r.flops, r.bytes, r.times.median));
        }
    }
}

/// Inputs that take turns in less memory than this may lie in a cache, and say nothing about memory.
const LARGE: u64 = 128 << 20;

/// Enough for a rate that repeats.
const BUDGET: Budget = Budget { runs: 10, time: Duration::from_secs(1) };

/// The product that every run measures.
fn square() -> Result<super::cases::Case, CheckError> {
    Ok(matmul([1024; 3])?.remove(0))
}

/// A sum that a compiler turns into vector instructions.
fn sum_of(values: &[f32]) -> f32 {
    let mut sums = [0.0f32; 32];
    for chunk in values.chunks_exact(32) {
        for (s, v) in sums.iter_mut().zip(chunk) {
            *s += v;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(rate: f64) -> Way {
        Way { what: String::new(), rate }
    }

    fn peaks() -> Peaks {
        let best = |rate| Best::of(vec![way(0.5 * rate), way(rate)]).unwrap();
        Peaks {
            compute: best(100e9),
            copy: best(10e9),
            read: best(12e9),
            buffer_bytes: 1,
            product: way(40e9),
            stream: None,
        }
    }

    #[test]
    fn the_floor_is_the_larger_bound() {
        let p = peaks();
        let f = p.floor(200_000_000_000, 12_000_000_000, 3.0);
        assert_eq!((f.seconds, f.bound, f.over), (2.0, "compute", 1.5));
        let f = p.floor(1, 24_000_000_000, 4.0);
        assert_eq!((f.seconds, f.bound, f.over), (2.0, "memory", 2.0));
    }

    #[test]
    fn a_product_faster_than_the_peak_becomes_the_peak() {
        let mut p = peaks();
        p.product = way(120e9);
        assert_eq!(p.flops_per_second(), 120e9);
    }
}
