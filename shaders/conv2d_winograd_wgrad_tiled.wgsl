// Winograd, the products of the weight gradient, for adapters with a GPU behind them: s[i, c] = sum over tiles of d[i, tile] v[c, tile].
//
// Idea: 128 threads share 64 output channels x 64 input channels of one point and take in a block of 16 tiles at a time. Both operands
// come with the tiles innermost, so each thread fetches four rows of a quad and turns them round in its registers on the way to
// workgroup memory, where the channels then lie side by side; each thread keeps 8 x 4 results. As in conv2d_winograd_wgrad.wgsl, chunks
// follow each other and add to the same sums, and SPLITS sums share a chunk where the channels are few.
@group(0) @binding(0) var<storage, read> counter: array<u32>;
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>; // [CHUNK][POINTS][IN_PAD][4]
@group(0) @binding(2) var<storage, read> d: array<vec4<f32>>; // [CHUNK][POINTS][OUT_PAD][4]
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>; // [SPLITS][POINTS][OUT_PAD][IN_PAD / 4]

const PITCH = 17u; // 16 vec4s and one more: threads that write one column hit different banks
var<workgroup> tile_d: array<vec4<f32>, 16u * PITCH>;
var<workgroup> tile_v: array<vec4<f32>, 16u * PITCH>;

@compute @workgroup_size(128)
fn weight_grad(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let point = group.z % POINTS;
    let split = group.z / POINTS;
    let tx = local % 16u;
    let ty = local / 16u;
    // Half of the threads fetch d, half of them v.
    let quad = local % 4u;
    let rows = local / 4u % 16u;
{% for i in range(8) %}
    var s_{{ i }} = vec4<f32>();
{% endfor %}
    let last = (split + 1u) * late.CHUNK / late.SPLITS;
    for (var block = split * late.CHUNK / late.SPLITS; block < last; block++) {
        let slice = block * POINTS + point;
        if (local < 64u) {
            let at = (slice * late.OUT_PAD + group.y * 64u + rows * 4u) * 4u + quad;
{% for r in range(4) %}
            let r_{{ r }} = d[at + {{ r * 4 }}u];
{% endfor %}
{% for s in range(4) %}
            tile_d[(quad * 4u + {{ s }}u) * PITCH + rows] = vec4(r_0[{{ s }}], r_1[{{ s }}], r_2[{{ s }}], r_3[{{ s }}]);
{% endfor %}
        } else {
            let at = (slice * late.IN_PAD + group.x * 64u + rows * 4u) * 4u + quad;
{% for r in range(4) %}
            let r_{{ r }} = v[at + {{ r * 4 }}u];
{% endfor %}
{% for s in range(4) %}
            tile_v[(quad * 4u + {{ s }}u) * PITCH + rows] = vec4(r_0[{{ s }}], r_1[{{ s }}], r_2[{{ s }}], r_3[{{ s }}]);
{% endfor %}
        }
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
            let d_0 = tile_d[k * PITCH + ty];
            let d_1 = tile_d[k * PITCH + 8u + ty];
            let v_0 = tile_v[k * PITCH + tx];
{% for i in range(8) %}
            s_{{ i }} = fma(vec4(d_{{ i // 4 }}[{{ i % 4 }}]), v_0, s_{{ i }});
{% endfor %}
        }
        workgroupBarrier();
    }
    let first = (split * POINTS + point) * late.OUT_PAD + group.y * 64u + ty * 4u;
{% for i in range(8) %}
    {
        let out = (first + {{ i // 4 * 32 + i % 4 }}u) * (late.IN_PAD / 4u) + group.x * 16u + tx;
        if (counter[0] == 0u) {
            sums[out] = s_{{ i }};
        } else {
            sums[out] += s_{{ i }};
        }
    }
{% endfor %}
}
