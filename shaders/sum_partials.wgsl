// out[i] = partial[0][i] + partial[1][i] + ... + partial[SPLITS - 1][i], always in this order: the same bits every run.
// What a sum that was split over workgroups ends with, float atomics having no order. BIAS adds bias[i % M].
@group(0) @binding(0) var<storage, read> partial: array<f32>;
{% if BIAS %}
@group(0) @binding(1) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding({{ 2 if BIAS else 1 }}) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn sum_partials(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (id.x >= ROW || at >= LEN) {
        return;
    }
    var sum = 0.0;
    for (var s = 0u; s < SPLITS; s++) {
        sum += partial[s * LEN + at];
    }
    out[at] = sum{{ " + bias[at % M]" if BIAS }};
}
