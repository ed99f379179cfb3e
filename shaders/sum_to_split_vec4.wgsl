// Sums of [OUTER, KEEP, 4 INNER] to [KEEP] in two dispatches, as in sum_to_split.wgsl, from vec4 loads. The idea: a wide load a turn, four
// sums side by side. The partial sums are added by the other page's second dispatch.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

// partial: y[k * PARTS + p] = sum of the vec4 p, p + PARTS, p + 2 PARTS, ... of output k
@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let k = i / PARTS;
    var sum = vec4<f32>();
    for (var t = i % PARTS; t < OUTER * INNER; t += PARTS) {
        sum += x[((t / INNER) * KEEP + k) * INNER + t % INNER];
    }
    let two = sum.xy + sum.zw;
    y[i] = two.x + two.y;
}
