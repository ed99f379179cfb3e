//! Who really beats whom: runs measured on the same images, from the predictions in their folders.

use std::path::{Path, PathBuf};

mod pairs;

use pairs::{correct, group_pairs, groups, pair};

use super::TrainError;
use super::config::TrainConfig;
use super::predictions::{PREDICTIONS, Predictions, SplitPredictions};
use super::run::RESULT;
use crate::data::shown;
use crate::fsio;
use crate::metrics::{Metrics, precision_recall_curve, roc_curve};
use crate::report::comparison::{Comparison, Pair, RunRow, Training};
use crate::report::data::{NetworkResult, RunSummary};
use crate::stats::{Scored, Units, delong};

/// Up to so many runs, every pair is compared; of more, each with the best one on validation.
pub const ALL_PAIRS: usize = 4;

/// A run folder as a comparison sees it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its folder's name, or more of its path where two runs share it.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its settings, where they read.
    pub config: Option<TrainConfig>,
    /// What it said about each image.
    pub predictions: Predictions,
    /// How it was trained, where the folder tells.
    pub training: Option<Training>,
}

/// A folder that was named: a run, or a group of runs of one setting.
#[derive(Clone, Debug)]
pub enum Named {
    /// A folder with predictions.
    Run(Box<Run>),
    /// A folder that holds such folders.
    Group(String, Vec<Run>),
}

impl Named {
    /// Reads a run folder, or the run folders in a folder, in the order of their names.
    ///
    /// # Errors
    /// There is no run, or its predictions do not read.
    pub fn open(folder: &Path) -> Result<Self, TrainError> {
        if folder.join(PREDICTIONS).is_file() {
            return Ok(Self::Run(Box::new(Run::open(folder)?)));
        }
        let read = |e| TrainError::from(crate::fsio::FsError::new("read", folder, e));
        let mut inner: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.join(PREDICTIONS).is_file() {
                inner.push(path);
            }
        }
        if inner.is_empty() {
            return Err(TrainError::NoPredictions { path: folder.to_owned() });
        }
        inner.sort();
        Ok(Self::Group(name_of(folder), inner.iter().map(|f| Run::open(f)).collect::<Result<_, _>>()?))
    }
}

fn name_of(folder: &Path) -> String {
    folder.file_name().map_or_else(|| shown(folder), |n| shown(Path::new(n)))
}

impl Run {
    fn open(folder: &Path) -> Result<Self, TrainError> {
        let predictions = Predictions::read(&folder.join(PREDICTIONS))?;
        let config = folder.join("config.toml");
        let config = if config.is_file() { Some(TrainConfig::read(&config)?) } else { None };
        let training = training_of(folder)?;
        Ok(Self { name: name_of(folder), folder: folder.to_owned(), config, predictions, training })
    }
}

/// How a run was trained; `None` where its result is not there or of another version.
fn training_of(folder: &Path) -> Result<Option<Training>, TrainError> {
    let path = folder.join(RESULT);
    if !path.is_file() {
        return Ok(None);
    }
    let Ok(run) = serde_json::from_slice::<RunSummary>(&fsio::read(&path)?) else { return Ok(None) };
    let NetworkResult { parameters, seconds, epochs, best_epoch, .. } = run.network;
    Ok(Some(Training { parameters, seconds, epochs, best_epoch }))
}

/// Compares what was named on one split. `all_pairs` compares every pair however many runs there are.
///
/// # Errors
/// [`TrainError::NotComparable`] for runs of other classes or other images; metrics that do not exist.
pub fn compare(named: Vec<Named>, split: &str, all_pairs: bool, seed: u32) -> Result<Comparison, TrainError> {
    let mut members: Vec<(Option<String>, Run)> = Vec::new();
    for n in named {
        match n {
            Named::Run(run) => members.push((None, *run)),
            Named::Group(name, runs) => members.extend(runs.into_iter().map(|run| (Some(name.clone()), run))),
        }
    }
    tell_apart(&mut members);
    let sets = same_images(&members, split)?;
    let Some(first) = sets.first() else {
        return Err(TrainError::NotComparable("no run was named: give run folders".to_owned()));
    };
    let classes = members[0].1.predictions.classes.clone();
    let units = first.units();
    let mut rows = Vec::new();
    for ((group, run), set) in members.iter().zip(&sets) {
        rows.push(row(group.clone(), run, set, classes.len(), units.as_ref(), seed)?);
    }
    let alone: Vec<usize> = (0..members.len()).filter(|&i| members[i].0.is_none()).collect();
    let mut notes = Vec::new();
    let (chosen, against) = choose_pairs(&alone, &rows, &members, all_pairs, &mut notes);
    let mut pairs: Vec<Pair> = Vec::new();
    for (a, b) in chosen {
        let names = [rows[a].name.clone(), rows[b].name.clone()];
        pairs.push(pair(names, [sets[a], sets[b]], classes.len(), units.as_ref(), seed));
    }
    correct(&mut pairs);
    let count = pairs.len();
    pairs.iter_mut().for_each(|p| p.sentences = p.words(split, first.len(), count));
    let groups = groups(&rows);
    let group_pairs = group_pairs(&groups, &rows);
    notes.push(match &units {
        Some(units) => format!(
            "{} images of {} patients; tests take images as independent, the intervals over patients do not",
            first.len(),
            units.len()
        ),
        None => format!("{} images, patients not known: images are taken as independent", first.len()),
    });
    Ok(Comparison {
        split: split.to_owned(),
        images: first.len(),
        patients: units.as_ref().map(Units::len),
        class_counts: counts(&first.labels, classes.len()),
        classes,
        runs: rows,
        pairs,
        against: against.map(|i| members[i].1.name.clone()),
        groups,
        group_pairs,
        notes,
        remarks: Vec::new(),
    })
}

/// Images of each class.
fn counts(labels: &[u32], classes: usize) -> Vec<u64> {
    let mut counts = vec![0; classes];
    for &label in labels {
        if let Some(n) = counts.get_mut(label as usize) {
            *n += 1;
        }
    }
    counts
}

/// Gives runs of the same folder name more of their path.
fn tell_apart(members: &mut [(Option<String>, Run)]) {
    let mut names: Vec<String> = members.iter().map(|(_, run)| run.name.clone()).collect();
    names.sort_unstable();
    for (group, run) in members.iter_mut() {
        let twice = names.iter().filter(|n| **n == run.name).count() > 1;
        match group {
            Some(group) => run.name = format!("{group}/{}", run.name),
            None if twice => run.name = shown(&run.folder),
            None => {}
        }
    }
}

/// The split of each run, found to be the same images.
fn same_images<'a>(members: &'a [(Option<String>, Run)], split: &str) -> Result<Vec<&'a SplitPredictions>, TrainError> {
    let mut sets: Vec<&SplitPredictions> = Vec::new();
    for (_, run) in members {
        let set = run.predictions.split(split).ok_or_else(|| {
            TrainError::NotComparable(format!("{} has no predictions of the {split} images", run.name))
        })?;
        if let (Some(first), Some((_, one))) = (sets.first(), members.first()) {
            if one.predictions.classes != run.predictions.classes {
                let (a, b) = (one.predictions.classes.join(", "), run.predictions.classes.join(", "));
                let problem = format!("{} knows the classes {a}, {} {b}", one.name, run.name);
                return Err(TrainError::NotComparable(problem));
            }
            if let Some(what) = first.differs(set) {
                let problem = format!(
                    "{} and {} were measured on other {split} images ({what}); compare runs on one set",
                    one.name, run.name
                );
                return Err(TrainError::NotComparable(problem));
            }
        }
        sets.push(set);
    }
    Ok(sets)
}

fn row(
    group: Option<String>,
    run: &Run,
    set: &SplitPredictions,
    classes: usize,
    units: Option<&Units>,
    seed: u32,
) -> Result<RunRow, TrainError> {
    let scored = Scored::new(&set.labels, &set.probabilities, classes)?;
    let delong = match classes {
        2 => delong(&set.positive(), &set.column(1, 2)).and_then(|d| d.interval()),
        _ => None,
    };
    let (mut roc, mut pr) = (Vec::new(), Vec::new());
    if classes == 2 {
        let (positive, scores) = (set.positive(), set.column(1, classes));
        roc = roc_curve(&positive, &scores);
        pr = precision_recall_curve(&positive, &scores);
    }
    let validation_loss = match run.predictions.split("val") {
        Some(val) => Some(Metrics::new(&val.labels, &val.probabilities, classes)?.log_loss),
        None => None,
    };
    Ok(RunRow {
        name: run.name.clone(),
        group,
        model: run.config.as_ref().map(|c| c.model.clone()),
        seed: run.config.as_ref().map(|c| c.seed),
        scores: scored.estimates(units, seed),
        delong,
        confusion: Metrics::new(&set.labels, &set.probabilities, classes)?.confusion,
        training: run.training.clone(),
        validation_loss,
        roc,
        pr,
    })
}

/// Every pair of few runs; of many, each with the one that is best on validation.
fn choose_pairs(
    alone: &[usize],
    rows: &[RunRow],
    members: &[(Option<String>, Run)],
    all_pairs: bool,
    notes: &mut Vec<String>,
) -> (Vec<(usize, usize)>, Option<usize>) {
    if all_pairs || alone.len() <= ALL_PAIRS {
        let pairs = alone.iter().enumerate().flat_map(|(k, &a)| alone[k + 1..].iter().map(move |&b| (a, b)));
        return (pairs.collect(), None);
    }
    let validation = |i: usize| members[i].1.predictions.split("val");
    let shared = alone.iter().all(|&i| match (validation(alone[0]), validation(i)) {
        (Some(a), Some(b)) => a.differs(b).is_none(),
        _ => false,
    });
    let loss = |i: &usize| rows[*i].validation_loss.unwrap_or(f64::INFINITY);
    let best = match shared {
        true => alone.iter().copied().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap_or(alone[0]),
        false => {
            notes.push(
                "the runs have no validation images in common, so none is the best there: each is compared with the first"
                    .to_owned(),
            );
            alone[0]
        }
    };
    (alone.iter().filter(|&&i| i != best).map(|&i| (best, i)).collect(), Some(best))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::two_columns;
    use crate::report::comparison::Verdict;
    use crate::rng::{Rng, Stream};

    /// A run of so much skill; all are measured on the same 300 images of 100 patients.
    fn run(name: &str, skill: f64, seed: u32) -> Run {
        let set = |split: &str, n: u32| {
            let labels: Vec<u32> = (0..n).map(|i| u32::from(i % 3 != 0)).collect();
            let mut own = Rng::new(seed, n, Stream::Sample as u32);
            let mut shared = Rng::new(99, n, Stream::Sample as u32);
            let p: Vec<f64> = labels
                .iter()
                .map(|&l| {
                    let noise = f64::from(shared.normal()) + 0.5 * f64::from(own.normal());
                    1.0 / (1.0 + (-(skill * (2.0 * f64::from(l) - 1.0) + noise)).exp())
                })
                .collect();
            SplitPredictions {
                split: split.to_owned(),
                images: (0..n).map(|i| format!("{split}/{i}")).collect(),
                patients: (0..n).map(|i| format!("p{}", i / 3)).collect(),
                labels,
                probabilities: two_columns(&p),
            }
        };
        let predictions = Predictions {
            classes: vec!["NORMAL".to_owned(), "PNEUMONIA".to_owned()],
            splits: vec![set("val", 60), set("test", 300)],
        };
        Run { name: name.to_owned(), folder: PathBuf::from(name), config: None, predictions, training: None }
    }

    fn named(name: &str, skill: f64, seed: u32) -> Named {
        Named::Run(Box::new(run(name, skill, seed)))
    }

    #[test]
    fn a_better_run_is_found_and_equal_ones_are_not_told_apart() {
        let c = compare(vec![named("good", 2.0, 1), named("poor", 0.3, 2), named("also", 2.0, 3)], "test", false, 5)
            .unwrap();
        assert_eq!((c.images, c.patients, c.pairs.len()), (300, Some(100), 3));
        let verdicts: Vec<Verdict> = c.pairs.iter().map(|p| p.accuracy.verdict).collect();
        assert_eq!(verdicts, [Verdict::First, Verdict::NotToldApart, Verdict::Second]);
        let auc: Vec<Verdict> = c.pairs.iter().map(|p| p.auc.unwrap().verdict).collect();
        assert_eq!(auc, verdicts);
        let (told, not) = (&c.pairs[2].sentences[0], &c.pairs[1].sentences[0]);
        assert!(told.starts_with("also has the better accuracy, poor the worse: difference "), "{told}");
        assert!(told.contains("Holm over 3 pairs") && told.contains("p < 0.001"), "{told}");
        assert!(not.starts_with("good and also cannot be told apart by accuracy on these 300 test images"), "{not}");
        for pair in &c.pairs {
            let (d, holm) = (pair.accuracy.p.unwrap(), pair.accuracy.p_holm.unwrap());
            assert!(holm >= d && pair.accuracy.images.unwrap().contains(pair.accuracy.value));
            let d = pair.delong.unwrap();
            assert!((d.difference - pair.auc.unwrap().value).abs() < 1e-12);
        }
    }

    #[test]
    fn many_runs_are_held_against_the_best_on_validation() {
        let runs = |n: u32| (0..n).map(|k| named(&format!("r{k}"), 0.5 + 0.4 * f64::from(k % 4), k)).collect();
        let c = compare(runs(6), "test", false, 1).unwrap();
        let best = c.runs.iter().min_by(|a, b| a.validation_loss.unwrap().total_cmp(&b.validation_loss.unwrap()));
        assert_eq!((c.against.as_ref(), c.pairs.len()), (best.map(|r| &r.name), 5));
        assert_eq!(compare(runs(6), "test", true, 1).unwrap().pairs.len(), 15);
    }

    #[test]
    fn other_images_are_refused() {
        let mut other = run("b", 1.0, 2);
        other.predictions.splits[1].images[7] = "test/new".to_owned();
        let error = compare(vec![named("a", 1.0, 1), Named::Run(Box::new(other.clone()))], "test", false, 1);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("a and b were measured on other test images (test/7 against test/new)"), "{error}");
        let error =
            compare(vec![Named::Run(Box::new(other.clone()))], "official_val", false, 1).unwrap_err().to_string();
        assert!(error.contains("b has no predictions of the official_val images"), "{error}");
        other.predictions.classes[0] = "COVID".to_owned();
        let error = compare(vec![named("a", 1.0, 1), Named::Run(Box::new(other))], "test", false, 1);
        assert!(error.unwrap_err().to_string().contains("knows the classes"));
        assert!(compare(Vec::new(), "test", false, 1).is_err());
    }

    #[test]
    fn groups_are_compared_by_their_means() {
        let group = |name: &str, skill: f64, from: u32| {
            Named::Group(name.to_owned(), (0..4).map(|k| run(&format!("seed{k}"), skill, from + k)).collect())
        };
        let c = compare(vec![group("deep", 1.8, 10), group("flat", 0.4, 20), group("twin", 0.4, 30)], "test", false, 1)
            .unwrap();
        assert_eq!((c.runs.len(), c.pairs.len(), c.groups.len(), c.group_pairs.len()), (12, 0, 3, 3));
        assert!(c.runs[0].name == "deep/seed0" && c.groups[0].accuracy.count == 4);
        let words = &c.group_pairs[0].sentences;
        assert!(
            words[0].starts_with("over its runs deep has the better mean accuracy (points) than flat"),
            "{words:?}"
        );
        assert!(c.group_pairs[2].sentences[0].contains("cannot be told apart"), "{:?}", c.group_pairs[2].sentences);
        // Three pairs are read in full; of many, those that say something.
        assert_eq!(c.findings().len(), 6);
        let pairs = [0, 2, 2, 2, 2, 2, 2].map(|k| c.group_pairs[k].clone()).to_vec();
        let told = pairs[0].sentences.iter().filter(|s| s.contains("better")).count();
        let found = Comparison { group_pairs: pairs, ..c }.findings();
        assert_eq!(found.len(), told + 1, "{found:?}");
        assert!(found[told].contains(&format!("of {} more comparisons", 14 - told)), "{found:?}");
    }

    #[test]
    fn a_run_against_itself_is_a_tie() {
        let c = compare(vec![named("a", 1.0, 1), named("a", 1.0, 1)], "test", false, 1).unwrap();
        let pair = &c.pairs[0];
        assert_eq!(
            (pair.accuracy.value, pair.mcnemar.exact_p, pair.accuracy.verdict),
            (0.0, 1.0, Verdict::NotToldApart)
        );
        assert_eq!(pair.sentences[1], "a and a rank these images alike.");
    }
}
