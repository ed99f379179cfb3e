// Maximum pooling, plainly: one invocation an element of the result, forward and gradient on one page.
//
//   y[p,i,j] = max over k,l of x[p, i*STRIDE_H - PAD_H + k, j*STRIDE_W - PAD_W + l]     over the taps inside the image
//
// x is [planes, H_IN, W_IN], y is [planes, H_OUT, W_OUT], row-major; a plane is one channel of one image. The padding is at
// most half the kernel, so no window is empty.

@group(0) @binding(0) var<storage, read> x: array<f32>;

// PyTorch's rule: a later pixel takes over when it is larger or NaN. The bits are asked, because WGSL may assume NaN away.
fn takes_over(value: f32, best: f32) -> bool {
    return value > best || (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}

// Where in x the maximum of the window of output (i, j) lies, in the plane that begins at `plane`.
fn winner(plane: u32, i: u32, j: u32) -> u32 {
    let top = max(i * STRIDE_H, PAD_H) - PAD_H;
    let left = max(j * STRIDE_W, PAD_W) - PAD_W;
    let bottom = min(i * STRIDE_H + K_H - PAD_H, H_IN);
    let right = min(j * STRIDE_W + K_W - PAD_W, W_IN);
    var at = plane + top * W_IN + left;
    var best = x[at];
    for (var row = top; row < bottom; row++) {
        for (var column = left; column < right; column++) {
            let candidate = plane + row * W_IN + column;
            let value = x[candidate];
            if (takes_over(value, best)) {
                best = value;
                at = candidate;
            }
        }
    }
    return at;
}

// --------------------------------------------------------------------------------------------------------- forward: x -> y
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let plane = e / (W_OUT * H_OUT) * (W_IN * H_IN);
    y[e] = x[winner(plane, (e / W_OUT) % H_OUT, e % W_OUT)];
}

// ------------------------------------------------------------------------------------------------- gradient: x, dy -> dx
// Each invocation gathers, over the windows that cover its pixel, the dy of those that it won; nothing is scattered.
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

// The first window that covers `at`, and the one past the last.
fn covering(at: u32, kernel: u32, stride: u32, pad: u32, size: u32) -> vec2<u32> {
    let shifted = at + pad;
    var first = 0u;
    if (shifted >= kernel) {
        first = (shifted - kernel) / stride + 1u;
    }
    return vec2(first, min(shifted / stride + 1u, size));
}

@compute @workgroup_size(WG)
fn grad_input(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let p = e / (W_IN * H_IN);
    let rows = covering((e / W_IN) % H_IN, K_H, STRIDE_H, PAD_H, H_OUT);
    let columns = covering(e % W_IN, K_W, STRIDE_W, PAD_W, W_OUT);
    var sum = 0.0;
    for (var i = rows.x; i < rows.y; i++) {
        for (var j = columns.x; j < columns.y; j++) {
            if (winner(p * (W_IN * H_IN), i, j) == e) {
                sum += dy[(p * H_OUT + i) * W_OUT + j];
            }
        }
    }
    dx[e] = sum;
}
