//! From values to places: ranges with round ends, and where the ticks stand.

/// What part of the numbers an axis shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// What the points need, widened to round numbers.
    Auto,
    /// As [`Range::Auto`], but zero is shown as well.
    FromZero,
    /// As [`Range::Auto`], but never beyond `[0, 1]`: for shares and probabilities.
    Share,
    /// Exactly this.
    Fixed(f64, f64),
}

/// An axis with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Its name, with the unit if there is one.
    pub label: String,
    /// What it shows.
    pub range: Range,
    /// Ticks at whole numbers only.
    pub whole: bool,
}

impl Axis {
    /// An axis.
    pub fn new(label: impl Into<String>, range: Range) -> Self {
        Self { label: label.into(), range, whole: false }
    }

    /// Puts ticks at whole numbers only, as for epochs.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }
}

/// An axis that knows its ends and its ticks.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    step: f64,
}

impl Scale {
    /// Fits an axis to the finite ones of `values`.
    pub fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) =
            values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        match axis.range {
            Range::Fixed(l, h) if l < h => {
                return Self { low: l, high: h, step: step(h - l, axis.whole) };
            }
            Range::FromZero => (low, high) = (low.min(0.0), high.max(0.0)),
            _ => {}
        }
        // A range too narrow for its own digits would have ticks that do not differ.
        let least = (low.abs().max(high.abs()) * 1e-9).max(1e-12);
        if high - low < least {
            let pad = if axis.whole { 1.0 } else { (high.abs() * 0.1).max(least) };
            high += pad;
            if axis.range != Range::FromZero {
                low -= pad;
            }
        }
        if axis.range == Range::Share {
            (low, high) = (low.clamp(0.0, 1.0 - 1e-6), high.clamp(1e-6, 1.0));
        }
        let step = step(high - low, axis.whole);
        if axis.whole {
            return Self { low, high, step };
        }
        // The allowance keeps a rounding error from adding a whole step.
        Self { low: (low / step + 1e-9).floor() * step, high: (high / step - 1e-9).ceil() * step, step }
    }

    /// 0 at the low end, 1 at the high end.
    pub fn place(&self, v: f64) -> f64 {
        (v - self.low) / (self.high - self.low)
    }

    /// Tick values and their texts, rising.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let digits = (-self.step.log10()).ceil().clamp(0.0, 12.0) as usize;
        let first = (self.low / self.step - 1e-6).ceil();
        let last = (self.high / self.step + 1e-6).floor();
        // At most ten or so by the choice of the step; the limit guards against values near the end of f64.
        (0..20)
            .map(|i| first + f64::from(i))
            .take_while(|k| *k <= last)
            .map(|k| {
                // Adding 0 turns -0 into 0.
                let v = k * self.step + 0.0;
                (v, format!("{v:.digits$}"))
            })
            .collect()
    }
}

/// A round step (1, 2 or 5 times a power of ten) that cuts `span` into four to ten pieces.
fn step(span: f64, whole: bool) -> f64 {
    let raw = span / 6.0;
    let power = 10_f64.powf(raw.log10().floor());
    let factor = match raw / power {
        f if f <= 1.0 => 1.0,
        f if f <= 2.0 => 2.0,
        f if f <= 5.0 => 5.0,
        _ => 10.0,
    };
    let step = factor * power;
    if whole { step.max(1.0) } else { step }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(range: Range, values: &[f64]) -> Scale {
        Scale::new(&Axis::new("", range), values.iter().copied())
    }

    #[test]
    fn ends_are_round_and_hold_the_points() {
        let s = scale(Range::Auto, &[0.913, f64::NAN, 0.976]);
        assert!(s.low <= 0.913 && s.low >= 0.9 && s.high >= 0.976 && s.high <= 1.0, "{s:?}");
        let texts: Vec<String> = s.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(texts.first().map(String::as_str), Some("0.90"), "{texts:?}");
        assert_eq!(scale(Range::FromZero, &[0.2, 0.43]).low, 0.0);
    }

    #[test]
    fn shares_end_at_one() {
        for values in [&[1.0][..], &[0.0], &[0.98, 1.0], &[0.0, 1.0], &[0.0, 0.01]] {
            let s = scale(Range::Share, values);
            assert!(s.low >= 0.0 && s.high <= 1.0 + 1e-12, "{values:?}: {s:?}");
        }
    }

    #[test]
    fn odd_ranges_still_have_ticks() {
        for values in [&[][..], &[0.5], &[0.0, 0.0], &[f64::NAN], &[-1e300, 1e300], &[1e-9, 2e-9], &[f64::INFINITY]] {
            for range in [Range::Auto, Range::FromZero, Range::Share, Range::Fixed(0.0, 1.0), Range::Fixed(1.0, 1.0)] {
                let s = scale(range, values);
                let ticks = s.ticks();
                assert!((2..=20).contains(&ticks.len()), "{range:?} {values:?}: {ticks:?}");
                assert!(s.low < s.high && ticks.iter().all(|t| s.place(t.0).is_finite()), "{s:?}");
            }
        }
    }

    #[test]
    fn epochs_are_whole() {
        let s = Scale::new(&Axis::new("Epoch", Range::Auto).whole(), [1.0, 6.0].into_iter());
        let texts: Vec<String> = s.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(texts, ["1", "2", "3", "4", "5", "6"]);
    }
}
