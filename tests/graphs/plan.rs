//! The memory plan of a graph, held against lifetimes that are worked out here from the graph alone.

use std::collections::HashMap;
use std::sync::Arc;

use radiograd::gpu::choice::choose;
use radiograd::gpu::lower::AdapterKind;
use radiograd::gpu::plan::ALIGN;
use radiograd::gpu::{Memory, Region, Schedule, Target};
use radiograd::graph::{Graph, NodeId};
use radiograd::ops::{LowerCx, Op};

/// The adapters that a plan is made for: kinds, subgroups, and the largest buffer.
fn targets(largest: u64) -> Vec<Target> {
    let room = Target::unlimited(AdapterKind::Discrete);
    vec![
        room,
        Target { subgroup: Some(32), ..room },
        Target { subgroup: Some(8), kind: AdapterKind::Software, ..room },
        Target { kind: AdapterKind::Integrated, max_buffer_bytes: 2 * largest.next_multiple_of(ALIGN), ..room },
        Target { kind: AdapterKind::Software, max_buffer_bytes: largest.next_multiple_of(ALIGN), ..room },
    ]
}

/// Plans for several adapters; how many pairs of regions were looked at.
pub fn check(graph: &Arc<Graph>, roots: &[NodeId]) -> Result<usize, String> {
    let largest = graph.nodes().iter().map(|n| n.spec.bytes() as u64).max().unwrap_or(4);
    let mut pairs = 0;
    for target in targets(largest) {
        for guards in [false, true] {
            let mut pick = |op: &dyn Op, cx: &LowerCx<'_>, supported: &[&'static str]| choose(op, cx, supported);
            let schedule = Schedule::new(&target, guards, &mut pick, graph, roots).map_err(|e| e.to_string())?;
            let what = |e: String| format!("{target:?}, guards {guards}: {e}");
            pairs += of_schedule(&schedule, graph, roots, guards).map_err(what)?;
        }
    }
    Ok(pairs)
}

/// Where the values lie.
type Homes<'a> = HashMap<NodeId, &'a Region>;

/// The first and the last dispatch that need a region.
type Life = (usize, usize);

fn of_schedule(schedule: &Schedule, graph: &Graph, roots: &[NodeId], guards: bool) -> Result<usize, String> {
    let steps: Vec<NodeId> = schedule.variants().into_iter().map(|(node, _)| node).collect();
    let regions = schedule.regions(graph);
    let homes: Homes<'_> = regions.iter().filter(|r| r.scratch.is_none()).map(|r| (r.node, r)).collect();
    let lives = lives(graph, roots, &steps, &homes);
    let mut pairs = 0;
    for (i, a) in regions.iter().enumerate() {
        if let Memory::Planned(_) = a.memory
            && a.offset % ALIGN != 0
        {
            return Err(format!("{a:?} does not lie at a multiple of {ALIGN}"));
        }
        if a.offset + a.bytes > schedule.buffer_bytes(a.memory) {
            return Err(format!("{a:?} reaches past its buffer of {} bytes", schedule.buffer_bytes(a.memory)));
        }
        for b in &regions[..i] {
            if a.memory != b.memory || belong(graph, a, b) {
                continue;
            }
            pairs += 1;
            let (p, q) = (life(&lives, a, &steps)?, life(&lives, b, &steps)?);
            let together = guards || p.0 <= q.1 && q.0 <= p.1;
            if together && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes {
                return Err(format!("{a:?}, needed in {p:?}, and {b:?}, needed in {q:?}, overlap"));
            }
        }
    }
    // Every value that is read has a home, and what is packed lies where the pack says, unless it is copied there.
    for &id in &steps {
        let node = graph.node(id);
        for (k, &input) in node.inputs().iter().enumerate() {
            let source = owner(graph, input);
            let computed = graph.node(source).op().is_some();
            let Some(home) = homes.get(&source) else {
                if computed {
                    return Err(format!("{} reads {}, which lies nowhere", graph.describe(id), graph.describe(source)));
                }
                continue;
            };
            if home.bytes < graph.spec(input).bytes() as u64 {
                return Err(format!("{} reads more of {home:?} than there is: input {k}", graph.describe(id)));
            }
        }
    }
    for pack in graph.ids().filter(|id| homes.contains_key(id) && offsets(graph, *id).is_some()) {
        let (copied, steps) = (copied(graph, pack, &homes).len(), steps.iter().filter(|&&s| s == pack).count());
        if copied != steps {
            let name = graph.describe(pack);
            return Err(format!("{name}: {copied} inputs do not lie in place, and {steps} are copied"));
        }
    }
    Ok(pairs)
}

fn offsets(graph: &Graph, id: NodeId) -> Option<&[usize]> {
    graph.node(id).op()?.packs()
}

/// The inputs of a pack that are not computed where the pack has them, in order.
fn copied(graph: &Graph, pack: NodeId, homes: &Homes<'_>) -> Vec<NodeId> {
    let offsets = offsets(graph, pack).unwrap_or_default();
    let inputs = graph.node(pack).inputs().iter().map(|&i| owner(graph, i)).zip(offsets);
    let mut in_place = Vec::new();
    inputs
        .filter(|&(source, &at)| {
            let lies = homes.get(&source).zip(homes.get(&pack)).is_some_and(|(home, pack)| {
                source != pack.node && home.memory == pack.memory && home.offset == pack.offset + 4 * at as u64
            });
            let first = lies && !in_place.contains(&source);
            in_place.extend(first.then_some(source));
            !first
        })
        .map(|(source, _)| source)
        .collect()
}

/// Whether two regions are one thing: a view and what it looks at, or a pack and what is computed in it.
fn belong(graph: &Graph, a: &Region, b: &Region) -> bool {
    if a.scratch.is_some() || b.scratch.is_some() {
        return false;
    }
    let (x, y) = (owner(graph, a.node), owner(graph, b.node));
    let inside = |pack: NodeId, part: NodeId| {
        offsets(graph, pack).is_some() && graph.node(pack).inputs().iter().any(|&i| owner(graph, i) == part)
    };
    x == y || inside(x, y) || inside(y, x)
}

/// What a node is a view of, in the end.
fn owner(graph: &Graph, mut id: NodeId) -> NodeId {
    while graph.node(id).op().is_some_and(|op| op.is_view()) {
        id = graph.node(id).inputs()[0];
    }
    id
}

/// For each value that is computed the steps from its writing to its last reading; a root's has no end.
fn lives(graph: &Graph, roots: &[NodeId], steps: &[NodeId], homes: &Homes<'_>) -> HashMap<NodeId, Life> {
    let mut copies: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    let mut lives: HashMap<NodeId, Life> = HashMap::new();
    let companions = |id: NodeId| {
        graph.ids().filter(move |&c| {
            let node = graph.node(c);
            node.op().is_some_and(|op| op.companion()) && node.inputs()[0] == id
        })
    };
    for (at, &id) in steps.iter().enumerate() {
        if offsets(graph, id).is_some() {
            // Each step of a pack copies one of its inputs.
            let rest = copies.entry(id).or_insert_with(|| copied(graph, id, homes).into_iter().rev().collect());
            if let Some(source) = rest.pop() {
                lives.entry(source).and_modify(|life| life.1 = at);
            }
            continue;
        }
        for id in companions(id).chain([id]) {
            let life = lives.entry(id).or_insert((at, at));
            life.1 = life.1.max(at);
            for &input in graph.node(id).inputs() {
                lives.entry(owner(graph, input)).and_modify(|life| life.1 = life.1.max(at));
            }
        }
    }
    for root in roots {
        lives.entry(owner(graph, *root)).and_modify(|life| life.1 = usize::MAX);
    }
    lives
}

fn life(lives: &HashMap<NodeId, Life>, region: &Region, steps: &[NodeId]) -> Result<Life, String> {
    if region.scratch.is_some() {
        let at = steps.iter().position(|&s| s == region.node).ok_or("scratch of what does not run")?;
        return Ok((at, at));
    }
    // What is packed must stay as long as the pack, and packs stay.
    if let Memory::Packed(_) = region.memory {
        return Ok((0, usize::MAX));
    }
    lives.get(&region.node).copied().ok_or_else(|| format!("{region:?} is of a value that nothing computes"))
}
