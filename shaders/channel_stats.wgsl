// Mean and biased variance of each channel of x [N, C, PIXELS], plainly: one invocation a channel. Blocks of 256 values are
// added up before they join the total, which keeps the rounding error of long sums small. A dispatch adds the blocks FIRST
// to LAST of all TURNS; where those are not all, further ones add the rest to what is there, and the last one divides.

@group(0) @binding(0) var<storage, read> x: array<f32>;

const BLOCKS = (PIXELS + 255u) / 256u;

// --------------------------------------------------------------------------------------------------------------- x -> mean
@group(0) @binding(1) var<storage, read_write> mean_out: array<f32>;

@compute @workgroup_size(WG)
fn mean(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.y * GRID_X + id.x;
    if (c >= COUNT) {
        return;
    }
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = mean_out[c];
    }
    for (var block = FIRST; block < LAST; block++) {
        let plane = (block / BLOCKS * C + c) * PIXELS;
        let first = block % BLOCKS * 256u;
        var part = 0.0;
        for (var i = first; i < min(first + 256u, PIXELS); i++) {
            part += x[plane + i];
        }
        sum += part;
    }
    if (LAST == TURNS) {
        sum /= f32(N * PIXELS);
    }
    mean_out[c] = sum;
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
    if (FIRST > 0u) {
        sum = variance_out[c];
    }
    for (var block = FIRST; block < LAST; block++) {
        let plane = (block / BLOCKS * C + c) * PIXELS;
        let first = block % BLOCKS * 256u;
        var part = 0.0;
        for (var i = first; i < min(first + 256u, PIXELS); i++) {
            let centred = x[plane + i] - mean;
            part += centred * centred;
        }
        sum += part;
    }
    if (LAST == TURNS) {
        sum /= f32(N * PIXELS);
    }
    variance_out[c] = sum;
}
