//! `statistics.json`: scores of resamples, intervals and tests as scikit-learn and scipy have them, or as
//! `scripts/make_metric_cases.py` computes them from their definitions.

use radiograd::stats::{
    Binning, Interval, Rule, RuleError, Scored, Units, apply_temperature, binomial_two_sided, bootstrap_many,
    calibration_pairs, chi_squared_sf, choose_threshold, corrected_interval, delong, delong_test, fit_temperature,
    holm, mcnemar, normal_two_sided, paired_difference, quantile, reliability, t_interval, t_quantile, t_two_sided,
    welch,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The largest difference from the reference, relative to it where it is above 1.
const TOLERANCE: f64 = 1e-9;
/// How far the ends of two bootstrap intervals from different draws may be apart, in standard deviations of the statistic:
/// a 2.5 % quantile of 1000 draws has a standard error of 0.085, one of 1500 draws 0.07; four of both together.
const DRAWN: f64 = 0.44;

type Checked = Result<(), String>;

/// Compares every value of one entry.
///
/// # Errors
/// One line that names the entry's kind and what differs.
pub fn check_case(entry: &Value) -> Checked {
    let kind = entry["kind"].as_str().unwrap_or("of no kind");
    let check = match kind {
        "delong" => check_delong,
        "mcnemar" => check_mcnemar,
        "distributions" => check_distributions,
        "holm" => |e: &Value| near("adjusted", &holm(&get::<Vec<f64>>(e, "p")?), e),
        "repeated" => check_repeated,
        "operating" => check_operating,
        "calibration" => check_calibration,
        "resamples" => check_resamples,
        "bootstrap" => check_bootstrap,
        _ => |_: &Value| Err("no such kind".to_owned()),
    };
    check(entry).map_err(|e| format!("statistics {kind}: {e}"))
}

fn get<T: DeserializeOwned>(entry: &Value, key: &str) -> Result<T, String> {
    serde_json::from_value(entry[key].clone()).map_err(|e| format!("{key}: {e}"))
}

/// Whether numbers are those of the entry's `key`; `null` there stands for undefined, which is `None` or NaN here.
fn near<V: Into<Option<f64>> + Copy>(key: &str, got: &[V], entry: &Value) -> Checked {
    let want: Vec<Option<f64>> = match &entry[key] {
        Value::Array(_) => get(entry, key)?,
        _ => vec![get(entry, key)?],
    };
    let got: Vec<Option<f64>> = got.iter().map(|&v| v.into()).collect();
    let same = |g: &Option<f64>, w: &Option<f64>| match (g, w) {
        (Some(g), Some(w)) => (g - w).abs() <= TOLERANCE * w.abs().max(1.0),
        (None, None) => true,
        _ => false,
    };
    let equal = got.len() == want.len() && got.iter().zip(&want).all(|(g, w)| same(g, w));
    if equal { Ok(()) } else { Err(format!("{key}: {got:?}, the reference has {want:?}")) }
}

fn ends(interval: Option<Interval>) -> [Option<f64>; 2] {
    [interval.map(|i| i.low), interval.map(|i| i.high)]
}

fn positives(entry: &Value) -> Result<Vec<bool>, String> {
    Ok(get::<Vec<u32>>(entry, "labels")?.into_iter().map(|l| l == 1).collect())
}

/// Labels, row-major probabilities, classes.
fn rows(entry: &Value) -> Result<(Vec<u32>, Vec<f64>, usize), String> {
    let rows: Vec<Vec<f64>> = get(entry, "probabilities")?;
    let classes = rows.first().map_or(0, Vec::len);
    Ok((get(entry, "labels")?, rows.concat(), classes))
}

fn check_delong(e: &Value) -> Checked {
    let positive = positives(e)?;
    let (a, b): (Vec<f64>, Vec<f64>) = (get(e, "a")?, get(e, "b")?);
    let (da, db) = delong(&positive, &a).zip(delong(&positive, &b)).ok_or("undefined")?;
    near("auc", &[da.auc, db.auc], e)?;
    near("variance", &[da.variance, db.variance], e)?;
    near("interval", &ends(da.interval()), e)?;
    let d = delong_test(&positive, &a, &b).ok_or("no difference")?;
    near("difference_variance", &[d.variance], e)?;
    near("z", &[d.z], e)?;
    near("p", &[d.p], e)
}

fn check_mcnemar(e: &Value) -> Checked {
    let [b, c, n]: [u64; 3] = get(e, "counts")?;
    let m = mcnemar(b, c);
    near("exact_p", &[m.exact_p], e)?;
    near("chi_squared", &[m.chi_squared], e)?;
    near("chi_squared_p", &[m.chi_squared_p], e)?;
    let (difference, interval) = paired_difference(b, c, n).ok_or("no difference")?;
    near("difference", &[difference], e)?;
    near("interval", &ends(Some(interval)), e)
}

fn check_distributions(e: &Value) -> Checked {
    let list = |key: &str, f: &dyn Fn(&[f64]) -> Option<f64>| -> Checked {
        for row in get::<Vec<Vec<f64>>>(e, key)? {
            let (want, given) = row.split_last().ok_or("an empty row")?;
            let got = f(given).ok_or(format!("{key} of {given:?} is undefined"))?;
            // Small tails count relative to themselves.
            if (got - want).abs() > TOLERANCE * want.abs().max(1e-12) {
                return Err(format!("{key} of {given:?}: {got:e}, the reference has {want:e}"));
            }
        }
        Ok(())
    };
    list("normal", &|v| normal_two_sided(v[0]))?;
    list("chi_squared", &|v| chi_squared_sf(v[0], v[1]))?;
    list("t_quantile", &|v| t_quantile(v[0], v[1]))?;
    list("t_two_sided", &|v| t_two_sided(v[0], v[1]))?;
    list("binomial", &|v| binomial_two_sided(v[0] as u64, v[1] as u64))
}

fn check_repeated(e: &Value) -> Checked {
    let (values, others): (Vec<f64>, Vec<f64>) = (get(e, "values")?, get(e, "others")?);
    let [held_out, fitted]: [f64; 2] = get(e, "sizes")?;
    near("t_interval", &ends(t_interval(&values)), e)?;
    near("corrected", &ends(corrected_interval(&values, held_out, fitted)), e)?;
    let w = welch(&values, &others).ok_or("Welch's test is undefined")?;
    near("welch_p", &[w.p], e)?;
    near("welch_interval", &ends(Some(w.interval)), e)
}

fn check_operating(e: &Value) -> Checked {
    let positive = positives(e)?;
    let scores: Vec<f64> = get(e, "scores")?;
    let thresholds = e["thresholds"].as_object().ok_or("no thresholds")?;
    for (name, want) in thresholds {
        let rule = match name.split_once(' ') {
            Some(("sensitivity", v)) => Rule::Sensitivity(v.parse().map_err(|_| "no number")?),
            Some(("specificity", v)) => Rule::Specificity(v.parse().map_err(|_| "no number")?),
            _ => Rule::Youden,
        };
        match (choose_threshold(&positive, &scores, rule), want.as_f64()) {
            (Ok(got), Some(want)) if got == want => {}
            (Err(RuleError::NotReached), None) => {}
            (got, _) => return Err(format!("{name}: {got:?}, the reference has {want}")),
        }
    }
    let threshold = thresholds["youden"].as_f64().ok_or("no Youden")?;
    let p = radiograd::stats::OperatingPoint::new(&positive, &scores, threshold, None, 0);
    let counts = [p.true_positives, p.false_positives, p.true_negatives, p.false_negatives];
    near("counts", &counts.map(|n| n as f64), e)?;
    near("sensitivity_interval", &ends(p.sensitivity.images), e)
}

fn check_calibration(e: &Value) -> Checked {
    let (labels, p, classes) = rows(e)?;
    let (confidence, so) = calibration_pairs(&labels, &p, classes);
    for (key, binning) in [("uniform", Binning::EqualWidth), ("quantile", Binning::EqualMass)] {
        let table = reliability(&confidence, &so, 10, binning).ok_or("no table")?;
        let want = &e[key];
        let check = || -> Checked {
            let column = |f: fn(&radiograd::stats::Bin) -> f64| table.bins.iter().map(f).collect::<Vec<f64>>();
            near("count", &column(|b| b.count as f64), want)?;
            near("confidence", &column(|b| b.confidence), want)?;
            near("share", &column(|b| b.share), want)?;
            near("ece", &[table.ece], want)?;
            near("mce", &[table.mce], want)
        };
        check().map_err(|e| format!("{key}: {e}"))?;
    }
    let t = fit_temperature(&labels, &p, classes).map_err(|e| e.to_string())?;
    near("temperature", &[t], e)?;
    let loss = |p: &[f64]| radiograd::metrics::log_loss(&labels, p, classes).map_err(|e| e.to_string());
    near("loss_before", &[loss(&p)?], e)?;
    near("loss_after", &[loss(&apply_temperature(&p, classes, t))?], e)
}

/// Given the same draws, every score of every resample and their quantiles are the same.
fn check_resamples(e: &Value) -> Checked {
    let (labels, p, classes) = rows(e)?;
    let scored = Scored::new(&labels, &p, classes).map_err(|e| e.to_string())?;
    let indices: Vec<Vec<u32>> = get(e, "indices")?;
    let got: Vec<Vec<Option<f64>>> = indices.iter().map(|i| scored.values(i)).collect();
    for (i, row) in got.iter().enumerate() {
        let want = serde_json::json!({ "values": e["values"][i] });
        near("values", row, &want).map_err(|e| format!("resample {i}: {e}"))?;
    }
    let column = |k: usize, q: f64| {
        let mut values: Vec<f64> = got[1..].iter().filter_map(|row| row[k]).collect();
        values.sort_unstable_by(f64::total_cmp);
        quantile(&values, q)
    };
    let scores = got[0].len();
    near("low", &(0..scores).map(|k| column(k, 0.025)).collect::<Vec<_>>(), e)?;
    near("high", &(0..scores).map(|k| column(k, 0.975)).collect::<Vec<_>>(), e)
}

/// Other draws give intervals that agree within what the draws leave open.
fn check_bootstrap(e: &Value) -> Checked {
    let (labels, p, classes) = rows(e)?;
    let patients: Vec<String> = get(e, "patients")?;
    let spread: Vec<f64> = get(e, "spread")?;
    let scored = Scored::new(&labels, &p, classes).map_err(|e| e.to_string())?;
    let of_patients = Units::patients(&patients).ok_or("no patient has two images")?;
    for (key, units) in [("images", Units::images(labels.len())), ("patients_interval", of_patients)] {
        let [low, high]: [Vec<f64>; 2] = get(e, key)?;
        let got = bootstrap_many(&units, 1000, 5, |images| scored.values(images));
        for (k, interval) in got.iter().enumerate() {
            let i = interval.ok_or(format!("{key}: score {k} has no interval"))?;
            if (i.low - low[k]).abs() > DRAWN * spread[k] || (i.high - high[k]).abs() > DRAWN * spread[k] {
                return Err(format!("{key}: score {k} has {i:.5}, the reference [{}, {}]", low[k], high[k]));
            }
        }
        let (all, n) = (got.len(), radiograd::stats::Score::of(classes).len());
        if all != n || low.len() != n {
            return Err(format!("{key}: {all} intervals, {} references, {n} scores", low.len()));
        }
    }
    Ok(())
}
