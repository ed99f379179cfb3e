// Counter-based randomness: a hash of (seed, step, stream, element), bit for bit that of src/rng.rs.
// PCG4D: Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.

fn pcg4d(words: vec4<u32>) -> vec4<u32> {
    var v = words * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// 32 random bits for `element` of `stream` at `step`.
fn random_bits(seed: u32, step: u32, stream: u32, element: u32) -> u32 {
    return pcg4d(vec4(element, stream, step, seed)).x;
}

// Maps 32 random bits to [0, 1) with 24 bits, exact in f32.
fn random_unit(bits: u32) -> f32 {
    return f32(bits >> 8u) * (1.0 / 16777216.0);
}

// Maps 32 random bits to 0..n: the upper half of their product with n.
fn random_below(bits: u32, n: u32) -> u32 {
    let low = (bits & 0xffffu) * (n & 0xffffu);
    let left = (bits >> 16u) * (n & 0xffffu) + (low >> 16u);
    let right = (bits & 0xffffu) * (n >> 16u) + (left & 0xffffu);
    return (bits >> 16u) * (n >> 16u) + (left >> 16u) + (right >> 16u);
}
