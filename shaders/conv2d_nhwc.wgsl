// x [n, C, H, W] -> [n, H_PAD, W_PAD, 4 C_VEC], channels innermost, with borders and missing channels of zeros written out.
// The weight gradient wants the channels of one pixel side by side: one vec4 load then brings four rows of the
// matrix product it is, and neighbouring lanes, on neighbouring channels, read one run of memory. Any stride or dilation stays aligned.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn nhwc(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (id.x >= ROW || at >= N * H_PAD * W_PAD * C_VEC) {
        return;
    }
    // Neighbouring lanes read neighbouring pixels of a plane here; the scattered side is the store, one vec4 a thread.
    let px = at % W_PAD;
    let c = at / W_PAD % C_VEC;
    let py = at / (W_PAD * C_VEC) % H_PAD;
    let n = at / (W_PAD * C_VEC * H_PAD);
    // Positions left of or above the image wrap round to huge numbers, so that one comparison tests both sides.
    let ix = px - PAD_W;
    let iy = py - PAD_H;
    var v = vec4<f32>();
    if (ix < W && iy < H) {
{% for i in range(4) %}
    {% if C % 4 != 0 %}
        if (c * 4u + {{ i }}u < C) {
            v[{{ i }}] = x[((n * C + c * 4u + {{ i }}u) * H + iy) * W + ix];
        }
    {% else %}
        v[{{ i }}] = x[((n * C + c * 4u + {{ i }}u) * H + iy) * W + ix];
    {% endif %}
{% endfor %}
    }
    out[((n * H_PAD + py) * W_PAD + px) * C_VEC + c] = v;
}
