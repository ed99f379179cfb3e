// Winograd, the filters: u = G w Gt for each pair of channels, w [out, in, 3, 3] -> u [T * T][in][OUT_PAD], zeros past the last channel.
// See conv2d_winograd_input.wgsl for the whole idea. FLIP turns the taps round and swaps the channels, for the input gradient.
{% import "lib/winograd.wgsl" as wino %}
{% set T = M + 2 %}
@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read_write> u: array<f32>;

@compute @workgroup_size(64)
fn filters(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (id.x >= ROW || at >= C_IN * OUT_PAD) {
        return;
    }
    let oc = at % OUT_PAD;
    let ic = at / OUT_PAD;
{% for k in range(9) %}
    var w_{{ k // 3 }}_{{ k % 3 }} = 0.0;
{% endfor %}
    if (oc < C_OUT) {
{% for k in range(9) %}
        w_{{ k // 3 }}_{{ k % 3 }} = w[{{ "(ic * C_OUT + oc) * 9u + %du" | format(8 - k) if FLIP else "(oc * C_IN + ic) * 9u + %du" | format(k) }}];
{% endfor %}
    }
{% for i in range(T) %}{% for l in range(3) %}
    let t_{{ i }}_{{ l }} = {{ wino.sum(wino.G[M][i], "w_", "_%d" | format(l)) }};
{% endfor %}{% endfor %}
{% for i in range(T) %}{% for j in range(T) %}
    u[{{ i * T + j }}u * (C_IN * OUT_PAD) + at] = {{ wino.sum(wino.G[M][j], "t_%d_" | format(i), "") }};
{% endfor %}{% endfor %}
}
