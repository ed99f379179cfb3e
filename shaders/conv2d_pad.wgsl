// x [n, c, H, W] -> [n, H_PAD, c, 4 W_VEC] with its border of zeros written out. A negative padding crops.
// The register-blocked kernels read each value dozens of times. One copy with the zeros in place takes every bounds test out
// of them and lines every row up for vec4 loads. The channels of a row lie one after the other, so that the loop over input
// channels walks through memory in small even steps that the cache can fetch ahead.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> padded: array<vec4<f32>>;

@compute @workgroup_size(64)
fn pad(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (id.x >= ROW || at >= N * H_PAD * C * W_VEC) {
        return;
    }
    // Positions left of or above the image wrap round to huge numbers, so that one comparison tests both sides.
    let ix = at % W_VEC * 4u - u32(PAD_W);
    let iy = at / (W_VEC * C) % H_PAD - u32(PAD_H);
    let row = ((at / (W_VEC * C * H_PAD) * C + at / W_VEC % C) * H + iy) * W;
    var v = vec4<f32>();
    if (iy < H) {
{% for i in range(4) %}
        if (ix + {{ i }}u < W) {
            v[{{ i }}] = x[row + ix + {{ i }}u];
        }
{% endfor %}
    }
    padded[at] = v;
}
