//! Parallel coordinates: one axis a setting, one line a trial. The axes lie one below the other, so that any number of them
//! reads on a phone as well.

use super::axis::Scale;
use super::{Axis, Canvas, Plot, Range, escape, px, shorten};

const WIDTH: f64 = 440.0;
const LEFT: f64 = 14.0;
const RIGHT: f64 = 426.0;
/// From one axis to the next.
const ROW: f64 = 66.0;
const TOP: f64 = 92.0;

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Coordinate {
    /// Values in a fixed order, evenly spaced.
    Choices {
        /// The setting.
        name: String,
        /// Its values.
        values: Vec<String>,
    },
    /// Numbers.
    Numbers {
        /// Name and ends.
        axis: Axis,
        /// Spaced by logarithm, where all numbers are above 0.
        log: bool,
    },
}

/// One trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What it is, shown when pointed at.
    pub name: String,
    /// Its place on each axis: the number of the choice, or the number itself.
    pub values: Vec<f64>,
}

/// A picture of many trials.
#[derive(Clone, Debug, PartialEq)]
pub struct ParallelPlot {
    /// What it shows.
    pub title: String,
    /// The axes, from the top.
    pub axes: Vec<Coordinate>,
    /// The trials, the best first.
    pub traces: Vec<Trace>,
    /// How many of the first are drawn in colour.
    pub best: usize,
}

/// An axis that knows its places.
struct Placed {
    name: String,
    marks: Vec<(f64, String)>,
    /// Width of a choice; 0 for numbers.
    cell: f64,
    scale: Option<(Scale, bool)>,
}

impl Placed {
    fn new(coordinate: &Coordinate, values: impl Iterator<Item = f64>) -> Self {
        match coordinate {
            Coordinate::Choices { name, values } => {
                let cell = 1.0 / values.len().max(1) as f64;
                // A character takes about 7.4 units.
                let most = ((cell * (RIGHT - LEFT) - 6.0) / 7.4).max(2.0) as usize;
                let mark = |(k, v): (usize, &String)| ((k as f64 + 0.5) * cell, shorten(v, most));
                let marks = values.iter().enumerate().map(mark).collect();
                Self { name: name.clone(), marks, cell, scale: None }
            }
            Coordinate::Numbers { axis, log } => {
                let values: Vec<f64> = values.collect();
                let log = *log && values.iter().all(|v| *v > 0.0);
                let ends = |r: Range| match (r, log) {
                    (Range::Fixed(l, h), true) => Range::Fixed(l.log10(), h.log10()),
                    (r, _) => r,
                };
                let fitted = Axis { range: ends(axis.range), ..axis.clone() };
                let scale = Scale::new(&fitted, values.iter().map(|v| if log { v.log10() } else { *v }));
                let text = |(v, text): (f64, String)| {
                    let shown = if log { format!("{:.1e}", 10_f64.powf(v)) } else { text };
                    (scale.place(v), shown)
                };
                let ticks: Vec<(f64, String)> = scale.ticks().into_iter().map(text).collect();
                // Six texts are as many as fit side by side.
                let every = ticks.len().div_ceil(6).max(1);
                let marks = ticks.into_iter().step_by(every).collect();
                Self { name: axis.label.clone(), marks, cell: 0.0, scale: Some((scale, log)) }
            }
        }
    }

    /// Where a value stands, 0 to 1; `share` from 0 to 1 spreads lines over the width of a choice.
    fn place(&self, value: f64, share: f64) -> f64 {
        match &self.scale {
            Some((scale, log)) => scale.place(if *log { value.log10() } else { value }).clamp(0.0, 1.0),
            None => ((value + 0.5) + (share - 0.5) * 0.6) * self.cell,
        }
    }
}

impl ParallelPlot {
    /// Draws it.
    #[must_use]
    pub fn draw(&self) -> Plot {
        let column =
            |k: usize| self.traces.iter().filter_map(move |t| t.values.get(k).copied()).filter(|v| v.is_finite());
        let axes: Vec<Placed> = self.axes.iter().enumerate().map(|(k, a)| Placed::new(a, column(k))).collect();
        let mut canvas = Canvas::default();
        canvas.text(LEFT, 18.0, "title", &shorten(&self.title, 48));
        self.legend(&mut canvas);
        let x = |place: f64| LEFT + place * (RIGHT - LEFT);
        let y = |k: usize| TOP + k as f64 * ROW;
        // The best are drawn last, over the others.
        let last = self.traces.len().saturating_sub(1).max(1) as f64;
        for (rank, trace) in self.traces.iter().enumerate().rev() {
            let share = rank as f64 / last;
            let mut path = String::new();
            for (k, (axis, &value)) in axes.iter().zip(&trace.values).enumerate() {
                if !value.is_finite() {
                    continue;
                }
                let pen = if path.is_empty() { "M" } else { "L" };
                path.push_str(&format!("{pen}{} {}", px(x(axis.place(value, share))), px(y(k))));
            }
            let class = match rank {
                0 => "l1",
                r if r < self.best => "l0 thin",
                _ => "faint",
            };
            let name = escape(&trace.name);
            canvas.raw(format_args!("<path d=\"{path}\" class=\"{class}\"><title>{name}</title></path>"));
        }
        for (k, axis) in axes.iter().enumerate() {
            canvas.line((LEFT, y(k)), (RIGHT, y(k)), "axis");
            canvas.text(LEFT, y(k) - 9.0, "label halo", &shorten(&axis.name, 44));
            for (place, text) in &axis.marks {
                canvas.line((x(*place), y(k) - 3.0), (x(*place), y(k) + 3.0), "axis");
                let class = match *place {
                    p if p < 0.04 => "tick halo",
                    p if p > 0.96 => "tick end halo",
                    _ => "tick mid halo",
                };
                canvas.text(x(*place), y(k) + 17.0, class, text);
            }
        }
        let height = (TOP + axes.len().saturating_sub(1) as f64 * ROW + 30.0) as u32;
        Plot { title: self.title.clone(), width: WIDTH as u32, height, body: canvas.0 }
    }

    fn legend(&self, canvas: &mut Canvas) {
        let best = self.best.min(self.traces.len()).saturating_sub(1);
        let others = self.traces.len().saturating_sub(best + 1);
        let entries = [
            ("l1", "the best".to_owned()),
            ("l0 thin", format!("the next {best}")),
            ("faint", format!("{others} others")),
        ];
        for (k, (class, text)) in entries.iter().enumerate() {
            let left = LEFT + k as f64 * 140.0;
            canvas.line((left, 38.0), (left + 24.0, 38.0), class);
            canvas.text(left + 30.0, 42.0, "legend", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_is_a_line_over_every_axis() {
        let plot = ParallelPlot {
            title: "Trials <b>".into(),
            axes: vec![
                Coordinate::Choices { name: "act & more".into(), values: vec!["relu".into(), "</svg>".into()] },
                Coordinate::Numbers { axis: Axis::new("lr", Range::Fixed(1e-4, 1e-1)), log: true },
                Coordinate::Numbers { axis: Axis::new("Val. loss", Range::Auto), log: false },
            ],
            traces: (0..9)
                .map(|k| Trace {
                    name: format!("t{k}"),
                    values: vec![f64::from(k % 2), 1e-3, 0.2 + f64::from(k) / 10.0],
                })
                .collect(),
            best: 3,
        };
        let svg = plot.draw().standalone();
        let doc = roxmltree::Document::parse(&svg).unwrap();
        let lines: Vec<_> = doc.descendants().filter(|n| n.tag_name().name() == "path").collect();
        assert_eq!(lines.len(), 9);
        assert!(lines.iter().all(|l| l.attribute("d").is_some_and(|d| d.matches(['M', 'L']).count() == 3)));
        let last = lines.last().unwrap();
        assert_eq!(last.attribute("class"), Some("l1"), "the best lies on top");
        assert!(last.descendants().any(|n| n.text() == Some("t0")));
        assert!(!svg.contains("<b>"));
    }

    #[test]
    fn odd_numbers_still_draw() {
        for traces in [vec![], vec![Trace { name: String::new(), values: vec![f64::NAN, 0.0] }]] {
            let axes = vec![
                Coordinate::Numbers { axis: Axis::new("x", Range::Auto), log: true },
                Coordinate::Choices { name: "none".into(), values: Vec::new() },
            ];
            let plot = ParallelPlot { title: "t".into(), axes, traces, best: 1 };
            roxmltree::Document::parse(&plot.draw().inline()).unwrap();
        }
    }
}
