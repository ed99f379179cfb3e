// Winograd, the output: y = At m A + bias for each tile of each output channel: the interpolation back to M x M pixels.
// One thread takes a quad of tiles, one lane of a vec4 a tile, as conv2d_winograd_input.wgsl left them; the vec4s that it stores are
// pixels of a row. Pixels past the edge, of tiles that stick out, are not stored.
// EPILOGUE 1 ends with ReLU, 2 with ReLU and a 2x2 max-pool, whose windows never leave a tile; CODES as in conv2d_subgroup.wgsl.
{% import "lib/winograd.wgsl" as wino %}
{% set T = M + 2 %}
{% set WIDTH = W_OUT // 2 if EPILOGUE == 2 else W_OUT %}
{% set VEC = WIDTH % 4 == 0 %}
@group(0) @binding(0) var<storage, read> counter: array<u32>;
@group(0) @binding(1) var<storage, read> m: array<vec4<f32>>; // [CHUNK][T * T][OUT_PAD][4]
{% if BIAS %}
@group(0) @binding(2) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding({{ 3 if BIAS else 2 }}) var<storage, read_write> y: array<{{ "vec4<f32>" if VEC else "f32" }}>;
{% if EPILOGUE == 2 and CODES %}
@group(0) @binding({{ 4 if BIAS else 3 }}) var<storage, read_write> codes: array<u32>;
{% endif %}
{% if EPILOGUE == 2 %}

fn takes_over(value: vec4<f32>, best: vec4<f32>) -> vec4<bool> {
    return (value > best) | ((bitcast<vec4<u32>>(value) & vec4(0x7fffffffu)) > vec4(0x7f800000u));
}
{% endif %}

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
{% if EPILOGUE == 2 %}
{% set H2 = H_OUT // 2 %}
{% set SIDE = M // 2 %}{# windows along the side of a tile #}
    let row = ((n * C_OUT + oc) * {{ H2 }}u + oy / 2u) * {{ WIDTH }}u + ox / 2u;
{% for r in range(SIDE) %}
    {{ "if (oy / 2u + %du < %du) {" | format(r, H2) if H2 % SIDE != 0 and r > 0 else "{" }}
    {% for c in range(SIDE) %}
        {% for k in range(4) %}
        let v_{{ c }}_{{ k }} = {{ wino.sum_column(wino.A[M], c * 2 + k % 2, "t_%d_" | format(r * 2 + k // 2), "") }} + b;
        {% endfor %}
        var y_{{ c }} = v_{{ c }}_0;
        var code_{{ c }} = vec4<u32>();
        {% for k in range(1, 4) %}
        {
            let won = takes_over(v_{{ c }}_{{ k }}, y_{{ c }});
            y_{{ c }} = select(y_{{ c }}, v_{{ c }}_{{ k }}, won);
            code_{{ c }} = select(code_{{ c }}, vec4({{ k }}u), won);
        }
        {% endfor %}
        code_{{ c }} = select(code_{{ c }}, vec4(4u), y_{{ c }} <= vec4<f32>());
        y_{{ c }} = select(y_{{ c }}, vec4<f32>(), y_{{ c }} <= vec4<f32>());
    {% endfor %}
    {% for q in range(SIDE) %}
        {{ "if (ox / 2u + %du < %du) {" | format(q * 4, WIDTH) if WIDTH % (4 * SIDE) != 0 and q > 0 else "{" }}
        {% if VEC %}
            y[(row + {{ r * WIDTH }}u) / 4u + {{ q }}u] = vec4({% for p in range(q * 4, q * 4 + 4) %}y_{{ p % SIDE }}[{{ p // SIDE }}], {% endfor %});
        {% else %}
            {% for p in range(q * 4, q * 4 + 4) %}
            {{ "if (ox / 2u + %du < %du) {" | format(p, WIDTH) if WIDTH % (4 * SIDE) != 0 and p > 0 else "{" }}
                y[row + {{ r * WIDTH + p }}u] = y_{{ p % SIDE }}[{{ p // SIDE }}];
            }
            {% endfor %}
        {% endif %}
        {% if CODES %}
            codes[((n * C_OUT + oc) * {{ H2 }}u + oy / 2u + {{ r }}u) * {{ (WIDTH + 3) // 4 }}u + ox / 8u + {{ q }}u] =
            {% for p in range(q * 4, q * 4 + 4) %}{% set code = "(code_" ~ p % SIDE ~ "[" ~ p // SIDE ~ "] << " ~ (p - q * 4) * 4 ~ "u)" %}
                {{ " | " if p > q * 4 }}{{ code if WIDTH % 4 == 0 else "select(0u, " ~ code ~ ", ox / 2u + " ~ p ~ "u < " ~ WIDTH ~ "u)" }}
            {%- endfor %};
        {% endif %}
        }
    {% endfor %}
    }
{% endfor %}
{% else %}
    let row = ((n * C_OUT + oc) * H_OUT + oy) * W_OUT + ox;
{% for r in range(M) %}
    {{ "if (oy + %du < H_OUT) {" | format(r) if H_OUT % M != 0 and r > 0 else "{" }}
    {% for c in range(M) %}
        let v_{{ c }} = {{ wino.sum_column(wino.A[M], c, "t_%d_" | format(r), "") }} + b;
        let y_{{ c }} = {{ "select(v_%d, vec4<f32>(), v_%d <= vec4<f32>())" | format(c, c) if EPILOGUE == 1 else "v_%d" | format(c) }};
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
{% endif %}
}
