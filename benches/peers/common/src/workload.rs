//! Reads ../workloads.txt.

/// One line of it; `input` is channels, height, width.
pub enum Work {
    Step { chain: String, input: [usize; 3], batch: usize },
    Conv { input: [usize; 3], batch: usize },
    Pool { input: [usize; 3], batch: usize },
    Matmul { size: usize },
}

/// The names and what they stand for, in the file's order.
///
/// # Errors
/// The file cannot be read, or one of its lines.
pub fn read(path: &str) -> Result<Vec<(String, Work)>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    text.lines()
        .filter(|l| !l.starts_with('#') && !l.trim().is_empty())
        .map(|line| one(line).ok_or(format!("{path}: cannot read {line:?}")))
        .collect()
}

fn one(line: &str) -> Option<(String, Work)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [kind, name, chain, size] = words[..] else { return None };
    let sizes: Vec<usize> = size.split('x').map(str::parse).collect::<Result<_, _>>().ok()?;
    let work = match (kind, &sizes[..]) {
        ("step", &[c, h, w, batch]) => Work::Step { chain: chain.into(), input: [c, h, w], batch },
        ("conv2d", &[c, h, w, batch]) => Work::Conv { input: [c, h, w], batch },
        ("max_pool2d", &[c, h, w, batch]) => Work::Pool { input: [c, h, w], batch },
        ("matmul", &[size]) => Work::Matmul { size },
        _ => return None,
    };
    Some((name.into(), work))
}

/// A convolution of a chain.
#[derive(Clone, Copy)]
pub struct Conv {
    pub out: usize,
    pub kernel: usize,
    pub padding: usize,
}

/// Reads `conv32` or `conv6k5p0`: kernel 3 without `k`, the size is kept without `p`.
#[must_use]
pub fn conv_layer(text: &str) -> Option<Conv> {
    let (rest, padding) = match text.split_once('p') {
        Some((rest, p)) => (rest, Some(p.parse().ok()?)),
        None => (text, None),
    };
    let (out, kernel) = rest.strip_prefix("conv").map(|r| r.split_once('k').unwrap_or((r, "3")))?;
    let kernel: usize = kernel.parse().ok()?;
    Some(Conv { out: out.parse().ok()?, kernel, padding: padding.unwrap_or((kernel - 1) / 2) })
}
