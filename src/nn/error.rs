//! What can be wrong with a network text, in one line each.

use std::fmt;

use strsim::osa_distance;

use super::{named, parse};

/// A network cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// No layer at all.
    #[error("the model is empty: give a name ({}) or a chain of layers such as conv16-relu-pool-flatten-dense2", named::NAMES.join(", "))]
    Empty,
    /// One word that is neither a network nor a layer.
    #[error("unknown model {name}{}; known: {}, or a chain of layers such as conv16-relu-pool-flatten-dense2", Hint(*.nearest), named::NAMES.join(", "))]
    Unknown {
        /// The word.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// More layers than anyone means.
    #[error(
        "the model has {count} layers, brackets repeated, and at most {} are allowed: shorten the chain",
        parse::MAX_LAYERS
    )]
    TooManyLayers {
        /// How many.
        count: usize,
    },
    /// One layer is wrong, in itself or for the shape that reaches it.
    #[error("layer {place} ({text}): {problem}")]
    Layer {
        /// Position in the chain, from 1; in brackets `5.2`, the second layer in the brackets that are the fifth, or
        /// `5.shortcut.1`.
        place: String,
        /// The layer as written.
        text: String,
        /// What is wrong.
        problem: Box<LayerError>,
    },
    /// An input that no network takes.
    #[error("the input [{}, {}, {}] (channels, height, width) must have 1 to {} numbers: change --size", .0[0], .0[1], .0[2], super::plan::MAX_NUMEL)]
    Input([usize; 3]),
    /// Too few or too many classes.
    #[error("{0} classes: a classifier needs 2 to {max}", max = parse::MAX_WIDTH)]
    Classes(usize),
    /// More parameters than memory should be asked for.
    #[error(
        "the model has more than {} parameters: use narrower layers or a pool before flatten",
        super::plan::MAX_NUMEL
    )]
    TooManyParameters,
}

/// What is wrong with one layer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LayerError {
    /// No layer begins like this.
    #[error("unknown layer{}; known: {}", Hint(*.nearest), parse::kinds())]
    Unknown {
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// Two dashes in a row, or one at an end.
    #[error("nothing between two dashes: remove one")]
    Empty,
    /// A bracket without its other one.
    #[error("{what}: write {}", super::brackets::FORM)]
    Brackets {
        /// What is wrong.
        what: &'static str,
    },
    /// A name that cannot be one.
    #[error(
        "'{name}' cannot be a name: use letters, digits and _, with single dots between them, at most {} in all",
        super::brackets::MAX_NAME
    )]
    Name {
        /// As written.
        name: String,
    },
    /// Two layers of one name.
    #[error("another layer is called {name} already: name one of them (NAME=...), or the brackets around it")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A block that adds what cannot be added.
    #[error("{main} and {other} cannot be added: {advice}")]
    Add {
        /// What the chain in brackets gives.
        main: String,
        /// What it is to be added to.
        other: String,
        /// What to write.
        advice: String,
    },
    /// A block that joins what cannot be joined.
    #[error(
        "{input} and {output} cannot stand behind each other: with ++ the layers in brackets must keep height and width"
    )]
    Concat {
        /// What reaches the block.
        input: String,
        /// What its chain makes of it.
        output: String,
    },
    /// A number is missing.
    #[error("{what} is missing: write {form}")]
    Missing {
        /// The number's meaning.
        what: &'static str,
        /// The layer's grammar.
        form: &'static str,
    },
    /// A number is out of range.
    #[error("{what} is {value}, it must be {range}")]
    Range {
        /// The number's meaning.
        what: &'static str,
        /// As written.
        value: String,
        /// What is allowed.
        range: String,
    },
    /// An option is given twice.
    #[error("{option} is given twice: write {form}")]
    Twice {
        /// The option's letter.
        option: String,
        /// The layer's grammar.
        form: &'static str,
    },
    /// Something follows that is no option.
    #[error("cannot read '{rest}': write {form}")]
    Syntax {
        /// From where it cannot be read.
        rest: String,
        /// The layer's grammar.
        form: &'static str,
    },
    /// The window does not fit into what reaches the layer.
    #[error("the input {input} is smaller than the window {window}: use a larger --size or fewer pools")]
    Window {
        /// The shape that reached the layer.
        input: String,
        /// The window with its dilation.
        window: String,
    },
    /// Padding of a pool that would make windows without a pixel.
    #[error("the padding {padding} must be at most half of the window {window}")]
    PoolPadding {
        /// Padding.
        padding: String,
        /// Window.
        window: String,
    },
    /// The channels do not split evenly.
    #[error("{groups} groups must divide the {input} input channels and the {output} output channels")]
    Groups {
        /// Groups.
        groups: usize,
        /// Input channels.
        input: usize,
        /// Output channels.
        output: usize,
    },
    /// An image layer after `flatten`.
    #[error("needs images [N, C, H, W], but {input} reaches it: move it before flatten or dense")]
    NeedsImages {
        /// The shape that reached the layer.
        input: String,
    },
    /// A dense layer before `flatten`.
    #[error("needs rows [N, features], but {input} reaches it: put flatten before it")]
    NeedsRows {
        /// The shape that reached the layer.
        input: String,
    },
    /// An activation too large for any device.
    #[error(
        "its output {output} has more than {} numbers an image: use a smaller --size, fewer channels or a stride",
        super::plan::MAX_NUMEL
    )]
    TooLarge {
        /// The output's shape.
        output: String,
    },
    /// A parameter too large for any device.
    #[error(
        "its weight {shape} has more than {} numbers: make it narrower, or pool more before it",
        super::plan::MAX_NUMEL
    )]
    WeightTooLarge {
        /// The weight's shape.
        shape: String,
    },
    /// More work than any device does in a sensible time.
    #[error("needs more than 10^13 operations an image: use a smaller kernel, fewer channels or a stride")]
    TooMuchWork,
    /// The network ends with images.
    #[error("ends the network with images {output}: add flatten, then dense{classes}")]
    EndsWithImages {
        /// The output's shape.
        output: String,
        /// Number of classes.
        classes: usize,
    },
    /// The wrong number of outputs.
    #[error(
        "ends the network with {outputs} outputs for {classes} classes: end with dense{classes}{}", if *.classes == 2 { " (softmax) or dense1 (sigmoid)" } else { "" }
    )]
    Outputs {
        /// Outputs for an image.
        outputs: usize,
        /// Number of classes.
        classes: usize,
    },
    /// The loss contains the last activation already.
    #[error("must not end the network: the loss applies {activation} itself, so remove this layer")]
    FinalActivation {
        /// Its name.
        activation: &'static str,
    },
}

/// `, did you mean x?`, or nothing.
struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(word) => write!(f, ", did you mean {word}?"),
            None => Ok(()),
        }
    }
}

/// Text of the user as messages show it: one line, at most 48 characters.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(48).flat_map(char::escape_debug).collect();
    if text.chars().nth(48).is_some() {
        out.push_str("...");
    }
    out
}

/// The candidate with the fewest edits from `word` (insertions, deletions, replacements, swaps of neighbours), if they are few
/// enough to suggest it. The first wins a tie.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 32 {
        return None;
    }
    candidates
        .into_iter()
        .map(|c| (osa_distance(word, c), c))
        .filter(|&(d, c)| d <= 2.max(c.len() / 3) && d < c.len().min(word.chars().count()))
        .min_by_key(|&(d, _)| d)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_counts_edits() {
        assert_eq!(nearest("cnn4", ["mlp", "cnn1", "cnn2"]), Some("cnn1"));
        assert_eq!(nearest("transformer", ["mlp", "cnn1"]), None);
        assert_eq!(nearest("x", ["mlp", "bn"]), None);
    }

    #[test]
    fn shown_text_is_one_short_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert!(shown(&"x".repeat(1000)).len() < 60);
    }
}
