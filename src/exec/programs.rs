//! The programs of an executor, by numbers that are never given twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{ExecError, Program};

/// The number of the next program of this process.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// What an executor made of each graph.
#[derive(Debug)]
pub(crate) struct Programs<P> {
    /// In the order of their numbers.
    held: Vec<(usize, P)>,
}

impl<P> Default for Programs<P> {
    fn default() -> Self {
        Self { held: Vec::new() }
    }
}

impl<P> Programs<P> {
    pub(crate) fn push(&mut self, program: P) -> Program {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.held.push((number, program));
        Program(number)
    }

    fn place(&self, program: Program) -> Result<usize, ExecError> {
        self.held.binary_search_by_key(&program.0, |held| held.0).map_err(|_| ExecError::Stale)
    }

    pub(crate) fn get(&self, program: Program) -> Result<&P, ExecError> {
        self.place(program).map(|i| &self.held[i].1)
    }

    pub(crate) fn get_mut(&mut self, program: Program) -> Result<&mut P, ExecError> {
        self.place(program).map(|i| &mut self.held[i].1)
    }

    /// Drops a program; one that is no more is none the worse for it.
    pub(crate) fn release(&mut self, program: Program) {
        if let Ok(i) = self.place(program) {
            self.held.remove(i);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &P> {
        self.held.iter().map(|held| &held.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_one_program_only() {
        let (mut one, mut other) = (Programs::default(), Programs::default());
        let (a, x, b) = (one.push("a"), other.push("x"), one.push("b"));
        assert_eq!((*one.get(a).unwrap(), *other.get(x).unwrap(), *one.get(b).unwrap()), ("a", "x", "b"));
        assert!(matches!(one.get(x), Err(ExecError::Stale)), "of another executor");
        one.release(a);
        one.release(a);
        one.release(x);
        assert!(one.get(a).is_err() && one.get_mut(b).is_ok() && one.iter().eq(&["b"]));
        one.clear();
        let c = one.push("c");
        assert!(one.get(b).is_err() && *one.get(c).unwrap() == "c");
    }
}
