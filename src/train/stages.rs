//! Stages of a training: what learns, how fast, and for how many epochs.
//!
//! A network that brings weights from elsewhere is often trained in two stages, the classifier first and then everything.
//! Each stage has its own learning rate and schedule and begins with a fresh optimizer, as a new optimizer would in PyTorch.
//!
//! [`plan`] lays the parameters out so that those which are treated alike in every stage lie together. A group of a stage is
//! then a few ranges of the one vector of parameters, each updated by one dispatch. What no stage trains lies at the end,
//! where the optimizer keeps nothing.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::TrainError;
use super::config::TrainConfig;
use crate::nn::plan::{Action, Step};
use crate::nn::{Layer, Model};
use crate::optim::{OptimizerKind, Schedule};
use crate::store::{ALIGN, Param, ParamStore, Role};

/// A part of the epochs with its own settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stage {
    /// How many epochs it lasts. The last stage may leave it out and takes the rest.
    pub epochs: Option<u32>,
    /// The learning rate; absent: the run's.
    pub lr: Option<f64>,
    /// The schedule, over the steps of the stage; absent: the run's.
    pub schedule: Option<Schedule>,
    /// Parameters that stay as they are, by name: `features.*`. `*` stands for any characters, `?` for one. They cost no
    /// backward pass and no memory of the optimizer.
    pub freeze: Vec<String>,
    /// Which batch-norm layers go by the running statistics.
    pub batch_norm: BatchNorm,
    /// Learning rates by group, as factors of the stage's; of several that fit a parameter the first one counts.
    pub rates: Vec<Rate>,
}

/// How batch-norm layers behave in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchNorm {
    /// All normalise by the batch and move their running statistics, as in PyTorch in training mode, frozen or not.
    Train,
    /// Those whose weights are frozen are as in evaluation, as in Keras: what is frozen then gives the same values at each step.
    #[default]
    TrainUnfrozen,
    /// All are as in evaluation.
    Eval,
}

/// The learning rate of some parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Which, by name; see [`Stage::freeze`].
    pub parameters: String,
    /// What the learning rate is multiplied by.
    pub factor: f64,
}

/// What weight decay acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Every parameter, as PyTorch's optimizers do.
    #[default]
    All,
    /// Those of two or more axes: the weights of convolutions and dense layers, no biases and no batch-norm.
    Matrices,
}

/// A stage of a network that is planned.
#[derive(Clone, Debug, PartialEq)]
pub struct StagePlan {
    /// Its epochs, counted from 1 over the whole run.
    pub epochs: RangeInclusive<u32>,
    /// The learning rate that its schedule starts from.
    pub lr: f64,
    /// Its schedule; `None`: cosine to zero over the stage.
    pub schedule: Option<Schedule>,
    /// What it trains.
    pub groups: Vec<Group>,
    /// The batch-norm layers that keep their running statistics.
    pub fixed_norms: BTreeSet<String>,
    /// How many of the network's numbers it trains.
    pub trained: usize,
    /// How many of the network's first steps give an image the same values throughout the stage, where at least one of them has
    /// parameters, and the steps behind them read nothing but what the last of them gives. 0: there is no such part.
    pub frozen: usize,
}

/// Neighbouring parameters that are treated alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Where in the vector of all parameters.
    pub range: Range<usize>,
    /// The optimizer, without weight decay where the group is spared it.
    pub kind: OptimizerKind,
    /// What the learning rate is multiplied by.
    pub factor: f64,
}

/// The epochs of each stage, counted from 1.
///
/// # Errors
/// [`TrainError::Setting`] where they do not add up to the run's.
pub fn epochs(stages: &[Stage], total: u32) -> Result<Vec<RangeInclusive<u32>>, TrainError> {
    let mut done = 0_u32;
    let mut ranges = Vec::with_capacity(stages.len());
    for (i, stage) in stages.iter().enumerate() {
        let rest = total - done;
        let own = match stage.epochs {
            Some(own) => own,
            None if i + 1 == stages.len() => rest,
            None => return Err(TrainError::setting("stages", format!("stage {} needs its number of epochs", i + 1))),
        };
        if own == 0 || own > rest {
            let problem = format!("stage {} has {own} of the {total} epochs, {rest} are left: raise epochs", i + 1);
            return Err(TrainError::setting("stages", problem));
        }
        ranges.push(done + 1..=done + own);
        done += own;
    }
    match ranges.last() {
        Some(last) if *last.end() != total => {
            let sum = last.end();
            let problem = format!(
                "they have {sum} epochs and the run {total}: set epochs to {sum}, or leave the last stage's out"
            );
            Err(TrainError::setting("stages", problem))
        }
        _ => Ok(ranges),
    }
}

/// Checks what does not depend on the network.
///
/// # Errors
/// [`TrainError::Setting`] names the setting.
pub fn validate(stages: &[Stage], total: u32) -> Result<(), TrainError> {
    epochs(stages, total)?;
    for stage in stages {
        if stage.lr.is_some_and(|lr| !lr.is_finite() || lr <= 0.0) {
            return Err(TrainError::setting("stages.lr", "must be a positive number"));
        }
        if stage.rates.iter().any(|r| !r.factor.is_finite() || r.factor <= 0.0) {
            let problem = "factor must be a positive number; to hold parameters still name them in freeze";
            return Err(TrainError::setting("stages.rates", problem));
        }
        if let Some(schedule) = &stage.schedule {
            TrainConfig::schedule_over(Some(schedule), 1000).validate()?;
        }
    }
    Ok(())
}

/// How a stage treats a parameter: the place of its rate in the list (one past the end: the stage's own) and whether it decays.
/// `None` for a frozen one.
type Treatment = Option<(usize, bool)>;

/// Lays the parameters of `store` out for the stages of `config`, and plans these. Gives the parameters at their new places.
///
/// # Errors
/// [`TrainError::Setting`] for a pattern that fits no parameter, and for a stage that trains nothing.
pub fn plan(
    config: &TrainConfig,
    model: &Model,
    store: &mut ParamStore,
) -> Result<(Vec<Param>, Vec<StagePlan>), TrainError> {
    let whole = [Stage::default()];
    let stages = if config.stages.is_empty() { &whole[..] } else { &config.stages };
    let names: Vec<String> =
        store.params().iter().filter(|p| p.role == Role::Trainable).map(|p| p.name.clone()).collect();
    let rules = stages.iter().map(|s| Rules::new(s, config.decay, &names)).collect::<Result<Vec<_>, _>>()?;
    let params = store.arrange(|p| {
        // Frozen ones last: `None` would come first.
        rules.iter().map(|r| r.treat(p).map_or((1, 0, false), |(rate, decays)| (0, rate, decays))).collect::<Vec<_>>()
    });
    let ranges = epochs(stages, config.epochs)?;
    let mut plans = Vec::with_capacity(stages.len());
    for ((stage, rules), epochs) in stages.iter().zip(&rules).zip(ranges) {
        let groups = groups(&params, stage, rules, &config.optimizer);
        if groups.is_empty() {
            let problem = format!("the stage of epoch {} freezes every parameter", epochs.start());
            return Err(TrainError::setting("stages.freeze", problem));
        }
        let trained = params.iter().filter(|p| rules.trains(p)).map(|p| p.view.spec.numel()).sum();
        let fixed_norms = fixed_norms(model, &params, stage.batch_norm, rules);
        let frozen = frozen(model, &params, &fixed_norms, rules);
        plans.push(StagePlan {
            epochs,
            lr: stage.lr.unwrap_or(config.lr),
            schedule: stage.schedule.clone().or_else(|| config.schedule.clone()),
            groups,
            fixed_norms,
            trained,
            frozen,
        });
    }
    Ok((params, plans))
}

/// The length of the part of the parameter vector that some stage trains.
#[must_use]
pub fn trained_len(plans: &[StagePlan]) -> usize {
    plans.iter().flat_map(|p| &p.groups).map(|g| g.range.end).max().unwrap_or(0)
}

struct Rules {
    freeze: Vec<WildMatch>,
    rates: Vec<WildMatch>,
    decay: Decay,
}

impl Rules {
    fn new(stage: &Stage, decay: Decay, names: &[String]) -> Result<Self, TrainError> {
        let read = |setting, pattern: &String| {
            let wild = WildMatch::new(pattern);
            if names.iter().any(|n| wild.matches(n)) {
                return Ok(wild);
            }
            let parts: BTreeSet<&str> = names.iter().filter_map(|n| n.split('.').next()).collect();
            let parts: Vec<String> = parts.into_iter().take(8).map(|p| format!("{p}.*")).collect();
            let problem = format!("no parameter is called `{pattern}`; there are {}", parts.join(", "));
            Err(TrainError::setting(setting, problem))
        };
        Ok(Self {
            freeze: stage.freeze.iter().map(|p| read("stages.freeze", p)).collect::<Result<_, _>>()?,
            rates: stage.rates.iter().map(|r| read("stages.rates", &r.parameters)).collect::<Result<_, _>>()?,
            decay,
        })
    }

    fn treat(&self, param: &Param) -> Treatment {
        let fits = |w: &WildMatch| w.matches(&param.name);
        if param.role != Role::Trainable || self.freeze.iter().any(fits) {
            return None;
        }
        let rate = self.rates.iter().position(fits).unwrap_or(self.rates.len());
        Some((rate, self.decay == Decay::All || param.view.spec.shape.len() > 1))
    }

    fn trains(&self, param: &Param) -> bool {
        self.treat(param).is_some()
    }
}

/// The ranges of parameters that are treated alike.
fn groups(params: &[Param], stage: &Stage, rules: &Rules, optimizer: &OptimizerKind) -> Vec<Group> {
    let mut trained: Vec<(&Param, (usize, bool))> =
        params.iter().filter_map(|p| rules.treat(p).map(|treatment| (p, treatment))).collect();
    trained.sort_by_key(|(p, _)| p.view.offset);
    let mut groups: Vec<(Group, (usize, bool))> = Vec::new();
    for (param, treatment) in trained {
        let start = param.view.offset;
        let end = (start + param.view.spec.numel()).next_multiple_of(ALIGN);
        match groups.last_mut() {
            Some((group, same)) if *same == treatment && group.range.end == start => group.range.end = end,
            _ => {
                let (rate, decays) = treatment;
                let kind = if decays { *optimizer } else { optimizer.without_decay() };
                let factor = stage.rates.get(rate).map_or(1.0, |r| r.factor);
                groups.push((Group { range: start..end, kind, factor }, treatment));
            }
        }
    }
    groups.into_iter().map(|(group, _)| group).collect()
}

fn fixed_norms(model: &Model, params: &[Param], batch_norm: BatchNorm, rules: &Rules) -> BTreeSet<String> {
    let norms = model.steps().iter().filter(|s| matches!(s.action, Action::Layer(Layer::BatchNorm)));
    let fixed = norms.filter(|step| match batch_norm {
        BatchNorm::Train => false,
        BatchNorm::TrainUnfrozen => step.params.clone().all(|i| !rules.trains(&params[i])),
        BatchNorm::Eval => true,
    });
    fixed.map(|step| step.name.clone()).collect()
}

/// See [`StagePlan::frozen`].
fn frozen(model: &Model, params: &[Param], fixed_norms: &BTreeSet<String>, rules: &Rules) -> usize {
    let steps = model.steps();
    let stays = |step: &&Step| {
        step.params.clone().all(|i| !rules.trains(&params[i]))
            && match &step.action {
                Action::Layer(Layer::BatchNorm) => fixed_norms.contains(&step.name),
                Action::Layer(Layer::Dropout { p }) => *p == 0.0,
                _ => true,
            }
    };
    let same = steps.iter().take_while(stays).count();
    // Value k is what the first k steps give: a block must lie before it or behind it.
    let is_cut = |k: &usize| steps[*k..].iter().flat_map(|step| &step.inputs).all(|input| input >= k);
    let cut = (1..=same).rev().find(is_cut).unwrap_or(0);
    if steps[..cut].iter().any(|step| !step.params.is_empty()) { cut } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: &str = "conv2-bn-relu-gap-flatten-dense4-relu-dense2";

    fn planned(toml: &str) -> Result<(Vec<Param>, Vec<StagePlan>), TrainError> {
        let config: TrainConfig = toml::from_str(toml).unwrap();
        config.validate()?;
        let model = Model::new(NET, [1, 8, 8], 2).unwrap();
        let mut store = ParamStore::new();
        model.init(&mut store, 0);
        plan(&config, &model, &mut store)
    }

    #[test]
    fn one_stage_trains_everything_in_its_order() {
        let (params, plans) = planned("epochs = 3").unwrap();
        let offsets: Vec<usize> = params.iter().filter(|p| p.role == Role::Trainable).map(|p| p.view.offset).collect();
        assert!(offsets.is_sorted());
        assert_eq!(plans.len(), 1);
        assert_eq!((plans[0].epochs.clone(), plans[0].groups.len()), (1..=3, 1));
        assert!(plans[0].fixed_norms.is_empty());
    }

    #[test]
    fn the_classifier_first_and_then_everything() {
        let text = "epochs = 5\ndecay = \"matrices\"\nlr = 0.1\n\
            [[stages]]\nepochs = 2\nfreeze = [\"conv*\", \"bn*\", \"dense1.*\"]\n\
            [[stages]]\nlr = 0.01\nbatch_norm = \"eval\"\nrates = [{ parameters = \"conv*\", factor = 0.5 }]\n";
        let (params, plans) = planned(text).unwrap();
        let range = |name: &str| {
            let p = params.iter().find(|p| p.name == name).unwrap();
            p.view.offset..p.view.offset + p.view.spec.numel()
        };
        let [first, second] = &plans[..] else { panic!("{plans:?}") };
        assert_eq!((first.epochs.clone(), second.epochs.clone()), (1..=2, 3..=5));
        assert_eq!((first.lr, second.lr), (0.1, 0.01));
        assert_eq!(first.fixed_norms, BTreeSet::from(["bn1".to_owned()]));
        assert_eq!(second.fixed_norms, first.fixed_norms);
        // The head's weight decays, its bias does not; nothing else learns.
        let of = |plan: &StagePlan, name: &str| {
            let at = range(name);
            let fits = |g: &&Group| g.range.start <= at.start && at.end <= g.range.end;
            plan.groups.iter().find(fits).map(|g| (g.factor, g.kind != g.kind.without_decay()))
        };
        assert_eq!(of(first, "dense2.weight"), Some((1.0, true)));
        assert_eq!(of(first, "dense2.bias"), Some((1.0, false)));
        assert_eq!(of(first, "dense1.weight"), None);
        assert_eq!(first.trained, 10);
        assert_eq!(of(second, "conv1.weight"), Some((0.5, true)));
        assert_eq!(of(second, "bn1.weight"), Some((1.0, false)));
        assert_eq!(of(second, "dense1.weight"), Some((1.0, true)));
        // No two ranges overlap, and all of them are aligned.
        for plan in &plans {
            let mut ranges: Vec<_> = plan.groups.iter().map(|g| g.range.clone()).collect();
            ranges.sort_by_key(|r| r.start);
            assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start));
            assert!(ranges.iter().all(|r| r.start % ALIGN == 0));
        }
    }

    #[test]
    fn a_frozen_part_ends_between_blocks_and_before_dropout() {
        let front = |network: &str, stage: &str| {
            let config: TrainConfig = toml::from_str(&format!("epochs = 1\n[[stages]]\n{stage}")).unwrap();
            let model = Model::new(network, [1, 16, 16], 2).unwrap();
            let mut store = ParamStore::new();
            model.init(&mut store, 0);
            let frozen = plan(&config, &model, &mut store).unwrap().1[0].frozen;
            frozen.checked_sub(1).map_or("", |last| model.steps()[last].name.as_str()).to_owned()
        };
        let blocks = "conv2-bn-relu-a.0=2x[[conv2-bn-relu-conv2-bn]+-relu]-dropout0-gap-flatten-dropout-fc=dense2";
        let (all, rest) = ("\"conv*\", \"bn*\"", "\"a.0.*\", \"a.1.*\"");
        let stage = |names: &str, more: &str| format!("freeze = [{names}]\n{more}");
        assert_eq!(front(blocks, &stage(&[all, rest].join(", "), "")), "flatten1");
        assert_eq!(front(blocks, &stage(all, "")), "relu1");
        // Half a block is no part: what comes behind adds the block's input.
        assert_eq!(front(blocks, &stage(&[all, "\"a.0.*\", \"a.1.conv1.*\""].join(", "), "")), "a.0.relu2");
        assert_eq!(front(blocks, &stage(&[all, rest].join(", "), "batch_norm = \"train\"")), "conv1");
        assert_eq!(front(blocks, &stage("\"fc.weight\"", "")), "");
        assert_eq!(front("conv2-dropout-relu-gap-flatten-dense2", &stage("\"conv*\"", "")), "conv1");
        assert_eq!(front("flatten-relu-dense4-relu-dense2", &stage("\"dense2.*\"", "")), "");
    }

    #[test]
    fn what_no_stage_trains_has_no_optimizer() {
        let (params, plans) = planned("epochs = 1\n[[stages]]\nfreeze = [\"conv*\", \"bn*\"]").unwrap();
        let frozen = params.iter().find(|p| p.name == "conv1.weight").unwrap();
        assert!(frozen.view.offset >= trained_len(&plans));
    }

    #[test]
    fn the_longest_run_has_all_its_epochs() {
        assert_eq!(epochs(&[Stage::default()], u32::MAX).unwrap(), [1..=u32::MAX]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("epochs = 3\n[[stages]]\nepochs = 2\n[[stages]]\nepochs = 3", "stage 2 has 3 of the 3 epochs, 1 are left"),
            ("epochs = 3\n[[stages]]\n[[stages]]\nepochs = 3", "stage 1 needs its number of epochs"),
            ("epochs = 3\n[[stages]]\nepochs = 2", "set epochs to 2"),
            (
                "epochs = 1\n[[stages]]\nfreeze = [\"featuers.*\"]",
                "no parameter is called `featuers.*`; there are bn1.*, conv1.*",
            ),
            ("epochs = 1\n[[stages]]\nfreeze = [\"*\"]", "freezes every parameter"),
            ("epochs = 1\n[[stages]]\nrates = [{ parameters = \"*\", factor = 0.0 }]", "positive number"),
        ] {
            let error = planned(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
