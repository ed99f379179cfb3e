//! candle's side of the comparison (CPU): training steps and forward kernels, one JSON object a line. See
//! ../../README.md. Its backward pass gives both gradients of a convolution at once, so they are not timed one by one.

use std::process::ExitCode;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::Dropout;
use candle_nn::{AdamW, Conv2d, Conv2dConfig, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use peer_common::{BATCHES, Clock, Conv, Options, RATE, Work, conv_layer, labels};

/// As pinned in Cargo.toml.
const VERSION: &str = "0.11.1";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::result::Result<(), String> {
    let o = Options::read("cpu")?;
    if o.device != "cpu" {
        return Err(format!("--device {}: give cpu", o.device));
    }
    for (name, work) in o.workloads()? {
        let clock = Clock::start("candle cpu".into(), VERSION, &name, o.budget);
        match work {
            Work::Step { chain, input, batch } => step(&clock, &chain, input, batch),
            Work::Conv { input: [c, h, w], batch } => conv(&clock, [batch, c, h, w]),
            Work::Pool { input: [c, h, w], batch } => {
                let x = normal(&[batch, c, h, w]);
                x.and_then(|x| forward(&clock, || x.max_pool2d(2)))
            }
            Work::Matmul { size } => {
                let inputs = normal(&[size, size]).and_then(|a| Ok((a, normal(&[size, size])?)));
                inputs.and_then(|(a, b)| forward(&clock, || a.matmul(&b)))
            }
        }
        .map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn normal(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 1f32, shape, &Device::Cpu)
}

/// Times `f` and reports the mean of its result.
fn forward(clock: &Clock, f: impl Fn() -> Result<Tensor>) -> Result<()> {
    let mut out = None;
    let times = clock.measure(|| {
        out = Some(f().map_err(|e| e.to_string())?);
        Ok(())
    });
    let mean = out.map_or(Ok(f32::NAN), |y| y.mean_all()?.to_scalar::<f32>())?;
    times.map_err(candle_core::Error::msg)?.report("forward", mean);
    Ok(())
}

fn conv(clock: &Clock, shape: [usize; 4]) -> Result<()> {
    let c = shape[1];
    let same = Conv2dConfig { padding: 1, ..Default::default() };
    let layer = Conv2d::new(normal(&[c, c, 3, 3])?, Some(normal(&[c])?), same);
    let x = normal(&shape)?;
    forward(clock, || layer.forward(&x))
}

enum Layer {
    Conv(Conv2d),
    Dense(Linear),
    Relu,
    Pool,
    Flatten,
    Dropout(Dropout),
}

fn network(chain: &str, input: [usize; 3], vars: &VarBuilder) -> Result<Vec<Layer>> {
    let [mut c, mut h, mut w] = input;
    let read = |(i, text): (usize, &str)| {
        let bad = || candle_core::Error::msg(format!("{chain}: cannot read the layer {text:?}"));
        Ok(match text {
            "relu" => Layer::Relu,
            "pool" => {
                (h, w) = (h / 2, w / 2);
                Layer::Pool
            }
            "flatten" => {
                (c, h, w) = (c * h * w, 1, 1);
                Layer::Flatten
            }
            "dropout" => Layer::Dropout(Dropout::new(0.5)),
            _ => {
                let vars = vars.pp(i);
                if let Some(out) = text.strip_prefix("dense") {
                    let inputs = c;
                    c = out.parse().map_err(|_| bad())?;
                    Layer::Dense(candle_nn::linear(inputs, c, vars)?)
                } else {
                    let Conv { out, kernel: k, padding } = conv_layer(text).ok_or_else(bad)?;
                    let conv = Conv2dConfig { padding, ..Default::default() };
                    let layer = candle_nn::conv2d(c, out, k, conv, vars)?;
                    (c, h, w) = (out, h + 2 * padding + 1 - k, w + 2 * padding + 1 - k);
                    Layer::Conv(layer)
                }
            }
        })
    };
    chain.split('-').enumerate().map(read).collect()
}

fn step(clock: &Clock, chain: &str, input: [usize; 3], batch: usize) -> Result<()> {
    let map = VarMap::new();
    let net = network(chain, input, &VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    let rate = ParamsAdamW { lr: RATE, weight_decay: 0.0, ..Default::default() };
    let mut adam = AdamW::new(map.all_vars(), rate)?;
    let [c, h, w] = input;
    let data: Vec<(Tensor, Tensor)> = (0..BATCHES)
        .map(|i| Ok((normal(&[batch, c, h, w])?, Tensor::new(labels(batch, i), &Device::Cpu)?)))
        .collect::<Result<_>>()?;
    let mut number = 0;
    let mut last = f32::NAN;
    let mut one = || -> Result<()> {
        let (x, y) = &data[number % BATCHES];
        number += 1;
        let forward = |x: Tensor, layer: &Layer| match layer {
            Layer::Conv(conv) => conv.forward(&x),
            Layer::Dense(dense) => dense.forward(&x),
            Layer::Relu => x.relu(),
            Layer::Pool => x.max_pool2d(2),
            Layer::Flatten => x.flatten_from(1),
            Layer::Dropout(dropout) => dropout.forward(&x, true),
        };
        let loss = candle_nn::loss::cross_entropy(&net.iter().try_fold(x.clone(), forward)?, y)?;
        adam.backward_step(&loss)?;
        last = loss.to_scalar()?;
        Ok(())
    };
    let times = clock.measure(|| one().map_err(|e| e.to_string())).map_err(candle_core::Error::msg)?;
    times.report("step", last);
    Ok(())
}
