// Matrix product c[i, j] = sum_k a(i, k) b(j, k) with a large register block: all three directions of a linear layer.
//
// Idea: one thread owns an IB x JB block of c and walks along k. Each value, once in a register, meets the whole other side of the
// block. On a software adapter every load is a loop over the lanes, so the ratio of loads to multiply-adds is what counts. Where c is
// small, k is dealt out to SPLITS partial sums, so that all cores have work; sum_partials.wgsl adds them in a fixed order.
// A_ALONG (B_ALONG) says that k is the fast axis of a (b): a vec4 then holds four steps of k, else four rows of the block.
//   forward         y[n, m]  = sum_k x[n, k] w[m, k]     both along
//   input gradient  dx[n, k] = sum_m dy[n, m] w[m, k]    dy along, w across
//   weight gradient dw[m, k] = sum_n dy[n, m] x[n, k]    both across
// Rows past the edge repeat the last one and are not stored.
{% set A_VEC = (STEP == 4) if A_ALONG else (I % 4 == 0) %}
{% set B_VEC = (STEP == 4) if B_ALONG else (J % 4 == 0) %}
{% set C_VEC = J % 4 == 0 %}
{% set QJ = JB // 4 %}
@group(0) @binding(0) var<storage, read> a: array<{{ "vec4<f32>" if A_VEC else "f32" }}>;
@group(0) @binding(1) var<storage, read> b: array<{{ "vec4<f32>" if B_VEC else "f32" }}>;
{% if BIAS %}
@group(0) @binding(2) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding({{ 3 if BIAS else 2 }}) var<storage, read_write> c: array<{{ "vec4<f32>" if C_VEC else "f32" }}>; // [SPLITS][I][J]

const J_BLOCKS = (J + JB - 1u) / JB;
const I_BLOCKS = (I + IB - 1u) / IB;
const THREADS = I_BLOCKS * J_BLOCKS * SPLITS;

{# One side's values for the steps k .. k + STEP: l_<row> (along) or l_<step>_<vec4 of rows>. `at` is where the block starts. #}
{% macro declare(l, source, at, size, block, along, vec) %}
{% if along %}
    {% for r in range(block) %}
    let {{ l }}{{ r }}_at = min({{ at }} + {{ r }}u, {{ size }} - 1u) * {{ "(K / 4u)" if vec else "K" }};
    {% endfor %}
{% elif vec %}
    {% for q in range(block // 4) %}
    let {{ l }}{{ q }}_at = min({{ at }} / 4u + {{ q }}u, {{ size }} / 4u - 1u);
    {% endfor %}
{% else %}
    {% for r in range(block) %}
    let {{ l }}{{ r }}_at = min({{ at }} + {{ r }}u, {{ size }} - 1u);
    {% endfor %}
{% endif %}
{% endmacro %}
{% macro fetch(l, source, size, block, along, vec) %}
{% if along %}
    {% for r in range(block) %}
        let {{ l }}{{ r }} = {{ source }}[{{ l }}{{ r }}_at + {{ "k / 4u" if vec else "k" }}];
    {% endfor %}
{% else %}
    {% for s in range(STEP) %}{% for q in range(block // 4) %}
        {% if vec %}
        let {{ l }}{{ s }}_{{ q }} = {{ source }}[(k + {{ s }}u) * ({{ size }} / 4u) + {{ l }}{{ q }}_at];
        {% else %}
        let {{ l }}{{ s }}_{{ q }} = vec4(
            {% for r in range(4) %}{{ source }}[(k + {{ s }}u) * {{ size }} + {{ l }}{{ q * 4 + r }}_at], {% endfor %});
        {% endif %}
    {% endfor %}{% endfor %}
{% endif %}
{% endmacro %}
{% macro four(l, s, q, along) %}
{%- if not along %}{{ l }}{{ s }}_{{ q }}
{%- elif STEP == 1 %}vec4({% for r in range(4) %}{{ l }}{{ q * 4 + r }}, {% endfor %})
{%- else %}vec4({% for r in range(4) %}{{ l }}{{ q * 4 + r }}[{{ s }}], {% endfor %})
{%- endif %}
{%- endmacro %}
{% macro one(l, s, r, along) %}
{%- if not along %}{{ l }}{{ s }}_{{ r // 4 }}[{{ r % 4 }}]
{%- elif STEP == 1 %}{{ l }}{{ r }}
{%- else %}{{ l }}{{ r }}[{{ s }}]
{%- endif %}
{%- endmacro %}
@compute @workgroup_size(8)
fn matmul(@builtin(global_invocation_id) id: vec3<u32>) {
    // A thread too many repeats the last one's sums and stores nothing: no branch round the loop.
    let thread = id.y * ROW + id.x;
    let t = min(thread, THREADS - 1u);
    let j0 = t % J_BLOCKS * JB;
    let i0 = t / J_BLOCKS % I_BLOCKS * IB;
    let split = t / (J_BLOCKS * I_BLOCKS);
    {{ declare("a", "a", "i0", "I", IB, A_ALONG, A_VEC) }}
    {{ declare("b", "b", "j0", "J", JB, B_ALONG, B_VEC) }}
{% for i in range(IB) %}{% for q in range(QJ) %}
    var c_{{ i }}_{{ q }} = vec4<f32>();
{% endfor %}{% endfor %}
    let last = min((split + 1u) * CHUNK, K);
    for (var k = split * CHUNK; k < last; k += STEP) {
        {{ fetch("a", "a", "I", IB, A_ALONG, A_VEC) }}
        {{ fetch("b", "b", "J", JB, B_ALONG, B_VEC) }}
{% for q in range(QJ) %}
    {% for s in range(STEP) %}
        let f_{{ q }}_{{ s }} = {{ four("b", s, q, B_ALONG) }};
    {% endfor %}
    {% for i in range(IB) %}{% for s in range(STEP) %}
        c_{{ i }}_{{ q }} = fma(f_{{ q }}_{{ s }}, vec4({{ one("a", s, i, A_ALONG) }}), c_{{ i }}_{{ q }});
    {% endfor %}{% endfor %}
{% endfor %}
    }
    if (thread >= THREADS) {
        return;
    }
{% for i in range(IB) %}
    if (i0 + {{ i }}u < I) {
        let row = (split * I + i0 + {{ i }}u) * J + j0;
    {% for q in range(QJ) %}
        {% if C_VEC %}
        if (j0 + {{ q * 4 }}u < J) {
            c[row / 4u + {{ q }}u] = c_{{ i }}_{{ q }}{% if BIAS %} + vec4({% for r in range(4) %}bias[j0 + {{ q * 4 + r }}u], {% endfor %}){% endif %};
        }
        {% else %}
            {% for r in range(4) %}
        if (j0 + {{ q * 4 + r }}u < J) {
            c[row + {{ q * 4 + r }}u] = c_{{ i }}_{{ q }}[{{ r }}]{{ " + bias[j0 + %du]" | format(q * 4 + r) if BIAS }};
        }
            {% endfor %}
        {% endif %}
    {% endfor %}
    }
{% endfor %}
}
