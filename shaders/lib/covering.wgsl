// First window that covers `at`, a position in the padded image, and the one past the last.
fn covering(at: u32, kernel: u32, stride: u32, size: u32) -> vec2<u32> {
    var first = 0u;
    if (at >= kernel) {
        first = (at - kernel) / stride + 1u;
    }
    return vec2(first, min(at / stride + 1u, size));
}
