//! Test-time augmentation: the mean answer over an image, its mirror, and the image moved a little.
//!
//! The views are made of the bytes of the images on the host, so that any network and device can be asked.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::TrainError;
use super::infer::Network;
use crate::data::Images;
use crate::exec::Executor;

/// Which views of an image are averaged. As text: `none`, `hflip`, `N` (moves of N pixels) or `hflip,N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tta {
    /// Each view also mirrored left to right.
    pub hflip: bool,
    /// Besides the image itself, the image moved by so many pixels to the left, right, up and down; 0 for no moves. What
    /// moves in repeats the edge.
    pub shift: usize,
}

impl FromStr for Tta {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut tta = Self::default();
        for part in text.split(',') {
            match part.trim() {
                "none" => {}
                "hflip" => tta.hflip = true,
                number => match number.parse::<usize>() {
                    Ok(n) if (1..=1024).contains(&n) => tta.shift = n,
                    _ => return Err("is hflip, a number of pixels (1 to 1024), or both as in hflip,2".to_owned()),
                },
            }
        }
        Ok(tta)
    }
}

impl fmt::Display for Tta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hflip, self.shift) {
            (false, 0) => f.write_str("none"),
            (true, 0) => f.write_str("hflip"),
            (false, n) => write!(f, "{n}"),
            (true, n) => write!(f, "hflip,{n}"),
        }
    }
}

impl Serialize for Tta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a view differs from its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    mirror: bool,
    /// Pixels to the right, and down.
    by: (isize, isize),
}

impl Tta {
    fn views(&self) -> Vec<View> {
        let n = self.shift as isize;
        let moves: &[(isize, isize)] = if n == 0 { &[(0, 0)] } else { &[(0, 0), (n, 0), (-n, 0), (0, n), (0, -n)] };
        let mirrors: &[bool] = if self.hflip { &[false, true] } else { &[false] };
        mirrors.iter().flat_map(|&mirror| moves.iter().map(move |&by| View { mirror, by })).collect()
    }

    /// Mean probabilities `[n, classes]` over the views, and the logits `[n, outputs]` of the images as they are.
    ///
    /// # Errors
    /// The device failed.
    pub fn predict(
        &self,
        network: &Network,
        executor: &mut dyn Executor,
        images: &Images,
    ) -> Result<(Vec<f64>, Vec<f32>), TrainError> {
        let views = self.views();
        // The first view is the image itself.
        let (mut sum, logits) = network.predict(executor, images)?;
        for view in &views[1..] {
            let (p, _) = network.predict(executor, &shown(images, *view))?;
            sum.iter_mut().zip(p).for_each(|(s, p)| *s += p);
        }
        sum.iter_mut().for_each(|s| *s /= views.len() as f64);
        Ok((sum, logits))
    }
}

fn shown(images: &Images, view: View) -> Images {
    let (h, w) = (images.height, images.width);
    let mut pixels = Vec::with_capacity(images.pixels.len());
    for plane in images.pixels.chunks_exact((h * w).max(1)) {
        for y in 0..h {
            let from = y.saturating_add_signed(-view.by.1).min(h - 1);
            let row = &plane[from * w..(from + 1) * w];
            pixels.extend((0..w).map(|x| {
                let x = x.saturating_add_signed(-view.by.0).min(w - 1);
                row[if view.mirror { w - 1 - x } else { x }]
            }));
        }
    }
    Images { pixels, ..images.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Images {
        Images {
            channels: 1,
            height: 2,
            width: 3,
            pixels: vec![1, 2, 3, 4, 5, 6],
            labels: vec![0],
            names: vec!["a".to_owned()],
            patients: vec!["p".to_owned()],
        }
    }

    #[test]
    fn views_are_mirrored_and_moved() {
        let seen = |mirror, by| shown(&image(), View { mirror, by }).pixels;
        assert_eq!(seen(false, (0, 0)), [1, 2, 3, 4, 5, 6]);
        assert_eq!(seen(true, (0, 0)), [3, 2, 1, 6, 5, 4]);
        assert_eq!(seen(false, (1, 0)), [1, 1, 2, 4, 4, 5], "to the right");
        assert_eq!(seen(false, (-1, 0)), [2, 3, 3, 5, 6, 6]);
        assert_eq!(seen(false, (0, 1)), [1, 2, 3, 1, 2, 3], "down");
        assert_eq!(seen(true, (0, -9)), [6, 5, 4, 6, 5, 4]);
    }

    #[test]
    fn text_and_back() {
        for text in ["none", "hflip", "2", "hflip,3"] {
            assert_eq!(text.parse::<Tta>().unwrap().to_string(), text);
        }
        let views = |text: &str| text.parse::<Tta>().unwrap().views();
        assert_eq!(["none", "hflip", "2", "hflip,2"].map(|t| views(t).len()), [1, 2, 5, 10]);
        assert_eq!(views("hflip,2")[0], View { mirror: false, by: (0, 0) });
        for wrong in ["vflip", "0", "-1", "", "2000"] {
            assert!(wrong.parse::<Tta>().is_err(), "{wrong}");
        }
    }
}
