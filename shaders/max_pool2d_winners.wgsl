// Gradient of maximum pooling with windows that overlap. The idea: max_pool2d.wgsl finds the winner of a window anew for each pixel that the
// window covers. Here one pass finds the winner of each window once and notes its tap, k * K_W + l; a second one gathers, for each
// pixel, the dy of the windows in which its own tap is noted. A pixel then reads as many words as windows cover it, not their pixels.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> taps: array<u32>;

{% include "lib/takes_over.wgsl" %}

// ------------------------------------------------------------------------------------ the winner's tap of each window: x -> taps
@compute @workgroup_size(WG)
fn find(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let plane = e / (W_OUT * H_OUT) * (W_IN * H_IN);
    let i = (e / W_OUT) % H_OUT * STRIDE_H;
    let j = e % W_OUT * STRIDE_W;
    // The taps inside the image.
    let first_k = PAD_H - min(i, PAD_H);
    let first_l = PAD_W - min(j, PAD_W);
    let last_k = min(K_H, H_IN + PAD_H - i);
    let last_l = min(K_W, W_IN + PAD_W - j);
    var best = x[plane + (i + first_k - PAD_H) * W_IN + (j + first_l - PAD_W)];
    var tap = first_k * K_W + first_l;
    for (var k = first_k; k < last_k; k++) {
        let row = plane + (i + k - PAD_H) * W_IN;
        for (var l = first_l; l < last_l; l++) {
            let value = x[row + (j + l - PAD_W)];
            if (takes_over(value, best)) {
                best = value;
                tap = k * K_W + l;
            }
        }
    }
    taps[e] = tap;
}

// ------------------------------------------------------------------------------------------------- gradient: taps, dy -> dx
@group(0) @binding(0) var<storage, read> noted: array<u32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

// The first window that covers `at`, a position in the padded image, and the one past the last.
fn covering(at: u32, kernel: u32, stride: u32, size: u32) -> vec2<u32> {
    var first = 0u;
    if (at >= kernel) {
        first = (at - kernel) / stride + 1u;
    }
    return vec2(first, min(at / stride + 1u, size));
}

@compute @workgroup_size(WG)
fn grad_input(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let p = e / (W_IN * H_IN);
    let row = (e / W_IN) % H_IN + PAD_H;
    let column = e % W_IN + PAD_W;
    let rows = covering(row, K_H, STRIDE_H, H_OUT);
    let columns = covering(column, K_W, STRIDE_W, W_OUT);
    var sum = 0.0;
    for (var i = rows.x; i < rows.y; i++) {
        for (var j = columns.x; j < columns.y; j++) {
            let at = (p * H_OUT + i) * W_OUT + j;
            if (noted[at] == (row - i * STRIDE_H) * K_W + (column - j * STRIDE_W)) {
                sum += dy[at];
            }
        }
    }
    dx[e] = sum;
}
