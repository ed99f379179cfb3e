//! What is done to training images: the settings, their ranges, and the presets.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The names that [`Augment::preset`] knows.
pub const PRESETS: &str = "none, light or strong";

/// Random changes of training images. Each is drawn for each image of each step, with a probability `p` of its own; a
/// change that is not named never happens. The default changes nothing.
///
/// In a config file it is a table, or the name of a preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Augment {
    /// What lies beyond the border of an image.
    pub fill: Fill,
    /// Left and right change places. In a chest X-ray that puts the heart on the wrong side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hflip: Option<Chance>,
    /// Turns about the centre by an angle from -`degrees` to `degrees`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Angle>,
    /// Moves by up to `fraction` of the width and of the height, in either direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<Shift>,
    /// Magnifies about the centre, both axes alike; factors below 1 make smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zoom: Option<Factor>,
    /// Slants rows against each other: x grows by y tan(angle), the angle from -`degrees` to `degrees`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shear: Option<Angle>,
    /// Multiplies the pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brightness: Option<Factor>,
    /// Multiplies the distance of the pixels from the mean of the training images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<Factor>,
    /// Adds normal noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// Puts the mean of the training images into a rectangle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erase: Option<Erase>,
}

/// What lies beyond the border, by the names that Keras gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// The pixel of the border, again and again (Keras's default).
    #[default]
    Nearest,
    /// Black (torchvision's default).
    Constant,
    /// The image mirrored at its border, the pixel of the border twice.
    Reflect,
}

impl Fill {
    /// Its name in a config file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Constant => "constant",
            Self::Reflect => "reflect",
        }
    }
}

/// A change without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// Its probability.
    pub p: f64,
}

/// A change by an angle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Angle {
    /// Its probability; 1 when absent.
    #[serde(default = "always")]
    pub p: f64,
    /// The largest angle, to either side.
    pub degrees: f64,
}

/// A move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// Its probability; 1 when absent.
    #[serde(default = "always")]
    pub p: f64,
    /// The longest move along each axis, as a share of the side.
    pub fraction: f64,
}

/// A multiplication by a factor between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    /// Its probability; 1 when absent.
    #[serde(default = "always")]
    pub p: f64,
    /// The smallest factor.
    pub min: f64,
    /// The largest factor.
    pub max: f64,
}

/// Noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Its probability; 1 when absent.
    #[serde(default = "always")]
    pub p: f64,
    /// Standard deviation, where white is 1.
    pub std: f64,
}

/// Random erasing (Zhong et al., "Random Erasing Data Augmentation", AAAI 2020).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erase {
    /// Its probability; 1 when absent.
    #[serde(default = "always")]
    pub p: f64,
    /// Smallest and largest share of the image's area.
    pub area: [f64; 2],
    /// The largest ratio of the longer to the shorter side; which one is upright is drawn. 3.3 when absent, as in torchvision.
    #[serde(default = "slim")]
    pub aspect: f64,
}

fn always() -> f64 {
    1.0
}

fn slim() -> f64 {
    3.3
}

/// A setting of [`Augment`] out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{setting} {problem}")]
pub struct AugmentError {
    /// Its place in the table: `rotate.degrees`.
    pub setting: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl Augment {
    /// `none`; `light`, small changes of position and exposure that a second photograph of the same chest could show; or
    /// `strong`, larger ones with flips (which mirror the heart), shear, noise and erasing. `None` for another name.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let factor = |min, max| Some(Factor { p: 1.0, min, max });
        let angle = |p, degrees| Some(Angle { p, degrees });
        match name {
            "none" => Some(Self::default()),
            "light" => Some(Self {
                rotate: angle(1.0, 7.0),
                shift: Some(Shift { p: 1.0, fraction: 0.05 }),
                zoom: factor(0.95, 1.05),
                brightness: factor(0.9, 1.1),
                contrast: factor(0.9, 1.1),
                ..Self::default()
            }),
            "strong" => Some(Self {
                hflip: Some(Chance { p: 0.5 }),
                rotate: angle(1.0, 15.0),
                shift: Some(Shift { p: 1.0, fraction: 0.1 }),
                zoom: factor(0.85, 1.15),
                shear: angle(0.5, 8.0),
                brightness: factor(0.8, 1.2),
                contrast: factor(0.75, 1.25),
                noise: Some(Noise { p: 0.5, std: 0.02 }),
                erase: Some(Erase { p: 0.25, area: [0.02, 0.12], aspect: 3.3 }),
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// True where no image is ever changed.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.chances().iter().all(|&(_, p)| p <= 0.0)
    }

    /// The probabilities of the changes that are named, and where they stand.
    fn chances(&self) -> Vec<(&'static str, f64)> {
        [
            ("hflip.p", self.hflip.map(|c| c.p)),
            ("rotate.p", self.rotate.map(|c| c.p)),
            ("shift.p", self.shift.map(|c| c.p)),
            ("zoom.p", self.zoom.map(|c| c.p)),
            ("shear.p", self.shear.map(|c| c.p)),
            ("brightness.p", self.brightness.map(|c| c.p)),
            ("contrast.p", self.contrast.map(|c| c.p)),
            ("noise.p", self.noise.map(|c| c.p)),
            ("erase.p", self.erase.map(|c| c.p)),
        ]
        .into_iter()
        .filter_map(|(name, p)| Some((name, p?)))
        .collect()
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`AugmentError`] names the first setting that is out of its range.
    pub fn validate(&self) -> Result<(), AugmentError> {
        let check = |ok: bool, setting, range: &str, value: f64| {
            let problem = format!("must be {range}, got {value}");
            if ok { Ok(()) } else { Err(AugmentError { setting, problem }) }
        };
        for (name, p) in self.chances() {
            check((0.0..=1.0).contains(&p), name, "a probability from 0 to 1", p)?;
        }
        if let Some(Angle { degrees, .. }) = self.rotate {
            check((0.0..=180.0).contains(&degrees), "rotate.degrees", "from 0 to 180", degrees)?;
        }
        if let Some(Angle { degrees, .. }) = self.shear {
            check((0.0..=60.0).contains(&degrees), "shear.degrees", "from 0 to 60", degrees)?;
        }
        if let Some(Shift { fraction, .. }) = self.shift {
            check((0.0..=1.0).contains(&fraction), "shift.fraction", "from 0 to 1", fraction)?;
        }
        for (factor, [min, max], least, most) in [
            (self.zoom, ["zoom.min", "zoom.max"], 0.1, "from 0.1 to 10"),
            (self.brightness, ["brightness.min", "brightness.max"], 0.0, "from 0 to 10"),
            (self.contrast, ["contrast.min", "contrast.max"], 0.0, "from 0 to 10"),
        ] {
            if let Some(f) = factor {
                check((least..=10.0).contains(&f.min), min, most, f.min)?;
                check((least..=10.0).contains(&f.max), max, most, f.max)?;
                check(f.min <= f.max, max, "at least as large as min", f.max)?;
            }
        }
        if let Some(Noise { std, .. }) = self.noise {
            check((0.0..=1.0).contains(&std), "noise.std", "from 0 to 1 (white is 1)", std)?;
        }
        if let Some(Erase { area: [least, most], aspect, .. }) = self.erase {
            check((0.0..=1.0).contains(&least), "erase.area", "two shares from 0 to 1", least)?;
            check((0.0..=1.0).contains(&most), "erase.area", "two shares from 0 to 1", most)?;
            check(least <= most, "erase.area", "the smaller share before the larger one", least)?;
            check((1.0..=10.0).contains(&aspect), "erase.aspect", "from 1 to 10", aspect)?;
        }
        Ok(())
    }
}

impl fmt::Display for Augment {
    /// In a line: `rotate 7, shift 0.05, zoom 0.95-1.05`; a probability other than 1 stands behind, as in `hflip (p 0.5)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut add = |name: &str, change: Option<(f64, String)>| match change {
            Some((p, text)) if p > 0.0 => {
                let chance = if p < 1.0 { format!(" (p {p})") } else { String::new() };
                let space = if text.is_empty() { "" } else { " " };
                parts.push(format!("{name}{space}{text}{chance}"));
            }
            _ => {}
        };
        let factor = |c: Factor| (c.p, format!("{}-{}", c.min, c.max));
        add("hflip", self.hflip.map(|c| (c.p, String::new())));
        add("rotate", self.rotate.map(|c| (c.p, c.degrees.to_string())));
        add("shift", self.shift.map(|c| (c.p, c.fraction.to_string())));
        add("zoom", self.zoom.map(factor));
        add("shear", self.shear.map(|c| (c.p, c.degrees.to_string())));
        add("brightness", self.brightness.map(factor));
        add("contrast", self.contrast.map(factor));
        add("noise", self.noise.map(|c| (c.p, c.std.to_string())));
        add("erase", self.erase.map(|c| (c.p, format!("{}-{}", c.area[0], c.area[1]))));
        match parts.is_empty() {
            true => f.write_str("none"),
            false => write!(f, "{}, border {}", parts.join(", "), self.fill.name()),
        }
    }
}

/// The table as it stands in a file.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename = "augment")]
struct Table {
    fill: Fill,
    hflip: Option<Chance>,
    rotate: Option<Angle>,
    shift: Option<Shift>,
    zoom: Option<Factor>,
    shear: Option<Angle>,
    brightness: Option<Factor>,
    contrast: Option<Factor>,
    noise: Option<Noise>,
    erase: Option<Erase>,
}

/// A preset's name, or the table. An untagged enum would say of a wrong key only that nothing matches.
impl<'de> Deserialize<'de> for Augment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;
        impl<'de> Visitor<'de> for NameOrTable {
            type Value = Augment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{PRESETS}, or a table of changes")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Augment, E> {
                Augment::preset(name).ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Augment, A::Error> {
                let t = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Table { fill, hflip, rotate, shift, zoom, shear, brightness, contrast, noise, erase } = t;
                Ok(Augment { fill, hflip, rotate, shift, zoom, shear, brightness, contrast, noise, erase })
            }
        }
        deserializer.deserialize_any(NameOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Serialize, Debug, PartialEq)]
    struct File {
        augment: Augment,
    }

    #[test]
    fn a_file_holds_a_name_or_a_table_and_reads_back() {
        let strong: File = toml::from_str("augment = \"strong\"").unwrap();
        assert_eq!(Some(&strong.augment), Augment::preset("strong").as_ref());
        let again: File = toml::from_str(&toml::to_string(&strong).unwrap()).unwrap();
        assert_eq!(again, strong);
        let one: File = toml::from_str("[augment]\nrotate = { degrees = 10 }\nfill = \"reflect\"").unwrap();
        let rotate = Some(Angle { p: 1.0, degrees: 10.0 });
        assert_eq!(one.augment, Augment { rotate, fill: Fill::Reflect, ..Augment::default() });
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (text, words) in [
            ("augment = \"stronk\"", ["stronk", "none, light or strong"]),
            ("[augment]\nrotat = { degrees = 10 }", ["unknown field `rotat`", "rotate"]),
            ("[augment]\nrotate = { angle = 10 }", ["unknown field `angle`", "degrees"]),
            ("[augment]\nfill = \"wrap\"", ["wrap", "nearest"]),
            ("[augment]\nrotate = { p = 1.0 }", ["missing field", "degrees"]),
        ] {
            let error = toml::from_str::<File>(text).unwrap_err();
            assert!(words.iter().all(|w| error.message().contains(w)), "{text}: {}", error.message());
        }
    }

    #[test]
    fn ranges_are_checked_by_name() {
        let ok = Augment::preset("strong").unwrap();
        ok.validate().unwrap();
        Augment::preset("light").unwrap().validate().unwrap();
        let factor = |min, max| Some(Factor { p: 1.0, min, max });
        let erase = |area, aspect| Some(Erase { p: 1.0, area, aspect });
        for (wrong, name) in [
            (Augment { hflip: Some(Chance { p: 1.5 }), ..ok.clone() }, "hflip.p"),
            (Augment { hflip: Some(Chance { p: f64::NAN }), ..ok.clone() }, "hflip.p"),
            (Augment { rotate: Some(Angle { p: 1.0, degrees: 181.0 }), ..ok.clone() }, "rotate.degrees"),
            (Augment { shear: Some(Angle { p: 1.0, degrees: 90.0 }), ..ok.clone() }, "shear.degrees"),
            (Augment { shift: Some(Shift { p: 1.0, fraction: -0.1 }), ..ok.clone() }, "shift.fraction"),
            (Augment { zoom: factor(0.0, 1.0), ..ok.clone() }, "zoom.min"),
            (Augment { brightness: factor(1.0, 0.5), ..ok.clone() }, "brightness.max"),
            (Augment { contrast: factor(1.0, f64::INFINITY), ..ok.clone() }, "contrast.max"),
            (Augment { noise: Some(Noise { p: 1.0, std: 2.0 }), ..ok.clone() }, "noise.std"),
            (Augment { erase: erase([0.3, 0.1], 2.0), ..ok.clone() }, "erase.area"),
            (Augment { erase: erase([0.1, 0.3], 0.5), ..ok.clone() }, "erase.aspect"),
        ] {
            let error = wrong.validate().unwrap_err();
            assert_eq!(error.setting, name, "{error}");
        }
    }

    #[test]
    fn the_line_says_what_happens() {
        assert_eq!(Augment::default().to_string(), "none");
        assert!(Augment::default().is_identity() && !Augment::preset("light").unwrap().is_identity());
        let a = Augment {
            hflip: Some(Chance { p: 0.5 }),
            zoom: Some(Factor { p: 1.0, min: 0.9, max: 1.1 }),
            ..Augment::default()
        };
        assert_eq!(a.to_string(), "hflip (p 0.5), zoom 0.9-1.1, border nearest");
        assert!(Augment { hflip: Some(Chance { p: 0.0 }), ..Augment::default() }.is_identity());
    }
}
