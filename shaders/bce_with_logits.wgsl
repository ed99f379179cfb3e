// Binary cross-entropy of a sigmoid: the mean over n of
//
//   q * (max(z, 0) + log(1 + exp(-|z|))),   z = x[n], q = 1 where t[n] = 0;   z = -x[n], q = POS_WEIGHT where t[n] = 1

// log(1 + u) for u in 0 to 1. Near 0 the sum loses u's digits; there the series' first terms are exact to 3e-8.
fn log_1p(u: f32) -> f32 {
    return select(log(1.0 + u), u * (1.0 - u * (0.5 - u * (1.0 / 3.0))), u < 0.005);
}

// ------------------------------------------------------------------------------------------------------ forward: x, t -> y
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> t: array<u32>;
@group(0) @binding(2) var<storage, read_write> parts: array<f32>;

// partial: the losses of the rows p, p + PARTS, p + 2 PARTS, ...
@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = id.y * GRID_X + id.x;
    if (p >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var n = p; n < N; n += PARTS) {
        let positive = t[n] != 0u;
        let z = select(x[n], -x[n], positive);
        sum += select(1.0, POS_WEIGHT, positive) * (max(z, 0.0) + log_1p(exp(-abs(z))));
    }
    parts[p] = sum;
}

@group(0) @binding(0) var<storage, read> parts_0: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

// total: one invocation adds the partial sums up, in order
@compute @workgroup_size(WG)
fn total(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y * GRID_X + id.x >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var p = 0u; p < PARTS; p++) {
        sum += parts_0[p];
    }
    y[0] = sum / f32(N);
}

// ------------------------------------------------------------------------------------------------ gradient: x, t, dy -> dx
// dz is q * sigmoid(z), and dx = -dz where t[n] = 1
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WG)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * GRID_X + id.x;
    if (n >= COUNT) {
        return;
    }
    let positive = t[n] != 0u;
    let z = select(x[n], -x[n], positive);
    let e = exp(-abs(z));
    let slope = select(1.0, e, z < 0.0) / (1.0 + e);
    dx[n] = dy[0] / f32(N) * select(1.0, -POS_WEIGHT, positive) * slope;
}
