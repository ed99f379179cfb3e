//! The strongest channels from a class back to the image.
//!
//! A channel's part in a number is the sum over its pixels of activation times gradient, which for layers of sums and ReLU
//! without bias adds up to the number itself (Shrikumar et al. 2016). From the class one asks the last layer's channels; then what
//! the strongest of them owes to the channels of the layer in front of it; and so on. At each stage the gradient flows through the
//! chosen channel alone.

use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::cam::Place;
use super::encode::Quantised;
use super::{ExplainError, Request};
use crate::exec::Executor;
use crate::graph::{Graph, NodeId};
use crate::nn::Mode;
use crate::shape::Spec;

/// Most stages that are walked; of deeper networks those evenly spread.
pub const MAX_STAGES: usize = 6;
/// Channels that are named at a stage.
const NAMED: usize = 4;

/// A channel and its part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Number of the channel.
    pub channel: usize,
    /// Sum over its pixels of activation times gradient.
    pub part: f64,
    /// That as a share of all positive parts of its layer.
    pub share: f64,
}

/// A layer on the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Its step.
    pub layer: usize,
    /// Its strongest channels; the way goes on from the first.
    pub channels: Vec<Part>,
}

/// The way from a class to the image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathView {
    /// The class.
    pub class: usize,
    /// From the last layer to the first. Ends early where no channel has a positive part.
    pub stages: Vec<Stage>,
    /// Each pixel of `image` is the mean of a square of so many of the image's.
    pub shrunk: usize,
    /// What each pixel of the image gives to the last stage's channel: pixel (normalised) times gradient, summed over channels.
    pub image: Quantised,
}

/// The stages that are walked, first layer first.
fn chosen(places: &[Place]) -> Vec<&Place> {
    let n = places.len();
    let stages = n.min(MAX_STAGES);
    let mut at: Vec<usize> = (0..stages).map(|i| if stages > 1 { i * (n - 1) / (stages - 1) } else { n - 1 }).collect();
    at.dedup();
    at.into_iter().map(|i| &places[i]).collect()
}

/// Activation times gradient, summed over the pixels of each channel.
fn parts(a: &[f32], g: &[f32], plane: usize) -> Vec<f64> {
    let product = |(a, g): (&f32, &f32)| f64::from(*a) * f64::from(*g);
    a.chunks(plane).zip(g.chunks(plane)).map(|(a, g)| a.iter().zip(g).map(product).sum()).collect()
}

fn strongest(parts: &[f64]) -> Vec<Part> {
    let positive: f64 = parts.iter().filter(|&&p| p > 0.0).sum();
    let mut order: Vec<usize> = (0..parts.len()).filter(|&k| parts[k] > 0.0).collect();
    order.sort_by(|&a, &b| parts[b].total_cmp(&parts[a]));
    order.truncate(NAMED);
    order.into_iter().map(|k| Part { channel: k, part: parts[k], share: parts[k] / positive }).collect()
}

/// A recorded stage.
struct Leg {
    activation: NodeId,
    /// The derivative by this layer's output of what is asked, written by the host; the gradient flows from here.
    seed: NodeId,
    /// By the output of the stage in front, or by the image.
    gradient: Option<NodeId>,
}

/// The ways of all `classes`; `seed` gives a class as weights of the logits.
///
/// # Errors
/// The device failed.
pub fn walk(
    executor: &mut dyn Executor,
    request: &Request<'_>,
    places: &[Place],
    x: &[f32],
    classes: &[usize],
    seed: impl Fn(usize) -> Vec<f32>,
) -> Result<Vec<PathView>, ExplainError> {
    let stages = chosen(places);
    if stages.is_empty() {
        return Ok(Vec::new());
    }
    let [c, h, w] = request.model.input();
    let mut g = Graph::new();
    let image = g.input("image", Spec::float([1, c, h, w]));
    let forward = request.model.forward(&mut g, request.store.params(), image, Mode::Eval)?;
    let head = g.input("class", g.spec(forward.logits).clone());
    let activation = |i: usize| forward.layers[stages[i].step].1;
    let top = g.gradients(forward.logits, Some(head), &[activation(stages.len() - 1)])?[0];
    let mut legs = Vec::with_capacity(stages.len());
    for i in 0..stages.len() {
        let activation_i = activation(i);
        let seed = g.input("channel", g.spec(activation_i).clone());
        let below = if i == 0 { image } else { activation(i - 1) };
        let gradient = g.gradients(activation_i, Some(seed), &[below])?[0];
        legs.push(Leg { activation: activation_i, seed, gradient });
    }
    let mut roots: Vec<NodeId> =
        legs.iter().flat_map(|l| [Some(l.activation), l.gradient]).flatten().chain(top).collect();
    roots.sort_unstable();
    roots.dedup();
    let graph = Arc::new(g);
    let program = executor.compile(&graph, &roots)?;
    let set = |executor: &mut dyn Executor, node: NodeId, values: &[f32]| -> Result<(), ExplainError> {
        Ok(executor.set(program, node, &super::pass::tensor(graph.spec(node), values)?)?)
    };
    set(executor, image, x)?;

    let mut out = Vec::with_capacity(classes.len());
    for &class in classes {
        set(executor, head, &seed(class))?;
        executor.run(program)?;
        let mut gradient = match top {
            Some(node) => executor.read(program, node)?.to_f32(),
            None => vec![0.0; graph.spec(activation(stages.len() - 1)).numel()],
        };
        let mut way = Vec::with_capacity(stages.len());
        for (leg, place) in legs.iter().zip(&stages).rev() {
            let [_, h, w] = place.shape;
            let a = executor.read(program, leg.activation)?.to_f32();
            let channels = strongest(&parts(&a, &gradient, h * w));
            // Through the strongest channel alone.
            let first = channels.first().map(|p| p.channel * h * w..(p.channel + 1) * h * w);
            let inside = |i: usize| first.as_ref().is_some_and(|range: &Range<usize>| range.contains(&i));
            let masked: Vec<f32> = gradient.iter().enumerate().map(|(i, &g)| if inside(i) { g } else { 0.0 }).collect();
            way.push(Stage { layer: place.step, channels });
            set(executor, leg.seed, &masked)?;
            executor.run(program)?;
            gradient = match leg.gradient {
                Some(node) if first.is_some() => executor.read(program, node)?.to_f32(),
                // Nothing speaks for it: the way ends here.
                _ => {
                    gradient.clear();
                    break;
                }
            };
        }
        let plane = h * w;
        let mut pixels = vec![0.0f32; plane];
        if gradient.len() == x.len() {
            for (i, (a, g)) in x.iter().zip(&gradient).enumerate() {
                pixels[i % plane] += a * g;
            }
        }
        out.push(PathView { class, stages: way, shrunk: 1, image: Quantised::of(&pixels) });
    }
    executor.release(program);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_networks_are_walked_in_even_steps() {
        let places: Vec<Place> = (0..17).map(|step| Place { step, shape: [1, 1, 1] }).collect();
        let steps: Vec<usize> = chosen(&places).iter().map(|p| p.step).collect();
        assert_eq!(steps, [0, 3, 6, 9, 12, 16]);
        assert_eq!(chosen(&places[..1]).len(), 1);
        assert!(chosen(&[]).is_empty());
    }

    #[test]
    fn shares_are_of_what_speaks_for_it() {
        let found = strongest(&parts(&[1.0, 1.0, 2.0, 0.0, 1.0, 0.0], &[1.0, 2.0, 0.5, 9.0, -4.0, 1.0], 2));
        assert_eq!(
            found.iter().map(|p| (p.channel, p.part, p.share)).collect::<Vec<_>>(),
            [(0, 3.0, 0.75), (1, 1.0, 0.25)]
        );
    }
}
