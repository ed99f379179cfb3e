//! `linear` and `matmul`: matrix products, either factor transposed, with an optional bias row.
//!
//! `linear`: `y[n,m] = sum over k of x[n,k] * w[m,k] + b[m]`, with `w [out, in]` as in PyTorch. `matmul`: `y = a b`.
//! All three directions of both are one op, `y = op(a) op(b)`, where `op` transposes or does not:
//!
//! | | forward | gradient of the left | gradient of the right |
//! |---|---|---|---|
//! | linear | `x w^T + b` | `dx = dy w` | `dw = dy^T x`, `db = column sums of dy` |
//! | matmul | `a b` | `da = dy b^T` | `db = a^T dy` |

use rayon::prelude::*;

use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering, in_series};
use crate::gpu::matmul as fast;
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, matrix};

/// `op(a) op(b)`, plus a bias row where there is a third input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul {
    /// The left factor is stored `[K, M]`.
    pub ta: bool,
    /// The right factor is stored `[N, K]`.
    pub tb: bool,
}

/// Rows, columns and inner length of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

impl MatMul {
    const LINEAR: Self = Self { ta: false, tb: true };
    const PRODUCT: Self = Self { ta: false, tb: false };

    fn dims(self, a: &Spec, b: &Spec) -> Dims {
        let [m, k] = if self.ta { [a.shape[1], a.shape[0]] } else { [a.shape[0], a.shape[1]] };
        Dims { m, k, n: b.shape[usize::from(!self.tb)] }
    }
}

impl<T: Real> Kernel<T> for MatMul {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let Dims { m, n, k } = self.dims(cx.specs[0], cx.specs[1]);
        let bias = (cx.inputs.len() == 3).then(|| cx.float(2));
        // No gradient rule makes a product of two transposed factors; one that a caller records takes the loops below.
        if let (false, Some(a), Some(b)) = (self.ta && self.tb, cx.fast_f32(0), cx.fast_f32(1)) {
            let bias = bias.and_then(T::as_f32);
            if let Some(y) = cx.fast_out() {
                use crate::cpu::fast;
                match (self.ta, self.tb) {
                    (false, true) => fast::linear(a, b, bias, [m, k, n], y),
                    (false, false) => fast::matmul(a, b, [m, k, n], y),
                    (true, false) => fast::matmul_grad_rhs(a, b, [k, m, n], y),
                    (true, true) => unreachable!("tested above"),
                }
            }
            return;
        }
        let (a, b) = (cx.float(0), cx.float(1));
        let (ai, ak) = if self.ta { (1, m) } else { (k, 1) };
        let (bj, bk) = if self.tb { (k, 1) } else { (1, n) };
        cx.out().par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| {
            for (j, y) in row.iter_mut().enumerate() {
                let sum: T = (0..k).map(|t| a[i * ai + t * ak] * b[j * bj + t * bk]).sum();
                *y = sum + bias.map_or(T::zero(), |b| b[j]);
            }
        });
    }
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        if self.tb && !self.ta { "linear" } else { "matmul" }
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        if !(2..=3).contains(&inputs.len()) {
            return Err(ShapeError::Arity { op: self.name(), expected: 2, got: inputs.len() });
        }
        let a = matrix(self.name(), inputs[0])?;
        let b = matrix(self.name(), inputs[1])?;
        if a[usize::from(!self.ta)] != b[usize::from(self.tb)] {
            return Err(ShapeError::mismatch(self.name(), "the inner axes must agree", inputs[0], inputs[1]));
        }
        let Dims { m, n, .. } = self.dims(inputs[0], inputs[1]);
        match inputs.get(2) {
            Some(bias) if *self != Self::LINEAR => {
                Err(ShapeError::invalid(self.name(), "only a linear layer, x w^T, takes a bias", bias))
            }
            Some(bias) if **bias != Spec::float([n]) => {
                Err(ShapeError::mismatch(self.name(), "the bias must be [out]", bias, inputs[1]))
            }
            _ => Ok(Spec::float([m, n])),
        }
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let (a, b) = (cx.inputs[0], cx.inputs[1]);
        let product = |g: &mut Graph, ta, tb, left, right| g.apply(Self { ta, tb }, &[left, right]).map(Some);
        // With y = A B, where A = op(a) and B = op(b): dA = dy B^T and dB = A^T dy; a transposed factor swaps the roles.
        let da = match (cx.needs[0], self.ta) {
            (false, _) => None,
            (true, false) => product(g, false, !self.tb, cx.dy, b)?,
            (true, true) => product(g, self.tb, true, b, cx.dy)?,
        };
        let db = match (cx.needs[1], self.tb) {
            (false, _) => None,
            (true, false) => product(g, !self.ta, false, a, cx.dy)?,
            (true, true) => product(g, true, self.ta, cx.dy, a)?,
        };
        let mut grads = vec![da, db];
        if let Some(&needed) = cx.needs.get(2) {
            grads.push(if needed { Some(g.channel_sum(cx.dy)?) } else { None });
        }
        Ok(grads)
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        fast::supported(*self, self.dims(cx.inputs[0], cx.inputs[1]), cx.inputs.len() == 3, cx.subgroup)
    }

    /// Rows, columns and inner length; whether the factors are transposed, which tells the directions of a layer apart.
    fn facts(&self, cx: &LowerCx) -> Vec<(&'static str, u64)> {
        let Dims { m, n, k } = self.dims(cx.inputs[0], cx.inputs[1]);
        vec![
            ("m", m as u64),
            ("n", n as u64),
            ("k", k as u64),
            ("ta", self.ta.into()),
            ("tb", self.tb.into()),
            ("bias", u64::from(cx.inputs.len() == 3)),
        ]
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let dims = self.dims(cx.inputs[0], cx.inputs[1]);
        let bias = cx.inputs.len() == 3;
        if cx.variant != PLAIN {
            return fast::lower(cx.variant, *self, dims, bias, cx.subgroup);
        }
        let consts = vec![
            ("M", Const::U(dims.m as u32)),
            ("N", Const::U(dims.n as u32)),
            ("K", Const::U(dims.k as u32)),
            ("TA", Const::B(self.ta)),
            ("TB", Const::B(self.tb)),
            ("BIAS", Const::B(bias)),
        ];
        // Without a bias its binding holds the right factor, which the kernel then never reads as one.
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Input(if bias { 2 } else { 1 }), Arg::Output];
        let d = Dispatch::elementwise("matmul.wgsl", "forward", cx.output.numel(), args, consts);
        Lowering { dispatches: in_series(d, dims.k.div_ceil(64), 64), scratch: Vec::new() }
    }

    fn flops(&self, inputs: &[&Spec], output: &Spec) -> u64 {
        let dims = self.dims(inputs[0], inputs[1]);
        (2 * dims.k as u64 + u64::from(inputs.len() == 3)) * output.numel() as u64
    }
}

impl Graph {
    /// `x w^T + bias`: `x [N, in]`, `w [out, in]`, `bias [out]` give `[N, out]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn linear(&mut self, x: NodeId, w: NodeId, bias: Option<NodeId>) -> Result<NodeId, ShapeError> {
        let mut inputs = vec![x, w];
        inputs.extend(bias);
        self.apply(MatMul::LINEAR, &inputs)
    }

    /// `a b`: `[M, K]` and `[K, N]` give `[M, N]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn matmul(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(MatMul::PRODUCT, &[a, b])
    }
}

/// Samples of `linear` and `matmul`.
#[must_use]
pub fn samples(name: &str) -> Vec<Sample> {
    let sizes: [(&str, [usize; 3]); 11] = [
        ("one number", [1, 1, 1]),
        ("small", [4, 3, 7]),
        ("tiles do not fit", [17, 65, 33]),
        ("tiles fit", [32, 64, 16]),
        ("inner length 1 past a tile", [33, 34, 129]),
        ("inner length 1 short of a tile", [31, 18, 127]),
        ("long inner sum", [2, 10, 1024]),
        ("few columns", [32, 2, 300]),
        ("wide", [3, 130, 20]),
        ("blocks of a subgroup fit", [64, 128, 260]),
        ("blocks of a subgroup do not fit", [37, 131, 518]),
    ];
    let mut samples = Vec::new();
    for (what, [m, n, k]) in sizes {
        samples.push(if name == "linear" {
            let bias = what != "small";
            let mut inputs = vec![sample::x(&[m, k]), sample::x(&[n, k])];
            if bias {
                inputs.push(sample::x(&[n]));
            }
            Sample::new(what, inputs, |g, i| g.linear(i[0], i[1], i.get(2).copied()))
        } else {
            Sample::new(what, vec![sample::x(&[m, k]), sample::x(&[k, n])], |g, i| g.matmul(i[0], i[1]))
        });
    }
    if name == "linear" {
        let inputs = vec![sample::x(&[32, 8192]), sample::x(&[128, 8192]), sample::x(&[128])];
        samples.push(Sample::new("wide input", inputs, |g, i| g.linear(i[0], i[1], Some(i[2]))).terms(8192).large());
        let inputs = vec![sample::x(&[2049, 3]), sample::x(&[2050, 3]), sample::x(&[2050])];
        let many = Sample::new("more than 65,535 workgroups", inputs, |g, i| g.linear(i[0], i[1], Some(i[2])));
        samples.push(many.terms(2050).large());
    }
    samples
}
