//! One table, three dresses: plain text, GitHub Markdown, HTML.

use serde::Serialize;

use super::{ReportError, html};

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    /// Words.
    #[default]
    Left,
    /// Numbers.
    Right,
}

/// The head of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its text.
    pub header: String,
    /// How the whole column is aligned.
    pub align: Align,
}

/// One cell: a value and, if there is more to say, a smaller second line such as its interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The value.
    pub text: String,
    /// The smaller addition; empty for none.
    pub detail: String,
}

impl Cell {
    /// A value with an addition.
    pub fn with_detail(text: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { text: text.into(), detail: detail.into() }
    }

    /// Value and addition in one line.
    fn line(&self) -> String {
        if self.detail.is_empty() { self.text.clone() } else { format!("{} {}", self.text, self.detail) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), detail: String::new() }
    }
}

/// Rows under headers. The first column names its row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What the table shows.
    pub caption: String,
    /// The heads.
    pub columns: Vec<Column>,
    /// The cells; every row is as long as `columns`.
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows. A header that starts with `>` (which is dropped) makes a right-aligned column.
    pub fn new<S: AsRef<str>>(caption: impl Into<String>, headers: impl IntoIterator<Item = S>) -> Self {
        let columns = headers
            .into_iter()
            .map(|h| match h.as_ref().strip_prefix('>') {
                Some(rest) => Column { header: rest.to_owned(), align: Align::Right },
                None => Column { header: h.as_ref().to_owned(), align: Align::Left },
            })
            .collect();
        Self { caption: caption.into(), columns, rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, cells beyond the last column are dropped.
    pub fn push<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let mut row: Vec<Cell> = cells.into_iter().map(Into::into).collect();
        row.resize(self.columns.len(), Cell::default());
        self.rows.push(row);
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// Aligned columns for a terminal, without trailing blanks; the caption comes first.
    #[must_use]
    pub fn to_text(&self) -> String {
        use comfy_table::{CellAlignment, ContentArrangement, LineStyle, TableStyle};
        let rule = || LineStyle::none().fill('─').junction('─');
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new().top_border(rule()).header_separator(rule()).bottom_border(rule()));
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.columns.iter().map(|c| one_line(&c.header)));
        for row in &self.rows {
            table.add_row(row.iter().map(|c| one_line(&c.line())));
        }
        for (i, column) in self.columns.iter().enumerate() {
            if let (Align::Right, Some(c)) = (column.align, table.column_mut(i)) {
                c.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        if !self.caption.is_empty() {
            text.push_str(&one_line(&self.caption));
            text.push('\n');
        }
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// A GitHub Markdown table, without the caption.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = String>| {
            let mut out = String::from("|");
            for cell in cells {
                out.push_str(&format!(" {cell} |"));
            }
            out.push('\n');
            out
        };
        let mut text = line(&mut self.columns.iter().map(|c| markdown(&c.header)));
        text += &line(&mut self.columns.iter().map(|c| match c.align {
            Align::Left => "---".to_owned(),
            Align::Right => "---:".to_owned(),
        }));
        for row in &self.rows {
            text += &line(&mut row.iter().map(|c| markdown(&c.line())));
        }
        text
    }

    /// A `<table>` with caption and scoped headers; every text is escaped.
    ///
    /// # Errors
    /// [`ReportError::Template`], which is a fault of the program.
    pub fn to_html(&self) -> Result<String, ReportError> {
        html::render_table(self)
    }
}

/// Control characters, line breaks among them, become blanks: a cell is one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Escapes what Markdown would read as a column, as markup or as HTML.
fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '\\' | '~' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut t = Table::new("Two nets", ["Network", ">Accuracy"]);
        t.push([Cell::from("cnn1"), Cell::with_detail("0.9", "[0.8, 1.0]")]);
        t.push(["a|b <script>\n_x_"]);
        t
    }

    #[test]
    fn plain_text_lines_up() {
        let text = example().to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Two nets");
        assert!(text.contains("0.9 [0.8, 1.0]") && text.contains("a|b <script> _x_"), "{text}");
        let at = |needle: &str| lines.iter().find_map(|l| l.find(needle).map(|i| i + needle.len()));
        assert_eq!(at("Accuracy"), at("[0.8, 1.0]"), "{text}");
        assert!(lines.iter().all(|l| *l == l.trim_end()));
    }

    #[test]
    fn markdown_keeps_its_columns() {
        assert_eq!(
            example().to_markdown(),
            "| Network | Accuracy |\n| --- | ---: |\n| cnn1 | 0.9 [0.8, 1.0] |\n| a\\|b &lt;script&gt; \\_x\\_ |  |\n"
        );
    }

    #[test]
    fn html_is_escaped_and_scoped() {
        let html = example().to_html().unwrap();
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;"), "{html}");
        let doc = roxmltree::Document::parse(&html).unwrap();
        assert_eq!(doc.descendants().filter(|n| n.attribute("scope") == Some("row")).count(), 2);
        assert_eq!(doc.descendants().filter(|n| n.has_tag_name("caption")).count(), 1);
    }
}
