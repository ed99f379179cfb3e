// Average pooling, plainly: one invocation an element of the result, forward and gradient on one page.
//
//   y[p,i,j] = 1 / M * sum over k,l of x[p, i*STRIDE_H - PAD_H + k, j*STRIDE_W - PAD_W + l]
//
// where M = K_H K_W if COUNT_PAD, else the number of pixels that the window has inside the image.
// x is [planes, H_IN, W_IN], zero outside its borders; y is [planes, H_OUT, W_OUT]; a plane is one channel of one image.

// First pixel of window i along an axis, and the one past the last.
fn window(i: u32, kernel: u32, stride: u32, pad: u32, size: u32) -> vec2<u32> {
    return vec2(max(i * stride, pad) - pad, min(i * stride + kernel - pad, size));
}

// The divisor of a window.
fn members(rows: vec2<u32>, columns: vec2<u32>) -> f32 {
    if (COUNT_PAD) {
        return f32(K_H * K_W);
    }
    return f32((rows.y - rows.x) * (columns.y - columns.x));
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
    let j = e % W_OUT;
    let i = (e / W_OUT) % H_OUT;
    let plane = e / (W_OUT * H_OUT) * (W_IN * H_IN);
    let rows = window(i, K_H, STRIDE_H, PAD_H, H_IN);
    let columns = window(j, K_W, STRIDE_W, PAD_W, W_IN);
    var sum = 0.0;
    for (var row = rows.x; row < rows.y; row++) {
        for (var column = columns.x; column < columns.y; column++) {
            sum += x[plane + row * W_IN + column];
        }
    }
    y[e] = sum / members(rows, columns);
}

// ---------------------------------------------------------------------------------------------------- gradient: dy -> dx
// Each invocation gathers over the windows that cover its pixel; nothing is scattered.
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;

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
            let m = members(window(i, K_H, STRIDE_H, PAD_H, H_IN), window(j, K_W, STRIDE_W, PAD_W, W_IN));
            sum += dy[(p * H_OUT + i) * W_OUT + j] / m;
        }
    }
    dx[e] = sum;
}
