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

use super::conv2d::{self, Conv2d, Geometry};
use super::sample::{Fill, Sample, filled, x};
use super::{Array, Eval, Kernel, LowerCx, Op, PLAIN, View};
use crate::autodiff::Backward;
use crate::gpu::conv::{self, Epilogue, Gate};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
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

/// The code of a window through which nothing goes back.
const SHUT: u32 = 4;
const SPLIT: &str = "split";

impl Block {
    /// The convolution's output.
    fn conv_spec(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        conv2d::Forward(self.conv.clone()).infer(inputs)
    }

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

    /// The convolution by its reference, from inputs `first..` of a kernel.
    fn convolved<T: Real>(&self, cx: &Eval<'_, T>, first: usize) -> (Vec<T>, Spec) {
        let spec = self.conv_spec(&cx.specs[first..]).expect("the shape rule has passed");
        let op = conv2d::Forward(self.conv.clone());
        (part(&op, &cx.inputs[first..], &cx.specs[first..], &spec, cx.fast), spec)
    }
}

/// Runs the reference of another op.
fn part<T: Real>(op: &impl Kernel<T>, inputs: &[View<'_, T>], specs: &[&Spec], out_spec: &Spec, fast: bool) -> Vec<T> {
    let mut out = Array::zeros(out_spec);
    op.eval(&mut Eval { inputs, specs, out_spec, out: &mut out, state: &mut [], fast });
    match out {
        Array::Float(v) => v,
        _ => unreachable!("a convolution gives floats"),
    }
}

fn relu<T: Real>(v: T) -> T {
    if v <= T::zero() { T::zero() } else { v }
}

/// Calls `f(window, winner's value, its position 0 to 3)` for each 2x2 window of planes `[h, w]`, after ReLU.
fn each_window<T: Real>(values: &[T], [h, w]: [usize; 2], mut f: impl FnMut(usize, T, u32)) {
    let mut window = 0;
    for plane in values.chunks((h * w).max(1)) {
        for i in 0..h / 2 {
            for j in 0..w / 2 {
                let at = |k: usize| relu(plane[(2 * i + k / 2) * w + 2 * j + k % 2]);
                let mut best = 0;
                for k in 1..4 {
                    if at(k) > at(best) || at(k).is_nan() {
                        best = k;
                    }
                }
                f(window, at(best), best as u32);
                window += 1;
            }
        }
    }
}

impl<T: Real> Kernel<T> for Block {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (values, spec) = self.convolved(cx, 0);
        let y = cx.out();
        match self.post {
            Post::Relu => y.iter_mut().zip(&values).for_each(|(y, &v)| *y = relu(v)),
            Post::ReluMaxPool => each_window(&values, [spec.shape[2], spec.shape[3]], |i, v, _| y[i] = v),
        }
    }
}

impl<T: Real> Kernel<T> for Codes {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (values, spec) = self.0.convolved(cx, 1);
        let [h, w] = [spec.shape[2], spec.shape[3]];
        let (pooled, words) = (w / 2, (w / 2).div_ceil(4));
        let out = cx.out_u32();
        out.fill(0);
        each_window(&values, [h, w], |i, v, winner| {
            let code = if v <= T::zero() { SHUT } else { winner };
            out[i / pooled * words + i % pooled / 4] |= code << (i % pooled % 4 * 4);
        });
    }
}

/// `dy` sent through the gate to the convolution's output `[h, w]`.
fn opened<T: Real>(cx: &Eval<'_, T>, dy: usize, post: Post, [h, w]: [usize; 2]) -> Vec<T> {
    let values = cx.float(dy);
    match post {
        Post::Relu => {
            let open = |(&d, &y): (&T, &T)| if y <= T::zero() { T::zero() } else { d };
            values.iter().zip(cx.float(dy + 1)).map(open).collect()
        }
        Post::ReluMaxPool => {
            let codes = cx.u32(dy + 1);
            let (rows, pooled, words) = (h / 2, w / 2, (w / 2).div_ceil(4));
            let planes = cx.specs[dy].shape[0] * cx.specs[dy].shape[1];
            let mut out = vec![T::zero(); planes * h * w];
            for (i, &d) in values.iter().enumerate() {
                let (line, j) = (i / pooled, i % pooled);
                let code = codes[line * words + j / 4] >> (j % 4 * 4) & 7;
                if code < SHUT {
                    let (plane, row) = (line / rows, 2 * (line % rows) + code as usize / 2);
                    out[(plane * h + row) * w + 2 * j + code as usize % 2] = d;
                }
            }
            out
        }
    }
}

impl InputGrad {
    /// The gradient with respect to the convolution's output.
    fn conv_spec(&self, dy: &Spec, w: &Spec) -> Spec {
        let [h, w_out] = [0, 1].map(|a| self.block.conv.extent(a, self.input[a], w.shape[2 + a]).unwrap_or(0));
        Spec::float([dy.shape[0], w.shape[0], h, w_out])
    }

    fn part(&self) -> conv2d::InputGrad {
        conv2d::InputGrad { conv: self.block.conv.clone(), input: self.input }
    }
}

impl<T: Real> Kernel<T> for InputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let spec = self.conv_spec(cx.specs[0], cx.specs[2]);
        let dy = opened(cx, 0, self.block.post, [spec.shape[2], spec.shape[3]]);
        let inputs = [View::Float(dy.as_slice()), cx.inputs[2]];
        let dx = part(&self.part(), &inputs, &[&spec, cx.specs[2]], cx.out_spec, cx.fast);
        cx.out().copy_from_slice(&dx);
    }
}

impl WeightGrad {
    fn conv_spec(&self, dy: &Spec) -> Spec {
        Spec::float([dy.shape[0], dy.shape[1], self.output[0], self.output[1]])
    }

    fn part(&self) -> conv2d::WeightGrad {
        conv2d::WeightGrad { conv: self.block.conv.clone(), kernel: self.kernel }
    }
}

impl<T: Real> Kernel<T> for WeightGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let spec = self.conv_spec(cx.specs[1]);
        let dy = opened(cx, 1, self.block.post, self.output);
        let inputs = [cx.inputs[0], View::Float(dy.as_slice())];
        let dw = part(&self.part(), &inputs, &[cx.specs[0], &spec], cx.out_spec, cx.fast);
        cx.out().copy_from_slice(&dw);
    }
}

impl<T: Real> Kernel<T> for BiasGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let shape = &cx.specs[0].shape;
        let (channels, plane) = (shape[1], shape[2] * shape[3]);
        let scale = if self.0 == Post::Relu { 1 } else { 2 };
        let dy = opened(cx, 0, self.0, [shape[2] * scale, shape[3] * scale]);
        let db = cx.out();
        db.fill(T::zero());
        for (i, values) in dy.chunks((plane * scale * scale).max(1)).enumerate() {
            db[i % channels] += values.iter().fold(T::zero(), |sum, &v| sum + v);
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

/// Samples.
#[must_use]
pub fn samples(post: Post) -> Vec<Sample> {
    let conv = |stride, padding| Conv2d { stride, padding, ..Conv2d::default() };
    let cases = [
        ("3x3 same", [2, 3, 8, 8], [32, 3, 3], Conv2d::same(3), true),
        ("one channel", [3, 1, 9, 10], [33, 3, 3], Conv2d::same(3), true),
        ("no bias", [2, 4, 6, 12], [16, 3, 3], Conv2d::same(3), false),
        ("wide", [1, 2, 7, 40], [9, 3, 3], Conv2d::same(3), true),
        ("odd sizes", [2, 5, 7, 13], [7, 3, 3], Conv2d::same(3), true),
        ("one window", [2, 3, 2, 2], [4, 3, 3], Conv2d::same(3), true),
        ("one window, a row and a column left", [2, 3, 3, 3], [4, 1, 1], Conv2d::same(1), true),
        ("5x5 without padding", [2, 6, 14, 14], [16, 5, 5], conv([1, 1], [0, 0]), true),
        ("rows of 28", [2, 1, 28, 28], [8, 3, 3], Conv2d::same(3), true),
        ("more padding than taps", [1, 2, 6, 8], [6, 1, 1], conv([1, 1], [2, 1]), true),
        ("stride 2", [2, 3, 12, 12], [8, 3, 3], conv([2, 2], [1, 1]), true),
        ("many channels", [1, 70, 6, 6], [66, 3, 3], Conv2d::same(3), true),
    ];
    let mut samples: Vec<Sample> =
        cases.into_iter().map(|(name, xs, w, conv, bias)| sample(name, xs, w, conv, bias, post)).collect();
    let large = sample("long sums", [4, 3, 96, 96], [32, 3, 3], Conv2d::same(3), true, post);
    samples.push(large.terms(4 * 96 * 96).large());
    samples
}

fn sample(name: &str, xs: [usize; 4], [o, kh, kw]: [usize; 3], conv: Conv2d, bias: bool, post: Post) -> Sample {
    let mut inputs = vec![x(&xs), x(&[o, xs[1] / conv.groups, kh, kw])];
    if bias {
        inputs.push(filled(&[o], Fill::AwayFromZero));
    }
    let outputs = xs[0] * o * xs[2] * xs[3];
    let sample =
        Sample::new(name, inputs, move |g, i| g.conv2d_block(i[0], i[1], i.get(2).copied(), conv.clone(), post));
    // Among many outputs some lie so close to a kink (0, or a tie in a window) that a difference steps over it.
    if outputs > 2_000 { sample.large() } else { sample }
}
