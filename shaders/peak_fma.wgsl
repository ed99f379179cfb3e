// How many multiply-adds a second: nothing but them, on registers.
//
//   s[i] = s[i] * a + b,  TURNS * {{ UNROLL }} times for each of {{ ACCUMULATORS }} accumulators of type {{ ITEM }}
//
// A multiply-add waits for the one before it on the same accumulator, so several must be under way at once; how many, and how
// wide, differs from device to device, and the bench tries several. a and b come from memory, so that no compiler can work
// the sum out; both are 1 there, so the result is known exactly: every accumulator ends at its start plus the number of
// steps. (All numbers are whole and below 2^24.)

@group(0) @binding(0) var<storage, read> factors: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let a = {{ ITEM }}(factors[0]);
    let b = {{ ITEM }}(factors[1]);
    let start = {{ ITEM }}(f32(id.x % 8u));
    {%- for i in range(ACCUMULATORS) %}
    var s{{ i }} = start + {{ ITEM }}({{ i % 4 }}.0);
    {%- endfor %}
    for (var t = 0u; t < TURNS; t++) {
        {%- for u in range(UNROLL) %}
        {%- for i in range(ACCUMULATORS) %}
        s{{ i }} = {% if FUSED %}fma(s{{ i }}, a, b){% else %}s{{ i }} * a + b{% endif %};
        {%- endfor %}
        {%- endfor %}
    }
    var sum = s0;
    {%- for i in range(1, ACCUMULATORS) %}
    sum += s{{ i }};
    {%- endfor %}
    result[id.x] = {% if ITEM == "f32" %}sum{% else %}dot(sum, vec4(1.0)){% endif %};
}
