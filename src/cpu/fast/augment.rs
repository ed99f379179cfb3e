//! An image sampled along an affine map.

use super::check_len;

/// Where the pixels of a picture lie in its source, as displacements: `[0] u + [1] v + [2]` pixels from the pixel itself, where
/// (u, v) is its distance from the centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Displacement along x.
    pub across: [f32; 3],
    /// Displacement along y.
    pub down: [f32; 3],
    /// Columns of the source count from the right.
    pub mirror: bool,
}

/// What lies beyond the border of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// The pixel of the border.
    Nearest,
    /// Zero.
    Zero,
    /// The image mirrored, the pixel of the border twice.
    Reflect,
}

/// `out[i, j]` from 0 to 255: the four pixels of `source` (both `[h, w]`) around the source of (i, j), mixed.
///
/// # Panics
/// When a slice has another length.
pub fn bilinear(source: &[u8], [h, w]: [usize; 2], at: &Placement, border: Border, out: &mut [f32]) {
    check_len("source", source.len(), h * w);
    check_len("sampled plane", out.len(), h * w);
    let still = at.across == [0.0; 3] && at.down == [0.0; 3] && !at.mirror;
    match border {
        _ if still => out.iter_mut().zip(source).for_each(|(out, &byte)| *out = f32::from(byte)),
        Border::Nearest => sample(source, [h, w], at, nearest, out),
        Border::Reflect => sample(source, [h, w], at, reflect, out),
        Border::Zero => sample(source, [h, w], at, inside, out),
    }
}

/// Where a row or column beyond the border is found, and how much it counts.
fn nearest(k: i32, n: i32) -> (usize, f32) {
    (k.clamp(0, n - 1) as usize, 1.0)
}

fn reflect(k: i32, n: i32) -> (usize, f32) {
    let turn = k.rem_euclid(2 * n);
    (turn.min(2 * n - 1 - turn) as usize, 1.0)
}

fn inside(k: i32, n: i32) -> (usize, f32) {
    (k.clamp(0, n - 1) as usize, if (0..n).contains(&k) { 1.0 } else { 0.0 })
}

fn sample(
    source: &[u8],
    [h, w]: [usize; 2],
    place: &Placement,
    border: impl Fn(i32, i32) -> (usize, f32),
    out: &mut [f32],
) {
    let (rows, columns) = (h as i32, w as i32);
    let (cx, cy) = (0.5 * (w - 1) as f32, 0.5 * (h - 1) as f32);
    for (i, out) in out.chunks_exact_mut(w).enumerate() {
        let v = i as f32 - cy;
        for (j, out) in out.iter_mut().enumerate() {
            let u = j as f32 - cx;
            let dx = place.across[0] * u + place.across[1] * v + place.across[2];
            let dy = place.down[0] * u + place.down[1] * v + place.down[2];
            let (x, y) = (floor(dx), floor(dy));
            let (fx, fy) = (dx - x as f32, dy - y as f32);
            let left = if place.mirror { columns - 1 - j as i32 } else { j as i32 } + x;
            let top = i as i32 + y;
            let lines = [border(top, rows), border(top + 1, rows)];
            let sides = [border(left, columns), border(left + 1, columns)];
            let tap = |i: usize, j: usize| f32::from(source[lines[i].0 * w + sides[j].0]) * (lines[i].1 * sides[j].1);
            let above = tap(0, 0) + fx * (tap(0, 1) - tap(0, 0));
            let below = tap(1, 0) + fx * (tap(1, 1) - tap(1, 0));
            *out = above + fy * (below - above);
        }
    }
}

/// `x.floor()` without the call that it is where the processor's rounding instruction is not assumed.
fn floor(x: f32) -> i32 {
    let toward_zero = x as i32;
    toward_zero - i32::from(toward_zero as f32 > x)
}
