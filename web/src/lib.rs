//! What the pages of the lab call: a device, a data set, and trainings that go step by step.
//!
//! Everything that computes is the `radiograd` crate's. This crate turns its results into what JavaScript takes: numbers as typed arrays,
//! the rest as JSON. It runs in a worker; nothing here waits, and nothing leaves the computer.

mod data;
mod explain;
mod run;

use radiograd::cpu;
use radiograd::exec::Executor;
use radiograd::gpu::{self, Ahead, Gpu};
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
pub struct Device {
    gpu: Option<Gpu>,
    ahead: Ahead,
}

#[wasm_bindgen]
impl Device {
    /// The browser's GPU.
    ///
    /// # Errors
    /// The browser has none for pages.
    pub async fn gpu() -> Result<Device, JsError> {
        console_error_panic_hook::set_once();
        Ok(Self { gpu: Some(Gpu::request().await.map_err(fail)?), ahead: Ahead::default() })
    }

    /// The CPU, by the crate's own kernels.
    #[must_use]
    pub fn cpu() -> Device {
        console_error_panic_hook::set_once();
        Self { gpu: None, ahead: Ahead::default() }
    }

    /// The device in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.gpu {
            Some(gpu) => format!("WebGPU ({})", gpu.summary.kind),
            None => "CPU (WebAssembly)".to_owned(),
        }
    }

    /// The browser's own `GPUDevice`; undefined for the CPU.
    #[must_use]
    pub fn handle(&self) -> JsValue {
        self.gpu.as_ref().and_then(Gpu::handle).map_or(JsValue::UNDEFINED, JsValue::from)
    }

    fn executor(&self) -> Box<dyn Executor> {
        match &self.gpu {
            Some(gpu) => {
                let options = gpu::Options { ahead: Some(self.ahead.clone()), ..gpu::Options::default() };
                Box::new(gpu::Executor::new(gpu.clone(), options))
            }
            None => Box::new(cpu::Executor::<f32>::fast()),
        }
    }
}
