//! Pictures as SVG text, written by hand: lines, axes and labels are few enough, and only so can colours follow the
//! reader's light or dark theme.
//!
//! A [`Plot`] scales with its place (`viewBox`, no fixed size) and needs no script. Colours are those of Okabe and Ito
//! ("Color Universal Design", 2008), darkened or lightened to stand out on either ground; no meaning hangs on colour
//! alone: series also differ by dash and marker.

mod axis;
mod bars;
mod forest;
mod line;
mod matrix;
mod parallel;
mod roofline;

use std::fmt::Write as _;

pub use axis::{Axis, Range};
pub use bars::{Bar, BarChart};
pub use forest::{Forest, ForestRow};
pub use line::{LineChart, Mark, Series};
pub use matrix::confusion_plot;
pub use parallel::{Coordinate, ParallelPlot, Trace};
pub use roofline::{Roofline, RooflinePoint};

/// The style of every plot, light and dark. A page that shows plots inline needs it once.
pub const STYLE: &str = include_str!("../templates/plot.css");

/// A finished picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    title: String,
    width: u32,
    height: u32,
    body: String,
}

impl Plot {
    /// What the picture shows.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// An `<svg>` element for a page that carries [`STYLE`].
    #[must_use]
    pub fn inline(&self) -> String {
        let (w, h, title) = (self.width, self.height, escape(&self.title));
        format!("<svg class=\"plot\" viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{title}\">{}</svg>", self.body)
    }

    /// A whole SVG file.
    #[must_use]
    pub fn standalone(&self) -> String {
        let (w, h, title) = (self.width, self.height, escape(&self.title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" width=\"{}\" height=\"{}\" \
             viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{title}\"><style>{STYLE}</style>\
             <rect class=\"paper\" width=\"{w}\" height=\"{h}\"/>{}</svg>\n",
            w * 2,
            h * 2,
            self.body
        )
    }
}

/// Elements in the order of drawing.
#[derive(Default)]
struct Canvas(String);

impl Canvas {
    /// Adds an element as it stands; whatever comes from outside must have gone through [`escape`].
    fn raw(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(element);
    }

    /// Adds text at a point. `class` is a list of names of the style sheet.
    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.raw(format_args!("<text x=\"{}\" y=\"{}\" class=\"{class}\">{}</text>", px(x), px(y), escape(text)));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let (x1, y1, x2, y2) = (px(from.0), px(from.1), px(to.0), px(to.1));
        self.raw(format_args!("<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" class=\"{class}\"/>"));
    }
}

/// A coordinate with a tenth of a unit, the finest that shows.
fn px(v: f64) -> String {
    let text = format!("{v:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Escapes text for XML content and double-quoted attributes; characters that XML forbids become blanks.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push(' '),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// At most `most` characters, the last one a sign that some are missing.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Leaves out points that do not show: no kept line is further than `tolerance` from a point that was left out.
///
/// First neighbours closer than a third of the tolerance go, which bounds the work on long curves; then the lines are
/// simplified by Ramer (Computer Graphics and Image Processing 1, 1972) and Douglas and Peucker (Cartographica 10, 1973).
/// Points that are not finite are left out.
#[must_use]
pub fn thin(points: &[(f64, f64)], tolerance: f64) -> Vec<(f64, f64)> {
    let finite = || points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite());
    let mut near: Vec<(f64, f64)> = Vec::new();
    for p in finite() {
        let moved = near.last().is_none_or(|q| (p.0 - q.0).abs().max((p.1 - q.1).abs()) >= tolerance / 3.0);
        if moved {
            near.push(p);
        }
    }
    if let Some(last) = finite().next_back()
        && near.last() != Some(&last)
    {
        near.push(last);
    }
    if near.len() < 3 {
        return near;
    }
    let mut keep = vec![false; near.len()];
    keep[0] = true;
    keep[near.len() - 1] = true;
    let mut open = vec![(0, near.len() - 1)];
    while let Some((a, b)) = open.pop() {
        let far = (a + 1..b)
            .map(|i| (i, distance(near[i], near[a], near[b])))
            .max_by(|x, y| x.1.total_cmp(&y.1))
            .filter(|f| f.1 > tolerance * 2.0 / 3.0);
        if let Some((i, _)) = far {
            keep[i] = true;
            open.push((a, i));
            open.push((i, b));
        }
    }
    near.into_iter().zip(keep).filter_map(|(p, k)| k.then_some(p)).collect()
}

/// The distance of `p` from the stretch between `a` and `b`.
fn distance(p: (f64, f64), a: (f64, f64), b: (f64, f64)) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length2 = dx * dx + dy * dy;
    let t = if length2 > 0.0 { (((p.0 - a.0) * dx + (p.1 - a.1) * dy) / length2).clamp(0.0, 1.0) } else { 0.0 };
    (p.0 - a.0 - t * dx).hypot(p.1 - a.1 - t * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_ends_and_corners() {
        let mut stairs: Vec<(f64, f64)> = (0..=1000).map(|i| (0.0, f64::from(i) / 1000.0)).collect();
        stairs.extend((0..=1000).map(|i| (f64::from(i) / 1000.0, 1.0)));
        assert_eq!(thin(&stairs, 0.003), [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]);
        let wave: Vec<(f64, f64)> =
            (0..20_000).map(|i| (f64::from(i) / 20_000.0, (f64::from(i) / 900.0).sin())).collect();
        let kept = thin(&wave, 0.003);
        assert!(kept.len() < 1500, "{}", kept.len());
        for p in wave.iter().step_by(7) {
            let near = kept.windows(2).map(|w| distance(*p, w[0], w[1])).fold(f64::INFINITY, f64::min);
            assert!(near <= 0.003, "{p:?} is {near} away");
        }
        assert_eq!(thin(&[(f64::NAN, 1.0), (1.0, 2.0)], 0.1), [(1.0, 2.0)]);
        assert!(thin(&[], 0.1).is_empty());
    }

    #[test]
    fn text_is_made_safe() {
        assert_eq!(escape("a<b> & \"c\"\u{1}'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;");
        assert_eq!(shorten("pneumonia", 6), "pneum…");
        assert_eq!((px(1.0), px(-0.26)), ("1".to_owned(), "-0.3".to_owned()));
    }
}
