//! Bars to the right, one below the other, so that long names and any number of them read on a phone.

use super::axis::Scale;
use super::{Axis, Canvas, Plot, escape, px, shorten};

const WIDTH: f64 = 440.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 14.0;
/// What the number behind a bar takes.
const NUMBER: f64 = 58.0;
const ROW: f64 = 24.0;
/// Room above the first bar of a new group.
const GAP: f64 = 10.0;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it counts.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// The number behind it, as it stands in the table.
    pub text: String,
    /// Which of the six colours; larger numbers begin anew.
    pub colour: usize,
    /// The first bar of a group.
    pub first: bool,
}

/// A chart of bars from 0 on.
#[derive(Clone, Debug, PartialEq)]
pub struct BarChart {
    /// What it shows.
    pub title: String,
    /// What the bars measure, with its unit.
    pub axis: Axis,
    /// The bars, from the top.
    pub bars: Vec<Bar>,
}

impl BarChart {
    /// Draws the chart.
    #[must_use]
    pub fn draw(&self) -> Plot {
        let scale = Scale::new(&self.axis, self.bars.iter().map(|b| b.value));
        let full = WIDTH - LEFT - RIGHT - NUMBER;
        let at = |v: f64| LEFT + scale.place(v).clamp(0.0, 1.0) * full;
        let top = 34.0;
        let gaps = self.bars.iter().skip(1).filter(|b| b.first).count() as f64;
        let bottom = top + ROW * self.bars.len() as f64 + GAP * gaps + 6.0;
        let mut canvas = Canvas::default();
        canvas.text(14.0, 18.0, "title", &shorten(&self.title, 48));
        let ticks = scale.ticks();
        // Four numbers of five digits are as many as fit side by side.
        let every = ticks.len().div_ceil(4).max(1);
        for (v, text) in ticks.iter().step_by(every) {
            canvas.line((at(*v), top), (at(*v), bottom), "grid");
            canvas.text(at(*v), bottom + 16.0, "tick mid", text);
        }
        let mut y = top + 4.0;
        for (i, bar) in self.bars.iter().enumerate() {
            if i > 0 && bar.first {
                y += GAP;
            }
            canvas.text(LEFT - 8.0, y + 14.0, "tick end", &shorten(&bar.name, 19));
            let end = if bar.value.is_finite() { at(bar.value) } else { LEFT };
            canvas.raw(format_args!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"16\" class=\"m{}\"><title>{}, {}</title></rect>",
                px(LEFT),
                px(y + 1.0),
                px((end - LEFT).max(0.0)),
                bar.colour % 6,
                escape(&bar.name),
                escape(&bar.text)
            ));
            canvas.text(end + 6.0, y + 14.0, "tick", &bar.text);
            y += ROW;
        }
        canvas.line((LEFT, top), (LEFT, bottom), "axis");
        canvas.text(LEFT + full / 2.0, bottom + 35.0, "label mid", &self.axis.label);
        let height = (bottom + 44.0).ceil() as u32;
        Plot { title: self.title.clone(), width: WIDTH as u32, height, body: canvas.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot::Range;

    #[test]
    fn bars_stay_in_the_frame_and_tell_their_numbers() {
        let bar = |name: &str, value: f64, first| Bar {
            name: name.to_owned(),
            value,
            text: format!("{value}"),
            colour: 7,
            first,
        };
        let bars = vec![
            bar("NORMAL <b>", 1341.0, true),
            bar("a class with a very long name indeed", 3875.0, false),
            bar("none", 0.0, true),
            bar("odd", f64::NAN, false),
        ];
        for bars in [bars, Vec::new()] {
            let chart = BarChart { title: "Balance".into(), axis: Axis::new("Images", Range::FromZero).whole(), bars };
            let svg = chart.draw().standalone();
            let doc = roxmltree::Document::parse(&svg).unwrap();
            let rects: Vec<_> = doc.descendants().filter(|n| n.attribute("class") == Some("m1")).collect();
            assert_eq!(rects.len(), chart.bars.len());
            let width = |i: usize| rects[i].attribute("width").unwrap().parse::<f64>().unwrap();
            if let [a, b, ..] = &chart.bars[..] {
                assert!((width(0) / width(1) - a.value / b.value).abs() < 1e-3, "{} {}", width(0), width(1));
                assert!(LEFT + width(1) + NUMBER <= WIDTH && width(2) == 0.0);
                assert!(svg.contains(">1341</text>") && !svg.contains("<b>"));
            }
        }
    }
}
