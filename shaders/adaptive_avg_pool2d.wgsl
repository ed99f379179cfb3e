// Adaptive average pooling: one invocation an element of the result, forward and gradient on one page.
//
// Along an axis of `size` pixels, window i of `out` covers floor(i size / out) up to ceil((i + 1) size / out), and y is the
// mean of its window. x is [planes, H_IN, W_IN], y is [planes, H_OUT, W_OUT]. A dispatch takes the rows FIRST to LAST of a
// window; where those are not all TURNS of them, further ones add the rest to what is there, and the last one finishes.

// First pixel of window i, and the one past the last. With the sizes swapped: the windows that cover pixel i.
fn window(i: u32, out: u32, size: u32) -> vec2<u32> {
    return vec2(i * size / out, ((i + 1u) * size + out - 1u) / out);
}

// --------------------------------------------------------------------------------------------------------- forward: x -> y
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let rows = window((e / W_OUT) % H_OUT, H_OUT, H_IN);
    let columns = window(e % W_OUT, W_OUT, W_IN);
    let plane = e / (W_OUT * H_OUT) * (W_IN * H_IN);
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = y[e];
    }
    for (var row = rows.x + FIRST; row < min(rows.x + LAST, rows.y); row++) {
        // A sum for each row keeps the rounding error of large windows small.
        var part = 0.0;
        for (var column = columns.x; column < columns.y; column++) {
            part += x[plane + row * W_IN + column];
        }
        sum += part;
    }
    if (LAST == TURNS) {
        sum /= f32((rows.y - rows.x) * (columns.y - columns.x));
    }
    y[e] = sum;
}

// ---------------------------------------------------------------------------------------------------- gradient: dy -> dx
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WG)
fn grad_input(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let p = e / (W_IN * H_IN);
    let above = window((e / W_IN) % H_IN, H_IN, H_OUT);
    let across = window(e % W_IN, W_IN, W_OUT);
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = dx[e];
    }
    for (var i = above.x + FIRST; i < min(above.x + LAST, above.y); i++) {
        let rows = window(i, H_OUT, H_IN);
        var part = 0.0;
        for (var j = across.x; j < across.y; j++) {
            let columns = window(j, W_OUT, W_IN);
            part += dy[(p * H_OUT + i) * W_OUT + j] / f32(columns.y - columns.x);
        }
        sum += part / f32(rows.y - rows.x);
    }
    dx[e] = sum;
}
