//! The depth study: one, two and three convolution layers on the same images, each with the same settings and seeds.

use std::path::Path;

use super::TrainError;
use super::config::TrainConfig;
use super::describe::data_info;
use super::fit::{Event, Fit};
use super::run::{Curves, Measured, TENSORBOARD, environment, measure, settings, write_plots};
use crate::data::Dataset;
use crate::exec::Executor;
use crate::fsio;
use crate::report::data::{DepthStudy, NetworkResult, SeedResult};
use crate::report::{published_depth_figures, study_report};

/// The networks of the study.
pub const NETWORKS: [&str; 3] = ["cnn1", "cnn2", "cnn3"];

/// Trains each network with `seeds` seeds, beginning at the config's. The first seed's run is shown in full, all of them in
/// the table of seeds. The split into train and validation is the same for all. With a folder for `tensorboard` the curves of each
/// training are written there, below `tensorboard`.
///
/// # Errors
/// See [`TrainError`].
pub fn depth(
    config: &TrainConfig,
    data: &Dataset,
    mut executor: Box<dyn Executor>,
    device: &str,
    seeds: u32,
    tensorboard: Option<&Path>,
    events: &mut dyn FnMut(&str, u32, Event<'_>),
) -> Result<DepthStudy, TrainError> {
    let about = data_info(data, config)?;
    let mut networks: Vec<NetworkResult> = Vec::new();
    let mut resolved = config.clone();
    for name in NETWORKS {
        let mut shown: Option<NetworkResult> = None;
        let mut repeats = Vec::new();
        for k in 0..seeds.max(1) {
            let seed = config.seed.wrapping_add(k);
            let config = TrainConfig { model: name.to_owned(), seed, ..config.clone() };
            let mut fit = Fit::new(&config, data.clone(), executor)?;
            let start = fit.start(None)?;
            let mut events = |e: Event<'_>| events(name, seed, e);
            let folder = tensorboard.map(|out| out.join(TENSORBOARD).join(format!("{name}-seed{seed}")));
            let mut curves = folder.map(|f| Curves::open(&f, &[], &mut events));
            let outcome = fit.run(start, None, &mut |event| {
                if let (Some(curves), Event::Epoch { row, .. }) = (&mut curves, event) {
                    curves.add(row, &mut events);
                }
                events(event);
            })?;
            let Measured { network: result, .. } = measure(&mut fit, &outcome)?;
            repeats.push(SeedResult {
                seed,
                best_epoch: result.best_epoch,
                seconds: result.seconds,
                val_accuracy: result.val.metrics.accuracy,
                val_loss: result.val.loss,
                test_accuracy: result.test.as_ref().map(|t| t.metrics.accuracy),
                test_auc: result.test.as_ref().and_then(|t| t.metrics.roc_auc()),
            });
            resolved.mean.clone_from(&fit.config().mean);
            resolved.std.clone_from(&fit.config().std);
            shown.get_or_insert(result);
            executor = fit.into_executor();
        }
        let Some(mut network) = shown else { continue };
        network.seeds = repeats;
        networks.push(network);
    }
    let shared = settings(&resolved)?.into_iter().filter(|(name, _)| name != "model").collect();
    let published = if data.synthetic { Vec::new() } else { published_depth_figures() };
    Ok(DepthStudy { config: shared, environment: environment(device), data: about, networks, published })
}

/// Writes `report.html`, `study.json` and the plots.
///
/// # Errors
/// The folder cannot be written.
pub fn write(folder: &Path, study: &DepthStudy) -> Result<(), TrainError> {
    fsio::create_dir(folder)?;
    let report = study_report(study);
    report.write(&folder.join("report.html"))?;
    let json = serde_json::to_vec_pretty(study).map_err(|e| TrainError::setting("study", e.to_string()))?;
    fsio::write_atomic(&folder.join("study.json"), &json)?;
    write_plots(folder, &report)
}
