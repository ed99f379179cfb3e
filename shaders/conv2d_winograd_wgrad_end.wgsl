// Winograd, the end of the weight gradient: dw = Gt s G for each pair of channels, s [SPLITS][T * T][OUT_PAD][IN_PAD] -> dw [out, in, 3, 3].
// The transpose of the filters' transform. Splits are added in their order: the same bits every run.
{% import "lib/winograd.wgsl" as wino %}
{% set T = M + 2 %}
@group(0) @binding(0) var<storage, read> s: array<f32>;
@group(0) @binding(1) var<storage, read_write> dw: array<f32>;

@compute @workgroup_size(64)
fn finish(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (id.x >= ROW || at >= C_OUT * C_IN) {
        return;
    }
    let from_at = at / C_IN * IN_PAD + at % C_IN;
{% for i in range(T) %}{% for j in range(T) %}
    var s_{{ i }}_{{ j }} = s[from_at + {{ i * T + j }}u * (OUT_PAD * IN_PAD)];
{% endfor %}{% endfor %}
    for (var split = 1u; split < SPLITS; split++) {
        let base = from_at + split * ({{ T * T }}u * OUT_PAD * IN_PAD);
{% for i in range(T) %}{% for j in range(T) %}
        s_{{ i }}_{{ j }} += s[base + {{ i * T + j }}u * (OUT_PAD * IN_PAD)];
{% endfor %}{% endfor %}
    }
{% for k in range(3) %}{% for j in range(T) %}
    let t_{{ k }}_{{ j }} = {{ wino.sum_column(wino.G[M], k, "s_", "_%d" | format(j)) }};
{% endfor %}{% endfor %}
{% for k in range(3) %}{% for l in range(3) %}
    dw[at * 9u + {{ k * 3 + l }}u] = {{ wino.sum_column(wino.G[M], l, "t_%d_" | format(k), "") }};
{% endfor %}{% endfor %}
}
