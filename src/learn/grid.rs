//! Small tensors computed by the reference, and how they are printed.

use std::sync::Arc;

use crate::check::CheckError;
use crate::cpu;
use crate::exec::Executor as _;
use crate::graph::{Graph, NodeId};
use crate::shape::{ShapeError, Spec};
use crate::store::ParamStore;
use crate::tensor::{Data, Tensor};

/// Runs what `build` records on inputs of these shapes and values, in `f64`; gives the values of the nodes that it names.
pub(super) fn compute(
    inputs: &[(&[usize], &[f64])],
    build: impl Fn(&mut Graph, &[NodeId]) -> Result<Vec<NodeId>, ShapeError>,
) -> Result<Vec<Vec<f64>>, CheckError> {
    let mut g = Graph::new();
    let nodes: Vec<NodeId> = inputs.iter().map(|(shape, _)| g.input("x", Spec::float(shape.to_vec()))).collect();
    let roots = build(&mut g, &nodes)?;
    let g = Arc::new(g);
    let mut executor = cpu::Executor::<f64>::reference();
    executor.load(&ParamStore::new())?;
    let program = executor.compile(&g, &roots)?;
    for (&node, (shape, values)) in nodes.iter().zip(inputs) {
        let spec = Spec::float(shape.to_vec());
        let value = Tensor::new(spec.shape.clone(), Data::F64(values.to_vec()));
        let value = value.map_err(|e| ShapeError::invalid("lesson", e.to_string(), &spec))?;
        executor.set(program, node, &value)?;
    }
    executor.run(program)?;
    roots.iter().map(|&r| Ok(executor.read(program, r)?.to_f64())).collect()
}

/// A number without needless digits.
pub(super) fn number(v: f64) -> String {
    let rounded = (v * 1000.0).round() / 1000.0;
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// Rows of numbers as a block of code.
pub(super) fn grid(values: &[f64], columns: usize) -> String {
    side_by_side(&[("", values, columns)])
}

/// Several grids beside each other, each below its name.
pub(super) fn side_by_side(grids: &[(&str, &[f64], usize)]) -> String {
    let blocks: Vec<Vec<String>> = grids
        .iter()
        .map(|(name, values, columns)| {
            let cells: Vec<String> = values.iter().map(|&v| number(v)).collect();
            let width = cells.iter().map(|c| c.chars().count()).max().unwrap_or(0);
            let line = |row: &[String]| row.iter().map(|c| format!("{c:>width$}")).collect::<Vec<_>>().join(" ");
            let mut lines: Vec<String> = cells.chunks((*columns).max(1)).map(line).collect();
            if !name.is_empty() {
                lines.insert(0, (*name).to_owned());
            }
            let wide = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
            lines.iter().map(|l| format!("{l:<wide$}")).collect()
        })
        .collect();
    let rows = blocks.iter().map(Vec::len).max().unwrap_or(0);
    let mut out = String::from("```text\n");
    for r in 0..rows {
        let line: Vec<String> = blocks
            .iter()
            .map(|b| b.get(r).cloned().unwrap_or_else(|| " ".repeat(b.first().map_or(0, |l| l.chars().count()))))
            .collect();
        out.push_str(line.join("     ").trim_end());
        out.push('\n');
    }
    out + "```"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_stand_beside_each_other() {
        let text = side_by_side(&[("a", &[1.0, -10.0, 0.5, 2.0], 2), ("bcd", &[7.0], 1)]);
        assert_eq!(text, "```text\na           bcd\n  1 -10     7\n0.5   2\n```");
    }
}
