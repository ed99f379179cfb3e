//! Splitting a search over machines: each takes every n-th trial, in the order of the ids.

use std::fmt;
use std::str::FromStr;

use super::Trial;

/// One of `of` equal parts, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part: 0 to `of - 1`.
    pub index: u32,
    /// How many parts there are.
    pub of: u32,
}

impl Shard {
    fn new(index: u32, of: u32) -> Result<Self, String> {
        match index < of {
            true => Ok(Self { index, of }),
            false => Err(format!("shard {index} of {of}: shards are counted from 0 to one less than their number")),
        }
    }

    /// Reads `I/N`, or `auto/N`, whose number comes from `JOB_COMPLETION_INDEX` (an indexed job of Kubernetes) or
    /// `SLURM_ARRAY_TASK_ID`. `env` looks up a variable.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn read(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let form = "write I/N, I from 0 to N-1, or auto/N";
        let (index, of) = text.split_once('/').ok_or_else(|| form.to_owned())?;
        let of: u32 = of.trim().parse().map_err(|_| form.to_owned())?;
        let index = match index.trim() {
            "auto" => match (env("JOB_COMPLETION_INDEX"), Self::of_slurm(&env)?) {
                (Some(index), _) => {
                    index.parse().map_err(|_| format!("JOB_COMPLETION_INDEX is {index}, which is no number"))?
                }
                (None, Some(shard)) => shard.index,
                (None, None) => {
                    return Err("auto needs JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID in the environment".to_owned());
                }
            },
            number => number.parse().map_err(|_| form.to_owned())?,
        };
        Self::new(index, of)
    }

    /// The part of a task of a Slurm array, by `SLURM_ARRAY_TASK_ID`, `_MIN`, `_STEP` and `_COUNT`; `None` outside one.
    ///
    /// # Errors
    /// An array whose numbers are not evenly spaced.
    pub fn of_slurm(env: &impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let number = |name: &str| env(name).and_then(|v| v.parse::<u32>().ok());
        let Some(id) = number("SLURM_ARRAY_TASK_ID") else { return Ok(None) };
        let Some(count) = number("SLURM_ARRAY_TASK_COUNT") else { return Ok(None) };
        let min = number("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
        let step = number("SLURM_ARRAY_TASK_STEP").unwrap_or(1).max(1);
        let uneven = || {
            format!(
                "array task {id} (from {min}, {count} tasks): number the array evenly, as --array=0-{}",
                count.max(1) - 1
            )
        };
        let past = id.checked_sub(min).ok_or_else(uneven)?;
        match past % step == 0 && past / step < count {
            true => Self::new(past / step, count).map(Some),
            false => Err(uneven()),
        }
    }

    /// The trials of this part: every `of`-th in the order of the ids.
    #[must_use]
    pub fn take(self, trials: Vec<Trial>) -> Vec<Trial> {
        let mut all = trials;
        all.sort_by(|a, b| a.id.cmp(&b.id));
        let (index, of) = (self.index as usize, self.of as usize);
        all.into_iter().skip(index).step_by(of).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, |name| std::env::var(name).ok())
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;

    #[test]
    fn parts_are_disjoint_and_complete_whatever_the_order() {
        let trial = |k: u64| Trial {
            id: format!("{:016x}", k.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            config: TrainConfig::default(),
            candidate: 0,
        };
        for of in [1, 2, 3, 4, 7, 50] {
            let mut seen: Vec<String> = Vec::new();
            for index in 0..of {
                let mut trials: Vec<Trial> = (0..43).map(trial).collect();
                // Each part may list the trials in an order of its own.
                trials.rotate_left(index as usize % 43);
                let part = Shard::new(index, of).unwrap().take(trials);
                assert!(part.len().abs_diff(43 / of as usize) <= 1);
                seen.extend(part.into_iter().map(|t| t.id));
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 43, "{of}");
        }
    }

    #[test]
    fn numbers_come_from_the_option_or_the_environment() {
        let none = |_: &str| None;
        assert_eq!(Shard::read("2/4", none), Ok(Shard { index: 2, of: 4 }));
        for wrong in ["4/4", "1", "a/4", "1/0", "0/0", "-1/4", "auto/4"] {
            assert!(Shard::read(wrong, none).is_err(), "{wrong}");
        }
        let kubernetes = |name: &str| (name == "JOB_COMPLETION_INDEX").then(|| "3".to_owned());
        assert_eq!(Shard::read("auto/4", kubernetes), Ok(Shard { index: 3, of: 4 }));
        assert!(Shard::read("auto/3", kubernetes).is_err());
        let slurm = |id: &'static str, min: &'static str, count: &'static str, step: &'static str| {
            move |name: &str| {
                let value = match name {
                    "SLURM_ARRAY_TASK_ID" => id,
                    "SLURM_ARRAY_TASK_MIN" => min,
                    "SLURM_ARRAY_TASK_COUNT" => count,
                    "SLURM_ARRAY_TASK_STEP" => step,
                    _ => return None,
                };
                Some(value.to_owned())
            }
        };
        assert_eq!(Shard::of_slurm(&slurm("4", "1", "4", "1")), Ok(Some(Shard { index: 3, of: 4 })));
        assert_eq!(Shard::of_slurm(&slurm("6", "0", "4", "2")), Ok(Some(Shard { index: 3, of: 4 })));
        assert!(Shard::of_slurm(&slurm("9", "1", "3", "1")).unwrap_err().contains("--array=0-2"));
        assert_eq!(Shard::of_slurm(&none), Ok(None));
        assert_eq!(Shard::read("auto/4", slurm("2", "0", "4", "1")), Ok(Shard { index: 2, of: 4 }));
    }
}
