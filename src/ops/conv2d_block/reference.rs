//! The readable reference of `conv2d_block`: the parts one after the other, `dy` sent through the gate into memory.

use super::super::conv2d;
use super::super::{Array, Eval, Kernel, Op as _, View};
use super::{BiasGrad, Block, Codes, InputGrad, Post, WeightGrad};
use crate::real::Real;
use crate::shape::{ShapeError, Spec};

/// The code of a window through which nothing goes back.
const SHUT: u32 = 4;

impl Block {
    /// The convolution's output.
    pub(super) fn conv_spec(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        conv2d::Forward(self.conv.clone()).infer(inputs)
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
    pub(super) fn conv_spec(&self, dy: &Spec, w: &Spec) -> Spec {
        let [h, w_out] = [0, 1].map(|a| self.block.conv.extent(a, self.input[a], w.shape[2 + a]).unwrap_or(0));
        Spec::float([dy.shape[0], w.shape[0], h, w_out])
    }

    pub(super) fn part(&self) -> conv2d::InputGrad {
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
    pub(super) fn conv_spec(&self, dy: &Spec) -> Spec {
        Spec::float([dy.shape[0], dy.shape[1], self.output[0], self.output[1]])
    }

    pub(super) fn part(&self) -> conv2d::WeightGrad {
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
