// Winograd, the output: y = At m A + bias for each tile of each output channel: the interpolation back to M x M pixels.
// One thread takes a quad of tiles, one lane of a vec4 a tile, as conv2d_winograd_input.wgsl left them; the vec4s that it stores are
// pixels of a row. Pixels past the edge, of tiles that stick out, are not stored.
{% import "lib/winograd.wgsl" as wino %}
{% set T = M + 2 %}
{% set VEC = W_OUT % 4 == 0 %}
@group(0) @binding(0) var<storage, read> counter: array<u32>;
@group(0) @binding(1) var<storage, read> m: array<vec4<f32>>; // [CHUNK][T * T][OUT_PAD][4]
{% if BIAS %}
@group(0) @binding(2) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding({{ 3 if BIAS else 2 }}) var<storage, read_write> y: array<{{ "vec4<f32>" if VEC else "f32" }}>;

@compute @workgroup_size(64)
fn output(@builtin(global_invocation_id) id: vec3<u32>) {
    let thread = id.y * ROW + id.x;
    if (id.x >= ROW || thread >= CHUNK * C_OUT * 4u) {
        return;
    }
    let quad = thread % 4u;
    let oc = thread / 4u % C_OUT;
    let block = thread / (4u * C_OUT);
    let tile = (counter[0] * CHUNK + block) * 4u + quad;
    let ox = tile % ROW_QUADS * (4u * M);
    let oy = tile / ROW_QUADS % TILE_ROWS * M;
    let n = tile / (ROW_QUADS * TILE_ROWS);
    if (n >= N) {
        return;
    }
    let at = (block * {{ T * T }}u * OUT_PAD + oc) * 4u + quad;
{% for j in range(T) %}
    {% for r in range(M) %}
    var t_{{ r }}_{{ j }}: vec4<f32>;
    {% endfor %}
    {
    {% for i in range(T) %}
        let m_{{ i }} = m[at + {{ i * T + j }}u * (OUT_PAD * 4u)];
    {% endfor %}
    {% for r in range(M) %}
        t_{{ r }}_{{ j }} = {{ wino.sum_column(wino.A[M], r, "m_", "") }};
    {% endfor %}
    }
{% endfor %}
    let b = {{ "bias[oc]" if BIAS else "0.0" }};
    let row = ((n * C_OUT + oc) * H_OUT + oy) * W_OUT + ox;
{% for r in range(M) %}
    {{ "if (oy + %du < H_OUT) {" | format(r) if H_OUT % M != 0 and r > 0 else "{" }}
    {% for c in range(M) %}
        let y_{{ c }} = {{ wino.sum_column(wino.A[M], c, "t_%d_" | format(r), "") }} + b;
    {% endfor %}
    {% for q in range(M) if VEC %}
        {{ "if (ox + %du < W_OUT) {" | format(q * 4) if W_OUT % (4 * M) != 0 and q > 0 else "{" }}
            y[(row + {{ r }}u * W_OUT) / 4u + {{ q }}u] = vec4({% for p in range(q * 4, q * 4 + 4) %}y_{{ p % M }}[{{ p // M }}], {% endfor %});
        }
    {% endfor %}
    {% for p in range(4 * M) if not VEC %}
        {{ "if (ox + %du < W_OUT) {" | format(p) if W_OUT % (4 * M) != 0 and p > 0 else "{" }}
            y[row + {{ r }}u * W_OUT + {{ p }}u] = y_{{ p % M }}[{{ p // M }}];
        }
    {% endfor %}
    }
{% endfor %}
}
