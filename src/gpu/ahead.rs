//! Pipelines that are compiled before they are wanted, by somebody who need not wait for them. A page in a browser has them compiled several at a
//! time and while it does other things; the crate itself could only ask for one after another there. The page asks what a training will want
//! ([`Ahead::collect`], [`Ahead::take`]), has the browser compile that (`createComputePipelineAsync`), and keeps the results: a browser
//! that is asked again for a pipeline that it has hands out the one it has.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::lower::{Dispatch, Late};
use super::pages::PAGES;
use super::pipelines::{Access, Key, write};

/// What a pipeline is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wish {
    /// The page and the entry point, for messages.
    pub label: String,
    /// WGSL.
    pub code: String,
    /// The function that runs.
    pub entry: &'static str,
    /// Number and type of buffer, in WebGPU's words, of each binding of group 0.
    pub bindings: Vec<(u32, &'static str)>,
}

/// What the executors of a page put down and what they wrote so far; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ahead(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    collects: bool,
    put_down: Vec<Unwritten>,
    /// What was ever wished.
    known: HashSet<Key>,
    /// The WGSL of dispatches: writing it takes a page longer than anything else that a training needs.
    texts: HashMap<String, Key>,
}

#[derive(Debug)]
struct Unwritten {
    dispatch: Dispatch,
    access: Vec<Access>,
    place: Late,
}

/// Wishes that are written one by one, when they are asked for, so that the first is compiled while the next is written. What is likely to
/// take longest to compile comes first; nothing comes twice.
#[derive(Debug)]
pub struct Wishes {
    ahead: Ahead,
    left: VecDeque<Unwritten>,
}

impl Ahead {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here is ever half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is on, executors put down which pipelines they want in the place of compiling them. Programs compiled so have no
    /// dispatches: they are not for running.
    pub fn collect(&self, on: bool) {
        self.state().collects = on;
    }

    /// What was put down since the last call.
    #[must_use]
    pub fn take(&self) -> Wishes {
        let mut left = std::mem::take(&mut self.state().put_down);
        // Nothing else is known of a pipeline that is not written yet.
        let length =
            |u: &Unwritten| PAGES.iter().find(|page| page.0 == u.dispatch.shader).map_or(0, |page| page.1.len());
        left.sort_by_key(|u| Reverse(length(u)));
        Wishes { ahead: self.clone(), left: left.into() }
    }

    /// The key of a pipeline, written once.
    pub(super) fn key(&self, dispatch: &Dispatch, access: &[Access], place: Late) -> Result<Key, String> {
        let words = format!("{} {} {:?} {access:?}", dispatch.shader, dispatch.entry, dispatch.consts);
        if let Some(key) = self.state().texts.get(&words) {
            return Ok(key.clone());
        }
        let key = write(dispatch, access, place)?;
        self.state().texts.insert(words, key.clone());
        Ok(key)
    }

    /// Puts down pipelines, where they are collected.
    pub(super) fn put_down<'a>(&self, wanted: impl Iterator<Item = (&'a Dispatch, &'a [Access], Late)>) -> bool {
        let mut state = self.state();
        if state.collects {
            let new = |(dispatch, access, place): (&Dispatch, &[Access], Late)| Unwritten {
                dispatch: dispatch.clone(),
                access: access.to_vec(),
                place,
            };
            state.put_down.extend(wanted.map(new));
        }
        state.collects
    }
}

impl Iterator for Wishes {
    type Item = Wish;

    fn next(&mut self) -> Option<Wish> {
        while let Some(Unwritten { dispatch, access, place }) = self.left.pop_front() {
            let bindings =
                (0..).zip(&access).map(|(i, a)| Some((a.binding(i), buffer(*a)?))).collect::<Option<Vec<_>>>();
            // What cannot be written says so when it is wanted.
            let (Some(bindings), Ok(key)) = (bindings, self.ahead.key(&dispatch, &access, place)) else { continue };
            if self.ahead.state().known.insert(key.clone()) {
                let label = format!("shaders/{} ({})", dispatch.shader, key.1);
                return Some(Wish { label, code: key.0, entry: key.1, bindings });
            }
        }
        None
    }
}

/// A kernel that reads textures is compiled when it is wanted.
fn buffer(access: Access) -> Option<&'static str> {
    match access {
        Access::Read => Some("read-only-storage"),
        Access::Write => Some("storage"),
        Access::Late => Some("uniform"),
        Access::Texture(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::lower::{Arg, LATE_BINDING};

    #[test]
    fn a_pipeline_is_wished_once_and_the_longest_page_first() {
        let ahead = Ahead::default();
        let copy = |n| Dispatch::elementwise("copy.wgsl", "forward", n, vec![Arg::Input(0), Arg::Output], Vec::new());
        let fill = Dispatch::elementwise("write_rows.wgsl", "forward", 4, vec![Arg::Input(0), Arg::Output], Vec::new());
        let access = [Access::Read, Access::Write];
        let (four, five) = (copy(4), copy(5));
        let all = [&four, &five, &fill, &four];
        let put_down = || ahead.put_down(all.iter().map(|d| (*d, &access[..], Late::Text)));
        assert!(!put_down() && ahead.take().next().is_none(), "nothing is collected unless somebody asks");
        ahead.collect(true);
        assert!(put_down());
        let wishes: Vec<Wish> = ahead.take().collect();
        let labels: Vec<&str> = wishes.iter().map(|w| w.label.as_str()).collect();
        assert_eq!(
            labels,
            ["shaders/write_rows.wgsl (forward)", "shaders/copy.wgsl (forward)", "shaders/copy.wgsl (forward)"]
        );
        assert_eq!(
            (wishes[1].entry, &wishes[1].bindings[..]),
            ("forward", &[(0, "read-only-storage"), (1, "storage")][..])
        );
        assert!(wishes[1].code.contains("COUNT: u32 = 4u") && wishes[2].code.contains("COUNT: u32 = 5u"));
        assert!(put_down() && ahead.take().next().is_none());
        ahead.collect(false);
        assert!(!put_down());
        // Sizes in a uniform buffer: one pipeline for both.
        let access = [Access::Read, Access::Write, Access::Late];
        ahead.collect(true);
        assert!(ahead.put_down([&four, &five].into_iter().map(|d| (d, &access[..], Late::Uniform))));
        let wishes: Vec<Wish> = ahead.take().collect();
        assert_eq!((wishes.len(), wishes[0].bindings[2]), (1, (LATE_BINDING, "uniform")));
    }
}
