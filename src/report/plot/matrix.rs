//! The confusion matrix as a heat map: counts, and the share of each row as text and as depth of colour.

use super::{Canvas, Plot, px, shorten};
use crate::metrics::ConfusionMatrix;

const WIDTH: f64 = 440.0;
const LEFT: f64 = 118.0;
const TOP: f64 = 76.0;

/// Draws counts and row shares; row = true class, column = decision. Classes without a name get their number.
#[must_use]
pub fn confusion_plot(title: &str, matrix: &ConfusionMatrix, class_names: &[String]) -> Plot {
    let n = matrix.rows().len();
    let name = |i: usize, most| class_names.get(i).map_or_else(|| format!("class {i}"), |name| shorten(name, most));
    let cell_w = (WIDTH - LEFT - 12.0) / n.max(1) as f64;
    let cell_h = cell_w.clamp(24.0, 74.0);
    // A character of a class name takes about 8 units.
    let most = ((cell_w / 8.0) as usize).max(2);
    let mut canvas = Canvas::default();
    canvas.text(14.0, 18.0, "title", &shorten(title, 48));
    canvas.text((LEFT + WIDTH - 12.0) / 2.0, 44.0, "label mid", "Predicted class");
    canvas.text(14.0, TOP - 9.0, "label", "True class");
    for (i, (row, shares)) in matrix.rows().iter().zip(matrix.row_shares()).enumerate() {
        let y = TOP + i as f64 * cell_h;
        canvas.text(LEFT + (i as f64 + 0.5) * cell_w, TOP - 9.0, "tick mid", &name(i, most));
        canvas.text(LEFT - 8.0, y + cell_h / 2.0 + 4.0, "tick end", &name(i, 13));
        for (j, (&count, share)) in row.iter().zip(shares).enumerate() {
            let x = LEFT + j as f64 * cell_w;
            // At most 0.6, so that the same ink stays readable on every depth.
            canvas.raw(format_args!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"cell\" fill-opacity=\"{:.3}\"/>",
                px(x),
                px(y),
                px(cell_w),
                px(cell_h),
                share * 0.6
            ));
            let middle = (x + cell_w / 2.0, y + cell_h / 2.0);
            if cell_w >= 52.0 && cell_h >= 40.0 {
                canvas.text(middle.0, middle.1 - 1.0, "count mid", &count.to_string());
                canvas.text(middle.0, middle.1 + 17.0, "tick mid", &format!("{:.1} %", share * 100.0));
            } else if cell_w >= 24.0 {
                canvas.text(middle.0, middle.1 + 4.0, "tick mid", &count.to_string());
            }
        }
    }
    let height = (TOP + n as f64 * cell_h + 12.0).ceil() as u32;
    Plot { title: title.to_owned(), width: WIDTH as u32, height, body: canvas.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_counts_and_shares() {
        let matrix = ConfusionMatrix::try_from(vec![vec![90, 144], vec![3, 387]]).unwrap();
        let names = ["NORMAL".to_owned(), "<script>alert(1)</script>".to_owned()];
        let svg = confusion_plot("Test & more", &matrix, &names).standalone();
        let doc = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<_> = doc
            .descendants()
            .filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "text")))
            .filter_map(|n| n.text())
            .collect();
        for want in ["90", "144", "3", "387", "38.5 %", "61.5 %", "0.8 %", "99.2 %", "NORMAL"] {
            assert!(texts.contains(&want), "{want} is not in {texts:?}");
        }
        assert!(!svg.contains("<script"));
    }

    #[test]
    fn many_classes_and_none() {
        for n in [0, 1, 3, 10, 40] {
            let matrix = ConfusionMatrix::new(&[0, 1, 2], &[0, 2, 2], n);
            roxmltree::Document::parse(&confusion_plot("t", &matrix, &[]).inline()).unwrap();
        }
    }
}
