// Batch normalisation, forward and gradients on one page: one invocation an item of the result (a channel for grad_gain). An
// item is one value, or four of one channel in the vec4 variant.
//
//   y = x_hat * gain[c] + bias[c],   x_hat = (x - mean[c]) / sqrt(variance[c] + EPS)
//
// x and y are [N, C, PIXELS], PIXELS counted in items; a channel has VALUES values in the whole batch.

@group(0) @binding(0) var<storage, read> x: array<{{ ITEM }}>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;

fn channel(e: u32) -> u32 {
    return (e / PIXELS) % C;
}

fn inverse_std(variance: f32) -> f32 {
    return 1.0 / sqrt(variance + EPS);
}

// ---------------------------------------------------------------------------- forward: x, gain, bias, mean, variance -> y
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<{{ ITEM }}>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let c = channel(e);
    y[e] = (x[e] - mean[c]) * (gain[c] * inverse_std(variance[c])) + bias[c];
}

// -------------------------------------------------------------- gradient of the gain: x, dy, mean, variance -> sum of dy x_hat
@group(0) @binding(0) var<storage, read> x_0: array<f32>;
@group(0) @binding(1) var<storage, read> dy_1: array<f32>;
@group(0) @binding(2) var<storage, read_write> dgain_2: array<f32>;

@compute @workgroup_size(WG)
fn grad_gain(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.y * GRID_X + id.x;
    if (c >= COUNT) {
        return;
    }
    // Blocks of 256 values are added up before they join the total, which keeps the rounding error of long sums small. A
    // dispatch adds the blocks FIRST to LAST of all TURNS; further ones add the rest, and the last one finishes.
    let blocks = (PIXELS + 255u) / 256u;
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = dgain_2[c];
    }
    for (var block = FIRST; block < LAST; block++) {
        let plane = (block / blocks * C + c) * PIXELS;
        let first = block % blocks * 256u;
        var part = 0.0;
        for (var i = first; i < min(first + 256u, PIXELS); i++) {
            part += (x_0[plane + i] - mean[c]) * dy_1[plane + i];
        }
        sum += part;
    }
    if (LAST == TURNS) {
        sum *= inverse_std(variance[c]);
    }
    dgain_2[c] = sum;
}

// ------------------------------------------- gradient in training: x, gain, dbias, mean, variance, dgain, dy -> dx
// The statistics are those of x, so their share of the derivative is taken off dy.
@group(0) @binding(2) var<storage, read> dbias: array<f32>;
@group(0) @binding(5) var<storage, read> dgain: array<f32>;
@group(0) @binding(6) var<storage, read> dy: array<{{ ITEM }}>;
@group(0) @binding(7) var<storage, read_write> dx: array<{{ ITEM }}>;

@compute @workgroup_size(WG)
fn grad_input_training(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let c = channel(e);
    let inverse = inverse_std(variance[c]);
    let x_hat = (x[e] - mean[c]) * inverse;
    dx[e] = (dy[e] - dbias[c] / f32(VALUES) - x_hat * (dgain[c] / f32(VALUES))) * (gain[c] * inverse);
}

// ------------------------------------------------------------------- gradient in evaluation: dy, gain, variance -> dx
@group(0) @binding(0) var<storage, read> dy_0: array<{{ ITEM }}>;
@group(0) @binding(2) var<storage, read_write> dx_2: array<{{ ITEM }}>;
@group(0) @binding(3) var<storage, read> variance_3: array<f32>;

@compute @workgroup_size(WG)
fn grad_input_evaluation(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let c = channel(e);
    dx_2[e] = dy_0[e] * (gain[c] * inverse_std(variance_3[c]));
}
