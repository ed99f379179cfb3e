//! Lines over an axis: loss and accuracy by epoch, ROC and precision-recall curves.

use super::axis::Scale;
use super::{Axis, Canvas, Plot, escape, px, shorten};

/// Units of the picture. Text of 13 in 440 stays readable when the picture is as wide as a phone.
const WIDTH: f64 = 440.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const LEGEND_ROW: f64 = 17.0;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// The points in their order; a point that is not finite breaks the line.
    pub points: Vec<(f64, f64)>,
    /// Which of the six colours and four markers; larger numbers begin anew.
    pub colour: usize,
    /// Drawn dashed and without markers.
    pub dashed: bool,
    /// The point that wears a ring.
    pub ring: Option<usize>,
}

/// A point that stands out, such as an operating point on a ROC curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// What it is, in the legend; marks of one name share a shape.
    pub name: String,
    /// Where it stands.
    pub at: (f64, f64),
    /// Its colour, that of its line.
    pub colour: usize,
    /// Ring, square, diamond or triangle; larger numbers begin anew.
    pub shape: usize,
}

/// A chart of lines.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
    /// Height of the drawing area; 210 suits epochs, 300 curves over the unit square.
    pub height: u32,
    /// Whether solid lines wear markers that tell their values.
    pub markers: bool,
    /// A thin line for comparison, such as the diagonal of chance.
    pub reference: Option<((f64, f64), (f64, f64))>,
    /// Points that stand out.
    pub marks: Vec<Mark>,
}

impl LineChart {
    /// A chart without lines.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            series: Vec::new(),
            height: 210,
            markers: false,
            reference: None,
            marks: Vec::new(),
        }
    }

    /// Draws the chart.
    #[must_use]
    pub fn draw(&self) -> Plot {
        let all = || self.series.iter().flat_map(|s| &s.points);
        let (xs, ys) = (Scale::new(&self.x, all().map(|p| p.0)), Scale::new(&self.y, all().map(|p| p.1)));
        let mut canvas = Canvas::default();
        canvas.text(LEFT - 44.0, 18.0, "title", &shorten(&self.title, 48));
        let top = self.legend(&mut canvas, 38.0) + 16.0;
        let area = Area { top, bottom: top + f64::from(self.height), xs, ys };
        area.frame(&mut canvas, &self.x.label, &self.y.label);
        if let Some((from, to)) = self.reference {
            canvas.line(area.at(from), area.at(to), "reference");
        }
        for series in &self.series {
            self.draw_series(&mut canvas, &area, series);
        }
        for mark in self.marks.iter().filter(|m| m.at.0.is_finite() && m.at.1.is_finite()) {
            let (x, y) = area.at(mark.at);
            canvas.raw(format_args!(
                "<path d=\"{}\" class=\"{}\"><title>{}: {} {:.4}, {:.4}</title></path>",
                large_marker(mark.shape, x, y),
                mark_class(mark.shape, mark.colour),
                escape(&mark.name),
                escape(&self.x.label),
                mark.at.0,
                mark.at.1
            ));
        }
        let height = (area.bottom + 42.0).ceil() as u32;
        Plot { title: self.title.clone(), width: WIDTH as u32, height, body: canvas.0 }
    }

    /// Names of the lines in even columns, as many as fit; returns where the last row ends.
    fn legend(&self, canvas: &mut Canvas, first: f64) -> f64 {
        let start = LEFT - 44.0;
        let mut kinds: Vec<&Mark> = Vec::new();
        for mark in &self.marks {
            if kinds.iter().all(|k| k.name != mark.name) {
                kinds.push(mark);
            }
        }
        let all = self.series.iter().map(|s| &s.name).chain(kinds.iter().map(|m| &m.name));
        let names: Vec<String> = all.map(|name| shorten(name, 46)).collect();
        let longest = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        // 7.1 units a character is a little more than most need.
        let width = 46.0 + 7.1 * longest as f64;
        let columns = (((WIDTH - start) / width) as usize).max(1);
        for (i, name) in names.iter().enumerate() {
            let x = start + (i % columns) as f64 * width;
            let y = first + (i / columns) as f64 * LEGEND_ROW;
            canvas.text(x + 30.0, y, "legend", name);
            let Some(series) = self.series.get(i) else {
                let shape = kinds[i - self.series.len()].shape;
                let path = large_marker(shape, x + 12.0, y - 4.0);
                canvas.raw(format_args!("<path d=\"{path}\" class=\"{}\"/>", mark_class(shape, 5)));
                continue;
            };
            canvas.line((x, y - 4.0), (x + 24.0, y - 4.0), &class(series, self.markers));
            if self.markers && !series.dashed {
                canvas.raw(format_args!(
                    "<path d=\"{}\" class=\"m{}\"/>",
                    marker(series.colour, x + 12.0, y - 4.0),
                    series.colour % 6
                ));
            }
        }
        first + names.len().div_ceil(columns) as f64 * LEGEND_ROW - LEGEND_ROW
    }

    fn draw_series(&self, canvas: &mut Canvas, area: &Area, series: &Series) {
        let mut path = String::new();
        let mut pen_down = false;
        for &p in &series.points {
            if !(p.0.is_finite() && p.1.is_finite()) {
                pen_down = false;
                continue;
            }
            let (x, y) = area.at(p);
            path.push_str(&format!("{}{} {}", if pen_down { "L" } else { "M" }, px(x), px(y)));
            pen_down = true;
        }
        if !path.is_empty() {
            canvas.raw(format_args!("<path d=\"{path}\" class=\"{}\"/>", class(series, self.markers)));
        }
        // A line of one point alone would not show.
        let alone = series.points.iter().filter(|p| p.0.is_finite() && p.1.is_finite()).count() == 1;
        for (i, &p) in series.points.iter().enumerate() {
            if !(p.0.is_finite() && p.1.is_finite()) {
                continue;
            }
            let (x, y) = area.at(p);
            if series.ring == Some(i) {
                canvas.raw(format_args!(
                    "<circle cx=\"{}\" cy=\"{}\" r=\"7.5\" class=\"ring l{}\"/>",
                    px(x),
                    px(y),
                    series.colour % 6
                ));
            }
            if self.markers && (!series.dashed || alone) {
                canvas.raw(format_args!(
                    "<path d=\"{}\" class=\"m{}\"><title>{}: {} {}, {:.4}</title></path>",
                    marker(series.colour + usize::from(series.dashed), x, y),
                    series.colour % 6,
                    escape(&series.name),
                    escape(&self.x.label),
                    p.0,
                    p.1
                ));
            }
        }
    }
}

/// Colour and dash: where no markers tell the lines apart, each has a dash of its own.
fn class(series: &Series, markers: bool) -> String {
    let colour = series.colour % 6;
    match (series.dashed, markers) {
        (true, _) => format!("l{colour} dash"),
        (false, true) => format!("l{colour}"),
        (false, false) => format!("l{colour} p{}", series.colour % 4),
    }
}

/// Circle, square, diamond or triangle around a point.
pub(super) fn marker(kind: usize, x: f64, y: f64) -> String {
    let r = 3.6;
    match kind % 4 {
        0 => format!("M{} {}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z", px(x - r), px(y), d = 2.0 * r),
        1 => format!("M{} {}h6.4v6.4h-6.4z", px(x - 3.2), px(y - 3.2)),
        2 => format!("M{} {}l4.4 4.4l-4.4 4.4l-4.4 -4.4z", px(x), px(y - 4.4)),
        _ => format!("M{} {}l4.4 7.6h-8.8z", px(x), px(y - 4.8)),
    }
}

/// The circle is hollow, so that a mark of another shape shows in it.
fn mark_class(shape: usize, colour: usize) -> String {
    if shape.is_multiple_of(4) { format!("l{} hollow mark", colour % 6) } else { format!("m{} mark", colour % 6) }
}

/// The shapes of [`marker`], larger.
fn large_marker(kind: usize, x: f64, y: f64) -> String {
    let (px, py) = (px(x), px(y));
    match kind % 4 {
        0 => format!("M{px} {py}m-7.6 0a7.6 7.6 0 1 0 15.2 0a7.6 7.6 0 1 0 -15.2 0z"),
        1 => format!("M{px} {py}m-4.8 -4.8h9.6v9.6h-9.6z"),
        2 => format!("M{px} {py}m0 -6.6l6.6 6.6l-6.6 6.6l-6.6 -6.6z"),
        _ => format!("M{px} {py}m0 -7.2l6.6 11.4h-13.2z"),
    }
}

/// The drawing area.
struct Area {
    top: f64,
    bottom: f64,
    xs: Scale,
    ys: Scale,
}

impl Area {
    /// Where a value stands; what lies outside stands at the edge.
    fn at(&self, p: (f64, f64)) -> (f64, f64) {
        let fx = self.xs.place(p.0).clamp(0.0, 1.0);
        let fy = self.ys.place(p.1).clamp(0.0, 1.0);
        (LEFT + fx * (WIDTH - RIGHT - LEFT), self.bottom - fy * (self.bottom - self.top))
    }

    /// Grid, ticks and names of the axes.
    fn frame(&self, canvas: &mut Canvas, x_label: &str, y_label: &str) {
        for (v, text) in self.ys.ticks() {
            let y = self.at((self.xs.low, v)).1;
            canvas.line((LEFT, y), (WIDTH - RIGHT, y), "grid");
            canvas.text(LEFT - 7.0, y + 4.0, "tick end", &text);
        }
        for (v, text) in self.xs.ticks() {
            let x = self.at((v, self.ys.low)).0;
            canvas.line((x, self.bottom), (x, self.bottom + 4.0), "axis");
            canvas.text(x, self.bottom + 17.0, "tick mid", &text);
        }
        canvas.line((LEFT, self.bottom), (WIDTH - RIGHT, self.bottom), "axis");
        canvas.text((LEFT + WIDTH - RIGHT) / 2.0, self.bottom + 35.0, "label mid", x_label);
        let (x, y) = (px(14.0), px((self.top + self.bottom) / 2.0));
        canvas.raw(format_args!(
            "<text x=\"{x}\" y=\"{y}\" transform=\"rotate(-90 {x} {y})\" class=\"label mid\">{}</text>",
            escape(y_label)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Range;
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> LineChart {
        let mut c = LineChart::new(
            "Loss <script>",
            Axis::new("Epoch", Range::Auto).whole(),
            Axis::new("Loss (nats)", Range::FromZero),
        );
        c.markers = true;
        for dashed in [false, true] {
            c.series.push(Series {
                name: "a & \"b\" </text>".into(),
                points: points.clone(),
                colour: 1,
                dashed,
                ring: Some(1),
            });
        }
        c
    }

    #[test]
    fn is_well_formed_and_tells_its_values() {
        let plot = chart(vec![(1.0, 0.5), (2.0, 0.25), (3.0, f64::NAN), (4.0, 0.125)]).draw();
        for svg in [plot.inline(), plot.standalone()] {
            let doc = roxmltree::Document::parse(&svg).unwrap();
            let titles: Vec<_> =
                doc.descendants().filter(|n| n.tag_name().name() == "title").filter_map(|n| n.text()).collect();
            assert_eq!(titles.len(), 3);
            assert!(titles[1].ends_with("Epoch 2, 0.2500"), "{titles:?}");
            // The hole at the NaN begins a new piece.
            let lines: Vec<_> = doc.descendants().filter(|n| n.attribute("class") == Some("l1 dash")).collect();
            let path = lines.iter().find_map(|n| n.attribute("d")).unwrap();
            assert_eq!(path.matches('M').count(), 2, "{path}");
        }
        assert!(plot.inline().contains("Loss (nats)"));
    }

    #[test]
    fn marks_stand_where_they_should_and_once_in_the_legend() {
        let mut c = chart(vec![(0.0, 0.0), (1.0, 1.0)]);
        c.marks = [(0.25, 0.75), (0.5, f64::NAN), (0.75, 0.5)]
            .map(|at| Mark { name: "threshold <0.5>".into(), at, colour: 2, shape: 2 })
            .to_vec();
        let svg = c.draw().inline();
        let doc = roxmltree::Document::parse(&svg).unwrap();
        let of = |class: &str| doc.descendants().filter(|n| n.attribute("class") == Some(class)).count();
        assert_eq!((of("m2 mark"), of("m5 mark")), (2, 1));
        assert_eq!(svg.matches(">threshold &lt;0.5&gt;</text>").count(), 1);
        assert!(svg.contains("0.2500, 0.7500</title>"), "{svg}");
    }

    #[test]
    fn draws_nothing_and_odd_things() {
        for points in [vec![], vec![(1.0, 0.5)], vec![(f64::NAN, f64::INFINITY)], vec![(1.0, 1e300), (2.0, -1e300)]] {
            let svg = chart(points).draw().inline();
            roxmltree::Document::parse(&svg).unwrap();
            assert!(!svg.contains("NaN\"") && !svg.contains("inf\""), "{svg}");
        }
    }
}
