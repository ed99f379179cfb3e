//! Which call of the engine each op of the cases is. Names and defaults are PyTorch's.

use radiograd::graph::NodeId;
use radiograd::ops::conv2d::Conv2d;
use radiograd::ops::cross_entropy::{CrossEntropy, Reduction};
use radiograd::ops::pool2d::Pool2d;
use radiograd::shape::Shape;

use super::call::Call;

/// Records `op` with everything that the call holds.
///
/// # Errors
/// One line: the op, a parameter or an input is not known, or the engine refuses the shapes.
pub fn record(op: &str, c: &mut Call) -> Result<NodeId, String> {
    let output = match op {
        "conv2d" => {
            let (x, w, bias) = (c.input(0)?, c.input(1)?, c.optional(2)?);
            let conv = Conv2d {
                stride: c.pair("stride", Some([1, 1]))?,
                padding: c.pair("padding", Some([0, 0]))?,
                dilation: c.pair("dilation", Some([1, 1]))?,
                groups: c.count("groups", Some(1))?,
            };
            c.graph.conv2d(x, w, bias, conv)
        }
        "linear" => {
            let (x, w, bias) = (c.input(0)?, c.input(1)?, c.optional(2)?);
            c.graph.linear(x, w, bias)
        }
        "matmul" => {
            let (a, b) = (c.input(0)?, c.input(1)?);
            c.graph.matmul(a, b)
        }
        "add" | "mul" => {
            let (a, b) = (c.input(0)?, c.input(1)?);
            if op == "add" { c.graph.add(a, b) } else { c.graph.mul(a, b) }
        }
        "relu" | "sigmoid" | "tanh" | "exp" => {
            let x = c.input(0)?;
            match op {
                "relu" => c.graph.relu(x),
                "sigmoid" => c.graph.sigmoid(x),
                "tanh" => c.graph.tanh(x),
                _ => c.graph.exp(x),
            }
        }
        "leaky_relu" => {
            let (x, slope) = (c.input(0)?, c.number("negative_slope", Some(0.01))?);
            c.graph.leaky_relu(x, slope)
        }
        "elu" => {
            let (x, alpha) = (c.input(0)?, c.number("alpha", Some(1.0))?);
            c.graph.elu(x, alpha)
        }
        "scale" => {
            let (x, factor) = (c.input(0)?, c.number("factor", None)?);
            c.graph.scale(x, factor)
        }
        "softmax" | "log_softmax" => {
            let x = c.input(0)?;
            let axis = c.dim("dim", None, c.shape(x).len())?;
            if op == "softmax" { c.graph.softmax(x, axis) } else { c.graph.log_softmax(x, axis) }
        }
        "max_pool2d" => {
            let (x, pool) = (c.input(0)?, pool(c)?);
            let dilation = c.pair("dilation", Some([1, 1]))?;
            if dilation != [1, 1] {
                return Err(format!("parameter `dilation`: {dilation:?} is not supported, only [1, 1]"));
            }
            c.graph.max_pool2d(x, pool)
        }
        "avg_pool2d" => {
            let (x, pool) = (c.input(0)?, pool(c)?);
            let count_include_pad = c.flag("count_include_pad", true)?;
            c.graph.avg_pool2d(x, pool, count_include_pad)
        }
        "adaptive_avg_pool2d" => {
            let x = c.input(0)?;
            let [_, _, h, w] = c.shape(x).nchw().ok_or("`input.0` has not the four axes of an image batch")?;
            let size = c.size("output", [h, w])?;
            c.graph.adaptive_avg_pool2d(x, size)
        }
        "batch_norm2d" => return batch_norm2d(c),
        "cross_entropy" => {
            let logits = c.input(0)?;
            let classes = c.shape(logits).get(1).copied().ok_or("`input.0` has no axis of classes")?;
            let (targets, weights) = (c.labels(1, classes)?, c.optional(2)?);
            c.only("ignore_index", -100)?;
            let reduction = match c.word("reduction", "mean")?.as_str() {
                "mean" => Reduction::Mean,
                "sum" => Reduction::Sum,
                other => return Err(format!("parameter `reduction`: `{other}` is not supported, only mean and sum")),
            };
            let label_smoothing = c.number("label_smoothing", Some(0.0))?;
            c.graph.cross_entropy(logits, targets, weights, CrossEntropy { label_smoothing, reduction })
        }
        "bce_with_logits" | "binary_cross_entropy_with_logits" => {
            let (logits, targets) = (c.input(0)?, c.labels(1, 2)?);
            c.only("reduction", "mean")?;
            let pos_weight = c.number("pos_weight", Some(1.0))?;
            c.graph.bce_with_logits(logits, targets, Some(pos_weight))
        }
        "concat" => {
            let parts = c.all()?;
            let first = *parts.first().ok_or("no tensor `input.0`")?;
            let axis = c.dim("dim", Some(0), c.shape(first).len())?;
            c.graph.concat(&parts, axis)
        }
        "narrow" => {
            let x = c.input(0)?;
            let axis = c.dim("dim", None, c.shape(x).len())?;
            let (start, length) = (c.count("start", None)?, c.count("length", None)?);
            c.graph.narrow(x, axis, start, length)
        }
        "sum" => return sum(c),
        "sum_to" | "broadcast_to" => {
            let x = c.input(0)?;
            let shape = c.new_shape("shape", None)?;
            if op == "sum_to" { c.graph.sum_to(x, &shape) } else { c.graph.broadcast_to(x, &shape) }
        }
        "reshape" => {
            let x = c.input(0)?;
            let shape = c.new_shape("shape", Some(c.shape(x).numel()))?;
            c.graph.reshape(x, &shape)
        }
        "flatten" => {
            let x = c.input(0)?;
            let shape = c.shape(x);
            let (rank, last) = (shape.len(), shape.len().saturating_sub(1));
            let (start, end) = (c.dim("start_dim", Some(0), rank)?, c.dim("end_dim", Some(last), rank)?);
            if start > end || rank == 0 {
                return Err(format!("parameter `start_dim`: {start} lies behind `end_dim`, {end}"));
            }
            let joined = shape[start..=end].iter().product();
            let flat: Vec<usize> =
                shape[..start].iter().copied().chain([joined]).chain(shape[end + 1..].iter().copied()).collect();
            c.graph.reshape(x, &Shape::from(flat))
        }
        unknown => return Err(format!("unknown op `{unknown}`")),
    };
    output.map_err(|e| e.to_string())
}

fn pool(c: &mut Call) -> Result<Pool2d, String> {
    let kernel = c.pair("kernel", None)?;
    c.only("ceil_mode", false)?;
    Ok(Pool2d { kernel, stride: c.pair("stride", Some(kernel))?, padding: c.pair("padding", Some([0, 0]))? })
}

fn batch_norm2d(c: &mut Call) -> Result<NodeId, String> {
    let x = c.input(0)?;
    let channels = c.shape(x).get(1).copied().ok_or("`input.0` has no axis of channels")?;
    let mut constant = |k: usize, value: f64| match c.optional(k)? {
        Some(given) => Ok(given),
        None => c.graph.fill(&Shape::from([channels]), value).map_err(|e| e.to_string()),
    };
    let (gain, bias) = (constant(1, 1.0)?, constant(2, 0.0)?);
    let (eps, momentum) = (c.number("eps", Some(1e-5))?, c.number("momentum", Some(0.1))?);
    if !c.flag("training", false)? {
        let (mean, var) = (c.input(3)?, c.input(4)?);
        return c.graph.batch_norm2d(x, [gain, bias], [mean, var], eps).map_err(|e| e.to_string());
    }
    let norm = c.graph.batch_norm2d_train(x, gain, bias, eps).map_err(|e| e.to_string())?;
    let updates = [(3, "running_mean", norm.mean, 1.0), (4, "running_var", norm.var, norm.bessel())];
    for (k, name, statistic, factor) in updates {
        if let Some(view) = c.statistic(k, name)? {
            c.graph.ema_update(statistic, view, momentum, factor).map_err(|e| e.to_string())?;
        }
    }
    Ok(norm.y)
}

fn sum(c: &mut Call) -> Result<NodeId, String> {
    let x = c.input(0)?;
    let shape = c.shape(x);
    let dims = c.dims("dim", shape.len())?;
    let axes = || shape.iter().enumerate();
    let kept: Vec<usize> = axes().map(|(i, &d)| if dims.contains(&i) { 1 } else { d }).collect();
    let dropped: Vec<usize> = axes().filter(|(i, _)| !dims.contains(i)).map(|(_, &d)| d).collect();
    let sum = c.graph.sum_to(x, &Shape::from(kept)).map_err(|e| e.to_string())?;
    if c.flag("keepdim", false)? {
        Ok(sum)
    } else {
        c.graph.reshape(sum, &Shape::from(dropped)).map_err(|e| e.to_string())
    }
}

/// How many terms the sums behind the output, and behind the gradient of each input, have at most: long sums in `f32` are
/// allowed a larger error. `x` holds the shapes of the inputs by number; the op has accepted them.
pub fn terms(op: &str, x: &[Shape], y: &Shape) -> Vec<usize> {
    let all = |n: usize| vec![n; x.len() + 1];
    match (op, x) {
        ("conv2d", [x, w, ..]) => {
            let (taps, pixels, groups) = (w[2] * w[3], y.numel() / w[0], x[1] / w[1]);
            vec![w[1] * taps, w[0] / groups * taps, pixels, pixels]
        }
        ("linear", [x, w, ..]) => vec![w[1], w[0], x[0], x[0]],
        ("matmul", [a, b, ..]) => vec![a[1], b[1], a[0]],
        ("add" | "mul" | "broadcast_to", inputs) => {
            std::iter::once(1).chain(inputs.iter().map(|x| y.numel() / x.numel().max(1))).collect()
        }
        ("batch_norm2d", [x, ..]) => all(x.numel() / x[1].max(1)),
        ("max_pool2d" | "avg_pool2d" | "adaptive_avg_pool2d", [x, ..]) => all(x[2] * x[3]),
        ("softmax" | "log_softmax", [x, ..]) => all(x.iter().copied().max().unwrap_or(1)),
        ("cross_entropy" | "bce_with_logits" | "binary_cross_entropy_with_logits" | "sum" | "sum_to", [x, ..]) => {
            all(x.numel())
        }
        _ => all(1),
    }
}
