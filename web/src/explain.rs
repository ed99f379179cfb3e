//! An image explained, as `radiograd explain` does it.

use radiograd::cpu;
use radiograd::explain::{DEFAULT_BYTES, Request, explain};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

use crate::{Run, fail, json};

/// What the page knows of an image.
#[derive(Deserialize)]
struct Asked {
    name: String,
    classes: Vec<String>,
    label: Option<usize>,
}

#[wasm_bindgen]
impl Run {
    /// An `Explanation` of an image, `C*H*W` bytes, with the present weights, as JSON; `asked` has its name, the class names and its label.
    /// The CPU computes it: an explanation reads every number of a pass, and a page cannot wait for the GPU to give them.
    ///
    /// # Errors
    /// An image of another size, weights that have diverged, or a device that failed.
    pub async fn explain(&mut self, image: Vec<u8>, asked: String) -> Result<String, JsError> {
        let asked: Asked = serde_json::from_str(&asked).map_err(fail)?;
        let store = self.0.store().await.map_err(fail)?;
        let config = self.0.config();
        let request = Request {
            model: self.0.fit().model(),
            store: &store,
            classes: &asked.classes,
            mean: config.mean.as_deref().unwrap_or_default(),
            std: config.std.as_deref().unwrap_or_default(),
            name: &asked.name,
            pixels: &image,
            label: asked.label,
            target: None,
            bytes: DEFAULT_BYTES,
        };
        json(&explain(&mut cpu::Executor::<f32>::fast(), &request).map_err(fail)?)
    }
}
