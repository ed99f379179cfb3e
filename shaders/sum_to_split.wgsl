// Sums of [OUTER, KEEP, INNER] to [KEEP] in two dispatches. The idea: few outputs leave a device idle, so PARTS invocations
// share the terms of each output, neighbours reading neighbouring elements, and a second dispatch adds their partial sums.
// Which terms go into which partial sum depends on the shape alone, so every run rounds alike.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

// partial: y[k * PARTS + p] = sum of the terms p, p + PARTS, p + 2 PARTS, ... of output k
@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let k = i / PARTS;
    var sum = 0.0;
    for (var t = i % PARTS; t < OUTER * INNER; t += PARTS) {
        sum += x[((t / INNER) * KEEP + k) * INNER + t % INNER];
    }
    y[i] = sum;
}

// total: y[k] = sum of output k's partial sums
@compute @workgroup_size(WG)
fn total(@builtin(global_invocation_id) id: vec3<u32>) {
    let k = id.y * GRID_X + id.x;
    if (k >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var p = 0u; p < PARTS; p++) {
        sum += x[k * PARTS + p];
    }
    y[k] = sum;
}
