// 2-d convolution, one invocation an output as in conv2d.wgsl, with the window clipped once.
//
// Idea: which taps of a window fall outside the image depends on the output's place alone. So the first and the last tap of each axis are
// computed before the loops, which then run without a test or a branch inside. The input gradient is the same: of the outputs that
// a pixel may have gone into, a stride leaves every STRIDE-th tap, so the loop starts at the first that fits and steps over the others.
const C_GROUP = C_IN / GROUPS;  // input channels that one output channel sees
const O_GROUP = C_OUT / GROUPS; // output channels of one group

// The taps k, from .x to below .y, for which 0 <= start + k * dil < size. `start` is negative left of the image.
fn clip(start: i32, dil: u32, size: u32, taps: u32) -> vec2<u32> {
    let d = i32(dil);
    let first = max(0, (d - 1 - start) / d);
    let end = clamp((i32(size) - start + d - 1) / d, 0, i32(taps));
    return vec2(u32(select(first, 0, start >= 0)), u32(end));
}

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
    let i = e / W_OUT % H_OUT;
    let o = e / (W_OUT * H_OUT) % C_OUT;
    let n = e / (W_OUT * H_OUT * C_OUT);
    let left = i32(j * STRIDE_W) - i32(PAD_W);
    let top = i32(i * STRIDE_H) - i32(PAD_H);
    let columns = clip(left, DIL_W, W_IN, K_W);
    let rows = clip(top, DIL_H, H_IN, K_H);
    var sum = 0.0;
    if (BIAS) {
        sum = b[o];
    }
    for (var c = 0u; c < C_GROUP; c++) {
        let plane = (n * C_IN + o / O_GROUP * C_GROUP + c) * H_IN;
        for (var k = rows.x; k < rows.y; k++) {
            let at_x = (plane + u32(top + i32(k * DIL_H))) * W_IN;
            let at_w = ((o * C_GROUP + c) * K_H + k) * K_W;
            for (var l = columns.x; l < columns.y; l++) {
                sum += w[at_w + l] * x[at_x + u32(left + i32(l * DIL_W))];
            }
        }
    }
    y[e] = sum;
}

// ------------------------------------------------------------------------------------------- input gradient: dy, w -> dx
// Pixel `at` was seen by output (at + pad - k dil) / stride through tap k. Either stride or dilation is 1 along each axis.
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

// The first tap that the stride hits, and the end of those that lead to an output below `size`.
fn seen(at: u32, stride: u32, pad: u32, dil: u32, size: u32, taps: u32) -> vec2<u32> {
    let scaled = i32(at + pad);
    // scaled - k dil <= (size - 1) stride, and >= 0
    let least = max(0, (scaled - i32((size - 1u) * stride) + i32(dil) - 1) / i32(dil));
    let first = select(least, 0, scaled <= i32((size - 1u) * stride));
    // With a stride (and dilation 1) only every stride-th tap fits: those with the remainder of `scaled`.
    let wait = (scaled - first) % i32(stride);
    let aligned = select(first, first + (wait + i32(stride)) % i32(stride), stride > 1u);
    return vec2(u32(aligned), u32(min(scaled / i32(dil) + 1, i32(taps))));
}

@compute @workgroup_size(WG)
fn grad_input(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let column = e % W_IN;
    let row = e / W_IN % H_IN;
    let channel = e / (W_IN * H_IN) % C_IN;
    let n = e / (W_IN * H_IN * C_IN);
    let c = channel % C_GROUP;
    let first = channel / C_GROUP * O_GROUP;
    let rows = seen(row, STRIDE_H, PAD_H, DIL_H, H_OUT, K_H);
    let columns = seen(column, STRIDE_W, PAD_W, DIL_W, W_OUT, K_W);
    var sum = 0.0;
    for (var o = first; o < first + O_GROUP; o++) {
        for (var k = rows.x; k < rows.y; k += STRIDE_H) {
            let at_y = ((n * C_OUT + o) * H_OUT + (row + PAD_H - k * DIL_H) / STRIDE_H) * W_OUT;
            let at_w = ((o * C_GROUP + c) * K_H + k) * K_W;
            for (var l = columns.x; l < columns.y; l += STRIDE_W) {
                sum += w[at_w + l] * dy[at_y + (column + PAD_W - l * DIL_W) / STRIDE_W];
            }
        }
    }
    dx[e] = sum;
}
