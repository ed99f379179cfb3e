//! One self-contained page: blocks in sections, rendered by templates that escape every text.
//!
//! The page asks for nothing from outside (a content security policy forbids it), runs no script, follows the
//! reader's light or dark theme and reads on a phone. Every figure carries its numbers as a table.

use std::path::Path;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::ReportError;
use super::data::{Picture, SampleImage};
use super::image::data_uri;
use super::plot::{self, Plot};
use super::table::Table;
use crate::fsio;

/// What stands on every page.
pub const NOTICE: &str = "This is software for study. It is not a medical device, and nothing on this page may be \
    used to diagnose or treat anyone.";

/// A page in the making.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// One line below it.
    pub subtitle: String,
    /// What a reader must not miss, shown at the top below [`NOTICE`].
    pub warnings: Vec<String>,
    /// The content.
    pub sections: Vec<Section>,
}

/// A part of a page with a heading.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What stands below it.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Clone, Debug)]
pub enum Block {
    /// Running text.
    Paragraph(String),
    /// Names with their values.
    Pairs(Vec<(String, String)>),
    /// A table.
    Table(Table),
    /// A table that is folded away until asked for.
    Folded(Table),
    /// Pictures, side by side where there is room.
    Figures(Vec<Figure>),
    /// Sample images with what the network made of them; with the class names.
    Images(Vec<SampleImage>, Vec<String>),
    /// Pictures with their names.
    Gallery(Gallery),
}

/// Pictures in rows.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    /// What they show.
    pub caption: String,
    /// The heads of the columns; empty for pictures that fill the rows as they come.
    pub columns: Vec<String>,
    /// The pictures, row by row.
    pub pictures: Vec<Picture>,
}

/// A picture with the numbers that it shows.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The picture.
    pub plot: Plot,
    /// What to see in it.
    pub caption: String,
    /// Its numbers.
    pub numbers: Table,
}

impl Section {
    /// A section without content.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), blocks: Vec::new() }
    }

    /// Adds running text.
    pub fn paragraph(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Paragraph(text.into()));
    }

    /// Adds a block.
    pub fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }
}

impl Report {
    /// A page without content.
    pub fn new(title: impl Into<String>, subtitle: impl Into<String>) -> Self {
        Self { title: title.into(), subtitle: subtitle.into(), ..Self::default() }
    }

    /// The page as HTML.
    ///
    /// # Errors
    /// [`ReportError::Image`] or [`ReportError::Png`] for a sample image that makes no sense; [`ReportError::Template`]
    /// for a fault of the program.
    pub fn render(&self) -> Result<String, ReportError> {
        let sections = self.sections.iter().map(SectionView::new).collect::<Result<_, _>>()?;
        let page = PageView {
            title: &self.title,
            subtitle: &self.subtitle,
            notice: NOTICE,
            warnings: &self.warnings,
            sections,
            page_style: include_str!("templates/report.css"),
            plot_style: plot::STYLE,
        };
        Ok(ENVIRONMENT.get_template("report.html")?.render(Serde(&page))?)
    }

    /// Renders the page and writes it, whole or not at all.
    ///
    /// # Errors
    /// As [`Report::render`], or [`ReportError::Fs`] with the path.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        fsio::write_atomic(path, self.render()?.as_bytes())?;
        Ok(())
    }
}

/// The templates, parsed once. They are part of the program, so parsing fails in the tests or never; a template that did
/// not parse is missing and named when it is asked for.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        env.set_syntax(syntax);
    }
    for (name, source) in [
        ("report.html", include_str!("templates/report.html")),
        ("table.html", include_str!("templates/table.html")),
        ("images.html", include_str!("templates/images.html")),
        ("gallery.html", include_str!("templates/gallery.html")),
    ] {
        let _ = env.add_template(name, source);
    }
    env
});

/// A table alone.
pub(super) fn render_table(table: &Table) -> Result<String, ReportError> {
    #[derive(Serialize)]
    struct View<'a> {
        table: &'a Table,
    }
    Ok(ENVIRONMENT.get_template("table.html")?.render(Serde(View { table }))?)
}

#[derive(Serialize)]
struct PageView<'a> {
    title: &'a str,
    subtitle: &'a str,
    notice: &'a str,
    warnings: &'a [String],
    sections: Vec<SectionView<'a>>,
    page_style: &'a str,
    plot_style: &'a str,
}

#[derive(Serialize)]
struct SectionView<'a> {
    title: &'a str,
    blocks: Vec<BlockView<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum BlockView<'a> {
    Paragraph { text: &'a str },
    Pairs { items: &'a [(String, String)] },
    Table { table: &'a Table },
    Folded { table: &'a Table },
    Figures { figures: Vec<FigureView<'a>> },
    Images { cards: Vec<CardView<'a>> },
    Gallery { caption: &'a str, columns: &'a [String], tiles: Vec<TileView<'a>> },
}

#[derive(Serialize)]
struct TileView<'a> {
    src: String,
    /// Begins a row of columns, and names it.
    first: bool,
    width: u32,
    height: u32,
    name: &'a str,
}

#[derive(Serialize)]
struct FigureView<'a> {
    svg: String,
    caption: &'a str,
    table: &'a Table,
}

#[derive(Serialize)]
struct CardView<'a> {
    src: String,
    width: u32,
    height: u32,
    name: &'a str,
    truth: String,
    decision: String,
    right: bool,
    bars: Vec<BarView>,
}

#[derive(Serialize)]
struct BarView {
    name: String,
    percent: String,
    is_truth: bool,
}

impl<'a> SectionView<'a> {
    fn new(section: &'a Section) -> Result<Self, ReportError> {
        let blocks = section.blocks.iter().map(BlockView::new).collect::<Result<_, _>>()?;
        Ok(Self { title: &section.title, blocks })
    }
}

impl<'a> BlockView<'a> {
    fn new(block: &'a Block) -> Result<Self, ReportError> {
        Ok(match block {
            Block::Paragraph(text) => Self::Paragraph { text },
            Block::Pairs(items) => Self::Pairs { items },
            Block::Table(table) => Self::Table { table },
            Block::Folded(table) => Self::Folded { table },
            Block::Figures(figures) => Self::Figures {
                figures: figures
                    .iter()
                    .map(|f| FigureView { svg: f.plot.inline(), caption: &f.caption, table: &f.numbers })
                    .collect(),
            },
            Block::Images(images, names) => {
                Self::Images { cards: images.iter().map(|i| CardView::new(i, names)).collect::<Result<_, _>>()? }
            }
            Block::Gallery(g) => {
                let tile = |(i, p): (usize, &'a Picture)| {
                    let first = !g.columns.is_empty() && i % g.columns.len() == 0;
                    Ok(TileView { src: data_uri(p)?, first, width: p.width, height: p.height, name: &p.name })
                };
                let tiles = g.pictures.iter().enumerate().map(tile).collect::<Result<_, ReportError>>()?;
                Self::Gallery { caption: &g.caption, columns: &g.columns, tiles }
            }
        })
    }
}

impl<'a> CardView<'a> {
    fn new(image: &'a SampleImage, names: &[String]) -> Result<Self, ReportError> {
        let name = |class: usize| names.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        let decision = image.decision();
        let bars = image.probabilities.iter().enumerate().map(|(class, &p)| BarView {
            name: name(class),
            percent: format!("{:.1}", if p.is_finite() { p.clamp(0.0, 1.0) * 100.0 } else { 0.0 }),
            is_truth: class == image.label as usize,
        });
        Ok(Self {
            src: data_uri(&image.picture())?,
            width: image.width,
            height: image.height,
            name: &image.name,
            truth: name(image.label as usize),
            decision: name(decision as usize),
            right: decision == image.label,
            bars: bars.collect(),
        })
    }
}
