//! Random changes to bytes that some reader takes.

use radiograd::rng::Rng;

/// One change: a bit, a byte, a number that looks dangerous, a piece moved, doubled or cut out.
pub fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len() as u32;
    let at = rng.below(len) as usize;
    let piece = at..(at + 1 + rng.below(32) as usize).min(bytes.len());
    match rng.below(8) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next_u32() as u8,
        2 => drop(bytes.remove(at)),
        3 => bytes.insert(at, rng.next_u32() as u8),
        4 => drop(bytes.drain(piece)),
        5 => {
            let copy = bytes[piece].to_vec();
            let to = rng.below(len) as usize;
            bytes.splice(to..to, copy);
        }
        6 => {
            let number = [u64::MAX, u64::MAX >> 1, 1 << 32, u64::from(u32::MAX), 0xffff, 0][rng.below(6) as usize];
            let width = [2, 4, 8][rng.below(3) as usize];
            for (to, from) in bytes.iter_mut().skip(at).zip(&number.to_le_bytes()[..width]) {
                *to = *from;
            }
        }
        _ => {
            let digits = b"0123456789[]{},:\"\\.(Ru\x85\x94";
            bytes[at] = digits[rng.below(digits.len() as u32) as usize];
        }
    }
}
