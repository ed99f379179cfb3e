//! `--profile`: a few steps of a training run one at a time, with a look at the clock around every phase and every node.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use web_time::Instant;

use crate::graph::Graph;
use crate::nn::summary::{self, NodeRow};
use crate::profile::{NodeTime, RunProfile, Span};
use crate::stats::quantile;

/// The steps that are profiled, counted from 1 since the command began: the first two warm the device up.
const STEPS: (u64, u64) = (3, 8);

/// The profiled steps of a run.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The device in words.
    device: String,
    /// All nodes of the step, for their cost.
    rows: Vec<NodeRow>,
    /// First and last step to profile.
    window: (u64, u64),
    /// Steps so far.
    seen: u64,
    steps: Vec<(u64, RunProfile)>,
}

/// Time by op: the nodes of one op in one pass, together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpTime {
    /// The op.
    pub op: &'static str,
    /// `forward`, `backward` or `update`.
    pub pass: &'static str,
    /// Its nodes in a step.
    pub nodes: usize,
    /// Seconds in a step, the median over the profiled steps.
    pub seconds: f64,
    /// Its part of the sum over all ops, from 0 to 1.
    pub share: f64,
    /// Floating-point operations in a step.
    pub flops: u64,
    /// Bytes in a step, each input and output counted once.
    pub bytes: u64,
}

/// A phase on the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseTime {
    /// `batch`, `upload`, `encode`, `submit`, `wait` or `read back`.
    pub phase: &'static str,
    /// Seconds in a step, the median over the profiled steps.
    pub seconds: f64,
}

/// What `train --profile` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileSummary {
    /// The profiled steps, counted from 1 since the command began.
    pub steps: Vec<u64>,
    /// Phases on the host in the order of a step.
    pub host: Vec<PhaseTime>,
    /// Time by op, the longest first; `None` on an adapter without timestamps.
    pub ops: Option<Vec<OpTime>>,
}

impl Profile {
    /// For a run of `total` steps of `graph`. A run that is shorter than the steps to profile has its last ones profiled.
    #[must_use]
    pub fn new(device: String, graph: &Graph, total: u64) -> Self {
        let window = (STEPS.0.min(total), STEPS.1.min(total));
        Self { device, rows: summary::nodes(graph), window, seen: 0, steps: Vec::new() }
    }

    /// Counts a step that is about to run, and says whether to profile it.
    pub fn next_wanted(&mut self) -> bool {
        self.seen += 1;
        (self.window.0..=self.window.1).contains(&self.seen)
    }

    /// Takes the step that [`Profile::next_wanted`] asked for.
    pub fn push(&mut self, step: RunProfile) {
        self.steps.push((self.seen, step));
    }

    fn row(&self, node: &NodeTime) -> Option<&NodeRow> {
        self.rows.iter().find(|r| r.node == node.node)
    }

    /// The figures.
    #[must_use]
    pub fn summary(&self) -> ProfileSummary {
        let steps = self.steps.iter().map(|s| s.0).collect();
        let timed: Vec<&Vec<NodeTime>> = self.steps.iter().filter_map(|s| s.1.nodes.as_ref()).collect();
        let ops = (timed.len() == self.steps.len()).then(|| self.ops(&timed));
        ProfileSummary { steps, host: self.phases(), ops }
    }

    fn phases(&self) -> Vec<PhaseTime> {
        let mut names: Vec<&'static str> = Vec::new();
        for span in self.steps.iter().flat_map(|s| &s.1.host) {
            if !names.contains(&span.name) {
                names.push(span.name);
            }
        }
        let of = |step: &RunProfile, name| {
            let spans = step.host.iter().filter(|s| s.name == name);
            spans.map(|s| (s.end - s.start).as_secs_f64()).sum::<f64>()
        };
        names
            .into_iter()
            .map(|phase| PhaseTime { phase, seconds: median(self.steps.iter().map(|s| of(&s.1, phase)).collect()) })
            .collect()
    }

    fn ops(&self, timed: &[&Vec<NodeTime>]) -> Vec<OpTime> {
        /// Seconds of each step, and nodes, operations and bytes of one.
        type Sums = (Vec<f64>, usize, u64, u64);
        let mut all: BTreeMap<(&'static str, &'static str), Sums> = BTreeMap::new();
        for (k, nodes) in timed.iter().enumerate() {
            for node in *nodes {
                let pass = self.row(node).map_or("", |r| r.pass);
                let entry = all.entry((node.op, pass)).or_default();
                entry.0.resize(timed.len(), 0.0);
                entry.0[k] += node.seconds;
                // A pack's copies bear the pack's node, whose cost they are not.
                if let Some(row) = self.row(node).filter(|_| k == 0) {
                    entry.1 += 1;
                    if node.variant != "copy" {
                        entry.2 += row.flops;
                        entry.3 += row.bytes;
                    }
                }
            }
        }
        let mut ops: Vec<OpTime> = all
            .into_iter()
            .map(|((op, pass), (seconds, nodes, flops, bytes))| OpTime {
                op,
                pass,
                nodes,
                seconds: median(seconds),
                share: 0.0,
                flops,
                bytes,
            })
            .collect();
        let sum: f64 = ops.iter().map(|o| o.seconds).sum();
        ops.iter_mut().for_each(|o| o.share = o.seconds / sum.max(f64::MIN_POSITIVE));
        ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        ops
    }

    /// The steps as a trace in Chrome's format, which Perfetto and `chrome://tracing` open: complete events (`X`) in
    /// microseconds since the first profiled step began, the host's phases on one track and the nodes on another.
    ///
    /// Format: "Trace Event Format", Google, <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.
    #[must_use]
    pub fn trace(&self) -> Value {
        const HOST: u32 = 1;
        const NODES: u32 = 2;
        let name = |what: &str, track: u32, name: &str| json!({ "ph": "M", "name": what, "pid": 1, "tid": track, "args": { "name": name } });
        let mut events = vec![
            name("process_name", 0, &format!("radiograd train on {}", self.device)),
            name("thread_name", HOST, "host"),
        ];
        if self.steps.iter().any(|s| s.1.nodes.is_some()) {
            events.push(name("thread_name", NODES, "nodes"));
        }
        let begin = |step: &RunProfile| step.host.first().map_or(step.nodes_start, |s| s.start).min(step.nodes_start);
        let Some(origin) = self.steps.first().map(|s| begin(&s.1)) else {
            return json!({ "traceEvents": events, "displayTimeUnit": "ms" });
        };
        let since = |t: Instant| (t - origin).as_secs_f64() * 1e6;
        for (number, step) in &self.steps {
            for Span { name, start, end } in &step.host {
                events.push(json!({
                    "ph": "X", "name": name, "cat": "host", "pid": 1, "tid": HOST,
                    "ts": since(*start), "dur": (*end - *start).as_secs_f64() * 1e6,
                    "args": { "step": number },
                }));
            }
            for node in step.nodes.iter().flatten() {
                let mut args = json!({ "step": number, "node": node.node, "kernel": node.variant });
                if let Some(row) = self.row(node).filter(|_| node.variant != "copy") {
                    args["pass"] = json!(row.pass);
                    args["shape"] = json!(row.output);
                    args["flops"] = json!(row.flops);
                    args["bytes"] = json!(row.bytes);
                }
                events.push(json!({
                    "ph": "X", "name": node.name, "cat": node.op, "pid": 1, "tid": NODES,
                    "ts": since(step.nodes_start) + node.start * 1e6, "dur": node.seconds * 1e6,
                    "args": args,
                }));
            }
        }
        let clocks = "host and nodes are timed by different clocks on a GPU; a step's first node is drawn where its inputs \
                      were handed over, the earliest moment possible";
        json!({
            "traceEvents": events,
            "displayTimeUnit": "ms",
            "otherData": { "device": self.device, "clocks": clocks },
        })
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_unstable_by(f64::total_cmp);
    quantile(&seconds, 0.5).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shape::Spec;

    fn graph() -> Graph {
        let mut g = Graph::new();
        let x = g.input("x", Spec::float([4, 4]));
        let y = g.relu(x).unwrap();
        let z = g.relu(y).unwrap();
        g.matmul(y, z).unwrap();
        g
    }

    fn step(start: Instant, factor: f64, timestamps: bool) -> RunProfile {
        let at = |ms| start + Duration::from_millis(ms);
        let node = |node: usize, op, begin: f64, ms: f64| NodeTime {
            node,
            name: format!("#{node} {op}"),
            op,
            variant: "plain",
            start: begin * 1e-3,
            seconds: ms * factor * 1e-3,
        };
        let host = vec![
            Span { name: "batch", start: at(0), end: at(1) },
            Span { name: "encode", start: at(1), end: at(3) },
            Span { name: "wait", start: at(3), end: at(20) },
            Span { name: "encode", start: at(20), end: at(21) },
        ];
        let nodes = vec![node(1, "relu", 0.0, 1.0), node(2, "relu", 1.0, 2.0), node(3, "matmul", 3.0, 9.0)];
        RunProfile { host, nodes_start: at(3), nodes: timestamps.then_some(nodes) }
    }

    fn profile(timestamps: bool) -> Profile {
        let mut p = Profile::new("a device".to_owned(), &graph(), 100);
        let start = Instant::now();
        for k in 0..10 {
            if p.next_wanted() {
                p.push(step(start + Duration::from_millis(100 * k), k as f64 + 1.0, timestamps));
            }
        }
        p
    }

    #[test]
    fn the_third_to_the_eighth_step_are_taken_and_fewer_where_there_are_fewer() {
        assert_eq!(profile(true).summary().steps, [3, 4, 5, 6, 7, 8]);
        for (total, expected) in [(0, vec![]), (1, vec![1]), (2, vec![2]), (5, vec![3, 4, 5])] {
            let mut p = Profile::new(String::new(), &graph(), total);
            let taken: Vec<u64> = (1..=total).filter(|_| p.next_wanted()).collect();
            assert_eq!(taken, expected, "{total}");
        }
    }

    #[test]
    fn nodes_of_an_op_are_added_and_the_median_step_counts() {
        let s = profile(true).summary();
        let ops = s.ops.unwrap();
        // Steps 3 to 8 have the factors 3 to 8, whose median is 5.5.
        let found: Vec<_> = ops.iter().map(|o| (o.op, o.nodes, (o.seconds * 1e6).round())).collect();
        assert_eq!(found, [("matmul", 1, 49_500.0), ("relu", 2, 16_500.0)]);
        assert!((ops[0].share - 0.75).abs() < 1e-9 && (ops[1].share - 0.25).abs() < 1e-9);
        assert_eq!((ops[0].flops, ops[1].bytes), (128, 2 * 2 * 64));
        let host: Vec<_> = s.host.iter().map(|p| (p.phase, (p.seconds * 1e6).round())).collect();
        assert_eq!(host, [("batch", 1000.0), ("encode", 3000.0), ("wait", 17_000.0)]);
    }

    #[test]
    fn without_timestamps_there_are_phases_only() {
        let p = profile(false);
        assert_eq!((p.summary().ops, p.summary().host.len()), (None, 3));
        let trace = p.trace();
        let events = trace["traceEvents"].as_array().unwrap();
        assert!(events.iter().all(|e| e["tid"] != 2) && events.iter().filter(|e| e["ph"] == "X").count() == 24);
    }

    #[test]
    fn the_trace_has_both_tracks_in_microseconds() {
        let trace = profile(true).trace();
        let events = trace["traceEvents"].as_array().unwrap();
        let x: Vec<&Value> = events.iter().filter(|e| e["ph"] == "X").collect();
        assert_eq!(x.len(), 6 * (4 + 3));
        assert!(x.iter().all(|e| e["ts"].as_f64() >= Some(0.0) && e["dur"].as_f64() > Some(0.0)));
        let matmul = x.iter().find(|e| e["cat"] == "matmul").unwrap();
        assert_eq!((matmul["tid"].as_u64(), matmul["args"]["step"].as_u64()), (Some(2), Some(3)));
        // Handed over at 3 ms, begun 3 ms later.
        assert!(
            (matmul["ts"].as_f64().unwrap() - 6000.0).abs() < 0.01
                && (matmul["dur"].as_f64().unwrap() - 27_000.0).abs() < 0.01
        );
        let tracks: Vec<_> = events.iter().filter(|e| e["name"] == "thread_name").map(|e| &e["args"]["name"]).collect();
        assert_eq!(tracks, ["host", "nodes"]);
        assert!(events.iter().any(|e| e["name"] == "process_name" && e["ph"] == "M"));
    }
}
