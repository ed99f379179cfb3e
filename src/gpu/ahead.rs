//! Pipelines that are compiled before they are wanted, by somebody who need not wait for them. A page in a browser has them compiled several at a
//! time and while it does other things; the crate itself could only ask for one after another there. The page asks what a training will want
//! ([`Ahead::collect`], [`Ahead::take`]), has the browser compile that (`createComputePipelineAsync`), and keeps the results: a browser
//! that is asked again for a pipeline that it has hands out the one it has.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::pipelines::{Access, Key, Wanted};

/// What a pipeline is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wish {
    /// The page and the entry point, for messages.
    pub label: String,
    /// WGSL.
    pub code: String,
    /// The function that runs.
    pub entry: &'static str,
    /// The type of buffer of each binding of group 0, in WebGPU's words.
    pub bindings: Vec<&'static str>,
}

/// What the executors of a page put down and what they wrote so far; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ahead(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    collects: bool,
    wishes: Vec<Wish>,
    /// What was ever wished.
    known: HashSet<Key>,
    /// The WGSL of dispatches: writing it takes a page longer than anything else that a training needs.
    texts: HashMap<String, Key>,
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

    /// What was put down since the last call; nothing comes twice.
    #[must_use]
    pub fn take(&self) -> Vec<Wish> {
        std::mem::take(&mut self.state().wishes)
    }

    /// The key of a pipeline, written once.
    pub(super) fn key(
        &self,
        wanted: &Wanted<'_>,
        write: impl FnOnce(&Wanted<'_>) -> Result<Key, String>,
    ) -> Result<Key, String> {
        let d = wanted.dispatch;
        let words = format!("{} {} {:?} {:?}", d.shader, d.entry, d.consts, wanted.access);
        if let Some(key) = self.state().texts.get(&words) {
            return Ok(key.clone());
        }
        let key = write(wanted)?;
        self.state().texts.insert(words, key.clone());
        Ok(key)
    }

    /// Puts down pipelines, where they are collected.
    pub(super) fn put_down(&self, new: &[(&Wanted<'_>, &Key)]) -> bool {
        let mut state = self.state();
        for (wanted, key) in new.iter().filter(|_| state.collects).copied().collect::<Vec<_>>() {
            let bindings: Option<Vec<&str>> = wanted.access.iter().map(|a| buffer(*a)).collect();
            if let Some(bindings) = bindings.filter(|_| state.known.insert(key.clone())) {
                let label = format!("shaders/{} ({})", wanted.dispatch.shader, key.1);
                state.wishes.push(Wish { label, code: key.0.clone(), entry: key.1, bindings });
            }
        }
        state.collects
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
    use crate::gpu::lower::{Arg, Dispatch};

    #[test]
    fn a_pipeline_is_written_once_and_wished_once() {
        let ahead = Ahead::default();
        let copy = |n| Dispatch::elementwise("copy.wgsl", "forward", n, vec![Arg::Input(0), Arg::Output], Vec::new());
        let (four, five) = (copy(4), copy(5));
        let want = |dispatch| Wanted { dispatch, access: vec![Access::Read, Access::Write], node: String::new() };
        let mut written = 0;
        let mut key = |dispatch| {
            let write = |w: &Wanted<'_>| {
                written += 1;
                Ok((format!("{:?}", w.dispatch.consts), w.dispatch.entry))
            };
            ahead.key(&want(dispatch), write).unwrap()
        };
        let keys = [key(&four), key(&five), key(&four)];
        assert_eq!((written, &keys[0], keys[0] == keys[1]), (2, &keys[2], false));
        let all = [(&want(&four), &keys[0]), (&want(&five), &keys[1])];
        assert!(!ahead.put_down(&all) && ahead.take().is_empty(), "nothing is collected unless somebody asks");
        ahead.collect(true);
        assert!(ahead.put_down(&all[..1]) && ahead.put_down(&all));
        let wishes = ahead.take();
        assert_eq!(wishes.len(), 2);
        assert_eq!((wishes[0].entry, &wishes[0].bindings[..]), ("forward", &["read-only-storage", "storage"][..]));
        assert!(ahead.take().is_empty() && ahead.put_down(&all) && ahead.take().is_empty());
        ahead.collect(false);
        assert!(!ahead.put_down(&all));
    }
}
