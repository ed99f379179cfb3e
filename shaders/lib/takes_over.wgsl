// PyTorch's rule for a maximum: a later pixel takes over when it is larger or NaN. The bits are asked, because WGSL may assume NaN away.
fn takes_over(value: f32, best: f32) -> bool {
    return value > best || (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}
