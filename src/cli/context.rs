//! What every command is given: the global options, and where its output goes.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use super::device::{self, DeviceChoice, Kept, Opened};
use super::{Failure, Global};
use crate::data::{CachePolicy, one_line};
use crate::exec::{ExecError, Executor};

/// The global options and the output.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Decides everything random, where it was given.
    pub seed: Option<u32>,
    /// One JSON document on stdout, everything else on stderr.
    pub json: bool,
    /// Results and errors only.
    pub quiet: bool,
    /// Run each op as it was recorded.
    pub no_fuse: bool,
    /// Take the kernels that `radiograd tune` found to be the fastest.
    pub tune: bool,
}

impl Context {
    pub(super) fn new(global: &Global) -> Self {
        let switch = std::env::var_os("RADIOGRAD_NO_TUNE").is_some_and(|v| !v.is_empty() && v != "0");
        let tune = !global.no_tune && !switch;
        let Global { device, seed, json, quiet, no_fuse, .. } = *global;
        Self { device, seed, json, quiet, no_fuse, tune }
    }

    /// What is kept in the user's cache folder about adapters.
    fn kept(&self) -> Kept {
        Kept { folder: CachePolicy::User.folder(), tune: self.tune }
    }

    /// Opens the device that was asked for, and says as the first line which one it is and why.
    ///
    /// # Errors
    /// There is no such device, or it does not open.
    pub fn open(&self) -> Result<Opened, Failure> {
        let mut opened = device::open_device_with(self.device, &self.kept())?;
        if let Some(gpu) = opened.device.gpu_mut() {
            gpu.set_fusion(!self.no_fuse);
        }
        for note in &opened.notes {
            self.note(note);
        }
        if !self.quiet {
            let line = format!("device: {}", opened.line());
            if self.json { note(&line) } else { print(&format!("{line}\n"))? }
        }
        Ok(opened)
    }

    /// Another device like the one that [`Context::open`] named, without a word about it.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn quiet_open(&self, choice: DeviceChoice) -> Result<Box<dyn Executor>, ExecError> {
        let mut opened = device::open_device_with(choice, &self.kept())?;
        if let Some(gpu) = opened.device.gpu_mut() {
            gpu.set_fusion(!self.no_fuse);
        }
        Ok(opened.device.into_executor())
    }

    /// A result: `text` for people, or `document` with `--json`. A command calls it once, at its end.
    ///
    /// # Errors
    /// stdout takes nothing.
    pub fn result(&self, text: impl Display, document: &impl Serialize) -> Result<(), Failure> {
        if self.json {
            let mut bytes = serde_json::to_vec_pretty(document)?;
            bytes.push(b'\n');
            write(&bytes)
        } else {
            print(&ending_in_a_newline(text.to_string()))
        }
    }

    /// A remark on stderr that `--quiet` does not leave out.
    pub fn warn(&self, text: impl Display) {
        note(&format!("warning: {}", one_line(&text.to_string())));
    }

    /// A remark on stderr, such as what was skipped; `--quiet` leaves it out.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            note(&one_line(&text.to_string()));
        }
    }
}

fn ending_in_a_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Like `print!`, which panics when the reader of a pipe has gone away.
fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

fn note(line: &str) {
    // Like `eprintln!`, which panics on a closed stderr; then nobody is left to be told.
    let _ = writeln!(io::stderr(), "{line}");
}

/// The one line of a command that failed.
pub(super) fn complain(failure: &Failure) {
    note(&format!("error: {}", one_line(&failure.to_string())));
}
