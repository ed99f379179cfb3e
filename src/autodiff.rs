//! Reverse mode: the derivative of a recorded value, recorded as ordinary nodes.
//!
//! Walking the nodes backwards, each op adds to its inputs' gradients what its rule says (the chain rule); where a value
//! is used more than once the contributions are added. Only the paths from the asked-for leaves to the output are walked,
//! so a frozen layer costs nothing.

use crate::graph::{Graph, NodeId, Pass, Source};
use crate::shape::ShapeError;

/// What an op's gradient rule sees.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// The node that is differentiated.
    pub output: NodeId,
    /// Its inputs.
    pub inputs: &'a [NodeId],
    /// The gradient that comes from above, shaped like the output.
    pub dy: NodeId,
    /// Which inputs' gradients are asked for.
    pub needs: &'a [bool],
}

impl Graph {
    /// Appends d`output`/d`leaf` for each of `leaves`, given the gradient `seed` of something with respect to `output`
    /// (ones when absent: the gradient of the output's sum). `None` for a leaf that the output does not depend on.
    ///
    /// # Errors
    /// [`ShapeError::NoDerivative`] when the way back leads through an input that has no derivative.
    pub fn gradients(
        &mut self,
        output: NodeId,
        seed: Option<NodeId>,
        leaves: &[NodeId],
    ) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let pass = self.set_pass(Pass::Backward);
        let result = self.record_gradients(output, seed, leaves);
        self.set_pass(pass);
        result
    }

    fn record_gradients(
        &mut self,
        output: NodeId,
        seed: Option<NodeId>,
        leaves: &[NodeId],
    ) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let end = output.index() + 1;
        let mut wanted = vec![false; end];
        for leaf in leaves {
            if leaf.index() < end {
                wanted[leaf.index()] = true;
            }
        }
        for i in 0..end {
            wanted[i] = wanted[i] || self.nodes()[i].inputs().iter().any(|x| wanted[x.index()]);
        }

        let seed = match seed {
            Some(seed) if self.spec(seed) != self.spec(output) => {
                return Err(ShapeError::mismatch(
                    "gradients",
                    "the seed must be shaped like the output",
                    self.spec(seed),
                    self.spec(output),
                ));
            }
            Some(seed) => seed,
            None => {
                let shape = self.spec(output).shape.clone();
                self.fill(&shape, 1.0)?
            }
        };
        let mut grads: Vec<Option<NodeId>> = vec![None; end];
        grads[output.index()] = Some(seed);

        for index in (0..end).rev() {
            let (true, Some(dy)) = (wanted[index], grads[index]) else {
                continue;
            };
            let Source::Op { op, inputs } = self.nodes()[index].source.clone() else {
                continue;
            };
            let needs: Vec<bool> = inputs.iter().map(|x| wanted[x.index()]).collect();
            if !needs.contains(&true) {
                // A leaf that is itself computed: nothing below it is asked for.
                continue;
            }
            let scope = self.nodes()[index].scope.clone();
            self.set_scope(&scope);
            let cx = Backward { output: NodeId(index as u32), inputs: &inputs, dy, needs: &needs };
            let contributions = op.backward(self, &cx)?;
            if contributions.len() != inputs.len() {
                return Err(ShapeError::Arity { op: op.name(), expected: inputs.len(), got: contributions.len() });
            }
            for (k, (input, contribution)) in inputs.iter().zip(contributions).enumerate() {
                match contribution {
                    Some(g) if needs[k] => {
                        let slot = input.index();
                        grads[slot] = Some(match grads[slot] {
                            Some(sum) => self.add(sum, g)?,
                            None => g,
                        });
                    }
                    None if needs[k] && op.differentiable(k) => {
                        return Err(ShapeError::NoDerivative { op: op.name(), input: k });
                    }
                    _ => {}
                }
            }
        }
        self.set_scope("");
        Ok(leaves.iter().map(|leaf| grads.get(leaf.index()).copied().flatten()).collect())
    }
}
