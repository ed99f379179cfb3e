//! A forest plot: one line a measurement, a point with its interval.

use super::axis::Scale;
use super::{Axis, Canvas, Plot, px, shorten};

const WIDTH: f64 = 440.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 14.0;
const ROW: f64 = 28.0;

/// One line of the plot.
#[derive(Clone, Debug, PartialEq)]
pub struct ForestRow {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its intervals, drawn below each other: the first solid, the second dashed; `None` where there is none.
    pub intervals: [Option<(f64, f64)>; 2],
    /// Drawn in the second colour and with a diamond, to stand out.
    pub marked: bool,
}

/// A forest plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    /// What it shows.
    pub title: String,
    /// The axis of the values.
    pub axis: Axis,
    /// The lines, from the top.
    pub rows: Vec<ForestRow>,
    /// A thin line for comparison, such as no difference.
    pub reference: Option<f64>,
}

impl Forest {
    /// Draws the plot.
    #[must_use]
    pub fn draw(&self) -> Plot {
        let values = self
            .rows
            .iter()
            .flat_map(|r| r.intervals.iter().flatten().flat_map(|i| [i.0, i.1]).chain([r.value]).collect::<Vec<f64>>());
        let scale = Scale::new(&self.axis, values.chain(self.reference));
        let at = |v: f64| LEFT + scale.place(v) * (WIDTH - LEFT - RIGHT);
        let (top, bottom) = (36.0, 36.0 + ROW * self.rows.len() as f64 + 6.0);
        let mut canvas = Canvas::default();
        canvas.text(14.0, 18.0, "title", &shorten(&self.title, 48));
        let ticks = scale.ticks();
        // Five texts are as many as fit side by side.
        let every = ticks.len().div_ceil(5).max(1);
        for (i, (v, text)) in ticks.iter().enumerate() {
            canvas.line((at(*v), top), (at(*v), bottom), "grid");
            if i % every == 0 {
                let class = if at(*v) > WIDTH - 24.0 { "tick end" } else { "tick mid" };
                canvas.text(at(*v).min(WIDTH - 2.0), bottom + 16.0, class, text);
            }
        }
        canvas.line((LEFT, bottom), (WIDTH - RIGHT, bottom), "axis");
        canvas.text((LEFT + WIDTH - RIGHT) / 2.0, bottom + 36.0, "label mid", &self.axis.label);
        if let Some(v) = self.reference {
            canvas.line((at(v), top), (at(v), bottom), "reference");
        }
        for (k, row) in self.rows.iter().enumerate() {
            let y = top + (k as f64 + 0.5) * ROW + 3.0;
            canvas.text(LEFT - 10.0, y + 4.0, "tick end", &shorten(&row.name, 19));
            let colour = usize::from(row.marked);
            for (i, interval) in row.intervals.iter().enumerate() {
                let Some((low, high)) = interval.filter(|i| i.0.is_finite() && i.1.is_finite()) else { continue };
                let (y, dash) = if i == 0 { (y - 3.0, "") } else { (y + 5.0, " dash") };
                canvas.line((at(low), y), (at(high), y), &format!("l{colour}{dash}"));
                for end in [low, high] {
                    canvas.line((at(end), y - 4.0), (at(end), y + 4.0), &format!("l{colour}"));
                }
            }
            if row.value.is_finite() {
                let (x, y) = (at(row.value), y - 3.0);
                let (x, y) = (px(x), px(y));
                let shape = if row.marked { "m0 -6l6 6l-6 6l-6 -6z" } else { "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z" };
                canvas.raw(format_args!("<path d=\"M{x} {y}{shape}\" class=\"m{colour}\"/>"));
            }
        }
        let height = (bottom + 46.0).ceil() as u32;
        Plot { title: self.title.clone(), width: WIDTH as u32, height, body: canvas.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot::Range;

    #[test]
    fn any_rows_make_valid_svg_inside_the_frame() {
        let row =
            |name: &str, value, a, b| ForestRow { name: name.to_owned(), value, intervals: [a, b], marked: false };
        let rows = vec![
            row("cnn1 <b>", 0.01, Some((-0.02, 0.04)), Some((-0.03, 0.05))),
            row("a very long name of a run that does not fit", -0.4, None, Some((-0.5, -0.3))),
            ForestRow { marked: true, ..row("nothing", f64::NAN, Some((f64::NAN, 1.0)), None) },
        ];
        for rows in [rows, Vec::new()] {
            let forest = Forest {
                title: "Differences".to_owned(),
                axis: Axis::new("points", Range::Auto),
                rows,
                reference: Some(0.0),
            };
            let svg = forest.draw().standalone();
            let doc = roxmltree::Document::parse(&svg).unwrap();
            for line in doc.descendants().filter(|n| n.tag_name().name() == "line") {
                for key in ["x1", "x2"] {
                    let x: f64 = line.attribute(key).unwrap().parse().unwrap();
                    assert!((0.0..=WIDTH).contains(&x), "{svg}");
                }
            }
            assert!(!svg.contains("NaN") && !svg.contains("<b>"), "{svg}");
        }
    }
}
