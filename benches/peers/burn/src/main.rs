//! Burn's side of the comparison: training steps and kernels, one JSON object a line. See ../../README.md.

mod net;

use std::process::ExitCode;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};

use net::Net;
use peer_common::{BATCHES, Clock, Options, RATE, Work, labels};

/// As pinned in Cargo.toml.
const VERSION: &str = "0.22.1";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let o = Options::read("flex")?;
    for (name, work) in o.workloads()? {
        let clock = Clock::start(format!("burn {}", o.device), VERSION, &name, o.budget);
        let device = match o.device.as_str() {
            "flex" => Device::flex(),
            "wgpu" => Device::wgpu(Default::default()),
            other => return Err(format!("--device {other}: give flex or wgpu")),
        };
        match work {
            Work::Step { chain, input, batch } => step(clock, device.autodiff(), &chain, input, batch)?,
            Work::Conv { input: [c, h, w], batch } => conv(clock, &device, [batch, c, h, w])?,
            Work::Pool { input: [c, h, w], batch } => pool(clock, &device, [batch, c, h, w])?,
            Work::Matmul { size } => matmul(clock, &device, size)?,
        }
    }
    Ok(())
}

fn wait(device: &Device) -> Result<(), String> {
    device.sync().map_err(|e| e.to_string())
}

fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Forward, cross-entropy, backward, Adam; then the loss is read and the device waited for.
fn step(clock: Clock, device: Device, chain: &str, input: [usize; 3], batch: usize) -> Result<(), String> {
    let [c, h, w] = input;
    let mut net = Net::new(chain, input, &device)?;
    // Burn's own default epsilon is 1e-5; PyTorch's and Radiograd's is 1e-8.
    let mut adam = AdamConfig::new().with_epsilon(1e-8).init();
    let loss = CrossEntropyLossConfig::new().init(&device);
    let fixed = device.clone().without_autodiff();
    let data: Vec<(Tensor<4>, Tensor<1, Int>)> = (0..BATCHES)
        .map(|i| {
            let labels = Tensor::from_data(TensorData::new(labels(batch, i), [batch]), &fixed);
            (normal([batch, c, h, w], &fixed).autodiff(), labels.autodiff())
        })
        .collect();
    let mut number = 0;
    let mut last = f32::NAN;
    let times = clock.measure(|| {
        let (x, y) = data[number % BATCHES].clone();
        number += 1;
        let value = loss.forward(net.forward(x), y);
        let grads = GradientsParams::from_grads(value.backward(), &net);
        net = adam.step(RATE, net.clone(), grads);
        wait(&device)?;
        last = value.into_scalar::<f32>();
        Ok(())
    })?;
    times.report("step", last);
    Ok(())
}

/// Times `forward` on its own, then the gradient of each tensor of `leaves` on its own.
fn directions<const N: usize>(
    clock: &Clock,
    device: &Device,
    leaves: [(&str, usize); N],
    inputs: &[Tensor<4>],
    forward: impl Fn(&[Tensor<4>]) -> Tensor<4>,
) -> Result<(), String> {
    let mut out = None;
    let times = clock.measure(|| {
        out = Some(forward(inputs));
        wait(device)
    })?;
    times.report("forward", out.map_or(f32::NAN, |y| y.mean().into_scalar()));
    for (name, leaf) in leaves {
        let mut tracked = inputs.to_vec();
        tracked[leaf] = inputs[leaf].clone().autodiff().require_grad();
        let mut check = None;
        // Only the backward pass is timed. It starts from a gradient of ones, which Burn fills in itself.
        let times = clock.measure_after(
            || {
                let y = forward(&tracked);
                wait(device)?;
                Ok(y)
            },
            |y| {
                check = tracked[leaf].grad(&y.backward());
                wait(device)
            },
        )?;
        times.report(name, check.ok_or("no gradient")?.mean().into_scalar());
    }
    Ok(())
}

fn conv(clock: Clock, device: &Device, shape: [usize; 4]) -> Result<(), String> {
    let c = shape[1];
    let inputs = [normal(shape, device), normal([c, c, 3, 3], device)];
    let bias = normal([c], device);
    wait(device)?;
    directions(&clock, device, [("input_grad", 0), ("weight_grad", 1)], &inputs, |i| {
        let same = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        conv2d(i[0].clone(), i[1].clone(), Some(bias.clone()), same)
    })
}

fn pool(clock: Clock, device: &Device, shape: [usize; 4]) -> Result<(), String> {
    let inputs = [normal(shape, device)];
    wait(device)?;
    directions(&clock, device, [("input_grad", 0)], &inputs, |i| max_pool2d(i[0].clone(), MaxPoolOptions::new([2, 2])))
}

fn matmul(clock: Clock, device: &Device, size: usize) -> Result<(), String> {
    let (a, b) = (normal([size, size], device), normal([size, size], device));
    wait(device)?;
    let mut out = None;
    let times = clock.measure(|| {
        out = Some(a.clone().matmul(b.clone()));
        wait(device)
    })?;
    times.report("forward", out.map_or(f32::NAN, |y| y.mean().into_scalar()));
    Ok(())
}
