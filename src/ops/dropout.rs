//! `dropout`: sets random elements to zero in training and scales the others up, so that the expected value stays
//! (Srivastava et al., JMLR 15, 2014; "inverted", as in PyTorch).
//!
//! `y[i] = x[i] / (1 - p)` where element `i` is kept, else 0. It is kept where
//! `bits(seed, step, Stream::Dropout + stream, i) >= floor(p 2^32)`: a comparison of integers, so the CPU and the GPU keep
//! the same elements. Seed and step come in a `u32` input of two words, so that a replayed graph draws anew at each step.
//!
//! Gradient: the op itself, applied to `dy` with the same words. No mask is stored.

use rayon::prelude::*;

use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op, elementwise_page, elementwise_variants};
use crate::autodiff::Backward;
use crate::cpu::fast;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::rng::{self, Stream};
use crate::shape::{DType, ShapeError, Spec, arity};

/// How much is dropped, and which draws decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of an element to become zero, from 0 to 1.
    pub p: f64,
    /// Number of the layer, so that no two layers share their draws.
    pub stream: u32,
}

impl Dropout {
    /// Draws below it drop their element.
    fn threshold(self) -> u32 {
        (self.p * 4_294_967_296.0) as u32
    }

    /// What kept elements are multiplied by; with `p = 1` nothing is kept.
    fn scale(self) -> f64 {
        if self.p < 1.0 { 1.0 / (1.0 - self.p) } else { 0.0 }
    }

    fn number(self) -> u32 {
        (Stream::Dropout as u32).wrapping_add(self.stream)
    }

    /// Whether element `i` is kept at this step of a run with this seed.
    #[inline(always)]
    #[must_use]
    pub fn keeps(self, seed: u32, step: u32, i: u32) -> bool {
        self.p < 1.0 && rng::bits(seed, step, self.number(), i) >= self.threshold()
    }
}

const CHUNK: usize = 1 << 14;

impl<T: Real> Kernel<T> for Dropout {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (x, words) = (cx.float(0), cx.u32(1));
        let scale = T::of(self.scale());
        cx.out().par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).enumerate().for_each(|(chunk, (y, x))| {
            let first = (chunk * CHUNK) as u32;
            fast::vectorised(Mask { dropout: *self, words: [words[0], words[1]], first, scale, x, y });
        });
    }
}

/// Elements from number `first` on.
struct Mask<'a, T> {
    dropout: Dropout,
    words: [u32; 2],
    first: u32,
    scale: T,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Real> fast::Loop for Mask<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let [seed, step] = self.words;
        for (i, (y, &x)) in self.y.iter_mut().zip(self.x).enumerate() {
            let kept = self.dropout.keeps(seed, step, self.first.wrapping_add(i as u32));
            *y = if kept { x * self.scale } else { T::zero() };
        }
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        if !(0.0..=1.0).contains(&self.p) {
            let what = format!("p must be from 0 to 1, got {}", self.p);
            return Err(ShapeError::invalid(self.name(), what, inputs[0]));
        }
        if inputs[0].dtype != DType::Float || *inputs[1] != Spec::u32([2]) {
            let what = "takes floats and the two words seed and step";
            return Err(ShapeError::mismatch(self.name(), what, inputs[0], inputs[1]));
        }
        Ok(inputs[0].clone())
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let dx = match cx.needs[0] {
            true => Some(g.apply(*self, &[cx.dy, cx.inputs[1]])?),
            false => None,
        };
        Ok(vec![dx, None])
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        elementwise_variants(cx.output.numel())
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let consts = vec![
            ("STREAM", Const::U(self.number())),
            ("THRESHOLD", Const::U(self.threshold())),
            ("ANY", Const::B(self.p < 1.0)),
            ("SCALE", Const::F(self.scale() as f32)),
        ];
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Output];
        let (page, count) = elementwise_page(cx.variant, cx.output.numel(), "dropout.wgsl", "dropout_vec4.wgsl");
        Lowering { dispatches: vec![Dispatch::elementwise(page, "forward", count, args, consts)], scratch: Vec::new() }
    }

    fn detail(&self) -> String {
        format!("p {}", self.p)
    }
}

impl Graph {
    /// Drops elements of `x` at random; `rng` is a `u32` tensor of two words, the seed and the number of the step.
    ///
    /// # Errors
    /// `p` is not from 0 to 1, or the inputs are of another type or shape.
    pub fn dropout(&mut self, x: NodeId, rng: NodeId, dropout: Dropout) -> Result<NodeId, ShapeError> {
        self.apply(dropout, &[x, rng])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |name: &str, x: &[usize], p: f64, stream: u32| {
        let inputs = vec![sample::x(x), sample::words(&[2], Fill::Below(1000))];
        Sample::new(name, inputs, move |g, i| g.dropout(i[0], i[1], Dropout { p, stream }))
    };
    vec![
        s("one element", &[1], 0.0, 0),
        s("half", &[2, 3, 5, 7], 0.5, 1),
        s("a fifth", &[65, 3], 0.2, 2),
        s("nothing", &[4, 5], 0.0, 3),
        s("nearly everything", &[1000], 0.99, 4),
        s("everything", &[4, 5], 1.0, u32::MAX),
        s("more than 65,535 workgroups", &[65_536 * 64 + 1], 0.3, 5).large(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Array, View};

    fn run(p: f64, stream: u32, words: [u32; 2], n: usize) -> Vec<f32> {
        let op = Dropout { p, stream };
        let (x, spec, rng) = (vec![1.0f32; n], Spec::float([n]), Spec::u32([2]));
        let mut out = Array::Float(vec![f32::NAN; n]);
        let mut cx = Eval {
            inputs: &[View::Float(&x), View::U32(&words)],
            specs: &[&spec, &rng],
            out_spec: &spec,
            out: &mut out,
            state: &mut [],
            fast: true,
        };
        f32::run(&op, &mut cx);
        cx.out().to_vec()
    }

    #[test]
    fn the_keep_rate_and_the_scale_are_right() {
        let n = 200_000;
        for p in [0.1, 0.25, 0.5, 0.9] {
            let y = run(p, 3, [7, 11], n);
            let scale = (1.0 / (1.0 - p)) as f32;
            let kept = y.iter().filter(|&&v| v == scale).count();
            let zeros = y.iter().filter(|&&v| v == 0.0).count();
            assert_eq!(kept + zeros, n);
            // Four standard deviations of a binomial count.
            let bound = 4.0 * (n as f64 * p * (1.0 - p)).sqrt();
            assert!((kept as f64 - n as f64 * (1.0 - p)).abs() < bound, "p {p}: {kept} of {n} kept");
        }
    }

    #[test]
    fn the_draws_are_those_of_the_formula() {
        let y = run(0.375, 9, [5, 6], 40_000);
        for (i, &v) in y.iter().enumerate() {
            let draw = f64::from(rng::bits(5, 6, 0x0001_0009, i as u32));
            assert_eq!(v != 0.0, draw / 4_294_967_296.0 >= 0.375, "element {i}");
        }
        let differ = |other: Vec<f32>| y.iter().zip(&other).filter(|(a, b)| a != b).count();
        for other in [run(0.375, 8, [5, 6], 40_000), run(0.375, 9, [5, 7], 40_000)] {
            // Independent masks differ in 2 p (1 - p) = 47 % of the elements.
            assert!((differ(other) as f64 / 40_000.0 - 0.46875).abs() < 0.01);
        }
    }

    #[test]
    fn the_ends_keep_all_and_nothing() {
        assert!(run(0.0, 0, [1, 2], 100).iter().all(|&v| v == 1.0));
        assert!(run(1.0, 0, [1, 2], 100).iter().all(|&v| v == 0.0));
        let infer = |p| Dropout { p, stream: 0 }.infer(&[&Spec::float([3]), &Spec::u32([2])]);
        assert!(infer(-0.1).is_err() && infer(1.1).is_err() && infer(f64::NAN).is_err());
        let words = Spec::u32([3]);
        assert!(Dropout { p: 0.5, stream: 0 }.infer(&[&Spec::float([3]), &words]).is_err());
    }
}
