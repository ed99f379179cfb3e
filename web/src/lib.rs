//! What the pages of the lab call: a device, a data set, and trainings that go step by step.
//!
//! Everything that computes is the `radiograd` crate's. This crate turns its results into what JavaScript takes: numbers as typed arrays,
//! the rest as JSON. It runs in a worker; nothing here waits, and nothing leaves the computer.

mod data;
mod explain;
mod run;

use radiograd::cpu;
use radiograd::exec::Executor;
use radiograd::gpu::{self, Gpu};
use serde::Serialize;
use wasm_bindgen::prelude::*;

pub use data::Data;
pub use run::Run;

/// A message for a person, as a JavaScript error.
fn fail(e: impl std::fmt::Display) -> JsError {
    JsError::new(&e.to_string())
}

fn json<T: Serialize>(value: &T) -> Result<String, JsError> {
    serde_json::to_string(value).map_err(fail)
}

/// What computes.
#[wasm_bindgen]
pub struct Device(Option<Gpu>);

#[wasm_bindgen]
impl Device {
    /// The browser's GPU.
    ///
    /// # Errors
    /// The browser has none for pages.
    pub async fn gpu() -> Result<Device, JsError> {
        console_error_panic_hook::set_once();
        Ok(Self(Some(Gpu::request().await.map_err(fail)?)))
    }

    /// The CPU, by the crate's own kernels.
    #[must_use]
    pub fn cpu() -> Device {
        console_error_panic_hook::set_once();
        Self(None)
    }

    /// The device in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.0 {
            Some(gpu) => format!("WebGPU ({})", gpu.summary.kind),
            None => "CPU (WebAssembly)".to_owned(),
        }
    }

    fn executor(&self) -> Box<dyn Executor> {
        match &self.0 {
            Some(gpu) => Box::new(gpu::Executor::new(gpu.clone(), gpu::Options::default())),
            None => Box::new(cpu::Executor::<f32>::fast()),
        }
    }
}
