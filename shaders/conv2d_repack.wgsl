// Weights [out, in, kh, kw] -> [in][kh][kw][out], with zeros up to the next multiple of OB channels; behind them the bias, or zeros.
// The output channels of a tap lie side by side: a thread of the register-blocked convolution fetches four with one vec4 load,
// and the eight lanes together read one unbroken run of memory, tap after tap, which the cache can fetch ahead.
// FLIP turns the taps round and swaps the channels: the input gradient of a convolution with stride 1 is then a plain
// convolution of dy with these weights.
@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read_write> packed: array<f32>;
{% if BIAS %}
@group(0) @binding(2) var<storage, read> bias: array<f32>;
{% endif %}

const OUT_PAD = (C_OUT + OB - 1u) / OB * OB;
const PACKED = C_IN * K_H * K_W * OUT_PAD;

@compute @workgroup_size(64)
fn repack(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (id.x >= ROW || at >= PACKED + OUT_PAD) {
        return;
    }
    let oc = at % OUT_PAD;
    let tap = at / OUT_PAD % (K_H * K_W);
    let ic = at / (OUT_PAD * K_H * K_W);
    var value = 0.0;
    if (at >= PACKED) {
{% if BIAS %}
        if (oc < C_OUT) {
            value = bias[oc];
        }
{% endif %}
    } else if (oc < C_OUT) {
{% if FLIP %}
        value = w[(ic * C_OUT + oc) * (K_H * K_W) + (K_H * K_W - 1u - tap)];
{% else %}
        value = w[(oc * C_IN + ic) * (K_H * K_W) + tap];
{% endif %}
    }
    packed[at] = value;
}
