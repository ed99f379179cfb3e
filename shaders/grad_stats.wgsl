// The sum of squares of the finite elements of x [N], and the number of those that are NaN or infinite, in three dispatches:
// PARTS partial results, FOLDS of those, one. Which elements go into which partial result depends on N alone.

@group(0) @binding(0) var<storage, read> x: array<u32>;   // the floats' bits
@group(0) @binding(1) var<storage, read_write> parts: array<vec2<f32>>;

const EXPONENT: u32 = 0x7f800000u;   // all ones in NaN and infinity alone

// partial: the elements p, p + PARTS, p + 2 PARTS, ...
@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = id.y * GRID_X + id.x;
    if (p >= COUNT) {
        return;
    }
    var squares = 0.0;
    var others = 0.0;
    for (var i = p; i < N; i += PARTS) {
        let bits = x[i];
        if ((bits & EXPONENT) == EXPONENT) {
            others += 1.0;
        } else {
            let value = bitcast<f32>(bits);
            squares += value * value;
        }
    }
    parts[p] = vec2(squares, others);
}

@group(0) @binding(0) var<storage, read> parts_0: array<vec2<f32>>;

// fold: the partial results f, f + FOLDS, f + 2 FOLDS, ...
@compute @workgroup_size(WG)
fn fold(@builtin(global_invocation_id) id: vec3<u32>) {
    let f = id.y * GRID_X + id.x;
    if (f >= COUNT) {
        return;
    }
    var sum = vec2(0.0, 0.0);
    for (var p = f; p < PARTS; p += FOLDS) {
        sum += parts_0[p];
    }
    parts[f] = sum;
}

@group(0) @binding(1) var<storage, read_write> y: array<f32>;

// total: one invocation adds these up, in order
@compute @workgroup_size(WG)
fn total(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y * GRID_X + id.x >= COUNT) {
        return;
    }
    var sum = vec2(0.0, 0.0);
    for (var f = 0u; f < FOLDS; f++) {
        sum += parts_0[f];
    }
    y[0] = sum.x;
    y[1] = sum.y;
}
