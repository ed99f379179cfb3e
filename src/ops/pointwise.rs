//! Pointwise functions, as rows of a table.
//!
//! A row is a forward formula in `x` and `p` and a derivative formula in `y` (the function's own value) and `p`, written once.
//! The macro makes of that text the CPU reference in `f32` and `f64` and the WGSL that `shaders/pointwise.wgsl` takes in;
//! the samples check both. Derivatives use `y` alone so that `x` need not be kept for the way back.
//!
//! `y = f(x)`, `dx = dy * f'(x)`.

use rayon::prelude::*;

use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op, elementwise_page, elementwise_variants};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, ShapeError, Spec, arity};

/// A pointwise function.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// The WGSL of `f(x)`, which is the Rust of it too.
    pub forward: &'static str,
    /// The WGSL of `f'(x)` in terms of `y = f(x)`.
    pub derivative: &'static str,
    f32: Slices<f32>,
    f64: Slices<f64>,
}

/// The formulas over slices; a loop inside, so that the compiler vectorises it.
#[derive(Debug)]
struct Slices<T> {
    forward: fn(&[T], T, &mut [T]),
    gradient: fn(&[T], &[T], T, &mut [T]),
}

/// The functions of WGSL that formulas may use.
mod prelude {
    use num_traits::Float;

    pub fn exp<T: Float>(x: T) -> T {
        x.exp()
    }
    pub fn tanh<T: Float>(x: T) -> T {
        x.tanh()
    }
    pub fn clamp<T: Float>(x: T, low: T, high: T) -> T {
        if x < low {
            low
        } else if x > high {
            high
        } else {
            x
        }
    }
    /// WGSL's order: the value when false comes first.
    pub fn select<T>(no: T, yes: T, condition: bool) -> T {
        if condition { yes } else { no }
    }
}

macro_rules! slices {
    ($t:ty, $x:ident, $y:ident, $p:ident, $f:expr, $d:expr) => {
        Slices {
            forward: |xs: &[$t], $p: $t, out: &mut [$t]| {
                let _ = $p;
                for (&$x, out) in xs.iter().zip(out) {
                    *out = $f;
                }
            },
            gradient: |ys: &[$t], dys: &[$t], $p: $t, out: &mut [$t]| {
                let _ = $p;
                #[allow(unused_variables)]
                for ((&$y, &dy), out) in ys.iter().zip(dys).zip(out) {
                    let slope: $t = $d;
                    *out = dy * slope;
                }
            },
        }
    };
}

macro_rules! table {
    ($($row:ident $name:literal: |$x:ident, $y:ident, $p:ident| $f:expr, $d:expr;)*) => {
        $(static $row: Row = {
            #[allow(unused_imports)]
            use prelude::*;
            Row {
                name: $name,
                forward: stringify!($f),
                derivative: stringify!($d),
                f32: slices!(f32, $x, $y, $p, $f, $d),
                f64: slices!(f64, $x, $y, $p, $f, $d),
            }
        };)*
        /// All rows.
        pub static TABLE: &[&Row] = &[$(&$row),*];
    };
}

// Comparisons are written so that NaN passes through where the device keeps NaN at all: a NaN that an activation hides is
// found too late. (A driver may turn the NaN in a clamp into one of its bounds.)
// tanh is clamped because drivers compute it from exp and overflow; at 15 it is 1 - 2e-13.
table! {
    RELU "relu": |x, y, p| select(x, 0.0, x <= 0.0), select(1.0, 0.0, y <= 0.0);
    LEAKY_RELU "leaky_relu": |x, y, p| select(x, p * x, x <= 0.0), select(1.0, p, y <= 0.0);
    ELU "elu": |x, y, p| select(x, p * (exp(clamp(x, -100.0, 0.0)) - 1.0), x <= 0.0), select(1.0, y + p, y <= 0.0);
    SIGMOID "sigmoid": |x, y, p| 1.0 / (1.0 + exp(clamp(-x, -80.0, 80.0))), y * (1.0 - y);
    TANH "tanh": |x, y, p| tanh(clamp(x, -15.0, 15.0)), 1.0 - y * y;
    EXP "exp": |x, y, p| exp(x), y;
    SCALE "scale": |x, y, p| p * x, p;
}

/// A pointwise function with its parameter.
#[derive(Clone, Debug)]
pub struct Pointwise {
    /// The row.
    pub row: &'static Row,
    /// `negative_slope`, `alpha` or the factor; unused by most.
    pub p: f64,
}

/// `dx` from `(y, dy)`.
#[derive(Clone, Debug)]
pub struct PointwiseGrad(pub Pointwise);

impl Pointwise {
    /// Whether it is ReLU.
    #[must_use]
    pub fn is_relu(&self) -> bool {
        std::ptr::eq(self.row, &RELU)
    }
}

const CHUNK: usize = 1 << 14;

impl<T: Real> Kernel<T> for Pointwise {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let x = cx.float(0);
        let p = self.p;
        if let (Some(x), Some(out)) = (T::as_f32(x), T::as_f32_mut(cx.out())) {
            let f = self.row.f32.forward;
            out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(o, x)| f(x, p as f32, o));
        } else {
            let x: Vec<f64> = x.iter().map(|v| v.f64()).collect();
            let mut out = vec![0.0; x.len()];
            (self.row.f64.forward)(&x, p, &mut out);
            cx.out().iter_mut().zip(out).for_each(|(o, v)| *o = T::of(v));
        }
    }
}

impl<T: Real> Kernel<T> for PointwiseGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (y, dy) = (cx.float(0), cx.float(1));
        let p = self.0.p;
        if let (Some(y), Some(dy), Some(out)) = (T::as_f32(y), T::as_f32(dy), T::as_f32_mut(cx.out())) {
            let f = self.0.row.f32.gradient;
            out.par_chunks_mut(CHUNK)
                .zip(y.par_chunks(CHUNK).zip(dy.par_chunks(CHUNK)))
                .for_each(|(o, (y, dy))| f(y, dy, p as f32, o));
        } else {
            let wide = |v: &[T]| v.iter().map(|v| v.f64()).collect::<Vec<_>>();
            let (y, dy) = (wide(y), wide(dy));
            let mut out = vec![0.0; y.len()];
            (self.0.row.f64.gradient)(&y, &dy, p, &mut out);
            cx.out().iter_mut().zip(out).for_each(|(o, v)| *o = T::of(v));
        }
    }
}

fn float_like(op: &'static str, spec: &Spec) -> Result<Spec, ShapeError> {
    match spec.dtype {
        DType::Float => Ok(spec.clone()),
        _ => Err(ShapeError::invalid(op, "works on floats", spec)),
    }
}

impl Op for Pointwise {
    fn name(&self) -> &'static str {
        self.row.name
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let sign_matters = std::ptr::eq(self.row, &LEAKY_RELU) || std::ptr::eq(self.row, &ELU);
        if sign_matters && (self.p < 0.0 || !self.p.is_finite()) {
            let what = format!("its parameter must be at least 0, got {}", self.p);
            return Err(ShapeError::invalid(self.name(), what, inputs[0]));
        }
        float_like(self.name(), inputs[0])
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        Ok(vec![Some(g.apply(PointwiseGrad(self.clone()), &[cx.output, cx.dy])?)])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        elementwise_variants(cx.output.numel())
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        lower(cx, self.row, "forward", self.p, vec![Arg::Input(0), Arg::Output])
    }

    fn detail(&self) -> String {
        if self.row.forward.contains('p') && self.p != 0.0 { format!("{}", self.p) } else { String::new() }
    }
}

impl Op for PointwiseGrad {
    fn name(&self) -> &'static str {
        self.0.row.name
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        if inputs[0] != inputs[1] {
            return Err(ShapeError::mismatch(self.name(), "the gradient must be shaped like y", inputs[0], inputs[1]));
        }
        float_like(self.name(), inputs[0])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        elementwise_variants(cx.output.numel())
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        lower(cx, self.0.row, "gradient", self.0.p, vec![Arg::Input(0), Arg::Input(1), Arg::Output])
    }

    fn detail(&self) -> String {
        "gradient".to_owned()
    }
}

fn lower(cx: &LowerCx, row: &'static Row, entry: &'static str, p: f64, args: Vec<Arg>) -> Lowering {
    let (page, count) = elementwise_page(cx.variant, cx.output.numel(), "pointwise.wgsl", "pointwise_vec4.wgsl");
    let mut d = Dispatch::elementwise(
        page,
        entry,
        count,
        args,
        vec![
            ("P", Const::F(p as f32)),
            ("FORWARD", Const::Text(row.forward)),
            ("DERIVATIVE", Const::Text(row.derivative)),
        ],
    );
    d.consts.retain(|(name, _)| entry == "forward" || *name != "FORWARD");
    Lowering { dispatches: vec![d], scratch: Vec::new() }
}

macro_rules! record {
    ($($(#[$doc:meta])* $method:ident($row:ident $(, $p:ident)?);)*) => {
        impl Graph {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// The input holds no floats, or the parameter is out of range.
            pub fn $method(&mut self, x: NodeId $(, $p: f64)?) -> Result<NodeId, ShapeError> {
                #[allow(unused_mut, unused_assignments)]
                let mut p = 0.0;
                $(p = $p;)?
                self.apply(Pointwise { row: &$row, p }, &[x])
            }
        )*}
    };
}

record! {
    /// `max(x, 0)`; the derivative at 0 is 0.
    relu(RELU);
    /// `x` above 0, else `negative_slope * x`.
    leaky_relu(LEAKY_RELU, negative_slope);
    /// `x` above 0, else `alpha * (exp(x) - 1)`.
    elu(ELU, alpha);
    /// `1 / (1 + exp(-x))`.
    sigmoid(SIGMOID);
    /// The hyperbolic tangent.
    tanh(TANH);
    /// `exp(x)`.
    exp(EXP);
    /// `factor * x`.
    scale(SCALE, factor);
}

/// Samples of one row.
#[must_use]
pub fn samples(row: &'static Row) -> Vec<Sample> {
    let p = match row.name {
        "leaky_relu" => 0.1,
        "elu" => 1.3,
        "scale" => -0.7,
        _ => 0.0,
    };
    let sample = |name: &str, shape: &[usize]| {
        let input = sample::filled(shape, sample::Fill::AwayFromZero);
        Sample::new(name, vec![input], move |g, x| g.apply(Pointwise { row, p }, &[x[0]]))
    };
    vec![
        sample("one element", &[1]),
        sample("four elements", &[2, 2]),
        sample("image batch", &[2, 3, 5, 7]),
        sample("whole vec4", &[3, 4, 5, 7]),
        sample("not a multiple of 64", &[1, 257]),
        sample("more than 65,535 workgroups", &[65_536 * 64 + 1]).large(),
    ]
}
