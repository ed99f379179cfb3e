//! Devices that fail: at every call of a short training, with every kind of error, an executor fails; the error is typed and says where it
//! came, the last good checkpoint stays, and resuming ends in the bits of the uninterrupted run. On the GPU the device is lost for true.
//!
//! `RADIOGRAD_FAULTS=1` tries every call with every error, in the place of every call with one of them.

mod common;
#[path = "common/phantom.rs"]
mod phantom;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use phantom::phantom;
use radiograd::cpu;
use radiograd::data::Dataset;
use radiograd::exec::{Call, ExecError, Executor, Faulty, Verdict};
use radiograd::gpu::{self, Options};
use radiograd::graph::Graph;
use radiograd::ops::conv2d::Conv2d;
use radiograd::shape::{Shape, Spec};
use radiograd::store::ParamStore;
use radiograd::tensor::Tensor;
use radiograd::train::{Fit, TrainConfig, TrainError};

/// Images of the phantom set for training, validation and test.
const IMAGES: [usize; 3] = [64, 20, 20];
const LAST: &str = "last.safetensors";

fn config() -> TrainConfig {
    TrainConfig { model: "cnn1".to_owned(), size: 28, epochs: 2, batch: 16, ..TrainConfig::default() }
}

fn train(folder: &Path, data: &Dataset, executor: Box<dyn Executor>, resume: bool) -> Result<(), TrainError> {
    let mut fit = Fit::new(&config(), data.clone(), executor)?;
    let start = fit.start(resume.then_some(folder))?;
    fit.run(start, Some(folder), &mut |_| {}).map(|_| ())
}

fn cpu() -> Box<dyn Executor> {
    Box::new(cpu::Executor::<f32>::fast())
}

fn bytes(folder: &Path, file: &str) -> Option<Vec<u8>> {
    std::fs::read(folder.join(file)).ok()
}

/// The errors that a device has.
fn error(kind: usize, at: &str) -> ExecError {
    let (at, reason) = (at.to_owned(), "made by a test".to_owned());
    match kind {
        0 => ExecError::Lost { at, reason },
        1 => ExecError::OutOfMemory(at),
        2 => ExecError::Validation { at, reason },
        3 => ExecError::TimedOut { at, limit: Duration::from_secs(300) },
        _ => ExecError::Device(format!("{at}: {reason}")),
    }
}

const KINDS: usize = 5;

/// What the judge of a training saw: each call, with the name it was given.
type Calls = Rc<RefCell<Vec<(Call, String)>>>;

/// An executor that fails at call number `nth`, and ever after where it is lost.
fn failing(inner: Box<dyn Executor>, nth: usize, kind: usize, after: bool) -> (Box<dyn Executor>, Calls) {
    let calls = Calls::default();
    let seen = Rc::clone(&calls);
    let judge = move |call, at: &str| {
        let number = seen.borrow().len();
        seen.borrow_mut().push((call, at.to_owned()));
        match (number == nth, number > nth && kind == 0) {
            (true, _) if after => Verdict::After(error(kind, at)),
            (true, _) | (_, true) => Verdict::Before(error(kind, at)),
            _ => Verdict::Go,
        }
    };
    (Box::new(Faulty::new(inner, Box::new(judge))), calls)
}

fn same_kind(e: &ExecError, kind: usize) -> bool {
    std::mem::discriminant(e) == std::mem::discriminant(&error(kind, ""))
}

#[test]
fn every_fault_of_a_training_is_an_error_with_a_place_and_resumes_to_the_same_bits() {
    let data = phantom(28, IMAGES);
    let whole = tempfile::tempdir().unwrap();
    let (executor, calls) = failing(cpu(), usize::MAX, 0, false);
    train(whole.path(), &data, executor, false).unwrap();
    let calls = calls.borrow().clone();
    let good = bytes(whole.path(), LAST).unwrap();
    for kind in [Call::Load, Call::Compile, Call::Set, Call::Run, Call::Read, Call::Write] {
        assert!(calls.iter().any(|(call, _)| *call == kind), "{kind:?} is never called");
    }
    let all = std::env::var("RADIOGRAD_FAULTS").is_ok_and(|v| v == "1");
    // The checkpoint of the first epoch, as it is when the second begins.
    let mut after_first: Option<Vec<u8>> = None;
    let (mut tried, mut resumed) = (0, 0);
    for (nth, wanted) in calls.iter().enumerate() {
        for kind in (0..KINDS).filter(|kind| all || *kind == nth % KINDS) {
            let after = nth % 2 == 1;
            let dir = tempfile::tempdir().unwrap();
            let (executor, seen) = failing(cpu(), nth, kind, after);
            let e = train(dir.path(), &data, executor, false).expect_err("a call failed");
            let (call, at) = seen.borrow()[nth].clone();
            assert_eq!((call, &at), (wanted.0, &wanted.1), "trainings repeat");
            let text = e.to_string();
            let source = match &e {
                TrainError::Exec(source) => source,
                TrainError::Fault { source, .. } => source,
                other => panic!("{call:?} {nth}: {other:?}"),
            };
            assert!(same_kind(source, kind), "{call:?} {nth}: {text}");
            // What a copy that was begun has to say arrives with the copy; a lost device is met by another call before that.
            let lost = kind == 0
                && call == Call::Read
                && seen.borrow()[nth..].iter().any(|(_, at)| text.contains(at.as_str()));
            assert!(!at.is_empty() && (text.contains(&at) || lost), "{call:?} {nth}: {text}");
            assert!(!text.contains('\n'), "{call:?} {nth}: {text}");
            let last = bytes(dir.path(), LAST);
            if let TrainError::Fault { place, kept, .. } = &e {
                assert_eq!(*kept, Some(last.is_some()), "{text}");
                assert_eq!(text.contains("--resume"), last.is_some(), "{text}");
                if call == Call::Run {
                    let (epoch, step) = place.expect("a step had begun");
                    assert!(text.starts_with(&format!("epoch {epoch}, step {step}: ")), "{text}");
                    // Four steps an epoch; the second epoch's have a checkpoint behind them.
                    assert!((1..=2).contains(&epoch) && (1..=4).contains(&step), "{text}");
                    assert_eq!(epoch == 2, last.is_some(), "{text}");
                }
            }
            tried += 1;
            let Some(last) = last else { continue };
            // What is on disk is a whole checkpoint: of the first epoch, or of the last where what came after it failed.
            if last != good {
                assert_eq!(*after_first.get_or_insert_with(|| last.clone()), last, "{text}");
            }
            radiograd::weights::load(dir.path().join(LAST)).unwrap();
            train(dir.path(), &data, cpu(), true).unwrap();
            assert!(bytes(dir.path(), LAST).unwrap() == good, "resumed after call {nth}: {text}");
            assert_eq!(bytes(dir.path(), "best.safetensors"), bytes(whole.path(), "best.safetensors"));
            resumed += 1;
        }
    }
    eprintln!("{tried} faults in {} calls; {resumed} left a checkpoint, and resumed to the same bits", calls.len());
    assert!(tried >= calls.len() && resumed * 4 > tried);
}

/// A training on a GPU whose device is destroyed before call number `nth`.
fn lose_at(nth: usize, call: Call, executor: gpu::Executor) -> Box<dyn Executor> {
    let gpu = executor.gpu().clone();
    let mut number = 0;
    let judge = move |now, _: &str| {
        number += usize::from(now == call);
        if now == call && number == nth {
            gpu.lose();
        }
        Verdict::Go
    };
    Box::new(Faulty::new(Box::new(executor), Box::new(judge)))
}

#[test]
fn a_device_that_is_lost_for_true_is_a_typed_error_wherever_it_happens() {
    let Some(first) = common::gpu(Options::default()) else { return };
    let data = phantom(28, IMAGES);
    let whole = tempfile::tempdir().unwrap();
    train(whole.path(), &data, Box::new(first), false).unwrap();
    let good = bytes(whole.path(), LAST).unwrap();
    let places = [
        (Call::Load, 1),
        (Call::Compile, 1),
        (Call::Compile, 3),
        (Call::Set, 9),
        (Call::Run, 1),
        (Call::Run, 3),
        (Call::Run, 7),
        (Call::Run, 9),
        (Call::Run, 10),
        (Call::Read, 1),
        (Call::Read, 2),
        (Call::Read, 5),
    ];
    let mut resumed = 0;
    for (call, nth) in places {
        let dir = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        let executor = lose_at(nth, call, common::gpu(Options::default()).unwrap());
        let e = train(dir.path(), &data, executor, false).expect_err("the device was lost");
        let text = e.to_string();
        let source = match &e {
            TrainError::Exec(source) => source,
            TrainError::Fault { source, .. } => source,
            other => panic!("{call:?} {nth}: {other:?}"),
        };
        assert!(matches!(source, ExecError::Lost { at, .. } if !at.is_empty()), "{call:?} {nth}: {text}");
        assert!(text.contains("the GPU was lost at ") && !text.contains('\n'), "{text}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{call:?} {nth} took {:?}", begin.elapsed());
        eprintln!("{call:?} {nth}: {text}");
        if bytes(dir.path(), LAST).is_some() {
            train(dir.path(), &data, Box::new(common::gpu(Options::default()).unwrap()), true).unwrap();
            assert!(bytes(dir.path(), LAST).unwrap() == good, "resumed after {call:?} {nth}");
            resumed += 1;
        }
    }
    assert!(resumed >= 3, "{resumed}");
}

/// Whatever is asked of an executor whose device is lost is an error, and none panics.
#[test]
fn a_lost_device_answers_every_call_with_an_error() {
    let Some(mut executor) = common::gpu(Options::default()) else { return };
    let mut g = Graph::new();
    let x = g.input("x", Spec::float([4]));
    let y = g.relu(x).unwrap();
    let graph = Arc::new(g);
    let mut store = ParamStore::new();
    let var = store.add_var("numbers", Spec::float([4]), None).var;
    executor.load(&store).unwrap();
    let program = executor.compile(&graph, &[y]).unwrap();
    let value = Tensor::f32([4], vec![1.0, -1.0, 2.0, -2.0]).unwrap();
    executor.set(program, x, &value).unwrap();
    executor.run(program).unwrap();
    assert_eq!(executor.read(program, y).unwrap().to_f32(), [1.0, 0.0, 2.0, 0.0]);
    // On its way when the device goes.
    let late = executor.fetch(program, y);
    executor.gpu().lose();
    for _ in 0..2 {
        let lost = |e: Result<(), ExecError>, what: &str| match e {
            Err(ExecError::Lost { at, .. }) => assert!(!at.is_empty(), "{what}"),
            other => panic!("{what}: {other:?}"),
        };
        executor.set(program, x, &value).unwrap();
        lost(executor.run(program), "run");
        lost(executor.wait(), "wait");
        lost(executor.flush(), "flush");
        lost(executor.run_profiled(program).map(|_| ()), "run_profiled");
        lost(executor.read(program, y).map(|_| ()), "read");
        lost(executor.read_var(var).map(|_| ()), "read_var");
        lost(pollster::block_on(executor.fetch(program, y)).map(|_| ()), "fetch");
        lost(executor.write_var(var, &value), "write_var");
        lost(executor.compile(&graph, &[x, y]).map(|_| ()), "compile");
    }
    assert!(matches!(pollster::block_on(late), Ok(_) | Err(ExecError::Lost { .. })));
    assert!(matches!(executor.load(&store), Err(ExecError::Lost { .. })));
    // Another one is not concerned.
    let mut other = common::gpu(Options::default()).unwrap();
    other.load(&store).unwrap();
    let program = other.compile(&graph, &[y]).unwrap();
    other.run(program).unwrap();
    assert_eq!(other.read(program, y).unwrap().to_f32(), [0.0; 4]);
}

/// A product that takes a software adapter some time.
fn slow() -> (Arc<Graph>, radiograd::graph::NodeId) {
    let mut g = Graph::new();
    let x = g.input("x", Spec::float([8, 64, 48, 48]));
    let w = g.input("w", Spec::float([64, 64, 3, 3]));
    g.set_scope("slow");
    let mut y = g.conv2d(x, w, None, Conv2d::same(3)).unwrap();
    for _ in 0..3 {
        y = g.conv2d(y, w, None, Conv2d::same(3)).unwrap();
    }
    (Arc::new(g), y)
}

#[test]
fn what_does_not_end_in_time_is_an_error_that_names_it() {
    let limit = Duration::from_micros(1);
    let Some(mut executor) = common::gpu(Options { watchdog: Some(limit), ..Options::default() }) else { return };
    let (graph, y) = slow();
    // Nothing is submitted yet.
    let program = executor.compile(&graph, &[y]).unwrap();
    executor.run(program).unwrap();
    let begin = Instant::now();
    let e = executor.wait().expect_err("a microsecond is not enough");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(matches!(&e, ExecError::TimedOut { at, limit: l } if at.contains("(slow)") && *l == limit), "{e:?}");
    let text = e.to_string();
    assert!(text.contains("did not end within 1µs") && !text.contains('\n'), "{text}");
    // Nor is what it gives.
    executor.run(program).unwrap();
    assert!(matches!(executor.read(program, y), Err(ExecError::TimedOut { .. })));
}

#[test]
fn a_submit_that_takes_too_long_is_divided_down_to_parts_of_a_dispatch_with_the_same_bits() {
    let never = Some(Duration::from_secs(3600));
    let Some(mut whole) = common::gpu(Options { longest_submit: never, ..Options::default() }) else { return };
    let longest_submit = Some(Duration::from_micros(20));
    let mut divided = common::gpu(Options { longest_submit, ..Options::default() }).unwrap();
    let (graph, y) = slow();
    let values = |n: usize, scale: f32| (0..n).map(|i| ((i * 7919 % 1013) as f32 - 506.0) * scale).collect::<Vec<_>>();
    let x = Tensor::f32([8, 64, 48, 48], values(8 * 64 * 48 * 48, 1e-3)).unwrap();
    let w = Tensor::f32([64, 64, 3, 3], values(64 * 64 * 9, 1e-4)).unwrap();
    let mut results = Vec::new();
    for executor in [&mut whole, &mut divided] {
        let program = executor.compile(&graph, &[y]).unwrap();
        let inputs: Vec<_> = graph.ids().filter(|&id| graph.node(id).op().is_none()).collect();
        executor.set(program, inputs[0], &x).unwrap();
        executor.set(program, inputs[1], &w).unwrap();
        let before = (executor.submits(program).unwrap(), executor.dispatches(program).unwrap());
        for _ in 0..12 {
            executor.run(program).unwrap();
            executor.wait().unwrap();
        }
        let now = (executor.submits(program).unwrap(), executor.dispatches(program).unwrap());
        eprintln!("submits and dispatches: {before:?} at first, {now:?} now");
        results.push((before, now, executor.read(program, y).unwrap().to_f32()));
    }
    let [(_, whole, a), (before, divided, b)] = &results[..] else { unreachable!() };
    assert!(whole.1 == before.1 && divided.0 > before.0, "{results:?}", results = (before, divided));
    // Where the encoder can say which workgroup is the first.
    if divided.1 > before.1 {
        assert!(2 * divided.0 >= divided.1, "{divided:?}");
    }
    assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()) && a.iter().any(|&v| v != 0.0));
}

#[test]
fn an_allocation_that_cannot_be_is_an_error_that_names_the_tensor() {
    let mut g = Graph::new();
    let x = g.input("x", Spec::float([1 << 20, 1]));
    g.set_scope("huge");
    let y = g.broadcast_to(x, &Shape::from([1 << 20, 1 << 24])).unwrap();
    let graph = Arc::new(g);
    let mut executor = cpu::Executor::<f32>::fast();
    executor.load(&ParamStore::new()).unwrap();
    let program = executor.compile(&graph, &[y]).unwrap();
    let e = executor.run(program).expect_err("64 TiB");
    assert!(matches!(&e, ExecError::OutOfMemory(what) if what.contains("(huge)")), "{e}");
    assert!(e.to_string().starts_with("out of memory: "), "{e}");
    let mut store = ParamStore::new();
    store.add_var("the images of a continent", Spec::u8([1 << 50]), None);
    let e = executor.load(&store).expect_err("a PiB");
    assert!(matches!(&e, ExecError::OutOfMemory(what) if what.contains("of a continent")), "{e}");
    let var = store.add_var("after it", Spec::float([1]), None).var;
    assert!(matches!(executor.read_var(var), Err(ExecError::NotLoaded(_))));
    // It goes on.
    executor.load(&ParamStore::new()).unwrap();
    assert!(matches!(executor.run(program), Err(ExecError::Stale)));
    if let Some(mut gpu) = common::gpu(Options::default()) {
        let e = gpu.load(&store).expect_err("a PiB");
        assert!(matches!(gpu.read_var(var), Err(ExecError::NotLoaded(_))));
        let named = |what: &str| what.contains("of a continent");
        assert!(
            matches!(&e, ExecError::OutOfMemory(what) | ExecError::TooLarge { tensor: what, .. } if named(what)),
            "{e}"
        );
    }
}

#[test]
fn a_program_that_is_no_more_is_an_error() {
    let mut executors: Vec<Box<dyn Executor>> = vec![cpu()];
    if let Some(gpu) = common::gpu(Options::default()) {
        executors.push(Box::new(gpu));
    }
    let mut g = Graph::new();
    let x = g.input("x", Spec::float([4]));
    let y = g.relu(x).unwrap();
    let graph = Arc::new(g);
    let value = Tensor::f32([4], vec![1.0; 4]).unwrap();
    let mut earlier = None;
    for executor in &mut executors {
        executor.load(&ParamStore::new()).unwrap();
        let dropped = executor.compile(&graph, &[y]).unwrap();
        executor.load(&ParamStore::new()).unwrap();
        // Takes the place that the other one had.
        let program = executor.compile(&graph, &[y]).unwrap();
        let released = executor.compile(&graph, &[y]).unwrap();
        executor.release(released);
        executor.release(released);
        for stale in [dropped, released].into_iter().chain(earlier.replace(program)) {
            let stale_error = |e: Result<(), ExecError>| assert!(matches!(e, Err(ExecError::Stale)), "{e:?}");
            stale_error(executor.set(stale, x, &value));
            stale_error(executor.run(stale));
            stale_error(executor.run_profiled(stale).map(|_| ()));
            stale_error(executor.read(stale, y).map(|_| ()));
            stale_error(pollster::block_on(executor.fetch(stale, y)).map(|_| ()));
            stale_error(executor.running(stale).map(|_| ()));
        }
        executor.set(program, x, &value).unwrap();
        executor.run(program).unwrap();
        assert_eq!(executor.read(program, y).unwrap().to_f32(), [1.0; 4]);
    }
}
