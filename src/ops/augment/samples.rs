//! Samples of `augment_images`.

use super::settings::{Angle, Chance, Erase, Factor, Noise, Shift};
use super::{Augment, AugmentImages, Fill};
use crate::ops::sample::{self, Fill as Values, Sample};

/// Samples. Zooms stay above a half and images small, so that sources lie tens of pixels away at most: see the tolerance.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |what: &str, dims: [usize; 4], b: usize, augment: Augment, repeats: Option<Augment>| {
        let mut inputs = vec![
            sample::bytes(&dims),
            sample::words(&[b], Values::Below(dims[0] as u32 + 1)),
            sample::words(&[2], Values::Below(1000)),
        ];
        if repeats.is_some() {
            inputs.push(sample::words(&[b], Values::Below(2)));
        }
        Sample::new(what, inputs, move |g, x| {
            let channels = dims[1];
            let mean: Vec<f32> = (0..channels).map(|c| 0.4 + 0.05 * c as f32).collect();
            let std: Vec<f32> = (0..channels).map(|c| 0.2 + 0.03 * c as f32).collect();
            let op = AugmentImages { mean, std, augment: augment.clone(), repeats: repeats.clone() };
            g.augment_images(op, [x[0], x[1], x[2]], x.get(3).copied())
        })
    };
    let none = Augment::default();
    let strong = || Augment::preset("strong").unwrap_or_default();
    let light = || Augment::preset("light").unwrap_or_default();
    let turn = |p, degrees, fill| Augment { rotate: Some(Angle { p, degrees }), fill, ..none.clone() };
    let factor = |min, max| Some(Factor { p: 0.8, min, max });
    let erase = |area, aspect| Some(Erase { p: 0.7, area, aspect });
    vec![
        s("one pixel", [1, 1, 1, 1], 1, strong(), None),
        s("nothing named", [5, 1, 6, 10], 4, none.clone(), None),
        s("flips", [4, 2, 5, 7], 9, Augment { hflip: Some(Chance { p: 0.5 }), ..none.clone() }, None),
        s("rotation, border repeated", [3, 1, 12, 12], 7, turn(1.0, 180.0, Fill::Nearest), None),
        s("rotation, black", [3, 1, 12, 20], 7, turn(0.5, 90.0, Fill::Constant), None),
        s("rotation, mirrored", [3, 3, 9, 8], 7, turn(1.0, 45.0, Fill::Reflect), None),
        s(
            "shift and shear, one column",
            [2, 1, 9, 1],
            5,
            Augment {
                shift: Some(Shift { p: 1.0, fraction: 0.9 }),
                shear: Some(Angle { p: 1.0, degrees: 30.0 }),
                fill: Fill::Reflect,
                ..none.clone()
            },
            None,
        ),
        s("zoom, one row", [2, 1, 1, 24], 6, Augment { zoom: factor(0.5, 2.0), ..none.clone() }, None),
        s(
            "brightness and contrast",
            [3, 3, 4, 4],
            6,
            Augment { brightness: factor(0.2, 1.8), contrast: factor(0.0, 2.0), ..none.clone() },
            None,
        ),
        s("noise", [3, 2, 7, 5], 9, Augment { noise: Some(Noise { p: 0.5, std: 0.3 }), ..none.clone() }, None),
        s("erasing", [3, 1, 16, 12], 33, Augment { erase: erase([0.0, 1.0], 10.0), ..none.clone() }, None),
        s("light, grey 64x64", [7, 1, 64, 64], 33, light(), None),
        s("strong, three channels", [7, 3, 30, 36], 17, strong(), None),
        s("repeats more strongly", [7, 1, 28, 28], 65, light(), Some(strong())),
        s("repeats only", [4, 3, 8, 10], 9, none.clone(), Some(Augment { fill: Fill::Reflect, ..strong() })),
        s("more than 65,535 workgroups", [5, 1, 61, 67], 1027, strong(), None).large(),
        s("more than 65,535 workgroups of strips", [3, 1, 64, 4], 65_600, light(), None).large(),
    ]
}
