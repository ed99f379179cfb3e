//! The fusion pass: rewrites a recorded graph so that one kernel does what several did.
//!
//! | recorded | becomes |
//! |---|---|
//! | `conv2d`, `relu`, `max_pool2d` 2x2 | one [`Block`] |
//! | `conv2d`, `relu` | one [`Block`] |
//! | the gradients of pool and ReLU, then `dx`, `dw`, `db` of the convolution | `dx`, `dw`, `db` that go through the gate themselves |
//!
//! A chain is fused only where nothing else reads what lies between, where it is recorded with 2x2 windows side by side, and
//! where the executor has a fast kernel for each fused op at these shapes (`wanted`). All else is kept as it was recorded. The
//! result computes the same: `tests/fusion.rs` holds both side by side.

use std::any::Any;
use std::sync::Arc;

use crate::graph::{Graph, Node, NodeId, Pass, Source};
use crate::ops::Op;
use crate::ops::conv2d::{self, Conv2d};
use crate::ops::conv2d_block::{BiasGrad, Block, Codes, InputGrad, Post, WeightGrad};
use crate::ops::max_pool2d::{self, Pool2d};
use crate::ops::pointwise::{Pointwise, PointwiseGrad};
use crate::ops::sum_to::SumTo;
use crate::shape::{Shape, Spec};

/// A rewritten graph.
#[derive(Clone, Debug)]
pub struct Fused {
    /// The graph.
    pub graph: Graph,
    /// For each node of the old graph its place in the new one; `None` for what lies inside a fused kernel.
    pub places: Vec<Option<NodeId>>,
    /// How many chains were fused.
    pub chains: usize,
}

/// A chain that was found.
struct Chain {
    post: Post,
    conv: Conv2d,
    /// Where the convolution is, and the last node of the forward chain.
    conv_node: NodeId,
    end: NodeId,
    /// The gradient that enters the chain from above, if there is a backward pass.
    dy: Option<NodeId>,
    /// Nodes that go: they lie inside the fused kernels.
    inner: Vec<NodeId>,
    /// Gradients to be replaced.
    grads: Vec<(NodeId, Grad)>,
}

enum Grad {
    Input(InputGrad),
    Weight(WeightGrad),
    Bias(BiasGrad),
}

impl Grad {
    fn op(&self) -> Arc<dyn Op> {
        match self {
            Self::Input(op) => Arc::new(op.clone()),
            Self::Weight(op) => Arc::new(op.clone()),
            Self::Bias(op) => Arc::new(op.clone()),
        }
    }
}

/// Fuses what can be fused in `graph`, of which `roots` and all updates are wanted. `wanted(op, inputs, output)` says whether
/// the executor has a kernel for a fused op that is worth it. `None` where nothing was found.
#[must_use]
pub fn fuse(graph: &Graph, roots: &[NodeId], wanted: impl Fn(&dyn Op, &[&Spec], &Spec) -> bool) -> Option<Fused> {
    let users = Users::of(graph, roots);
    let chains: Vec<Chain> =
        graph.ids().filter_map(|id| users.chain(id)).filter(|c| c.wanted(graph, &wanted)).collect();
    if chains.is_empty() { None } else { Some(rewrite(graph, &chains)) }
}

/// Who reads each node, among those that run.
struct Users<'a> {
    graph: &'a Graph,
    of: Vec<Vec<NodeId>>,
    root: Vec<bool>,
}

impl<'a> Users<'a> {
    fn of(graph: &'a Graph, roots: &[NodeId]) -> Self {
        let live = graph.live(roots);
        let mut of = vec![Vec::new(); graph.nodes().len()];
        for id in graph.ids().filter(|id| live[id.index()]) {
            for input in graph.node(id).inputs() {
                of[input.index()].push(id);
            }
        }
        let mut root = vec![false; graph.nodes().len()];
        for id in roots {
            root[id.index()] = true;
        }
        Self { graph, of, root }
    }

    fn op<T: Op>(&self, id: NodeId) -> Option<&'a T> {
        let op: &dyn Any = self.graph.node(id).op()?.as_ref();
        op.downcast_ref()
    }

    fn inputs(&self, id: NodeId) -> &'a [NodeId] {
        self.graph.node(id).inputs()
    }

    /// The readers of a node that nobody outside asks for.
    fn private(&self, id: NodeId) -> Option<&[NodeId]> {
        if self.root[id.index()] { None } else { Some(&self.of[id.index()]) }
    }

    fn is_relu(&self, id: NodeId) -> bool {
        self.op::<Pointwise>(id).is_some_and(Pointwise::is_relu)
    }

    /// The ReLU gradient by activation `y`, among the readers of `id`.
    fn relu_grad(&self, id: NodeId, y: NodeId) -> bool {
        self.op::<PointwiseGrad>(id).is_some_and(|p| p.0.is_relu()) && self.inputs(id)[0] == y
    }

    /// The chain that begins with the convolution `conv_node`.
    fn chain(&self, conv_node: NodeId) -> Option<Chain> {
        let conv = self.op::<conv2d::Forward>(conv_node)?.0.clone();
        let &[relu] = self.private(conv_node)? else { return None };
        if !self.is_relu(relu) {
            return None;
        }
        self.with_pool(conv_node, &conv, relu).or_else(|| self.with_relu(conv_node, &conv, relu))
    }

    fn with_pool(&self, conv_node: NodeId, conv: &Conv2d, relu: NodeId) -> Option<Chain> {
        let readers = self.private(relu)?;
        let square = Pool2d::square(2);
        let is_pool = |id: &NodeId| self.op::<max_pool2d::Forward>(*id).is_some_and(|p| p.0 == square);
        let &end = readers.iter().find(|id| is_pool(id))?;
        let rest: Vec<NodeId> = readers.iter().copied().filter(|&id| id != end).collect();
        let mut chain = Chain {
            post: Post::ReluMaxPool,
            conv: conv.clone(),
            conv_node,
            end,
            dy: None,
            inner: vec![conv_node, relu],
            grads: Vec::new(),
        };
        match rest[..] {
            [] => Some(chain),
            [a, b] => {
                let (pool_grad, relu_grad) = if self.relu_grad(b, relu) { (a, b) } else { (b, a) };
                let pool = self.op::<max_pool2d::InputGrad>(pool_grad)?.0;
                let chained = self.relu_grad(relu_grad, relu) && self.inputs(relu_grad)[1] == pool_grad;
                if pool != square
                    || !chained
                    || self.inputs(pool_grad)[0] != relu
                    || self.private(pool_grad)?.len() != 1
                {
                    return None;
                }
                chain.dy = Some(self.inputs(pool_grad)[1]);
                chain.inner.extend([pool_grad, relu_grad]);
                self.gradients(&mut chain, relu_grad)?;
                Some(chain)
            }
            _ => None,
        }
    }

    fn with_relu(&self, conv_node: NodeId, conv: &Conv2d, relu: NodeId) -> Option<Chain> {
        let mut chain = Chain {
            post: Post::Relu,
            conv: conv.clone(),
            conv_node,
            end: relu,
            dy: None,
            inner: vec![conv_node],
            grads: Vec::new(),
        };
        let grads: Vec<NodeId> = self.of[relu.index()].iter().copied().filter(|&id| self.relu_grad(id, relu)).collect();
        match grads[..] {
            [] => Some(chain),
            [grad] if self.inputs(grad)[1] != relu => {
                chain.dy = Some(self.inputs(grad)[1]);
                chain.inner.push(grad);
                self.gradients(&mut chain, grad)?;
                Some(chain)
            }
            _ => None,
        }
    }

    /// Notes what reads the gradient `d` of the convolution's output; `None` if it is anything but the three gradients.
    fn gradients(&self, chain: &mut Chain, d: NodeId) -> Option<()> {
        let block = Block { conv: chain.conv.clone(), post: chain.post };
        let output = [2, 3].map(|a| self.graph.spec(chain.conv_node).shape[a]);
        let channels = self.graph.spec(chain.conv_node).shape[1];
        for &id in self.private(d)? {
            let inputs = self.inputs(id);
            let grad = if let Some(op) = self.op::<conv2d::InputGrad>(id) {
                (inputs[0] == d && inputs[1] != d)
                    .then(|| Grad::Input(InputGrad { block: block.clone(), input: op.input }))
            } else if let Some(op) = self.op::<conv2d::WeightGrad>(id) {
                let grad = WeightGrad { block: block.clone(), kernel: op.kernel, output };
                (inputs[1] == d && inputs[0] != d).then_some(Grad::Weight(grad))
            } else if let Some(op) = self.op::<SumTo>(id) {
                (op.0 == Shape::from([channels, 1, 1])).then_some(Grad::Bias(BiasGrad(chain.post)))
            } else {
                None
            };
            chain.grads.push((id, grad?));
        }
        Some(())
    }
}

impl Chain {
    fn block(&self) -> Block {
        Block { conv: self.conv.clone(), post: self.post }
    }

    /// Whether the executor wants all the ops that would come of it.
    fn wanted(&self, graph: &Graph, wanted: &impl Fn(&dyn Op, &[&Spec], &Spec) -> bool) -> bool {
        let specs = |ids: &[NodeId]| ids.iter().map(|&i| graph.spec(i)).collect::<Vec<_>>();
        let block = self.block();
        let inputs = specs(graph.node(self.conv_node).inputs());
        let gate = match self.gate_spec(graph) {
            Some(spec) => spec,
            None => return false,
        };
        let fits = |op: &dyn Op, inputs: &[&Spec], output: &Spec| {
            op.infer(inputs).is_ok_and(|spec| spec == *output) && wanted(op, inputs, output)
        };
        fits(&block, &inputs, graph.spec(self.end))
            && self.grads.iter().all(|(id, grad)| {
                let Some(dy) = self.dy.map(|d| graph.spec(d)) else { return false };
                let own = specs(graph.node(*id).inputs());
                let inputs = match grad {
                    Grad::Input(_) => vec![dy, &gate, own[1]],
                    Grad::Weight(_) => vec![own[0], dy, &gate],
                    Grad::Bias(_) => vec![dy, &gate],
                };
                fits(grad.op().as_ref(), &inputs, graph.spec(*id))
            })
    }

    fn gate_spec(&self, graph: &Graph) -> Option<Spec> {
        let y = graph.spec(self.end);
        match self.post {
            Post::Relu => Some(y.clone()),
            Post::ReluMaxPool => {
                let mut inputs = vec![y];
                inputs.extend(graph.node(self.conv_node).inputs().iter().map(|&i| graph.spec(i)));
                Codes(self.block()).infer(&inputs).ok()
            }
        }
    }
}

fn rewrite(graph: &Graph, chains: &[Chain]) -> Fused {
    let mut out = Graph::new();
    let mut places: Vec<Option<NodeId>> = vec![None; graph.nodes().len()];
    let mut gates: Vec<Option<NodeId>> = vec![None; chains.len()];
    for id in graph.ids() {
        let node = graph.node(id);
        if chains.iter().any(|c| c.inner.contains(&id)) {
            continue;
        }
        let place = |places: &[Option<NodeId>], i: NodeId| places[i.index()].expect("what is read was kept");
        if let Some((k, chain)) = chains.iter().enumerate().find(|(_, c)| c.end == id) {
            let inputs: Vec<NodeId> = graph.node(chain.conv_node).inputs().iter().map(|&i| place(&places, i)).collect();
            let scope = graph.node(chain.conv_node).scope.clone();
            let mut add = |op: Arc<dyn Op>, inputs: Vec<NodeId>, spec: Spec| {
                let source = Source::Op { op, inputs };
                out.add_node(Node { source, spec, scope: scope.clone(), pass: Pass::Forward })
            };
            let y = add(Arc::new(chain.block()), inputs.clone(), node.spec.clone());
            places[id.index()] = Some(y);
            gates[k] = Some(y);
            if chain.post == Post::ReluMaxPool && !chain.grads.is_empty() {
                let mut all = vec![y];
                all.extend(inputs);
                let spec = chain.gate_spec(graph).expect("it was inferred before");
                gates[k] = Some(add(Arc::new(Codes(chain.block())), all, spec));
            }
            continue;
        }
        let found = chains
            .iter()
            .enumerate()
            .find_map(|(k, c)| c.grads.iter().find(|(at, _)| *at == id).map(|(_, grad)| (gates[k], c.dy, grad)));
        let source = match (&node.source, found) {
            (_, Some((Some(gate), Some(dy), grad))) => {
                let dy = place(&places, dy);
                let own = node.inputs();
                let inputs = match grad {
                    Grad::Input(_) => vec![dy, gate, place(&places, own[1])],
                    Grad::Weight(_) => vec![place(&places, own[0]), dy, gate],
                    Grad::Bias(_) => vec![dy, gate],
                };
                Source::Op { op: grad.op(), inputs }
            }
            // What reads a dropped node and does not run is dropped with it.
            (Source::Op { inputs, .. }, _) if inputs.iter().any(|i| places[i.index()].is_none()) => continue,
            (Source::Op { op, inputs }, _) => {
                let inputs = inputs.iter().map(|&i| place(&places, i)).collect();
                Source::Op { op: Arc::clone(op), inputs }
            }
            (other, _) => other.clone(),
        };
        let copy = Node { source, spec: node.spec.clone(), scope: node.scope.clone(), pass: node.pass };
        places[id.index()] = Some(out.add_node(copy));
    }
    Fused { graph: out, places, chains: chains.len() }
}
