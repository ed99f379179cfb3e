// Mean and biased variance of each channel of x [N, C, PIXELS], plainly: one invocation a channel. The values of one image
// are added up before they join the total, which keeps the rounding error of long sums small.

@group(0) @binding(0) var<storage, read> x: array<f32>;

// --------------------------------------------------------------------------------------------------------------- x -> mean
@group(0) @binding(1) var<storage, read_write> mean_out: array<f32>;

@compute @workgroup_size(WG)
fn mean(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.y * GRID_X + id.x;
    if (c >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var n = 0u; n < N; n++) {
        var part = 0.0;
        for (var i = 0u; i < PIXELS; i++) {
            part += x[(n * C + c) * PIXELS + i];
        }
        sum += part;
    }
    mean_out[c] = sum / f32(N * PIXELS);
}

// ----------------------------------------------------------------------------------------------------------- x, mean -> var
@group(0) @binding(1) var<storage, read> means: array<f32>;
@group(0) @binding(2) var<storage, read_write> variance_out: array<f32>;

@compute @workgroup_size(WG)
fn variance(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.y * GRID_X + id.x;
    if (c >= COUNT) {
        return;
    }
    let mean = means[c];
    var sum = 0.0;
    for (var n = 0u; n < N; n++) {
        var part = 0.0;
        for (var i = 0u; i < PIXELS; i++) {
            let centred = x[(n * C + c) * PIXELS + i] - mean;
            part += centred * centred;
        }
        sum += part;
    }
    variance_out[c] = sum / f32(N * PIXELS);
}
