//! Initial values of parameters.
//!
//! Every value is a function of `(seed, tensor index, element index)`: a tensor does not change when another one is
//! added, and nothing depends on the order in which tensors are filled. Formulas: He et al. 2015 (arXiv 1502.01852),
//! Glorot and Bengio 2010, and `torch/nn/init.py` for the names and defaults.

use serde::{Deserialize, Serialize};

use crate::rng::{Rng, Stream};

/// The count whose inverse scales the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FanMode {
    /// Inputs of one output: keeps the variance of activations.
    #[default]
    FanIn,
    /// Outputs that one input reaches: keeps the variance of gradients.
    FanOut,
}

/// What follows the layer; decides the gain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    /// Nothing, or a sigmoid.
    Linear,
    /// `tanh`.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// `x` above zero, `negative_slope * x` below.
    LeakyRelu {
        /// The slope below zero.
        negative_slope: f64,
    },
}

impl Nonlinearity {
    /// `torch.nn.init.calculate_gain`.
    #[must_use]
    pub fn gain(self) -> f64 {
        match self {
            Self::Linear => 1.0,
            Self::Tanh => 5.0 / 3.0,
            Self::Relu => std::f64::consts::SQRT_2,
            Self::LeakyRelu { negative_slope } => (2.0 / (1.0 + negative_slope * negative_slope)).sqrt(),
        }
    }
}

/// A rule for initial values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Init {
    /// All 0: biases, the shift of batch-norm.
    Zeros,
    /// All 1: the gain of batch-norm.
    Ones,
    /// All the same.
    Constant {
        /// The value.
        value: f32,
    },
    /// Uniform in `[-bound, bound)`.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Normal with mean 0.
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// Uniform with the standard deviation `gain / sqrt(fan)`.
    KaimingUniform {
        /// Which fan.
        #[serde(default)]
        mode: FanMode,
        /// What follows the layer.
        nonlinearity: Nonlinearity,
    },
    /// Normal with the standard deviation `gain / sqrt(fan)`.
    KaimingNormal {
        /// Which fan.
        #[serde(default)]
        mode: FanMode,
        /// What follows the layer.
        nonlinearity: Nonlinearity,
    },
    /// Uniform with the standard deviation `gain * sqrt(2 / (fan_in + fan_out))`.
    XavierUniform {
        /// See [`Nonlinearity::gain`].
        gain: f64,
    },
    /// Normal with the standard deviation `gain * sqrt(2 / (fan_in + fan_out))`.
    XavierNormal {
        /// See [`Nonlinearity::gain`].
        gain: f64,
    },
}

/// A shape or a rule from which no values can be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InitError {
    /// Fans need an output and an input axis.
    #[error(
        "no fan can be computed for the shape {0:?}: it needs at least two axes, [out, in, ...]; use zeros or uniform for it"
    )]
    NoFan(Vec<usize>),
    /// A fan of zero.
    #[error("the shape {0:?} has an axis of length 0, so its fan is 0; give every axis a length of at least 1")]
    ZeroFan(Vec<usize>),
    /// More elements than the counter of draws can tell apart.
    #[error("the shape {0:?} has too many elements to initialise, at most 2^31 in one tensor; make the layer smaller")]
    TooLarge(Vec<usize>),
    /// A bound, deviation, gain or slope that is negative or not finite.
    #[error("the initialiser's {argument} is {value}, it must be finite and at least 0; change it")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: f64,
    },
}

/// `(fan_in, fan_out)` of a weight: `[out, in]` of a linear layer, `[out, in / groups, kh, kw]` of a convolution.
///
/// As in PyTorch, `fan_out` is `out * kh * kw` whatever the groups.
///
/// # Errors
/// [`InitError::NoFan`] below two axes, [`InitError::TooLarge`] on overflow.
pub fn fans(shape: &[usize]) -> Result<(usize, usize), InitError> {
    let [out, input, kernel @ ..] = shape else {
        return Err(InitError::NoFan(shape.to_vec()));
    };
    let times = |n: usize| kernel.iter().try_fold(n, |n, &k| n.checked_mul(k));
    times(*input).zip(times(*out)).ok_or_else(|| InitError::TooLarge(shape.to_vec()))
}

/// PyTorch's default weight of `Linear` and `Conv2d`: `kaiming_uniform(a = sqrt(5))`, which is uniform within
/// `1 / sqrt(fan_in)`.
#[must_use]
pub fn default_weight() -> Init {
    let nonlinearity = Nonlinearity::LeakyRelu { negative_slope: 5f64.sqrt() };
    Init::KaimingUniform { mode: FanMode::FanIn, nonlinearity }
}

/// PyTorch's default bias of `Linear` and `Conv2d`, for the weight of this shape: uniform within `1 / sqrt(fan_in)`.
///
/// # Errors
/// As [`fans`]; [`InitError::ZeroFan`] for a weight without inputs.
pub fn default_bias(weight_shape: &[usize]) -> Result<Init, InitError> {
    match fans(weight_shape)? {
        (0, _) => Err(InitError::ZeroFan(weight_shape.to_vec())),
        (fan_in, _) => Ok(Init::Uniform { bound: 1.0 / (fan_in as f64).sqrt() }),
    }
}

/// A rule whose scale is known.
enum Draw {
    Constant(f32),
    Uniform { bound: f64 },
    Normal { std: f64 },
}

impl Init {
    /// The values of a tensor of this shape, row-major. `tensor` is its index among the model's tensors.
    ///
    /// # Errors
    /// [`InitError`]: a shape without fans where the rule needs them, too many elements, a senseless argument.
    pub fn values(&self, shape: &[usize], seed: u32, tensor: u32) -> Result<Vec<f32>, InitError> {
        let draw = self.scale(shape)?;
        let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= 1 << 31);
        let len = len.ok_or_else(|| InitError::TooLarge(shape.to_vec()))?;
        let mut rng = Rng::new(seed, tensor, Stream::Init as u32);
        Ok(match draw {
            Draw::Constant(value) => vec![value; len],
            Draw::Uniform { bound } => {
                (0..len).map(|_| (bound * (2.0 * f64::from(rng.uniform()) - 1.0)) as f32).collect()
            }
            // A normal value takes two draws: 2i and 2i + 1.
            Draw::Normal { std } => (0..len).map(|_| (std * f64::from(rng.normal())) as f32).collect(),
        })
    }

    fn scale(&self, shape: &[usize]) -> Result<Draw, InitError> {
        let checked = |argument, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(value),
            false => Err(InitError::Argument { argument, value }),
        };
        let kaiming = |mode: FanMode, nonlinearity: Nonlinearity| {
            if let Nonlinearity::LeakyRelu { negative_slope } = nonlinearity {
                checked("negative_slope", negative_slope.abs())?;
            }
            let (fan_in, fan_out) = fans(shape)?;
            let fan = if mode == FanMode::FanIn { fan_in } else { fan_out };
            if fan == 0 {
                Err(InitError::ZeroFan(shape.to_vec()))
            } else {
                Ok(nonlinearity.gain() / (fan as f64).sqrt())
            }
        };
        let xavier = |gain: f64| {
            let (fan_in, fan_out) = fans(shape)?;
            let sum = fan_in as f64 + fan_out as f64;
            if sum == 0.0 {
                return Err(InitError::ZeroFan(shape.to_vec()));
            }
            Ok(checked("gain", gain)? * (2.0 / sum).sqrt())
        };
        // A uniform distribution within ±b has the standard deviation b / sqrt(3).
        let uniform = |std: f64| Draw::Uniform { bound: 3f64.sqrt() * std };
        Ok(match *self {
            Self::Zeros => Draw::Constant(0.0),
            Self::Ones => Draw::Constant(1.0),
            Self::Constant { value } => {
                checked("value", f64::from(value.abs()))?;
                Draw::Constant(value)
            }
            Self::Uniform { bound } => Draw::Uniform { bound: checked("bound", bound)? },
            Self::Normal { std } => Draw::Normal { std: checked("std", std)? },
            Self::KaimingUniform { mode, nonlinearity } => uniform(kaiming(mode, nonlinearity)?),
            Self::KaimingNormal { mode, nonlinearity } => Draw::Normal { std: kaiming(mode, nonlinearity)? },
            Self::XavierUniform { gain } => uniform(xavier(gain)?),
            Self::XavierNormal { gain } => Draw::Normal { std: xavier(gain)? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [64, 32, 3, 3];

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        (mean, values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn mean_and_variance_are_those_of_the_rule() {
        let relu = Nonlinearity::Relu;
        let leaky = Nonlinearity::LeakyRelu { negative_slope: 0.1 };
        let (fan_in, fan_out) = (288.0, 576.0);
        let cases = [
            (Init::KaimingUniform { mode: FanMode::FanIn, nonlinearity: relu }, 2.0 / fan_in),
            (Init::KaimingNormal { mode: FanMode::FanOut, nonlinearity: relu }, 2.0 / fan_out),
            (Init::KaimingNormal { mode: FanMode::FanIn, nonlinearity: leaky }, 2.0 / 1.01 / fan_in),
            (Init::XavierUniform { gain: 1.0 }, 2.0 / (fan_in + fan_out)),
            (Init::XavierNormal { gain: 5.0 / 3.0 }, 25.0 / 9.0 * 2.0 / (fan_in + fan_out)),
            (default_weight(), 1.0 / fan_in / 3.0),
            (Init::Uniform { bound: 0.5 }, 0.25 / 3.0),
            (Init::Normal { std: 0.02 }, 0.0004),
        ];
        for (init, variance) in cases {
            let values = init.values(&SHAPE, 1, 0).unwrap();
            assert_eq!(values.len(), 64 * 32 * 9);
            let (mean, var) = moments(&values);
            // Five standard errors of the mean; 5 % for the variance, whose own error here is about 1 %.
            assert!(mean.abs() < 5.0 * (variance / values.len() as f64).sqrt(), "{init:?}: mean {mean}");
            assert!((var / variance - 1.0).abs() < 0.05, "{init:?}: variance {var}, wanted {variance}");
        }
    }

    #[test]
    fn defaults_stay_within_the_bound() {
        let bound = 1.0 / 288f32.sqrt();
        let weight = default_weight().values(&SHAPE, 7, 3).unwrap();
        assert!(weight.iter().all(|w| w.abs() <= bound * 1.000_001));
        assert!(weight.iter().any(|w| w.abs() > bound * 0.99));
        let bias = default_bias(&SHAPE).unwrap();
        assert_eq!(bias, Init::Uniform { bound: 1.0 / 288f64.sqrt() });
        assert!(bias.values(&[64], 7, 4).unwrap().iter().all(|b| b.abs() <= bound));
    }

    #[test]
    fn values_depend_on_seed_and_tensor_alone() {
        let init = default_weight();
        let a = init.values(&[8, 4], 1, 2).unwrap();
        assert_eq!(a, init.values(&[8, 4], 1, 2).unwrap());
        assert_ne!(a, init.values(&[8, 4], 2, 2).unwrap());
        assert_ne!(a, init.values(&[8, 4], 1, 3).unwrap());
        // A longer tensor of the same scale starts with the same values.
        assert_eq!(a[..], init.values(&[16, 4], 1, 2).unwrap()[..32]);
    }

    #[test]
    fn fans_and_constants() {
        assert_eq!(fans(&[10, 20]), Ok((20, 10)));
        assert_eq!(fans(&[16, 3, 5, 7]), Ok((105, 560)));
        assert_eq!(Init::Zeros.values(&[3], 0, 0).unwrap(), [0.0; 3]);
        assert_eq!(Init::Ones.values(&[], 0, 0).unwrap(), [1.0]);
        assert_eq!(Init::Constant { value: -2.5 }.values(&[2], 0, 0).unwrap(), [-2.5; 2]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(default_weight().values(&[5], 0, 0), Err(InitError::NoFan(vec![5])));
        assert_eq!(default_weight().values(&[5, 0], 0, 0), Err(InitError::ZeroFan(vec![5, 0])));
        assert_eq!(default_bias(&[5, 0]), Err(InitError::ZeroFan(vec![5, 0])));
        let huge = vec![usize::MAX, 2];
        assert_eq!(Init::Zeros.values(&huge, 0, 0), Err(InitError::TooLarge(huge)));
        let error = Init::Normal { std: f64::NAN }.values(&[2], 0, 0).unwrap_err().to_string();
        assert!(error.contains("std"), "{error}");
    }
}
