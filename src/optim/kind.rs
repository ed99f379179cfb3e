//! Which optimizer, with PyTorch's argument names and defaults.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

/// An optimizer and its settings. The learning rate is not part of it: it comes from the schedule, step by step.
///
/// In files: `name = "adamw"` beside the arguments; those left out have PyTorch's defaults. On the command line:
/// see [`OptimizerKind::from_str`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerKind {
    /// Stochastic gradient descent (`torch.optim.SGD`).
    Sgd {
        /// Share of the old momentum that is kept; 0 means none.
        #[serde(default)]
        momentum: f64,
        /// Share of the new gradient that is kept out of the momentum.
        #[serde(default)]
        dampening: f64,
        /// Looks ahead along the momentum.
        #[serde(default)]
        nesterov: bool,
        /// L2 penalty, added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam (`torch.optim.Adam`; Kingma and Ba 2015, arXiv 1412.6980).
    Adam {
        /// Decay of the first and the second moment.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the denominator.
        #[serde(default = "eps")]
        eps: f64,
        /// L2 penalty, added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (`torch.optim.AdamW`; Loshchilov and Hutter 2019, arXiv 1711.05101).
    AdamW {
        /// Decay of the first and the second moment.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the denominator.
        #[serde(default = "eps")]
        eps: f64,
        /// Share of the weight, times the learning rate, that each step takes away.
        #[serde(default = "adamw_decay")]
        weight_decay: f64,
    },
    /// RMSprop (`torch.optim.RMSprop`; Tieleman and Hinton 2012).
    RmsProp {
        /// Decay of the mean square.
        #[serde(default = "alpha")]
        alpha: f64,
        /// Added to the denominator.
        #[serde(default = "eps")]
        eps: f64,
        /// L2 penalty, added to the gradient.
        #[serde(default)]
        weight_decay: f64,
        /// Share of the old momentum that is kept; 0 means none.
        #[serde(default)]
        momentum: f64,
        /// Divides by an estimate of the variance instead of the mean square.
        #[serde(default)]
        centered: bool,
    },
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}
fn eps() -> f64 {
    1e-8
}
fn adamw_decay() -> f64 {
    0.01
}
fn alpha() -> f64 {
    0.99
}

/// Settings that make no sense, or tensors that do not belong together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptimError {
    /// No optimizer of this name, or an argument that it does not have.
    #[error(
        "optimizer `{text}`: {reason}; write sgd, adam, adamw or rmsprop, or for example sgd:momentum=0.9,nesterov=true"
    )]
    Parse {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An argument out of its range.
    #[error("optimizer {optimizer}: {argument} is {value}, it must be {range}; change it")]
    Argument {
        /// The optimizer.
        optimizer: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// Nesterov's look-ahead needs a momentum and no dampening.
    #[error(
        "optimizer sgd: nesterov needs a momentum above 0 and a dampening of 0; set momentum=0.9 or leave nesterov out"
    )]
    Nesterov,
    /// A learning rate below zero or not finite.
    #[error("the learning rate is {0}, it must be finite and at least 0; change it")]
    LearningRate(f64),
    /// Steps are counted from 1.
    #[error("optimizer step 0: steps are counted from 1")]
    StepZero,
    /// Another number of state slots than [`OptimizerKind::slots`].
    #[error("optimizer {optimizer}: {given} state slots were given, {needed} are needed")]
    Slots {
        /// The optimizer.
        optimizer: &'static str,
        /// How many there are.
        given: usize,
        /// How many there must be.
        needed: usize,
    },
    /// Parameters, gradients and state of different lengths.
    #[error("optimizer {optimizer}: {what} has {len} elements, the parameter has {parameter}")]
    Length {
        /// The optimizer.
        optimizer: &'static str,
        /// The tensor that does not fit.
        what: &'static str,
        /// Its elements.
        len: usize,
        /// The parameter's elements.
        parameter: usize,
    },
}

impl OptimizerKind {
    /// The name as files and the command line have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sgd { .. } => "sgd",
            Self::Adam { .. } => "adam",
            Self::AdamW { .. } => "adamw",
            Self::RmsProp { .. } => "rmsprop",
        }
    }

    /// The state tensors, each of the parameter's shape and zero at first, under PyTorch's names, in the order in
    /// which [`update`](super::update()) takes them.
    #[must_use]
    pub fn slot_names(&self) -> &'static [&'static str] {
        match *self {
            Self::Sgd { momentum, .. } => {
                if momentum == 0.0 {
                    &[]
                } else {
                    &["momentum_buffer"]
                }
            }
            Self::Adam { .. } | Self::AdamW { .. } => &["exp_avg", "exp_avg_sq"],
            Self::RmsProp { momentum, centered, .. } => match (centered, momentum > 0.0) {
                (false, false) => &["square_avg"],
                (true, false) => &["square_avg", "grad_avg"],
                (false, true) => &["square_avg", "momentum_buffer"],
                (true, true) => &["square_avg", "grad_avg", "momentum_buffer"],
            },
        }
    }

    /// The same without weight decay.
    #[must_use]
    pub fn without_decay(&self) -> Self {
        let mut kind = *self;
        let (Self::Sgd { weight_decay, .. }
        | Self::Adam { weight_decay, .. }
        | Self::AdamW { weight_decay, .. }
        | Self::RmsProp { weight_decay, .. }) = &mut kind;
        *weight_decay = 0.0;
        kind
    }

    /// The number of state tensors for each parameter.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slot_names().len()
    }

    /// Checks the settings, by PyTorch's rules and for numbers that are not finite.
    ///
    /// # Errors
    /// [`OptimError::Argument`] and [`OptimError::Nesterov`].
    pub fn validate(&self) -> Result<(), OptimError> {
        let optimizer = self.name();
        let demand = |ok: bool, argument, value, range| match ok {
            true => Ok(()),
            false => Err(OptimError::Argument { optimizer, argument, value, range }),
        };
        let from_zero =
            |argument, value: f64| demand(value.is_finite() && value >= 0.0, argument, value, "finite and at least 0");
        let below_one =
            |argument, value: f64| demand((0.0..1.0).contains(&value), argument, value, "in 0 to 1, 1 excluded");
        match *self {
            Self::Sgd { momentum, dampening, nesterov, weight_decay } => {
                from_zero("momentum", momentum)?;
                demand(dampening.is_finite(), "dampening", dampening, "finite")?;
                from_zero("weight_decay", weight_decay)?;
                if nesterov && (momentum <= 0.0 || dampening != 0.0) {
                    return Err(OptimError::Nesterov);
                }
                Ok(())
            }
            Self::Adam { betas, eps, weight_decay } | Self::AdamW { betas, eps, weight_decay } => {
                below_one("betas[0]", betas[0])?;
                below_one("betas[1]", betas[1])?;
                from_zero("eps", eps)?;
                from_zero("weight_decay", weight_decay)
            }
            Self::RmsProp { alpha, eps, weight_decay, momentum, .. } => {
                demand((0.0..=1.0).contains(&alpha), "alpha", alpha, "in 0 to 1")?;
                from_zero("eps", eps)?;
                from_zero("weight_decay", weight_decay)?;
                from_zero("momentum", momentum)
            }
        }
    }
}

impl FromStr for OptimizerKind {
    type Err = OptimError;

    /// Reads `NAME` or `NAME:ARGUMENT=VALUE,...`, for example `adam`, `sgd:momentum=0.9,nesterov=true` or
    /// `adamw:betas=0.9/0.99,weight_decay=0.05`. The settings are validated.
    fn from_str(text: &str) -> Result<Self, OptimError> {
        let fail = |reason: String| OptimError::Parse { text: text.escape_default().to_string(), reason };
        let (name, arguments) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        let mut map = Map::new();
        map.insert("name".into(), name.to_ascii_lowercase().into());
        for argument in arguments.split(',').filter(|a| !a.trim().is_empty()) {
            let (key, value) =
                argument.split_once('=').ok_or_else(|| fail(format!("`{}` is no ARGUMENT=VALUE", argument.trim())))?;
            let value = parse_value(value.trim()).ok_or_else(|| fail(format!("`{}` is no number", value.trim())))?;
            if map.insert(key.trim().into(), value).is_some() {
                return Err(fail(format!("`{}` is given twice", key.trim())));
            }
        }
        let kind: Self = serde_json::from_value(Value::Object(map)).map_err(|e| fail(e.to_string()))?;
        kind.validate()?;
        Ok(kind)
    }
}

/// A truth value, a finite number, or several numbers with `/` between them.
fn parse_value(text: &str) -> Option<Value> {
    let number = |t: &str| t.trim().parse().ok().and_then(Number::from_f64).map(Value::Number);
    match text {
        "true" => Some(true.into()),
        "false" => Some(false.into()),
        list if list.contains('/') => list.split('/').map(number).collect::<Option<Vec<_>>>().map(Value::Array),
        one => number(one),
    }
}

impl fmt::Display for OptimizerKind {
    /// The form that [`OptimizerKind::from_str`] reads, with every argument written out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name())?;
        match *self {
            Self::Sgd { momentum, dampening, nesterov, weight_decay } => {
                write!(f, "momentum={momentum},dampening={dampening},nesterov={nesterov},weight_decay={weight_decay}")
            }
            Self::Adam { betas: [b1, b2], eps, weight_decay } | Self::AdamW { betas: [b1, b2], eps, weight_decay } => {
                write!(f, "betas={b1}/{b2},eps={eps},weight_decay={weight_decay}")
            }
            Self::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
                write!(f, "alpha={alpha},eps={eps},weight_decay={weight_decay},momentum={momentum},centered={centered}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_pytorchs_defaults() {
        let sgd = OptimizerKind::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
        assert_eq!("sgd".parse(), Ok(sgd));
        assert_eq!("Adam".parse(), Ok(OptimizerKind::Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }));
        assert_eq!("adamw".parse(), Ok(OptimizerKind::AdamW { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }));
        let rms = OptimizerKind::RmsProp { alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false };
        assert_eq!("rmsprop".parse(), Ok(rms));
    }

    #[test]
    fn arguments_survive_text_and_json() {
        let texts = [
            "sgd:momentum=0.9,nesterov=true",
            "adam:betas=0.8/0.95,eps=1e-6",
            "adamw:weight_decay=0",
            "rmsprop:centered=true,momentum=0.5",
        ];
        for text in texts {
            let kind: OptimizerKind = text.parse().unwrap();
            assert_eq!(kind.to_string().parse(), Ok(kind), "{text}");
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<OptimizerKind>(&json).unwrap(), kind, "{text}");
        }
        assert_eq!("rmsprop:centered=true,momentum=0.5".parse::<OptimizerKind>().unwrap().slots(), 3);
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        let cases = [
            ("lion", "lion"),
            ("sgd:nesterov=true", "nesterov"),
            ("sgd:momentum=-1", "momentum"),
            ("sgd:momentum", "ARGUMENT=VALUE"),
            ("sgd:momentum=x", "no number"),
            ("sgd:momentum=inf", "no number"),
            ("adam:momentum=0.9", "momentum"),
            ("adam:betas=0.9/1", "betas[1]"),
            ("adam:betas=0.9", "betas"),
            ("adam:eps=1,eps=2", "twice"),
            ("", "unknown variant"),
        ];
        for (text, part) in cases {
            let error = text.parse::<OptimizerKind>().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
