//! Shapes of one's own for the kernel benches: the text of `--shapes`.
//!
//! One shape a line: the op, then `key=value` pairs in any order. `#` begins a remark. In place of line ends, `;` separates
//! shapes, so that they can stand on the command line. The op may be left out where `--op` names it. Each shape gives a case
//! for every direction that the op has.
//!
//! ```text
//! conv2d n=32 c=64 size=56 o=128 k=3          # 3x3 with padding 1
//! conv2d n=8 c=3 h=224 w=224 o=64 k=7 stride=2 pad=3 bias=0
//! matmul m=512 k=2048 n=512
//! optimizer_step parameters=1000000 kind=adamw
//! ```
//!
//! | op | keys, with their defaults |
//! |---|---|
//! | `conv2d` | `n=32`, `c`, `size` or `h` and `w`, `o`, `k=3`, `stride=1`, `pad=k/2`, `dilation=1`, `groups=1`, `bias=1` |
//! | `linear` | `n=32`, `in`, `out` |
//! | `matmul` | `m`, `k`, `n` for `[m, k] x [k, n]` |
//! | `max_pool2d`, `avg_pool2d` | `n=32`, `c`, `size` or `h` and `w`, `k=2`, `stride=k`, `pad=0` |
//! | `batch_norm2d` | `n=32`, `c`, `size` or `h` and `w` |
//! | `softmax`, `cross_entropy` | `n=32` rows of `c` classes |
//! | `optimizer_step` | `parameters`, `kind=adam` (as `--optimizer` of `train`) |
//! | `gather_images`, `augment_images` | `n=32` of `images=256`, `c`, `size` or `h` and `w` |

use super::cases::{self, Case, OPS};
use crate::nn::error::nearest;
use crate::ops::conv2d::Conv2d;
use crate::ops::pool2d::Pool2d;
use crate::optim::OptimizerKind;

/// A line that gives no case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ShapesError {
    /// Its number, from 1; shapes between `;` are counted as lines.
    pub line: usize,
    /// What is wrong and what to write.
    pub what: String,
}

/// The most elements of a tensor: 1 GiB of floats.
const MAX_ELEMENTS: usize = 1 << 28;

/// The pairs of a line, of which each is taken once.
struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Pairs<'a> {
    fn take(&mut self, key: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|p| p.0 == key)?;
        Some(self.0.remove(at).1)
    }

    /// A whole number from `least` to 2^24.
    fn number(&mut self, key: &str, least: usize, default: Option<usize>) -> Result<usize, String> {
        let Some(text) = self.take(key) else { return default.ok_or_else(|| format!("{key}= is missing")) };
        let fits = text.parse().ok().filter(|v| (least..=1 << 24).contains(v));
        fits.ok_or_else(|| format!("{key}={text}: give a whole number from {least} to {}", 1 << 24))
    }

    /// `size`, or `h` and `w`.
    fn extent(&mut self) -> Result<[usize; 2], String> {
        if self.0.iter().any(|p| p.0 == "size") {
            return self.number("size", 1, None).map(|s| [s, s]);
        }
        match (self.number("h", 1, None), self.number("w", 1, None)) {
            (Ok(h), Ok(w)) => Ok([h, w]),
            (Err(e), _) | (_, Err(e)) => Err(format!("{e}; give size= or h= and w=")),
        }
    }

    fn image(&mut self) -> Result<[usize; 4], String> {
        let (n, c) = (self.number("n", 1, Some(32))?, self.number("c", 1, None)?);
        let [h, w] = self.extent()?;
        Ok([n, c, h, w])
    }
}

/// The cases of a text; `op` is meant where a line names none.
///
/// # Errors
/// The first line that is none.
pub fn parse(text: &str, op: Option<&str>) -> Result<Vec<Case>, ShapesError> {
    let mut all = Vec::new();
    for (i, line) in text.split(['\n', ';']).enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            all.extend(parse_line(line, op).map_err(|what| ShapesError { line: i + 1, what })?);
        }
    }
    if all.is_empty() {
        return Err(ShapesError { line: 1, what: "no shape; write one such as conv2d c=64 size=56 o=64".to_owned() });
    }
    Ok(all)
}

fn parse_line(line: &str, op: Option<&str>) -> Result<Vec<Case>, String> {
    let mut words = line.split_whitespace().peekable();
    let op = match words.next_if(|w| !w.contains('=')) {
        Some(named) => named,
        None => op.ok_or("the line begins with no op; write one, or give --op")?,
    };
    if !OPS.contains(&op) {
        let hint = nearest(op, OPS).map(|n| format!(", did you mean {n}?")).unwrap_or_default();
        return Err(format!("{op}: no such op{hint}; known: {}", OPS.join(", ")));
    }
    let mut pairs = Pairs(Vec::new());
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word}: write key=value, without blanks"))?;
        if pairs.0.iter().any(|p| p.0 == key) {
            return Err(format!("{key}= stands there twice"));
        }
        pairs.0.push((key, value));
    }
    let cases = of_op(op, &mut pairs)?;
    if let Some((key, _)) = pairs.0.first() {
        return Err(format!("{op} has no {key}="));
    }
    let largest = cases.iter().flat_map(|c| c.inputs.iter().chain(&c.state)).map(|i| i.spec.numel()).max();
    match largest.filter(|&n| n > MAX_ELEMENTS) {
        Some(n) => Err(format!("a tensor of {n} elements is more than {MAX_ELEMENTS}; make it smaller")),
        None => Ok(cases),
    }
}

/// Refuses a product of sizes that no tensor has, before anything multiplies them.
fn bounded<const N: usize>(sizes: [usize; N]) -> Result<[usize; N], String> {
    let product = sizes.iter().try_fold(1usize, |all, &s| all.checked_mul(s)).filter(|&n| n <= MAX_ELEMENTS);
    product
        .map(|_| sizes)
        .ok_or_else(|| format!("a tensor of {sizes:?} has more than {MAX_ELEMENTS} elements; make it smaller"))
}

fn of_op(op: &str, p: &mut Pairs<'_>) -> Result<Vec<Case>, String> {
    let shape_error = |e: crate::shape::ShapeError| e.to_string();
    match op {
        "conv2d" => {
            let x = bounded(p.image()?)?;
            let (o, k) = (p.number("o", 1, None)?, p.number("k", 1, Some(3))?);
            let (stride, pad) = (p.number("stride", 1, Some(1))?, p.number("pad", 0, Some(k / 2))?);
            let (dilation, groups) = (p.number("dilation", 1, Some(1))?, p.number("groups", 1, Some(1))?);
            let bias = p.number("bias", 0, Some(1))? > 0;
            bounded([o, x[1], k, k])?;
            let conv = Conv2d { stride: [stride; 2], padding: [pad; 2], dilation: [dilation; 2], groups };
            let extent = |axis| conv.extent(axis, x[axis + 2], k).unwrap_or(1);
            bounded([x[0], o, extent(0), extent(1)])?;
            cases::conv2d(x, [o, k, k], conv, bias, "").map_err(shape_error)
        }
        "linear" => {
            let sizes = [p.number("n", 1, Some(32))?, p.number("in", 1, None)?, p.number("out", 1, None)?];
            products(sizes)?;
            cases::linear(sizes, "").map_err(shape_error)
        }
        "matmul" => {
            let sizes = [p.number("m", 1, None)?, p.number("k", 1, None)?, p.number("n", 1, None)?];
            products(sizes)?;
            cases::matmul(sizes).map_err(shape_error)
        }
        "max_pool2d" | "avg_pool2d" => {
            let x = bounded(p.image()?)?;
            let k = p.number("k", 1, Some(2))?;
            let pool = Pool2d::new(k, p.number("stride", 1, Some(k))?, p.number("pad", 0, Some(0))?);
            let extent = |axis| pool.extent(axis, x[axis + 2]).unwrap_or(1);
            bounded([x[0], x[1], extent(0), extent(1)])?;
            cases::pool2d(op == "max_pool2d", x, pool).map_err(shape_error)
        }
        "batch_norm2d" => cases::batch_norm2d(bounded(p.image()?)?).map_err(shape_error),
        "softmax" | "cross_entropy" => {
            let rows = bounded([p.number("n", 1, Some(32))?, p.number("c", 1, None)?])?;
            if op == "softmax" { cases::softmax(rows) } else { cases::cross_entropy(rows) }.map_err(shape_error)
        }
        "optimizer_step" => {
            let [parameters] = bounded([p.number("parameters", 1, None)?])?;
            let kind: OptimizerKind = p.take("kind").unwrap_or("adam").parse().map_err(|e| format!("kind=: {e}"))?;
            cases::optimizer_step(kind, parameters).map_err(shape_error)
        }
        _ => {
            let (images, x) = (p.number("images", 1, Some(256))?, p.image()?);
            bounded(x)?;
            bounded([images, x[1], x[2], x[3]])?;
            if op == "augment_images" { cases::augment_images(images, x) } else { cases::gather_images(images, x) }
                .map_err(shape_error)
        }
    }
}

/// Bounds the three matrices of a product.
fn products([m, k, n]: [usize; 3]) -> Result<(), String> {
    [[m, k], [k, n], [m, n]].into_iter().try_for_each(|sizes| bounded(sizes).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::super::cases::Direction;
    use super::*;

    fn one(text: &str, op: Option<&str>) -> Vec<String> {
        parse(text, op).unwrap().iter().map(Case::name).collect()
    }

    fn refused(text: &str) -> String {
        let error = parse(text, None).unwrap_err().to_string();
        assert!(!error.contains('\n') && error.starts_with("line "), "{error}");
        error
    }

    #[test]
    fn shapes_become_cases() {
        let text = "# mine\nconv2d c=3 size=32 o=16 k=5 pad=0 stride=2 # first\n\nmax_pool2d n=2 c=4 h=6 w=8; matmul m=2 k=3 n=4";
        let names = one(text, None);
        assert_eq!(names[0], "conv2d forward 32x3x32x32, 5x5 s2 p0, 3->16");
        assert_eq!(names[3], "max_pool2d forward 2x4x6x8, 2x2");
        assert_eq!(names[7], "matmul weight gradient 2x3x4");
        assert_eq!(names.len(), 3 + 2 + 3);
        assert_eq!(one("n=4 c=10", Some("softmax"))[0], "softmax forward 4x10");
        assert_eq!(
            one("optimizer_step parameters=100 kind=rmsprop", None),
            ["optimizer_step forward rmsprop, 100 parameters"]
        );
        assert_eq!(one("gather_images c=1 size=8; batch_norm2d c=2 size=4; cross_entropy c=3", None).len(), 5);
        assert_eq!(parse("linear in=8 out=4", None).unwrap()[2].direction, Direction::WeightGrad);
    }

    #[test]
    fn bad_lines_are_named() {
        assert!(
            refused("matmul m=1 k=1 n=1\nconv2 c=3").starts_with("line 2: conv2: no such op, did you mean conv2d?")
        );
        assert!(refused("c=3 size=8 o=4").contains("--op"));
        assert!(refused("conv2d c=3 o=4").contains("size="));
        assert!(refused("conv2d c=3 size=8 o=4 k=0").contains("k=0"));
        assert!(refused("conv2d c=3 size=8 o=4 k=3 k=5").contains("twice"));
        assert!(refused("conv2d c=3 size=8 o=4 colour=3").contains("no colour="));
        assert!(refused("conv2d c=3 size=8 o=4 k=11 pad=0").contains("larger than"));
        assert!(refused("conv2d c=3 size=8 o=4 groups=2").contains("groups"));
        assert!(refused("matmul m=16777216 k=16777216 n=1").contains("smaller"));
        assert!(refused("conv2d n=16777216 c=16777216 size=16777216 o=1").contains("smaller"));
        assert!(refused("matmul m=-1 k=1 n=1").contains("whole number"));
        assert!(refused("optimizer_step parameters=3 kind=adamm").contains("kind="));
        assert!(refused("max_pool2d c=1 size=4 k=9").contains("line 1"));
        assert!(refused("batch_norm2d n=1 c=1 size=1").contains("more than one value"));
        assert!(refused("matmul m 3").contains("key=value"));
        assert!(refused(" ;# nothing\n").contains("no shape"));
    }
}
