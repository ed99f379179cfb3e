//! Several comparisons at once.

/// Holm's adjusted p-values (Holm, Scandinavian Journal of Statistics 6, 1979), in the order given: the `k`-th smallest of
/// `m`, from 0, is multiplied by `m - k`, made no smaller than the ones before it, and cut at 1. Comparing them with 0.05
/// keeps the chance of any false finding below 5 %, however the comparisons depend on each other. NaN stays NaN and
/// counts as a comparison.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_unstable_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![f64::NAN; p.len()];
    let mut largest = 0.0_f64;
    for (k, &i) in order.iter().enumerate() {
        if !p[i].is_nan() {
            largest = largest.max(((p.len() - k) as f64 * p[i]).min(1.0));
            adjusted[i] = largest;
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::holm;

    #[test]
    fn adjusts_in_steps() {
        assert_eq!(holm(&[0.25, 0.0625, 0.125]), [0.25, 0.1875, 0.25]);
        assert_eq!(holm(&[0.5, 0.75]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
        let with = holm(&[f64::NAN, 0.0625]);
        assert!(with[0].is_nan() && with[1] == 0.125);
    }
}
