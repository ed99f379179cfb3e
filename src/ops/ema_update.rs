//! `ema_update`: moves a running statistic towards a new value, in place.
//!
//! `var = (1 - momentum) var + momentum factor stat`, an exponential moving average; the output is the new value. Batch
//! normalisation keeps its running mean (`factor = 1`) and variance (`factor = m / (m - 1)`, which makes the batch's biased
//! variance unbiased) this way, with PyTorch's meaning of the momentum. There is no gradient.

use super::{Eval, Kernel, LowerCx, Op};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId, Pass, VarView};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, arity};

/// The update of a range of a persistent variable.
#[derive(Clone, Debug)]
pub struct EmaUpdate {
    /// The running statistic.
    pub view: VarView,
    /// Weight of the new value, from 0 to 1.
    pub momentum: f64,
    /// What the new value is multiplied by.
    pub factor: f64,
}

impl EmaUpdate {
    /// The weights of the old and the new value.
    fn weights(&self) -> [f64; 2] {
        [1.0 - self.momentum, self.momentum * self.factor]
    }
}

impl<T: Real> Kernel<T> for EmaUpdate {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let [keep, take] = self.weights().map(T::of);
        let stat = cx.float(0);
        let mut running = std::mem::take(&mut cx.state[0]);
        for (v, &stat) in running.iter_mut().zip(stat) {
            *v = keep * *v + take * stat;
        }
        cx.out().copy_from_slice(&running);
        cx.state[0] = running;
    }
}

impl Op for EmaUpdate {
    fn name(&self) -> &'static str {
        "ema_update"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        if *inputs[0] != self.view.spec || *inputs[0] != Spec::float(inputs[0].shape.clone()) {
            let what = "takes floats shaped like the running statistic";
            return Err(ShapeError::mismatch(self.name(), what, inputs[0], &self.view.spec));
        }
        if !(0.0..=1.0).contains(&self.momentum) || !self.factor.is_finite() {
            let what = format!(
                "the momentum must be from 0 to 1 and the factor finite, got {} and {}",
                self.momentum, self.factor
            );
            return Err(ShapeError::invalid(self.name(), what, inputs[0]));
        }
        Ok(inputs[0].clone())
    }

    fn differentiable(&self, _: usize) -> bool {
        false
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let [keep, take] = self.weights().map(|w| Const::F(w as f32));
        let args = vec![Arg::Input(0), Arg::State(0), Arg::Output];
        let consts = vec![("KEEP", keep), ("TAKE", take)];
        let count = cx.output.numel();
        Lowering {
            dispatches: vec![Dispatch::elementwise("ema_update.wgsl", "forward", count, args, consts)],
            scratch: Vec::new(),
        }
    }

    fn flops(&self, _: &[&Spec], output: &Spec) -> u64 {
        3 * output.numel() as u64
    }

    fn updates(&self) -> Vec<VarView> {
        vec![self.view.clone()]
    }

    fn detail(&self) -> String {
        format!("momentum {}", self.momentum)
    }
}

impl Graph {
    /// Moves the running statistic `view` towards `factor * stat`, in every run of the graph; gives its new value.
    ///
    /// # Errors
    /// The shapes differ, the momentum is not from 0 to 1, or the factor is not finite.
    pub fn ema_update(
        &mut self,
        stat: NodeId,
        view: VarView,
        momentum: f64,
        factor: f64,
    ) -> Result<NodeId, ShapeError> {
        let pass = self.set_pass(Pass::Update);
        let op = EmaUpdate { view, momentum, factor };
        let node = self.apply(op, &[stat]);
        self.set_pass(pass);
        node
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cpu;
    use crate::exec::Executor as _;
    use crate::store::{ParamStore, Role};
    use crate::tensor::Tensor;

    #[test]
    fn running_statistics_follow_the_batches() {
        let mut store = ParamStore::new();
        let other = store.add_param("other", Role::Buffer, [3], &[7.0; 3]);
        let running = store.add_param("running", Role::Buffer, [2], &[1.0, -2.0]);
        let mut g = Graph::new();
        let stat = g.input("stat", Spec::float([2]));
        let new = g.ema_update(stat, running.view.clone(), 0.25, 2.0).unwrap();
        assert_eq!(g.node(new).pass, Pass::Update);
        let (g, mut cpu) = (Arc::new(g), cpu::Executor::<f64>::reference());
        cpu.load(&store).unwrap();
        let p = cpu.compile(&g, &[new]).unwrap();
        let mut expected = [1.0, -2.0];
        for batch in [[4.0f32, 0.5], [-1.0, 3.0]] {
            cpu.set(p, stat, &Tensor::f32([2], batch.to_vec()).unwrap()).unwrap();
            cpu.run(p).unwrap();
            for (e, b) in expected.iter_mut().zip(batch) {
                *e = 0.75 * *e + 0.25 * 2.0 * f64::from(b);
            }
            assert_eq!(cpu.read(p, new).unwrap().to_f64(), expected);
        }
        let buffers = cpu.read_var(ParamStore::BUFFERS).unwrap().to_f64();
        let at = running.view.offset;
        assert_eq!(buffers[at..at + 2], expected);
        assert_eq!(buffers[other.view.offset..][..3], [7.0; 3]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut store = ParamStore::new();
        let view = store.add_param("running", Role::Buffer, [2], &[0.0; 2]).view;
        let mut g = Graph::new();
        let (two, three) = (g.input("two", Spec::float([2])), g.input("three", Spec::float([3])));
        assert!(g.ema_update(three, view.clone(), 0.1, 1.0).is_err());
        assert!(g.ema_update(two, view.clone(), 1.5, 1.0).is_err());
        assert!(g.ema_update(two, view.clone(), 0.1, f64::INFINITY).is_err());
        assert!(g.ema_update(two, view, 0.1, 1.0).is_ok());
    }
}
