//! The images on a page: how many of each class, how large they were, what they look like, what is wrong with them.

use super::data::{DataInfo, Named, SizeBin, Sizes};
use super::html::{Block, Figure, Gallery, Section};
use super::parts::{NONE, thousands};
use super::plot::{Axis, Bar, BarChart, Range};
use super::table::{Cell, Table};

/// Where the images come from, how many there are, and what a reader must know about them.
pub(super) fn data_section(data: &DataInfo) -> Section {
    let mut section = Section::new("Data");
    let kind = if data.synthetic { "synthetic, drawn by a program" } else { "as found in the source" };
    section.push(Block::Pairs(vec![("Source".to_owned(), data.source.clone()), ("Kind".to_owned(), kind.to_owned())]));
    section.push(Block::Table(class_table(data)));
    for note in &data.notes {
        section.paragraph(sentence(note));
    }
    if let Some(shared) = &data.shared_patients {
        shared_patients(&mut section, shared);
    }
    // Nothing is read of drawn images, and older results do not tell.
    if data.sizes.is_some() || data.skipped.total > 0 {
        skipped(&mut section, &data.skipped);
    }
    let mut figures: Vec<Figure> = balance_figure(data).into_iter().collect();
    if let Some(sizes) = &data.sizes {
        section.push(Block::Table(size_table(sizes)));
        figures.extend(size_figure("Widths of the original images", &sizes.widths));
        figures.extend(size_figure("Heights of the original images", &sizes.heights));
    }
    section.push(Block::Figures(figures));
    pictures(&mut section, data);
    section
}

/// A note as a sentence of its own.
fn sentence(note: &str) -> String {
    let mut chars = note.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if note.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

fn classes(data: &DataInfo) -> usize {
    data.class_names.len().max(data.splits.iter().map(|s| s.counts.len()).max().unwrap_or(0))
}

/// Images and shares of each class.
pub(super) fn class_table(data: &DataInfo) -> Table {
    let classes = classes(data);
    let headers = std::iter::once("Set".to_owned())
        .chain((0..classes).map(|c| format!(">{}", data.class_name(c))))
        .chain([">All".to_owned(), ">Patients".to_owned()]);
    let mut table = Table::new("Images of each set and class", headers);
    for split in &data.splits {
        let all: u64 = split.counts.iter().sum();
        let count = |c: usize| {
            let n = split.counts.get(c).copied().unwrap_or(0);
            Cell::with_detail(thousands(n), percent(n, all))
        };
        table.push(
            std::iter::once(Cell::from(split.name.clone()))
                .chain((0..classes).map(count))
                .chain([thousands(all).into(), split.patients.map_or_else(|| NONE.to_owned(), thousands).into()]),
        );
    }
    table
}

fn percent(n: u64, all: u64) -> String {
    if all == 0 { String::new() } else { format!("{:.1} %", n as f64 / all as f64 * 100.0) }
}

/// A bar for each set and class; nothing without images.
pub(super) fn balance_figure(data: &DataInfo) -> Option<Figure> {
    let mut bars = Vec::new();
    let mut numbers = Table::new("Class balance: images", ["Set", "Class", ">Images", ">Share of the set"]);
    for split in &data.splits {
        let all: u64 = split.counts.iter().sum();
        for (c, &n) in split.counts.iter().enumerate() {
            let class = data.class_name(c);
            numbers.push([split.name.clone(), class.clone(), thousands(n), percent(n, all)]);
            let name = if split.counts.len() > 1 && c > 0 { class } else { format!("{}: {class}", split.name) };
            bars.push(Bar { name, value: n as f64, text: thousands(n), colour: c, first: c == 0 });
        }
    }
    (!bars.is_empty()).then(|| Figure {
        plot: BarChart { title: "Class balance".to_owned(), axis: images_axis(), bars }.draw(),
        caption: "Images of each class in each set, one colour a class.".to_owned(),
        numbers,
    })
}

fn images_axis() -> Axis {
    Axis::new("Images", Range::FromZero).whole()
}

fn size_table(sizes: &Sizes) -> Table {
    let mut table = Table::new(
        "Sizes of the original images in pixels: the median, and from the smallest to the largest; train includes what is held out of it",
        ["Set as found", ">Images", ">Different sizes", ">Width", ">Height"],
    );
    let spread = |[least, median, most]: [u32; 3]| -> Cell {
        if least == most {
            least.to_string().into()
        } else {
            Cell::with_detail(median.to_string(), format!("{least} to {most}"))
        }
    };
    for s in &sizes.sets {
        table.push([
            Cell::from(s.set.clone()),
            thousands(s.images).into(),
            thousands(s.distinct).into(),
            spread(s.width),
            spread(s.height),
        ]);
    }
    table
}

/// A bar for each range of sizes; nothing where all images are of one size.
fn size_figure(title: &str, bins: &[SizeBin]) -> Option<Figure> {
    let mut numbers = Table::new(title, [">From (pixels)", ">To (pixels)", ">Images"]);
    let mut bars = Vec::new();
    for b in bins {
        numbers.push([b.from.to_string(), b.to.to_string(), thousands(b.count)]);
        let name = if b.from == b.to { b.from.to_string() } else { format!("{} – {}", b.from, b.to) };
        bars.push(Bar {
            name: format!("{name} pixels"),
            value: b.count as f64,
            text: thousands(b.count),
            colour: 0,
            first: false,
        });
    }
    (bars.len() > 1).then(|| Figure {
        plot: BarChart { title: title.to_owned(), axis: images_axis(), bars }.draw(),
        caption: "All sets together, before they were resized. Ranges include both ends.".to_owned(),
        numbers,
    })
}

/// A table of names, or of the first of them.
fn list(what: &str, [name, about]: [&str; 2], named: &Named) -> Table {
    let shown = named.first.len() as u64;
    let caption = if shown < named.total {
        format!("{what}: the first {shown} of {}", thousands(named.total))
    } else {
        what.to_owned()
    };
    let mut table = Table::new(caption, [name, about]);
    for (name, about) in &named.first {
        table.push([name.clone(), about.clone()]);
    }
    table
}

fn shared_patients(section: &mut Section, shared: &Named) {
    match shared.total {
        0 => section.paragraph("No patient has images in two sets, as far as the file names tell."),
        n => {
            section.paragraph(format!(
                "{} {} images in more than one set, by the file names. What is measured on the later set is too good for \
                 them, unless the source counts its patients anew in each set.",
                thousands(n),
                if n == 1 { "patient has" } else { "patients have" }
            ));
            section.push(Block::Folded(list("Patients in two sets", ["Patient", "Sets"], shared)));
        }
    }
}

fn skipped(section: &mut Section, skipped: &Named) {
    match skipped.total {
        0 => section.paragraph("Every image could be read."),
        n => {
            let files = if n == 1 { "file" } else { "files" };
            section.paragraph(format!("{} {files} could not be read and took no part.", thousands(n)));
            section.push(Block::Folded(list("Files left out", ["File", "Reason"], skipped)));
        }
    }
}

fn pictures(section: &mut Section, data: &DataInfo) {
    if !data.pictures.means.is_empty() {
        section.push(Block::Gallery(Gallery {
            caption: "The mean training image of each class, at the size that the network sees.".to_owned(),
            columns: Vec::new(),
            pictures: data.pictures.means.clone(),
        }));
    }
    let Some(sheet) = &data.pictures.sheet else { return };
    let caption = if sheet.columns.is_empty() {
        "Training images as the network sees them, drawn at random, the classes in turn. Nothing is changed in training."
    } else {
        "Training images, drawn at random, the classes in turn: first as they are, then as a training may see them after \
         random changes (drawn on the CPU; a GPU's differ by roundings)."
    };
    section.push(Block::Gallery(Gallery {
        caption: caption.to_owned(),
        columns: sheet.columns.clone(),
        pictures: sheet.pictures.clone(),
    }));
    let mut files = Table::new("Files of these images", [">Number", "Class", "File"]);
    for (i, (file, class)) in sheet.rows.iter().enumerate() {
        files.push([(i + 1).to_string(), class.clone(), file.clone()]);
    }
    section.push(Block::Folded(files));
}

#[cfg(test)]
mod tests {
    use super::super::data::{SizeRow, SplitCounts};
    use super::*;

    fn data() -> DataInfo {
        DataInfo {
            source: "x-rays <b>".into(),
            class_names: vec!["NORMAL".into(), "<i>ILL</i>".into()],
            splits: vec![SplitCounts { name: "train".into(), counts: vec![1341, 3875], patients: None }],
            notes: vec!["held out by patient".into()],
            sizes: Some(Sizes {
                sets: vec![SizeRow {
                    set: "train".into(),
                    images: 5216,
                    distinct: 4000,
                    width: [384, 1284, 2916],
                    height: [127, 888, 2663],
                }],
                widths: vec![
                    SizeBin { from: 0, to: 999, count: 1216 },
                    SizeBin { from: 1000, to: 1999, count: 3000 },
                    SizeBin { from: 2000, to: 2999, count: 1000 },
                ],
                heights: vec![SizeBin { from: 127, to: 127, count: 5216 }],
            }),
            skipped: Named { total: 7, first: vec![("train/a<b>.jpeg".into(), "the file is empty".into())] },
            shared_patients: Some(Named { total: 1, first: vec![("person1".into(), "train, test".into())] }),
            ..DataInfo::default()
        }
    }

    fn figures(section: &Section) -> Vec<&Figure> {
        let of = |b: &'_ Block| matches!(b, Block::Figures(_));
        section
            .blocks
            .iter()
            .filter(|b| of(b))
            .flat_map(|b| if let Block::Figures(f) = b { &f[..] } else { &[] })
            .collect()
    }

    #[test]
    fn every_bar_stands_in_its_table() {
        let section = data_section(&data());
        let figures = figures(&section);
        // One height alone makes no figure.
        assert_eq!(figures.len(), 2);
        for figure in &figures {
            let svg = figure.plot.standalone();
            let doc = roxmltree::Document::parse(&svg).unwrap();
            let bars: Vec<&str> = doc
                .descendants()
                .filter(|n| n.tag_name().name() == "rect" && n.attribute("height") == Some("16"))
                .filter_map(|n| n.first_element_child()?.text()?.rsplit(", ").next())
                .collect();
            let shown: Vec<&str> = figure.numbers.rows().iter().map(|r| r[2].text.as_str()).collect();
            assert!(!bars.is_empty());
            assert_eq!(bars, shown, "{}", figure.plot.title());
        }
        assert_eq!(figures[0].numbers.rows()[1][3].text, "74.3 %");
    }

    #[test]
    fn broken_files_and_shared_patients_are_named_and_counted() {
        let mut report = super::super::html::Report::new("t", "");
        report.sections.push(data_section(&data()));
        let html = report.render().unwrap();
        for words in [
            "7 files could not be read",
            "Files left out: the first 1 of 7",
            "a&lt;b&gt;.jpeg",
            "1 patient has images in more than one set",
            "train, test",
            "384 to 2916",
            "Held out by patient.",
        ] {
            assert!(html.contains(words), "{words} is not in {html}");
        }
        assert!(!html.contains("<b>") && !html.contains("<i>"));
        let clean = DataInfo { skipped: Named::default(), shared_patients: Some(Named::default()), ..data() };
        let section = data_section(&clean);
        let told = |words: &str| section.blocks.iter().any(|b| matches!(b, Block::Paragraph(t) if t.contains(words)));
        assert!(told("No patient has images in two sets") && told("Every image could be read"));
    }
}
