// The gradient of batch normalisation's gain in two dispatches: dgain[c] = sum of dy * (x - mean[c]) / sqrt(variance[c] + EPS).
// As in channel_stats_split.wgsl, PARTS invocations share the values of a channel, and a second dispatch adds their partial
// sums in a fixed order. x and dy are [N, C, PIXELS].

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> means: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

// gain_partial: sums[c * PARTS + p] = sum over the values p, p + PARTS, p + 2 PARTS, ... of channel c
@compute @workgroup_size(WG)
fn gain_partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let c = i / PARTS;
    let mean = means[c];
    var sum = 0.0;
    for (var t = i % PARTS; t < N * PIXELS; t += PARTS) {
        let at = (t / PIXELS * C + c) * PIXELS + t % PIXELS;
        sum += (x[at] - mean) * dy[at];
    }
    sums[i] = sum;
}

// gain_total: the sum of a channel's partial sums, divided by its deviation
@group(0) @binding(0) var<storage, read> variance: array<f32>;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> dgain: array<f32>;

@compute @workgroup_size(WG)
fn gain_total(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.y * GRID_X + id.x;
    if (c >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var p = 0u; p < PARTS; p++) {
        sum += partials[c * PARTS + p];
    }
    dgain[c] = sum / sqrt(variance[c] + EPS);
}
