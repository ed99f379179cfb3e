// Mean and biased variance of each channel of x [N, C, PIXELS] in two dispatches. The idea: few channels leave a device
// idle, so PARTS invocations share the values of a channel, neighbours reading neighbouring values, and a second dispatch
// adds their partial sums. Which values go into which sum depends on the shape alone, so every run rounds alike.

@group(0) @binding(0) var<storage, read> x: array<f32>;

// Where value t of channel c lies.
fn place(c: u32, t: u32) -> u32 {
    return (t / PIXELS * C + c) * PIXELS + t % PIXELS;
}

// mean_partial: sums[c * PARTS + p] = sum of the values p, p + PARTS, p + 2 PARTS, ... of channel c
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(WG)
fn mean_partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let c = i / PARTS;
    var sum = 0.0;
    for (var t = i % PARTS; t < N * PIXELS; t += PARTS) {
        sum += x[place(c, t)];
    }
    sums[i] = sum;
}

// variance_partial: the same of the squared distances from the mean
@group(0) @binding(1) var<storage, read> means: array<f32>;
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;

@compute @workgroup_size(WG)
fn variance_partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let c = i / PARTS;
    let mean = means[c];
    var sum = 0.0;
    for (var t = i % PARTS; t < N * PIXELS; t += PARTS) {
        let centred = x[place(c, t)] - mean;
        sum += centred * centred;
    }
    squares[i] = sum;
}

// total: the sum of a channel's partial sums, divided by the number of values
@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn total(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.y * GRID_X + id.x;
    if (c >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var p = 0u; p < PARTS; p++) {
        sum += partials[c * PARTS + p];
    }
    y[c] = sum / f32(N * PIXELS);
}
