//! What was measured on an adapter: which kernel variant is fastest for an op at its shapes. `radiograd tune` writes it, later
//! runs read it, and it goes before the table (`choice`).
//!
//! One JSON file an adapter. An entry counts only while everything that was measured is still the same: it holds a hash of
//! the candidates (names, specialisation, and the text of their pages), so that a changed page, a new variant or another
//! choice of blocks sets aside the entries that it concerns and no others. Adapter, driver and version of the crate hold for
//! the whole file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::choice;
use super::device::AdapterSummary;
use super::pages::PAGES;
use crate::fsio::{self, FsError};
use crate::ops::{LowerCx, Op};

/// Counts up when the meaning of the file changes.
const FORMAT: u32 = 1;

/// What the measurements are true of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The adapter's name.
    pub adapter: String,
    /// `Vulkan`, `Metal`, `Dx12`.
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Version of this crate.
    pub version: String,
}

impl Machine {
    /// That of an adapter and this crate.
    #[must_use]
    pub fn of(adapter: &AdapterSummary) -> Self {
        Self {
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What was measured for an op at its shapes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The fastest variant.
    pub variant: String,
    /// Its median time in seconds.
    pub seconds: f64,
    /// The table's variant.
    pub table: String,
    /// Its median time in seconds; none where it gave wrong numbers or failed.
    pub table_seconds: Option<f64>,
    /// Hash of all candidates.
    pub kernels: String,
}

/// The measurements of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    format: u32,
    machine: Machine,
    entries: BTreeMap<String, Entry>,
}

/// Why a file of measurements is not used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}; it is ignored: run `radiograd tune` again, or `radiograd tune --clear`", path.display())]
pub struct TunedError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// An op at its shapes, in words that are the same in every run: `conv2d k3 s1 p1: f32 [32, 1, 64, 64], ... -> ...`.
#[must_use]
pub fn key(op: &dyn Op, cx: &LowerCx<'_>) -> String {
    let mut text = op.name().to_owned();
    let detail = op.detail();
    if !detail.is_empty() {
        text.push_str(&format!(" {detail}"));
    }
    // Directions of a product differ in nothing but these.
    for (name, value) in op.facts(cx).iter().filter(|(name, _)| ["ta", "tb"].contains(name)) {
        text.push_str(&format!(" {name}{value}"));
    }
    let inputs: Vec<String> = cx.inputs.iter().map(ToString::to_string).collect();
    format!("{text}: {} -> {}", inputs.join(", "), cx.output)
}

/// Hash of the candidates at these shapes: names, dispatches and the pages' text.
#[must_use]
pub fn fingerprint(op: &dyn Op, cx: &LowerCx<'_>, supported: &[&'static str]) -> String {
    let mut hash = blake3::Hasher::new();
    for &variant in supported {
        let lowering = op.lower(&LowerCx { variant, ..cx.clone() });
        hash.update(format!("{variant} {:?}\n", lowering).as_bytes());
        for dispatch in &lowering.dispatches {
            hash.update(page_hash(dispatch.shader).as_bytes());
        }
    }
    hash.finalize().to_hex()[..32].to_owned()
}

/// Hash of a page and of all that pages may include.
fn page_hash(name: &str) -> blake3::Hash {
    static HASHES: OnceLock<BTreeMap<&'static str, blake3::Hash>> = OnceLock::new();
    let hashes = HASHES.get_or_init(|| {
        let mut shared = blake3::Hasher::new();
        for (_, text) in PAGES.iter().filter(|(name, _)| name.starts_with("lib/")) {
            shared.update(text.as_bytes());
        }
        PAGES.iter().map(|&(name, text)| (name, shared.clone().update(text.as_bytes()).finalize())).collect()
    });
    hashes.get(name).copied().unwrap_or_else(|| blake3::hash(name.as_bytes()))
}

impl Tuned {
    /// Without measurements yet.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self { format: FORMAT, machine, entries: BTreeMap::new() }
    }

    /// Where the measurements of an adapter lie below a cache folder: one file an adapter, backend and driver.
    #[must_use]
    pub fn path(cache: &Path, machine: &Machine) -> PathBuf {
        let Machine { adapter, backend, driver, .. } = machine;
        let plain: String =
            adapter.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        let words: Vec<&str> = plain.split('-').filter(|w| !w.is_empty()).take(4).collect();
        let hash = blake3::hash(format!("{adapter}\n{backend}\n{driver}").as_bytes()).to_hex();
        folder(cache).join(format!("{}-{}.json", words.join("-"), &hash[..16]))
    }

    /// Reads the measurements of this machine; `None` where there are none, or those of another version of the crate.
    ///
    /// # Errors
    /// [`TunedError`] for a file that does not read or is none of these.
    pub fn load(cache: &Path, machine: &Machine) -> Result<Option<Self>, TunedError> {
        let path = Self::path(cache, machine);
        if !path.exists() {
            return Ok(None);
        }
        let found = Self::read(&path)?;
        Ok((found.machine == *machine).then_some(found))
    }

    /// Reads a file of measurements, of whatever machine.
    ///
    /// # Errors
    /// [`TunedError`] for a file that does not read or is none of these.
    pub fn read(path: &Path) -> Result<Self, TunedError> {
        let fail = |problem: String| TunedError { path: path.to_owned(), problem };
        let bytes = crate::fsio::read(path).map_err(|e| fail(e.source.to_string()))?;
        let found: Self = serde_json::from_slice(&bytes).map_err(|e| fail(format!("does not parse ({e})")))?;
        let sound = |e: &Entry| e.seconds > 0.0 && e.table_seconds.is_none_or(|s| s > 0.0);
        match found.format == FORMAT && found.entries.values().all(sound) {
            true => Ok(found),
            false => Err(fail("holds no times that this version can use".to_owned())),
        }
    }

    /// Writes the measurements, those of the file that these do not replace included.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn store(&mut self, cache: &Path) -> Result<PathBuf, FsError> {
        // What does not read is replaced.
        if let Ok(Some(there)) = Self::load(cache, &self.machine) {
            for (key, entry) in there.entries {
                self.entries.entry(key).or_insert(entry);
            }
        }
        let path = Self::path(cache, &self.machine);
        fsio::create_dir(&folder(cache))?;
        let json = serde_json::to_vec_pretty(self).expect("plain numbers and text");
        fsio::write_atomic(&path, &json)?;
        Ok(path)
    }

    /// Adds what was measured for an op at its shapes.
    pub fn insert(&mut self, key: String, entry: Entry) {
        self.entries.insert(key, entry);
    }

    /// Everything that was measured, by [`key`].
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// How many entries there are, and how many of them depart from the table's choice.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.entries.len(), self.entries.values().filter(|e| e.variant != e.table).count())
    }

    /// The variant that was measured to be the fastest of exactly these candidates.
    #[must_use]
    pub fn choose(&self, op: &dyn Op, cx: &LowerCx<'_>, supported: &[&'static str]) -> Option<&'static str> {
        if supported.len() < 2 {
            return None;
        }
        let entry = self.entries.get(&key(op, cx))?;
        let variant = supported.iter().find(|v| **v == entry.variant)?;
        (entry.kernels == fingerprint(op, cx, supported)).then_some(variant)
    }
}

/// The folder of all measurements below a cache folder.
#[must_use]
pub fn folder(cache: &Path) -> PathBuf {
    cache.join("tune")
}

/// The variant for an op: what was measured, else what the table says; and whether measuring changed the table's choice.
#[must_use]
pub fn choose(
    tuned: Option<&Tuned>,
    op: &dyn Op,
    cx: &LowerCx<'_>,
    supported: &[&'static str],
) -> (&'static str, bool) {
    let table = choice::choose(op, cx, supported);
    let variant = tuned.and_then(|t| t.choose(op, cx, supported)).unwrap_or(table);
    (variant, variant != table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::lower::AdapterKind;
    use crate::graph::Graph;
    use crate::ops::PLAIN;
    use crate::ops::conv2d::Conv2d;
    use crate::shape::Spec;

    fn machine() -> Machine {
        let text = |s: &str| s.to_owned();
        Machine {
            adapter: text("Some GPU (rev 2)"),
            backend: text("Vulkan"),
            driver: text("1.2"),
            version: text("0.1"),
        }
    }

    fn entry(variant: &str, kernels: &str) -> Entry {
        let (table, kernels) = ("regblock".to_owned(), kernels.to_owned());
        Entry { variant: variant.to_owned(), seconds: 1e-3, table, table_seconds: Some(2e-3), kernels }
    }

    /// Calls `f` with a convolution and what a lowering sees of it.
    fn convolution<R>(size: usize, f: impl FnOnce(&dyn Op, &LowerCx<'_>, &[&'static str]) -> R) -> R {
        let mut g = Graph::new();
        let (x, w) = (g.input("x", Spec::float([2, 4, size, size])), g.input("w", Spec::float([8, 4, 3, 3])));
        let y = g.conv2d(x, w, None, Conv2d::same(3)).unwrap();
        let specs = [g.spec(x), g.spec(w)];
        let (op, adapter) = (g.node(y).op().unwrap(), AdapterKind::Software);
        let cx =
            LowerCx { inputs: &specs, output: g.spec(y), adapter, subgroup: None, companion: false, variant: PLAIN };
        f(op.as_ref(), &cx, &op.variants(&cx))
    }

    #[test]
    fn a_measurement_goes_before_the_table_while_its_candidates_are_the_same() {
        let mut tuned = Tuned::new(machine());
        let (key, kernels) = convolution(16, |op, cx, v| (key(op, cx), fingerprint(op, cx, v)));
        tuned.insert(key.clone(), entry("tiled", &kernels));
        convolution(16, |op, cx, v| {
            assert_eq!(choose(None, op, cx, v), ("regblock", false));
            assert_eq!(choose(Some(&tuned), op, cx, v), ("tiled", true));
            // A candidate that came or went sets the entry aside, and so does a variant that is no longer there.
            assert_eq!(tuned.choose(op, cx, &[PLAIN, "tiled"]), None);
            assert_eq!(tuned.choose(op, cx, &[PLAIN]), None);
        });
        convolution(17, |op, cx, v| assert_eq!(tuned.choose(op, cx, v), None));
        tuned.insert(key.clone(), entry("tiled", "other kernels"));
        convolution(16, |op, cx, v| assert_eq!(choose(Some(&tuned), op, cx, v), ("regblock", false)));
        tuned.insert(key, entry("regblock", &kernels));
        convolution(16, |op, cx, v| assert_eq!(choose(Some(&tuned), op, cx, v), ("regblock", false)));
    }

    #[test]
    fn the_directions_of_a_layer_have_keys_of_their_own() {
        let mut g = Graph::new();
        let (x, w) = (g.input("x", Spec::float([8, 8])), g.input("w", Spec::float([8, 8])));
        let y = g.linear(x, w, None).unwrap();
        let dy = g.input("dy", g.spec(y).clone());
        g.gradients(y, Some(dy), &[x, w]).unwrap();
        let mut keys = Vec::new();
        for node in g.nodes() {
            let Some(op) = node.op() else { continue };
            let specs: Vec<_> = node.inputs().iter().map(|&i| g.spec(i)).collect();
            let cx = LowerCx {
                inputs: &specs,
                output: &node.spec,
                adapter: AdapterKind::Discrete,
                subgroup: None,
                companion: false,
                variant: PLAIN,
            };
            keys.push(key(op.as_ref(), &cx));
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 3, "{keys:?}");
    }

    #[test]
    fn files_are_merged_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Tuned::load(dir.path(), &machine()).unwrap().is_none());
        let mut first = Tuned::new(machine());
        first.insert("a".to_owned(), entry("tiled", "1"));
        first.insert("b".to_owned(), entry("tiled", "1"));
        let path = first.store(dir.path()).unwrap();
        assert!(path.starts_with(folder(dir.path())) && path.to_str().unwrap().contains("some-gpu-rev-2"), "{path:?}");
        let mut second = Tuned::new(machine());
        second.insert("b".to_owned(), entry("regblock", "2"));
        second.insert("c".to_owned(), entry("regblock", "2"));
        assert_eq!(second.store(dir.path()).unwrap(), path);
        let all = Tuned::load(dir.path(), &machine()).unwrap().unwrap();
        let found: Vec<_> = all.entries().iter().map(|(k, e)| (k.as_str(), e.kernels.as_str())).collect();
        assert_eq!(found, [("a", "1"), ("b", "2"), ("c", "2")]);
        assert_eq!(all.count(), (3, 1));
        // Another version of the crate measures anew; another driver has a file of its own.
        let newer = Machine { version: "0.2".to_owned(), ..machine() };
        assert!(Tuned::load(dir.path(), &newer).unwrap().is_none());
        assert_ne!(Tuned::path(dir.path(), &Machine { driver: "1.3".to_owned(), ..machine() }), path);
    }

    #[test]
    fn damaged_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut tuned = Tuned::new(machine());
        tuned.insert("a".to_owned(), entry("tiled", "1"));
        let path = tuned.store(dir.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let zero = String::from_utf8(whole.clone()).unwrap().replace("0.001", "0.0").into_bytes();
        for bytes in [&whole[..whole.len() / 2], b"", b"null", b"\xff\xfe", &zero] {
            std::fs::write(&path, bytes).unwrap();
            let error = Tuned::load(dir.path(), &machine()).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains("ignored"), "{error}");
            assert_eq!(error.lines().count(), 1);
            // The next measurement replaces it.
            Tuned::new(machine()).store(dir.path()).unwrap();
            assert!(Tuned::load(dir.path(), &machine()).unwrap().is_some());
        }
    }
}
