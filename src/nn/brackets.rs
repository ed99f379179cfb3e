//! Reading chains with brackets and names.
//!
//! | written | meaning |
//! |---|---|
//! | `[conv16-bn-relu-conv16-bn]+` | a residual block: what the layers give is added to their input |
//! | `[conv32s2-bn-relu-conv32-bn]+[conv32k1s2-bn]` | the same with layers on the shortcut, where channels or size change |
//! | `[bn-relu-conv12]++` | a dense block's layer: the channels of the input, then those that the layers give |
//! | `6x[bn-relu-conv12]++` | six of them, each with weights of its own |
//! | `3x[[conv16-bn]+-relu]` | brackets without a sign only repeat, and hold blocks and layers alike |
//! | `stem=conv16`, `block1=3x[...]+` | names: `stem.weight`, and `block1.conv1.weight`, `block2.conv1.weight`, ... |
//!
//! A layer without a name is called by its kind and its number among those of its level: `conv1`, `conv2`. Only a name makes a
//! level: layers in brackets without one are counted with their neighbours. A name of repeated brackets counts on from the
//! number that it ends with, or from 1.

use super::error::{LayerError, ModelError, shown};
use super::parse::{self, MAX_LAYERS};
use super::spec::{Block, Join, Layer};

/// The grammar of a block, for messages.
pub const FORM: &str =
    "[layers], [layers]+, [layers]+[shortcut] or [layers]++, with a number and x before them to repeat";
/// Most characters of a name.
pub const MAX_NAME: usize = 64;
/// Most brackets within each other.
const MAX_DEPTH: usize = 8;

/// Reads a chain.
///
/// # Errors
/// [`ModelError::Layer`] with the place of what cannot be read.
pub fn chain(text: &str) -> Result<Vec<Layer>, ModelError> {
    level(text, "", 0)
}

/// Reads the chain of one level; `place` goes before the number of each layer.
fn level(text: &str, place: &str, depth: usize) -> Result<Vec<Layer>, ModelError> {
    let read = |(i, text): (usize, &str)| named(text, &format!("{place}{}", i + 1), depth);
    split(text).into_iter().enumerate().map(read).collect()
}

/// Cuts a text at the dashes that stand in no brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start) = (0usize, 0);
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '-' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn wrong(place: &str, text: &str, problem: LayerError) -> ModelError {
    ModelError::Layer { place: place.to_owned(), text: shown(text.trim()), problem: Box::new(problem) }
}

/// One layer or block, with its name if it has one.
fn named(text: &str, place: &str, depth: usize) -> Result<Layer, ModelError> {
    match text.find(['=', '[']).filter(|&at| text[at..].starts_with('=')) {
        None => item(text, text, place, depth),
        Some(at) => {
            let name = text[..at].trim();
            if !is_name(name) {
                return Err(wrong(place, text, LayerError::Name { name: shown(name) }));
            }
            let layer = item(&text[at + 1..], text, place, depth)?;
            Ok(Layer::Named { name: name.to_owned(), layer: Box::new(layer) })
        }
    }
}

/// Letters, digits and `_` in parts between dots.
fn is_name(name: &str) -> bool {
    let part = |p: &str| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    name.len() <= MAX_NAME && name.split('.').all(part)
}

/// One layer or block without its name; `whole` is what messages show.
fn item(text: &str, whole: &str, place: &str, depth: usize) -> Result<Layer, ModelError> {
    let text = text.trim();
    let wrong = |problem| wrong(place, whole, problem);
    let unpaired = |what| wrong(LayerError::Brackets { what });
    let Some(open) = text.find('[') else {
        return match text.contains(']') {
            true => Err(unpaired("a ] without its [")),
            false => parse::layer(text).map_err(wrong),
        };
    };
    if depth == MAX_DEPTH {
        return Err(unpaired("too many brackets within each other, at most 8 are read"));
    }
    let times = match &text[..open] {
        "" => 1,
        head => times(head).map_err(wrong)?,
    };
    let (body, rest) = pair(&text[open..]).ok_or_else(|| unpaired("a [ without its ]"))?;
    let inner = |text: &str, at: &str| match text.trim().is_empty() {
        true => Err(unpaired("nothing in the brackets")),
        false => level(text, &format!("{place}.{at}"), depth + 1),
    };
    let body = inner(body, "")?;
    let join = match rest {
        "" => Join::Chain,
        "+" => Join::Add { shortcut: Vec::new() },
        "++" => Join::Concat,
        _ => match rest.strip_prefix('+').and_then(pair) {
            Some((shortcut, "")) => Join::Add { shortcut: inner(shortcut, "shortcut.")? },
            _ => return Err(wrong(LayerError::Syntax { rest: shown(rest), form: FORM })),
        },
    };
    Ok(Layer::Block(Block { times, body, join }))
}

/// Reads `6x`.
fn times(head: &str) -> Result<usize, LayerError> {
    let digits = head.strip_suffix(['x', 'X']).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(LayerError::Syntax { rest: shown(head), form: FORM });
    }
    let value = digits.parse().ok().filter(|n| (1..=MAX_LAYERS).contains(n));
    value.ok_or_else(|| LayerError::Range {
        what: "the number of times",
        value: shown(digits),
        range: format!("1 to {MAX_LAYERS}"),
    })
}

/// `[a]b` as `(a, b)`, where the text begins with a bracket that is closed.
fn pair(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return if c == ']' { Some((&text[1..at], &text[at + 1..])) } else { None };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_in_brackets_do_not_cut() {
        assert_eq!(split("a-[b-[c-d]+-e]++-f"), ["a", "[b-[c-d]+-e]++", "f"]);
        assert_eq!(split("a]-b"), ["a]", "b"]);
        assert_eq!(pair("[a[b]c]d]"), Some(("a[b]c", "d]")));
        assert_eq!(pair("a[b]"), None);
        assert_eq!(pair("[a"), None);
    }

    #[test]
    fn names_are_parts_between_dots() {
        for name in ["a", "layer1.0", "0", "features.norm_5"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "a.", ".a", "a..b", "a b", "a-b", "é", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
