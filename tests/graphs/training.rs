//! How the ops of a training around its network are recorded: batches, losses, statistics, updates.

use radiograd::graph::{NodeId, VarView};
use radiograd::ops::augment::{Augment, AugmentImages};
use radiograd::ops::cross_entropy::{CrossEntropy, Reduction};
use radiograd::ops::sample::Fill;
use radiograd::optim::OptimizerKind;
use radiograd::shape::{Shape, Spec};
use radiograd::store::Role;
use radiograd::tensor::Tensor;

use super::Builder;
use super::ops::Done;
/// Labels 0 and 1 for `n` rows: gathered ones where there are as many.
fn labels(b: &mut Builder, n: usize) -> NodeId {
    let found = b.labels.iter().copied().rev().find(|id| b.g.spec(*id).numel() == n);
    found.unwrap_or_else(|| b.words(n, 2))
}

pub fn cross_entropy(b: &mut Builder) -> Done {
    let x = b.pick(|d| d.len() == 2 && d[1] > 1, |b| vec![b.of(&[2, 1, 7, 65]), b.of(&[2, 3, 5])]);
    let d = b.dims(x.id);
    let targets = labels(b, d[0]);
    let weights = b.chance().then(|| b.fixed(Spec::float([d[1]]), Fill::Positive));
    let label_smoothing = b.of(&[0.0, 0.1]);
    let reduction = b.of(&[Reduction::Mean, Reduction::Sum]);
    let id = b.g.cross_entropy(x.id, targets, weights, CrossEntropy { label_smoothing, reduction })?;
    let many = if reduction == Reduction::Sum { d[0] as f64 } else { 1.0 };
    b.push(id, (x.mag + 2.0) * many, x.clean);
    Ok(())
}

pub fn bce_with_logits(b: &mut Builder) -> Done {
    let x = b.pick(|d| d.len() == 1 || d.len() == 2 && d[1] == 1, |b| vec![b.of(&[2, 1, 7, 65])]);
    let n = b.dims(x.id)[0];
    let targets = labels(b, n);
    let weight = b.chance().then_some(2.5);
    let id = b.g.bce_with_logits(x.id, targets, weight)?;
    b.push(id, 2.0 * x.mag + 1.0, x.clean);
    Ok(())
}

/// Bytes of some images, held by the host or on the device, and a batch of indices, some past the end.
fn pixels(b: &mut Builder) -> (NodeId, NodeId, usize, [Vec<f32>; 2]) {
    let d = [b.of(&[3, 1, 5]), b.of(&[1, 3]), b.of(&[5, 1, 8]), b.of(&[4, 1, 7])];
    let spec = Spec::u8(d);
    let images = if b.chance() {
        let value = b.filled(spec.clone(), Fill::Below(256));
        let view = b.store.add_var("images", spec, Some(value));
        b.g.var("images", view)
    } else {
        b.fixed(spec, Fill::Below(256))
    };
    let n = b.of(&[2, 1, 3]);
    let indices = b.words(n, d[0] as u32 + 1);
    let mean = (0..d[1]).map(|c| 0.4 + 0.05 * c as f32).collect();
    let std = (0..d[1]).map(|c| 0.2 + 0.03 * c as f32).collect();
    (images, indices, n, [mean, std])
}

pub fn gather_images(b: &mut Builder) -> Done {
    let (images, indices, _, [mean, std]) = pixels(b);
    let id = b.g.gather_images(images, indices, &mean, &std)?;
    b.push(id, 2.0, true);
    Ok(())
}

pub fn augment_images(b: &mut Builder) -> Done {
    let (images, indices, n, [mean, std]) = pixels(b);
    let rng = b.draws();
    let name = b.of(&["light", "strong", "none"]);
    let augment = Augment::preset(name).expect("it is one of the presets");
    let repeats = (b.below(3) == 2).then(|| (Augment::preset("strong").expect("a preset"), b.words(n, 2)));
    let (again, flags) = repeats.unzip();
    let op = AugmentImages { mean, std, augment, repeats: again };
    let id = b.g.augment_images(op, [images, indices, rng], flags)?;
    b.push(id, 2.0, true);
    Ok(())
}

pub fn gather_labels(b: &mut Builder) -> Done {
    let all = b.of(&[5, 1, 65]);
    let labels = b.words(all, 2);
    let n = b.of(&[2, 1, 3, 7]);
    let indices = b.words(n, all as u32 + 1);
    let id = b.g.gather_labels(labels, indices)?;
    b.labels.push(id);
    Ok(())
}

pub fn gather_rows(b: &mut Builder) -> Done {
    let x = b.pick(|d| !d.is_empty() && d.iter().product::<usize>() <= 2048, Builder::new_image);
    let rows = b.dims(x.id)[0];
    let n = b.of(&[2, 1, 3, 5]);
    let indices = b.words(n, rows as u32 + 1);
    let id = b.g.gather_rows(x.id, indices)?;
    b.push(id, x.mag, x.clean);
    Ok(())
}

pub fn count_correct(b: &mut Builder) -> Done {
    // Of a leaf: among values that are equal but for rounding, which one is the largest is no question.
    let (n, c) = (b.of(&[2, 1, 7, 65]), b.of(&[2, 1, 3, 5]));
    let x = b.fresh(&[n, c]);
    let targets = labels(b, n);
    let id = b.g.count_correct(x.id, targets)?;
    b.push(id, n as f64, false);
    Ok(())
}

pub fn grad_stats(b: &mut Builder) -> Done {
    let x = b.pick(|d| d.iter().product::<usize>() > 0 && d.len() != 1, Builder::new_image);
    let n = b.g.spec(x.id).numel();
    let flat = b.g.reshape(x.id, &Shape::from([n]))?;
    let id = b.g.grad_stats(flat)?;
    b.stats.push(id);
    b.push(id, x.mag * x.mag * n as f64, false);
    Ok(())
}

pub fn clip_grad_norm(b: &mut Builder) -> Done {
    if b.stats.is_empty() {
        grad_stats(b)?;
    }
    let stats = b.of(&b.stats.clone());
    let hyper = b.fixed(Spec::float([4]), Fill::Positive);
    let max_norm = b.of(&[1.0, 0.01, 1e3]);
    let id = b.g.clip_grad_norm(hyper, stats, max_norm)?;
    b.push(id, 1.0, false);
    Ok(())
}

pub fn ema_update(b: &mut Builder) -> Done {
    let x = b.any();
    let d = b.dims(x.id);
    let (before, view) = b.param(Role::Buffer, &d, Fill::Normal, 1.0);
    // Sometimes the old value is read first.
    if b.chance() {
        let old = b.g.tanh(before)?;
        b.push(old, 1.0, true);
    }
    let momentum = b.of(&[0.1, 0.5, 1.0, 0.0]);
    let id = b.g.ema_update(x.id, view.clone(), momentum, 1.0)?;
    b.push(id, x.mag + 1.0, false);
    // And sometimes the new one afterwards.
    if b.chance() {
        let after = b.g.var("after", view);
        b.push(after, x.mag + 1.0, false);
    }
    Ok(())
}

pub fn write_rows(b: &mut Builder) -> Done {
    let x = b.matrix();
    let columns = b.dims(x.id)[1];
    let rows = b.of(&[3, 1, 9]);
    let log = b.store.add_var("log", Spec::float([rows, columns]), None);
    let at = b.words(1, rows as u32 + 2);
    b.g.write_rows(log.clone(), x.id, at)?;
    if b.chance() {
        let after = b.g.var("log", log);
        b.push(after, x.mag, false);
    }
    Ok(())
}

/// An optimizer over all parameters, perhaps with a clipped gradient; what it wrote may be read afterwards.
pub fn optimizer(b: &mut Builder, whole: &VarView, gradient: NodeId, roots: &mut Vec<NodeId>) -> Done {
    let text = b.of(&[
        "sgd",
        "sgd:momentum=0.9,nesterov=true,weight_decay=0.01",
        "adam:eps=0.01",
        "adamw:eps=0.01,weight_decay=0.2",
        "rmsprop:eps=0.01",
        "rmsprop:centered=true,momentum=0.5,eps=0.1",
    ]);
    let kind: OptimizerKind = text.parse().expect("it is an optimizer");
    let spec = &whole.spec;
    let slots: Vec<VarView> = kind.slot_names().iter().map(|name| b.store.add_var(name, spec.clone(), None)).collect();
    let mut hyper = b.g.input("hyper", Spec::float([4]));
    b.inputs.push((hyper, Tensor::f32([4], kind.hyper(0.05, 1).to_vec()).unwrap()));
    if b.chance() {
        let stats = b.g.grad_stats(gradient)?;
        hyper = b.g.clip_grad_norm(hyper, stats, 1.0)?;
        roots.push(stats);
    }
    b.g.optimizer_step(kind, whole.clone(), &slots, gradient, hyper)?;
    let after = b.g.var("parameters", whole.clone());
    let half = b.g.scale(after, 0.5)?;
    roots.push(half);
    Ok(())
}
