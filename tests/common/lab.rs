//! A folder with tiny data sets in which the program runs, and trainings there that must fail.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Output;

use image::{GrayImage, Luma};
use tempfile::TempDir;

use crate::program::{command, complaint, finish, listing, text};

/// Small enough to train in a blink.
pub const MODEL: &str = "conv4-relu-pool-flatten-dense2";

/// A folder of its own in which the program runs.
pub struct Lab {
    pub dir: TempDir,
}

impl Lab {
    /// With `ok`: images of two classes that any network tells apart, 12 of each to train on and 4 to test on.
    pub fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().expect("a folder") };
        lab.images("ok", &["NORMAL", "PNEUMONIA"]);
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("a file");
    }

    /// An image folder.
    pub fn images(&self, name: &str, classes: &[&str]) {
        for (split, count) in [("train", 12), ("test", 4)] {
            for (k, class) in classes.iter().enumerate() {
                let folder = self.path(name).join(split).join(class);
                fs::create_dir_all(&folder).expect("a folder");
                for i in 0..count {
                    picture(&folder.join(format!("person{i}{k}_bacteria_1.png")), k as u32, i);
                }
            }
        }
    }

    /// The files of one class of a split.
    pub fn files(&self, class: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(class)).expect("a folder");
        let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
        files.sort();
        files
    }

    /// A MedMNIST file: 24 images of 16x16 to train on, 8 each for val and test; `change` says what is wrong with it.
    pub fn npz(&self, name: &str, change: impl Fn(&str) -> Change) {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (split, n) in [("train", 24), ("val", 8), ("test", 8)] {
            let labels: Vec<u8> = (0..n).map(|i| i as u8 % 2).collect();
            let pixels: Vec<u8> = labels.iter().flat_map(|&l| [60 + 140 * l; 256]).collect();
            let whole = [("images", npy("|u1", &[n, 16, 16], &pixels)), ("labels", npy("|u1", &[n, 1], &labels))];
            for (part, array) in whole {
                let key = format!("{split}_{part}");
                let bytes = match change(&key) {
                    Change::Keep => array,
                    Change::Remove => continue,
                    Change::Replace(bytes) => bytes,
                };
                zip.start_file(format!("{key}.npy"), zip::write::SimpleFileOptions::default()).expect("an entry");
                zip.write_all(&bytes).expect("an array");
            }
        }
        self.write(name, zip.finish().expect("an archive").into_inner());
    }

    pub fn output(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = command(args);
        command.current_dir(self.dir.path()).envs(environment.iter().copied());
        finish(command)
    }

    pub fn succeeds(&self, args: &[&str]) -> String {
        let out = self.output(args, &[]);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        text(&out.stderr)
    }

    /// The line of a command that must fail and change nothing.
    pub fn fails_in(&self, environment: &[(&str, &str)], args: &[&str], words: &[&str]) {
        let before = listing(self.dir.path());
        let line = complaint(&self.output(args, environment), args);
        for word in words {
            assert!(line.contains(word), "{args:?}: no {word:?} in: {line}");
        }
        assert_eq!(listing(self.dir.path()), before, "{args:?} left something behind: {line}");
    }

    pub fn fails(&self, args: &[&str], words: &[&str]) {
        self.fails_in(&[], args, words);
    }

    /// The same of a small training, some of whose options are changed.
    pub fn training_fails(&self, changes: &[(&'static str, &'static str)], words: &[&str]) {
        self.fails(&training(changes), words);
    }

    /// A finished run of one epoch.
    pub fn run(&self, name: &'static str) {
        self.succeeds(&training(&[("--out", name)]));
    }
}

/// What becomes of an array of a MedMNIST file.
pub enum Change {
    /// Nothing.
    Keep,
    /// It is not there.
    Remove,
    /// These bytes stand in its place.
    Replace(Vec<u8>),
}

/// Changes one array.
pub fn replace(key: &'static str, bytes: Vec<u8>) -> impl Fn(&str) -> Change {
    move |k| if k == key { Change::Replace(bytes.clone()) } else { Change::Keep }
}

/// Leaves out what begins like this.
pub fn remove(start: &'static str) -> impl Fn(&str) -> Change {
    move |k| if k.starts_with(start) { Change::Remove } else { Change::Keep }
}

/// An array file of version 1.0.
pub fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out
}

/// 20x20 pixels, dark for class 0 and bright for class 1.
pub fn picture(path: &Path, class: u32, seed: u32) {
    let value = |x: u32, y: u32| Luma([(50 + 70 * class + (7 * x + 13 * y + 5 * seed) % 40) as u8]);
    GrayImage::from_fn(20, 20, value).save(path).expect("an image");
}

pub fn truncate(path: &Path) {
    let bytes = fs::read(path).expect("a file");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
}

/// The arguments of a training; an option without a value is a flag.
pub fn training(changes: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    let mut options = vec![
        ("--data", "ok"),
        ("--model", MODEL),
        ("--size", "16"),
        ("--epochs", "1"),
        ("--batch", "4"),
        ("--device", "cpu"),
        ("--out", "out"),
    ];
    for change in changes {
        match options.iter_mut().find(|o| o.0 == change.0) {
            Some(option) => *option = *change,
            None => options.push(*change),
        }
    }
    let words = options.into_iter().flat_map(|(name, value)| [name, value]).filter(|word| !word.is_empty());
    ["train", "--quiet"].into_iter().chain(words).collect()
}
