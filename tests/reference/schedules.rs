//! `schedules.json`: `schedule`, `params`, `base_lr`, `lr` (the rate used in each step), and for reduce-on-plateau
//! `losses` (the metric measured after each step).

use radiograd::optim::{Schedule, Scheduler};
use serde_json::Value;

/// The largest relative error of a rate.
const TOLERANCE: f64 = 1e-12;

/// Compares every rate of one entry; also that a scheduler resumed at each step gives the same rate.
///
/// # Errors
/// One line that names the schedule and the first step that differs, or what the entry holds that is not known.
pub fn check_case(entry: &Value) -> Result<(), String> {
    let name = entry["schedule"].as_str().ok_or("an entry without `schedule`")?;
    let fail = |what: String| format!("schedule {name}: {what}");
    let known = ["schedule", "params", "base_lr", "lr", "losses", "metrics"];
    let entry_map = entry.as_object().ok_or_else(|| fail("not an object".into()))?;
    if let Some(key) = entry_map.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(fail(format!("unknown field `{key}`")));
    }
    let mut settings = entry["params"].as_object().cloned().unwrap_or_default();
    settings.insert("name".into(), name.into());
    let schedule: Schedule = serde_json::from_value(settings.into()).map_err(|e| fail(e.to_string()))?;
    let numbers = |key: &str| -> Option<Vec<f64>> { entry.get(key)?.as_array()?.iter().map(Value::as_f64).collect() };
    let base = entry["base_lr"].as_f64().ok_or_else(|| fail("no base_lr".into()))?;
    let want = numbers("lr").filter(|v| !v.is_empty()).ok_or_else(|| fail("no lr".into()))?;
    let metrics = numbers("losses").or_else(|| numbers("metrics"));

    let mut scheduler = Scheduler::new(schedule.clone(), base).map_err(|e| fail(e.to_string()))?;
    for (step, &want) in want.iter().enumerate() {
        let got = scheduler.lr();
        let scale = if want == 0.0 { base } else { want.abs() };
        if (got - want).abs() > TOLERANCE * scale || got.is_nan() {
            return Err(fail(format!("step {step}: {got:e}, PyTorch has {want:e}")));
        }
        let text = serde_json::to_string(scheduler.state()).map_err(|e| fail(e.to_string()))?;
        let state = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        let resumed = Scheduler::resume(schedule.clone(), base, state).map_err(|e| fail(e.to_string()))?;
        if resumed.lr().to_bits() != got.to_bits() {
            return Err(fail(format!("step {step}: {:e} after resuming instead of {got:e}", resumed.lr())));
        }
        let metric = match &metrics {
            None => None,
            Some(m) => Some(*m.get(step).ok_or_else(|| fail(format!("no loss for step {step}")))?),
        };
        scheduler.step(metric);
    }
    Ok(())
}
