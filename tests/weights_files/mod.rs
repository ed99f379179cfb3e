//! Checkpoints assembled by hand: pickles opcode by opcode, and the zip around them.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tensor to be described by a pickle.
pub struct View<'a> {
    pub name: &'a str,
    pub storage: &'a str,
    pub key: &'a str,
    pub len: u32,
    pub offset: u32,
    pub shape: &'a [u32],
    pub strides: &'a [u32],
}

/// Appends opcodes.
#[derive(Default)]
pub struct Pickler(pub Vec<u8>);

impl Pickler {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, t: &str) -> Self {
        self.raw(b"X").raw(&(t.len() as u32).to_le_bytes()).raw(t.as_bytes())
    }

    pub fn int(self, i: u32) -> Self {
        self.raw(b"J").raw(&i.to_le_bytes())
    }

    pub fn ints(self, v: &[u32]) -> Self {
        v.iter().fold(self.raw(b"("), |p, &i| p.int(i)).raw(b"t")
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn ordered_dict(self) -> Self {
        self.global("collections", "OrderedDict").raw(b")R")
    }

    pub fn tensor(self, v: &View<'_>) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", v.storage)
            .text(v.key)
            .text("cpu")
            .int(v.len)
            .raw(b"tQ")
            .int(v.offset)
            .ints(v.shape)
            .ints(v.strides)
            .raw(b"\x89")
            .ordered_dict()
            .raw(b"tR")
    }

    /// An `OrderedDict` of these tensors, with `_metadata` as PyTorch attaches it.
    pub fn state_dict(self, views: &[View<'_>]) -> Self {
        let start = self.ordered_dict().raw(b"(");
        let filled = views.iter().fold(start, |p, v| p.text(v.name).tensor(v)).raw(b"u");
        filled.raw(b"}").text("_metadata").ordered_dict().raw(b"sb")
    }

    pub fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

/// A checkpoint with this pickle and these further entries.
pub fn checkpoint(pickle: &[u8], entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in [("data.pkl", pickle)].iter().chain(entries) {
        zip.start_file(format!("model/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The bytes of floats, little-endian.
pub fn f32s(v: &[f32]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}
