//! `radiograd search`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Context, Failure, interrupt, loading};
use crate::data::{Dataset, Splits, load};
use crate::report::data::NetworkResult;
use crate::report::search::{SHOWN, SearchSummary, best_table, effects_table, search_table};
use crate::train::search::{
    Journal, Machine, Method, Options, Outcome, Plan, Results, Shard, Spec, Told, finish, folder, ranking, run,
};
use crate::train::{Override, TrainConfig, TrainError};

/// Searches for good settings, or joins what shards of a search found.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  radiograd search experiments/dense_216.toml --data pneumoniamnist.npz --out runs/dense\n  \
        radiograd search GRID.toml --data DATA --out DIR --shard 0/4\n  radiograd search merge DIR"
)]
pub struct SearchArgs {
    #[command(subcommand)]
    command: Option<SearchCommand>,
    /// What to search: [base], [grid], [vars] and [search] in TOML; docs/search.md explains it
    #[arg(value_name = "GRID.toml", required = true)]
    grid: Option<PathBuf>,
    /// Image folder, MedMNIST .npz file, or `phantom`; the grid's [base] may name it too
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Folder of the search; one that holds a part of the same search goes on
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    /// Trials side by side; on the CPU as many as there are cores, each on its share of them, else 1
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Take every N-th trial only, counted from 0: I/N, or auto/N in an indexed Kubernetes job or a Slurm array, where
    /// SLURM_ARRAY_TASK_ID is taken even without this; 0/1 takes all
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// grid, random or halving, in place of the file's
    #[arg(long)]
    method: Option<MethodChoice>,
    /// Draws of random search and halving, in place of the file's
    #[arg(long, value_name = "N")]
    trials: Option<u32>,
    /// End after so many trials
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Any setting of [base], by its key: --set epochs=3
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Override>,
    /// Keep settings, log and weights of every trial in DIR/runs
    #[arg(long)]
    keep: bool,
    /// Try failed trials again
    #[arg(long)]
    retry_failed: bool,
    /// Leave the best trial as it is, without training it once more into DIR/best
    #[arg(long)]
    no_refit: bool,
}

/// What else there is to do with a search.
#[derive(Subcommand, Debug)]
enum SearchCommand {
    /// Join the journals of all shards, and write table and report
    Merge(MergeArgs),
}

/// Joins the journals of all shards.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  radiograd search merge DIR")]
struct MergeArgs {
    /// Folder of the search
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Report what there is, even where trials are missing
    #[arg(long)]
    partial: bool,
    /// Train the best trial once more into DIR/best, and measure it on the test images
    #[arg(long)]
    refit: bool,
    /// Where the data lies, if not where the search was started
    #[arg(long, value_name = "DATA", requires = "refit")]
    data: Option<String>,
}

/// `--method`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodChoice {
    Grid,
    Random,
    Halving,
}

/// Runs the command.
///
/// # Errors
/// Everything that can end a search.
pub fn run(args: &SearchArgs, cx: &Context) -> Result<(), Failure> {
    if let Some(SearchCommand::Merge(merge)) = &args.command {
        return self::merge(merge, cx);
    }
    let (Some(grid), Some(out)) = (&args.grid, &args.out) else {
        return Err(Failure::Message("give GRID.toml and --out DIR, or `merge DIR`".to_owned()));
    };
    let spec = spec(args, grid, cx)?;
    let plan = Plan::new(spec)?;
    plan.base.validate()?;
    let shard = shard(args, cx)?;
    if shard.is_some() && plan.spec.search.method == Method::Halving {
        let why = "halving compares all trials of a rung, so it cannot be split: leave --shard out, and give --jobs";
        return Err(Failure::Message(why.to_owned()));
    }
    if args.jobs == Some(0) {
        return Err(Failure::Message("--jobs must be at least 1".to_owned()));
    }
    // The data is looked for before the folder is made.
    loading::source(&plan.base.data)?;
    let opened = cx.open()?;
    let device = opened.line();
    let cpu = opened.device.gpu().is_none();
    // Each trial opens its own.
    drop(opened);
    folder::bind(out, &plan.spec)?;
    let mut journal = Journal::open(out, shard)?;
    if journal.cut() > 0 {
        cx.note(format!("the journal ended in the middle of a trial: {} bytes were cut off", journal.cut()));
    }
    let mut results = Results::read(out)?;
    if args.retry_failed {
        results.forget_failed();
    }
    let cores = rayon::current_num_threads();
    let jobs = args.jobs.unwrap_or(if cpu { cores } else { 1 });
    let threads = (cores / jobs).max(1);
    cx.note(format!("{jobs} trials side by side, {threads} {} each", if threads == 1 { "thread" } else { "threads" }));
    let stop = interrupt::flag(cx, "at the next step")?;
    let keep = args.keep.then(|| out.join("runs"));
    let options = Options { jobs, threads, shard, limit: args.limit, keep: keep.as_deref(), stop: Arc::clone(&stop) };
    let choice = cx.device;
    let machine = Machine { device: &|| cx.quiet_open(choice), load: &|config| load_for(config, Splits::FIT, cx), cpu };
    let mut progress = Progress::new(cx, &plan);
    let complete =
        run::run(out, &plan, &mut results, &mut journal, (machine, &options), &mut |told| progress.tell(told));
    progress.end();
    let complete = complete?;
    if !complete {
        let done = results.iter().count();
        let text = format!("--limit: {done} of {} trials are finished; the same command goes on", plan.expected());
        return cx.result(text, &serde_json::json!({ "finished": done, "trials": plan.expected() }));
    }
    if let Some(shard) = shard.filter(|s| s.of > 1) {
        let text = format!(
            "shard {shard} is finished; when all are, `radiograd search merge {}` writes table and report",
            out.display()
        );
        return cx.result(text, &serde_json::json!({ "shard": shard.to_string(), "finished": true }));
    }
    let best = match args.no_refit {
        true => None,
        false => refit(out, &plan, &results, &device, Some(stop), cx)?,
    };
    conclude(out, &plan, &results, &device, best.as_ref(), cx)
}

/// The grid with the options laid over it.
fn spec(args: &SearchArgs, grid: &Path, cx: &Context) -> Result<Spec, Failure> {
    let mut sets = args.set.clone();
    if let Some(seed) = cx.seed {
        sets.push(Override::new("seed", i64::from(seed)));
    }
    if let Some(data) = &args.data {
        sets.push(Override::new("data", data.clone()));
    }
    let mut spec = Spec::read(grid, &sets)?;
    if let Some(method) = args.method {
        spec.search.method = match method {
            MethodChoice::Grid => Method::Grid,
            MethodChoice::Random => Method::Random,
            MethodChoice::Halving => Method::Halving,
        };
    }
    spec.search.trials = args.trials.or(spec.search.trials);
    Ok(spec)
}

/// The shard that was asked for, or that of the Slurm array this runs in.
fn shard(args: &SearchArgs, cx: &Context) -> Result<Option<Shard>, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let shard = match &args.shard {
        Some(text) => Some(Shard::read(text, env).map_err(|e| Failure::Message(format!("--shard {text}: {e}")))?),
        None => {
            let shard = Shard::of_slurm(&env).map_err(Failure::Message)?;
            if let Some(shard) = shard {
                cx.note(format!("shard {shard}, by SLURM_ARRAY_TASK_ID; --shard 0/1 takes all trials"));
            }
            shard
        }
    };
    Ok(shard.filter(|s| s.of > 1))
}

fn load_for(config: &TrainConfig, splits: Splits, cx: &Context) -> Result<Dataset, TrainError> {
    let source = crate::data::Source::parse(&config.data)?;
    let data = load(&source, &loading::options(config, splits, cx))?;
    loading::say_notes(&data, cx);
    Ok(data)
}

/// Trains the best trial once more.
fn refit(
    dir: &Path,
    plan: &Plan,
    results: &Results,
    device: &str,
    stop: Option<Arc<AtomicBool>>,
    cx: &Context,
) -> Result<Option<NetworkResult>, Failure> {
    let Some(config) = finish::winner(plan, results)? else { return Ok(None) };
    let config = TrainConfig { data: plan.base.data.clone(), ..config };
    let mut bar = loading::Progress::new(cx, config.epochs, "the best trial once more, ");
    let load = || load_for(&config, Splits::STUDY, cx);
    let open = || Ok(cx.quiet_open(cx.device)?);
    let network = finish::refit(dir, &config, &load, &open, device, &mut |e| bar.tell(e), stop);
    bar.end();
    Ok(Some(network?))
}

/// Writes and prints everything.
fn conclude(
    dir: &Path,
    plan: &Plan,
    results: &Results,
    device: &str,
    best: Option<&NetworkResult>,
    cx: &Context,
) -> Result<(), Failure> {
    let summary = finish::summary(dir, plan, results, device, best)?;
    finish::write(dir, plan, results, &summary)?;
    cx.result(text(dir, &summary), &summary)
}

/// What the terminal shows.
fn text(dir: &Path, s: &SearchSummary) -> String {
    let mut text = search_table(s, SHOWN).to_text();
    if !s.effects.is_empty() {
        text.push_str(&format!("\n{}", effects_table(s).to_text()));
    }
    if let Some(best) = best_table(s) {
        text.push_str(&format!("\n{}", best.to_text()));
    }
    let failed = if s.failed > 0 { format!(", {} of them failed", s.failed) } else { String::new() };
    text.push_str(&format!("\n{} trials{failed}; all of them: {}", s.finished, dir.join("results.csv").display()));
    for note in &s.notes {
        text.push_str(&format!("\n{note}"));
    }
    if s.synthetic {
        text.push_str("\nThe phantom images are drawn by a program: these figures say nothing about patients.");
    }
    text.push_str(&format!("\nreport: {}\n{}", dir.join("report.html").display(), loading::NOTICE));
    text
}

fn merge(args: &MergeArgs, cx: &Context) -> Result<(), Failure> {
    let mut spec = folder::read(&args.dir)?;
    if let Some(data) = &args.data {
        spec.base.insert("data".to_owned(), data.clone().into());
    }
    let plan = Plan::new(spec)?;
    let results = folder::join(&args.dir, &plan, args.partial)?;
    let (device, best) = match args.refit {
        true => {
            let device = cx.open()?.line();
            let stop = interrupt::flag(cx, "after this step")?;
            let best = refit(&args.dir, &plan, &results, &device, Some(stop), cx)?;
            (device, best)
        }
        false => ("none: journals were joined".to_owned(), None),
    };
    conclude(&args.dir, &plan, &results, &device, best.as_ref(), cx)
}

/// A bar over the trials where stderr is a terminal, and a line a trial everywhere.
struct Progress<'a> {
    cx: &'a Context,
    plan: &'a Plan,
    bar: ProgressBar,
    best: Option<f64>,
}

impl<'a> Progress<'a> {
    fn new(cx: &'a Context, plan: &'a Plan) -> Self {
        let bar = super::progress::bar(cx, 0);
        if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} trials, {eta} left{msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { cx, plan, bar, best: None }
    }

    fn tell(&mut self, told: Told<'_>) {
        match told {
            Told::Stage { rung, rungs, pending, finished } => {
                let of = if rungs > 1 { format!("rung {} of {rungs}: ", rung + 1) } else { String::new() };
                self.cx.note(format!("{of}{pending} trials to run, {finished} finished before"));
                self.bar.reset();
                self.bar.set_length((pending + finished) as u64);
                self.bar.set_position(finished as u64);
                self.best = None;
            }
            Told::Trial(record) => {
                self.bar.inc(1);
                let metric = self.plan.spec.search.metric;
                let line = match &record.outcome {
                    Outcome::Failed { reason } => format!("failed: {reason}"),
                    Outcome::Done(s) => {
                        let value = ranking::value(metric, s);
                        let better = value.is_some_and(|v| {
                            self.best.is_none_or(|b| if metric.large_is_good() { v > b } else { v < b })
                        });
                        if better {
                            self.best = value;
                            self.bar.set_message(format!(", best {} {:.4}", metric.title(), value.unwrap_or(f64::NAN)));
                        }
                        let auc = s.val_auc.map_or_else(String::new, |v| format!(", ROC-AUC {v:.4}"));
                        format!(
                            "validation loss {:.4}, accuracy {:.4}{auc}, {:.1} s{}",
                            s.val_loss,
                            s.val_accuracy,
                            record.seconds,
                            if better { " (best so far)" } else { "" }
                        )
                    }
                };
                let settings: Vec<String> = record.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
                let line = format!("trial {} ({}): {line}", record.id, settings.join(", "));
                self.bar.suspend(|| self.cx.note(&line));
            }
        }
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
