//! `metrics.json`: labels, probabilities, and what scikit-learn makes of them.

use radiograd::metrics::Metrics;
use serde_json::{Map, Value};

/// The largest difference from scikit-learn.
const TOLERANCE: f64 = 1e-9;

/// Compares every value of one entry.
///
/// # Errors
/// One line that names the entry's kind and the first key that differs or is not known.
pub fn check_case(entry: &Value) -> Result<(), String> {
    let kind = entry["kind"].as_str().unwrap_or("of no kind");
    let entry = entry.as_object().ok_or("an entry that is no object")?;
    check(entry).map_err(|e| format!("metrics {kind}: {e}"))
}

fn check(entry: &Map<String, Value>) -> Result<(), String> {
    let get = |key: &str| entry.get(key).ok_or(format!("no key `{key}`"));
    let labels: Vec<u32> = serde_json::from_value(get("labels")?.clone()).map_err(|e| format!("labels: {e}"))?;
    let rows: Vec<Vec<f64>> =
        serde_json::from_value(get("probabilities")?.clone()).map_err(|e| format!("probabilities: {e}"))?;
    let classes = rows.first().map_or(0, Vec::len);
    if let Some(i) = rows.iter().position(|row| row.len() != classes) {
        return Err(format!("probabilities: row {i} has {} numbers, the first one {classes}", rows[i].len()));
    }
    let m = Metrics::new(&labels, &rows.concat(), classes).map_err(|e| e.to_string())?;
    let binary = || m.binary.ok_or("only two classes have this".to_owned());

    for (key, want) in entry {
        let got = match key.as_str() {
            "kind" | "labels" | "probabilities" => continue,
            "confusion" => m.confusion.rows().iter().flatten().map(|&n| n as f64).collect(),
            "accuracy" => vec![m.accuracy],
            "precision" => m.classes.iter().map(|c| c.precision).collect(),
            "recall" => m.classes.iter().map(|c| c.recall).collect(),
            "f1" => m.classes.iter().map(|c| c.f1).collect(),
            "support" => m.classes.iter().map(|c| c.support as f64).collect(),
            "macro_f1" => vec![m.macro_f1],
            "log_loss" => vec![m.log_loss],
            "roc_auc" => m.roc_auc().into_iter().collect(),
            "average_precision" => binary()?.average_precision.into_iter().collect(),
            "brier" => vec![binary()?.brier],
            other => return Err(format!("unknown key `{other}`")),
        };
        let want = numbers(want).ok_or(format!("{key}: {want} is no number or list of numbers"))?;
        let equal = got.len() == want.len() && got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= TOLERANCE);
        if !equal {
            return Err(format!("{key}: {got:?}, scikit-learn has {want:?}"));
        }
    }
    // An entry of two classes leaves the AUC out where it is undefined.
    match m.roc_auc() {
        Some(auc) if classes == 2 && !entry.contains_key("roc_auc") => {
            Err(format!("roc_auc: {auc}, but it is undefined here"))
        }
        _ => Ok(()),
    }
}

/// The numbers of a nested list, in order; `null` stands for undefined and gives none.
fn numbers(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Number(n) => n.as_f64().map(|n| vec![n]),
        Value::Array(items) => items.iter().map(numbers).collect::<Option<Vec<_>>>().map(|lists| lists.concat()),
        _ => None,
    }
}
