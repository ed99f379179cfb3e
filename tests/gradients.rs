//! The registry test: every op has samples; every recorded gradient agrees with differences; the fast CPU executor agrees
//! with the reference.

use radiograd::check::{DIFFERENCE_TOLERANCE, Recorded, compare};
use radiograd::cpu;
use radiograd::ops::registry::registry;

#[test]
fn every_op_has_samples_with_names_of_their_own() {
    for entry in registry() {
        let samples = entry.samples();
        assert!(!samples.is_empty(), "{} has no samples", entry.name);
        let mut names: Vec<_> = samples.iter().map(|s| s.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), samples.len(), "{}: two samples share a name", entry.name);
    }
}

#[test]
fn recorded_gradients_agree_with_differences() {
    for entry in registry() {
        for sample in entry.samples().into_iter().filter(|s| !s.large) {
            let recorded =
                Recorded::new(&sample, 1).unwrap_or_else(|e| panic!("{} / {}: {e}", entry.name, sample.name));
            let error = recorded.differences().unwrap();
            assert!(error <= DIFFERENCE_TOLERANCE, "{} / {}: {error:.1e}", entry.name, sample.name);
        }
    }
}

#[test]
fn the_fast_cpu_executor_agrees_with_the_reference() {
    for entry in registry() {
        for sample in entry.samples() {
            let recorded =
                Recorded::new(&sample, 2).unwrap_or_else(|e| panic!("{} / {}: {e}", entry.name, sample.name));
            let outcome = recorded.run(&mut cpu::Executor::<f32>::fast()).unwrap();
            let error = compare(&outcome, &recorded.reference().unwrap());
            assert!(error <= sample.tolerance(), "{} / {}: {error:.1e}", entry.name, sample.name);
        }
    }
}
