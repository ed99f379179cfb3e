// Winograd, the products for adapters with a GPU behind them: m[i, tile] = sum over k of u[k, i] v[k, tile] for each of the T^2 points.
//
// Idea: 128 threads share 64 output channels x 8 blocks of 16 tiles and walk along k in steps of 8. Each value comes from memory once for
// that tile and is then read from workgroup memory; each thread keeps 8 x 8 results in registers, so that one vec4 read feeds 16
// multiply-adds. Every load is a vec4, and neighbouring lanes read neighbouring addresses: the operands were written in this order.
@group(0) @binding(0) var<storage, read> u: array<vec4<f32>>; // [POINTS][K][OUT_PAD / 4]
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>; // [CHUNK][POINTS][K][4]
@group(0) @binding(2) var<storage, read_write> m: array<vec4<f32>>; // [CHUNK][POINTS][OUT_PAD][4]

const DEPTH = 8u;
const PITCH = 36u; // 32 vec4s and four more: threads that write one column hit different banks
var<workgroup> tile_u: array<vec4<f32>, DEPTH * 16u>;
var<workgroup> tile_v: array<vec4<f32>, DEPTH * PITCH>;

@compute @workgroup_size(128)
fn product(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let point = group.z;
    let tx = local % 16u;
    let ty = local / 16u;
    let at_u = point * late.K * (late.OUT_PAD / 4u) + group.y * 16u;
{% for i in range(8) %}{% for q in range(2) %}
    var c_{{ i }}_{{ q }} = vec4<f32>();
{% endfor %}{% endfor %}
    for (var k0 = 0u; k0 < late.K; k0 += DEPTH) {
        {
            var value = vec4<f32>();
            if (k0 + ty < late.K) {
                value = u[at_u + (k0 + ty) * (late.OUT_PAD / 4u) + tx];
            }
            tile_u[ty * 16u + tx] = value;
        }
{% for h in range(2) %}
        {
            let depth = local / 4u % DEPTH;
            let block = local / 32u + {{ h * 4 }}u;
            let at = min(group.x * 8u + block, late.CHUNK - 1u) * POINTS + point;
            var value = vec4<f32>();
            if (k0 + depth < late.K) {
                value = v[(at * late.K + k0 + depth) * 4u + local % 4u];
            }
            tile_v[depth * PITCH + block * 4u + local % 4u] = value;
        }
{% endfor %}
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
{% for q in range(2) %}
            let u_{{ q }} = tile_u[d * 16u + {{ q * 8 }}u + ty];
            let v_{{ q }} = tile_v[d * PITCH + {{ q * 16 }}u + tx];
{% endfor %}
{% for i in range(8) %}{% for q in range(2) %}
            c_{{ i }}_{{ q }} = fma(vec4(u_{{ i // 4 }}[{{ i % 4 }}]), v_{{ q }}, c_{{ i }}_{{ q }});
{% endfor %}{% endfor %}
        }
        workgroupBarrier();
    }
{% for q in range(2) %}
    {
        let block = group.x * 8u + {{ q * 4 }}u + tx / 4u;
        if (block < late.CHUNK) {
            let out = ((block * POINTS + point) * late.OUT_PAD + group.y * 64u + ty * 4u) * 4u + tx % 4u;
    {% for i in range(8) %}
            m[out + {{ (i // 4 * 32 + i % 4) * 4 }}u] = c_{{ i }}_{{ q }};
    {% endfor %}
        }
    }
{% endfor %}
}
