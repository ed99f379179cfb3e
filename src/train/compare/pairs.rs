//! Two runs on the same images, or two groups of runs: their difference, and how sure it is.

use crate::metrics::RankedScores;
use crate::report::comparison::{Difference, Group, GroupPair, LEVEL, Pair, RunRow, Verdict};
use crate::stats::{
    Interval, MeanDifference, RESAMPLES, Score, Units, bootstrap_many, delong, holm, mcnemar, mean_std,
    paired_difference, t_interval, welch,
};
use crate::train::evaluate::right;
use crate::train::predictions::SplitPredictions;

pub(super) fn pair(
    names: [String; 2],
    sets: [&SplitPredictions; 2],
    classes: usize,
    units: Option<&Units>,
    seed: u32,
) -> Pair {
    let [a, b] = sets;
    let rights = sets.map(|s| right(s, classes));
    let only = |x: usize, y: usize| rights[x].iter().zip(&rights[y]).filter(|(x, y)| **x && !**y).count() as u64;
    let test = mcnemar(only(0, 1), only(1, 0));
    let delong = match classes {
        2 => delong(&a.positive(), &a.column(1, 2)).and_then(|d| d.minus(&delong(&b.positive(), &b.column(1, 2))?)),
        _ => None,
    };
    let ranked = sets.map(|s| one_against_rest(s, classes));
    let differences = |images: &[u32]| {
        let n = images.len().max(1) as f64;
        let hits = |k: usize| images.iter().filter(|&&i| rights[k][i as usize]).count() as f64;
        let auc = |k: usize| -> Option<f64> {
            let each: Option<Vec<f64>> = ranked[k].iter().map(|r| r.roc_auc_of(images)).collect();
            each.map(|e| e.iter().sum::<f64>() / e.len() as f64)
        };
        vec![Some((hits(0) - hits(1)) / n), auc(0).zip(auc(1)).map(|(a, b)| a - b)]
    };
    let all: Vec<u32> = (0..a.len() as u32).collect();
    let values = differences(&all);
    let by_image = bootstrap_many(&Units::images(a.len()), RESAMPLES, seed, differences);
    let by_patient = units.map_or_else(Vec::new, |u| bootstrap_many(u, RESAMPLES, seed, differences));
    let interval = |all: &[Option<Interval>], k: usize| all.get(k).copied().flatten();
    let difference = |k: usize, p: Option<f64>| {
        values[k].map(|value| Difference {
            value,
            images: interval(&by_image, k),
            patients: interval(&by_patient, k),
            p,
            p_holm: None,
            verdict: Verdict::NotToldApart,
        })
    };
    let accuracy = Difference {
        value: values[0].unwrap_or(0.0),
        images: interval(&by_image, 0),
        patients: interval(&by_patient, 0),
        p: Some(test.exact_p),
        p_holm: None,
        verdict: Verdict::NotToldApart,
    };
    let [first, second] = names;
    Pair {
        first,
        second,
        accuracy,
        mcnemar: test,
        accuracy_wald: paired_difference(test.first_only, test.second_only, a.len() as u64).map(|d| d.1),
        auc: difference(1, delong.and_then(|d| d.p)),
        delong,
        sentences: Vec::new(),
    }
}

fn one_against_rest(set: &SplitPredictions, classes: usize) -> Vec<RankedScores> {
    let ranked = |class: usize| {
        let positive: Vec<bool> = set.labels.iter().map(|&l| l as usize == class).collect();
        RankedScores::new(&positive, &set.column(class, classes))
    };
    if classes == 2 { vec![ranked(1)] } else { (0..classes).map(ranked).collect() }
}

/// Holm's correction over all pairs, for the accuracy and for the AUC apart, and the verdicts.
pub(super) fn correct(pairs: &mut [Pair]) {
    let p: Vec<f64> = pairs.iter().map(|p| p.accuracy.p.unwrap_or(f64::NAN)).collect();
    for (pair, p) in pairs.iter_mut().zip(holm(&p)) {
        judge(&mut pair.accuracy, p);
    }
    let p: Vec<f64> = pairs.iter().map(|p| p.auc.and_then(|d| d.p).unwrap_or(f64::NAN)).collect();
    for (pair, p) in pairs.iter_mut().zip(holm(&p)) {
        if let Some(auc) = &mut pair.auc {
            judge(auc, p);
        }
    }
}

fn judge(d: &mut Difference, p: f64) {
    d.p_holm = (!p.is_nan()).then_some(p);
    // Without a test (three classes and more) the intervals decide alone.
    let tested = d.p_holm.map_or(d.p.is_none(), |p| p < LEVEL);
    let intervals = [d.images, d.patients];
    let clear = intervals.iter().flatten().all(|i| !i.contains(0.0)) && intervals.iter().any(Option::is_some);
    if tested && clear {
        d.verdict = if d.value > 0.0 { Verdict::First } else { Verdict::Second };
    }
}

fn values(rows: &[RunRow], group: &str, score: Score) -> Option<Vec<f64>> {
    rows.iter().filter(|r| r.group.as_deref() == Some(group)).map(|r| r.value(score)).collect()
}

pub(super) fn groups(rows: &[RunRow]) -> Vec<Group> {
    let mut names: Vec<&String> = rows.iter().filter_map(|r| r.group.as_ref()).collect();
    names.dedup();
    let of = |name: &&String| {
        let accuracy = values(rows, name, Score::Accuracy)?;
        let auc = values(rows, name, Score::RocAuc);
        Some(Group {
            name: (*name).clone(),
            accuracy: mean_std(&accuracy)?,
            accuracy_interval: t_interval(&accuracy),
            auc: auc.as_ref().and_then(|v| mean_std(v)),
            auc_interval: auc.and_then(|v| t_interval(&v)),
        })
    };
    names.iter().filter_map(of).collect()
}

pub(super) fn group_pairs(groups: &[Group], rows: &[RunRow]) -> Vec<GroupPair> {
    let mut pairs: Vec<GroupPair> = Vec::new();
    for (k, a) in groups.iter().enumerate() {
        for b in &groups[k + 1..] {
            let test = |score| welch(&values(rows, &a.name, score)?, &values(rows, &b.name, score)?);
            pairs.push(GroupPair {
                first: a.name.clone(),
                second: b.name.clone(),
                accuracy: test(Score::Accuracy),
                accuracy_p_holm: None,
                auc: test(Score::RocAuc),
                auc_p_holm: None,
                sentences: Vec::new(),
            });
        }
    }
    let adjusted = |f: fn(&GroupPair) -> Option<MeanDifference>| {
        let p: Vec<f64> = pairs.iter().map(|g| f(g).map_or(f64::NAN, |d| d.p)).collect();
        holm(&p)
    };
    let (accuracy, auc) = (adjusted(|g| g.accuracy), adjusted(|g| g.auc));
    let count = pairs.len();
    for (k, pair) in pairs.iter_mut().enumerate() {
        pair.accuracy_p_holm = Some(accuracy[k]).filter(|p| !p.is_nan());
        pair.auc_p_holm = Some(auc[k]).filter(|p| !p.is_nan());
        pair.sentences = pair.words(count);
    }
    pairs
}
