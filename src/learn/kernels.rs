//! The ladder of kernels, with times of the reader's device.

use crate::bench::cases::Case;
use crate::bench::kernels::KernelResult;
use crate::bench::shapes;
use crate::check::CheckError;
use crate::gpu::AdapterSummary;

/// The convolution that is timed: small enough for software Vulkan's plainest kernel.
pub const SHAPE: &str = "conv2d n=8 c=32 size=32 o=64 k=3 pad=1";

/// Its three directions.
///
/// # Errors
/// None: the text is one that can be read.
pub fn cases() -> Result<Vec<Case>, String> {
    shapes::parse(SHAPE, None).map_err(|e| e.to_string())
}

/// Kernels that one idea made.
struct Rung {
    /// Their names, as the table has them.
    kernels: &'static [&'static str],
    /// The page of the forward pass whose header states the idea.
    page: &'static str,
    idea: &'static str,
}

/// Every kernel of [`SHAPE`] that some adapter has, in the order of the table.
const RUNGS: [Rung; 10] = [
    Rung {
        kernels: &["plain"],
        page: "conv2d.wgsl",
        idea: "one thread an output, which loads everything that it needs.\n   Each pixel is loaded by all threads whose windows cover it.",
    },
    Rung {
        kernels: &["direct"],
        page: "conv2d_direct.wgsl",
        idea: "the same, but which part of a window lies inside the image is computed once,\n   \
               before the loops, which then run without a test.",
    },
    Rung {
        kernels: &["regblock"],
        page: "conv2d_regblock.wgsl",
        idea: "a thread computes a block of outputs and keeps what it loaded in registers,\n   so that each load serves many products.",
    },
    Rung {
        kernels: &["subgroup"],
        page: "conv2d_subgroup.wgsl",
        idea: "lanes that run in step load a part each and hand it to the others,\n   without a workgroup's barriers.",
    },
    Rung {
        kernels: &["subgroup_texture"],
        page: "conv2d_subgroup.wgsl",
        idea: "the same with its inputs copied into textures first:\n   there a load costs software Vulkan a tenth.",
    },
    Rung {
        kernels: &["tiled"],
        page: "gemm_tiled.wgsl",
        idea: "a workgroup loads a part of the image and of the weights once, into memory that its threads share.\n   \
               Made for GPUs; where a CPU runs the shaders, its barriers are dear.",
    },
    Rung {
        kernels: &["winograd2"],
        page: "conv2d_winograd_input.wgsl",
        idea: "tiles of 2x2 outputs with 16 multiplications a pair of channels in place of 36.\n   \
               The price is passes over memory: image and weights are transformed, and the products are transformed back.",
    },
    Rung {
        kernels: &["winograd4"],
        page: "conv2d_winograd_input.wgsl",
        idea: "tiles of 4x4 outputs with 36 multiplications in place of 144, and a little more rounding.",
    },
    Rung {
        kernels: &["winograd2_subgroup", "winograd4_subgroup"],
        page: "conv2d_winograd_subgroup.wgsl",
        idea: "the products in the middle as in `subgroup`.",
    },
    Rung {
        kernels: &["winograd2_tiled", "winograd4_tiled"],
        page: "conv2d_winograd_tiled.wgsl",
        idea: "the products as in `tiled`.",
    },
];

pub(super) fn text() -> Result<String, CheckError> {
    let rungs: Vec<String> = RUNGS
        .iter()
        .zip(1..)
        .map(|(r, i)| format!("{i}. `{}` (`{}`): {}\n", r.kernels.join("`, `"), r.page, r.idea))
        .collect();
    Ok(format!(
        "All kernels of a convolution give the same numbers, up to rounding; tests hold each against the reference. They differ in what they\n\
         load how often, and the last ones in how much they multiply:\n\n\
         {}\n\
         The pages are in `shaders/`; the header of each states its idea. `conv2d.wgsl` and `gemm_tiled.wgsl` hold the weight gradient too,\n\
         for the others it has pages of its own, `conv2d_wgrad_*.wgsl` and `conv2d_winograd_wgrad*.wgsl` (`direct` has none). Images with\n\
         one channel have one more kernel, `grey`: it keeps a whole window in registers while the filters pass by.\n\n\
         Which ones there are depends on the adapter and on the shape, and so does which one is the fastest: a rung that leads upwards on one\n\
         device leads down on another. `radiograd learn kernels` times them on yours for this convolution:\n\
         `{SHAPE}`.\n\n\
         Count before you measure: the products of a shape are fixed, and so are the bytes that must move at least once. The larger of\n\
         the two times is the floor; `radiograd bench kernels --op conv2d --ladder` prints how far each kernel is above it.",
        rungs.concat()
    ))
}

/// What a reader whose table is the CPU's alone can do to see the ladder; nothing where no adapter was found.
#[must_use]
pub fn hint(adapters: &[AdapterSummary]) -> Option<String> {
    let of = |kind: &str| adapters.iter().find(|a| a.kind == kind);
    let best = of("discrete").or_else(|| of("integrated")).or_else(|| of("software"))?;
    let wait = match best.kind {
        "software" => ": a software adapter, so it takes some minutes",
        _ => "",
    };
    Some(format!(
        "The CPU has one kernel a direction, so there is no ladder to see. `radiograd learn kernels --device gpu` shows it for\n{}{wait}.\n",
        best.name
    ))
}

/// The times as a table, the slowest of each direction as 1.
#[must_use]
pub fn table(results: &[KernelResult]) -> String {
    let mut out = String::from("| direction | kernel | time | GFLOP/s | times as fast |\n|---|---|---|---|---|\n");
    for r in results {
        let slowest = results.iter().filter(|o| o.direction == r.direction).map(|o| o.times.median).fold(0.0, f64::max);
        let mark = if r.chosen { " (training takes it)" } else { "" };
        out += &format!(
            "| {} | {}{mark} | {:.3} ms | {:.2} | {:.1} |\n",
            r.direction.words(),
            r.kernel,
            1e3 * r.times.median,
            1e-9 * r.flops_per_second,
            slowest / r.times.median
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::lower::AdapterKind;
    use crate::graph::{Graph, NodeId};
    use crate::ops::LowerCx;

    /// For each direction: the kernels that an adapter has for the lesson's convolution, and the pages of each.
    fn kernels(adapter: AdapterKind, subgroup: Option<u32>) -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
        let mut all = Vec::new();
        for case in cases().unwrap() {
            let mut g = Graph::new();
            let x: Vec<NodeId> = case.inputs.iter().map(|i| g.input("x", i.spec.clone())).collect();
            let roots = case.record(&mut g, &x, &[]).unwrap();
            let node = g.node(roots[0]);
            let op = node.op().unwrap();
            let specs: Vec<_> = node.inputs().iter().map(|&i| g.spec(i)).collect();
            let cx =
                |variant| LowerCx { inputs: &specs, output: &node.spec, adapter, subgroup, companion: false, variant };
            for variant in op.variants(&cx("plain")) {
                let pages = op.lower(&cx(variant)).dispatches.iter().map(|d| d.shader).collect();
                all.push((op.name(), variant, pages));
            }
        }
        all
    }

    #[test]
    fn every_kernel_of_the_table_is_explained_and_its_page_named() {
        let mut seen = Vec::new();
        let rung = |name: &str| RUNGS.iter().position(|r| r.kernels.contains(&name));
        for adapter in [AdapterKind::Discrete, AdapterKind::Integrated, AdapterKind::Software] {
            for subgroup in [None, Some(4), Some(8), Some(16), Some(32), Some(64)] {
                for (op, name, pages) in kernels(adapter, subgroup) {
                    let at = rung(name).unwrap_or_else(|| panic!("{op}: no word about {name}"));
                    let weight = ["conv2d_wgrad_", "conv2d_winograd_wgrad", "conv2d.wgsl", "gemm_tiled.wgsl"];
                    let named = match op {
                        "conv2d_weight_grad" => pages.iter().any(|p| weight.iter().any(|w| p.starts_with(w))),
                        _ => pages.contains(&RUNGS[at].page),
                    };
                    assert!(named, "{op}, {name}: {pages:?}");
                    seen.push(name);
                }
            }
        }
        assert!(RUNGS.iter().flat_map(|r| r.kernels).all(|k| seen.contains(k)), "a kernel that nothing prints");
        let of_a_gpu = kernels(AdapterKind::Discrete, Some(32));
        let order = of_a_gpu.iter().filter(|k| k.0 == "conv2d").map(|k| rung(k.1));
        assert!(order.is_sorted_by_key(|at| at), "the table has another order than the text");
    }

    #[test]
    fn the_cpu_says_where_the_ladder_is() {
        let adapter = |kind, name: &str| AdapterSummary {
            index: 0,
            name: name.to_owned(),
            kind,
            backend: "Vulkan".to_owned(),
            driver: String::new(),
            max_binding_bytes: 0,
            max_buffer_bytes: 0,
        };
        assert_eq!(hint(&[]), None);
        let software = adapter("software", "llvmpipe");
        let says = hint(std::slice::from_ref(&software)).unwrap();
        assert!(says.contains("--device gpu") && says.contains("llvmpipe") && says.contains("minutes"), "{says}");
        let says = hint(&[software, adapter("integrated", "Iris")]).unwrap();
        assert!(says.contains("Iris") && !says.contains("minutes"), "{says}");
    }
}
