//! Numbers as tables show them.

/// `1,234,567`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits.
fn three(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Three digits and a prefix of powers of 1000: `1.23 G`.
pub(super) fn scaled(n: u64) -> String {
    if n < 1000 {
        return n.to_string();
    }
    let mut value = n as f64;
    let mut prefix = "";
    for next in [" k", " M", " G", " T", " P"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        prefix = next;
    }
    format!("{}{prefix}", three(value))
}

/// `1.50 MiB`.
pub(super) fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", three(value))
}

/// `12.3 ms`.
pub(super) fn seconds(s: f64) -> String {
    match s {
        s if s < 999.5e-6 => format!("{} us", three(s * 1e6)),
        s if s < 0.9995 => format!("{} ms", three(s * 1e3)),
        s => format!("{} s", three(s)),
    }
}

/// A rate in units of 10^9 a second.
pub(super) fn giga(rate: f64) -> String {
    three(rate * 1e-9)
}

/// An error: `3.1e-7`, and `0` for none at all.
pub(super) fn error(e: f64) -> String {
    if e == 0.0 { "0".to_owned() } else { format!("{e:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([grouped(7), grouped(1234), grouped(1_234_567)], ["7", "1,234", "1,234,567"]);
        assert_eq!(
            [scaled(999), scaled(1000), scaled(999_999), scaled(12_345_678)],
            ["999", "1.00 k", "1.00 M", "12.3 M"]
        );
        assert_eq!([bytes(0), bytes(1023), bytes(1024), bytes(1_048_576)], ["0 B", "1023 B", "1.00 KiB", "1.00 MiB"]);
        assert_eq!(bytes(1_047_552), "0.999 MiB".replace("0.999", "1.00"));
        assert_eq!([seconds(1.5e-6), seconds(0.0123), seconds(61.0)], ["1.50 us", "12.3 ms", "61.0 s"]);
        assert_eq!([error(0.0), error(3.14e-7)], ["0", "3.1e-7"]);
    }
}
