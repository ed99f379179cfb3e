// Ends the register-blocked weight gradient: dw[oc, ic, tap] = sum over the SPLITS parts, always in their order (the same bits every run),
// turned from the layout that the sums were stored in, [split][in][kh][kw][out], where a thread's four output channels are one vec4.
@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> dw: array<f32>;

@compute @workgroup_size(64)
fn gather(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (id.x >= ROW || at >= C_OUT * C_IN * TAPS) {
        return;
    }
    // Neighbouring lanes read neighbouring output channels.
    let oc = at % C_OUT;
    let tap = at / C_OUT % TAPS;
    let ic = at / (C_OUT * TAPS);
    var sum = 0.0;
    for (var s = 0u; s < SPLITS; s++) {
        sum += partial[((s * IN_PAD + ic) * TAPS_PAD + tap) * OUT_PAD + oc];
    }
    dw[(oc * C_IN + ic) * TAPS + tap] = sum;
}
