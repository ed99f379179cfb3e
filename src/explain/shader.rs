//! The page of WGSL that is stepped through, and which of its lines does what.

use std::collections::BTreeMap;

use serde::Serialize;

/// A shader page with the lines that the steps point to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShaderView {
    /// Its name below `shaders/`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Line numbers from 1 by what is done there, such as `forward.sum`.
    pub marks: BTreeMap<&'static str, usize>,
}

const TEXT: &str = include_str!("../../shaders/conv2d.wgsl");

/// What is done, in which function, on the line that holds which text.
const MARKS: &[(&str, &str, &str)] = &[
    ("forward.start", "fn forward(", "fn forward("),
    ("forward.index", "fn forward(", "let o = "),
    ("forward.bias", "fn forward(", "sum = b[o];"),
    ("forward.row", "fn forward(", "let row = source("),
    ("forward.column", "fn forward(", "let column = source("),
    ("forward.weight", "fn forward(", "let weight = w["),
    ("forward.sum", "fn forward(", "sum += weight * x["),
    ("forward.store", "fn forward(", "y[e] = sum;"),
    ("forward.end", "fn forward(", "\n}"),
    ("grad_input.start", "fn grad_input(", "fn grad_input("),
    ("grad_input.index", "fn grad_input(", "let channel = "),
    ("grad_input.zero", "fn grad_input(", "var sum = 0.0;"),
    ("grad_input.row", "fn grad_input(", "let i = target_of("),
    ("grad_input.column", "fn grad_input(", "let j = target_of("),
    ("grad_input.weight", "fn grad_input(", "let weight = w["),
    ("grad_input.sum", "fn grad_input(", "sum += weight * dy["),
    ("grad_input.store", "fn grad_input(", "dx[e] = sum;"),
    ("grad_input.end", "fn grad_input(", "\n}"),
    ("grad_weight.start", "fn grad_weight(", "fn grad_weight("),
    ("grad_weight.index", "fn grad_weight(", "let o = "),
    ("grad_weight.zero", "fn grad_weight(", "var sum = 0.0;"),
    ("grad_weight.row", "fn grad_weight(", "let row = source("),
    ("grad_weight.part", "fn grad_weight(", "var part = 0.0;"),
    ("grad_weight.column", "fn grad_weight(", "let column = source("),
    ("grad_weight.value", "fn grad_weight(", "let value = x["),
    ("grad_weight.sum", "fn grad_weight(", "part += value * dy_1["),
    ("grad_weight.join", "fn grad_weight(", "sum += part;"),
    ("grad_weight.store", "fn grad_weight(", "dw[e] = sum;"),
    ("grad_weight.end", "fn grad_weight(", "\n}"),
];

/// The plain convolution. A mark whose text is no longer there is left out; a test sees to it that none is.
#[must_use]
pub fn page() -> ShaderView {
    let line = |(what, function, text): &(&'static str, &str, &str)| {
        let start = TEXT.find(function)?;
        let at = start + TEXT[start..].find(text)? + usize::from(text.starts_with('\n'));
        Some((*what, TEXT[..at].matches('\n').count() + 1))
    };
    ShaderView { name: "conv2d.wgsl", text: TEXT, marks: MARKS.iter().filter_map(line).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_line() {
        let page = page();
        let lines: Vec<&str> = page.text.lines().collect();
        for (what, function, text) in MARKS {
            let line = page.marks.get(what).unwrap_or_else(|| panic!("{what}: no {text:?} in {function}"));
            assert!(lines[line - 1].contains(text.trim_start()), "{what}: {}", lines[line - 1]);
            let part = what.split('.').next().unwrap();
            let inside = page.marks[format!("{part}.start").as_str()]..=page.marks[format!("{part}.end").as_str()];
            assert!(inside.contains(line), "{what} lies outside of its function");
        }
    }
}
