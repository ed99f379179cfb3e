//! Adapters: finding one, opening it, and what goes wrong on it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lower::{AdapterKind, MAX_LATE};
use super::schedule::Target;
use crate::exec::ExecError;

/// What a person needs to know of an adapter.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterSummary {
    /// Its number for `--device gpu:N`.
    pub index: usize,
    /// Name.
    pub name: String,
    /// `discrete`, `integrated` or `software`.
    pub kind: &'static str,
    /// `Vulkan`, `Metal`, `Dx12`.
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Largest binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
}

fn kind_of(info: &wgpu::AdapterInfo) -> AdapterKind {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::Other => AdapterKind::Integrated,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
    }
}

/// All adapters, in the system's order.
#[cfg(not(target_arch = "wasm32"))]
fn adapters() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
}

/// The adapters that wgpu sees.
#[cfg(not(target_arch = "wasm32"))]
#[must_use]
pub fn list() -> Vec<AdapterSummary> {
    adapters().iter().enumerate().map(|(i, a)| summarise(i, a)).collect()
}

fn summarise(index: usize, adapter: &wgpu::Adapter) -> AdapterSummary {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    AdapterSummary {
        index,
        name: info.name.clone(),
        kind: kind_of(&info).word(),
        backend: format!("{:?}", info.backend),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
    }
}

/// What is used where an adapter has it, and done without elsewhere. In a browser nothing is: subgroups need a line in the shader there
/// that naga does not read, and the others serve waiting hosts.
const WANTED: wgpu::Features = if cfg!(target_arch = "wasm32") {
    wgpu::Features::empty()
} else {
    wgpu::Features::TIMESTAMP_QUERY
        .union(wgpu::Features::SUBGROUP)
        .union(wgpu::Features::PIPELINE_CACHE)
        .union(wgpu::Features::IMMEDIATES)
};

/// Which adapter is wanted.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The best: discrete, then integrated, then software.
    Best,
    /// The best that is real hardware; none is an answer.
    Hardware,
    /// The one of that number.
    Number(usize),
}

/// An open device.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// The adapter.
    pub summary: AdapterSummary,
    /// What kernels are chosen for.
    pub kind: AdapterKind,
    /// Invocations in a subgroup, where there are subgroup operations and all subgroups are of one size.
    pub subgroup: Option<u32>,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) timestamps: bool,
    failures: Arc<Mutex<Failures>>,
}

/// What the device has reported.
#[derive(Debug, Default)]
struct Failures {
    /// That it is gone, for good, and why.
    lost: Option<String>,
    /// The first error since the last look.
    first: Option<Reported>,
    /// Whether it is kept for ever, because dropping it would wait for it without end.
    kept: bool,
}

#[derive(Debug)]
enum Reported {
    Memory(String),
    Refused(String),
}

/// What wgpu says of a device that was lost because memory ran out.
const OUT_OF_MEMORY: &str = "Out of memory";

impl Gpu {
    /// Opens the adapter that the browser has for pages that compute.
    ///
    /// # Errors
    /// [`ExecError::NoAdapter`] when it has none, [`ExecError::Device`] when it does not open.
    #[cfg(target_arch = "wasm32")]
    pub async fn request() -> Result<Self, ExecError> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::BROWSER_WEBGPU;
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = wgpu::Instance::new(descriptor).request_adapter(&options).await;
        let adapter =
            adapter.map_err(|_| ExecError::NoAdapter("this browser gives pages no WebGPU adapter".to_owned()))?;
        Self::of_adapter(0, &adapter).await
    }

    /// Opens an adapter with all of its limits.
    ///
    /// # Errors
    /// [`ExecError::NoAdapter`] when there is none of that sort, [`ExecError::Device`] when it does not open.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(wanted: Wanted) -> Result<Self, ExecError> {
        let found = adapters();
        let rank = |a: &wgpu::Adapter| match kind_of(&a.get_info()) {
            AdapterKind::Discrete => 0,
            AdapterKind::Integrated => 1,
            AdapterKind::Software => 2,
        };
        let index = match wanted {
            Wanted::Number(n) if n < found.len() => n,
            Wanted::Number(n) => {
                return Err(ExecError::NoAdapter(format!(
                    "there is no adapter {n}: `radiograd devices` lists the {} that were found",
                    found.len()
                )));
            }
            Wanted::Best | Wanted::Hardware => (0..found.len())
                .filter(|&i| wanted == Wanted::Best || rank(&found[i]) < 2)
                .min_by_key(|&i| (rank(&found[i]), i))
                .ok_or_else(|| {
                    ExecError::NoAdapter(
                        "no GPU adapter was found: install a Vulkan driver (mesa-vulkan-drivers has a software one) or use --device cpu"
                            .to_owned(),
                    )
                })?,
        };
        pollster::block_on(Self::of_adapter(index, &found[index]))
    }

    async fn of_adapter(index: usize, adapter: &wgpu::Adapter) -> Result<Self, ExecError> {
        let features = adapter.features() & WANTED;
        let info = adapter.get_info();
        let subgroup = (features.contains(wgpu::Features::SUBGROUP)
            && info.subgroup_min_size == info.subgroup_max_size)
            .then_some(info.subgroup_min_size);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("radiograd"),
            required_features: features,
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|e| ExecError::Device(format!("{} does not open: {e}", adapter.get_info().name)))?;
        let failures = Arc::new(Mutex::new(Failures::default()));
        let slot = Arc::clone(&failures);
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            let reported = match &e {
                wgpu::Error::OutOfMemory { .. } => Reported::Memory(one_line(&e)),
                _ => Reported::Refused(one_line(&e)),
            };
            if let Ok(mut failures) = slot.lock() {
                failures.first.get_or_insert(reported);
            }
        }));
        let slot = Arc::clone(&failures);
        device.set_device_lost_callback(move |reason, text| {
            let text = if reason == wgpu::DeviceLostReason::Destroyed { "it was destroyed".to_owned() } else { text };
            if let Ok(mut failures) = slot.lock() {
                failures.lost.get_or_insert(text);
            }
        });
        Ok(Self {
            summary: summarise(index, adapter),
            kind: kind_of(&info),
            subgroup,
            device,
            queue,
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            failures,
        })
    }

    /// The first failure that the device reported since the last call, or that it is lost; `at` says what was going on.
    pub(super) fn check(&self, at: impl FnOnce() -> String) -> Result<(), ExecError> {
        let Ok(mut failures) = self.failures.lock() else { return Ok(()) };
        if let Some(reason) = failures.lost.clone() {
            self.keep(&mut failures);
            let lost_memory = reason == OUT_OF_MEMORY;
            return Err(if lost_memory { ExecError::OutOfMemory(at()) } else { ExecError::Lost { at: at(), reason } });
        }
        match failures.first.take() {
            Some(Reported::Memory(reason)) => Err(ExecError::OutOfMemory(format!("{}: {reason}", at()))),
            Some(Reported::Refused(reason)) => Err(ExecError::Validation { at: at(), reason }),
            None => Ok(()),
        }
    }

    /// Has the device never be dropped: that would wait for what it still does, and may panic where it is lost.
    fn keep(&self, failures: &mut Failures) {
        if !std::mem::replace(&mut failures.kept, true) {
            std::mem::forget((self.device.clone(), self.queue.clone()));
        }
    }

    /// Destroys the device, as a driver does that resets it: whatever is submitted from now on is dropped, and what is waited for or read
    /// back fails with [`ExecError::Lost`]. For tests; nothing brings it back.
    pub fn lose(&self) {
        if let Ok(mut failures) = self.failures.lock() {
            failures.lost.get_or_insert_with(|| "it was destroyed".to_owned());
        }
        self.device.destroy();
    }

    /// Waits until a submission has ended, or all, at most for `limit`; `at` names it.
    ///
    /// # Errors
    /// [`ExecError::TimedOut`], and whatever the device reports.
    pub(super) fn wait_for(
        &self,
        index: Option<wgpu::SubmissionIndex>,
        limit: Duration,
        at: impl Fn() -> String,
    ) -> Result<(), ExecError> {
        let poll = wgpu::PollType::Wait { submission_index: index, timeout: Some(limit) };
        let polled = quietly(|| self.device.poll(poll));
        if let Err(reason) = &polled
            && let Ok(mut failures) = self.failures.lock()
        {
            failures.lost.get_or_insert_with(|| reason.clone());
        }
        // What the device says goes before what waiting says: of a lost one there is nothing to wait for.
        self.check(&at)?;
        match polled {
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(wgpu::PollError::Timeout)) => {
                if let Ok(mut failures) = self.failures.lock() {
                    self.keep(&mut failures);
                }
                Err(ExecError::TimedOut { at: at(), limit })
            }
            Ok(Err(e)) => Err(ExecError::Device(format!("{}: {e}", at()))),
        }
    }

    /// Whether shaders may read data that the encoder sets.
    pub(super) fn immediates(&self) -> bool {
        let bytes = self.device.limits().max_immediate_size as usize;
        self.device.features().contains(wgpu::Features::IMMEDIATES) && bytes >= 4 * MAX_LATE
    }

    /// Runs `f`. What the device says about it arrives when the page has returned to the browser, and ends the first run or
    /// reading back after that.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn guarded<R>(&self, _what: &str, f: impl FnOnce() -> R) -> Result<R, ExecError> {
        Ok(f())
    }

    /// Runs `f` and turns what the device says about it into an error.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn guarded<R>(&self, what: &str, f: impl FnOnce() -> R) -> Result<R, ExecError> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let result = f();
        let internal = pollster::block_on(internal.pop());
        let validation = pollster::block_on(validation.pop());
        let memory = pollster::block_on(memory.pop());
        // A lost device makes things that do not work, and says nothing.
        let lost = self.failures.lock().is_ok_and(|failures| failures.lost.is_some());
        if lost {
            self.check(|| what.to_owned())?;
        }
        if let Some(e) = memory {
            return Err(ExecError::OutOfMemory(format!("{what}: {}", one_line(&e))));
        }
        match internal.or(validation) {
            Some(e) => Err(ExecError::Validation { at: what.to_owned(), reason: one_line(&e) }),
            None => Ok(result),
        }
    }

    /// What of this adapter decides about kernels and memory.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            kind: self.kind,
            subgroup: self.subgroup,
            max_tensor_bytes: self.max_tensor_bytes(),
            max_buffer_bytes: self.summary.max_buffer_bytes,
        }
    }

    /// Largest single tensor in bytes.
    #[must_use]
    pub fn max_tensor_bytes(&self) -> u64 {
        self.summary.max_binding_bytes.min(self.summary.max_buffer_bytes)
    }

    /// Whether the device puts timestamps around its work.
    #[must_use]
    pub fn has_timestamps(&self) -> bool {
        self.timestamps
    }

    /// `lavapipe (software, Vulkan, driver)`.
    #[must_use]
    pub fn describe(&self) -> String {
        let s = &self.summary;
        format!("{} ({}, {}, {})", s.name, s.kind, s.backend, s.driver)
    }
}

fn one_line(error: &impl ToString) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

thread_local! {
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs what panics inside wgpu where the driver fails: it has no other way to say that a device was lost while it was waited for.
/// The panic's words are the error, and are not printed; panics elsewhere are none the wiser.
fn quietly<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    QUIET.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        one_line(&text.unwrap_or("the driver failed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_driver_is_an_error_and_later_ones_are_panics() {
        assert_eq!(quietly(|| 3), Ok(3));
        assert_eq!(quietly(|| panic!("lost\n  for good")), Err::<(), _>("lost for good".to_owned()));
        assert!(!QUIET.get() && std::panic::catch_unwind(|| panic!("this one is printed")).is_err());
    }
}
