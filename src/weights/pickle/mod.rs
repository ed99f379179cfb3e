//! A pickle reader that runs no code: the few opcodes and the few globals that a `state_dict` is made of.
//!
//! A pickle is a program for a stack machine, and Python's own reader calls whatever the program names. This one
//! builds plain values only: numbers, text, tuples, lists, dictionaries and descriptions of tensors. Any other opcode
//! or global is refused by name. Opcodes: `Lib/pickletools.py` of CPython; tensors: `torch/_utils.py` and
//! `torch/serialization.py` of PyTorch.
//!
//! Containers lie in arenas and values refer to them by number. A pickle that contains itself is therefore nothing
//! special: no reference counts that leak, no recursive drop. Text is kept as a range of the pickle's bytes. Memory is
//! bounded by a small multiple of the pickle's length, and every opcode takes constant time or moves values that
//! earlier opcodes pushed, so that the running time is bounded too.

mod machine;

use std::ops::Range;

use super::DType;

/// Why a pickle was refused. Offsets count bytes from the start of `data.pkl`.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PickleError {
    /// An opcode that a `state_dict` does not need.
    #[error(
        "its pickle uses the opcode 0x{opcode:02x} at byte {at}, which a state_dict does not need; \
         save model.state_dict() alone"
    )]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where it stands.
        at: usize,
    },
    /// A class or function that is not on the list.
    #[error(
        "its pickle asks for `{name}` at byte {at}, which is refused because it could run code; \
         save model.state_dict() alone"
    )]
    Global {
        /// `module.name`.
        name: String,
        /// Where it is asked for.
        at: usize,
    },
    /// A pickle of a later protocol.
    #[error("its pickle has protocol {0}, protocols 2 to 5 are read; save it with pickle_protocol=2")]
    Protocol(u8),
    /// The pickle ends too early.
    #[error("its pickle ends in the middle, at byte {0}; the file is truncated, copy it again")]
    Truncated(usize),
    /// An opcode that found something else than it needs.
    #[error("its pickle is broken at byte {at}: {what}; copy or save the file again")]
    Malformed {
        /// The opcode's position.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// More values than any network needs.
    #[error("its pickle holds more than {0} values; save model.state_dict() alone")]
    TooLarge(usize),
}

/// A value on the machine's stack. Containers are indices into [`Pickle`]'s arenas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Span),
    /// Bytes, or a text too long to be a name: allowed to be there, but nothing looks into it.
    Opaque,
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Value {
    /// The kind in Python's words, for messages.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Text(_) => "a str",
            Self::Opaque => "bytes or a long str",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// A range of the pickle's bytes that is valid UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

/// The globals that are known. None of them is ever called: each has its meaning here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    /// The same before PyTorch 0.4, without the last two arguments.
    RebuildTensorV1,
    RebuildParameter,
    StorageType(DType),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor") => Self::RebuildTensorV1,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch" | "torch.cuda" | "torch.storage", _) => Self::StorageType(match name {
                "FloatStorage" => DType::F32,
                "HalfStorage" => DType::F16,
                "BFloat16Storage" => DType::BF16,
                "DoubleStorage" => DType::F64,
                "LongStorage" => DType::I64,
                "IntStorage" => DType::I32,
                "ShortStorage" => DType::I16,
                "CharStorage" => DType::I8,
                "ByteStorage" => DType::U8,
                "BoolStorage" => DType::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// A block of elements that tensors look into, kept in an entry of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storage {
    /// The element type.
    pub dtype: DType,
    /// The entry's name below `data/`.
    pub key: Span,
    /// The number of elements.
    pub len: usize,
}

/// A view into a storage; offset and strides count elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorRecord {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A pickle after its STOP.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    tuples: Vec<Vec<Value>>,
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    storages: Vec<Storage>,
    tensors: Vec<TensorRecord>,
    /// The value that STOP found.
    pub root: Value,
    /// How many bytes it has, STOP included.
    length: usize,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, PickleError> {
        machine::Machine::new(bytes).run()
    }

    /// The text of a span.
    pub(super) fn text(&self, span: Span) -> &'a str {
        text(self.bytes, span.start..span.end)
    }

    /// How many bytes it has; others may follow.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// A list's items.
    pub(super) fn list(&self, index: usize) -> &[Value] {
        self.lists.get(index).map_or(&[], Vec::as_slice)
    }

    /// Key and size of an element of every storage.
    pub(super) fn storages(&self) -> impl Iterator<Item = (&'a str, usize)> {
        self.storages.iter().map(|s| (self.text(s.key), s.dtype.size()))
    }

    /// A dictionary's entries in the order in which they were set; a key may stand twice, the last one counts.
    pub(super) fn dict(&self, index: usize) -> &[(Value, Value)] {
        self.dicts.get(index).map_or(&[], Vec::as_slice)
    }

    /// A tensor's description.
    pub(super) fn tensor(&self, index: usize) -> Option<&TensorRecord> {
        self.tensors.get(index)
    }
}

/// The text in a range that was checked when its span was made.
fn text(bytes: &[u8], range: Range<usize>) -> &str {
    bytes.get(range).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
}
