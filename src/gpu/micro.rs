//! What an adapter can do at best: multiply-adds on registers, and bytes through memory. Several ways are tried, because
//! which of them is the fastest differs from device to device, and only the best is an honest bound.

use std::time::Duration;

use serde::Serialize;

use super::device::Gpu;
use super::lower::{AdapterKind, Const, Dispatch, fold};
use super::memory::{ReadBack, bytes_of, storage};
use super::pipelines::{Access, Pipelines};
use super::raw::Call;
use crate::exec::ExecError;

/// Longest wait for one microbenchmark.
const WATCHDOG: Duration = Duration::from_secs(60);
/// Timed runs of each way; the fastest counts.
const RUNS: usize = 3;

/// One way that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// In words.
    pub what: String,
    /// Operations or bytes a second.
    pub rate: f64,
}

/// The fastest way, and all that were tried.
#[derive(Clone, Debug, Serialize)]
pub struct Best {
    /// The fastest.
    pub best: Way,
    /// All of them.
    pub tried: Vec<Way>,
}

impl Best {
    /// The fastest of some ways.
    #[must_use]
    pub fn of(tried: Vec<Way>) -> Option<Self> {
        let best = tried.iter().max_by(|a, b| a.rate.total_cmp(&b.rate))?.clone();
        Some(Self { best, tried })
    }
}

/// Some bytes of a buffer.
fn some(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> ReadBack<'_> {
    ReadBack { buffer, offset, bytes, name: "a measured buffer".to_owned(), limit: WATCHDOG }
}

fn nothing(what: &str) -> ExecError {
    ExecError::Device(format!("{what}: nothing could be measured"))
}

/// Multiply-adds of one way to keep a processor busy.
struct Fma {
    item: &'static str,
    accumulators: u32,
    workgroup: u32,
    fused: bool,
}

/// Steps of each accumulator: few enough that sums of them stay exact, and that no invocation turns 65,535 times.
const TURNS: u32 = 4096;
const UNROLL: u32 = 4;

impl Fma {
    fn width(&self) -> u32 {
        if self.item == "f32" { 1 } else { 4 }
    }

    fn what(&self) -> String {
        let step = if self.fused { "fma(s, a, b)" } else { "s * a + b" };
        format!("{} accumulators of {}, workgroups of {}, {step}", self.accumulators, self.item, self.workgroup)
    }

    fn dispatch(&self) -> Dispatch {
        Dispatch {
            shader: "peak_fma.wgsl",
            entry: "forward",
            consts: vec![
                ("WG", Const::U(self.workgroup)),
                ("TURNS", Const::U(TURNS)),
                ("UNROLL", Const::U(UNROLL)),
                ("ACCUMULATORS", Const::U(self.accumulators)),
                ("ITEM", Const::Text(self.item)),
                ("FUSED", Const::B(self.fused)),
            ],
            args: Vec::new(),
            groups: [1; 3],
        }
    }

    /// What invocation `id` must give.
    fn expected(&self, id: u32) -> f32 {
        let steps = f64::from(TURNS * UNROLL);
        let one = |i: u32| f64::from(id % 8) + f64::from(i % 4) + steps;
        (0..self.accumulators).map(|i| one(i) * f64::from(self.width())).sum::<f64>() as f32
    }
}

/// The most multiply-adds a second, counted as two operations each.
///
/// # Errors
/// The device failed, or a result is not what the steps give.
pub fn peak_fma(gpu: &Gpu) -> Result<Best, ExecError> {
    let software = gpu.kind == AdapterKind::Software;
    let mut ways: Vec<Fma> = Vec::new();
    let workgroups: &[u32] = if software { &[8] } else { &[64, 256] };
    for &workgroup in workgroups {
        for fused in [true, false] {
            for (item, accumulators) in
                [("f32", 8), ("f32", 12), ("f32", 16), ("f32", 32), ("vec4<f32>", 4), ("vec4<f32>", 8)]
            {
                ways.push(Fma { item, accumulators, workgroup, fused });
            }
        }
    }
    // Larger sets of registers than these are slower on each device that was tried; one of them is run to show it.
    ways.push(Fma { item: "f32", accumulators: 128, workgroup: workgroups[0], fused: true });
    let most = if software { 16_384u32 } else { 65_535 };
    let longest = u64::from(most) * u64::from(workgroups[workgroups.len() - 1]);
    let factors = storage(gpu, "factors", 8)?;
    gpu.queue.write_buffer(&factors, 0, bytemuck::cast_slice(&[1.0f32, 1.0]));
    let result = storage(gpu, "results", 4 * longest)?;
    // Without run-time checks, as the kernels that are held against it.
    let mut pipelines = Pipelines::new(gpu, false, None);
    let mut tried = Vec::new();
    for way in &ways {
        let what = way.what();
        let compiled = pipelines.one(gpu, &way.dispatch(), &[Access::Read, Access::Write])?;
        let flops = |groups: u32| {
            let each = 2.0 * f64::from(way.width() * way.accumulators) * f64::from(TURNS * UNROLL);
            each * f64::from(groups) * f64::from(way.workgroup)
        };
        let time = |groups: u32| -> Result<f64, ExecError> {
            let slots = [(&factors, 8, false), (&result, 4 * u64::from(groups * way.workgroup), true)];
            Call::new(gpu, &what, &compiled, &slots, [groups, 1, 1])?.run(gpu, &what, WATCHDOG)
        };
        // Enough work that starting it does not count: about 20 ms.
        let mut groups = if software { 64 } else { 1024 };
        time(groups)?;
        for _ in 0..3 {
            let seconds = time(groups)?.max(1e-7);
            let wanted = (f64::from(groups) * 0.02 / seconds).clamp(1.0, f64::from(most)) as u32;
            if wanted <= groups {
                break;
            }
            groups = wanted;
        }
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            best = best.min(time(groups)?);
        }
        let last = groups * way.workgroup - 1;
        let bytes = bytes_of(gpu, some(&result, 4 * u64::from(last), 4))?;
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        if got[0] != way.expected(last) {
            let expected = way.expected(last);
            return Err(ExecError::Device(format!("{what} gave {} instead of {expected}", got[0])));
        }
        if best > 0.0 {
            tried.push(Way { what, rate: flops(groups) / best });
        }
    }
    Best::of(tried).ok_or_else(|| nothing("multiply-adds"))
}

/// Rates of memory, in bytes a second.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// A copy: bytes read and bytes written are both counted.
    pub copy: Best,
    /// Reading alone.
    pub read: Best,
    /// Bytes of the buffer that was copied.
    pub buffer_bytes: u64,
}

/// The most bytes a second through a copy, and through reading alone, of a buffer that no cache holds.
///
/// # Errors
/// The device failed, has no room for two such buffers, or did not copy what it was given.
pub fn memory_rates(gpu: &Gpu) -> Result<Memory, ExecError> {
    let software = gpu.kind == AdapterKind::Software;
    let wanted: u64 = if software { 128 << 20 } else { 256 << 20 };
    // A power of two, so that every split below fits.
    let limit = gpu.max_tensor_bytes().min(wanted);
    let bytes = 1 << (63 - limit.max(1 << 20).leading_zeros());
    let from = storage(gpu, "the source of a copy", bytes)?;
    let to = storage(gpu, "the target of a copy", bytes)?;
    // Memory that was never written is one page of zeros to the operating system, and that page is in every cache.
    let part: Vec<u32> = (0..1u32 << 18).map(|i| 0x3f80_0000 | (i.wrapping_mul(2_654_435_761) >> 9)).collect();
    let part_bytes = 4 * part.len() as u64;
    for i in 0..bytes / part_bytes {
        gpu.queue.write_buffer(&from, i * part_bytes, bytemuck::cast_slice(&part));
        gpu.queue.write_buffer(&to, i * part_bytes, &vec![0; part_bytes as usize]);
        if i % 16 == 15 {
            gpu.queue.submit([]);
        }
    }
    let mut pipelines = Pipelines::new(gpu, false, None);
    let mut tried = [Vec::new(), Vec::new()];
    for (entry, tried) in ["copy", "sum"].into_iter().zip(&mut tried) {
        for workgroup in [64u32, 256] {
            for (each, apart) in [(1u32, false), (4, false), (4, true), (8, true), (16, true)] {
                let count = bytes / 16 / u64::from(each);
                let (groups, row) = fold(count.div_ceil(u64::from(workgroup)) as usize);
                let dispatch = Dispatch {
                    shader: "copy_rate.wgsl",
                    entry,
                    consts: vec![
                        ("WG", Const::U(workgroup)),
                        ("GRID_X", Const::U(row * workgroup)),
                        ("COUNT", Const::U(count as u32)),
                        ("EACH", Const::U(each)),
                        ("APART", Const::B(apart)),
                    ],
                    args: Vec::new(),
                    groups,
                };
                let how = if apart { "apart" } else { "side by side" };
                let what = format!("{entry}, {each} vec4 an invocation {how}, workgroups of {workgroup}");
                let compiled = pipelines.one(gpu, &dispatch, &[Access::Read, Access::Write])?;
                let written = if entry == "copy" { bytes } else { 16 * count };
                let call = Call::new(gpu, &what, &compiled, &[(&from, bytes, false), (&to, written, true)], groups)?;
                call.run(gpu, &what, WATCHDOG)?;
                let mut best = f64::INFINITY;
                for _ in 0..RUNS {
                    best = best.min(call.run(gpu, &what, WATCHDOG)?);
                }
                if entry == "copy" {
                    for at in [0, bytes / 2, bytes - 64] {
                        if bytes_of(gpu, some(&from, at, 64))? != bytes_of(gpu, some(&to, at, 64))? {
                            return Err(ExecError::Device(format!("{what}: byte {at} was not copied")));
                        }
                    }
                }
                if best > 0.0 {
                    tried.push(Way { what, rate: (bytes + written) as f64 / best });
                }
            }
        }
    }
    let [copy, read] = tried;
    let copy = Best::of(copy).ok_or_else(|| nothing("a copy"))?;
    let read = Best::of(read).ok_or_else(|| nothing("reading"))?;
    Ok(Memory { copy, read, buffer_bytes: bytes })
}
