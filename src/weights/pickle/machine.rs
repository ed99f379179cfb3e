//! The stack machine: one method an opcode family.

use std::collections::HashMap;

use super::{Global, Pickle, PickleError, Span, Storage, TensorRecord, Value, text};

/// The highest protocol there is.
const MAX_PROTOCOL: u8 = 5;
/// Values pushed, marks, memo entries and objects together. A tensor takes about 30, so this is enough for more than ten
/// thousand, and every byte of memory that the machine takes is paid for by one of them.
const MAX_VALUES: usize = 1 << 19;
/// Bytes of a text that can name something; the memo may hand out one text a million times, and each use reads it.
const MAX_NAME: usize = 1024;
/// Axes of a tensor. PyTorch allows 64.
const MAX_AXES: usize = 64;

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// The next byte to read.
    at: usize,
    /// The opcode that is being run, for messages.
    opcode_at: usize,
    stack: Vec<Value>,
    /// The stack's height at each open MARK; opcodes must not reach below the last one.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// What was counted against [`MAX_VALUES`].
    values: usize,
    out: Pickle<'a>,
}

type Step<T = ()> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let out = Pickle {
            bytes,
            tuples: Vec::new(),
            lists: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
            root: Value::None,
            length: 0,
        };
        Self { bytes, at: 0, opcode_at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), values: 0, out }
    }

    /// Runs up to STOP.
    pub(super) fn run(mut self) -> Step<Pickle<'a>> {
        loop {
            self.opcode_at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                if !self.stack.is_empty() {
                    return Err(self.malformed("STOP leaves values behind"));
                }
                self.out.root = root;
                self.out.length = self.at;
                return Ok(self.out);
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            // Frame and protocol
            0x80 => match self.byte()? {
                0..=MAX_PROTOCOL => Ok(()),
                later => Err(PickleError::Protocol(later)),
            },
            0x95 => self.take(8).map(drop), // FRAME: a hint for readers of streams
            // Constants
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'I' => self.int_line(),
            b'J' => self.array().and_then(|b| self.push(Value::Int(i32::from_le_bytes(b).into()))),
            b'K' => self.byte().and_then(|b| self.push(Value::Int(b.into()))),
            b'M' => self.array().and_then(|b| self.push(Value::Int(u16::from_le_bytes(b).into()))),
            0x8a => self.long1(),
            b'G' => self.array().and_then(|b| self.push(Value::Float(f64::from_be_bytes(b)))),
            // Text and bytes, by the width of their length
            b'X' | b'T' => self.array().and_then(|b| self.text(u32::from_le_bytes(b).into())),
            0x8c | b'U' => self.byte().and_then(|n| self.text(n.into())),
            0x8d => self.array().and_then(|b| self.text(u64::from_le_bytes(b))),
            b'B' => self.array().and_then(|b| self.opaque(u32::from_le_bytes(b).into())),
            b'C' => self.byte().and_then(|n| self.opaque(n.into())),
            // Containers
            b'(' => self.mark(),
            b')' => self.tuple(Vec::new()),
            b't' => self.pop_mark().and_then(|items| self.tuple(items)),
            0x85..=0x87 => self.short_tuple(usize::from(opcode - 0x84)),
            b']' => self.list(Vec::new()),
            b'l' => self.pop_mark().and_then(|items| self.list(items)),
            b'a' => self.pop().and_then(|item| self.append(vec![item])),
            b'e' => self.pop_mark().and_then(|items| self.append(items)),
            b'}' => self.dict(),
            b'd' => self.pop_mark().and_then(|items| self.dict().and_then(|()| self.set_items(&items))),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => self.pop_mark().and_then(|items| self.set_items(&items)),
            // Memo
            b'q' => self.byte().and_then(|i| self.put(i.into())),
            b'r' => self.array().and_then(|b| self.put(u32::from_le_bytes(b))),
            0x94 => u32::try_from(self.memo.len()).map_err(|_| self.too_large()).and_then(|i| self.put(i)),
            b'h' => self.byte().and_then(|i| self.get(i.into())),
            b'j' => self.array().and_then(|b| self.get(u32::from_le_bytes(b))),
            // Objects
            b'c' => self.global(),
            0x93 => self.stack_global(),
            b'R' => self.reduce(),
            b'b' => self.build(),
            b'Q' => self.persistent_id(),
            _ => Err(PickleError::Opcode { opcode, at: self.opcode_at }),
        }
    }

    // --- reading ---

    fn malformed(&self, what: &'static str) -> PickleError {
        PickleError::Malformed { at: self.opcode_at, what }
    }

    fn too_large(&self) -> PickleError {
        PickleError::TooLarge(MAX_VALUES)
    }

    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let end = end.ok_or(PickleError::Truncated(self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Step<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// Text up to a line feed, which is not part of it.
    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|&b| b == b'\n').ok_or(PickleError::Truncated(self.bytes.len()))?;
        self.at += n + 1;
        std::str::from_utf8(&rest[..n]).map_err(|_| self.malformed("a line is not UTF-8"))
    }

    // --- the stack ---

    fn push(&mut self, value: Value) -> Step {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn mark(&mut self) -> Step {
        self.count()?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop(&mut self) -> Step<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(|| self.malformed("the stack is empty")),
            false => Err(self.malformed("the stack is empty")),
        }
    }

    fn top(&self) -> Step<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[Value]>::last).copied().ok_or_else(|| self.malformed("the stack is empty"))
    }

    fn pop_mark(&mut self) -> Step<Vec<Value>> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("there is no MARK"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// Counts one more value against the limit.
    fn count(&mut self) -> Step {
        self.count_more(1)
    }

    fn count_more(&mut self, n: usize) -> Step {
        self.values += n;
        if self.values > MAX_VALUES { Err(self.too_large()) } else { Ok(()) }
    }

    // --- constants ---

    fn int_line(&mut self) -> Step {
        let value = match self.line()? {
            "00" => Value::Bool(false),
            "01" => Value::Bool(true),
            digits => Value::Int(digits.parse().map_err(|_| self.malformed("INT is no 64-bit number"))?),
        };
        self.push(value)
    }

    /// LONG1: a little-endian two's complement number of up to 255 bytes, of which 8 are read.
    fn long1(&mut self) -> Step {
        let n = self.byte()?;
        let raw = self.take(n.into())?;
        let negative = raw.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let Some(low) = wide.get_mut(..raw.len()) else {
            return Err(self.malformed("LONG1 is no 64-bit number"));
        };
        low.copy_from_slice(raw);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, len: u64) -> Step {
        let start = self.at;
        let raw = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        if raw.len() > MAX_NAME {
            return self.push(Value::Opaque);
        }
        std::str::from_utf8(raw).map_err(|_| self.malformed("a text is not UTF-8"))?;
        self.push(Value::Text(Span { start, end: self.at }))
    }

    /// Bytes are allowed to be there, but nothing needs them.
    fn opaque(&mut self, len: u64) -> Step {
        self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        self.push(Value::Opaque)
    }

    // --- containers ---

    fn tuple(&mut self, items: Vec<Value>) -> Step {
        self.count()?;
        self.out.tuples.push(items);
        self.push(Value::Tuple(self.out.tuples.len() - 1))
    }

    fn short_tuple(&mut self, n: usize) -> Step {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.tuple(items)
    }

    fn list(&mut self, items: Vec<Value>) -> Step {
        self.count()?;
        self.out.lists.push(items);
        self.push(Value::List(self.out.lists.len() - 1))
    }

    fn append(&mut self, items: Vec<Value>) -> Step {
        match self.top()? {
            Value::List(i) => self.out.lists[i].extend(items),
            _ => return Err(self.malformed("APPEND to what is no list")),
        }
        Ok(())
    }

    fn dict(&mut self) -> Step {
        self.count()?;
        self.out.dicts.push(Vec::new());
        self.push(Value::Dict(self.out.dicts.len() - 1))
    }

    fn set_items(&mut self, items: &[Value]) -> Step {
        let Value::Dict(i) = self.top()? else {
            return Err(self.malformed("SETITEM on what is no dict"));
        };
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(self.malformed("a key without a value"));
        }
        self.out.dicts[i].extend(pairs.map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    /// A dictionary of a list's pairs.
    fn dict_of(&mut self, list: usize) -> Step {
        let pairs = self.out.lists[list].iter().map(|&pair| match pair {
            Value::Tuple(i) => self.out.tuples[i].as_slice(),
            Value::List(i) => self.out.lists[i].as_slice(),
            _ => &[],
        });
        let pairs: Option<Vec<(Value, Value)>> =
            pairs.map(|pair| if let &[key, value] = pair { Some((key, value)) } else { None }).collect();
        let pairs = pairs.ok_or_else(|| self.malformed("OrderedDict of what are no pairs"))?;
        // A list may serve any number of times, and each gets a copy.
        self.count_more(pairs.len())?;
        self.dict()?;
        if let Some(dict) = self.out.dicts.last_mut() {
            *dict = pairs;
        }
        Ok(())
    }

    // --- memo ---

    fn put(&mut self, index: u32) -> Step {
        self.count()?;
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn get(&mut self, index: u32) -> Step {
        match self.memo.get(&index) {
            Some(&value) => self.push(value),
            None => Err(self.malformed("a memo entry that was never put")),
        }
    }

    // --- objects ---

    fn global(&mut self) -> Step {
        let (module, name) = (self.line()?, self.line()?);
        self.find_global(module, name)
    }

    fn stack_global(&mut self) -> Step {
        match (self.pop()?, self.pop()?) {
            (Value::Text(n), Value::Text(m)) => {
                let (module, name) = (text(self.bytes, m.start..m.end), text(self.bytes, n.start..n.end));
                self.find_global(module, name)
            }
            _ => Err(self.malformed("STACK_GLOBAL without two texts")),
        }
    }

    fn find_global(&mut self, module: &str, name: &str) -> Step {
        match Global::find(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => {
                // The name is the file's own and may be anything: keep the message short and on one line.
                let full = format!("{module}.{name}");
                let name = full.chars().take(80).flat_map(char::escape_default).collect();
                Err(PickleError::Global { name, at: self.opcode_at })
            }
        }
    }

    /// REDUCE calls a function in Python; here it builds what the three known functions would give.
    fn reduce(&mut self) -> Step {
        let (args, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(args), Value::Global(function)) = (args, function) else {
            return Err(self.malformed("REDUCE of what is no known function"));
        };
        match (function, self.out.tuples[args].as_slice()) {
            (Global::OrderedDict, []) => self.dict(),
            // Python 2 gives a list of pairs.
            (Global::OrderedDict, &[Value::List(pairs)]) => self.dict_of(pairs),
            (Global::OrderedDict, _) => Err(self.malformed("OrderedDict with arguments")),
            // (tensor, requires_grad, hooks)
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), _, _]) => self.push(tensor),
            (Global::RebuildParameter, _) => Err(self.malformed("_rebuild_parameter with other arguments")),
            // (storage, offset, shape, strides, requires_grad, hooks[, metadata])
            (
                Global::RebuildTensor,
                &[Value::Storage(s), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides), _, _]
                | &[Value::Storage(s), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides), _, _, _],
            ) => self.tensor(s, offset, shape, strides),
            (
                Global::RebuildTensorV1,
                &[Value::Storage(s), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides)],
            ) => self.tensor(s, offset, shape, strides),
            (Global::RebuildTensorV1, _) => Err(self.malformed("_rebuild_tensor with other arguments")),
            (Global::RebuildTensor, _) => Err(self.malformed("_rebuild_tensor_v2 with other arguments")),
            (Global::StorageType(_), _) => Err(self.malformed("a storage class is called")),
        }
    }

    fn tensor(&mut self, storage: usize, offset: i64, shape: usize, strides: usize) -> Step {
        // One memoised shape may serve any number of tensors, and each gets a copy: the axes count too.
        self.count_more(1 + self.out.tuples[shape].len())?;
        let axes = |m: &Self, tuple: usize| -> Step<Vec<usize>> {
            let items = &m.out.tuples[tuple];
            if items.len() > MAX_AXES {
                return Err(m.malformed("a tensor with more than 64 axes"));
            }
            let number = |v: &Value| match v {
                Value::Int(i) => usize::try_from(*i).ok(),
                _ => None,
            };
            let numbers: Option<Vec<usize>> = items.iter().map(number).collect();
            numbers.ok_or_else(|| m.malformed("a shape or stride that is no number from 0"))
        };
        let (shape, strides) = (axes(self, shape)?, axes(self, strides)?);
        if shape.len() != strides.len() {
            return Err(self.malformed("shape and strides have different lengths"));
        }
        let offset = usize::try_from(offset).map_err(|_| self.malformed("a negative storage offset"))?;
        let storage = self.out.storages[storage];
        self.out.tensors.push(TensorRecord { storage, offset, shape, strides });
        self.push(Value::Tensor(self.out.tensors.len() - 1))
    }

    /// BUILD sets attributes in Python. An `OrderedDict` of PyTorch carries `_metadata`, which no weight needs.
    fn build(&mut self) -> Step {
        let (state, object) = (self.pop()?, self.top()?);
        match (state, object) {
            (Value::Dict(_) | Value::None, Value::Dict(_)) => Ok(()),
            _ => Err(self.malformed("BUILD on what is no OrderedDict")),
        }
    }

    /// BINPERSID: `("storage", StorageType, key, location, number of elements)`. Files without a zip add `None`, where a storage that is
    /// part of another would say which part.
    fn persistent_id(&mut self) -> Step {
        let what = "a persistent id that is no storage";
        let Value::Tuple(id) = self.pop()? else {
            return Err(self.malformed(what));
        };
        match *self.out.tuples[id].as_slice() {
            [
                Value::Text(tag),
                Value::Global(Global::StorageType(dtype)),
                Value::Text(key),
                Value::Text(_),
                Value::Int(len),
            ]
            | [
                Value::Text(tag),
                Value::Global(Global::StorageType(dtype)),
                Value::Text(key),
                Value::Text(_),
                Value::Int(len),
                Value::None,
            ] if text(self.bytes, tag.start..tag.end) == "storage" => {
                self.count()?;
                let len = usize::try_from(len).map_err(|_| self.malformed("a storage of negative length"))?;
                self.out.storages.push(Storage { dtype, key, len });
                self.push(Value::Storage(self.out.storages.len() - 1))
            }
            _ => Err(self.malformed(what)),
        }
    }
}
