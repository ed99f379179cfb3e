//! Every kernel of every op, specialised as for the samples, is valid WGSL whose bindings are those of the dispatch.

use std::collections::HashSet;

use radiograd::check::Recorded;
use radiograd::gpu::lower::{AdapterKind, Arg, Dispatch, LATE_BINDING, Late, MAX_GROUPS, MAX_LATE};
use radiograd::gpu::render;
use radiograd::graph::{Graph, VarView};
use radiograd::ops::registry::registry;
use radiograd::ops::{LowerCx, Op, PLAIN};
use radiograd::optim::OptimizerKind;
use radiograd::shape::Spec;
use radiograd::store::{ParamStore, Role};
use rayon::prelude::*;
use wgpu::naga;

/// Parses and validates the text and compares what the entry point uses with what the dispatch binds.
fn check(text: &str, d: &Dispatch, place: Late) -> Result<(), String> {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::SUBGROUP)
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    let entry = module
        .entry_points
        .iter()
        .position(|e| e.name == d.entry)
        .ok_or_else(|| format!("no entry point {}", d.entry))?;
    let uses = info.get_entry_point(entry);
    // Sizes that are set late, and nothing else.
    let uniforms = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::Uniform);
    let uniforms: Vec<u32> = uniforms.filter_map(|(_, v)| v.binding.as_ref().map(|b| b.binding)).collect();
    let wanted = if place == Late::Uniform && !d.late(place).is_empty() { vec![LATE_BINDING] } else { vec![] };
    if uniforms != wanted {
        return Err(format!("has uniform buffers at {uniforms:?}, not at {wanted:?}"));
    }
    let mut used: Vec<(u32, bool)> = module
        .global_variables
        .iter()
        .filter(|(handle, v)| !uses[*handle].is_empty() && v.space != naga::AddressSpace::Uniform)
        .filter_map(|(_, v)| {
            // Textures are only read.
            let writable = matches!(v.space, naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE));
            v.binding.as_ref().map(|b| (b.binding, writable))
        })
        .collect();
    used.sort_unstable();
    let bound: Vec<(u32, bool)> =
        (0..).zip(d.args.iter().map(|a| !matches!(a, Arg::Input(_) | Arg::Texture(_)))).collect();
    // Scratch is written by one dispatch and read by the next.
    let agrees = used.len() == bound.len()
        && used
            .iter()
            .zip(&bound)
            .zip(&d.args)
            .all(|((u, b), arg)| u.0 == b.0 && (u.1 == b.1 || matches!(arg, Arg::Scratch(_))));
    if agrees { Ok(()) } else { Err(format!("uses bindings {used:?}, the dispatch binds {:?}", d.args)) }
}

/// The texts that were checked already: many nodes share one.
#[derive(Default)]
struct Pages {
    seen: HashSet<String>,
}

impl Pages {
    fn check_op(&mut self, op: &dyn Op, inputs: &[&Spec], output: &Spec) {
        for subgroup in [None, Some(4), Some(8), Some(32)] {
            for companion in [false, true] {
                let adapter = AdapterKind::Software;
                self.check_for(op, &LowerCx { inputs, output, adapter, subgroup, companion, variant: PLAIN });
            }
        }
    }

    fn check_for(&mut self, op: &dyn Op, cx: &LowerCx) {
        let mut cx = cx.clone();
        let variants = op.variants(&cx);
        assert_eq!(variants[0], PLAIN, "{}", op.name());
        for variant in variants {
            cx.variant = variant;
            for d in op.lower(&cx).dispatches {
                let at = format!("{} {variant} ({} {})", op.name(), d.shader, d.entry);
                assert!(d.groups.iter().all(|g| (1..=MAX_GROUPS).contains(g)), "{at}: {:?}", d.groups);
                assert!(d.late(Late::Immediate).len() <= MAX_LATE, "{at}: {:?}", d.consts);
                // In a browser there are no subgroups.
                let places = [Late::Text, Late::Uniform];
                for place in &places[..if cx.subgroup.is_none() { 2 } else { 1 }] {
                    let text = render(&d, *place).unwrap_or_else(|e| panic!("{at}: {e}"));
                    if self.seen.insert(format!("{}{text}", d.entry)) {
                        check(&text, &d, *place).unwrap_or_else(|e| panic!("{at}: {e}\n{text}"));
                    }
                }
            }
        }
    }
}

#[test]
fn every_specialised_shader_is_valid() {
    let checked = registry()
        .par_iter()
        .map(|entry| {
            let mut pages = Pages::default();
            for sample in entry.samples() {
                let recorded =
                    Recorded::new(&sample, 1).unwrap_or_else(|e| panic!("{} / {}: {e}", entry.name, sample.name));
                let g = recorded.graph();
                for node in g.nodes() {
                    if let Some(op) = node.op() {
                        let inputs: Vec<&Spec> = node.inputs().iter().map(|&i| g.spec(i)).collect();
                        pages.check_op(op.as_ref(), &inputs, &node.spec);
                    }
                }
            }
            pages.seen
        })
        .reduce(HashSet::new, |all, some| all.union(&some).cloned().collect());
    assert!(checked.len() > 100);
}

#[test]
fn the_shader_of_an_update_is_valid() {
    let mut store = ParamStore::new();
    let view = store.add_param("running", Role::Buffer, [5], &[0.0; 5]).view;
    let mut g = Graph::new();
    let stat = g.input("stat", Spec::float([5]));
    let new = g.ema_update(stat, view, 0.1, 1.0).unwrap();
    let op = g.node(new).op().unwrap();
    Pages::default().check_op(op.as_ref(), &[g.spec(stat)], g.spec(new));
    for kind in ["sgd", "sgd:momentum=0.9", "adam", "adamw", "rmsprop", "rmsprop:centered=true,momentum=0.5"] {
        let kind: OptimizerKind = kind.parse().unwrap();
        let mut store = ParamStore::new();
        store.add_param("p", Role::Trainable, [5], &[0.0; 5]);
        let params = store.trainable_view();
        let slots: Vec<VarView> =
            kind.slot_names().iter().map(|name| store.add_var(name, params.spec.clone(), None)).collect();
        let mut g = Graph::new();
        let (grads, hyper) = (g.input("grads", params.spec.clone()), g.input("hyper", Spec::float([4])));
        let step = g.optimizer_step(kind, params, &slots, grads, hyper).unwrap();
        let op = g.node(step).op().unwrap();
        Pages::default().check_op(op.as_ref(), &[g.spec(grads), g.spec(hyper)], g.spec(step));
    }
}
