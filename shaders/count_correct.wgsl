// How many rows of x [N, C] have their largest value, the first of equals, at t [N]. One column: above 0 means class 1.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> t: array<u32>;
@group(0) @binding(2) var<storage, read_write> parts: array<u32>;

// The class that row n says.
fn class_of(n: u32) -> u32 {
    if (C == 1u) {
        return select(0u, 1u, x[n] > 0.0);
    }
    var best = 0u;
    for (var c = 1u; c < C; c++) {
        if (x[n * C + c] > x[n * C + best]) {
            best = c;
        }
    }
    return best;
}

// partial: the count in the rows p, p + PARTS, p + 2 PARTS, ...
@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = id.y * GRID_X + id.x;
    if (p >= COUNT) {
        return;
    }
    var count = 0u;
    for (var n = p; n < N; n += PARTS) {
        count += select(0u, 1u, class_of(n) == t[n]);
    }
    parts[p] = count;
}

@group(0) @binding(0) var<storage, read> parts_0: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

// total: one invocation adds the counts up
@compute @workgroup_size(WG)
fn total(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y * GRID_X + id.x >= COUNT) {
        return;
    }
    var count = 0u;
    for (var p = 0u; p < PARTS; p++) {
        count += parts_0[p];
    }
    y[0] = f32(count);
}
