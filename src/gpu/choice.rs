//! Which kernel runs: a table by op and kind of adapter, as plain data.

use super::lower::AdapterKind;
use crate::ops::PLAIN;

/// For an op on a kind of adapter (`None`: any), the variants in order of preference.
#[derive(Debug)]
pub struct Rule {
    /// The op.
    pub op: &'static str,
    /// The kind of adapter.
    pub adapter: Option<AdapterKind>,
    /// Variants, best first; the first that supports the shapes is taken, else the plain kernel.
    pub prefer: &'static [&'static str],
}

/// The table; the first rule that fits counts.
pub static TABLE: &[Rule] = &[
    Rule { op: "conv2d", adapter: Some(AdapterKind::Software), prefer: &["regblock"] },
    Rule { op: "conv2d", adapter: None, prefer: &["tiled"] },
    Rule { op: "conv2d_input_grad", adapter: Some(AdapterKind::Software), prefer: &["regblock"] },
    Rule { op: "conv2d_input_grad", adapter: None, prefer: &["tiled"] },
    Rule { op: "conv2d_weight_grad", adapter: Some(AdapterKind::Software), prefer: &["grey", "regblock"] },
    Rule { op: "conv2d_weight_grad", adapter: None, prefer: &["tiled"] },
    Rule { op: "linear", adapter: Some(AdapterKind::Software), prefer: &["regblock"] },
    Rule { op: "linear", adapter: None, prefer: &["tiled"] },
    Rule { op: "matmul", adapter: Some(AdapterKind::Software), prefer: &["regblock"] },
    Rule { op: "matmul", adapter: None, prefer: &["tiled"] },
    Rule { op: "sum_to", adapter: None, prefer: &["split"] },
    Rule { op: "max_pool2d", adapter: None, prefer: &["2x2"] },
    Rule { op: "max_pool2d_input_grad", adapter: None, prefer: &["2x2"] },
    Rule { op: "channel_mean", adapter: None, prefer: &["split"] },
    Rule { op: "channel_var", adapter: None, prefer: &["split"] },
    Rule { op: "batch_norm2d", adapter: None, prefer: &["vec4"] },
    Rule { op: "batch_norm2d_gain_grad", adapter: None, prefer: &["split"] },
    Rule { op: "batch_norm2d_input_grad", adapter: None, prefer: &["vec4"] },
    Rule { op: "batch_norm2d_eval_input_grad", adapter: None, prefer: &["vec4"] },
    Rule { op: "concat", adapter: None, prefer: &["vec4"] },
    Rule { op: "narrow", adapter: None, prefer: &["vec4"] },
    Rule { op: "narrow_input_grad", adapter: None, prefer: &["vec4"] },
    Rule { op: "softmax", adapter: None, prefer: &["split"] },
    Rule { op: "softmax_grad", adapter: None, prefer: &["split"] },
    Rule { op: "log_softmax", adapter: None, prefer: &["split"] },
    Rule { op: "log_softmax_grad", adapter: None, prefer: &["split"] },
    Rule { op: "gather_images", adapter: None, prefer: &["words"] },
];

/// The variant to run among those that support the shapes.
#[must_use]
pub fn choose(op: &str, adapter: AdapterKind, supported: &[&'static str]) -> &'static str {
    TABLE
        .iter()
        .find(|rule| rule.op == op && rule.adapter.is_none_or(|kind| kind == adapter))
        .and_then(|rule| rule.prefer.iter().find(|v| supported.contains(v)))
        .copied()
        .unwrap_or(PLAIN)
}
