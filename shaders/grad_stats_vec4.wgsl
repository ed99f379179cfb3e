// The sum of squares of the finite elements of x [4 N], and the number of the others, as in grad_stats.wgsl, from vec4 loads. The idea:
// one wide load a turn and no branch; squares of elements that do not count are replaced by zeros. The partial results are added by the
// page's other two dispatches.

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;   // the floats' bits
@group(0) @binding(1) var<storage, read_write> parts: array<vec2<f32>>;

const EXPONENT = vec4(0x7f800000u);   // all ones in NaN and infinity alone

// partial: the vec4 p, p + PARTS, p + 2 PARTS, ...
@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = id.y * GRID_X + id.x;
    if (p >= COUNT) {
        return;
    }
    var squares = vec4<f32>();
    var others = vec4<u32>();
    for (var i = p; i < N; i += PARTS) {
        let bits = x[i];
        let bad = (bits & EXPONENT) == EXPONENT;
        let value = bitcast<vec4<f32>>(select(bits, vec4<u32>(), bad));
        squares += value * value;
        others += select(vec4<u32>(), vec4(1u), bad);
    }
    let sum = squares.xy + squares.zw;
    parts[p] = vec2(sum.x + sum.y, f32(others.x + others.y + others.z + others.w));
}
