// Maximum pooling with 2x2 windows side by side. The idea: windows do not overlap, so one invocation owns a whole window;
// it reads its four pixels once and the gradient writes all four. Where a row of x is a whole number of vec4, the `strip`
// entry points own two windows: one wide load a row, and neighbours read neighbouring memory.
//
// Pixels a b / c d of a window; the first maximum wins, as in max_pool2d.wgsl.

const W_TILES = (W_IN + 1u) / 2u;      // tiles of a row of x, the one that an odd width cuts included
const H_TILES = (H_IN + 1u) / 2u;
const W_STRIPS = max(W_IN / 4u, 1u);   // the strip entry points run only where it is W_IN / 4

{% include "lib/takes_over.wgsl" %}

fn takes_over_2(value: vec2<f32>, best: vec2<f32>) -> vec2<bool> {
    return (value > best) | ((bitcast<vec2<u32>>(value) & vec2(0x7fffffffu)) > vec2(0x7f800000u));
}

fn larger(best: f32, value: f32) -> f32 {
    return select(best, value, takes_over(value, best));
}

fn larger_2(best: vec2<f32>, value: vec2<f32>) -> vec2<f32> {
    return select(best, value, takes_over_2(value, best));
}

// ------------------------------------------------------------------------------------------------ forward, one window each
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let at = (e / (W_OUT * H_OUT) * H_IN + (e / W_OUT) % H_OUT * 2u) * W_IN + e % W_OUT * 2u;
    y[e] = larger(larger(larger(x[at], x[at + 1u]), x[at + W_IN]), x[at + W_IN + 1u]);
}

// -------------------------------------------------------------------------------------------------- forward, a strip each
@group(0) @binding(0) var<storage, read> x_4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y_2: array<vec2<f32>>;

@compute @workgroup_size(WG)
fn forward_strip(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let at = (e / (W_STRIPS * H_OUT) * H_IN + (e / W_STRIPS) % H_OUT * 2u) * W_STRIPS + e % W_STRIPS;
    let top = x_4[at];
    let bottom = x_4[at + W_STRIPS];
    y_2[e] = larger_2(larger_2(larger_2(top.xz, top.yw), bottom.xz), bottom.yw);
}

// ----------------------------------------------------------------------------------------------- gradient, one window each
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WG)
fn grad_input(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let j = e % W_TILES;
    let i = (e / W_TILES) % H_TILES;
    let p = e / (W_TILES * H_TILES);
    let at = (p * H_IN + i * 2u) * W_IN + j * 2u;
    if (i >= H_OUT || j >= W_OUT) {
        // Cut off by an odd height or width: no window covers these pixels.
        dx[at] = 0.0;
        if (j < W_OUT) {
            dx[at + 1u] = 0.0;
        }
        if (i < H_OUT) {
            dx[at + W_IN] = 0.0;
        }
        return;
    }
    let a = x[at];
    let b = x[at + 1u];
    let c = x[at + W_IN];
    let d = x[at + W_IN + 1u];
    let of_ab = larger(a, b);
    let of_abc = larger(of_ab, c);
    let d_wins = takes_over(d, of_abc);
    let c_wins = !d_wins && takes_over(c, of_ab);
    let b_wins = !d_wins && !c_wins && takes_over(b, a);
    let g = dy[(p * H_OUT + i) * W_OUT + j];
    dx[at] = select(g, 0.0, b_wins || c_wins || d_wins);
    dx[at + 1u] = select(0.0, g, b_wins);
    dx[at + W_IN] = select(0.0, g, c_wins);
    dx[at + W_IN + 1u] = select(0.0, g, d_wins);
}

// -------------------------------------------------------------------------------------------------- gradient, a strip each
@group(0) @binding(1) var<storage, read> dy_2: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> dx_4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn grad_input_strip(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let j = e % W_STRIPS;
    let i = (e / W_STRIPS) % H_TILES;
    let p = e / (W_STRIPS * H_TILES);
    let at = (p * H_IN + i * 2u) * W_STRIPS + j;
    if (i >= H_OUT) {
        dx_4[at] = vec4(0.0);
        return;
    }
    let top = x_4[at];
    let bottom = x_4[at + W_STRIPS];
    let of_ab = larger_2(top.xz, top.yw);
    let of_abc = larger_2(of_ab, bottom.xz);
    let d_wins = takes_over_2(bottom.yw, of_abc);
    let c_wins = takes_over_2(bottom.xz, of_ab) & !d_wins;
    let b_wins = takes_over_2(top.yw, top.xz) & !(c_wins | d_wins);
    let g = dy_2[(p * H_OUT + i) * W_STRIPS + j];
    let zero = vec2(0.0);
    let a_part = select(g, zero, b_wins | c_wins | d_wins);
    let b_part = select(zero, g, b_wins);
    let c_part = select(zero, g, c_wins);
    let d_part = select(zero, g, d_wins);
    dx_4[at] = vec4(a_part.x, b_part.x, a_part.y, b_part.y);
    dx_4[at + W_STRIPS] = vec4(c_part.x, d_part.x, c_part.y, d_part.y);
}
