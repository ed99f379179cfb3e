// Convolution by subgroups: forward and input gradient; that of a strided convolution once dy is spread (conv2d_spread.wgsl).
//
// Idea: one workgroup is one subgroup of LANES invocations, which share a tile of RB x PB output pixels and own OB output channels each.
// All lanes need the same inputs, so each lane fetches another part of them and hands it on with subgroupBroadcast: one load
// brings LANES times as many different numbers as in conv2d_regblock.wgsl, where every lane fetches all of them. Loads are what
// costs on a software adapter, a broadcast is one or two instructions. As few as the loads now are, each can test the border of the
// image itself: x is read where it lies, without a padded copy. Only the weights are laid out anew (conv2d_repack.wgsl).
//
// EPILOGUE 1 ends with ReLU, 2 with ReLU and a 2x2 max-pool. CODES then keeps which pixel of each window won, four bits a window, four
// windows of a row to a word: 0 to 3 the winner in reading order, 4 where ReLU let nothing through.
// TEXTURES: x, the gate and the weights are read from textures, where on software Vulkan a load costs a tenth. x and the gate then hold
// late.IMAGES images from late.FIRST on.
// GATE says what the gradient passes on its way to the convolution's output: 0 nothing; 1 ReLU, by the activation `gate`; 2 ReLU
// and the 2x2 max-pool, by the codes. So the gradients of both cost no pass over memory of their own.
{% set T = "f32" if OB == 1 else "vec" ~ OB ~ "<f32>" %}
{% set XT = ("vec2<f32>" if GATE == 2 else "vec4<f32>") if X_VEC else "f32" %}
{% set ROWS = (RB - 1) * STRIDE_H + (K_H - 1) * DIL_H + 1 %}
{% set SPAN = LEAD + (PB - 1) * STRIDE_W + (K_W - 1) * DIL_W + 1 %}
{% set COLS = div_up(SPAN, 4) if X_VEC else SPAN %}
{% set SLOTS = div_up(ROWS * COLS, LANES) %}
{% set B = 2 if GATE else 1 %}
{% from "lib/inputs.wgsl" import declare, load, places %}
{{ declare(TEXTURES, 0, "x", XT) }} // [N][C_IN][H_IN][W_IN]; pooled where GATE is 2
{% if GATE == 1 %}
{{ declare(TEXTURES, 1, "gate", XT) }}
{% elif GATE == 2 %}
{{ declare(TEXTURES, 1, "gate", "u32") }} // [N][C_IN][H_X][W_CODES]
{% endif %}
{{ declare(TEXTURES, B, "w", T) }} // [in][kh][kw][out / OB]
{% if BIAS %}
@group(0) @binding({{ B + 1 }}) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding({{ B + 2 if BIAS else B + 1 }}) var<storage, read_write> y: array<{{ "vec4<f32>" if Y_VEC else "f32" }}>;
{% if EPILOGUE == 2 and CODES %}
@group(0) @binding({{ B + 3 if BIAS else B + 2 }}) var<storage, read_write> codes: array<u32>;
{% endif %}

const C_BLOCKS = (C_OUT + OB - 1u) / OB;
const C_GROUPS = (C_BLOCKS + LANES - 1u) / LANES;
const W_BLOCKS = (W_TILED + PB - 1u) / PB;
const H_BLOCKS = (H_TILED + RB - 1u) / RB;
const TILES = C_GROUPS * W_BLOCKS * H_BLOCKS; // of an image
// The tensor that x is: pooled, with its words of codes, where GATE is 2.
const H_X = H_IN{{ " / 2u" if GATE == 2 }};
const W_X = W_IN{{ " / 2u" if GATE == 2 }};
const W_CODES = (W_X + 3u) / 4u;
// In units of the array's elements.
const W_ROW = {{ ("W_X / 2u" if GATE == 2 else "W_X / 4u") if X_VEC else "W_X" }};
const PLANE = H_X * W_ROW;
{{ places(TEXTURES) }}

{% if EPILOGUE == 2 %}
fn takes_over(value: f32, best: f32) -> bool {
    return value > best || (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}
{% endif %}
{% macro part(r, p, o) %}a_{{ r }}_{{ p }}{{ "[%d]" | format(o) if OB > 1 }}{% endmacro %}

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    // A workgroup too many repeats the last one's sums and stores nothing.
    let tile = group.y * ROW + group.x;
    let tiles = TILES * {{ "late.IMAGES" if TEXTURES else "N" }};
    let t = min(tile, tiles - 1u);
    let block = t % C_GROUPS * LANES + lane;
    let ox = t / C_GROUPS % W_BLOCKS * PB;
    let oy = t / (C_GROUPS * W_BLOCKS) % H_BLOCKS * RB;
    let image = t / TILES;
    let n = image{{ " + late.FIRST" if TEXTURES }};
    var taps = min(block, C_BLOCKS - 1u);
    // Slot s of a lane is element s * LANES + lane of the tile's inputs, rows of COLS. Left of and above the image the unsigned
    // numbers wrap round, so that one comparison tests both sides.
{% for s in range(SLOTS) %}
    let e_{{ s }} = min({{ s }}u * LANES + lane, {{ ROWS * COLS - 1 }}u);
    let row_{{ s }} = oy * STRIDE_H + e_{{ s }} / {{ COLS }}u - u32(PAD_H);
    {% if X_VEC %}
    let col_{{ s }} = ox * STRIDE_W / 4u + e_{{ s }} % {{ COLS }}u - u32((PAD_W + {{ LEAD }}) / 4);
    let in_{{ s }} = row_{{ s }} < {{ "H_X * 2u" if GATE == 2 else "H_IN" }} && col_{{ s }} < W_IN / 4u;
    {% else %}
    let col_{{ s }} = ox * STRIDE_W + e_{{ s }} % {{ COLS }}u - u32(PAD_W);
    let in_{{ s }} = row_{{ s }} < {{ "H_X * 2u" if GATE == 2 else "H_IN" }} && col_{{ s }} < {{ "W_X * 2u" if GATE == 2 else "W_IN" }};
    {% endif %}
    {% if GATE == 2 %}
    let want_{{ s }} = row_{{ s }} % 2u * 2u{{ "" if X_VEC else " + col_" ~ s ~ " % 2u" }};
    let shift_{{ s }} = {{ "col_" ~ s ~ (" % 2u * 8u" if X_VEC else " / 2u % 4u * 4u") }};
    var word_{{ s }} = image * C_IN * H_X * W_CODES + select(0u, row_{{ s }} / 2u * W_CODES + col_{{ s }} / {{ 2 if X_VEC else 8 }}u, in_{{ s }});
    var at_{{ s }} = image * C_IN * PLANE + select(0u, row_{{ s }} / 2u * W_ROW + col_{{ s }}{{ "" if X_VEC else " / 2u" }}, in_{{ s }});
    {% else %}
    var at_{{ s }} = image * C_IN * PLANE + select(0u, row_{{ s }} * W_ROW + col_{{ s }}, in_{{ s }});
    {% endif %}
{% endfor %}
{% for r in range(RB) %}{% for p in range(PB) %}
    var a_{{ r }}_{{ p }} = {{ T }}();
{% endfor %}{% endfor %}
    for (var ic = 0u; ic < C_IN; ic++) {
{% for k in range(K_H * K_W) %}
        let w_{{ k }} = {{ load(TEXTURES, "w", T, "taps + %du * (C_GROUPS * LANES)" | format(k)) }};
{% endfor %}
{% for s in range(SLOTS) %}
    {% if GATE == 0 %}
        let v_{{ s }} = select({{ XT }}(), {{ load(TEXTURES, "x", XT, "at_%d" | format(s)) }}, in_{{ s }});
    {% elif GATE == 1 %}
        let v_{{ s }} = select({{ XT }}(), select({{ load(TEXTURES, "x", XT, "at_%d" | format(s)) }}, {{ XT }}(), {{ load(TEXTURES, "gate", XT, "at_%d" | format(s)) }} <= {{ XT }}()), in_{{ s }});
    {% elif X_VEC %}
        let g_{{ s }} = {{ load(TEXTURES, "x", XT, "at_%d" | format(s)) }};
        let k_{{ s }} = {{ load(TEXTURES, "gate", "u32", "word_%d" | format(s)) }} >> shift_{{ s }};
        let won_{{ s }} = (vec4(k_{{ s }}, k_{{ s }}, k_{{ s }} >> 4u, k_{{ s }} >> 4u) & vec4(7u)) == vec4(want_{{ s }}) + vec4(0u, 1u, 0u, 1u);
        let v_{{ s }} = select(vec4<f32>(), g_{{ s }}.xxyy, won_{{ s }} & vec4(in_{{ s }}));
    {% else %}
        let won_{{ s }} = (({{ load(TEXTURES, "gate", "u32", "word_%d" | format(s)) }} >> shift_{{ s }}) & 7u) == want_{{ s }};
        let v_{{ s }} = select(0.0, {{ load(TEXTURES, "x", "f32", "at_%d" | format(s)) }}, won_{{ s }} && in_{{ s }});
    {% endif %}
{% endfor %}
{% for row in range(ROWS) if needed(row, RB, STRIDE_H, K_H, DIL_H) %}
        {
    {% for c in range(SPAN - LEAD) if needed(c, PB, STRIDE_W, K_W, DIL_W) %}{% set e = row * COLS + ((c + LEAD) // 4 if X_VEC else c) %}
            let b_{{ c }} = {{ T }}(subgroupBroadcast(v_{{ e // LANES }}{{ "[%d]" | format((c + LEAD) % 4) if X_VEC }}, {{ e % LANES }}u));
    {% endfor %}
    {% for r in range(RB) %}{% for kh in range(K_H) if r * STRIDE_H + kh * DIL_H == row %}
        {% for first in range(0, PB, 3) %}{% for kw in range(K_W) %}{% for p in range(first, [first + 3, PB] | min) %}
            a_{{ r }}_{{ p }} = fma(w_{{ kh * K_W + kw }}, b_{{ p * STRIDE_W + kw * DIL_W }}, a_{{ r }}_{{ p }});
        {% endfor %}{% endfor %}{% endfor %}
    {% endfor %}{% endfor %}
        }
{% endfor %}
{% for s in range(SLOTS) %}
        at_{{ s }} += PLANE;
    {% if GATE == 2 %}
        word_{{ s }} += H_X * W_CODES;
    {% endif %}
{% endfor %}
        taps += K_H * K_W * (C_GROUPS * LANES);
    }
    if (tile >= tiles || block >= C_BLOCKS) {
        return;
    }
{% for o in range(OB) %}
    {% if C_OUT % OB != 0 and o > 0 %}
    if (block * OB + {{ o }}u < C_OUT) {
    {% else %}
    {
    {% endif %}
        let oc = block * OB + {{ o }}u;
        let b = {{ "bias[oc]" if BIAS else "0.0" }};
    {% if EPILOGUE == 2 %}
        {% for r in range(0, RB, 2) %}
        {% if H_TILED % RB != 0 and r > 0 %}
        if (oy + {{ r }}u < H_TILED) {
        {% else %}
        {
        {% endif %}
            let at = ((n * C_OUT + oc) * (H_OUT / 2u) + oy / 2u + {{ r // 2 }}u) * (W_OUT / 2u) + ox / 2u;
            {% for p in range(0, PB, 2) %}
            var best_{{ p }} = {{ part(r, p, o) }} + b;
            var code_{{ p }} = 0u;
                {% for k in range(1, 4) %}
            {
                let v = {{ part(r + k // 2, p + k % 2, o) }} + b;
                let won = takes_over(v, best_{{ p }});
                best_{{ p }} = select(best_{{ p }}, v, won);
                code_{{ p }} = select(code_{{ p }}, {{ k }}u, won);
            }
                {% endfor %}
            let shut_{{ p }} = best_{{ p }} <= 0.0;
            best_{{ p }} = select(best_{{ p }}, 0.0, shut_{{ p }});
            code_{{ p }} = select(code_{{ p }}, 4u, shut_{{ p }});
            {% endfor %}
            {% if Y_VEC %}
                {% for p in range(0, PB, 8) %}
                    {% if W_TILED % PB != 0 and p > 0 %}
            if (ox + {{ p }}u < W_TILED)
                    {% endif %}
            {
                y[at / 4u + {{ p // 8 }}u] = vec4({% for i in range(p, p + 8, 2) %}best_{{ i }}, {% endfor %});
            }
                {% endfor %}
            {% else %}
                {% for p in range(0, PB, 2) %}
                    {% if W_TILED % PB != 0 and p > 0 %}
            if (ox + {{ p }}u < W_TILED)
                    {% endif %}
            {
                y[at + {{ p // 2 }}u] = best_{{ p }};
            }
                {% endfor %}
            {% endif %}
            {% if CODES %}
                {% for p in range(0, PB, 8) %}
                    {% if W_TILED % PB != 0 and p > 0 %}
            if (ox + {{ p }}u < W_TILED)
                    {% endif %}
            {
                codes[((n * C_OUT + oc) * (H_OUT / 2u) + oy / 2u + {{ r // 2 }}u) * ((W_OUT / 2u + 3u) / 4u) + ox / 8u + {{ p // 8 }}u] =
                    {% for i in range(p, [p + 8, PB] | min, 2) %}{{ " | " if i > p }}code_{{ i }} << {{ (i - p) * 2 }}u{% endfor %};
            }
                {% endfor %}
            {% endif %}
        }
        {% endfor %}
    {% else %}
        let at = ((n * C_OUT + oc) * H_OUT + oy) * W_OUT + ox;
        {% for r in range(RB) %}
        {% if H_TILED % RB != 0 and r > 0 %}
        if (oy + {{ r }}u < H_OUT) {
        {% else %}
        {
        {% endif %}
            {% for p in range(0, PB, 4 if Y_VEC else 1) %}
                {% if W_TILED % PB != 0 and p > 0 %}
            if (ox + {{ p }}u < W_OUT)
                {% endif %}
            {
                {% if Y_VEC %}
                let v = vec4({% for i in range(p, p + 4) %}{{ part(r, i, o) }}, {% endfor %}) + b;
                y[(at + {{ r }}u * W_OUT + {{ p }}u) / 4u] = {{ "select(v, vec4<f32>(), v <= vec4<f32>())" if EPILOGUE == 1 else "v" }};
                {% else %}
                let v = {{ part(r, p, o) }} + b;
                y[at + {{ r }}u * W_OUT + {{ p }}u] = {{ "select(v, 0.0, v <= 0.0)" if EPILOGUE == 1 else "v" }};
                {% endif %}
            }
            {% endfor %}
        }
        {% endfor %}
    {% endif %}
    }
{% endfor %}
}
