//! `--device`: what can be asked for, and what is taken.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use crate::cpu;
use crate::exec::{ExecError, Executor};
use crate::gpu::lower::AdapterKind;
use crate::gpu::tuned::{Machine, Tuned};
use crate::gpu::{self, Gpu, Wanted};

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A discrete GPU, else an integrated one, else the CPU executor.
    #[default]
    Auto,
    /// The best adapter, a software one included.
    Gpu,
    /// The adapter of that number.
    GpuNumber(usize),
    /// The CPU executor.
    Cpu,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "cpu" => Ok(Self::Cpu),
            _ => match s.strip_prefix("gpu:").map(str::parse) {
                Some(Ok(n)) => Ok(Self::GpuNumber(n)),
                _ => Err("give auto, gpu, gpu:N or cpu; `radiograd devices` lists the numbers".to_owned()),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Gpu => f.write_str("gpu"),
            Self::GpuNumber(n) => write!(f, "gpu:{n}"),
            Self::Cpu => f.write_str("cpu"),
        }
    }
}

/// An open device.
#[derive(Debug)]
pub enum Device {
    /// The CPU executor in `f32`.
    Cpu(Box<cpu::Executor<f32>>),
    /// An adapter.
    Gpu(Box<gpu::Executor>),
}

/// A device and why it was taken.
#[derive(Debug)]
pub struct Opened {
    /// The device.
    pub device: Device,
    /// Why it and no other, in words that follow a colon.
    pub reason: String,
    /// What went wrong with files that are not needed.
    pub notes: Vec<String>,
}

/// What is kept on disk about adapters, and what of it to use. By default nothing.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The cache folder: measurements (`tune`) and compiled pipelines (`pipelines`).
    pub folder: Option<PathBuf>,
    /// Take the kernels that `radiograd tune` found to be the fastest.
    pub tune: bool,
}

/// A device as JSON documents name it.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceReport {
    /// `cpu` or `gpu`.
    pub kind: &'static str,
    /// The device in words.
    pub name: String,
    /// Why it was taken.
    pub reason: String,
    /// What `radiograd tune` has to say about it; none where it was not run, or is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuned: Option<TunedReport>,
}

/// Measurements as JSON documents count them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TunedReport {
    /// Ops at shapes that were measured.
    pub measured: usize,
    /// Those for which another kernel than the table's was the fastest.
    pub changed: usize,
}

impl Opened {
    /// The device, why it was taken, and how many kernels were tuned on it, in a line.
    #[must_use]
    pub fn line(&self) -> String {
        let line = format!("{}: {}", self.device.describe(), self.reason);
        match self.tuned() {
            None => line,
            Some(TunedReport { measured, changed }) => format!(
                "{line}; tuned: {changed} {} (radiograd tune measured {measured})",
                if changed == 1 { "kernel" } else { "kernels" }
            ),
        }
    }

    fn tuned(&self) -> Option<TunedReport> {
        let (measured, changed) = self.device.gpu()?.tuned()?.count();
        Some(TunedReport { measured, changed })
    }

    /// For JSON documents.
    #[must_use]
    pub fn report(&self) -> DeviceReport {
        let kind = if self.device.gpu().is_some() { "gpu" } else { "cpu" };
        DeviceReport { kind, name: self.device.describe(), reason: self.reason.clone(), tuned: self.tuned() }
    }
}

impl Device {
    fn open(wanted: Wanted, kept: &Kept, notes: &mut Vec<String>) -> Result<Self, ExecError> {
        let gpu = Gpu::open(wanted)?;
        let mut options = gpu::Options::default();
        if let Some(folder) = &kept.folder {
            // Software adapters compile at the first dispatch and hand nothing out.
            options.pipelines = (gpu.kind != AdapterKind::Software).then(|| folder.join("pipelines"));
            if kept.tune {
                match Tuned::load(folder, &Machine::of(&gpu.summary)) {
                    Ok(tuned) => options.tuned = tuned.map(Arc::new),
                    Err(e) => notes.push(e.to_string()),
                }
            }
        }
        Ok(Self::Gpu(Box::new(gpu::Executor::new(gpu, options))))
    }

    fn cpu() -> Self {
        Self::Cpu(Box::new(cpu::Executor::fast()))
    }

    /// The device in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Cpu(e) => e.describe(),
            Self::Gpu(e) => e.describe(),
        }
    }

    /// What runs on it.
    pub fn executor(&mut self) -> &mut dyn Executor {
        match self {
            Self::Cpu(e) => e.as_mut(),
            Self::Gpu(e) => e.as_mut(),
        }
    }

    /// The GPU executor, if it is one: it alone knows of kernel variants, planned memory and timestamps.
    #[must_use]
    pub fn gpu(&self) -> Option<&gpu::Executor> {
        match self {
            Self::Cpu(_) => None,
            Self::Gpu(e) => Some(e),
        }
    }

    /// As [`Device::gpu`], to run on it.
    pub fn gpu_mut(&mut self) -> Option<&mut gpu::Executor> {
        match self {
            Self::Cpu(_) => None,
            Self::Gpu(e) => Some(e),
        }
    }

    /// The executor alone, for training.
    #[must_use]
    pub fn into_executor(self) -> Box<dyn Executor> {
        match self {
            Self::Cpu(e) => e,
            Self::Gpu(e) => e,
        }
    }
}

/// Opens what was asked for, and says why this one.
///
/// # Errors
/// [`ExecError::NoAdapter`] where an adapter is asked for that does not exist; [`ExecError::Device`] where it does not
/// open. `auto` always finds something.
pub fn open_device(choice: DeviceChoice) -> Result<Opened, ExecError> {
    open_device_with(choice, &Kept::default())
}

/// As [`open_device`], with what is kept on disk about adapters.
///
/// # Errors
/// As [`open_device`]. A file that does not read is no error but a note.
pub fn open_device_with(choice: DeviceChoice, kept: &Kept) -> Result<Opened, ExecError> {
    let mut notes = Vec::new();
    let mut open = |wanted| Device::open(wanted, kept, &mut notes);
    let (device, reason) = match choice {
        DeviceChoice::Auto => match open(Wanted::Hardware) {
            Ok(device) => {
                let kind = device.gpu().map_or("", |e| e.gpu().summary.kind);
                let reason = match kind {
                    "discrete" => "the first discrete GPU",
                    _ => "the first integrated GPU, as there is no discrete one",
                };
                (device, reason.to_owned())
            }
            Err(ExecError::NoAdapter(_)) => (Device::cpu(), "no discrete or integrated GPU was found".to_owned()),
            // A broken driver is no reason to do nothing, but it is said.
            Err(e) => (Device::cpu(), e.to_string()),
        },
        DeviceChoice::Gpu => (open(Wanted::Best)?, "asked for with --device gpu".to_owned()),
        DeviceChoice::GpuNumber(n) => (open(Wanted::Number(n))?, format!("asked for with --device gpu:{n}")),
        DeviceChoice::Cpu => (Device::cpu(), "asked for with --device cpu".to_owned()),
    };
    Ok(Opened { device, reason, notes })
}

/// As [`open_device`], for what needs no more than an [`Executor`].
///
/// # Errors
/// As [`open_device`].
pub fn open(choice: DeviceChoice) -> Result<(Box<dyn Executor>, String), ExecError> {
    open_device(choice).map(|o| (o.device.into_executor(), o.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_back_what_they_print() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Gpu, DeviceChoice::GpuNumber(3), DeviceChoice::Cpu] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for wrong in ["", "GPU", "gpu:", "gpu:-1", "gpu:99999999999999999999", "cuda"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}
