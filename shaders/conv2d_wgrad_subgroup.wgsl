// Weight gradient of a convolution by subgroups: dw[oc, ic, tap] = sum over pixels of dy[oc, pixel] x[ic, pixel + tap].
//
// Idea: as in conv2d_subgroup.wgsl the LANES invocations of a subgroup need the same inputs x, so each fetches another part of them
// and hands it on with subgroupBroadcast. An invocation owns OB output channels x IB input channels x KB rows of taps and walks over
// the pixels in patches of RB x PB: each gradient that it reads, of its own channels, meets all taps. Both tensors are read where
// they lie. The rows of all images are dealt out to SPLITS partial sums, which sum_partials.wgsl adds in a fixed order.
// TEXTURES: all inputs are read from textures that hold late.IMAGES images from late.FIRST on; the sums are then from the partial sum
// late.SPLIT on.
// GATE says what the gradient passes on its way to the convolution's output, as in conv2d_subgroup.wgsl.
{% set T = "f32" if OB == 1 else "vec" ~ OB ~ "<f32>" %}
{% set ROWS = (RB - 1) * STRIDE_H + (KB - 1) * DIL_H + 1 %}
{% set SPAN = LEAD + (PB - 1) * STRIDE_W + (K_W - 1) * DIL_W + 1 %}
{% set COLS = div_up(SPAN, 4) if X_VEC else SPAN %}
{% set SLOTS = div_up(IB * ROWS * COLS, LANES) %}
{% set PAIRS = GATE == 2 %}
{% set XT = "vec4<f32>" if X_VEC else "f32" %}
{% set DT = "vec4<f32>" if D_VEC else "f32" %}
{% from "lib/inputs.wgsl" import declare, load, places %}
{{ declare(TEXTURES, 0, "x", XT) }} // [N][C_IN][H_IN][W_IN]
{{ declare(TEXTURES, 1, "dy", DT) }} // [N][C_OUT][H_D][W_D]
{% if GATE == 1 %}
{{ declare(TEXTURES, 2, "gate", DT) }}
{% elif GATE == 2 %}
{{ declare(TEXTURES, 2, "gate", "u32") }} // [N][C_OUT][H_D][W_CODES]
{% endif %}
@group(0) @binding({{ 3 if GATE else 2 }}) var<storage, read_write> partial: array<f32>; // [SPLITS][out][in][kh][kw]

// The gradient as it lies in memory: pooled where GATE is 2.
const H_D = H_OUT{{ " / 2u" if PAIRS }};
const W_D = W_OUT{{ " / 2u" if PAIRS }};
const W_CODES = (W_D + 3u) / 4u;
const H_BLOCKS = (H_TILED + RB - 1u) / RB;
const W_BLOCKS = (W_TILED + PB - 1u) / PB;
const C_GROUPS = (C_OUT + OB * LANES - 1u) / (OB * LANES);
const IN_BLOCKS = (C_IN + IB - 1u) / IB;
const TAP_BLOCKS = (K_H + KB - 1u) / KB;
const TILES = C_GROUPS * IN_BLOCKS * TAP_BLOCKS * SPLITS;
const W_ROW = W_IN / {{ 4 if X_VEC else 1 }}u;
const D_ROW = W_D / {{ 4 if D_VEC else 1 }}u;
{{ places(TEXTURES) }}

@compute @workgroup_size(LANES)
fn weight_grad(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    // A workgroup too many repeats the last one's sums and stores nothing.
    let tile = group.y * ROW + group.x;
    let t = min(tile, TILES - 1u);
    let oc = (t % C_GROUPS * LANES + lane) * OB;
    let ib = t / C_GROUPS % IN_BLOCKS * IB;
    let kh = t / (C_GROUPS * IN_BLOCKS) % TAP_BLOCKS * KB;
    let split = t / (C_GROUPS * IN_BLOCKS * TAP_BLOCKS);
{% for o in range(OB) %}
    let oc_{{ o }} = min(oc + {{ o }}u, C_OUT - 1u);
{% endfor %}
    // Slot s of a lane is element s * LANES + lane of a patch's inputs, [IB][ROWS][COLS].
{% for s in range(SLOTS) %}
    let e_{{ s }} = min({{ s }}u * LANES + lane, {{ IB * ROWS * COLS - 1 }}u);
    let ic_{{ s }} = min(ib + e_{{ s }} / {{ ROWS * COLS }}u, C_IN - 1u);
    let r_{{ s }} = kh * DIL_H + e_{{ s }} / {{ COLS }}u % {{ ROWS }}u - u32(PAD_H);
    let c_{{ s }} = e_{{ s }} % {{ COLS }}u - u32((PAD_W + {{ LEAD }}) / {{ 4 if X_VEC else 1 }});
{% endfor %}
{% for i in range(IB) %}{% for h in range(KB) %}{% for k in range(K_W) %}
    var a_{{ i }}_{{ h }}_{{ k }} = {{ T }}();
{% endfor %}{% endfor %}{% endfor %}
    let items = {{ "late.IMAGES" if TEXTURES else "N" }} * H_BLOCKS;
    let last = (split + 1u) * items / SPLITS;
    for (var item = split * items / SPLITS; item < last; item++) {
        let n = item / H_BLOCKS;
        let oy = item % H_BLOCKS * RB;
{% for s in range(SLOTS) %}
        let y_{{ s }} = oy * STRIDE_H + r_{{ s }};
        let at_{{ s }} = ((n * C_IN + ic_{{ s }}) * H_IN + y_{{ s }}) * W_ROW;
{% endfor %}
        for (var b = 0u; b < W_BLOCKS; b++) {
{% for s in range(SLOTS) %}
            let x_{{ s }} = b * {{ PB * STRIDE_W // 4 if X_VEC else PB * STRIDE_W }}u + c_{{ s }};
            let in_{{ s }} = y_{{ s }} < H_IN && x_{{ s }} < W_ROW;
            let v_{{ s }} = select({{ XT }}(), {{ load(TEXTURES, "x", XT, "select(0u, at_%d + x_%d, in_%d)" | format(s, s, s)) }}, in_{{ s }});
{% endfor %}
{# The gradient's values g_<o>_<row>_<vec4, or number> in memory's layout. #}
{% for o in range(OB) %}{% for r in range(1 if PAIRS else RB) %}
            let from_{{ o }}_{{ r }} = (n * C_OUT + oc_{{ o }}) * H_D + {{ "oy / 2u" if PAIRS else "min(oy + %du, H_D - 1u)" | format(r) }};
    {% set COUNT = PB // 2 if PAIRS else PB %}
    {% for p in range(COUNT // 4 if D_VEC else COUNT) %}
        {% set col = "b * %du + %du" | format(COUNT // 4 if D_VEC else COUNT, p) %}
        {% set at = "from_%d_%d * D_ROW + %s" | format(o, r, "min(%s, D_ROW - 1u)" | format(col) if W_TILED % PB != 0 else col) %}
            let d_{{ o }}_{{ r }}_{{ p }} = {{ load(TEXTURES, "dy", DT, at) }};
        {% if GATE == 1 %}
            let k_{{ o }}_{{ r }}_{{ p }} = {{ load(TEXTURES, "gate", DT, at) }};
        {% endif %}
    {% endfor %}
    {% if PAIRS %}
            let k_{{ o }} = {{ load(TEXTURES, "gate", "u32", "from_%d_%d * W_CODES + b" | format(o, r)) }};
    {% endif %}
{% endfor %}{% endfor %}
{% for r in range(RB) %}{% for p in range(PB) %}
    {% set q = p // 2 if PAIRS else p %}
    {% set from = 0 if PAIRS else r %}
    {% if PAIRS %}
            let want_{{ r }}_{{ p }} = {{ r * 2 ~ "u" if RB == 2 else "oy % 2u * 2u" }} + {{ p % 2 }}u;
    {% endif %}
    {% set edge = ("b * %du + %du < W_TILED" | format(PB, p) if W_TILED % PB != 0 else "") ~ (" && " if W_TILED % PB != 0 and H_TILED % RB != 0 else "") ~ ("oy + %du < H_TILED" | format(r) if H_TILED % RB != 0 else "") %}
            let g_{{ r }}_{{ p }} = {{ "select(" ~ T ~ "(), " if edge }}{{ T }}(
    {% for o in range(OB) %}
        {% set value = "d_" ~ o ~ "_" ~ from ~ "_" ~ (q // 4 if D_VEC else q) ~ ("[" ~ q % 4 ~ "]" if D_VEC else "") %}
        {% if GATE == 1 %}
                select({{ value }}, 0.0, {{ "k" ~ value[1:] }} <= 0.0),
        {% elif GATE == 2 %}
                select(0.0, {{ value }}, ((k_{{ o }} >> {{ q * 4 }}u) & 7u) == want_{{ r }}_{{ p }}),
        {% else %}
                {{ value }},
        {% endif %}
    {% endfor %}
            ){{ ", " ~ edge ~ ")" if edge }};
{% endfor %}{% endfor %}
{% for i in range(IB) %}{% for row in range(ROWS) if needed(row, RB, STRIDE_H, KB, DIL_H) %}
            {
    {% for c in range(SPAN - LEAD) if needed(c, PB, STRIDE_W, K_W, DIL_W) %}{% set e = (i * ROWS + row) * COLS + ((c + LEAD) // 4 if X_VEC else c) %}
                let b_{{ c }} = {{ T }}(subgroupBroadcast(v_{{ e // LANES }}{{ "[%d]" | format((c + LEAD) % 4) if X_VEC }}, {{ e % LANES }}u));
    {% endfor %}
    {% for r in range(RB) %}{% for h in range(KB) if r * STRIDE_H + h * DIL_H == row %}
        {% for k in range(K_W) %}{% for p in range(PB) %}
                a_{{ i }}_{{ h }}_{{ k }} = fma(g_{{ r }}_{{ p }}, b_{{ p * STRIDE_W + k * DIL_W }}, a_{{ i }}_{{ h }}_{{ k }});
        {% endfor %}{% endfor %}
    {% endfor %}{% endfor %}
            }
{% endfor %}{% endfor %}
        }
    }
    if (tile >= TILES) {
        return;
    }
{% for o in range(OB) %}
    if (oc + {{ o }}u < C_OUT) {
    {% for i in range(IB) %}
        {% if C_IN % IB != 0 and i > 0 %}
        if (ib + {{ i }}u < C_IN)
        {% endif %}
        {
            let at = ((({{ "(late.SPLIT + split)" if TEXTURES else "split" }} * C_OUT + oc + {{ o }}u) * C_IN + ib + {{ i }}u) * K_H + kh) * K_W;
        {% for h in range(KB) %}
            {% if K_H % KB != 0 and h > 0 %}
            if (kh + {{ h }}u < K_H)
            {% endif %}
            {
            {% for k in range(K_W) %}
                partial[at + {{ h * K_W + k }}u] = a_{{ i }}_{{ h }}_{{ k }}{{ "[%d]" | format(o) if OB > 1 }};
            {% endfor %}
            }
        {% endfor %}
        }
    {% endfor %}
    }
{% endfor %}
}
