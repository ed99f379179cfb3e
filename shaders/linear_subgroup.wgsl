// Matrix product c[i, j] = sum_k a(i, k) b(j, k) by subgroups that share one operand: all three directions of a linear layer.
//
// Idea: a subgroup owns a block of c, IB rows by 4 WIDE LANES columns, and each of its lanes all rows of 4 WIDE columns. What belongs to
// the columns is loaded by the lane that needs it. What belongs to the rows every lane needs: the lanes load different parts of it, once
// for all, and each value is then broadcast. In linear_regblock.wgsl every invocation loads both sides of its block; here a load of the
// row side feeds LANES times as many multiply-adds. On software Vulkan a load is a loop over the lanes and a broadcast one instruction.
// Blocks follow each other along j, because neighbours then read and write neighbouring memory; where there are several blocks of rows,
// only PANEL blocks in a row, then the same columns for the next rows, so that the column side is still in a cache.
// Where c is small, k is dealt out to SPLITS partial sums, which sum_partials.wgsl adds in a fixed order.
// A_ALONG (B_ALONG) says that k is the fast axis of a (b): a vec4 then holds four steps of k, else four rows (columns) of the block.
//   forward         y[n, m]  = sum_k x[n, k] w[m, k]     both along
//   input gradient  dx[n, k] = sum_m dy[n, m] w[m, k]    dy along, w across
//   weight gradient dw[m, k] = sum_n dy[n, m] x[n, k]    both across
// TEXTURES: both are read from textures, where on software Vulkan a load costs a tenth. A dispatch then has the window of b, and of a where
// both lie along k, that begins at late.FIRST_K and late.FIRST_J.
// Rows and columns past the edge repeat the last ones and are not stored; steps past the last k count as zeros.
{% set A_SIZE = "K" if A_ALONG else "I" %}
{% set B_SIZE = "K" if B_ALONG else "J" %}
{% set A_VEC = (K if A_ALONG else I) % 4 == 0 %}
{% set B_VEC = (K if B_ALONG else J) % 4 == 0 %}
{% set C_VEC = J % 4 == 0 %}
{% set LOADS = div_up(IB, LANES) %}
{% from "lib/inputs.wgsl" import declare %}
{{ declare(TEXTURES, 0, "a", "vec4<f32>" if A_VEC else "f32") }}
{{ declare(TEXTURES, 1, "b", "vec4<f32>" if B_VEC else "f32") }}
{# First texel of the window in a row. #}
{% set ORIGIN = {"a": "late.FIRST_K / 4u" if A_ALONG else "0u", "b": "late.FIRST_K / 4u" if B_ALONG else "late.FIRST_J / 4u"} %}
{% if BIAS %}
@group(0) @binding(2) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding({{ 3 if BIAS else 2 }}) var<storage, read_write> c: array<{{ "vec4<f32>" if C_VEC else "f32" }}>; // [SPLITS][I][J]

const COLUMNS = 4u * WIDE * LANES;
const I_BLOCKS = (I + IB - 1u) / IB;
{% if not TEXTURES %}
const J_BLOCKS = (J + COLUMNS - 1u) / COLUMNS;
{% endif %}

{# Four neighbours of `source` along its fast axis, which is `size` long, from element `at` of line `line`. #}
{% macro four(source, line, at, size, vec) %}
{%- if TEXTURES -%}
textureLoad({{ source }}, vec2(min(({{ at }}) / 4u, {{ size }} / 4u - 1u) - {{ ORIGIN[source] }}, {{ line }}))
{%- elif vec -%}
{{ source }}[({{ line }}) * ({{ size }} / 4u) + min(({{ at }}) / 4u, {{ size }} / 4u - 1u)]
{%- else -%}
vec4({% for r in range(4) %}{{ source }}[({{ line }}) * {{ size }} + min({{ at }} + {{ r }}u, {{ size }} - 1u)], {% endfor %})
{%- endif %}
{%- endmacro %}
{# The same, with zeros past the last k: four steps (along) or one (across) from `k` on; `line` is the row or column (along) or its first. #}
{% macro steps(source, line, k, size, along, vec) %}
{%- if along and vec -%}{{ four(source, line, k, size, vec) }}
{%- elif along -%}select(vec4<f32>(), {{ four(source, line, k, size, vec) }}, vec4({{ k }}) + vec4(0u, 1u, 2u, 3u) < vec4(K))
{%- elif K % 4 == 0 -%}{{ four(source, k, line, size, vec) }}
{%- else -%}select(vec4<f32>(), {{ four(source, "min(%s, K - 1u)" | format(k), line, size, vec) }}, {{ k }} < K)
{%- endif %}
{%- endmacro %}
@compute @workgroup_size(LANES)
fn matmul(@builtin(workgroup_id) id: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    // A block too many repeats the last one's sums and stores nothing: no branch round the loop.
    let block = id.y * ROW + id.x;
    let j_blocks = {{ "late.J_BLOCKS" if TEXTURES else "J_BLOCKS" }};
    let blocks = I_BLOCKS * j_blocks * SPLITS;
    let t = min(block, blocks - 1u);
    let split = t / (I_BLOCKS * j_blocks);
    let rest = t % (I_BLOCKS * j_blocks);
    let panel = rest / (I_BLOCKS * PANEL);
    let width = min(PANEL, j_blocks - panel * PANEL);
    let in_panel = rest % (I_BLOCKS * PANEL);
    let i0 = in_panel / width * IB;
    let j0 = {{ "late.FIRST_J + " if TEXTURES }}(panel * PANEL + in_panel % width) * COLUMNS + 4u * lane;
{% for i in range(IB) %}{% for w in range(WIDE) %}
    var c_{{ i }}_{{ w }} = vec4<f32>();
{% endfor %}{% endfor %}
{% if TEXTURES %}
    let start = late.FIRST_K + split * CHUNK;
    let last = min(start + CHUNK, late.LAST_K);
{% else %}
    let start = split * CHUNK;
    let last = min(start + CHUNK, K);
{% endif %}
    for (var k = start; k < last; k += 4u) {
        // The row side in IB parts: the four steps of a row (along), or four rows at a step (across).
{% for l in range(LOADS) %}
        let p_{{ l }} = min({{ l * LANES }}u + lane, {{ IB - 1 }}u);
    {% if A_ALONG %}
        let a_{{ l }} = {{ steps("a", "min(i0 + p_%d, I - 1u)" | format(l), "k", A_SIZE, true, A_VEC) }};
    {% else %}
        let a_{{ l }} = {{ steps("a", "i0 + p_%d %% %du * 4u" | format(l, IB // 4), "(k + p_%d / %du)" | format(l, IB // 4), A_SIZE, false, A_VEC) }};
    {% endif %}
{% endfor %}
{% for w in range(WIDE) %}
    {% set J0 = "j0 + %du" | format(w * 4 * LANES) %}
    {% if B_ALONG %}
        {% for r in range(4) %}
        let b_{{ w }}_{{ r }} = {{ steps("b", "min(%s + %du, J - 1u)" | format(J0, r), "k", B_SIZE, true, B_VEC) }};
        {% endfor %}
        {% for s in range(4) %}
        let f_{{ w }}_{{ s }} = vec4({% for r in range(4) %}b_{{ w }}_{{ r }}[{{ s }}], {% endfor %});
        {% endfor %}
    {% else %}
        {% for s in range(4) %}
        let f_{{ w }}_{{ s }} = {{ steps("b", J0, "(k + %du)" | format(s), B_SIZE, false, B_VEC) }};
        {% endfor %}
    {% endif %}
{% endfor %}
{% for i in range(IB) %}{% for s in range(4) %}
    {% set part = i if A_ALONG else s * (IB // 4) + i // 4 %}
        let v_{{ i }}_{{ s }} = vec4(subgroupBroadcast(a_{{ part // LANES }}[{{ s if A_ALONG else i % 4 }}], {{ part % LANES }}u));
    {% for w in range(WIDE) %}
        c_{{ i }}_{{ w }} = fma(f_{{ w }}_{{ s }}, v_{{ i }}_{{ s }}, c_{{ i }}_{{ w }});
    {% endfor %}
{% endfor %}{% endfor %}
    }
    if (block >= blocks) {
        return;
    }
{% for i in range(IB) %}
    if (i0 + {{ i }}u < I) {
        let at = ({{ "(late.SPLIT + split)" if TEXTURES else "split" }} * I + i0 + {{ i }}u) * J;
    {% for w in range(WIDE) %}
        let j_{{ w }} = j0 + {{ w * 4 * LANES }}u;
        {% if C_VEC %}
        if (j_{{ w }} < J) {
            c[(at + j_{{ w }}) / 4u] = c_{{ i }}_{{ w }}{% if BIAS %} + vec4({% for r in range(4) %}bias[j_{{ w }} + {{ r }}u], {% endfor %}){% endif %};
        }
        {% else %}
            {% for r in range(4) %}
        if (j_{{ w }} + {{ r }}u < J) {
            c[at + j_{{ w }} + {{ r }}u] = c_{{ i }}_{{ w }}[{{ r }}]{{ " + bias[j_%d + %du]" | format(w, r) if BIAS }};
        }
            {% endfor %}
        {% endif %}
    {% endfor %}
    }
{% endfor %}
}
