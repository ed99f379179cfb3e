//! Which kernel runs: a table by op (a direction is an op of its own), shape and kind of adapter, as plain data.
//!
//! A shape is known to the table as *facts*, named whole numbers: those that every op has ([`facts`]) and those that an op
//! adds ([`Op::facts`]). A rule's conditions are ranges of facts. To add a rule, write a line into [`TABLE`] above the lines
//! that it is to precede; to make a condition possible that no fact expresses yet, add the fact to the op. The tests below
//! refuse rules that name an op, a fact or a variant that does not exist, and rules that can never be reached.

use super::kernels::SMALL_BLOCKS;
use super::lower::AdapterKind;
use super::lower::AdapterKind::{Discrete, Integrated, Software};
use crate::ops::{LowerCx, Op, PLAIN};

/// A condition: the fact lies within `least..=most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Name of the fact.
    pub fact: &'static str,
    /// The smallest value that fits.
    pub least: u64,
    /// The largest value that fits.
    pub most: u64,
}

/// The fact is exactly `value`.
#[must_use]
pub const fn is(fact: &'static str, value: u64) -> Bound {
    Bound { fact, least: value, most: value }
}

/// The fact is `least` or more.
#[must_use]
pub const fn min(fact: &'static str, least: u64) -> Bound {
    Bound { fact, least, most: u64::MAX }
}

/// The fact is `most` or less.
#[must_use]
pub const fn max(fact: &'static str, most: u64) -> Bound {
    Bound { fact, least: 0, most }
}

/// Kinds of adapter for a rule: every one.
pub const ANY: &[AdapterKind] = &[Discrete, Integrated, Software];
/// Kinds of adapter for a rule: a CPU that runs the shaders.
pub const SOFTWARE: &[AdapterKind] = &[Software];
/// Kinds of adapter for a rule: real GPUs.
pub const HARDWARE: &[AdapterKind] = &[Discrete, Integrated];

/// What to prefer for an op on some kinds of adapter, where all conditions hold.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The op.
    pub op: &'static str,
    /// The kinds of adapter.
    pub adapters: &'static [AdapterKind],
    /// Conditions on the shape; all must hold. A fact that the op does not have fails its condition.
    pub when: &'static [Bound],
    /// Variants, best first. Where none of them supports the shapes, the next rule that fits is asked.
    pub prefer: &'static [&'static str],
}

const fn rule(op: &'static str, adapters: &'static [AdapterKind], prefer: &'static [&'static str]) -> Rule {
    Rule { op, adapters, when: &[], prefer }
}

const fn ruled(
    op: &'static str,
    adapters: &'static [AdapterKind],
    when: &'static [Bound],
    prefer: &'static [&'static str],
) -> Rule {
    Rule { op, adapters, when, prefer }
}

/// Floating-point operations up to which a product is not worth a large kernel on a CPU that runs the shaders: the plain one
/// takes some tenths of a millisecond.
const SMALL_PRODUCT: u64 = 1 << 17;
/// Where Winograd's convolution is faster on a CPU: its transforms cost a pass over memory each, which pays where every value
/// then meets many channels, and small images leave parts of its tiles empty.
const WINOGRAD: &[Bound] = &[min("c_in", 32), min("c_out", 32), min("h_out", 24), min("w_out", 24)];

/// Floating-point operations from which reading by textures pays on a CPU that runs the shaders: the copies cost the host a
/// compute pass each, and memory.
const LONG: &[Bound] = &[min("flops", 1_000_000_000)];
/// The same for a gradient that is spread to the size of the image: it takes four times the operations at stride 2.
const LONG_SPREAD: &[Bound] = &[min("stride_h", 2), min("flops", 250_000_000)];
const LONG_PRODUCT: &[Bound] = &[min("flops", 100_000_000)];

/// Products in registers: in a browser one pipeline for all of them, because it is compiled anew on every visit.
const REGISTERS: &[&str] =
    if SMALL_BLOCKS { &["subgroup", "shared", "regblock"] } else { &["subgroup", "regblock", "shared"] };

/// The table. The first rule that fits and names a variant that supports the shapes counts; where there is none, the plain
/// kernel runs.
pub static TABLE: &[Rule] = &[
    ruled("conv2d", SOFTWARE, &[is("c_in", 1)], &["grey"]),
    ruled("conv2d", SOFTWARE, LONG, &["subgroup_texture"]),
    ruled("conv2d", SOFTWARE, WINOGRAD, &["winograd4_subgroup", "winograd4"]),
    rule("conv2d", SOFTWARE, &["subgroup", "regblock"]),
    rule("conv2d", HARDWARE, &["tiled"]),
    ruled("conv2d_relu", SOFTWARE, LONG, &["subgroup_texture"]),
    ruled("conv2d_relu", SOFTWARE, WINOGRAD, &["winograd4_subgroup", "winograd4"]),
    rule("conv2d_relu", SOFTWARE, &["subgroup"]),
    ruled("conv2d_relu_max_pool2d", SOFTWARE, LONG, &["subgroup_texture"]),
    ruled("conv2d_relu_max_pool2d", SOFTWARE, WINOGRAD, &["winograd4_subgroup", "winograd4"]),
    rule("conv2d_relu_max_pool2d", SOFTWARE, &["subgroup"]),
    ruled("conv2d_block_input_grad", SOFTWARE, LONG, &["subgroup_texture"]),
    ruled("conv2d_block_input_grad", SOFTWARE, WINOGRAD, &["winograd4_subgroup", "winograd4"]),
    rule("conv2d_block_input_grad", SOFTWARE, &["subgroup"]),
    ruled("conv2d_block_weight_grad", SOFTWARE, LONG, &["subgroup_texture"]),
    ruled("conv2d_block_weight_grad", SOFTWARE, WINOGRAD, &["winograd4_subgroup", "winograd4"]),
    rule("conv2d_block_weight_grad", SOFTWARE, &["subgroup"]),
    rule("conv2d_block_bias_grad", ANY, &["split"]),
    ruled("conv2d_input_grad", SOFTWARE, LONG, &["subgroup_texture"]),
    ruled("conv2d_input_grad", SOFTWARE, LONG_SPREAD, &["subgroup_texture"]),
    ruled("conv2d_input_grad", SOFTWARE, WINOGRAD, &["winograd4_subgroup", "winograd4"]),
    rule("conv2d_input_grad", SOFTWARE, &["subgroup", "regblock"]),
    rule("conv2d_input_grad", HARDWARE, &["tiled"]),
    ruled("conv2d_weight_grad", SOFTWARE, &[is("c_in", 1)], &["grey"]),
    ruled("conv2d_weight_grad", SOFTWARE, LONG, &["subgroup_texture"]),
    ruled("conv2d_weight_grad", SOFTWARE, WINOGRAD, &["winograd4_subgroup", "winograd4"]),
    rule("conv2d_weight_grad", SOFTWARE, &["subgroup", "regblock"]),
    rule("conv2d_weight_grad", HARDWARE, &["tiled"]),
    // A block of registers takes llvmpipe some 100 ms to compile, which so small a product never earns back.
    ruled("linear", SOFTWARE, &[max("flops", SMALL_PRODUCT)], &[PLAIN]),
    ruled("linear", SOFTWARE, LONG_PRODUCT, &["subgroup_texture"]),
    rule("linear", SOFTWARE, REGISTERS),
    rule("linear", HARDWARE, &["tiled"]),
    ruled("matmul", SOFTWARE, &[max("flops", SMALL_PRODUCT)], &[PLAIN]),
    ruled("matmul", SOFTWARE, LONG_PRODUCT, &["subgroup_texture"]),
    rule("matmul", SOFTWARE, REGISTERS),
    rule("matmul", HARDWARE, &["tiled"]),
    rule("relu", ANY, &["vec4"]),
    rule("leaky_relu", ANY, &["vec4"]),
    rule("elu", ANY, &["vec4"]),
    rule("sigmoid", ANY, &["vec4"]),
    rule("tanh", ANY, &["vec4"]),
    rule("exp", ANY, &["vec4"]),
    rule("scale", ANY, &["vec4"]),
    rule("add", ANY, &["vec4"]),
    rule("mul", ANY, &["vec4"]),
    rule("dropout", ANY, &["vec4"]),
    rule("grad_stats", ANY, &["vec4"]),
    rule("optimizer_step", ANY, &["vec4"]),
    rule("sum_to", ANY, &["split", "vec4"]),
    rule("max_pool2d", ANY, &["2x2"]),
    rule("max_pool2d_input_grad", ANY, &["2x2", "winners"]),
    rule("channel_mean", ANY, &["split"]),
    rule("channel_var", ANY, &["split"]),
    rule("batch_norm2d", ANY, &["vec4"]),
    rule("batch_norm2d_gain_grad", ANY, &["split"]),
    rule("batch_norm2d_input_grad", ANY, &["vec4"]),
    rule("batch_norm2d_eval_input_grad", ANY, &["vec4"]),
    rule("concat", ANY, &["vec4"]),
    rule("narrow", ANY, &["vec4"]),
    rule("narrow_input_grad", ANY, &["vec4"]),
    rule("softmax", ANY, &["split"]),
    rule("softmax_grad", ANY, &["split"]),
    rule("log_softmax", ANY, &["split"]),
    rule("log_softmax_grad", ANY, &["split"]),
    rule("gather_images", ANY, &["words"]),
    // Loads of what was drawn are dear on llvmpipe; a real GPU has more use for more invocations.
    rule("augment_images", SOFTWARE, &["strip"]),
];

/// What the table knows of an op at its shapes: `flops`; `out`, the elements of the output; `n c h w` of a first input of
/// rank 4 or `rows columns` of one of rank 2; and what the op adds, which comes first.
#[must_use]
pub fn facts(op: &dyn Op, cx: &LowerCx<'_>) -> Vec<(&'static str, u64)> {
    let mut all = op.facts(cx);
    all.push(("flops", op.flops(cx.inputs, cx.output)));
    all.push(("out", cx.output.numel() as u64));
    let first: &[usize] = cx.inputs.first().map_or(&[], |s| &s.shape);
    let names: &[&'static str] = match first.len() {
        4 => &["n", "c", "h", "w"],
        2 => &["rows", "columns"],
        _ => &[],
    };
    all.extend(names.iter().copied().zip(first.iter().map(|&d| d as u64)));
    all
}

impl Rule {
    fn fits(&self, op: &str, adapter: AdapterKind, facts: &[(&'static str, u64)]) -> bool {
        let holds = |b: &Bound| {
            // The op's own facts stand before the general ones of the same name.
            facts.iter().find(|(name, _)| *name == b.fact).is_some_and(|(_, v)| (b.least..=b.most).contains(v))
        };
        self.op == op && self.adapters.contains(&adapter) && self.when.iter().all(holds)
    }
}

/// The variant to run among those that support the shapes.
#[must_use]
pub fn choose(op: &dyn Op, cx: &LowerCx<'_>, supported: &[&'static str]) -> &'static str {
    decide(TABLE, op.name(), cx.adapter, &facts(op, cx), supported)
}

fn decide(
    table: &[Rule],
    op: &str,
    adapter: AdapterKind,
    facts: &[(&'static str, u64)],
    supported: &[&'static str],
) -> &'static str {
    table
        .iter()
        .filter(|rule| rule.fits(op, adapter, facts))
        .find_map(|rule| rule.prefer.iter().find(|v| supported.contains(v)))
        .copied()
        .unwrap_or(PLAIN)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, OnceLock};

    use super::*;
    use crate::check::Recorded;
    use crate::graph::Graph;
    use crate::ops::conv2d::Conv2d;
    use crate::ops::registry::registry;
    use crate::shape::Spec;
    use crate::store::{ParamStore, Role};

    type Known = BTreeMap<&'static str, (BTreeSet<&'static str>, BTreeSet<&'static str>)>;

    /// For each op that a sample records: the facts that every node of it has, and the variants that some node of it has.
    fn known() -> &'static Known {
        static KNOWN: OnceLock<Known> = OnceLock::new();
        KNOWN.get_or_init(look)
    }

    /// A step of an optimizer: no sample records it.
    fn update() -> Arc<Graph> {
        let mut store = ParamStore::new();
        store.add_param("p", Role::Trainable, [5], &[0.0; 5]);
        let params = store.trainable_view();
        let mut g = Graph::new();
        let (grads, hyper) = (g.input("grads", params.spec.clone()), g.input("hyper", Spec::float([4])));
        g.optimizer_step("sgd".parse().unwrap(), params, &[], grads, hyper).unwrap();
        Arc::new(g)
    }

    fn look() -> Known {
        let mut known = Known::new();
        let samples = registry().into_iter().flat_map(|e| e.samples());
        let graphs = samples.map(|sample| Arc::clone(Recorded::new(&sample, 1).unwrap().graph()));
        for graph in graphs.chain([update()]) {
            for node in graph.nodes() {
                let Some(op) = node.op() else { continue };
                let specs: Vec<_> = node.inputs().iter().map(|&i| graph.spec(i)).collect();
                for &adapter in ANY {
                    let cx = LowerCx {
                        inputs: &specs,
                        output: &node.spec,
                        adapter,
                        subgroup: Some(8),
                        companion: false,
                        variant: PLAIN,
                    };
                    let names: BTreeSet<_> = facts(op.as_ref(), &cx).into_iter().map(|(name, _)| name).collect();
                    let entry = known.entry(op.name()).or_insert_with(|| (names.clone(), BTreeSet::new()));
                    entry.0.retain(|name| names.contains(name));
                    entry.1.extend(op.variants(&cx));
                }
            }
        }
        known
    }

    #[test]
    fn every_rule_names_what_exists() {
        let known = known();
        for rule in TABLE {
            let (facts, variants) = known.get(rule.op).unwrap_or_else(|| panic!("{rule:?}: no sample has the op"));
            assert!(!rule.prefer.is_empty() && !rule.adapters.is_empty(), "{rule:?}");
            for bound in rule.when {
                assert!(facts.contains(bound.fact), "{rule:?}: {} is none of {facts:?}", bound.fact);
                assert!(bound.least <= bound.most, "{rule:?}");
            }
            for variant in rule.prefer {
                assert!(variants.contains(variant), "{rule:?}: {variant} is none of {variants:?}");
            }
        }
    }

    #[test]
    fn every_rule_can_be_reached() {
        for (i, rule) in TABLE.iter().enumerate() {
            for earlier in &TABLE[..i] {
                let covers = earlier.op == rule.op
                    && rule.adapters.iter().all(|a| earlier.adapters.contains(a))
                    && earlier
                        .when
                        .iter()
                        .all(|e| rule.when.iter().any(|r| r.fact == e.fact && e.least <= r.least && r.most <= e.most));
                let settled = earlier.prefer.contains(&PLAIN)
                    || rule.prefer.iter().all(|variant| earlier.prefer.contains(variant));
                assert!(!(covers && settled), "{rule:?} comes after {earlier:?}");
            }
        }
    }

    #[test]
    fn every_fast_variant_but_those_that_are_taught_is_in_the_table() {
        let taught: &[&str] =
            &[PLAIN, "direct", "winograd2", "winograd2_subgroup", "winograd2_tiled", "winograd4_tiled"];
        for (op, (_, variants)) in known() {
            for variant in variants.iter().filter(|v| !taught.contains(v)) {
                let used = TABLE.iter().any(|r| r.op == *op && r.prefer.contains(variant));
                assert!(used, "{op} never takes {variant}: give it a rule, or name it here");
            }
        }
    }

    #[test]
    fn conditions_and_order_decide() {
        const WANTED: &[Rule] = &[
            ruled("op", SOFTWARE, &[is("k", 3), max("c", 8)], &["small"]),
            ruled("op", ANY, &[min("c", 64)], &["wide", "less wide"]),
            rule("op", HARDWARE, &["general"]),
        ];
        let all = [PLAIN, "small", "wide", "less wide", "general"];
        let at = |adapter, facts: &[(&'static str, u64)], supported: &[&'static str]| {
            decide(WANTED, "op", adapter, facts, supported)
        };
        assert_eq!(at(Software, &[("k", 3), ("c", 8)], &all), "small");
        assert_eq!(at(Software, &[("k", 3), ("c", 9)], &all), PLAIN);
        assert_eq!(at(Software, &[("c", 8)], &all), PLAIN, "a fact that is not known fits no condition");
        assert_eq!(at(Discrete, &[("k", 3), ("c", 8)], &all), "general");
        assert_eq!(at(Discrete, &[("c", 64)], &all), "wide");
        assert_eq!(at(Discrete, &[("c", 64)], &[PLAIN, "less wide", "general"]), "less wide");
        assert_eq!(at(Discrete, &[("c", 64)], &[PLAIN, "general"]), "general", "the next rule that fits is asked");
        assert_eq!(at(Integrated, &[("c", 1), ("c", 64)], &all), "general", "the first fact of a name counts");
        assert_eq!(decide(WANTED, "other", Discrete, &[], &all), PLAIN);
    }

    /// What is chosen for a convolution `[4, c, 16, 16] -> o` and its gradients, and for a linear layer and its gradients.
    fn choices(adapter: AdapterKind, c: usize, o: usize, conv: &Conv2d) -> Vec<(&'static str, &'static str)> {
        let mut g = Graph::new();
        let (x, w) = (g.input("x", Spec::float([4, c, 16, 16])), g.input("w", Spec::float([o, c / conv.groups, 3, 3])));
        let y = g.conv2d(x, w, None, conv.clone()).unwrap();
        let (a, b) = (g.input("a", Spec::float([32, 128])), g.input("b", Spec::float([64, 128])));
        let z = g.linear(a, b, None).unwrap();
        for (y, x, w) in [(y, x, w), (z, a, b)] {
            let dy = g.input("dy", g.spec(y).clone());
            g.gradients(y, Some(dy), &[x, w]).unwrap();
        }
        let nodes = g.nodes().iter().filter_map(|node| node.op().map(|op| (node, op)));
        nodes
            .map(|(node, op)| {
                let specs: Vec<_> = node.inputs().iter().map(|&i| g.spec(i)).collect();
                let cx = LowerCx {
                    inputs: &specs,
                    output: &node.spec,
                    adapter,
                    subgroup: Some(8),
                    companion: false,
                    variant: PLAIN,
                };
                (op.name(), choose(op.as_ref(), &cx, &op.variants(&cx)))
            })
            .collect()
    }

    #[test]
    fn choices_for_shapes_that_training_has() {
        let of =
            |adapter, c, o, conv: &Conv2d| choices(adapter, c, o, conv).into_iter().map(|c| c.1).collect::<Vec<_>>();
        let same = Conv2d::same(3);
        assert_eq!(
            choices(Software, 32, 64, &same).iter().map(|c| c.0).collect::<Vec<_>>(),
            ["conv2d", "linear", "conv2d_input_grad", "conv2d_weight_grad", "matmul", "matmul"]
        );
        assert_eq!(of(Software, 32, 64, &same), ["subgroup"; 6]);
        assert_eq!(of(Discrete, 32, 64, &same), ["tiled"; 6]);
        assert_eq!(of(Integrated, 32, 64, &same), ["tiled"; 6]);
        assert_eq!(of(Software, 1, 32, &same)[3], "grey");
        assert_eq!(of(Discrete, 1, 32, &same)[3], "tiled");
        let grouped = Conv2d { groups: 2, ..same.clone() };
        for adapter in [Software, Discrete] {
            assert_eq!([of(adapter, 4, 4, &grouped)[0], of(adapter, 4, 4, &grouped)[2]], [PLAIN; 2]);
        }
        let strided = Conv2d { stride: [2, 2], ..same };
        assert_eq!(of(Software, 8, 8, &strided)[2], "subgroup");
        assert_eq!(of(Discrete, 8, 8, &strided)[2], "tiled");
    }
}
