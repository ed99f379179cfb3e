//! Soak: many steps of a training, and many programs compiled and released, leave memory, handles and the step's time as they
//! were.
//!
//! `RADIOGRAD_SOAK_STEPS` says how many steps (100; the long run has 10,000), `RADIOGRAD_SOAK_CYCLES` how many programs (20;
//! 300). The first tenth warms up: allocators fill their pools, pipelines are compiled. A bound on the step's time is held only
//! from 10,000 steps on, because a short run shares the cores with other tests: by the clock, for which the machine has to be
//! idle; and against a new training that takes turns with the long one, step by step, when that has had its steps. Memory and
//! handles come from `/proc`, so all of it runs on Linux alone.

#![cfg(target_os = "linux")]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use radiograd::bench::step::Workload;
use radiograd::cpu;
use radiograd::data::phantom::PhantomSizes;
use radiograd::data::{CachePolicy, LoadOptions, Source, load};
use radiograd::exec::Executor;
use radiograd::gpu::{self, Gpu, Options};
use radiograd::nn::Model;
use radiograd::train::step::Turn;
use radiograd::train::{Fit, Live, TrainConfig};

/// From so many steps on the bounds are those of the long run.
const LONG: usize = 10_000;

fn number(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, got {text}")),
        Err(_) => default,
    }
}

/// The tests of this file measure one process: they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Resident memory in KiB.
    rss: usize,
    /// Open files, sockets and devices.
    files: usize,
    threads: usize,
    /// Objects of the GPU library.
    objects: usize,
}

impl Held {
    fn now(gpu: Option<&Gpu>) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has resident memory");
        let count = |folder| std::fs::read_dir(folder).unwrap().count();
        Self {
            rss: rss.trim().trim_end_matches(" kB").parse().unwrap(),
            files: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            objects: gpu.map_or(0, Gpu::objects),
        }
    }
}

/// One tenth of a run.
#[derive(Clone, Copy, Debug)]
struct Tenth {
    steps: usize,
    held: Held,
    /// Median time of a step in milliseconds.
    ms: f64,
}

/// Runs `total` steps, and looks at the end of each tenth.
fn tenths(total: usize, held: &dyn Fn() -> Held, mut step: impl FnMut()) -> Vec<Tenth> {
    (1..=10)
        .map(|tenth| {
            let mut times: Vec<f64> = ((tenth - 1) * total / 10..tenth * total / 10)
                .map(|_| {
                    let start = Instant::now();
                    step();
                    start.elapsed().as_secs_f64() * 1e3
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let ms = times.get(times.len() / 2).copied().unwrap_or(0.0);
            Tenth { steps: tenth * total / 10, held: held(), ms }
        })
        .collect()
}

/// Prints the table and holds it to the bounds. `slack` is the share by which memory may grow after the first tenth.
fn judge(what: &str, all: &[Tenth], slack: f64, timed: bool) {
    println!("\n{what}\n   steps    RSS MiB  files  threads  objects  ms/step");
    for t in all {
        let h = t.held;
        let (rss, steps, ms) = (h.rss as f64 / 1024.0, t.steps, t.ms);
        println!("{steps:8} {rss:10.1} {:6} {:8} {:8} {ms:8.2}", h.files, h.threads, h.objects);
    }
    let (first, last) = (all[0], all[all.len() - 1]);
    let growth = last.held.rss as f64 / first.held.rss as f64 - 1.0;
    let slower = last.ms / first.ms - 1.0;
    println!("memory {:+.2} %, step {:+.1} % from the first tenth to the last", 1e2 * growth, 1e2 * slower);
    assert!(growth <= slack, "{what}: memory grew by {:.1} %", 1e2 * growth);
    let handles = |t: Tenth| [t.held.files, t.held.threads, t.held.objects];
    assert_eq!(handles(last), handles(first), "{what}: files, threads or objects grew");
    assert!(!timed || slower <= 0.1, "{what}: a step takes {:.0} % longer than at first", 1e2 * slower);
}

/// A training of cnn2 at 28x28, batch 32, on the phantom set.
fn training(steps: usize, executor: Box<dyn Executor>) -> Live {
    let phantom = PhantomSizes { train: 960, val: 64, test: 8 };
    let options = LoadOptions { size: (28, 28), seed: 1, cache: CachePolicy::Off, phantom, ..LoadOptions::default() };
    let data = load(&Source::Phantom, &options).unwrap();
    // Those of the long run, those in turn with the new one, and what comes before both.
    let epochs = u32::try_from((steps + steps / 10 + 60).div_ceil(30) + 1).unwrap();
    // A small rate: after hundreds of epochs the loss is still a number.
    let config = TrainConfig {
        model: "cnn2".to_owned(),
        size: 28,
        epochs,
        batch: 32,
        seed: 1,
        lr: 1e-5,
        ..TrainConfig::default()
    };
    let live = Live::new(Fit::new(&config, data, executor).unwrap()).unwrap();
    assert_eq!(live.steps_an_epoch(), 30);
    live
}

/// A step of the loop's own, with the epoch's end where it ends.
fn step(live: &mut Live) {
    live.step().unwrap();
    if live.epoch_is_full() {
        pollster::block_on(live.end_epoch()).unwrap();
    }
}

/// A long training, and at its end a new one beside it.
fn train(what: &str, executor: &dyn Fn() -> Box<dyn Executor>, gpu: Option<&Gpu>) {
    let steps = number("RADIOGRAD_SOAK_STEPS", 100);
    let mut live = training(steps, executor());
    // Kernels are compiled, and each program has run.
    (0..60).for_each(|_| step(&mut live));
    let all = tenths(steps, &|| Held::now(gpu), || step(&mut live));
    assert_eq!(live.steps(), 60 + steps as u64);
    let last = live.epochs().last().expect("epochs have ended");
    assert!(last.train_loss.is_finite() && last.val_loss.is_finite());
    judge(what, &all, if steps >= LONG { 0.02 } else { 0.05 }, steps >= LONG);

    let mut young = training(steps, executor());
    (0..60).for_each(|_| step(&mut young));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..steps / 10 {
        for (live, times) in [&mut live, &mut young].into_iter().zip(&mut times) {
            let start = Instant::now();
            step(live);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    assert_eq!((live.steps(), young.steps()), ((60 + steps + steps / 10) as u64, (60 + steps / 10) as u64));
    let [old, young] = times.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    println!("a step of the old training {old:.2} ms, of a new one in turn with it {young:.2} ms");
    assert!(steps < LONG || old <= 1.1 * young, "{what}: a step takes {:.0} % longer", 1e2 * (old / young - 1.0));
}

#[test]
fn a_long_training_on_the_gpu_stays_as_it_is() {
    let _alone = alone();
    let Some(executor) = common::gpu(Options::default()) else { return };
    let gpu = executor.gpu().clone();
    drop(executor);
    let executor = || -> Box<dyn Executor> { Box::new(gpu::Executor::new(gpu.clone(), Options::default())) };
    train("training cnn2 28x28 on the GPU", &executor, Some(&gpu));
}

#[test]
fn a_long_training_on_the_cpu_stays_as_it_is() {
    let _alone = alone();
    train("training cnn2 28x28 on the CPU", &|| Box::new(cpu::Executor::<f32>::fast()), None);
}

/// Variables loaded, a training step compiled, run and released, again and again.
fn cycles(what: &str, executor: &mut dyn Executor, gpu: Option<&Gpu>) {
    let cycles = number("RADIOGRAD_SOAK_CYCLES", 20);
    let work = Workload::new(Model::new("cnn1", [1, 16, 16], 2).unwrap(), 8, 4, 3, None).unwrap();
    let chosen = [0, 1, 2, 3];
    let turn = Turn { chosen: &chosen, repeats: &[], seed: 3, step: 0, update: 1, lr: 1e-3, row: 0 };
    let mut losses = Vec::new();
    let mut cycle = || {
        executor.load(&work.store).unwrap();
        let program = executor.compile(&work.step.graph, &[work.step.loss]).unwrap();
        work.step.run(executor, program, work.images(), &turn).unwrap();
        losses.push(executor.read(program, work.step.loss).unwrap().to_f32()[0]);
        executor.release(program);
    };
    (0..10).for_each(|_| cycle());
    let all = tenths(cycles, &|| Held::now(gpu), cycle);
    assert!(losses.iter().all(|loss| loss.to_bits() == losses[0].to_bits()), "{losses:?}");
    judge(what, &all, if cycles >= 300 { 0.02 } else { 0.05 }, false);
}

#[test]
fn programs_that_are_released_leave_nothing_behind() {
    let _alone = alone();
    cycles("load, compile, run, release on the CPU", &mut cpu::Executor::<f32>::fast(), None);
    let Some(mut executor) = common::gpu(Options::default()) else { return };
    let gpu = executor.gpu().clone();
    cycles("load, compile, run, release on the GPU", &mut executor, Some(&gpu));
}
