//! Names of layers: a level for each name that brackets have, and in it a number for each kind.

/// A level of names.
#[derive(Debug)]
pub(super) struct Scope {
    /// What goes before each name: empty, or it ends with a dot.
    prefix: String,
    /// How often each kind has been used.
    counts: Vec<(&'static str, usize)>,
}

impl Scope {
    /// The outermost level.
    pub fn root() -> Self {
        Self { prefix: String::new(), counts: Vec::new() }
    }

    /// The level of the `turn`-th of `times` brackets with this name, which counts on from the number it ends with.
    pub fn inner(&self, name: &str, turn: usize, times: usize) -> Self {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let name = match name[stem.len()..].parse::<usize>() {
            _ if times == 1 => name.to_owned(),
            Ok(first) => format!("{stem}{}", first.saturating_add(turn)),
            Err(_) => format!("{name}{}", turn + 1),
        };
        Self { prefix: format!("{}{name}.", self.prefix), counts: Vec::new() }
    }

    /// The whole name of a layer that has been given one.
    pub fn given(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The whole name of the next layer of this kind.
    pub fn next(&mut self, kind: &'static str) -> String {
        let slot = match self.counts.iter().position(|n| n.0 == kind) {
            Some(slot) => slot,
            None => {
                self.counts.push((kind, 0));
                self.counts.len() - 1
            }
        };
        self.counts[slot].1 += 1;
        format!("{}{kind}{}", self.prefix, self.counts[slot].1)
    }

    /// The level's own name.
    pub fn name(&self) -> &str {
        self.prefix.trim_end_matches('.')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repeated_brackets_count_on() {
        let root = Scope::root();
        let names = |name, times| -> Vec<String> {
            (0..times).map(|turn| root.inner(name, turn, times).name().to_owned()).collect()
        };
        assert_eq!(names("layer1.0", 3), ["layer1.0", "layer1.1", "layer1.2"]);
        assert_eq!(names("dense9", 2), ["dense9", "dense10"]);
        assert_eq!(names("block", 2), ["block1", "block2"]);
        assert_eq!(names("block", 1), ["block"]);
        let mut inner = root.inner("a", 0, 1).inner("b", 0, 1);
        assert_eq!([inner.next("conv"), inner.next("bn"), inner.next("conv")], ["a.b.conv1", "a.b.bn1", "a.b.conv2"]);
        assert_eq!(inner.given("norm"), "a.b.norm");
    }
}
