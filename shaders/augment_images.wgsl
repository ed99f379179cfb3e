// A batch of images, picked by index, changed at random and normalised (src/ops/augment.rs has the formulas).
//
// Two dispatches: `draw` decides what happens to each image and writes it into `rows`, four vec4 an image; then each pixel of the
// result asks where in its source image it lies, and mixes the four bytes around that place.
//
//   rows[4b]      displacement of the source along x: x u + y v + z, where (u, v) is the distance from the centre; w: mirrored
//   rows[4b + 1]  displacement along y; w: standard deviation of the noise
//   rows[4b + 2]  x: factor of the pixels, y: share of the mean that is added
//   rows[4b + 3]  top, left, bottom and right of the erased rectangle
//
// x is [IMAGES, CHANNELS, H, W] in bytes, four to a word, the first in the lowest bits. Displacements are small where
// coordinates are large, so their fractions are exact to more bits, and an image that stays where it is gets exact zeros.

{% include "lib/rng.wgsl" %}

const SIZE: u32 = CHANNELS * H * W;

// -------------------------------------------------------------------------------------- draw: one invocation an image
@group(0) @binding(0) var<storage, read> seed_and_step: array<u32>;
@group(0) @binding(1) var<storage, read_write> rows: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> repeats: array<u32>;

// Sine and cosine for angles up to pi: Taylor's series of a quarter of the angle, doubled twice. WGSL's own may be wrong
// in the 12th bit.
fn sin_cos(angle: f32) -> vec2<f32> {
    let q = 0.25 * angle;
    let qq = q * q;
    let s = q * (1.0 - qq / 6.0 * (1.0 - qq / 20.0 * (1.0 - qq / 42.0 * (1.0 - qq / 72.0))));
    let c = 1.0 - qq / 2.0 * (1.0 - qq / 12.0 * (1.0 - qq / 30.0 * (1.0 - qq / 56.0)));
    let s_2 = 2.0 * s * c;
    let c_2 = 1.0 - 2.0 * s * s;
    return vec2(2.0 * s_2 * c_2, 1.0 - 2.0 * s_2 * s_2);
}

// Draw number `number` of image b: four words.
fn words(number: u32, b: u32) -> vec4<u32> {
    return pcg4d(vec4(b, STREAM + number, seed_and_step[1], seed_and_step[0]));
}

fn happens(word: u32, p: f32) -> bool {
    return random_unit(word) < p;
}

fn between(word: u32, low: f32, high: f32) -> f32 {
    return low + (high - low) * random_unit(word);
}

// A value that is drawn between two bounds where the change happens, and `other` elsewhere.
fn value(number: u32, b: u32, p: f32, low: f32, high: f32, other: f32) -> f32 {
    let draw = words(number, b);
    return select(other, between(draw.y, low, high), happens(draw.x, p));
}

// The largest integer whose square is not above n.
fn root(n: u32) -> u32 {
    var r = 0u;
    for (var bit = 0x8000u; bit > 0u; bit >>= 1u) {
        let more = r | bit;
        r = select(r, more, more * more <= n);
    }
    return r;
}

fn rectangle(b: u32, p: f32, least: u32, most: u32, slimmest: u32) -> vec4<f32> {
    let draw = words({{ ERASE }}u, b);
    let area = least + random_below(draw.y, most - least + 1u);
    let ratio = 64u + random_below(draw.z, slimmest - 63u);
    let upright = (draw.w >> 31u) == 1u;
    let long = clamp((root(area * ratio) + 4u) / 8u, 1u, select(W, H, upright));
    let short = clamp((area + long / 2u) / long, 1u, select(H, W, upright));
    let height = select(short, long, upright);
    let width = select(long, short, upright);
    let place = words({{ PLACE }}u, b);
    let top = random_below(place.x, H - height + 1u);
    let left = random_below(place.y, W - width + 1u);
    return select(vec4<f32>(), vec4<f32>(vec4(top, left, top + height, left + width)), happens(draw.x, p));
}

@compute @workgroup_size(WG)
fn draw(@builtin(global_invocation_id) id: vec3<u32>) {
    let b = id.y * GRID_X + id.x;
    if (b >= COUNT) {
        return;
    }
    {% if REPEATS -%}
    let repeat = repeats[b] != 0u;
    {%- endif %}
    let mirror = select(1.0, -1.0, happens(words({{ HFLIP }}u, b).x, {{ HFLIP_P }}));
    let turn = sin_cos(value({{ ROTATE }}u, b, {{ ROTATE_P }}, -({{ ROTATE_BY }}), {{ ROTATE_BY }}, 0.0));
    let shear = sin_cos(value({{ SHEAR }}u, b, {{ SHEAR_P }}, -({{ SHEAR_BY }}), {{ SHEAR_BY }}, 0.0));
    let slant = shear.x / shear.y;
    let zoom = value({{ ZOOM }}u, b, {{ ZOOM_P }}, {{ ZOOM_MIN }}, {{ ZOOM_MAX }}, 1.0);
    let shift = words({{ SHIFT }}u, b);
    let shifted = happens(shift.x, {{ SHIFT_P }});
    let tx = select(0.0, between(shift.y, -({{ SHIFT_X }}), {{ SHIFT_X }}), shifted);
    let ty = select(0.0, between(shift.z, -({{ SHIFT_Y }}), {{ SHIFT_Y }}), shifted);
    let m = vec4(turn.y - slant * turn.x, -turn.x - slant * turn.y, turn.x, turn.y) / zoom;
    let bright = value({{ BRIGHTNESS }}u, b, {{ BRIGHTNESS_P }}, {{ BRIGHTNESS_MIN }}, {{ BRIGHTNESS_MAX }}, 1.0);
    let contrast = value({{ CONTRAST }}u, b, {{ CONTRAST_P }}, {{ CONTRAST_MIN }}, {{ CONTRAST_MAX }}, 1.0);
    let sigma = select(0.0, {{ NOISE_STD }}, happens(words({{ NOISE }}u, b).x, {{ NOISE_P }}));
    rows[4u * b] = vec4(mirror * vec3(m.x - 1.0, m.y, -(m.x * tx + m.y * ty)), mirror);
    rows[4u * b + 1u] = vec4(m.z, m.w - 1.0, -(m.z * tx + m.w * ty), sigma);
    rows[4u * b + 2u] = vec4(contrast * bright, 1.0 - contrast, 0.0, 0.0);
    rows[4u * b + 3u] = rectangle(b, {{ ERASE_P }}, {{ ERASE_LEAST }}, {{ ERASE_MOST }}, {{ ERASE_SLIMMEST }});
}

// ------------------------------------------------------------------------------------------------------------ a pixel
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> drawn: array<vec4<f32>>;
{% if NOISY -%}
@group(0) @binding(4) var<storage, read> noise_words: array<u32>;
{%- endif %}

fn mean(c: u32) -> f32 {
    return {{ MEAN }};
}

fn deviation(c: u32) -> f32 {
    return {{ STD }};
}

// The row or column that stands in for `k` beyond the border of n.
fn border(k: i32, n: i32) -> u32 {
    {% if FILL == "reflect" -%}
    let period = 2 * n;
    let turn = ((k % period) + period) % period;
    return u32(min(turn, period - 1 - turn));
    {%- else -%}
    return u32(clamp(k, 0, n - 1));
    {%- endif %}
}

// The pixel at row i, column j of the plane that begins at byte `plane`.
fn tap(plane: u32, i: i32, j: i32) -> f32 {
    let at = plane + border(i, i32(H)) * W + border(j, i32(W));
    let byte = f32((x[at / 4u] >> (8u * (at % 4u))) & 0xffu);
    {% if FILL == "constant" -%}
    let inside = i >= 0 && i < i32(H) && j >= 0 && j < i32(W);
    return select(0.0, byte, inside);
    {%- else -%}
    return byte;
    {%- endif %}
}

// What is drawn for an image.
struct Drawn {
    across: vec4<f32>,
    down: vec4<f32>,
    tone: vec2<f32>,
    erased: vec4<f32>,
    {% if NOISY -%}
    words: vec2<u32>,
    {%- endif %}
}

fn drawn_for(b: u32) -> Drawn {
    {% if NOISY -%}
    let words = vec2(noise_words[0], noise_words[1]);
    return Drawn(drawn[4u * b], drawn[4u * b + 1u], drawn[4u * b + 2u].xy, drawn[4u * b + 3u], words);
    {%- else -%}
    return Drawn(drawn[4u * b], drawn[4u * b + 1u], drawn[4u * b + 2u].xy, drawn[4u * b + 3u]);
    {%- endif %}
}

{% if NOISY -%}
// The sum of sixteen random bytes, centred and scaled: nearly standard normal.
fn normal(e: u32, words: vec2<u32>) -> f32 {
    let v = pcg4d(vec4(e, STREAM + {{ PIXEL }}u, words.y, words.x));
    let pairs = (v & vec4(0x00ff00ffu)) + ((v >> vec4(8u)) & vec4(0x00ff00ffu));
    let sum = pairs.x + pairs.y + pairs.z + pairs.w;
    return (f32((sum & 0xffffu) + (sum >> 16u)) - 2040.0) * {{ BYTES_SCALE }};
}
{%- endif %}

// Element e of y: row i, column j of channel c; its source begins at byte `plane`.
fn pixel(e: u32, plane: u32, c: u32, i: u32, j: u32, d: Drawn) -> f32 {
    let u = f32(j) - 0.5 * f32(W - 1u);
    let v = f32(i) - 0.5 * f32(H - 1u);
    let dx = d.across.x * u + d.across.y * v + d.across.z;
    let dy = d.down.x * u + d.down.y * v + d.down.z;
    let left = select(i32(j), i32(W - 1u) - i32(j), d.across.w < 0.0) + i32(floor(dx));
    let top = i32(i) + i32(floor(dy));
    let fx = dx - floor(dx);
    let fy = dy - floor(dy);
    let above = mix_bytes(tap(plane, top, left), tap(plane, top, left + 1), fx);
    let below = mix_bytes(tap(plane, top + 1, left), tap(plane, top + 1, left + 1), fx);
    let source = mix_bytes(above, below, fy) / 255.0;
    var shown = clamp(source * d.tone.x + d.tone.y * mean(c), 0.0, 1.0);
    {% if NOISY -%}
    shown += d.down.w * normal(e, d.words);
    {%- endif %}
    let row = f32(i);
    let column = f32(j);
    let gone = row >= d.erased.x && column >= d.erased.y && row < d.erased.z && column < d.erased.w;
    return select((shown - mean(c)) / deviation(c), 0.0, gone);
}

// Exactly `a` where f is 0.
fn mix_bytes(a: f32, b: f32, f: f32) -> f32 {
    return a + f * (b - a);
}

// ------------------------------------------------------------------------------------ forward: one invocation an element
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let b = e / SIZE;
    let c = e % SIZE / (H * W);
    let plane = min(index[b], IMAGES - 1u) * SIZE + c * (H * W);
    y[e] = pixel(e, plane, c, e / W % H, e % W, drawn_for(b));
}

// -------------------------------- strip: where W is a multiple of 4, one invocation STRIP elements of a row. The idea: what
// was drawn for the image is loaded once for all of them.
@group(0) @binding(3) var<storage, read_write> y_4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn strip(@builtin(global_invocation_id) id: vec3<u32>) {
    let invocation = id.y * GRID_X + id.x;
    if (invocation >= COUNT) {
        return;
    }
    let e = invocation * STRIP;
    let b = e / SIZE;
    let c = e % SIZE / (H * W);
    let i = e / W % H;
    let plane = min(index[b], IMAGES - 1u) * SIZE + c * (H * W);
    let d = drawn_for(b);
    for (var q = 0u; q < STRIP; q += 4u) {
        let j = e % W + q;
        y_4[(e + q) / 4u] = vec4(
            {% for k in range(4) -%}
            pixel(e + q + {{ k }}u, plane, c, i, j + {{ k }}u, d),
            {% endfor -%}
        );
    }
}
