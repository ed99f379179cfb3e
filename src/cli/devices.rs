//! `radiograd devices`: what could compute here, and what `--device auto` takes.

use serde::Serialize;

use super::device::{DeviceChoice, DeviceReport, open_device};
use super::format::bytes;
use super::{Context, Failure};
use crate::cpu;
use crate::exec::Executor as _;
use crate::gpu::{self, AdapterSummary};
use crate::report::table::Table;

/// Arguments of `radiograd devices`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  radiograd devices --json")]
pub(super) struct Args {}

#[derive(Serialize)]
struct Report {
    adapters: Vec<AdapterSummary>,
    cpu: String,
    auto: DeviceReport,
}

pub(super) fn run(_: Args, cx: &Context) -> Result<(), Failure> {
    let report = Report {
        adapters: gpu::list(),
        cpu: cpu::Executor::<f32>::fast().describe(),
        // Opened in earnest: an adapter that is listed may still refuse to work.
        auto: open_device(DeviceChoice::Auto)?.report(),
    };
    let mut table =
        Table::new("", ["--device", "name", "kind", "backend", "driver", ">largest tensor", ">largest buffer"]);
    for a in &report.adapters {
        table.push([
            format!("gpu:{}", a.index),
            a.name.clone(),
            a.kind.to_owned(),
            a.backend.clone(),
            a.driver.clone(),
            bytes(a.max_binding_bytes.min(a.max_buffer_bytes)),
            bytes(a.max_buffer_bytes),
        ]);
    }
    table.push(["cpu", report.cpu.as_str(), "cpu"]);
    cx.result(format!("{}auto: {}: {}\n", table.to_text(), report.auto.name, report.auto.reason), &report)
}
