//! Loops compiled for the processor that runs them.
//!
//! The program is built for any processor of its kind, whose vectors may be short and lack whole instructions (32-bit integer
//! products, on x86-64). [`vectorised`] holds several copies of a [`Loop`] and takes the best one at run time. No copy contracts
//! a product and a sum into one rounding, so all give the same bits.

pub use pulp::NullaryFnOnce as Loop;

/// Runs a loop in the copy that suits this processor. What the loop calls takes part only where it is inlined, and a closure may
/// not be, since every copy calls it. So a loop of more than a line is a struct whose `call` is `#[inline(always)]`.
#[inline(always)]
pub fn vectorised<L: Loop>(body: L) -> L::Output {
    pulp::Arch::new().dispatch(body)
}

/// `e^x` without a call, so that a loop over it becomes vectors: at most 2 units in the last place off in `[-87.3, 88.7]`; 0
/// below -103.3, infinity above 88.73, NaN for NaN. Between -103.3 and -87.3 the result is subnormal and rounded once more.
///
/// `x = n ln 2 + r`, `|r| <= ln 2 / 2`, and `e^r` by its Taylor polynomial of degree 7 (error below 1e-8 of the result).
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts, the first short enough for an exact product with n.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking off 1.5 * 2^23 rounds to a whole number, whose bits are then the last ones of the sum.
    const ROUND: f32 = 12_582_912.0;
    let bounded = x.clamp(-104.0, 89.0);
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * LN2_HIGH - n * LN2_LOW;
    let series = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = series.into_iter().fold(0.0_f32, |sum, factor| sum * r + factor);
    // 2^n in two factors, each a normal number: n runs from -150 to 128.
    let n = shifted.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = n >> 1;
    let two_to = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    power * two_to(half) * two_to(n - half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_standard_library() {
        let ulps = |a: f32, b: f32| (i64::from(a.to_bits()) - i64::from(b.to_bits())).abs();
        let mut worst = 0;
        let mut x = -87.3_f32;
        while x < 88.7 {
            worst = worst.max(ulps(exp(x), (f64::from(x).exp()) as f32));
            x += 0.000_37;
        }
        assert!(worst <= 2, "{worst} units in the last place");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(-200.0), exp(f32::NEG_INFINITY), exp(f32::MIN)], [0.0; 3]);
        assert_eq!([exp(100.0), exp(f32::INFINITY)], [f32::INFINITY; 2]);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-100.0) > 0.0 && (exp(-100.0) / 3.78e-44 - 1.0).abs() < 0.05);
    }

    #[test]
    fn vectorised_loops_do_all_elements() {
        let x: Vec<f32> = (0..1003).map(|i| i as f32).collect();
        let mut y = vec![0.0; x.len()];
        vectorised(|| y.iter_mut().zip(&x).for_each(|(y, x)| *y = 2.0 * x));
        assert!(y.iter().enumerate().all(|(i, &y)| y == 2.0 * i as f32));
    }
}
