// A gradient with zeros between its pixels: dy [planes, H_OUT, W_OUT] -> [planes, H, W].
//
// The input gradient of a convolution with stride (STRIDE_H, STRIDE_W) is that of one with stride 1 whose dy has zeros where no output
// was computed. So the fast kernels of stride 1 serve it; they multiply by zeros STRIDE_H * STRIDE_W - 1 times out of that many, and are
// still far ahead of the plain kernel, which tests for each tap whether an output read the pixel through it.
//
// GATE: the gradient passes a ReLU on its way, by the activation `gate`.
@group(0) @binding(0) var<storage, read> dy: array<f32>;
{% if GATE %}
@group(0) @binding(1) var<storage, read> gate: array<f32>;
{% endif %}
@group(0) @binding({{ 2 if GATE else 1 }}) var<storage, read_write> to: array<f32>;

@compute @workgroup_size(64)
fn spread(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * ROW + id.x;
    if (id.x >= ROW || e >= COUNT) {
        return;
    }
    let row = e / W % H;
    let column = e % W;
    let i = row / STRIDE_H;
    let j = column / STRIDE_W;
    var value = 0.0;
    if (row % STRIDE_H == 0u && column % STRIDE_W == 0u && i < H_OUT && j < W_OUT) {
        let at = (e / (W * H) * H_OUT + i) * W_OUT + j;
{% if GATE %}
        if (!(gate[at] <= 0.0)) {
            value = dy[at];
        }
{% else %}
        value = dy[at];
{% endif %}
    }
    to[e] = value;
}
