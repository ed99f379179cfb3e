//! From an [`Anatomy`] to pixels.
//!
//! Attenuation is added up tissue by tissue, then exposed: gain, offset, a contrast curve, noise. Only additions,
//! multiplications, divisions and square roots are used, which every platform rounds alike, so that a seed gives the
//! same bytes everywhere.

use super::anatomy::{Anatomy, Blob, Stroke};
use super::{PhantomImage, Shot};
use crate::rng::{Stream, pcg4d};

/// Where a soft opacity lies in the image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opacity {
    /// Column of the centre; 0 is the left edge of the first pixel.
    pub x: f32,
    /// Row of the centre; 0 is the upper edge of the first pixel.
    pub y: f32,
    /// Radius at which it has faded to nothing, along the columns.
    pub rx: f32,
    /// Radius at which it has faded to nothing, along the rows.
    pub ry: f32,
    /// Attenuation added at the centre, where the lung takes away about 0.4.
    pub strength: f32,
}

/// Draws one image at `size` (height, width).
#[must_use]
pub fn draw(seed: u32, shot: Shot, (h, w): (usize, usize)) -> PhantomImage {
    let anatomy = Anatomy::new(seed, shot);
    let mut canvas = Canvas::new(&anatomy, h, w);
    canvas.tissues(&anatomy);
    for stroke in &anatomy.strokes {
        canvas.stroke(stroke);
    }
    for blob in &anatomy.nodules {
        canvas.blob(blob, None);
    }
    for (i, blob) in anatomy.opacities.iter().enumerate() {
        canvas.blob(blob, Some(seed ^ (shot.patient << 8) ^ (shot.shot << 4) ^ i as u32));
    }
    let opacities = anatomy.opacities.iter().map(|b| canvas.place(b)).collect();
    PhantomImage {
        pixels: canvas.expose(&anatomy, seed, shot),
        label: shot.label,
        opacities,
        patient: format!("person{}", shot.patient),
        name: format!("person{}_phantom_{}", shot.patient, shot.shot),
    }
}

/// 1 at the centre, 0 from `r2 = 1` on, smooth in between.
fn bump(r2: f32) -> f32 {
    let k = (1.0 - r2).max(0.0);
    k * k
}

/// Smooth step: 0 below `-soft`, 1 above `soft`.
fn step(d: f32, soft: f32) -> f32 {
    let t = (0.5 + 0.5 * d / soft).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A wave of period 1 between -1 and 1, made of parabolas.
fn wave(t: f32) -> f32 {
    let f = t - t.floor();
    if f < 0.5 { 16.0 * f * (0.5 - f) } else { -16.0 * (f - 0.5) * (1.0 - f) }
}

/// Value noise in 0..1: random values on a lattice of the integers, smooth in between.
fn noise(x: f32, y: f32, key: u32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (tx, ty) = (x - fx, y - fy);
    let (tx, ty) = (tx * tx * (3.0 - 2.0 * tx), ty * ty * (3.0 - 2.0 * ty));
    let at = |dx: i32, dy: i32| {
        let v = pcg4d([(fx as i32 + dx) as u32, (fy as i32 + dy) as u32, key, 0x7465_7874]);
        (v[0] >> 8) as f32 * (1.0 / 16_777_216.0)
    };
    let [a, b, c, d] = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
    let top = a + (b - a) * tx;
    let bottom = c + (d - c) * tx;
    top + (bottom - top) * ty
}

struct Canvas {
    h: usize,
    w: usize,
    /// Attenuation.
    a: Vec<f32>,
    /// How much lung lies in the pixel's way, 0 to 1.
    lung: Vec<f32>,
    /// The body's coordinates of each pixel's centre.
    body: Vec<(f32, f32)>,
    /// Image to body: x' = (c*(x-sx) + s*(y-sy)) / scale.
    cos: f32,
    sin: f32,
    shift: (f32, f32),
    scale: f32,
}

impl Canvas {
    fn new(a: &Anatomy, h: usize, w: usize) -> Self {
        let cos = (1.0 - a.turn * a.turn).sqrt();
        let blank = vec![0.0; h * w];
        let body = |row: usize, col: usize| {
            let u = (col as f32 + 0.5) / w as f32 * 2.0 - 1.0 - a.shift.0;
            let v = (row as f32 + 0.5) / h as f32 * 2.0 - 1.0 - a.shift.1;
            ((cos * u + a.turn * v) / a.scale, (cos * v - a.turn * u) / a.scale)
        };
        let body = (0..h).flat_map(|row| (0..w).map(move |col| body(row, col))).collect();
        Self { h, w, lung: blank.clone(), a: blank, body, cos, sin: a.turn, shift: a.shift, scale: a.scale }
    }

    /// Column and row of a point of the body.
    fn image(&self, x: f32, y: f32) -> (f32, f32) {
        let u = (self.cos * x - self.sin * y) * self.scale + self.shift.0;
        let v = (self.cos * y + self.sin * x) * self.scale + self.shift.1;
        ((u + 1.0) * 0.5 * self.w as f32, (v + 1.0) * 0.5 * self.h as f32)
    }

    fn place(&self, b: &Blob) -> Opacity {
        let (x, y) = self.image(b.x, b.y);
        // The box around an oval turned by the blob's and the body's angle together.
        let (c, s) = ((1.0 - b.turn * b.turn).sqrt(), b.turn);
        let (c, s) = (c * self.cos - s * self.sin, s * self.cos + c * self.sin);
        let rx = ((b.rx * c).powi(2) + (b.ry * s).powi(2)).sqrt() * self.scale * 0.5 * self.w as f32;
        let ry = ((b.rx * s).powi(2) + (b.ry * c).powi(2)).sqrt() * self.scale * 0.5 * self.h as f32;
        Opacity { x, y, rx, ry, strength: b.strength }
    }

    /// Body, lungs, heart, spine, ribs, clavicles, diaphragm.
    fn tissues(&mut self, a: &Anatomy) {
        // Edges are never sharper than a pixel, so that small images do not alias.
        let pixel = 2.0 / self.h.min(self.w) as f32;
        let soft = 0.02 + pixel;
        let rib_soft = (pixel / a.rib_spacing).min(0.5);
        for row in 0..self.h {
            for col in 0..self.w {
                let (x, y) = self.body[row * self.w + col];
                let side = x.abs();
                let below = y - a.shoulder;
                // Shoulders slope down from the neck; the flanks are nearly straight.
                let outline = if below < 0.0 { 0.30 + 0.25 * bump(below * below * 4.0) } else { 0.55 + 1.6 * below };
                let half = outline.min(a.body_width + 0.06 * wave(y * 0.25));
                let body = step(half - side, soft * 1.5);
                let lung = step(a.lungs[0].inside(x, y), soft * 3.0) + step(a.lungs[1].inside(x, y), soft * 3.0);
                let h = &a.heart;
                let (dx, dy) = (x - h.x, y - h.y);
                let hc = (1.0 - h.turn * h.turn).sqrt();
                let (ex, ey) = ((hc * dx + h.turn * dy) / h.rx, (hc * dy - h.turn * dx) / h.ry);
                let heart = step(1.0 - (ex * ex + ey * ey).sqrt(), soft * 5.0) * h.strength;
                let great_vessels = bump((x / (0.10 + a.spine)).powi(2)) * step(0.15 - y, 0.3);
                let air = lung.min(1.0) * (1.0 - heart) * (1.0 - 0.6 * great_vessels);
                let spine = bump((x / (a.spine * 1.6)).powi(2)) * (1.0 + 0.18 * wave(y / (a.rib_spacing * 0.62)));
                let trachea = bump((x / 0.07).powi(2)) * step(-0.25 - y, 0.1);
                let thickness = a.tissue * (1.0 - 0.25 * (side / half.max(0.1)).powi(2).min(1.0));
                let abdomen = 0.08 * step(y - 0.5 * (a.lungs[0].bottom + a.lungs[1].bottom) + 0.1, 0.12);
                let bones = self.ribs(a, x, y, rib_soft) * (0.35 + 0.65 * air) * a.rib_strength
                    + 0.7 * a.rib_strength * clavicle(a, x, y, soft);
                let i = row * self.w + col;
                self.lung[i] = air;
                self.a[i] = body
                    * (thickness + abdomen - air * (a.lung_depth - a.haze) + 0.13 * spine - 0.07 * trachea + bones);
            }
        }
    }

    /// Posterior ribs fall outwards, anterior ones inwards; where they cross, both count.
    fn ribs(&self, a: &Anatomy, x: f32, y: f32, soft: f32) -> f32 {
        let side = x.abs();
        let fade = step(side - 0.10, 0.06) * step(a.body_width - 0.06 - side, 0.05) * step(0.62 - y, 0.15);
        if fade == 0.0 {
            return 0.0;
        }
        let band = |phase: f32, width: f32| {
            let t = phase - phase.floor();
            step(0.5 * width - (t - 0.5).abs(), 0.5 * soft + 0.05)
        };
        let arch = (side - 0.25) * (side - 0.25);
        let back = band((y - a.rib_slope * side + 0.9 * arch) / a.rib_spacing + a.rib_phase, 0.38);
        let front = band((y + 1.5 * arch + 0.9 * (side - 0.3)) / (a.rib_spacing * 1.25) + 1.7 * a.rib_phase, 0.30);
        fade * (back + 0.7 * front * step(side - 0.22, 0.06))
    }

    /// The pixels of the box around a circle of the body.
    fn window(&self, x: f32, y: f32, radius: f32) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let (c, r) = self.image(x, y);
        let span = |at: f32, n: usize| {
            let reach = radius * self.scale * 0.5 * n as f32 + 1.0;
            // `as` cuts to the range of the type, so nothing far outside overflows.
            ((at - reach).max(0.0) as usize).min(n)..((at + reach + 1.0).max(0.0) as usize).min(n)
        };
        (span(r, self.h), span(c, self.w))
    }

    fn stroke(&mut self, s: &Stroke) {
        let (dx, dy) = (s.to.0 - s.from.0, s.to.1 - s.from.1);
        let length2 = (dx * dx + dy * dy).max(1e-12);
        let pixel = 2.0 / self.h.min(self.w) as f32;
        // Thinner than a pixel: as wide as one and fainter instead.
        let width = s.width.max(pixel);
        let strength = s.strength * s.width / width;
        let middle = (0.5 * (s.from.0 + s.to.0), 0.5 * (s.from.1 + s.to.1));
        let (rows, cols) = self.window(middle.0, middle.1, 0.5 * length2.sqrt() + width);
        for row in rows {
            for col in cols.clone() {
                let (x, y) = self.body[row * self.w + col];
                let t = (((x - s.from.0) * dx + (y - s.from.1) * dy) / length2).clamp(0.0, 1.0);
                let (ex, ey) = (x - s.from.0 - t * dx, y - s.from.1 - t * dy);
                self.a[row * self.w + col] += strength * bump((ex * ex + ey * ey) / (width * width));
            }
        }
    }

    /// A soft shadow; with a texture key it is uneven and keeps to the lung, as fluid in its air spaces does.
    fn blob(&mut self, b: &Blob, texture: Option<u32>) {
        let (c, s) = ((1.0 - b.turn * b.turn).sqrt(), b.turn);
        let (rows, cols) = self.window(b.x, b.y, b.rx.max(b.ry));
        for row in rows {
            for col in cols.clone() {
                let (x, y) = self.body[row * self.w + col];
                let (dx, dy) = (x - b.x, y - b.y);
                let (ex, ey) = ((c * dx + s * dy) / b.rx, (c * dy - s * dx) / b.ry);
                let mut k = bump(ex * ex + ey * ey);
                if k > 0.0 {
                    let i = row * self.w + col;
                    if let Some(key) = texture {
                        let patchy = 0.55 + 0.9 * noise(x * 9.0 + 40.0, y * 9.0 + 40.0, key);
                        k *= patchy * (0.15 + 0.85 * self.lung[i]);
                    }
                    self.a[i] += b.strength * k;
                }
            }
        }
    }

    /// Attenuation to bytes.
    fn expose(&self, a: &Anatomy, seed: u32, shot: Shot) -> Vec<u8> {
        let stream = Stream::Phantom as u32 + 0x100 + shot.shot;
        let mut out = Vec::with_capacity(self.a.len());
        for row in 0..self.h {
            for col in 0..self.w {
                let i = row * self.w + col;
                let (u, v) = (col as f32 / self.w as f32 - 0.5, row as f32 / self.h as f32 - 0.5);
                let tilt = 1.0 + 2.0 * (a.gradient.0 * u + a.gradient.1 * v);
                let x = (self.a[i] * a.gain * tilt + a.offset).clamp(0.0, 1.0);
                let x = x + a.curve * x * (1.0 - x);
                // Eight 16-bit numbers add up to a nearly normal one: mean 4, variance 8/12.
                let words = pcg4d([i as u32, stream, shot.patient, seed]);
                let sum: u32 = words.iter().map(|w| (w & 0xffff) + (w >> 16)).sum();
                let normal = (sum as f32 / 65_536.0 - 4.0) * 1.224_744_9;
                let marker = (u * 2.0 - a.marker.0).abs() < 0.05 && (v * 2.0 - a.marker.1).abs() < 0.05;
                let x = if marker { 0.97 } else { x + a.noise * normal };
                out.push((x * 255.0 + 0.5).clamp(0.0, 255.0) as u8);
            }
        }
        out
    }
}

/// The collar bones: a shallow arc from the breast bone to the shoulder.
fn clavicle(a: &Anatomy, x: f32, y: f32, soft: f32) -> f32 {
    let side = x.abs();
    let line = a.shoulder + 0.16 - 0.25 * (side - 0.1) + 0.35 * (side - 0.4) * (side - 0.4);
    step(0.035 - (y - line).abs(), soft) * step(side - 0.10, 0.05) * step(0.75 - side, 0.05)
}
