//! The fuzz targets (`fuzz/`) for a bounded while: valid files made here, cut and mutated. No panic, and memory and time of each input
//! within bounds.
//!
//! `RADIOGRAD_FUZZ_SECONDS` says how long in all; without it a fixed number of inputs runs, the same ones each time.
//! `RADIOGRAD_FUZZ_TARGETS=npz,image` chooses some.
//! `RADIOGRAD_FUZZ_SEEDS` names a folder into which the valid files are written, for cargo-fuzz to begin with
//! (`scripts/fuzz.sh`).

#[path = "common/counting.rs"]
mod counting;
#[path = "../fuzz/src/lib.rs"]
mod fuzz;
#[path = "common/mutate.rs"]
mod mutate;

use std::time::{Duration, Instant};

use fuzz::{TARGETS, Target, seeds};
use mutate::mutate;
use radiograd::rng::{Rng, Stream};

/// Inputs of a target in a run without a time.
const ROUNDS: u32 = 2000;
/// No input may take longer, beside other work.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of a target's inputs.
#[derive(Debug, Default)]
struct Tally {
    inputs: u64,
    /// The most bytes that one held.
    memory: isize,
    /// The longest that one took.
    time: Duration,
}

impl Tally {
    fn input(&mut self, target: &Target, bytes: &[u8], what: &dyn Fn() -> String) {
        let start = Instant::now();
        let ((), memory) = counting::peak(|| (target.run)(bytes));
        let time = start.elapsed();
        self.inputs += 1;
        (self.memory, self.time) = (self.memory.max(memory), self.time.max(time));
        let most = (target.memory)(bytes.len());
        assert!(memory <= most as isize, "{}: {}: {memory} bytes held, {most} allowed", target.name, what());
        assert!(time <= PATIENCE, "{}: {}: {time:?}", target.name, what());
    }

    fn round(&mut self, target: &Target, valid: &[Vec<u8>], round: u32) {
        let mut rng = Rng::new(7, round, Stream::Sample as u32);
        let mut bytes = valid[round as usize % valid.len()].clone();
        for _ in 0..=rng.below(5) {
            mutate(&mut bytes, &mut rng);
        }
        self.input(target, &bytes, &|| format!("round {round}: {:?}", String::from_utf8_lossy(&bytes)));
    }
}

fn seconds() -> Option<Duration> {
    let text = std::env::var("RADIOGRAD_FUZZ_SECONDS").ok()?;
    Some(Duration::from_secs(text.parse().expect("RADIOGRAD_FUZZ_SECONDS is a number")))
}

#[test]
fn every_target_stands_cuts_and_mutations() {
    let wanted = std::env::var("RADIOGRAD_FUZZ_TARGETS").ok();
    let is_wanted = |t: &&Target| wanted.as_ref().is_none_or(|names| names.split(',').any(|name| name == t.name));
    let targets: Vec<&Target> = TARGETS.iter().filter(is_wanted).collect();
    assert!(!targets.is_empty(), "RADIOGRAD_FUZZ_TARGETS names no target");
    let share = seconds().map(|all| all / targets.len() as u32);
    for target in targets {
        let (mut tally, valid, start) = (Tally::default(), seeds::of(target.name), Instant::now());
        assert!(!valid.is_empty(), "{}", target.name);
        for seed in &valid {
            tally.input(target, seed, &|| "a seed".to_owned());
            for cut in (0..seed.len()).step_by((seed.len() / 100).max(1)) {
                tally.input(target, &seed[..cut], &|| format!("{cut} of {} bytes", seed.len()));
            }
        }
        match share {
            None => (0..ROUNDS).for_each(|round| tally.round(target, &valid, round)),
            Some(share) => {
                let rounds = (0..).take_while(|_| start.elapsed() < share);
                rounds.for_each(|round| tally.round(target, &valid, round));
            }
        }
        eprintln!("{}: {tally:?} in {:?}", target.name, start.elapsed());
    }
}

#[test]
fn the_targets_are_those_of_cargo_fuzz() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for target in &TARGETS {
        let entry = format!("name = \"{0}\"\npath = \"fuzz_targets/{0}.rs\"", target.name);
        assert!(manifest.contains(&entry), "{}", target.name);
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

/// Writes the seeds where they are asked for.
#[test]
fn seeds_lie_where_cargo_fuzz_looks() {
    let Some(folder) = std::env::var_os("RADIOGRAD_FUZZ_SEEDS") else { return };
    for target in &TARGETS {
        let folder = std::path::Path::new(&folder).join(target.name);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (i, seed) in seeds::of(target.name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{i}")), seed).expect("a file");
        }
    }
}
