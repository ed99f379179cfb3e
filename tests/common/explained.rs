//! A network with weights as if it had learned something, and an image that it looks at.

use std::sync::Arc;

use radiograd::cpu;
use radiograd::exec::Executor;
use radiograd::explain::{DEFAULT_BYTES, Explanation, Request, explain};
use radiograd::graph::{Graph, NodeId};
use radiograd::nn::{Mode, Model};
use radiograd::rng::{Rng, Stream};
use radiograd::shape::Spec;
use radiograd::store::{ParamStore, Role};
use radiograd::tensor::{Data, Tensor};

pub struct Case {
    pub model: Model,
    pub store: ParamStore,
    pub pixels: Vec<u8>,
    pub classes: Vec<String>,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl Case {
    pub fn new(text: &str, input: [usize; 3], classes: usize) -> Self {
        let model = Model::new(text, input, classes).unwrap();
        let mut store = ParamStore::new();
        let params = model.init(&mut store, 5);
        let mut rng = Rng::new(11, 0, Stream::Sample as u32);
        // Weights as if something had been learned: running statistics and biases that are not 0 and 1.
        for (i, p) in params.iter().enumerate() {
            let rank_one = p.view.spec.shape.len() == 1;
            if rank_one {
                let shift = if p.role == Role::Trainable { -0.3 } else { 0.1 };
                let value: Vec<f32> = store.value(p).iter().map(|v| v + rng.uniform() * 0.4 + shift).collect();
                store.set_value(i, &value);
            }
        }
        let pixels = (0..input.iter().product()).map(|i: usize| (rng.below(120) as usize + i % 97) as u8).collect();
        Self {
            model,
            store,
            pixels,
            classes: (0..classes).map(|k| format!("class <{k}>")).collect(),
            mean: vec![0.45; input[0]],
            std: vec![0.25; input[0]],
        }
    }

    pub fn request(&self) -> Request<'_> {
        Request {
            model: &self.model,
            store: &self.store,
            classes: &self.classes,
            mean: &self.mean,
            std: &self.std,
            name: "film </script><script>alert(1)</script>.png",
            pixels: &self.pixels,
            label: Some(1),
            target: None,
            bytes: DEFAULT_BYTES,
        }
    }

    pub fn explained(&self) -> Explanation {
        explain(&mut cpu::Executor::<f32>::fast(), &self.request()).unwrap()
    }

    pub fn x(&self) -> Vec<f64> {
        self.pixels.iter().map(|&p| f64::from((f32::from(p) / 255.0 - 0.45) / 0.25)).collect()
    }

    /// Values of nodes that `wanted` names in a recorded pass, from an executor of its own; the logit of `class` is differentiated.
    pub fn run(
        &self,
        executor: &mut dyn Executor,
        class: usize,
        wanted: impl Fn(&Graph, &[NodeId], &[Option<NodeId>]) -> Vec<NodeId>,
    ) -> Vec<Vec<f64>> {
        let mut g = Graph::new();
        let [c, h, w] = self.model.input();
        let x = g.input("x", Spec::float([1, c, h, w]));
        let forward = self.model.forward(&mut g, self.store.params(), x, Mode::Eval).unwrap();
        let steps: Vec<NodeId> = forward.layers.iter().map(|l| l.1).collect();
        let seed = g.input("seed", g.spec(forward.logits).clone());
        let leaves: Vec<NodeId> = [x].into_iter().chain(steps.iter().copied()).chain(forward.leaves).collect();
        let grads = g.gradients(forward.logits, Some(seed), &leaves).unwrap();
        let roots = wanted(&g, &steps, &grads);
        let outputs = self.model.outputs();
        let g = Arc::new(g);
        executor.load(&self.store).unwrap();
        let program = executor.compile(&g, &roots).unwrap();
        executor.set(program, x, &Tensor::new([1, c, h, w], Data::F64(self.x())).unwrap()).unwrap();
        let one = (0..outputs).map(|o| if outputs == 1 { [-1.0, 1.0][class] } else { f64::from(u8::from(o == class)) });
        executor.set(program, seed, &Tensor::new([1, outputs], Data::F64(one.collect())).unwrap()).unwrap();
        executor.run(program).unwrap();
        roots.iter().map(|&r| executor.read(program, r).unwrap().to_f64()).collect()
    }
}
