//! How far to trust a measured number, and whether one network really beats another.
//!
//! All intervals are of 95 %. They speak about drawing other images, or other patients, from the same source. They say
//! nothing about images from another hospital. Two units are told apart throughout:
//! - *images*, taken as independent: Wilson's interval, DeLong's variance, McNemar's test, the bootstrap of images;
//! - *patients*, whose films are alike: the bootstrap of patients ([`Units::groups`]), which draws whole patients and is
//!   the one to believe where patients have several films.
//!
//! Repeated trainings are a third thing: [`t_interval`] for seeds, [`corrected_interval`] for folds.

mod bootstrap;
mod calibration;
mod delong;
mod distribution;
mod interval;
mod mcnemar;
mod multiple;
mod operating;
mod repeated;
mod scores;
mod temperature;

pub use bootstrap::{RESAMPLES, Units, bootstrap, bootstrap_many};
pub use calibration::{Bin, Binning, Reliability, calibration_pairs, reliability};
pub use delong::{AucDifference, DeLong, delong, delong_test};
pub use distribution::{binomial_two_sided, chi_squared_sf, normal_two_sided, t_quantile, t_two_sided};
pub use interval::{Interval, MeanStd, mean_std, quantile, wilson};
pub use mcnemar::{McNemar, mcnemar, paired_difference};
pub use multiple::holm;
pub use operating::{OperatingPoint, Rate, Rule, RuleError, choose_threshold, decide};
pub use repeated::{MeanDifference, corrected_interval, t_interval, welch};
pub use scores::{Estimate, Score, Scored};
pub use temperature::{TemperatureError, apply_temperature, fit_temperature};
