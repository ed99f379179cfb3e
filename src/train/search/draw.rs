//! Draws of random search: counter-based, so that draw number 17 is the same whatever was drawn before.

use toml::Value;

use super::grid::{Axis, Span, Values};
use crate::rng::{Rng, Stream};

/// Draw number `number`: a value on each axis.
pub(super) fn point(axes: &[Axis], seed: u32, number: u32) -> Vec<Value> {
    let mut rng = Rng::new(seed, number, Stream::Search as u32);
    axes.iter()
        .map(|axis| match &axis.values {
            Values::List(values) => values[rng.below(values.len() as u32) as usize].clone(),
            Values::Range(span) => span.value(f64::from(rng.uniform())),
        })
        .collect()
}

impl Span {
    /// The value at `share` of the way from min to max, `share` in `[0, 1)`. Numbers keep four digits, so that tables read
    /// well and a value that is copied from one is the value that was used.
    pub(super) fn value(self, share: f64) -> Value {
        // Whole numbers are cells of width one.
        let max = if self.whole { self.max + 1.0 } else { self.max };
        let value = match self.log {
            true => (self.min.ln() + share * (max.ln() - self.min.ln())).exp(),
            false => self.min + share * (max - self.min),
        };
        if self.whole {
            return Value::Integer(value.floor().clamp(self.min, self.max) as i64);
        }
        let short: f64 = format!("{value:.3e}").parse().unwrap_or(value);
        Value::Float(short.clamp(self.min, self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_reached_from_end_to_end() {
        let whole = Span { min: 1.0, max: 3.0, log: false, whole: true };
        let drawn: Vec<i64> = [0.0, 0.34, 0.5, 0.67, 0.999].map(|s| whole.value(s).as_integer().unwrap()).to_vec();
        assert_eq!(drawn, [1, 2, 2, 3, 3]);
        let log = Span { min: 1e-4, max: 1e-2, log: true, whole: false };
        assert_eq!([0.0, 0.5].map(|s| log.value(s).as_float().unwrap()), [1e-4, 1e-3]);
        let negative = Span { min: -1.0, max: 1.0, log: false, whole: false };
        assert_eq!(negative.value(0.25), Value::Float(-0.5));
    }
}
