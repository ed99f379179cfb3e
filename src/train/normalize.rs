//! Where the mean and the standard deviation of the channels come from.

use serde::{Deserialize, Serialize};

/// Mean and standard deviation of red, green and blue over ImageNet, in units of the full scale: those of torchvision's weights
/// (`transforms.Normalize` in its `presets.py`).
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// The means of both over the three channels, for grey images: see [`Normalize::Imagenet`].
const IMAGENET_GREY: (f32, f32) = (0.449, 0.226);

/// What gives mean and standard deviation, where they are not given themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// The training images.
    #[default]
    Measured,
    /// ImageNet, for weights that were trained on it. A grey image that is repeated, `grey = "repeat"`, is normalised channel by channel, as
    /// the weights expect. One of a single channel has the mean over the three, 0.449 and 0.226: after it, kernels that are summed over
    /// their inputs (`grey = "sum"`) see in place of each channel a value that is off by at most 0.21, where the whole scale spans 4.4.
    Imagenet,
}

impl Normalize {
    /// Mean and standard deviation of each channel; `None` where they are to be measured.
    #[must_use]
    pub fn values(self, channels: usize) -> Option<(Vec<f32>, Vec<f32>)> {
        let ((mean, std), (grey_mean, grey_std)) = (IMAGENET, IMAGENET_GREY);
        match self {
            Self::Measured => None,
            Self::Imagenet if channels == mean.len() => Some((mean.to_vec(), std.to_vec())),
            Self::Imagenet => Some((vec![grey_mean; channels], vec![grey_std; channels])),
        }
    }

    pub(super) fn is_measured(&self) -> bool {
        *self == Self::Measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_torchvisions() {
        let (mean, std) = Normalize::Imagenet.values(3).unwrap();
        assert_eq!((mean, std), (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]));
        assert_eq!(Normalize::Measured.values(3), None);
    }

    #[test]
    fn one_channel_stands_for_three_as_well_as_it_is_said() {
        let (mean, std) = Normalize::Imagenet.values(1).unwrap();
        let third = |v: [f32; 3]| v.iter().sum::<f32>() / 3.0;
        assert!((mean[0] - third(IMAGENET.0)).abs() < 1e-6 && (std[0] - third(IMAGENET.1)).abs() < 1e-6);
        let worst = |x: f32| {
            let grey = (x - mean[0]) / std[0];
            (0..3).map(|c| (grey - (x - IMAGENET.0[c]) / IMAGENET.1[c]).abs()).fold(0.0, f32::max)
        };
        let worst = (0..=255_u8).map(|byte| worst(f32::from(byte) / 255.0)).fold(0.0, f32::max);
        assert!(worst > 0.20 && worst < 0.21, "{worst}");
        assert!((1.0 / std[0] - 4.4).abs() < 0.05);
    }
}
