// Convolution of images with one channel: the window in registers, the filters pass by.
//
// Idea: with one input channel there are only K_H x K_W multiply-adds for each output, and nearly all of the time goes into writing y. So
// a thread fetches its window of x once, where it lies (no padded copy: with the bounds tests outside of all loops), keeps all of it in
// registers, and computes RB x PB pixels of one output channel after the other. FILTERS = 4 of them at a time are K_H x K_W vec4 loads. What it stores
// are vec4s along the row, and neighbouring lanes continue the row.
{% set TAPS = K_H * K_W %}
{% set ROWS = (RB - 1) * STRIDE_H + (K_H - 1) * DIL_H + 1 %}
{% set COLUMNS = (PB - 1) * STRIDE_W + (K_W - 1) * DIL_W + 1 %}
{% set Y_VEC = W_OUT % 4 == 0 %}
@group(0) @binding(0) var<storage, read> x: array<f32>; // [n][H_IN][W_IN]
@group(0) @binding(1) var<storage, read> w: array<{{ "vec4<f32>" if FILTERS == 4 else "f32" }}>; // [out][kh][kw]
{% if BIAS %}
@group(0) @binding(2) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding({{ 3 if BIAS else 2 }}) var<storage, read_write> y: array<{{ "vec4<f32>" if Y_VEC else "f32" }}>;

const W_BLOCKS = (W_OUT + PB - 1u) / PB;
const H_BLOCKS = (H_OUT + RB - 1u) / RB;

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let t = id.y * ROW + id.x;
    if (id.x >= ROW || t >= N * H_BLOCKS * W_BLOCKS) {
        return;
    }
    let ox = t % W_BLOCKS * PB;
    let oy = t / W_BLOCKS % H_BLOCKS * RB;
    let n = t / (W_BLOCKS * H_BLOCKS);
    // Positions left of or above the image wrap round to huge numbers, so that one comparison tests both sides.
    let ix = ox * STRIDE_W - PAD_W;
{% for r in range(ROWS) if needed(r, RB, STRIDE_H, K_H, DIL_H) %}
    let iy_{{ r }} = oy * STRIDE_H + {{ r }}u - PAD_H;
    {% for c in range(COLUMNS) if needed(c, PB, STRIDE_W, K_W, DIL_W) %}
    var x_{{ r }}_{{ c }} = 0.0;
    {% endfor %}
    if (iy_{{ r }} < H_IN) {
    {% for c in range(COLUMNS) if needed(c, PB, STRIDE_W, K_W, DIL_W) %}
        if (ix + {{ c }}u < W_IN) {
            x_{{ r }}_{{ c }} = x[(n * H_IN + iy_{{ r }}) * W_IN + ix + {{ c }}u];
        }
    {% endfor %}
    }
{% endfor %}
    for (var oc = 0u; oc < C_OUT; oc += FILTERS) {
{% for k in range(TAPS) %}
        let w_{{ k }} = w[oc * {{ TAPS }}u / FILTERS + {{ k }}u];
{% endfor %}
{% for o in range(FILTERS) %}
        {
            let at = ((n * C_OUT + oc + {{ o }}u) * H_OUT + oy) * W_OUT + ox;
            let b = {{ "bias[oc + %du]" | format(o) if BIAS else "0.0" }};
    {% for r in range(RB) %}
            {{ "if (oy + %du < H_OUT) {" | format(r) if H_OUT % RB != 0 and r > 0 else "{" }}
        {% for q in range(0, PB, 4) %}
            {{ "if (ox + %du < W_OUT) {" | format(q) if W_OUT % PB != 0 and q > 0 else "{" }}
                var sum = vec4(b);
            {% for k in range(TAPS) %}{% set f = o * TAPS + k %}
                sum = fma(vec4({{ "w_%d[%d]" | format(f // 4, f % 4) if FILTERS == 4 else "w_%d" | format(k) }}), vec4({% for p in range(q, q + 4) %}x_{{ r * STRIDE_H + k // K_W * DIL_H }}_{{ p * STRIDE_W + k % K_W * DIL_W }}, {% endfor %}), sum);
            {% endfor %}
            {% if Y_VEC %}
                y[(at + {{ r }}u * W_OUT + {{ q }}u) / 4u] = sum;
            {% else %}
                {% for p in range(4) %}
                {{ "if (ox + %du < W_OUT) {" | format(q + p) if W_OUT % PB != 0 and p > 0 else "{" }}
                    y[at + {{ r }}u * W_OUT + {{ q + p }}u] = sum[{{ p }}];
                }
                {% endfor %}
            {% endif %}
            }
        {% endfor %}
            }
    {% endfor %}
        }
{% endfor %}
    }
}
