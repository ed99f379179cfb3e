//! `--size`: one number for square images, or `HxW`.

use std::fmt;
use std::str::FromStr;

/// Height and width of images in pixels. Only the text is checked here: what is too small or too large is for the
/// network and for the data to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let number = |t: &str| {
            t.parse::<u32>().map(|n| n as usize).map_err(|_| {
                "give one number for square images, such as 64, or height x width, such as 64x48".to_owned()
            })
        };
        let (height, width) = s.split_once('x').unwrap_or((s, s));
        Ok(Self { height: number(height)?, width: number(width)? })
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_or_two() {
        assert_eq!("64".parse(), Ok(ImageSize { height: 64, width: 64 }));
        assert_eq!("64x48".parse(), Ok(ImageSize { height: 64, width: 48 }));
        for wrong in ["", "x", "64x", "64x48x2", "-1", "6.4", "4294967296"] {
            assert!(wrong.parse::<ImageSize>().is_err(), "{wrong}");
        }
    }
}
