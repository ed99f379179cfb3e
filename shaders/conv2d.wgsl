// 2-d convolution, plainly: one invocation an element of the result, forward and both gradients on one page.
//
//   y[n,o,i,j] = b[o] + sum over c,k,l of w[o,c,k,l] * x[n, c, i*STRIDE_H - PAD_H + k*DIL_H, j*STRIDE_W - PAD_W + l*DIL_W]
//
// x is [N, C_IN, H_IN, W_IN], w is [C_OUT, C_IN/GROUPS, K_H, K_W], y is [N, C_OUT, H_OUT, W_OUT], all row-major.
// Each entry point has its own bindings, numbered from 0; only one entry point runs at a time.
//
// An invocation runs the outermost loop from FIRST to LAST; where that is not the whole of it, further dispatches add the
// rest to what is there. (Software Vulkan stops an invocation without a word after 65,535 turns of its loops.)

const C_GROUP: u32 = C_IN / GROUPS;    // input channels that one output channel sees
const O_GROUP: u32 = C_OUT / GROUPS;   // output channels of one group

// Where tap k of output position o reads along an axis of length `size`; -1 outside the image.
fn source(o: u32, k: u32, stride: u32, pad: u32, dil: u32, size: u32) -> i32 {
    let at = i32(o * stride + k * dil) - i32(pad);
    return select(-1, at, at >= 0 && at < i32(size));
}

// ---------------------------------------------------------------------------------------------------- forward: x, w, b -> y
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let j = e % W_OUT;
    let i = (e / W_OUT) % H_OUT;
    let o = (e / (W_OUT * H_OUT)) % C_OUT;
    let n = e / (W_OUT * H_OUT * C_OUT);
    let first = (o / O_GROUP) * C_GROUP;
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = y[e];
    } else if (BIAS) {
        sum = b[o];
    }
    for (var k = FIRST; k < LAST; k++) {
        let row = source(i, k, STRIDE_H, PAD_H, DIL_H, H_IN);
        if (row < 0) {
            continue;
        }
        for (var l = 0u; l < K_W; l++) {
            let column = source(j, l, STRIDE_W, PAD_W, DIL_W, W_IN);
            if (column < 0) {
                continue;
            }
            for (var c = 0u; c < C_GROUP; c++) {
                let weight = w[((o * C_GROUP + c) * K_H + k) * K_W + l];
                sum += weight * x[((n * C_IN + first + c) * H_IN + u32(row)) * W_IN + u32(column)];
            }
        }
    }
    y[e] = sum;
}

// ------------------------------------------------------------------------------------------- input gradient: dy, w -> dx
// A pixel of x was seen by output (i, j) through tap (k, l) where i*STRIDE_H = row + PAD_H - k*DIL_H, and likewise for the
// column. Each invocation gathers, over all taps, the outputs that saw its pixel; nothing is scattered.
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

// The output position that reads `at` through tap k; -1 if none does.
fn target_of(at: u32, k: u32, stride: u32, pad: u32, dil: u32, size: u32) -> i32 {
    let scaled = i32(at + pad) - i32(k * dil);
    if (scaled < 0 || scaled % i32(stride) != 0 || scaled / i32(stride) >= i32(size)) {
        return -1;
    }
    return scaled / i32(stride);
}

@compute @workgroup_size(WG)
fn grad_input(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let column = e % W_IN;
    let row = (e / W_IN) % H_IN;
    let channel = (e / (W_IN * H_IN)) % C_IN;
    let n = e / (W_IN * H_IN * C_IN);
    let c = channel % C_GROUP;
    let first = (channel / C_GROUP) * O_GROUP;
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = dx[e];
    }
    for (var k = FIRST; k < LAST; k++) {
        let i = target_of(row, k, STRIDE_H, PAD_H, DIL_H, H_OUT);
        if (i < 0) {
            continue;
        }
        for (var l = 0u; l < K_W; l++) {
            let j = target_of(column, l, STRIDE_W, PAD_W, DIL_W, W_OUT);
            if (j < 0) {
                continue;
            }
            for (var o = first; o < first + O_GROUP; o++) {
                let weight = w[((o * C_GROUP + c) * K_H + k) * K_W + l];
                sum += weight * dy[((n * C_OUT + o) * H_OUT + u32(i)) * W_OUT + u32(j)];
            }
        }
    }
    dx[e] = sum;
}

// ------------------------------------------------------------------------------------------ weight gradient: x, dy -> dw
// The long sum: each weight meets every output pixel of every image. One row of outputs is added up before it joins the
// total, which keeps the rounding error of thousands of terms small.
@group(0) @binding(1) var<storage, read> dy_1: array<f32>;
@group(0) @binding(2) var<storage, read_write> dw: array<f32>;

@compute @workgroup_size(WG)
fn grad_weight(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let l = e % K_W;
    let k = (e / K_W) % K_H;
    let c = (e / (K_W * K_H)) % C_GROUP;
    let o = e / (K_W * K_H * C_GROUP);
    let channel = (o / O_GROUP) * C_GROUP + c;
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = dw[e];
    }
    // All rows of outputs of all images, one after the other.
    for (var r = FIRST; r < LAST; r++) {
        let n = r / H_OUT;
        let i = r % H_OUT;
        let row = source(i, k, STRIDE_H, PAD_H, DIL_H, H_IN);
        if (row < 0) {
            continue;
        }
        var part = 0.0;
        for (var j = 0u; j < W_OUT; j++) {
            let column = source(j, l, STRIDE_W, PAD_W, DIL_W, W_IN);
            if (column >= 0) {
                let value = x[((n * C_IN + channel) * H_IN + u32(row)) * W_IN + u32(column)];
                part += value * dy_1[((n * C_OUT + o) * H_OUT + i) * W_OUT + j];
            }
        }
        sum += part;
    }
    dw[e] = sum;
}
