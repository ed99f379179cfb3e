//! The cases of `radiograd bench kernels` under criterion, so that a kernel author sees what a change did to each:
//! `cargo bench`, or `cargo bench -- conv2d` for a part. A short list runs by default; `RADIOGRAD_BENCH=all` runs every case.
//!
//! On an adapter the times are GPU timestamps where it has them, of the variants that training takes; the best adapter is
//! taken, a software one included. The CPU executor is always measured, in wall time.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use radiograd::bench::cases::{Case, cases};
use radiograd::bench::kernels::{OnCpu, OnGpu};
use radiograd::gpu::{Gpu, Wanted};

const SEED: u32 = 0;

/// Parts of the shapes that the short list keeps.
const SHORT: [&str; 8] =
    ["32x64x64x64", "layer 1", "32x8192", "1024x1024", "32x32x128x128", "4096x1000", "adam", "of 256"];

fn chosen() -> Vec<Case> {
    let mut all = cases();
    if std::env::var("RADIOGRAD_BENCH").is_ok_and(|v| v == "all") {
        return all;
    }
    all.retain(|c| SHORT.iter().any(|part| c.shapes.contains(part)));
    all
}

/// Times that `run` gives, added up as criterion asks for them.
fn total(count: u64, mut run: impl FnMut() -> f64) -> Duration {
    Duration::from_secs_f64((0..count).map(|_| run()).sum())
}

fn kernels(c: &mut Criterion) {
    let gpu = match Gpu::open(Wanted::Best) {
        Ok(gpu) => {
            eprintln!("adapter: {}", gpu.describe());
            Some(gpu)
        }
        Err(e) => {
            eprintln!("CPU executor only: {e}");
            None
        }
    };
    for case in &chosen() {
        // A case is prepared when criterion first runs it, so that those that a filter leaves out cost nothing.
        if let Some(gpu) = &gpu {
            let mut ready: Option<OnGpu<'_>> = None;
            c.bench_function(&format!("{} (gpu)", case.name()), |b| {
                let bench = ready.get_or_insert_with(|| {
                    let mut bench = OnGpu::new(case, gpu, SEED).expect("the device has room for the case");
                    bench.prepare(None).expect("the kernels compile");
                    bench
                });
                b.iter_custom(|count| total(count, || bench.run().expect("the device runs")));
            });
        }
        let mut ready: Option<OnCpu<'_>> = None;
        c.bench_function(&format!("{} (cpu)", case.name()), |b| {
            let bench = ready.get_or_insert_with(|| OnCpu::new(case, SEED).expect("the case is recorded"));
            b.iter_custom(|count| total(count, || bench.run().expect("the CPU runs")));
        });
    }
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = kernels
}
criterion_main!(all);
