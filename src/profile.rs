//! Where the time of a step goes: phases on the host, and node by node on the device.

use serde::Serialize;
use web_time::Instant;

/// What the host did to get one run of a program onto the device, in seconds. Waiting for the device is no part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct HostTimes {
    /// Handing over the inputs that changed.
    pub upload: f64,
    /// Recording the dispatches.
    pub encode: f64,
    /// Giving them to the driver.
    pub submit: f64,
}

/// How long one node took.
#[derive(Clone, Debug, Serialize)]
pub struct NodeTime {
    /// The node.
    pub node: usize,
    /// Its description.
    pub name: String,
    /// The op's name.
    pub op: &'static str,
    /// The kernel variant; `cpu` on the CPU executor.
    pub variant: &'static str,
    /// Seconds from the beginning of the first node of the run to the beginning of this one.
    pub start: f64,
    /// Seconds on the device.
    pub seconds: f64,
}

/// Something the host did.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// `batch`, `upload`, `encode`, `submit`, `wait` or `read back`.
    pub name: &'static str,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
}

/// What a profiled run tells.
#[derive(Clone, Debug)]
pub struct RunProfile {
    /// The phases on the host, in order.
    pub host: Vec<Span>,
    /// When the first node began, on the host's clock. A device has a clock of its own, so on a GPU this is the earliest
    /// moment possible: when its work was submitted.
    pub nodes_start: Instant,
    /// The nodes in the order in which they ran; `None` on an adapter without timestamps.
    pub nodes: Option<Vec<NodeTime>>,
}

/// Names what the host does from one call to the next.
#[derive(Debug)]
pub struct Phases {
    spans: Vec<Span>,
    last: Instant,
}

impl Phases {
    /// The clock runs.
    #[must_use]
    pub fn start() -> Self {
        Self { spans: Vec::new(), last: Instant::now() }
    }

    /// What was done since the call before was `name`; returns the moment.
    pub fn end(&mut self, name: &'static str) -> Instant {
        let now = Instant::now();
        match self.spans.last_mut() {
            Some(span) if span.name == name => span.end = now,
            _ => self.spans.push(Span { name, start: self.last, end: now }),
        }
        self.last = now;
        now
    }

    /// All phases, in order.
    #[must_use]
    pub fn spans(self) -> Vec<Span> {
        self.spans
    }
}
