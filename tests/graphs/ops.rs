//! How each op is recorded from choices: every op of the registry, those that change variables, and chains that fuse.

use radiograd::graph::NodeId;
use radiograd::ops::conv2d::Conv2d;
use radiograd::ops::conv2d_block::Post;
use radiograd::ops::dropout::Dropout;
use radiograd::ops::max_pool2d::Pool2d;
use radiograd::ops::reshape::Pack;
use radiograd::ops::sample::Fill;
use radiograd::shape::{Shape, ShapeError};
use radiograd::store::Role;

use super::{Builder, Value, training};

pub type Done = Result<(), ShapeError>;

/// Records an op with choices of the builder.
pub type Record = fn(&mut Builder) -> Done;

/// All of them. `optimizer_step` is recorded at the end of a graph, from its gradients.
pub const OPS: &[(&str, Record)] = &[
    ("conv2d", conv2d),
    ("conv2d, relu", |b| chain(b, false)),
    ("conv2d, relu, max_pool2d", |b| chain(b, true)),
    ("conv2d_relu", |b| block(b, Post::Relu)),
    ("conv2d_relu_max_pool2d", |b| block(b, Post::ReluMaxPool)),
    ("linear", linear),
    ("matmul", matmul),
    ("add", |b| binary(b, true)),
    ("mul", |b| binary(b, false)),
    ("broadcast_to", broadcast_to),
    ("sum_to", sum_to),
    ("reshape", reshape),
    ("fill", fill),
    ("pack", pack),
    ("max_pool2d", |b| pool(b, true)),
    ("avg_pool2d", |b| pool(b, false)),
    ("adaptive_avg_pool2d", adaptive_avg_pool2d),
    ("concat", concat),
    ("narrow", narrow),
    ("dropout", dropout),
    ("channel_mean", |b| channel_stats(b, false)),
    ("channel_var", |b| channel_stats(b, true)),
    ("batch_norm2d", batch_norm2d),
    ("softmax", |b| softmax(b, false)),
    ("log_softmax", |b| softmax(b, true)),
    ("cross_entropy", training::cross_entropy),
    ("bce_with_logits", training::bce_with_logits),
    ("gather_images", training::gather_images),
    ("augment_images", training::augment_images),
    ("gather_labels", training::gather_labels),
    ("gather_rows", training::gather_rows),
    ("count_correct", training::count_correct),
    ("grad_stats", training::grad_stats),
    ("clip_grad_norm", training::clip_grad_norm),
    ("ema_update", training::ema_update),
    ("write_rows", training::write_rows),
    ("relu", |b| pointwise(b, 0)),
    ("leaky_relu", |b| pointwise(b, 1)),
    ("elu", |b| pointwise(b, 2)),
    ("sigmoid", |b| pointwise(b, 3)),
    ("tanh", |b| pointwise(b, 4)),
    ("exp", |b| pointwise(b, 5)),
    ("scale", |b| pointwise(b, 6)),
];

/// Settings and inputs of a convolution of some image.
fn convolution(b: &mut Builder, plain: bool) -> (Value, NodeId, Option<NodeId>, Conv2d, f64) {
    let x = b.image();
    let d = b.dims(x.id);
    let padding = [b.below(3), b.below(3)];
    let kernel = [0, 1].map(|a| (b.of(&[3, 1, 2, 5])).min(d[2 + a] + 2 * padding[a]));
    let stride = if plain { [1, 1] } else { [0, 1].map(|_| b.of(&[1, 2, 3])) };
    let fits = |a: usize| 2 * (kernel[a] - 1) < d[2 + a] + 2 * padding[a];
    let wide = !plain && b.below(4) == 3;
    let dilation = [0, 1].map(|a| if wide && fits(a) { 2 } else { 1 });
    let divisors: Vec<usize> = (1..=d[1]).filter(|g| d[1].is_multiple_of(*g)).collect();
    let groups = if plain || b.below(3) < 2 { 1 } else { b.of(&divisors) };
    let out = groups * b.of(&[1, 3, 8, 2, 17]).min(if groups > 4 { 2 } else { 17 });
    let fan = d[1] / groups * kernel[0] * kernel[1];
    let mag = 1.0 / (fan as f64).sqrt();
    let w = b.leaf(&[out, d[1] / groups, kernel[0], kernel[1]], mag);
    let bias = b.chance().then(|| b.leaf(&[out], 1.0));
    let mag = x.mag + if bias.is_some() { 1.0 } else { 0.0 };
    (x, w, bias, Conv2d { stride, padding, dilation, groups }, mag)
}

fn conv2d(b: &mut Builder) -> Done {
    let (x, w, bias, conv, mag) = convolution(b, false);
    let y = b.g.conv2d(x.id, w, bias, conv)?;
    b.push(y, mag, x.clean);
    Ok(())
}

/// A convolution followed by what the fusion pass looks for; now and then somebody else reads what lies between.
fn chain(b: &mut Builder, pooled: bool) -> Done {
    let (x, w, bias, conv, mag) = convolution(b, true);
    let y = b.g.conv2d(x.id, w, bias, conv)?;
    let shared = b.below(8);
    if shared == 7 {
        b.push(y, mag, x.clean);
    }
    let r = b.g.relu(y)?;
    let d = b.dims(r);
    if !pooled || d[2] < 2 || d[3] < 2 {
        b.push(r, mag, x.clean);
        return Ok(());
    }
    if shared == 6 {
        b.push(r, mag, x.clean);
    }
    let p = b.g.max_pool2d(r, Pool2d::square(2))?;
    b.push(p, mag, x.clean);
    Ok(())
}

fn block(b: &mut Builder, post: Post) -> Done {
    let (x, w, bias, conv, mag) = convolution(b, post == Post::ReluMaxPool);
    let (d, k) = (b.dims(x.id), b.dims(w));
    let out = [0, 1].map(|a| conv.extent(a, d[2 + a], k[2 + a]).unwrap_or(0));
    let post = if out[0] < 2 || out[1] < 2 { Post::Relu } else { post };
    let y = b.g.conv2d_block(x.id, w, bias, conv, post)?;
    b.push(y, mag, x.clean);
    Ok(())
}

fn linear(b: &mut Builder) -> Done {
    let x = b.matrix();
    let k = b.dims(x.id)[1];
    let out = b.of(&[2, 1, 5, 33]);
    let w = b.leaf(&[out, k], 1.0 / (k as f64).sqrt());
    let bias = b.chance().then(|| b.leaf(&[out], 1.0));
    let y = b.g.linear(x.id, w, bias)?;
    b.push(y, x.mag + 1.0, x.clean);
    Ok(())
}

fn matmul(b: &mut Builder) -> Done {
    let left = b.matrix();
    let k = b.dims(left.id)[1];
    let right = b.pick(|d| d.len() == 2 && d[0] == k, |b| vec![k, b.of(&[2, 1, 5, 33])]);
    let y = b.g.matmul(left.id, right.id)?;
    b.push(y, left.mag * right.mag * (k as f64).sqrt(), left.clean && right.clean);
    Ok(())
}

fn binary(b: &mut Builder, sum: bool) -> Done {
    let x = b.any();
    let d = b.dims(x.id);
    let shape = Shape::from(d.clone());
    let fits = |other: &[usize]| Shape::broadcast(&shape, &Shape::new(other)).is_some_and(|s| s.numel() <= 4096);
    let y = b.pick(fits, |b| {
        let skip = b.below(d.len() + 1);
        let ones = b.below(4);
        d[skip..].iter().enumerate().map(|(i, &n)| if ones >> i & 1 == 1 { 1 } else { n }).collect()
    });
    let id = if sum { b.g.add(x.id, y.id)? } else { b.g.mul(x.id, y.id)? };
    b.push(id, if sum { x.mag + y.mag } else { x.mag * y.mag }, x.clean && y.clean);
    Ok(())
}

fn broadcast_to(b: &mut Builder) -> Done {
    let x = b.pick(|d| d.iter().product::<usize>() <= 256 && d.len() < 4, |b| vec![b.of(&[2, 1, 7])]);
    let times = b.of(&[2, 3, 5]);
    let mut to = b.dims(x.id);
    for n in &mut to {
        if *n == 1 && b.chance() {
            *n = times;
        }
    }
    to.insert(0, times);
    let id = b.g.broadcast_to(x.id, &Shape::from(to))?;
    b.push(id, x.mag, x.clean);
    Ok(())
}

fn sum_to(b: &mut Builder) -> Done {
    let x = b.pick(|d| !d.is_empty() && d.iter().product::<usize>() > 1, Builder::new_image);
    let d = b.dims(x.id);
    let skip = b.below(d.len() + 1);
    let ones = b.below(16);
    let to: Vec<usize> = d[skip..].iter().enumerate().map(|(i, &n)| if ones >> i & 1 == 1 { 1 } else { n }).collect();
    let to = Shape::from(if to == d { vec![1; d.len()] } else { to });
    let count = Shape::from(d).numel() / to.numel().max(1);
    let id = b.g.sum_to(x.id, &to)?;
    b.push(id, x.mag * count as f64, x.clean);
    Ok(())
}

fn reshape(b: &mut Builder) -> Done {
    let x = b.any();
    let d = b.dims(x.id);
    let n: usize = d.iter().product();
    let divisors: Vec<usize> = (1..=n).filter(|k| n.is_multiple_of(*k)).collect();
    let first = b.of(&divisors);
    let rest = n / first;
    let second: Vec<usize> = divisors.into_iter().filter(|k| rest.is_multiple_of(*k)).collect();
    let second = b.of(&second);
    let to = match b.below(4) {
        0 => vec![first, rest],
        1 => vec![1, first, second, rest / second],
        2 => vec![n],
        _ => vec![first, second, 1, rest / second],
    };
    let to = Shape::from(if to == d { vec![1, n] } else { to });
    let id = b.g.reshape(x.id, &to)?;
    b.push(id, x.mag, x.clean);
    Ok(())
}

fn fill(b: &mut Builder) -> Done {
    let shape = b.new_shape();
    let value = b.of(&[0.5, -1.5, 0.0, 1.0]);
    let id = b.g.fill(&Shape::from(shape), value)?;
    b.push(id, 1.0, true);
    Ok(())
}

fn pack(b: &mut Builder) -> Done {
    let (mut ids, mut offsets, mut end, mut mag) = (Vec::new(), Vec::new(), 0, 0.0f64);
    for _ in 0..=b.below(3) {
        let x = b.any();
        ids.push(x.id);
        offsets.push(end);
        end = (end + b.g.spec(x.id).numel()).next_multiple_of(64) + 64 * b.below(2);
        mag = mag.max(x.mag);
    }
    let id = b.g.apply(Pack { offsets, len: end }, &ids)?;
    b.push(id, mag, false);
    Ok(())
}

fn pool(b: &mut Builder, max: bool) -> Done {
    let x = b.image();
    let d = b.dims(x.id);
    let padded = b.below(3);
    let kernel = [0, 1].map(|a| b.of(&[2, 1, 3, 4]).min(d[2 + a]));
    let padding = kernel.map(|k| padded.min(k / 2));
    let stride = if b.chance() { [0, 1].map(|_| b.of(&[1, 2, 3])) } else { kernel };
    let pool = Pool2d { kernel, stride, padding };
    let id = if max { b.g.max_pool2d(x.id, pool)? } else { b.g.avg_pool2d(x.id, pool, padded != 1)? };
    b.push(id, x.mag, x.clean);
    Ok(())
}

fn adaptive_avg_pool2d(b: &mut Builder) -> Done {
    let x = b.image();
    let out = [b.of(&[1, 2, 3, 7]), b.of(&[1, 2, 5])];
    let id = b.g.adaptive_avg_pool2d(x.id, out)?;
    b.push(id, x.mag, x.clean);
    Ok(())
}

fn concat(b: &mut Builder) -> Done {
    let x = b.pick(|d| !d.is_empty() && d.iter().product::<usize>() <= 2048, Builder::new_image);
    let d = b.dims(x.id);
    let axis = b.below(d.len());
    let (mut all, mut mag, mut clean) = (vec![x.id], x.mag, x.clean);
    for _ in 0..b.below(3) {
        let same = |other: &[usize]| {
            other.len() == d.len() && other[axis] < 64 && (0..d.len()).all(|i| i == axis || other[i] == d[i])
        };
        let y = b.pick(same, |b| {
            let mut other = d.clone();
            other[axis] = b.of(&[1, 3]);
            other
        });
        all.push(y.id);
        (mag, clean) = (mag.max(y.mag), clean && y.clean);
    }
    let id = b.g.concat(&all, axis)?;
    b.push(id, mag, clean);
    Ok(())
}

fn narrow(b: &mut Builder) -> Done {
    let x = b.pick(|d| !d.is_empty(), Builder::new_image);
    let d = b.dims(x.id);
    let axis = b.below(d.len());
    let start = b.below(d[axis]);
    let len = 1 + b.below(d[axis] - start);
    let id = b.g.narrow(x.id, axis, start, len)?;
    b.push(id, x.mag, x.clean);
    Ok(())
}

fn dropout(b: &mut Builder) -> Done {
    let x = b.any();
    let rng = b.draws();
    let p = b.of(&[0.5, 0.2, 0.0, 1.0]);
    let stream = b.g.nodes().len() as u32;
    let id = b.g.dropout(x.id, rng, Dropout { p, stream })?;
    b.push(id, 2.0 * x.mag, x.clean);
    Ok(())
}

fn channel_stats(b: &mut Builder, var: bool) -> Done {
    let x = b.image();
    let mean = b.g.channel_mean(x.id)?;
    if var {
        let var = b.g.channel_var(x.id, mean)?;
        b.push(var, x.mag * x.mag, x.clean);
    } else {
        b.push(mean, x.mag, x.clean);
    }
    Ok(())
}

fn batch_norm2d(b: &mut Builder) -> Done {
    let x = b.image();
    let d = b.dims(x.id);
    let (c, eps) = (d[1], b.of(&[0.1, 0.01, 1.0]));
    let gain = b.leaf(&[c], 1.0);
    let bias = b.leaf(&[c], 1.0);
    let kind = b.below(3);
    if kind == 0 || d[0] * d[2] * d[3] < 2 {
        let mean = b.param(Role::Buffer, &[c], Fill::Normal, 1.0).0;
        let var = b.param(Role::Buffer, &[c], Fill::Positive, 1.0).0;
        let id = b.g.batch_norm2d(x.id, [gain, bias], [mean, var], eps)?;
        b.push(id, x.mag + 2.0, x.clean);
        return Ok(());
    }
    let bn = b.g.batch_norm2d_train(x.id, gain, bias, eps)?;
    b.push(bn.y, 2.0, x.clean);
    if kind == 2 {
        let (_, view) = b.param(Role::Buffer, &[c], Fill::Positive, 1.0);
        let id = b.g.ema_update(bn.var, view, 0.1, bn.bessel())?;
        b.push(id, x.mag * x.mag, false);
    }
    Ok(())
}

fn softmax(b: &mut Builder, log: bool) -> Done {
    let x = b.pick(|d| !d.is_empty(), Builder::new_shape);
    // A scalar has no axis.
    let x = if b.dims(x.id).is_empty() { b.matrix() } else { x };
    let axis = b.below(b.g.spec(x.id).shape.len());
    let id = if log { b.g.log_softmax(x.id, axis)? } else { b.g.softmax(x.id, axis)? };
    b.push(id, if log { x.mag + 2.0 } else { 1.0 }, x.clean);
    Ok(())
}

fn pointwise(b: &mut Builder, row: usize) -> Done {
    let mut x = b.any();
    if row == 5 && x.mag > 1.5 {
        x = Value { id: b.g.scale(x.id, 1.0 / x.mag)?, mag: 1.0, ..x };
    }
    let (id, mag) = match row {
        0 => (b.g.relu(x.id)?, x.mag),
        1 => (b.g.leaky_relu(x.id, 0.1)?, x.mag),
        2 => (b.g.elu(x.id, 0.7)?, x.mag),
        3 => (b.g.sigmoid(x.id)?, 1.0),
        4 => (b.g.tanh(x.id)?, 1.0),
        5 => (b.g.exp(x.id)?, 3.0),
        _ => {
            let factor = b.of(&[2.0, -0.5, 1.0]);
            (b.g.scale(x.id, factor)?, 2.0 * x.mag)
        }
    };
    b.push(id, mag, x.clean);
    Ok(())
}
