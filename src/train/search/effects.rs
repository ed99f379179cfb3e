//! What mattered: the results averaged over everything but one setting.

use super::candidates::{Plan, word};
use super::grid::{Axis, Span, Values};
use super::ranking::Standing;
use crate::report::search::Effect;
use crate::stats::mean_std;

/// The means of each value of each setting; the setting whose means lie furthest apart comes first.
#[must_use]
pub fn effects(plan: &Plan, standings: &[Standing<'_>]) -> Vec<Effect> {
    let large = plan.spec.search.metric.large_is_good();
    let mut all: Vec<(f64, Vec<Effect>)> = Vec::new();
    for (k, axis) in plan.axes.iter().enumerate() {
        let groups = labels(axis).into_iter().map(|label| {
            let scores: Vec<f64> = standings
                .iter()
                .filter(|s| place(axis, &plan.candidates[s.candidate].point[k]) == label)
                .filter_map(|s| s.score)
                .collect();
            let m = mean_std(&scores)?;
            let pick = if large { f64::max } else { f64::min };
            let best = scores.iter().copied().reduce(pick)?;
            let setting = axis.name.clone();
            Some(Effect { setting, value: label, candidates: scores.len(), mean: m.mean, std: m.std, best })
        });
        let group: Vec<Effect> = groups.flatten().collect();
        let ends = group.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), e| (l.min(e.mean), h.max(e.mean)));
        if group.len() > 1 {
            all.push((ends.1 - ends.0, group));
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.into_iter().flat_map(|(_, group)| group).collect()
}

/// The values of an axis in the order in which tables and plots show them: numbers rising, else as the grid lists them.
#[must_use]
pub fn labels(axis: &Axis) -> Vec<String> {
    match &axis.values {
        Values::List(values) => {
            let mut values: Vec<_> = values.iter().collect();
            let number = |v: &toml::Value| v.as_float().or_else(|| v.as_integer().map(|i| i as f64));
            if values.iter().all(|v| number(v).is_some()) {
                values.sort_by(|a, b| number(a).unwrap_or(0.0).total_cmp(&number(b).unwrap_or(0.0)));
            }
            let mut labels: Vec<String> = values.into_iter().map(word).collect();
            let mut seen = std::collections::BTreeSet::new();
            labels.retain(|l| seen.insert(l.clone()));
            labels
        }
        Values::Range(span) => thirds(*span).windows(2).map(|w| third(w[0], w[1])).collect(),
    }
}

fn place(axis: &Axis, value: &toml::Value) -> String {
    let Values::Range(span) = &axis.values else { return word(value) };
    let number = value.as_float().or_else(|| value.as_integer().map(|i| i as f64)).unwrap_or(span.min);
    let ends = thirds(*span);
    let k = (number > ends[1]) as usize + (number > ends[2]) as usize;
    third(ends[k], ends[k + 1])
}

fn thirds(span: Span) -> [f64; 4] {
    [0.0, 1.0, 2.0, 3.0].map(|k| match span.log {
        true => (span.min.ln() + k / 3.0 * (span.max.ln() - span.min.ln())).exp(),
        false => span.min + k / 3.0 * (span.max - span.min),
    })
}

fn third(low: f64, high: f64) -> String {
    let text = |v: f64| format!("{v:.2e}").parse::<f64>().unwrap_or(v).to_string();
    format!("{} to {}", text(low), text(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_words_stay() {
        let axis = |text: &str| {
            let table: toml::Table = text.parse().unwrap();
            let values = Values::List(table["v"].as_array().unwrap().clone());
            labels(&Axis { name: "v".to_owned(), hole: false, values })
        };
        assert_eq!(axis("v = [100, 12, 20, 12]"), ["12", "20", "100"]);
        assert_eq!(axis("v = [0.1, 1e-3]"), ["0.001", "0.1"]);
        assert_eq!(axis("v = ['relu', 'elu']"), ["relu", "elu"]);
        let span = Span { min: 1e-4, max: 1e-1, log: true, whole: false };
        let range = Axis { name: "lr".to_owned(), hole: false, values: Values::Range(span) };
        assert_eq!(labels(&range), ["0.0001 to 0.001", "0.001 to 0.01", "0.01 to 0.1"]);
        assert_eq!(place(&range, &toml::Value::Float(0.005)), "0.001 to 0.01");
    }
}
