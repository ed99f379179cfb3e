//! `conv2d_block`: a convolution with ReLU, or with ReLU and a 2x2 max-pool, in one kernel.
//!
//! `y = relu(conv2d(x, w, b))`, or `y = max_pool2d(relu(conv2d(x, w, b)), 2)`. The result of the convolution is never written
//! to memory: that write, and the passes that read it again, cost more than the ReLU and the pooling themselves.
//!
//! Nobody records these ops by hand: the fusion pass ([`crate::fuse`]) puts them where a graph holds the separate ones.
//!
//! The gradients need to know which pixels `dy` goes back to, the *gate*: with ReLU alone, where `y > 0`; with the pool, the
//! winner of each window, which the forward kernel writes beside `y` ([`Codes`], a companion): four bits a window, four
//! windows of a row to a word, 0 to 3 the winner in reading order, 4 where ReLU let nothing through. `dx`, `dw` and `db` are
//! those of `conv2d` with `dy` sent through the gate, in the loads of their kernels.
//!
//! Kernels: `plain` writes the convolution's result after all and composes the plain kernels of the parts; the others fuse.

mod reference;
mod samples;

pub use samples::samples;

use super::conv2d::{self, Conv2d, Geometry};
use super::{LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::gpu::conv::{self, Epilogue, Gate};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::shape::{DType, ShapeError, Spec, arity, image};

/// What follows the convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Post {
    /// ReLU.
    Relu,
    /// ReLU and a max-pool of windows 2x2 side by side.
    ReluMaxPool,
}

/// The block itself: `(x, w[, b]) -> y`.
#[derive(Clone, Debug)]
pub struct Block {
    /// The convolution.
    pub conv: Conv2d,
    /// What follows it.
    pub post: Post,
}

/// The winners of the pool's windows: `(y, x, w[, b]) -> u32 [N, O, H / 2, ceil(W / 8)]`, `H` and `W` the convolution's
/// output. A companion of the block.
#[derive(Clone, Debug)]
pub struct Codes(pub Block);

/// `dx` from `(dy, gate, w)`.
#[derive(Clone, Debug)]
pub struct InputGrad {
    /// The block.
    pub block: Block,
    /// Height and width of x.
    pub input: [usize; 2],
}

/// `dw` from `(x, dy, gate)`.
#[derive(Clone, Debug)]
pub struct WeightGrad {
    /// The block.
    pub block: Block,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Height and width of the convolution's output.
    pub output: [usize; 2],
}

/// `db [O, 1, 1]` from `(dy, gate)`.
#[derive(Clone, Debug)]
pub struct BiasGrad(pub Post);

const SPLIT: &str = "split";

impl Block {
    fn gate(&self) -> Gate {
        match self.post {
            Post::Relu => Gate::Relu,
            Post::ReluMaxPool => Gate::Pool,
        }
    }

    fn epilogue(&self, codes: bool) -> Epilogue {
        match self.post {
            Post::Relu => Epilogue::Relu,
            Post::ReluMaxPool => Epilogue::Pool { codes },
        }
    }
}

impl Op for Block {
    fn name(&self) -> &'static str {
        match self.post {
            Post::Relu => "conv2d_relu",
            Post::ReluMaxPool => "conv2d_relu_max_pool2d",
        }
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        let spec = self.conv_spec(inputs)?;
        match self.post {
            Post::Relu => Ok(spec),
            Post::ReluMaxPool if spec.shape[2] < 2 || spec.shape[3] < 2 => {
                Err(ShapeError::invalid(self.name(), "needs at least one window of 2x2", &spec))
            }
            Post::ReluMaxPool => Ok(Spec::float([spec.shape[0], spec.shape[1], spec.shape[2] / 2, spec.shape[3] / 2])),
        }
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let gate = match self.post {
            Post::Relu => cx.output,
            Post::ReluMaxPool => {
                let mut inputs = vec![cx.output];
                inputs.extend(cx.inputs);
                g.apply(Codes(self.clone()), &inputs)?
            }
        };
        let (x, w) = (cx.inputs[0], cx.inputs[1]);
        let specs: Vec<Spec> = cx.inputs.iter().map(|&i| g.spec(i).clone()).collect();
        let spec = self.conv_spec(&specs.iter().collect::<Vec<_>>())?;
        let (input, kernel) = ([2, 3].map(|a| specs[0].shape[a]), [2, 3].map(|a| specs[1].shape[a]));
        let output = [2, 3].map(|a| spec.shape[a]);
        let mut grads = vec![None; cx.inputs.len()];
        if cx.needs[0] {
            grads[0] = Some(g.apply(InputGrad { block: self.clone(), input }, &[cx.dy, gate, w])?);
        }
        if cx.needs[1] {
            grads[1] = Some(g.apply(WeightGrad { block: self.clone(), kernel, output }, &[x, cx.dy, gate])?);
        }
        if cx.needs.get(2) == Some(&true) {
            let db = g.apply(BiasGrad(self.post), &[cx.dy, gate])?;
            grads[2] = Some(g.reshape(db, &specs[2].shape)?);
        }
        Ok(grads)
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let shape = self.geometry(cx).shape(cx.inputs.len() == 3);
        conv::supported_block(conv::Block::Forward(self.epilogue(false)), &shape, cx.subgroup)
    }

    fn facts(&self, cx: &LowerCx) -> Vec<(&'static str, u64)> {
        self.geometry(cx).shape(cx.inputs.len() == 3).facts()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = self.geometry(cx);
        let bias = cx.inputs.len() == 3;
        if cx.variant != PLAIN {
            let block = conv::Block::Forward(self.epilogue(cx.companion));
            return conv::lower_block(block, cx.variant, &g.shape(bias), cx.subgroup);
        }
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Input(if bias { 2 } else { 1 }), Arg::Scratch(0)];
        let spec = self.conv_spec(cx.inputs).expect("the shape rule has passed");
        let mut lowering = conv2d::plain("forward", spec.numel(), args, &g, bias);
        let mut consts = plane_consts(&g);
        let codes = cx.companion && self.post == Post::ReluMaxPool;
        consts.push(("CODES", Const::B(codes)));
        let (entry, count) = match self.post {
            Post::Relu => ("relu", cx.output.numel()),
            Post::ReluMaxPool => ("relu_max_pool", g.n * g.c_out * (g.out[0] / 2) * (g.out[1] / 2).div_ceil(4)),
        };
        let mut args = vec![Arg::Scratch(0), Arg::Output];
        if codes {
            args.push(Arg::Companion);
        }
        lowering.dispatches.push(Dispatch::elementwise("conv2d_block.wgsl", entry, count, args, consts));
        lowering.scratch = vec![spec.numel()];
        lowering
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        let spec = self.conv_spec(inputs).expect("the shape rule has passed");
        conv2d::Forward(self.conv.clone()).flops(inputs, &spec) + 2 * spec.numel() as u64
    }

    fn detail(&self) -> String {
        self.conv.to_string()
    }
}

impl Block {
    fn geometry(&self, cx: &LowerCx) -> Geometry {
        let spec = self.conv_spec(cx.inputs).expect("the shape rule has passed");
        Geometry::of(&self.conv, cx.inputs[0], cx.inputs[1], &spec)
    }
}

/// Sizes of the convolution's output.
fn plane_consts(g: &Geometry) -> Vec<(&'static str, Const)> {
    let planes = g.n * g.c_out;
    [("PLANES", planes), ("H", g.out[0]), ("W", g.out[1])].map(|(name, v)| (name, Const::U(v as u32))).to_vec()
}

impl Op for Codes {
    fn name(&self) -> &'static str {
        "max_pool2d_codes"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        let Some((y, inputs)) = inputs.split_first() else {
            return Err(ShapeError::Arity { op: self.name(), expected: 3, got: 0 });
        };
        if self.0.infer(inputs)? != **y {
            return Err(ShapeError::mismatch(self.name(), "the first input must be the block's output", y, inputs[0]));
        }
        Ok(Spec::u32([y.shape[0], y.shape[1], y.shape[2], y.shape[3].div_ceil(4)]))
    }

    fn differentiable(&self, _: usize) -> bool {
        false
    }

    fn companion(&self) -> bool {
        true
    }

    fn lower(&self, _: &LowerCx) -> Lowering {
        Lowering::default()
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }
}

/// The gate that these gradients must get for `dy`.
fn check_gate(op: &'static str, post: Post, dy: &Spec, gate: &Spec) -> Result<(), ShapeError> {
    let [n, c, h, w] = image(op, dy)?;
    let (expected, what) = match post {
        Post::Relu => (dy.clone(), "the gate must be the activation, shaped like its gradient"),
        Post::ReluMaxPool => (Spec::u32([n, c, h, w.div_ceil(4)]), "the gate must be the codes of the pool"),
    };
    if expected == *gate { Ok(()) } else { Err(ShapeError::mismatch(op, what, gate, dy)) }
}

/// The plain gradients: `dy` sent through the gate into scratch, then the plain kernel of the convolution.
fn through_gate(
    post: Post,
    g: &Geometry,
    entry: &'static str,
    count: usize,
    [dy, gate, other]: [usize; 3],
) -> Lowering {
    let opened = g.n * g.c_out * g.out[0] * g.out[1];
    let name = match post {
        Post::Relu => "open_relu",
        Post::ReluMaxPool => "open_max_pool",
    };
    let args = vec![Arg::Input(dy), Arg::Input(gate), Arg::Scratch(0)];
    let open = Dispatch::elementwise("conv2d_block.wgsl", name, opened, args, plane_consts(g));
    let args = match entry {
        "grad_input" => vec![Arg::Scratch(0), Arg::Input(other), Arg::Output],
        _ => vec![Arg::Input(other), Arg::Scratch(0), Arg::Output],
    };
    let mut lowering = conv2d::plain(entry, count, args, g, false);
    lowering.dispatches.insert(0, open);
    lowering.scratch = vec![opened];
    lowering
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "conv2d_block_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 3)?;
        check_gate(self.name(), self.block.post, inputs[0], inputs[1])?;
        image(self.name(), inputs[2])?;
        self.part().infer(&[&self.conv_spec(inputs[0], inputs[2]), inputs[2]])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let block = conv::Block::InputGrad(self.block.gate());
        conv::supported_block(block, &self.geometry(cx).shape(false), cx.subgroup)
    }

    fn facts(&self, cx: &LowerCx) -> Vec<(&'static str, u64)> {
        self.geometry(cx).shape(false).facts()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = self.geometry(cx);
        if cx.variant != PLAIN {
            let block = conv::Block::InputGrad(self.block.gate());
            return conv::lower_block(block, cx.variant, &g.shape(false), cx.subgroup);
        }
        through_gate(self.block.post, &g, "grad_input", cx.output.numel(), [0, 1, 2])
    }

    fn flops(&self, inputs: &[&Spec], output: &Spec) -> u64 {
        self.part().flops(&[&self.conv_spec(inputs[0], inputs[2]), inputs[2]], output)
    }

    fn detail(&self) -> String {
        self.block.conv.to_string()
    }
}

impl InputGrad {
    fn geometry(&self, cx: &LowerCx) -> Geometry {
        Geometry::of(&self.block.conv, cx.output, cx.inputs[2], &self.conv_spec(cx.inputs[0], cx.inputs[2]))
    }
}

impl Op for WeightGrad {
    fn name(&self) -> &'static str {
        "conv2d_block_weight_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 3)?;
        check_gate(self.name(), self.block.post, inputs[1], inputs[2])?;
        self.part().infer(&[inputs[0], &self.conv_spec(inputs[1])])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let block = conv::Block::WeightGrad(self.block.gate());
        conv::supported_block(block, &self.geometry(cx).shape(false), cx.subgroup)
    }

    fn facts(&self, cx: &LowerCx) -> Vec<(&'static str, u64)> {
        self.geometry(cx).shape(false).facts()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = self.geometry(cx);
        if cx.variant != PLAIN {
            let block = conv::Block::WeightGrad(self.block.gate());
            return conv::lower_block(block, cx.variant, &g.shape(false), cx.subgroup);
        }
        through_gate(self.block.post, &g, "grad_weight", cx.output.numel(), [1, 2, 0])
    }

    fn flops(&self, inputs: &[&Spec], output: &Spec) -> u64 {
        self.part().flops(&[inputs[0], &self.conv_spec(inputs[1])], output)
    }

    fn detail(&self) -> String {
        self.block.conv.to_string()
    }
}

impl WeightGrad {
    fn geometry(&self, cx: &LowerCx) -> Geometry {
        Geometry::of(&self.block.conv, cx.inputs[0], cx.output, &self.conv_spec(cx.inputs[1]))
    }
}

impl Op for BiasGrad {
    fn name(&self) -> &'static str {
        "conv2d_block_bias_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        check_gate(self.name(), self.0, inputs[0], inputs[1])?;
        Ok(Spec { shape: [inputs[0].shape[1], 1, 1].into(), dtype: DType::Float })
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        // One invocation walks over a plane.
        let plane = cx.inputs[0].shape[2] * cx.inputs[0].shape[3];
        if (1..=crate::gpu::lower::MAX_TURNS).contains(&plane) { vec![PLAIN, SPLIT] } else { vec![PLAIN] }
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let [n, c, h, w] = [0, 1, 2, 3].map(|a| cx.inputs[0].shape[a]);
        let u = |v: usize| Const::U(v as u32);
        let consts = vec![
            ("N", u(n)),
            ("C", u(c)),
            ("H_D", u(h)),
            ("W_D", u(w)),
            ("POOL", Const::B(self.0 == Post::ReluMaxPool)),
            ("VEC", Const::B(cx.variant == SPLIT && w.is_multiple_of(4))),
        ];
        let page = "conv2d_block_bias_grad.wgsl";
        if cx.variant == SPLIT {
            let args = vec![Arg::Input(0), Arg::Input(1), Arg::Scratch(0)];
            let planes = Dispatch::elementwise(page, "planes", n * c, args, consts);
            return Lowering { dispatches: vec![planes, Dispatch::sum_partials(c, n)], scratch: vec![n * c] };
        }
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Output];
        let all = Dispatch::elementwise(page, "channels", c, args, consts);
        Lowering { dispatches: crate::gpu::lower::in_series(all, n * h, w), scratch: Vec::new() }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        inputs[0].numel() as u64
    }
}

impl Graph {
    /// Convolution, ReLU and (with [`Post::ReluMaxPool`]) a 2x2 max-pool in one op.
    ///
    /// # Errors
    /// As [`Graph::conv2d`]; with the pool, an output smaller than one window.
    pub fn conv2d_block(
        &mut self,
        x: NodeId,
        w: NodeId,
        bias: Option<NodeId>,
        conv: Conv2d,
        post: Post,
    ) -> Result<NodeId, ShapeError> {
        let mut inputs = vec![x, w];
        inputs.extend(bias);
        self.apply(Block { conv, post }, &inputs)
    }
}
