// Rows picked by index:  y[b,..] = x[index[b],..], and the gradient. x has ROWS rows of LEN elements. An index past the last
// row means the last one: nothing is read out of place.

@group(0) @binding(1) var<storage, read> index: array<u32>;

// --------------------------------------------------------------------------- forward: x -> y, one invocation an element of y
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    y[e] = x[min(index[e / LEN], ROWS - 1u) * LEN + e % LEN];
}

// ------------------------------------------------------------------------ gradient: dy -> dx, one invocation an element of dx
// Adds up the dy of all rows that were picked from its own. A dispatch looks at the indices FIRST to LAST; where those are not
// all, further ones add the rest to what is there.
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WG)
fn grad_input(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let row = e / LEN;
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = dx[e];
    }
    for (var b = FIRST; b < LAST; b++) {
        if (min(index[b], ROWS - 1u) == row) {
            sum += dy[b * LEN + e % LEN];
        }
    }
    dx[e] = sum;
}
