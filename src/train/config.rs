//! The settings of a run, as they stand in a TOML file and in the run folder.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::normalize::Normalize;
use super::numbers::OnNan;
use super::setting::TomlFile;
use super::stages::{self, Decay, Stage};
use super::{TrainError, overrides};
use crate::data::{Fold, Images, Sampler};
use crate::nn::{Network, plan::Plan};
use crate::ops::augment::Augment;
use crate::optim::{OptimizerKind, Schedule};
use crate::weights::{Grey, Rename};

/// How much each class counts in the loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All alike.
    None,
    /// `images / (classes * images of the class)`, so that each class counts the same in all: the default, because an even
    /// decision between classes of 1 to 3 otherwise leans to the larger one. Images are counted as often as the sampler shows
    /// them in an epoch: where it balances the classes already, every weight is 1, and nothing is balanced twice.
    #[default]
    Balanced,
    /// As given.
    Values(Vec<f64>),
}

/// Everything that decides what a run computes, the device apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Image folder, `.npz` file or `phantom`.
    pub data: String,
    /// Network: a name or a chain of layers.
    pub model: String,
    /// Height and width of the images in pixels.
    pub size: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Passes over the training images.
    pub epochs: u32,
    /// Images in a step; the incomplete last batch of an epoch is left out, another one each epoch.
    pub batch: usize,
    /// Batches whose gradients are averaged before the weights change: as one batch of so many times the images, but for
    /// batch-norm, which sees one batch at a time.
    pub accumulate: usize,
    /// Holds few activations and computes the others again in the backward pass: less memory, about a third more work.
    pub recompute: bool,
    /// Computes what the frozen layers in front of a stage give once at its beginning, instead of at each step. The images of such a
    /// stage are not augmented.
    pub cache_features: bool,
    /// Learning rate that the schedule starts from.
    pub lr: f64,
    /// The seed of weights, order, dropout and split.
    pub seed: u32,
    /// The seed of the split (and of the phantom images) where it is to differ from `seed`: repetitions that see the same split.
    pub split_seed: Option<u32>,
    /// Share of the training images that is held out, by patient.
    pub val_fraction: f64,
    /// Image folders whose patients are left out of training and validation: the test images of another set, or what the weights of
    /// `init` were trained on. Each is a set, one split of it or one class. The test images stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_patients: Vec<String>,
    /// Epochs without a better validation loss after which the run ends, or with stages the stage, which looks at its own epochs alone;
    /// 0: never.
    pub patience: u32,
    /// Share of the label spread over all classes.
    pub label_smoothing: f64,
    /// The largest norm of the whole gradient; a longer one is scaled down to it. Absent: as it is.
    pub clip_grad_norm: Option<f64>,
    /// What weight decay acts on.
    pub decay: Decay,
    /// Mean of each channel, subtracted from x/255. Absent: as `normalize` says.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, divided by. Absent: as `normalize` says.
    pub std: Option<Vec<f32>>,
    /// Where both come from.
    #[serde(skip_serializing_if = "Normalize::is_measured")]
    pub normalize: Normalize,
    /// An unreadable image is an error.
    pub strict: bool,
    /// What is done where loss, gradient or weights become NaN or infinite.
    pub on_nan: OnNan,
    /// Minutes between two checkpoints within an epoch, beside those after each epoch; 0: none. It changes no bit of the result.
    #[serde(skip_serializing_if = "is_usual")]
    pub checkpoint_minutes: f64,
    /// Weights to begin with: a file, a run folder (its best weights), or the name of published ones. Absent: drawn by `seed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Other names for the tensors of `init`, each `OLD=NEW`: see [`Rename`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key_map: Vec<String>,
    /// What `init` of 3-channel images does with grey ones. `repeat` sets `channels` to 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grey: Option<Grey>,
    /// Which images an epoch has, and how often.
    pub sampler: Sampler,
    /// How much each class counts.
    pub class_weights: ClassWeights,
    /// The optimizer and its parameters.
    pub optimizer: OptimizerKind,
    /// The schedule, advanced every step (reduce-on-plateau: every epoch). Absent: cosine to zero over the whole run.
    pub schedule: Option<Schedule>,
    /// Cross-validation: the test images are this fold of the training images, and the source's own are not read.
    pub fold: Option<Fold>,
    /// How training images are changed at random. Absent: not at all.
    pub augment: Option<Augment>,
    /// How those are changed that the sampler repeats, stronger for example. Absent: as the others.
    pub augment_repeats: Option<Augment>,
    /// Parts of the epochs with settings of their own. Absent: one, in which everything learns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// Minutes between two checkpoints where nothing else is asked for.
const CHECKPOINT_MINUTES: f64 = 10.0;

fn is_usual(minutes: &f64) -> bool {
    *minutes == CHECKPOINT_MINUTES
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            data: "phantom".to_owned(),
            model: "cnn2".to_owned(),
            size: 64,
            channels: 1,
            epochs: 6,
            batch: 32,
            accumulate: 1,
            recompute: false,
            cache_features: false,
            lr: 1e-3,
            seed: 0,
            split_seed: None,
            val_fraction: 0.15,
            exclude_patients: Vec::new(),
            patience: 0,
            label_smoothing: 0.0,
            clip_grad_norm: None,
            decay: Decay::All,
            mean: None,
            std: None,
            normalize: Normalize::Measured,
            strict: false,
            on_nan: OnNan::Stop,
            checkpoint_minutes: CHECKPOINT_MINUTES,
            init: None,
            key_map: Vec::new(),
            grey: None,
            sampler: Sampler::Shuffle,
            class_weights: ClassWeights::Balanced,
            optimizer: OptimizerKind::AdamW { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 },
            schedule: None,
            fold: None,
            augment: None,
            augment_repeats: None,
            stages: Vec::new(),
        }
    }
}

impl TrainConfig {
    /// Reads a TOML file; settings that it does not name keep their defaults.
    ///
    /// # Errors
    /// [`TrainError::Config`] names the file, the line and the key; for an unknown one the nearest that there is.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let file = TomlFile::read(path)?;
        overrides::resolve(file.table.clone()).map_err(|e| file.error(&[], &e))
    }

    /// The settings as TOML.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(self).map_err(|e| TrainError::setting("config", e.to_string()))
    }

    /// Checks what does not depend on the data.
    ///
    /// # Errors
    /// [`TrainError::Setting`] names the setting.
    pub fn validate(&self) -> Result<(), TrainError> {
        let check = |ok: bool, setting, problem: &str| {
            if ok { Ok(()) } else { Err(TrainError::setting(setting, problem)) }
        };
        check(self.epochs >= 1, "epochs", "must be at least 1")?;
        check(self.batch >= 1, "batch", "must be at least 1")?;
        check(self.accumulate >= 1, "accumulate", "must be at least 1")?;
        check(self.lr.is_finite() && self.lr > 0.0, "lr", "must be a positive number")?;
        let minutes = self.checkpoint_minutes;
        check((0.0..=1e6).contains(&minutes), "checkpoint_minutes", "must lie in [0, 1000000]; 0: after epochs only")?;
        let clip = self.clip_grad_norm.is_none_or(|norm| norm.is_finite() && norm > 0.0);
        check(clip, "clip_grad_norm", "must be a positive number")?;
        stages::validate(&self.stages, self.epochs)?;
        let frozen = self.stages.iter().any(|stage| !stage.freeze.is_empty());
        check(
            frozen || !self.cache_features,
            "cache_features",
            "no stage freezes anything: say what in [[stages]] freeze",
        )?;
        check(self.size >= 1, "size", "must be at least 1")?;
        check(self.channels == 1 || self.channels == 3, "channels", "must be 1 (grey) or 3 (RGB)")?;
        check((0.0..1.0).contains(&self.label_smoothing), "label_smoothing", "must lie in [0, 1)")?;
        for (setting, values) in [("mean", &self.mean), ("std", &self.std)] {
            if let Some(values) = values {
                check(values.len() == self.channels, setting, "needs one value for each channel")?;
                check(values.iter().all(|v| v.is_finite()), setting, "must be finite")?;
                check(setting == "mean" || values.iter().all(|&v| v > 0.0), setting, "must be positive")?;
            }
        }
        if let Some((mean, std)) = self.normalize.values(self.channels) {
            // A saved config has both, and they are the same.
            let same = |own: &Option<Vec<f32>>, its: &Vec<f32>| own.as_ref().is_none_or(|own| own == its);
            let other = "gives mean and std, and others are given too: leave it or them out";
            check(same(&self.mean, &mean) && same(&self.std, &std), "normalize", other)?;
        }
        if let ClassWeights::Values(w) = &self.class_weights {
            check(w.iter().all(|v| v.is_finite() && *v >= 0.0), "class_weights", "must be finite and not negative")?;
            check(w.iter().any(|v| *v > 0.0), "class_weights", "must not all be zero")?;
        }
        let without = "is about the weights that init names, and there are none";
        check(self.init.is_some() || self.key_map.is_empty(), "key_map", without)?;
        check(self.init.is_some() || self.grey.is_none(), "grey", without)?;
        let channels = match self.grey {
            Some(Grey::Sum) => (1, "sum is for grey images: set channels to 1"),
            Some(Grey::Repeat) => (3, "repeat needs the three channels of the weights: set channels to 3"),
            None => (self.channels, ""),
        };
        check(self.channels == channels.0, "grey", channels.1)?;
        self.renames()?;
        if let Some(problem) = self.fold.and_then(|f| f.problem()) {
            return Err(TrainError::setting("fold", problem));
        }
        for (setting, augment) in [("augment", &self.augment), ("augment_repeats", &self.augment_repeats)] {
            if let Some(augment) = augment {
                augment.validate().map_err(|e| TrainError::setting(setting, e.to_string()))?;
            }
        }
        if let Some(repeats) = &self.augment_repeats {
            let what = "there are no repeats with the sampler shuffle; set sampler to balanced or oversample";
            check(self.sampler != Sampler::Shuffle, "augment_repeats", what)?;
            let usual = self.augment.as_ref().filter(|a| !a.is_identity());
            let alike = repeats.is_identity() || usual.is_none_or(|a| a.fill == repeats.fill);
            check(alike, "augment_repeats", "fill must be that of augment")?;
        }
        self.optimizer.validate()?;
        Self::schedule_over(self.schedule.as_ref(), 1000).validate()?;
        Ok(())
    }

    /// How old a checkpoint may become within an epoch; `None`: any age.
    #[must_use]
    pub fn checkpoint_every(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(60.0 * self.checkpoint_minutes).ok().filter(|every| !every.is_zero())
    }

    /// The rules of `key_map`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for one that is not of the form `OLD=NEW`.
    pub fn renames(&self) -> Result<Vec<Rename>, TrainError> {
        let rules = self.key_map.iter().map(|text| text.parse());
        rules.collect::<Result<_, String>>().map_err(|e| TrainError::setting("key_map", e))
    }

    /// Sets what follows from other settings: an image that is repeated has three channels.
    pub(super) fn settle(&mut self) {
        if self.grey == Some(Grey::Repeat) {
            self.channels = 3;
        }
    }

    /// Checks that `model` fits the images, as far as the number of classes plays no part: before any image is read.
    ///
    /// # Errors
    /// [`TrainError::Model`] names the layer.
    pub fn check_network(&self, model: &str) -> Result<(), TrainError> {
        // The classes decide the width of a named network's last layer, which always fits.
        let network = Network::parse(model, 2)?;
        Plan::new(&network, [self.channels, self.size, self.size])?;
        Ok(())
    }

    /// Whether a run with these settings may go on with `other`: the number of epochs, the patience, the path of the data
    /// (whose content is checked apart), how unreadable files and NaN are met and how often checkpoints are written may change, nothing else.
    ///
    /// # Errors
    /// [`TrainError::Setting`] says that the settings differ.
    pub fn allows(&self, other: &Self) -> Result<(), TrainError> {
        let common = |c: &Self| {
            let common = Self {
                epochs: 1,
                patience: 0,
                data: String::new(),
                strict: false,
                on_nan: OnNan::Stop,
                checkpoint_minutes: CHECKPOINT_MINUTES,
                ..c.clone()
            };
            common.to_toml()
        };
        let (ours, theirs) = (common(self)?, common(other)?);
        match ours.lines().zip(theirs.lines()).find(|(a, b)| a != b) {
            None if ours == theirs => Ok(()),
            Some((a, b)) => {
                Err(TrainError::setting("resume", format!("the run has {a}, now it is {b}: start a new run")))
            }
            None => Err(TrainError::setting("resume", "the settings are not the run's: start a new run")),
        }
    }

    /// Fills in what the training images decide; an augmentation that changes nothing becomes none.
    pub fn resolve(&mut self, train: &Images) {
        let _ = self.augment.take_if(|a| a.is_identity());
        if self.mean.is_none() || self.std.is_none() {
            let (mean, std) = self.normalize.values(self.channels).unwrap_or_else(|| train.mean_std());
            self.mean.get_or_insert(mean);
            // A constant image has no spread to divide by.
            self.std.get_or_insert(std.into_iter().map(|s| if s > 1e-6 { s } else { 1.0 }).collect());
        }
    }

    /// A schedule for so many steps in all: the default one filled in, and the length of a cosine or a one-cycle that says 0.
    #[must_use]
    pub fn schedule_over(schedule: Option<&Schedule>, steps: u64) -> Schedule {
        let mut schedule = schedule.cloned().unwrap_or(Schedule::Cosine { t_max: 0, eta_min: 0.0 });
        let (mut inner, mut left) = (&mut schedule, steps);
        while let Schedule::Warmup { total_iters, then, .. } = inner {
            left = left.saturating_sub(*total_iters);
            inner = then;
        }
        if let Schedule::OneCycle { total_steps: length @ 0, .. } | Schedule::Cosine { t_max: length @ 0, .. } = inner {
            *length = left.max(1);
        }
        schedule
    }

    /// The weight of each class, or `None` where all count alike. `counts` says how many images of each class an epoch has
    /// ([`Sampler::counts`]).
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a wrong number of weights.
    pub fn weights(&self, counts: &[usize]) -> Result<Option<Vec<f32>>, TrainError> {
        match &self.class_weights {
            ClassWeights::None => Ok(None),
            ClassWeights::Balanced => {
                let total: usize = counts.iter().sum();
                let share = |&n: &usize| total as f32 / (counts.len() * n.max(1)) as f32;
                Ok(Some(counts.iter().map(share).collect()))
            }
            ClassWeights::Values(w) if w.len() == counts.len() => Ok(Some(w.iter().map(|&v| v as f32).collect())),
            ClassWeights::Values(w) => {
                Err(TrainError::setting("class_weights", format!("{} weights for {} classes", w.len(), counts.len())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_cycle_schedule_of_no_steps_lasts_the_whole_run() {
        let config: TrainConfig =
            toml::from_str("schedule = { name = \"one_cycle\", max_lr = 0.1, total_steps = 0 }").unwrap();
        config.validate().unwrap();
        let over = |config: &TrainConfig, steps| TrainConfig::schedule_over(config.schedule.as_ref(), steps);
        assert!(matches!(over(&config, 30), Schedule::OneCycle { total_steps: 30, .. }));
        let shorter = TrainConfig {
            schedule: Some(toml::from_str("name = \"one_cycle\"\nmax_lr = 0.1\ntotal_steps = 7").unwrap()),
            ..config
        };
        assert!(matches!(over(&shorter, 30), Schedule::OneCycle { total_steps: 7, .. }));
        let warm = "schedule = { name = \"warmup\", total_iters = 10, then = { name = \"cosine\" } }";
        let warm: TrainConfig = toml::from_str(warm).unwrap();
        warm.validate().unwrap();
        let Schedule::Warmup { then, .. } = over(&warm, 30) else { panic!("no warm-up") };
        assert!(matches!(*then, Schedule::Cosine { t_max: 20, .. }));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "lr = 0.1\n\nmodle = \"cnn1\"\n").unwrap();
        let error = TrainConfig::read(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 3: unknown setting `modle`: did you mean `model`?"), "{error}");
    }

    #[test]
    fn augmentation_is_a_name_or_a_table_and_reads_back() {
        let text = "sampler = \"oversample\"\naugment_repeats = \"strong\"\n[augment]\nrotate = { degrees = 10 }\n";
        let config: TrainConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        let again: TrainConfig = toml::from_str(&config.to_toml().unwrap()).unwrap();
        assert_eq!(again, config);
        config.allows(&again).unwrap();
        assert!(config.allows(&TrainConfig { augment: None, ..again }).is_err());
        for (text, words) in [
            ("augment = { rotate = { degrees = 500 } }", ["augment: ", "rotate.degrees"]),
            ("augment_repeats = \"light\"", ["augment_repeats: ", "sampler"]),
            (
                "sampler = \"balanced\"\naugment = \"light\"\naugment_repeats = { fill = \"reflect\", hflip = { p = 1 } }",
                ["augment_repeats: ", "fill"],
            ),
        ] {
            let error = toml::from_str::<TrainConfig>(text).unwrap().validate().unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)), "{text}: {error}");
        }
    }

    #[test]
    fn balanced_weights_count_images_as_often_as_they_are_shown() {
        let config = |sampler| TrainConfig { sampler, ..TrainConfig::default() };
        let weights = |sampler: Sampler| config(sampler).weights(&sampler.counts(&[30, 90])).unwrap().unwrap();
        assert_eq!(weights(Sampler::Shuffle), [2.0, 120.0 / 180.0]);
        assert_eq!(weights(Sampler::Balanced), [1.0, 1.0]);
        assert_eq!(weights(Sampler::Oversample), [1.0, 1.0]);
    }

    #[test]
    fn settings_of_other_weights_are_checked_and_kept() {
        let text = "init = \"resnet34\"\nkey_map = [\"a=b\", \"c=\"]\ngrey = \"sum\"\n";
        let config: TrainConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        assert_eq!(toml::from_str::<TrainConfig>(&config.to_toml().unwrap()).unwrap(), config);
        assert!(config.allows(&TrainConfig { key_map: Vec::new(), ..config.clone() }).is_err());
        for (text, words) in [
            ("grey = \"sum\"", ["grey: ", "init"]),
            ("key_map = [\"a=b\"]", ["key_map: ", "init"]),
            ("init = \"x\"\nkey_map = [\"a\"]", ["key_map: ", "OLD=NEW"]),
            ("init = \"x\"\ngrey = \"sum\"\nchannels = 3", ["grey: ", "channels to 1"]),
            ("init = \"x\"\ngrey = \"repeat\"", ["grey: ", "channels to 3"]),
        ] {
            let error = toml::from_str::<TrainConfig>(text).unwrap().validate().unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)), "{text}: {error}");
        }
    }

    #[test]
    fn imagenets_mean_and_deviation_go_by_its_name() {
        let train = Images {
            channels: 1,
            height: 1,
            width: 2,
            pixels: vec![0, 255],
            labels: vec![0],
            names: vec!["a".to_owned()],
            patients: vec!["a".to_owned()],
        };
        for (text, mean, std) in [
            ("", vec![0.5], vec![0.5]),
            ("normalize = \"measured\"\nstd = [0.25]", vec![0.5], vec![0.25]),
            ("normalize = \"imagenet\"", vec![0.449], vec![0.226]),
            ("init = \"x\"\ngrey = \"sum\"\nnormalize = \"imagenet\"", vec![0.449], vec![0.226]),
            ("normalize = \"imagenet\"\nchannels = 3", vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            (
                "init = \"x\"\ngrey = \"repeat\"\nnormalize = \"imagenet\"",
                vec![0.485, 0.456, 0.406],
                vec![0.229, 0.224, 0.225],
            ),
        ] {
            let asked = overrides::resolve(text.parse().unwrap()).unwrap();
            asked.validate().unwrap();
            let mut config = asked.clone();
            config.resolve(&train);
            assert_eq!((config.mean.clone(), config.std.clone()), (Some(mean), Some(std)), "{text}");
            // As it is saved and read again.
            let saved: TrainConfig = toml::from_str(&config.to_toml().unwrap()).unwrap();
            saved.validate().unwrap();
            assert_eq!(saved, config);
        }
        for text in
            ["normalize = \"imagenet\"\nmean = [0.5]", "normalize = \"imagenet\"\nchannels = 3\nstd = [0.2, 0.2, 0.2]"]
        {
            let error = toml::from_str::<TrainConfig>(text).unwrap().validate().unwrap_err().to_string();
            assert!(error.starts_with("normalize: ") && error.contains("leave"), "{text}: {error}");
        }
        let error = overrides::resolve("normalize = 'imagnet'".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("did you mean `imagenet`?"), "{error}");
    }

    #[test]
    fn networks_are_checked_without_images() {
        let config = TrainConfig { size: 4, ..TrainConfig::default() };
        config.check_network("cnn1").unwrap();
        let error = config.check_network("cnn3").unwrap_err().to_string();
        assert!(error.starts_with("layer 9 (pool): "), "{error}");
    }
}
