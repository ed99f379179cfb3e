//! A thorax in numbers: what differs from patient to patient, and from image to image of one patient.
//!
//! Coordinates are those of the body: x to the right of the image, y down, both about -1 to 1.

use crate::rng::{Rng, Stream};

use super::Shot;

/// A round or oval shadow inside a lung: centre, radii, added attenuation.
#[derive(Clone, Copy, Debug)]
pub struct Blob {
    pub x: f32,
    pub y: f32,
    pub rx: f32,
    pub ry: f32,
    /// Sine of the angle by which the oval is turned.
    pub turn: f32,
    pub strength: f32,
}

/// A straight line that tapers: vessels and wires.
#[derive(Clone, Copy, Debug)]
pub struct Stroke {
    pub from: (f32, f32),
    pub to: (f32, f32),
    pub width: f32,
    pub strength: f32,
}

/// What one image shows.
#[derive(Clone, Debug)]
pub struct Anatomy {
    /// Sine of the rotation, shift and scale of the body in the image.
    pub turn: f32,
    pub shift: (f32, f32),
    pub scale: f32,
    pub body_width: f32,
    pub shoulder: f32,
    /// Left and right lung: centre x, half width, top, height of the dome of the diaphragm.
    pub lungs: [Lung; 2],
    pub lung_depth: f32,
    pub heart: Blob,
    pub spine: f32,
    pub rib_spacing: f32,
    pub rib_phase: f32,
    pub rib_strength: f32,
    pub rib_slope: f32,
    pub tissue: f32,
    /// Even veil over both lungs: breathing out, a thick chest wall.
    pub haze: f32,
    /// Change of exposure across the image, per unit of x and of y.
    pub gradient: (f32, f32),
    pub gain: f32,
    pub offset: f32,
    pub curve: f32,
    pub noise: f32,
    pub strokes: Vec<Stroke>,
    /// Small round shadows (vessels seen end-on, nipples, nodules): in both classes.
    pub nodules: Vec<Blob>,
    /// Pneumonia.
    pub opacities: Vec<Blob>,
    pub marker: (f32, f32),
}

#[derive(Clone, Copy, Debug)]
pub struct Lung {
    pub x: f32,
    pub width: f32,
    pub top: f32,
    pub bottom: f32,
    pub dome: f32,
}

impl Lung {
    /// Signed closeness to the inside: positive inside, negative outside, about 1 in the middle.
    pub fn inside(&self, x: f32, y: f32) -> f32 {
        let cy = 0.5 * (self.top + self.bottom) + 0.18;
        let height = cy - self.top;
        let dy = (y - cy) / height;
        // The apex leans towards the spine.
        let lean = if y < cy { -0.10 * self.x.signum() * dy * dy } else { 0.0 };
        let dx = (x - self.x - lean) / self.width;
        let oval = 1.0 - (dx * dx + dy * dy * if dy < 0.0 { 1.0 } else { 0.25 }).sqrt();
        // The dome of the diaphragm rises in the middle of the lung and falls off towards the ribs.
        let diaphragm = (self.bottom - self.dome * (1.0 - dx * dx) - y) / height + 0.25;
        oval.min(diaphragm)
    }
}

impl Anatomy {
    pub fn new(seed: u32, shot: Shot) -> Self {
        // Element 0 of the patient's stream 0x4000 is the number of images.
        let mut patient = Rng::new(seed, shot.patient, Stream::Phantom as u32 + 1);
        let p = &mut patient;
        let body_width = p.range(0.80, 0.97);
        let shoulder = p.range(-0.80, -0.62);
        let lung_x = p.range(0.38, 0.45);
        let lung_width = p.range(0.27, 0.33);
        let top = p.range(-0.80, -0.66);
        let heart_size = p.range(0.22, 0.36);
        let heart_x = p.range(0.04, 0.16);
        let spine = p.range(0.09, 0.14);
        let rib_spacing = p.range(0.17, 0.24);
        let rib_strength = p.range(0.05, 0.12);
        let rib_slope = p.range(0.15, 0.40);
        let tissue = p.range(0.55, 0.70);
        let lung_depth = p.range(0.36, 0.46);

        let mut image = Rng::new(seed, shot.patient, Stream::Phantom as u32 + 2 + shot.shot);
        let r = &mut image;
        let breath = r.range(0.28, 0.55);
        let lung = |side: f32, r: &mut Rng| Lung {
            x: side * lung_x * r.range(0.95, 1.05),
            width: lung_width * r.range(0.92, 1.06),
            top,
            bottom: breath + side * 0.04 + r.range(-0.05, 0.05),
            dome: r.range(0.08, 0.20),
        };
        let lungs = [lung(-1.0, r), lung(1.0, r)];
        let heart = Blob {
            x: heart_x,
            y: breath - heart_size * r.range(0.55, 0.75),
            rx: heart_size * r.range(0.95, 1.15),
            ry: heart_size * r.range(1.0, 1.25),
            turn: r.range(0.2, 0.6),
            strength: r.range(0.75, 0.95),
        };
        let mut anatomy = Self {
            turn: r.range(-0.09, 0.09),
            shift: (r.range(-0.10, 0.10), r.range(-0.09, 0.09)),
            scale: r.range(0.92, 1.14),
            body_width,
            shoulder,
            lungs,
            lung_depth,
            heart,
            spine,
            rib_spacing,
            rib_phase: p.uniform() + r.range(-0.15, 0.15),
            rib_strength,
            rib_slope,
            tissue,
            haze: r.range(0.0, 0.10),
            gradient: (r.range(-0.08, 0.08), r.range(-0.08, 0.08)),
            gain: r.range(0.90, 1.20),
            offset: r.range(-0.05, 0.08),
            curve: r.range(-0.25, 0.25),
            noise: r.range(0.010, 0.035),
            strokes: Vec::new(),
            nodules: Vec::new(),
            opacities: Vec::new(),
            marker: (if r.uniform() < 0.5 { -0.82 } else { 0.82 }, r.range(-0.9, -0.7)),
        };
        anatomy.vessels(r);
        anatomy.wires(r);
        for _ in 0..1 + r.below(5) {
            let (x, y) = anatomy.spot(r, 0.04);
            let radius = r.range(0.035, 0.085);
            let strength = r.range(0.05, 0.16);
            anatomy.nodules.push(Blob { x, y, rx: radius, ry: radius * r.range(0.8, 1.25), turn: 0.0, strength });
        }
        if shot.label == 1 {
            for _ in 0..1 + r.below(3) {
                let (x, y) = anatomy.spot(r, 0.12);
                anatomy.opacities.push(Blob {
                    x,
                    y,
                    rx: r.range(0.20, 0.36),
                    ry: r.range(0.20, 0.42),
                    turn: r.range(-0.6, 0.6),
                    strength: r.range(0.20, 0.42),
                });
            }
        }
        anatomy
    }

    /// A place inside a lung and outside the heart.
    fn spot(&self, r: &mut Rng, margin: f32) -> (f32, f32) {
        let mut at = (self.lungs[0].x, -0.2);
        for _ in 0..32 {
            let lung = self.lungs[r.below(2) as usize];
            at = (lung.x + r.range(-1.0, 1.0) * lung.width, r.range(lung.top, lung.bottom));
            let h = self.heart;
            let in_heart = ((at.0 - h.x) / h.rx).powi(2) + ((at.1 - h.y) / h.ry).powi(2) < 1.0;
            if lung.inside(at.0, at.1) > margin / lung.width && !in_heart {
                break;
            }
        }
        at
    }

    /// Vessels: from the hilum outwards, thinner with every piece.
    fn vessels(&mut self, r: &mut Rng) {
        let strength = r.range(0.04, 0.10);
        for lung in self.lungs {
            let hilum = (lung.x * 0.42, -0.10 + r.range(-0.05, 0.05));
            for _ in 0..7 + r.below(5) {
                let mut at = (hilum.0 + r.range(-0.06, 0.06), hilum.1 + r.range(-0.14, 0.14));
                let (dx, dy) = (lung.x.signum() * r.range(0.25, 1.0), r.range(-1.0, 1.0));
                let norm = (dx * dx + dy * dy).sqrt();
                let (mut dx, mut dy) = (dx / norm, dy / norm);
                let mut width = r.range(0.020, 0.040);
                let mut power = strength * r.range(0.6, 1.2);
                for _ in 0..3 {
                    let length = r.range(0.10, 0.20);
                    let to = (at.0 + dx * length, at.1 + dy * length);
                    self.strokes.push(Stroke { from: at, to, width, strength: power });
                    at = to;
                    (dx, dy) = (dx + r.range(-0.3, 0.3), dy + r.range(-0.3, 0.3));
                    width *= 0.75;
                    power *= 0.8;
                }
            }
        }
    }

    /// A wire or a tube over the chest, in some images.
    fn wires(&mut self, r: &mut Rng) {
        for _ in 0..r.below(6).saturating_sub(2) {
            let mut at = (r.range(-0.7, 0.7), -1.1);
            let (mut dx, bend) = (r.range(-0.06, 0.06), r.range(-0.015, 0.015));
            let strength = r.range(0.06, 0.20);
            for _ in 0..8 + r.below(10) {
                let to = (at.0 + dx, at.1 + 0.11);
                self.strokes.push(Stroke { from: at, to, width: 0.018, strength });
                at = to;
                dx += bend + r.range(-0.02, 0.02);
            }
        }
    }
}
