//! The confusion matrix and the rates that are read off it.

use serde::{Deserialize, Serialize};

/// Counts of decisions: row = true class, column = decided class, as `sklearn.metrics.confusion_matrix`.
///
/// Serialised as its rows, `[[..], ..]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Vec<u64>>", try_from = "Vec<Vec<u64>>")]
pub struct ConfusionMatrix {
    rows: Vec<Vec<u64>>,
}

/// Rows that are no confusion matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a confusion matrix must be square, but row {row} of {rows} has {columns} columns; give one count a class")]
pub struct NotSquare {
    row: usize,
    rows: usize,
    columns: usize,
}

impl From<ConfusionMatrix> for Vec<Vec<u64>> {
    fn from(matrix: ConfusionMatrix) -> Self {
        matrix.rows
    }
}

impl TryFrom<Vec<Vec<u64>>> for ConfusionMatrix {
    type Error = NotSquare;

    fn try_from(rows: Vec<Vec<u64>>) -> Result<Self, NotSquare> {
        match rows.iter().position(|r| r.len() != rows.len()) {
            Some(row) => Err(NotSquare { row, rows: rows.len(), columns: rows[row].len() }),
            None => Ok(Self { rows }),
        }
    }
}

/// The rates of one class, it against all others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// Of the images decided for this class, the share that belongs to it; 0 when none was.
    pub precision: f64,
    /// Of the images of this class, the share decided for it (sensitivity); 0 when there is none.
    pub recall: f64,
    /// Harmonic mean of precision and recall, `2 TP / (2 TP + FP + FN)`; 0 when that is 0/0.
    pub f1: f64,
    /// How many images truly belong to the class.
    pub support: u64,
}

impl ConfusionMatrix {
    /// Counts decisions. Pairs with a class outside `0..classes` are not counted; [`super::check`] finds them first.
    #[must_use]
    pub fn new(labels: &[u32], decisions: &[u32], classes: usize) -> Self {
        let mut rows = vec![vec![0; classes]; classes];
        for (&label, &decision) in labels.iter().zip(decisions) {
            if let Some(cell) = rows.get_mut(label as usize).and_then(|r| r.get_mut(decision as usize)) {
                *cell += 1;
            }
        }
        Self { rows }
    }

    /// The counts, one row a true class.
    #[must_use]
    pub fn rows(&self) -> &[Vec<u64>] {
        &self.rows
    }

    /// All images.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.iter().flatten().sum()
    }

    /// Images decided rightly.
    #[must_use]
    pub fn correct(&self) -> u64 {
        self.rows.iter().enumerate().map(|(i, row)| row[i]).sum()
    }

    /// Share of right decisions; 0 for an empty matrix.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        ratio(self.correct(), self.total())
    }

    /// Share of each cell in its row: of the images of class `i`, how many were decided for `j`. Rows without images are 0.
    #[must_use]
    pub fn row_shares(&self) -> Vec<Vec<f64>> {
        self.rows
            .iter()
            .map(|row| {
                let total = row.iter().sum();
                row.iter().map(|&n| ratio(n, total)).collect()
            })
            .collect()
    }

    /// The rates of each class, with `zero_division=0`.
    #[must_use]
    pub fn classes(&self) -> Vec<ClassMetrics> {
        (0..self.rows.len())
            .map(|class| {
                let hits = self.rows[class][class];
                let support: u64 = self.rows[class].iter().sum();
                let decided: u64 = self.rows.iter().map(|row| row[class]).sum();
                ClassMetrics {
                    precision: ratio(hits, decided),
                    recall: ratio(hits, support),
                    f1: ratio(2 * hits, support + decided),
                    support,
                }
            })
            .collect()
    }
}

/// `part / whole`, 0 for 0/0.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
