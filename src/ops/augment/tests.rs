use super::settings::{Angle, Chance, Erase, Factor, Noise, Shift};
use super::*;
use crate::ops::{Array, View};

const WORDS: [u32; 2] = [7, 3];

/// Runs an op of one channel on images of `h` x `w`.
fn run<T: Real>(
    op: &impl Op,
    pixels: &[u8],
    [h, w]: [usize; 2],
    indices: &[u32],
    rest: &[&[u32]],
    fast: bool,
) -> Vec<T> {
    let images = Spec::u8([pixels.len() / (h * w), 1, h, w]);
    let rest_specs: Vec<Spec> = rest.iter().map(|r| Spec::u32([r.len()])).collect();
    let chosen = Spec::u32([indices.len()]);
    let mut inputs = vec![View::U8(pixels), View::U32(indices)];
    inputs.extend(rest.iter().map(|r| View::U32(r)));
    let mut specs = vec![&images, &chosen];
    specs.extend(&rest_specs);
    let out_spec = op.infer(&specs).unwrap();
    let mut out = Array::zeros(&out_spec);
    let mut cx = Eval { inputs: &inputs, specs: &specs, out_spec: &out_spec, out: &mut out, state: &mut [], fast };
    T::run(op, &mut cx);
    cx.out().to_vec()
}

fn plain(augment: Augment) -> AugmentImages {
    AugmentImages { mean: vec![0.0], std: vec![1.0], augment, repeats: None }
}

fn bytes(n: usize) -> Vec<u8> {
    let mut rng = crate::rng::Rng::new(1, 2, Stream::Sample as u32);
    (0..n).map(|_| rng.below(256) as u8).collect()
}

fn affine() -> Augment {
    Augment {
        hflip: Some(Chance { p: 0.5 }),
        rotate: Some(Angle { p: 0.9, degrees: 40.0 }),
        shift: Some(Shift { p: 0.9, fraction: 0.1 }),
        zoom: Some(Factor { p: 0.9, min: 0.8, max: 1.25 }),
        shear: Some(Angle { p: 0.9, degrees: 15.0 }),
        ..Augment::default()
    }
}

#[test]
fn images_of_which_nothing_is_drawn_have_the_bits_of_gather_images() {
    let (size, indices) = ([6, 10], [2_u32, 0, 1, 9, 2, 1, 0, 2]);
    let pixels = bytes(3 * 60);
    let (mean, std) = (vec![0.481], vec![0.233]);
    let gather = GatherImages { mean: mean.clone(), std: std.clone() };
    let whole = |augment| AugmentImages { mean: mean.clone(), std: std.clone(), augment, repeats: None };
    // Rare enough that some images stay, likely enough that some change.
    let rare = Augment {
        rotate: Some(Angle { p: 0.2, degrees: 20.0 }),
        brightness: Some(Factor { p: 0.2, min: 0.5, max: 0.8 }),
        noise: Some(Noise { p: 0.2, std: 0.1 }),
        ..Augment::default()
    };
    for fast in [false, true] {
        let want: Vec<f32> = run(&gather, &pixels, size, &indices, &[], fast);
        let same: Vec<f32> = run(&whole(Augment::default()), &pixels, size, &indices, &[&WORDS], fast);
        assert!(same.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()));
        let some: Vec<f32> = run(&whole(rare.clone()), &pixels, size, &indices, &[&WORDS], fast);
        let equal = some.chunks(60).zip(want.chunks(60)).filter(|(a, b)| a == b).count();
        assert!((1..8).contains(&equal), "{equal} of 8 images are as they were");
    }
}

#[test]
fn the_row_is_the_inverse_of_the_changes_in_their_order() {
    let words = Words { seed: 5, step: 9 };
    let (h, w) = (30, 50);
    let only = |keep: fn(&mut Augment, &Augment)| {
        let mut a = Augment::default();
        keep(&mut a, &affine());
        a
    };
    let turn = only(|a, all| a.rotate = all.rotate);
    let slant = only(|a, all| a.shear = all.shear);
    let size = only(|a, all| a.zoom = all.zoom);
    let moved = only(|a, all| a.shift = all.shift);
    for b in 0..200 {
        let row: Row<f64> = affine().draw(words, b, [h, w]);
        let one = |a: &Augment| -> Row<f64> { a.draw(words, b, [h, w]) };
        // What each change alone draws, from its own row; then the changes one after the other, forwards.
        let (turn, slant, size, moved) = (one(&turn), one(&slant), one(&size), one(&moved));
        let (sin, cos) = (turn.down[0], turn.down[1] + 1.0);
        let (tan, zoom) = (-slant.across[1], 1.0 / (size.down[1] + 1.0));
        let (tx, ty) = (-moved.across[2], -moved.down[2]);
        for (u, v) in [(0.0, 0.0), (10.5, -3.0), (-24.5, 14.5)] {
            let source = |k: [f64; 3]| k[0] * u + k[1] * v + k[2];
            let mirrored = if row.mirror { -u } else { u };
            let (x, y) = (mirrored + source(row.across), v + source(row.down));
            let x = if row.mirror { -x } else { x };
            let (x, y) = (zoom * x, zoom * y);
            let x = x + tan * y;
            let (x, y) = (cos * x + sin * y, -sin * x + cos * y);
            assert!((x + tx - u).abs() < 1e-9 && (y + ty - v).abs() < 1e-9, "image {b}: ({u}, {v})");
        }
    }
}

#[test]
fn a_ramp_is_sampled_where_the_row_says() {
    // Bilinear interpolation gives a plane back exactly, so the picture shows each source's coordinates.
    let (h, w) = (32, 48);
    let ramp: Vec<u8> = (0..h * w).map(|at| (3 * (at % w) + 2 * (at / w)) as u8).collect();
    let op = plain(affine());
    let words = Words { seed: WORDS[0], step: WORDS[1] };
    for fast in [false, true] {
        let y: Vec<f32> = run(&op, &ramp, [h, w], &[0; 16], &[&WORDS], fast);
        let mut inside = 0;
        for (b, y) in y.chunks(h * w).enumerate() {
            let row: Row<f64> = affine().draw(words, b as u32, [h, w]);
            for (at, y) in y.iter().enumerate() {
                let (i, j) = ((at / w) as f64, (at % w) as f64);
                let (u, v) = (j - 23.5, i - 15.5);
                let column =
                    if row.mirror { 47.0 - j } else { j } + row.across[0] * u + row.across[1] * v + row.across[2];
                let line = i + row.down[0] * u + row.down[1] * v + row.down[2];
                if (0.0..=47.0).contains(&column) && (0.0..=31.0).contains(&line) {
                    inside += 1;
                    let want = (3.0 * column + 2.0 * line) / 255.0;
                    assert!((f64::from(*y) - want).abs() < 1e-5, "image {b}, ({i}, {j}): {y} against {want}");
                }
            }
        }
        assert!(inside > 16 * h * w / 2);
    }
}

#[test]
fn turning_is_about_the_centre() {
    // An image that is its own half turn stays so under every change that keeps the centre.
    for (h, w) in [(16, 16), (15, 22), (7, 9)] {
        let half = bytes(h * w);
        let image: Vec<u8> = (0..h * w).map(|at| half[at.min(h * w - 1 - at)]).collect();
        let still = Augment { shift: None, ..affine() };
        for fast in [false, true] {
            let y: Vec<f32> = run(&plain(still.clone()), &image, [h, w], &[0; 12], &[&WORDS], fast);
            for y in y.chunks(h * w) {
                let error = (0..h * w).map(|at| (y[at] - y[h * w - 1 - at]).abs()).fold(0.0, f32::max);
                assert!(error < 2e-5, "{h}x{w}: {error}");
            }
        }
    }
}

#[test]
fn a_flip_mirrors_and_borders_are_filled_as_said() {
    let image = [10, 20, 40, 80];
    let flip = Augment { hflip: Some(Chance { p: 1.0 }), ..Augment::default() };
    for fast in [false, true] {
        let y: Vec<f64> = run::<f64>(&plain(flip.clone()), &image, [1, 4], &[0], &[&WORDS], fast);
        assert_eq!(y, [80.0, 40.0, 20.0, 10.0].map(|v| v / 255.0));
    }
    let at = |fill, k: i64| border(fill, k, 4).map_or(0, |k| image[k]);
    let line = |fill| (-5..9).map(|k| at(fill, k)).collect::<Vec<_>>();
    assert_eq!(line(Fill::Nearest), [10, 10, 10, 10, 10, 10, 20, 40, 80, 80, 80, 80, 80, 80]);
    assert_eq!(line(Fill::Constant), [0, 0, 0, 0, 0, 10, 20, 40, 80, 0, 0, 0, 0, 0]);
    assert_eq!(line(Fill::Reflect), [80, 80, 40, 20, 10, 10, 20, 40, 80, 80, 40, 20, 10, 10]);
    // Half a pixel to the left of the first: half of it, and half of what lies beyond.
    let half =
        Row { across: [0.0, 0.0, -0.5], ..Augment::default().draw::<f64>(Words { seed: 0, step: 0 }, 0, [1, 4]) };
    for (fill, want) in [(Fill::Nearest, 10.0), (Fill::Constant, 5.0), (Fill::Reflect, 10.0)] {
        assert_eq!(sample_at(&image, [1, 4], fill, &half, 0, 0), want);
    }
}

#[test]
fn tone_is_changed_about_the_mean_and_noise_has_none() {
    let n = 4000;
    let (light, dark) = (vec![255_u8; n], vec![0_u8; n]);
    let noise = Augment { noise: Some(Noise { p: 1.0, std: 0.1 }), ..Augment::default() };
    for image in [light, dark] {
        let level = f64::from(image[0]) / 255.0;
        let y: Vec<f64> = run(&plain(noise.clone()), &image, [n, 1], &[0], &[&WORDS], false);
        let mean = y.iter().sum::<f64>() / n as f64 - level;
        let var = y.iter().map(|v| (v - level).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 4.0 * 0.1 / (n as f64).sqrt() && (var / 0.01 - 1.0).abs() < 0.1, "{mean} {var}");
    }
    let double = Some(Factor { p: 1.0, min: 2.0, max: 2.0 });
    let image = [51, 102, 153, 204];
    let contrast = AugmentImages { mean: vec![0.5], ..plain(Augment { contrast: double, ..Augment::default() }) };
    let y: Vec<f64> = run(&contrast, &image, [1, 4], &[0], &[&WORDS], false);
    let want = [-0.5, -0.2, 0.2, 0.5];
    assert!(y.iter().zip(want).all(|(y, w)| (y - w).abs() < 1e-7), "{y:?}");
    let bright = plain(Augment { brightness: double, ..Augment::default() });
    let y: Vec<f64> = run(&bright, &image, [1, 4], &[0], &[&WORDS], false);
    assert!(y.iter().zip([0.4, 0.8, 1.0, 1.0]).all(|(y, w)| (y - w).abs() < 1e-12), "{y:?}");
}

#[test]
fn pictures_hang_on_seed_step_and_place_alone() {
    let (size, pixels) = ([12, 12], bytes(2 * 144));
    let op = plain(Augment::preset("strong").unwrap());
    let of = |words: [u32; 2], indices: &[u32]| -> Vec<f32> { run(&op, &pixels, size, indices, &[&words], true) };
    let first = of(WORDS, &[0, 1, 0]);
    assert_eq!(first, of(WORDS, &[0, 1, 0]));
    assert_ne!(first, of([7, 4], &[0, 1, 0]));
    assert_ne!(first, of([8, 3], &[0, 1, 0]));
    assert_ne!(first[..144], first[288..], "two places draw alike");
    assert_eq!(first[..144], of(WORDS, &[0, 0, 1])[..144], "another image's place matters");
}

#[test]
fn flagged_images_follow_the_settings_of_repeats() {
    let (size, pixels) = ([5, 5], bytes(25));
    let flip = Augment { hflip: Some(Chance { p: 1.0 }), ..Augment::default() };
    let op = AugmentImages { repeats: Some(flip.clone()), ..plain(Augment::default()) };
    let y: Vec<f32> = run(&op, &pixels, size, &[0; 4], &[&WORDS, &[0, 1, 0, 1]], false);
    let (still, turned): (Vec<f32>, Vec<f32>) = (
        run(&plain(Augment::default()), &pixels, size, &[0], &[&WORDS], false),
        run(&plain(flip), &pixels, size, &[0], &[&WORDS], false),
    );
    assert_ne!(still, turned);
    assert_eq!(y, [&still[..], &turned, &still, &turned].concat());
}

#[test]
fn an_erased_rectangle_is_the_mean() {
    let erase = Augment { erase: Some(Erase { p: 1.0, area: [0.1, 0.3], aspect: 3.0 }), ..Augment::default() };
    let op = AugmentImages { mean: vec![0.3], std: vec![0.5], augment: erase.clone(), repeats: None };
    let image = vec![255; 20 * 30];
    for fast in [false, true] {
        let y: Vec<f32> = run(&op, &image, [20, 30], &[0; 5], &[&WORDS], fast);
        for (b, y) in y.chunks(600).enumerate() {
            let row: Row<f32> = erase.draw(Words { seed: 7, step: 3 }, b as u32, [20, 30]);
            let [top, left, bottom, right] = row.erased.map(|e| e as usize);
            assert!(bottom > top && right > left);
            for (at, &y) in y.iter().enumerate() {
                let inside = (top..bottom).contains(&(at / 30)) && (left..right).contains(&(at % 30));
                assert_eq!(y, if inside { 0.0 } else { (1.0 - 0.3) / 0.5 }, "image {b}, pixel {at}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (images, indices, rng) = (Spec::u8([3, 1, 8, 8]), Spec::u32([4]), Spec::u32([2]));
    let op = plain(Augment::preset("strong").unwrap());
    assert_eq!(op.infer(&[&images, &indices, &rng]).unwrap(), Spec::float([4, 1, 8, 8]));
    assert!(op.infer(&[&images, &indices]).is_err());
    assert!(op.infer(&[&images, &indices, &Spec::u32([3])]).is_err());
    assert!(op.infer(&[&Spec::float([3, 1, 8, 8]), &indices, &rng]).is_err());
    let huge = Spec::u8([1, 1, 4096, 2048]);
    assert!(op.infer(&[&huge, &indices, &rng]).unwrap_err().to_string().contains("erase"));
    let wrong = plain(Augment { hflip: Some(Chance { p: 2.0 }), ..Augment::default() });
    assert!(wrong.infer(&[&images, &indices, &rng]).unwrap_err().to_string().contains("hflip.p"));
    let flags = AugmentImages { repeats: Some(affine()), ..op };
    assert!(flags.infer(&[&images, &indices, &rng]).is_err());
    assert!(flags.infer(&[&images, &indices, &rng, &Spec::u32([5])]).is_err());
    flags.infer(&[&images, &indices, &rng, &indices]).unwrap();
    let other = AugmentImages { repeats: Some(Augment { fill: Fill::Reflect, ..affine() }), ..flags };
    assert!(other.infer(&[&images, &indices, &rng, &indices]).unwrap_err().to_string().contains("fill"));
}
