//! The summary as plain text.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::super::error::one_line;
use super::{Group, Spread, Summary};

/// How many files, groups or patients are named; the JSON form has them all.
const NAMED: usize = 20;

fn table(header: &[&str], numbers: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for i in numbers {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn count(n: Option<usize>) -> String {
    n.map_or_else(|| "-".to_owned(), |n| n.to_string())
}

fn spread(s: Option<Spread>) -> String {
    s.map_or_else(|| "-".to_owned(), |s| format!("{} / {} / {}", s.min, s.median, s.max))
}

fn values(v: &[f64]) -> String {
    v.iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(" ")
}

fn list<T>(f: &mut fmt::Formatter<'_>, title: &str, items: &[T], line: impl Fn(&T) -> String) -> fmt::Result {
    writeln!(f, "{title}: {}", items.len())?;
    for item in items.iter().take(NAMED) {
        writeln!(f, "  {}", one_line(&line(item)))?;
    }
    if items.len() > NAMED {
        writeln!(f, "  and {} more (--json names all)", items.len() - NAMED)?;
    }
    Ok(())
}

fn group(g: &Group) -> String {
    let mut text = g.names.join(" = ");
    if g.across_splits {
        text.push_str("  (in several splits)");
    }
    if g.across_classes {
        text.push_str("  (in several classes: a label is wrong)");
    }
    text
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.source)?;
        if self.synthetic {
            writeln!(f, "synthetic images: no figure measured on them says anything about patients")?;
        }
        let mut classes = table(&["split", "class", "images", "share", "patients", "unreadable"], 2..6);
        let mut sizes = table(
            &[
                "split",
                "images",
                "unreadable",
                "imbalance",
                "width min/median/max",
                "height min/median/max",
                "sizes",
                "modes",
            ],
            1..7,
        );
        for split in &self.splits {
            for class in &split.classes {
                classes.add_row([
                    split.name.clone(),
                    one_line(&class.name),
                    class.images.to_string(),
                    format!("{:.1} %", class.share * 100.0),
                    count(class.patients),
                    class.unreadable.to_string(),
                ]);
            }
            sizes.add_row([
                split.name.clone(),
                split.images.to_string(),
                split.unreadable.to_string(),
                split.imbalance.map_or_else(|| "-".to_owned(), |x| format!("{x:.2}")),
                spread(split.width),
                spread(split.height),
                split.distinct_sizes.to_string(),
                split.modes.iter().map(|(m, n)| format!("{m} {n}")).collect::<Vec<_>>().join(", "),
            ]);
        }
        writeln!(f, "\n{}\n\n{}\n", classes.trim_fmt(), sizes.trim_fmt())?;
        if !self.mean.is_empty() {
            let (h, w, c) = self.size;
            let (mean, std) = (values(&self.mean), values(&self.std));
            writeln!(f, "train at {h}x{w}, {c} channel(s), x/255: mean {mean}, standard deviation {std}")?;
        }
        list(f, "unreadable files", &self.unreadable, |s| format!("{}: {}", s.name, s.reason))?;
        list(f, "groups of identical files", &self.duplicates, group)?;
        list(f, "groups of identical pixels in different files", &self.pixel_duplicates, group)?;
        list(f, "patients in more than one split, by file name", &self.shared_patients, |p| {
            format!("{}: {}", p.patient, p.splits.join(", "))
        })
    }
}
