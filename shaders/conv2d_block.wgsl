// The plain kernels of convolution + ReLU (+ 2x2 max-pool): what follows the convolution, and the way back to its output. The
// convolution itself is conv2d.wgsl, which leaves its result in `conv`, planes of H x W.
//
// The codes keep which pixel of each window won, four bits a window, four windows of a row to a word: 0 to 3 the winner in reading
// order, 4 where ReLU let nothing through.

const H_POOL = H / 2u;
const W_POOL = W / 2u;
const WORDS = (W_POOL + 3u) / 4u;

fn takes_over(value: f32, best: f32) -> bool {
    return value > best || (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}

fn relu_of(value: f32) -> f32 {
    return select(value, 0.0, value <= 0.0);
}

{% if CODES is defined %}
@group(0) @binding(0) var<storage, read> conv: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

// y = relu(conv)
@compute @workgroup_size(WG)
fn relu(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    y[i] = relu_of(conv[i]);
}

{% if CODES %}
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
{% endif %}

// y = the largest relu(conv) of each window; one invocation a word of codes: four windows.
@compute @workgroup_size(WG)
fn relu_max_pool(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let line = i / max(WORDS, 1u);
    let row = line / max(H_POOL, 1u) * H + line % max(H_POOL, 1u) * 2u;
    var word = 0u;
    for (var k = 0u; k < 4u; k++) {
        let column = i % max(WORDS, 1u) * 4u + k;
        if (column < W_POOL) {
            let at = row * W + column * 2u;
            var best = relu_of(conv[at]);
            var code = 0u;
            for (var other = 1u; other < 4u; other++) {
                let value = relu_of(conv[at + other / 2u * W + other % 2u]);
                if (takes_over(value, best)) {
                    best = value;
                    code = other;
                }
            }
            y[line * W_POOL + column] = best;
            word |= select(code, 4u, best <= 0.0) << (k * 4u);
        }
    }
{% if CODES %}
    codes[i] = word;
{% endif %}
}
{% else %}
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_conv: array<f32>;

@group(0) @binding(1) var<storage, read> activation: array<f32>;

// d_conv = dy where the activation is above 0
@compute @workgroup_size(WG)
fn open_relu(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    d_conv[i] = select(dy[i], 0.0, activation[i] <= 0.0);
}

@group(0) @binding(1) var<storage, read> winners: array<u32>;

// d_conv = dy at the winner of each window
@compute @workgroup_size(WG)
fn open_max_pool(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let column = i % W;
    let row = i / W % H;
    var value = 0.0;
    if (row / 2u < H_POOL && column / 2u < W_POOL) {
        let line = i / (W * H) * H_POOL + row / 2u;
        let code = (winners[line * WORDS + column / 8u] >> (column / 2u % 4u * 4u)) & 7u;
        if (code == row % 2u * 2u + column % 2u) {
            value = dy[line * W_POOL + column / 2u];
        }
    }
    d_conv[i] = value;
}
{% endif %}
