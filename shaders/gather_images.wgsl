// A batch of images, picked by index and normalised:  y[b,c,..] = (x[index[b],c,..] / 255 - mean[c]) / std[c]
//
// x is [IMAGES, CHANNELS, H, W] in bytes, four to a word, the first in the lowest bits; SIZE = CHANNELS * PLANE bytes make an
// image. An index past the last image means the last one: nothing is read out of place.

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> index: array<u32>;

fn mean(c: u32) -> f32 {
    return {{ MEAN }};
}

fn deviation(c: u32) -> f32 {
    return {{ STD }};
}

// `at` is the place of the byte in its image.
fn normalise(byte: u32, at: u32) -> f32 {
    let c = at / PLANE;
    return (f32(byte) / 255.0 - mean(c)) / deviation(c);
}

// -------------------------------------------------------------------------------------------- one invocation an element of y
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let at = e % SIZE;
    let origin = min(index[e / SIZE], IMAGES - 1u) * SIZE + at;
    let byte = (x[origin / 4u] >> (8u * (origin % 4u))) & 0xffu;
    y[e] = normalise(byte, at);
}

// ------------------------------------------------------- words: where SIZE is a multiple of 4, one invocation four elements
@group(0) @binding(2) var<storage, read_write> y_4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn words(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let words_of_image = max(SIZE / 4u, 1u);
    let at = e % words_of_image;
    let word = x[min(index[e / words_of_image], IMAGES - 1u) * words_of_image + at];
    y_4[e] = vec4(
        normalise(word & 0xffu, 4u * at),
        normalise((word >> 8u) & 0xffu, 4u * at + 1u),
        normalise((word >> 16u) & 0xffu, 4u * at + 2u),
        normalise(word >> 24u, 4u * at + 3u),
    );
}
