//! The roofline plot (Williams, Waterman and Patterson, Communications of the ACM 52(4), 2009): what kernels reach over their
//! arithmetic intensity, below what memory and the arithmetic units allow. Both axes are logarithmic.

use super::line::marker;
use super::{Canvas, Plot, escape, px, shorten};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 470.0;
const KEY_ROW: f64 = 17.0;
/// Two roofs closer than this are drawn as one.
const SAME: f64 = 0.97;

/// One kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct RooflinePoint {
    /// What stands in the key beside its number.
    pub name: String,
    /// Points of one group share colour and marker.
    pub group: usize,
    /// Operations a byte.
    pub intensity: f64,
    /// GFLOP/s.
    pub rate: f64,
    /// Drawn full; the others are outlines.
    pub marked: bool,
}

/// The plot. Each roof is a rate with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Roofline {
    /// What it shows.
    pub title: String,
    /// The flat roof, in GFLOP/s.
    pub peak: (f64, String),
    /// A lower flat line, in GFLOP/s.
    pub product: (f64, String),
    /// The slanted roof, in GB/s.
    pub bandwidth: (f64, String),
    /// A lower slanted line, in GB/s.
    pub copy: (f64, String),
    /// The kernels; those with a rate or an intensity that is not positive are left out.
    pub points: Vec<RooflinePoint>,
}

/// A logarithmic axis.
struct Log {
    low: f64,
    high: f64,
}

impl Log {
    /// Ends at 1, 2 or 5 times a power of ten around all positive values, at least a decade apart.
    fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|v| v.is_finite() && *v > 1e-12 && *v < 1e15)
            .fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        let round = |v: f64, up: bool| {
            let power = 10f64.powf(v.log10().floor());
            let steps = [1.0, 2.0, 5.0, 10.0].map(|s| s * power);
            let fits = |s: &&f64| if up { **s >= v * 0.999 } else { **s <= v * 1.001 };
            let found = if up { steps.iter().find(fits) } else { steps.iter().rev().find(fits) };
            found.copied().unwrap_or(v)
        };
        let low = round(low * 0.7, false);
        Self { low, high: round(high * 1.4, true).max(low * 10.0) }
    }

    /// 0 at the low end, 1 at the high end.
    fn place(&self, v: f64) -> f64 {
        (v / self.low).ln() / (self.high / self.low).ln()
    }

    /// 1, 2 and 5 times each power of ten on the axis; only powers of ten where these would be too many.
    fn ticks(&self) -> Vec<f64> {
        let all = self.high.log10() - self.low.log10() < 4.5;
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let steps: &[f64] = if all { &[1.0, 2.0, 5.0] } else { &[1.0] };
        (first..=last)
            .flat_map(|e| steps.iter().map(move |s| s * 10f64.powi(e)))
            .filter(|v| (self.low * 0.999..=self.high * 1.001).contains(v))
            .collect()
    }
}

/// `0.05`, `2`, `20,000` without trailing zeros.
fn number(v: f64) -> String {
    let digits = (-v.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{v:.digits$}")
}

struct Area {
    xs: Log,
    ys: Log,
}

impl Area {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let (fx, fy) = (self.xs.place(x), self.ys.place(y));
        (LEFT + fx * (WIDTH - RIGHT - LEFT), BOTTOM - fy * (BOTTOM - TOP))
    }

    fn frame(&self, canvas: &mut Canvas) {
        for v in self.ys.ticks() {
            let y = self.at(self.xs.low, v).1;
            canvas.line((LEFT, y), (WIDTH - RIGHT, y), "grid");
            canvas.text(LEFT - 7.0, y + 4.0, "tick end", &number(v));
        }
        for v in self.xs.ticks() {
            let x = self.at(v, self.ys.low).0;
            canvas.line((x, TOP), (x, BOTTOM), "grid");
            canvas.text(x, BOTTOM + 17.0, "tick mid", &number(v));
        }
        canvas.line((LEFT, BOTTOM), (WIDTH - RIGHT, BOTTOM), "axis");
        canvas.line((LEFT, TOP), (LEFT, BOTTOM), "axis");
        canvas.text((LEFT + WIDTH - RIGHT) / 2.0, BOTTOM + 36.0, "label mid", "arithmetic intensity (FLOP/byte)");
        let (x, y) = (px(14.0), px((TOP + BOTTOM) / 2.0));
        canvas.raw(format_args!(
            "<text x=\"{x}\" y=\"{y}\" transform=\"rotate(-90 {x} {y})\" class=\"label mid\">GFLOP/s</text>"
        ));
    }

    /// A roof: up along `bandwidth`, then flat at `peak`.
    fn roof(&self, canvas: &mut Canvas, bandwidth: f64, peak: f64, class: &str) {
        let ridge = (peak / bandwidth).clamp(self.xs.low, self.xs.high);
        let start = (self.ys.low / bandwidth).clamp(self.xs.low, ridge);
        let at = [(start, (start * bandwidth).min(peak)), (ridge, peak), (self.xs.high, peak)];
        let [a, b, c] = at.map(|(x, y)| self.at(x, y)).map(|(x, y)| format!("{} {}", px(x), px(y)));
        canvas.raw(format_args!("<path d=\"M{a}L{b}L{c}\" class=\"{class}\" fill=\"none\"/>"));
    }
}

/// Boxes of text and markers that are taken, so that no label covers another.
#[derive(Default)]
struct Taken(Vec<[f64; 4]>);

impl Taken {
    fn overlap(&self, b: [f64; 4]) -> f64 {
        let side = |a0: f64, a1: f64, b0: f64, b1: f64| (a1.min(b1) - a0.max(b0)).max(0.0);
        self.0.iter().map(|a| side(a[0], a[2], b[0], b[2]) * side(a[1], a[3], b[1], b[3])).sum()
    }
}

impl Roofline {
    /// Draws it.
    #[must_use]
    pub fn draw(&self) -> Plot {
        let points: Vec<&RooflinePoint> =
            self.points.iter().filter(|p| [p.intensity, p.rate].iter().all(|v| v.is_finite() && *v > 0.0)).collect();
        // The ridge, where both roofs meet, is always in the picture.
        let ridge = self.peak.0 / self.bandwidth.0;
        let area = Area {
            xs: Log::around(points.iter().map(|p| p.intensity).chain([ridge, 2.0 * ridge])),
            ys: Log::around(points.iter().map(|p| p.rate).chain([self.peak.0])),
        };
        let mut canvas = Canvas::default();
        canvas.text(18.0, 20.0, "title", &shorten(&self.title, 110));
        area.frame(&mut canvas);
        if self.copy.0 < SAME * self.bandwidth.0 {
            area.roof(&mut canvas, self.copy.0, self.peak.0, "reference");
        }
        if self.product.0 < SAME * self.peak.0 {
            area.roof(&mut canvas, self.bandwidth.0, self.product.0, "reference");
        }
        area.roof(&mut canvas, self.bandwidth.0, self.peak.0, "l5");
        self.roof_names(&mut canvas, &area);
        let mut taken = Taken::default();
        let places: Vec<(f64, f64)> = points.iter().map(|p| area.at(p.intensity, p.rate)).collect();
        for (p, &(x, y)) in points.iter().zip(&places) {
            let class = if p.marked { "m" } else { "l" };
            canvas.raw(format_args!(
                "<path d=\"{}\" class=\"{class}{}\"><title>{}: {:.3} FLOP/byte, {:.2} GFLOP/s</title></path>",
                marker(p.group, x, y),
                p.group % 6,
                escape(&p.name),
                p.intensity,
                p.rate
            ));
            taken.0.push([x - 4.0, y - 4.0, x + 4.0, y + 4.0]);
        }
        for (i, &(x, y)) in places.iter().enumerate() {
            label(&mut canvas, &mut taken, (x, y), &(i + 1).to_string());
        }
        let height = self.key(&mut canvas, &points);
        Plot { title: self.title.clone(), width: WIDTH as u32, height: height.ceil() as u32, body: canvas.0 }
    }

    /// The names of the roofs, along their lines.
    fn roof_names(&self, canvas: &mut Canvas, area: &Area) {
        let (x, y) = area.at(area.xs.high, self.peak.0);
        canvas.text(x - 6.0, y - 7.0, "tick end", &format!("{} {:.1} GFLOP/s", self.peak.1, self.peak.0));
        if self.product.0 > area.ys.low && self.product.0 < SAME * self.peak.0 {
            // Left of the roof, where no kernel can be.
            let (x, y) = area.at((self.product.0 / self.bandwidth.0).clamp(area.xs.low, area.xs.high), self.product.0);
            let text = format!("{} {:.1} GFLOP/s", self.product.1, self.product.0);
            if x - LEFT > 7.6 * text.len() as f64 {
                canvas.text(x - 10.0, y + 4.0, "tick end", &text);
            } else {
                canvas.text(WIDTH - RIGHT - 6.0, y - 7.0, "tick end", &text);
            }
        }
        let slope = ((BOTTOM - TOP) / (area.ys.high / area.ys.low).ln())
            / ((WIDTH - RIGHT - LEFT) / (area.xs.high / area.xs.low).ln());
        let angle = -slope.atan().to_degrees();
        let mut along = |rate: f64, name: &str, above: bool| {
            // A third of the way up the part of the line that shows.
            let low = area.xs.low.max(area.ys.low / rate);
            let high = (self.peak.0 / rate).min(area.xs.high);
            if low >= high {
                return;
            }
            let at = low * (high / low).powf(0.3);
            let (x, y) = area.at(at, at * rate);
            let dy = if above { -8.0 } else { 17.0 };
            canvas.raw(format_args!(
                "<text transform=\"translate({} {}) rotate({angle:.1})\" x=\"0\" y=\"{dy}\" class=\"tick\">{} {rate:.1} GB/s</text>",
                px(x),
                px(y),
                escape(name)
            ));
        };
        along(self.bandwidth.0, &self.bandwidth.1, true);
        if self.copy.0 < SAME * self.bandwidth.0 {
            along(self.copy.0, &self.copy.1, false);
        }
    }

    /// Numbers and names in two columns; returns where they end.
    fn key(&self, canvas: &mut Canvas, points: &[&RooflinePoint]) -> f64 {
        let top = BOTTOM + 66.0;
        let rows = points.len().div_ceil(2);
        for (i, p) in points.iter().enumerate() {
            let x = 18.0 + if i >= rows { WIDTH / 2.0 } else { 0.0 };
            let y = top + (i % rows.max(1)) as f64 * KEY_ROW;
            let class = if p.marked { "m" } else { "l" };
            canvas.raw(format_args!(
                "<path d=\"{}\" class=\"{class}{}\"/>",
                marker(p.group, x + 34.0, y - 4.5),
                p.group % 6
            ));
            canvas.text(x + 22.0, y, "tick end", &(i + 1).to_string());
            canvas.text(x + 46.0, y, "legend", &shorten(&p.name, 60));
        }
        top + rows as f64 * KEY_ROW
    }
}

/// Writes a number beside a marker where it covers the least.
fn label(canvas: &mut Canvas, taken: &mut Taken, (x, y): (f64, f64), text: &str) {
    let width = 7.6 * text.len() as f64;
    let mut best: Option<(f64, [f64; 4])> = None;
    for distance in [6.0, 16.0, 28.0, 42.0] {
        for (dx, dy) in [(1.0, -0.4), (1.0, 0.6), (-1.0, -0.4), (-1.0, 0.6), (0.0, -1.0), (0.0, 1.0)] {
            let left = x + dx * distance
                - if dx < 0.0 {
                    width
                } else if dx == 0.0 {
                    width / 2.0
                } else {
                    0.0
                };
            let middle = y + dy * (distance + 5.0);
            let place = [left, middle - 5.5, left + width, middle + 5.5];
            let inside = place[0] >= LEFT && place[2] <= WIDTH - RIGHT && place[1] >= TOP - 10.0 && place[3] <= BOTTOM;
            let cost = taken.overlap(place) + distance * 0.4 + if inside { 0.0 } else { 500.0 };
            if best.is_none_or(|b| cost < b.0) {
                best = Some((cost, place));
            }
        }
    }
    let Some((_, place)) = best else { return };
    taken.0.push(place);
    let (cx, cy) = ((place[0] + place[2]) / 2.0, (place[1] + place[3]) / 2.0);
    if (cx - x).hypot(cy - y) > 20.0 {
        canvas.line((x, y), (cx, cy), "grid");
    }
    canvas.text(place[0], place[3] - 1.0, "tick", text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<RooflinePoint>) -> String {
        let named = |rate, name: &str| (rate, name.to_owned());
        Roofline {
            title: "Roofline: <an adapter> & co".to_owned(),
            peak: named(200.0, "multiply-adds"),
            product: named(42.0, "best product"),
            bandwidth: named(20.0, "memory"),
            copy: named(15.0, "copy"),
            points,
        }
        .draw()
        .standalone()
    }

    fn point(intensity: f64, rate: f64) -> RooflinePoint {
        RooflinePoint { name: "conv2d \"a\" <b>".to_owned(), group: 3, intensity, rate, marked: rate > 1.0 }
    }

    #[test]
    fn every_point_has_a_number_and_a_name() {
        let svg = plot((1..=30).map(|i| point(f64::from(i), 2.0 + f64::from(i))).collect());
        let doc = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<&str> =
            doc.descendants().filter(|n| n.tag_name().name() == "text").filter_map(|n| n.text()).collect();
        for i in 1..=30 {
            // Once beside the marker, once in the key; an axis may show the number too.
            assert!(texts.iter().filter(|t| **t == i.to_string()).count() >= 2, "{i}: {texts:?}");
        }
        for roof in ["multiply-adds 200.0 GFLOP/s", "best product 42.0 GFLOP/s", "memory 20.0 GB/s", "copy 15.0 GB/s"] {
            assert!(texts.contains(&roof), "{roof}: {texts:?}");
        }
    }

    #[test]
    fn odd_numbers_draw_nothing_odd() {
        for points in
            [vec![], vec![point(1.0, 1e-30)], vec![point(f64::NAN, 1.0), point(1.0, 0.0)], vec![point(1e9, 1e14)]]
        {
            let svg = plot(points);
            roxmltree::Document::parse(&svg).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
        }
    }

    #[test]
    fn ticks_are_round() {
        let log = Log::around([0.3, 40.0].into_iter());
        assert_eq!((log.low, log.high), (0.2, 100.0));
        let texts: Vec<String> = log.ticks().into_iter().map(number).collect();
        assert_eq!(texts, ["0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]);
    }
}
