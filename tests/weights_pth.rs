//! PyTorch checkpoints assembled by hand: views, refusals, broken files.

mod weights_files;

use radiograd::rng::{Rng, Stream};
use radiograd::weights::{FormatError, NamedTensor, TensorData, from_bytes, load};
use weights_files::{Pickler, View, checkpoint, f32s};
use zip::CompressionMethod::{Deflated, Stored};

const X: View<'static> =
    View { name: "x", storage: "FloatStorage", key: "0", len: 6, offset: 0, shape: &[2, 3], strides: &[3, 1] };

fn six() -> Vec<u8> {
    f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
}

fn read_views(views: &[View<'_>]) -> Result<Vec<NamedTensor>, FormatError> {
    let pickle = Pickler::new().state_dict(views).stop();
    from_bytes(&checkpoint(&pickle, &[("data/0", &six()), ("version", b"3\n")], Stored)).map(|f| f.tensors)
}

fn message(pickle: Vec<u8>) -> String {
    let text = from_bytes(&checkpoint(&pickle, &[("data/0", &six())], Stored)).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn views_of_one_storage_keep_their_order_and_elements() {
    let views = [
        View { name: "z", ..X },
        View { name: "transposed", shape: &[3, 2], strides: &[1, 3], ..X },
        View { name: "column", offset: 1, shape: &[2, 1], strides: &[3, 1], ..X },
        View { name: "scalar", offset: 5, shape: &[], strides: &[], ..X },
        View { name: "repeated", offset: 4, shape: &[2, 3], strides: &[0, 0], ..X },
        View { name: "empty", offset: 6, shape: &[0, 4], strides: &[4, 1], ..X },
        View { name: "every other", shape: &[3], strides: &[2], ..X },
    ];
    let want: [(&str, &[f32]); 7] = [
        ("z", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        ("transposed", &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        ("column", &[1.0, 4.0]),
        ("scalar", &[5.0]),
        ("repeated", &[4.0; 6]),
        ("empty", &[]),
        ("every other", &[0.0, 2.0, 4.0]),
    ];
    let tensors = read_views(&views).unwrap();
    assert_eq!(tensors.len(), views.len());
    for ((t, v), (name, data)) in tensors.iter().zip(&views).zip(want) {
        assert_eq!(t.name, name);
        assert_eq!(t.data, TensorData::F32(data.to_vec()), "{name}");
        assert_eq!(t.shape, v.shape.iter().map(|&d| d as usize).collect::<Vec<_>>());
    }
}

#[test]
fn every_storage_type_is_converted() {
    let halves = |bits: [u16; 2]| bits.map(u16::to_le_bytes).concat();
    let cases: [(&str, Vec<u8>, TensorData); 10] = [
        ("FloatStorage", f32s(&[1.5, -2.0]), TensorData::F32(vec![1.5, -2.0])),
        ("HalfStorage", halves([0x3e00, 0xc000]), TensorData::F32(vec![1.5, -2.0])),
        ("BFloat16Storage", halves([0x3fc0, 0xc000]), TensorData::F32(vec![1.5, -2.0])),
        ("DoubleStorage", [1.5f64, -2.0].map(f64::to_le_bytes).concat(), TensorData::F32(vec![1.5, -2.0])),
        ("LongStorage", [7i64, -2].map(i64::to_le_bytes).concat(), TensorData::I64(vec![7, -2])),
        ("IntStorage", [7i32, -2].map(i32::to_le_bytes).concat(), TensorData::I64(vec![7, -2])),
        ("ShortStorage", [7i16, -2].map(i16::to_le_bytes).concat(), TensorData::I64(vec![7, -2])),
        ("CharStorage", vec![7, 0xfe], TensorData::I64(vec![7, -2])),
        ("ByteStorage", vec![7, 0xfe], TensorData::U8(vec![7, 0xfe])),
        ("BoolStorage", vec![1, 0], TensorData::U8(vec![1, 0])),
    ];
    for (storage, bytes, want) in cases {
        let view = View { storage, len: 2, shape: &[2], strides: &[1], ..X };
        let pickle = Pickler::new().state_dict(&[view]).stop();
        for method in [Stored, Deflated] {
            let file = checkpoint(&pickle, &[("data/0", &bytes), ("byteorder", b"little")], method);
            assert_eq!(from_bytes(&file).unwrap().tensors[0].data, want, "{storage}");
        }
    }
}

#[test]
fn big_endian_files_are_read_and_other_orders_refused() {
    let pickle = Pickler::new().state_dict(&[X]).stop();
    let big: Vec<u8> = (0u8..6).flat_map(|i| f32::from(i).to_be_bytes()).collect();
    let file = from_bytes(&checkpoint(&pickle, &[("data/0", &big), ("byteorder", b"big")], Stored)).unwrap();
    assert_eq!(file.tensors[0].data, TensorData::F32(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    let error = from_bytes(&checkpoint(&pickle, &[("data/0", &big), ("byteorder", b"middle")], Stored)).unwrap_err();
    assert!(error.to_string().contains("middle"), "{error}");
}

#[test]
fn state_dicts_inside_training_checkpoints_are_found() {
    for key in ["state_dict", "model_state_dict", "model"] {
        let pickle = Pickler::new().raw(b"}(").text("epoch").int(3).text(key).state_dict(&[X]).raw(b"u").stop();
        let file = from_bytes(&checkpoint(&pickle, &[("data/0", &six())], Stored)).unwrap();
        assert_eq!(file.tensors.len(), 1, "{key}");
        assert_eq!(file.tensors[0].name, "x");
    }
    // Protocol 4: frames, short texts, memoised globals taken from the stack; a parameter around the tensor.
    let pickle = Pickler(vec![0x80, 4, 0x95, 0, 0, 0, 0, 0, 0, 0, 0])
        .raw(b"}\x94\x8c\x01w\x94\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_parameter\x94\x93\x94(")
        .tensor(&X)
        .raw(b"\x88")
        .ordered_dict()
        .raw(b"tRs")
        .stop();
    let file = from_bytes(&checkpoint(&pickle, &[("data/0", &six())], Stored)).unwrap();
    assert_eq!(file.tensors[0].name, "w");
    assert_eq!(file.tensors[0].shape, [2, 3]);
}

#[test]
fn a_key_set_again_takes_the_new_value() {
    let views =
        [View { offset: 1, shape: &[1], strides: &[1], ..X }, View { offset: 4, shape: &[1], strides: &[1], ..X }];
    let tensors = read_views(&views).unwrap();
    assert_eq!(tensors.len(), 1);
    assert_eq!(tensors[0].data, TensorData::F32(vec![4.0]));
}

#[test]
fn code_is_refused_by_name() {
    for (module, name) in [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("collections", "Counter")] {
        let text = message(Pickler::new().global(module, name).raw(b"(").text("echo").raw(b"tR").stop());
        assert!(text.contains(&format!("`{module}.{name}`")), "{text}");
        let stacked = Pickler::new().text(module).text(name).raw(b"\x93.").0;
        assert!(message(stacked).contains(&format!("`{module}.{name}`")));
    }
    // A name made to break the terminal or the line.
    let text = message(Pickler::new().text("os\u{1b}[2J\n").text("x").raw(b"\x93.").0);
    assert!(!text.contains('\u{1b}'), "{text}");
    let (opcode, protocol) = (message(Pickler::new().raw(b"}\x81.").0), message(vec![0x80, 6, b'N', b'.']));
    assert!(opcode.contains("0x81") && opcode.contains("byte 3"), "{opcode}");
    assert!(protocol.contains("protocol 6"), "{protocol}");
    for byte in 0..=255u8 {
        // Whatever the opcode, an answer comes.
        let _ = from_bytes(&checkpoint(&[0x80, 2, b'(', byte, b'.'], &[], Stored));
    }
}

#[test]
fn tensors_that_leave_their_storage_are_refused() {
    let big = u32::MAX >> 1;
    let views = [
        View { offset: 1, ..X },
        View { offset: big, ..X },
        View { strides: &[4, 1], ..X },
        View { strides: &[big, big], ..X },
        View { len: 5, ..X },
        View { shape: &[3, 3], ..X },
        View { offset: 6, shape: &[], strides: &[], ..X },
    ];
    for (i, view) in views.into_iter().enumerate() {
        let text = read_views(&[view]).unwrap_err().to_string();
        assert!(text.contains("`x`") && text.contains("storage"), "{i}: {text}");
    }
    let missing = read_views(&[View { key: "../0", ..X }]).unwrap_err().to_string();
    assert!(missing.contains("data/../0"), "{missing}");
}

#[test]
fn what_would_fill_the_memory_is_refused() {
    // 2^60 elements out of one.
    let text = read_views(&[View { shape: &[1 << 30, 1 << 30], strides: &[0, 0], ..X }]).unwrap_err().to_string();
    assert!(text.contains("limit"), "{text}");
    // Overflowing shapes; axes of length 0 make them empty, not large.
    let max = i32::MAX as u32;
    assert!(read_views(&[View { shape: &[max; 4], strides: &[0; 4], ..X }]).is_err());
    let empty = read_views(&[View { shape: &[max, max, max, 0], strides: &[0; 4], ..X }]).unwrap();
    assert!(empty[0].data.is_empty());
    // 16 MB of zeros in 16 kB.
    let zeros = vec![0; 16 << 20];
    let pickle = Pickler::new().state_dict(&[X]).stop();
    let text = from_bytes(&checkpoint(&pickle, &[("data/0", &zeros)], Deflated)).unwrap_err().to_string();
    assert!(text.contains("limit") && text.contains("data/0"), "{text}");
    // Three entries, each of which would do, but which together are more than the file can honestly hold.
    let keys = ["0", "1", "2"];
    let views = keys.map(|key| View { name: key, key, ..X });
    let pickle = Pickler::new().state_dict(&views).stop();
    let half = &zeros[..75 << 10];
    let file = checkpoint(&pickle, &[("data/0", half), ("data/1", half), ("data/2", half)], Deflated);
    let text = from_bytes(&file).unwrap_err().to_string();
    assert!(text.contains("limit") && text.contains("data/1"), "{text}");
}

#[test]
fn pickles_that_hold_themselves_or_nothing_useful_are_refused() {
    // d = {}; d["state_dict"] = d
    let text = message(Pickler::new().raw(b"}q\x00").text("state_dict").raw(b"h\x00s.").0);
    assert!(text.contains("`state_dict`") && text.contains("a dict"), "{text}");
    // l = [l, l], nested ten thousand times.
    let nested = (0..10_000).fold(Pickler::new().raw(b"]q\x00h\x00a"), |p, _| p.raw(b"\x85")).stop();
    assert!(message(nested).contains("a tuple"));
    assert!(message(Pickler::new().raw(b"}.").0).contains("empty"));
    assert!(message(Pickler::new().raw(b"}").text("epoch").int(3).raw(b"s.").0).contains("`epoch`"));
    assert!(message(Pickler::new().raw(b"}").int(3).int(3).raw(b"s.").0).contains("an int"));
    assert!(message(Pickler::new().text("hello").stop()).contains("a str"));
    // Half a million values and more are refused before they fill the memory.
    for opcode in *b"]N(}" {
        assert!(message(Pickler::new().raw(&vec![opcode; 600_000]).stop()).contains("values"));
    }
    assert!(message(Pickler::new().raw(b"N").raw(&b"q\x00".repeat(600_000)).stop()).contains("values"));
}

#[test]
fn other_files_are_told_apart() {
    let text = |bytes: &[u8]| from_bytes(bytes).unwrap_err().to_string();
    assert!(text(b"").contains("empty"));
    assert!(text(b"\x80\x02}.").contains("re-save"));
    assert!(text(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").contains("truncated"));
    assert!(text(b"hello, this is text").contains("neither"));
    assert!(text(&checkpoint(b"N.", &[], Stored)).contains("None"));
    let dir = tempfile::tempdir().unwrap();
    assert!(load(dir.path()).unwrap_err().to_string().contains("not a regular file"));
    let path = dir.path().join("absent.pth");
    assert!(load(&path).unwrap_err().to_string().contains("absent.pth"));
    std::fs::write(&path, b"PK\x03\x04 and nothing else").unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert!(error.contains("absent.pth") && error.contains("zip"), "{error}");
}

/// What `torch.save` wrote before 1.6.
fn legacy_file(object: Vec<u8>, keys: &[&str], storages: &[&[u8]]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    file.extend(Pickler::new().raw(b"M\xe9\x03").stop());
    file.extend(Pickler::new().raw(b"}(").text("little_endian").raw(b"\x88u").stop());
    file.extend(object);
    file.extend(keys.iter().fold(Pickler::new().raw(b"]("), |p, key| p.text(key)).raw(b"e").stop());
    for bytes in storages {
        file.extend((bytes.len() as u64 / 4).to_le_bytes());
        file.extend_from_slice(bytes);
    }
    file
}

/// `x` out of the storage `7`, as PyTorch 0.3 under Python 2 describes it: an `OrderedDict` of a list of pairs.
fn oldest_object() -> Vec<u8> {
    Pickler::new()
        .global("collections", "OrderedDict")
        .raw(b"](](U\x01x")
        .global("torch._utils", "_rebuild_tensor")
        .raw(b"((")
        .text("storage")
        .global("torch", "FloatStorage")
        .text("7")
        .text("cpu")
        .int(6)
        .raw(b"NtQ")
        .int(2)
        .ints(&[2, 2])
        .ints(&[2, 1])
        .raw(b"tRee\x85R")
        .stop()
}

#[test]
fn files_of_before_the_zip_are_read_too() {
    let file = from_bytes(&legacy_file(oldest_object(), &["7"], &[&six()])).unwrap();
    assert_eq!((file.tensors[0].name.as_str(), file.tensors[0].shape.as_slice()), ("x", &[2, 2][..]));
    assert_eq!(file.tensors[0].data, TensorData::F32(vec![2.0, 3.0, 4.0, 5.0]));
    for (keys, storages, word) in [
        (&["7"][..], &[&six()[..23]][..], "reaches beyond"),
        (&["8"][..], &[&six()[..]][..], "unknown type"),
        (&[][..], &[][..], "lacks a storage"),
    ] {
        let text = from_bytes(&legacy_file(oldest_object(), keys, storages)).unwrap_err().to_string();
        assert!(text.contains(word) && !text.contains('\n'), "{text}");
    }
    let whole = legacy_file(oldest_object(), &["7"], &[&six()]);
    for n in 0..whole.len() {
        let text = from_bytes(&whole[..n]).expect_err(&format!("{n} bytes")).to_string();
        assert!(!text.contains('\n'), "{n}: {text}");
    }
    let code = Pickler::new().global("os", "system").raw(b"(").text("echo").raw(b"tR").stop();
    let text = from_bytes(&legacy_file(code, &[], &[])).unwrap_err().to_string();
    assert!(text.contains("`os.system`"), "{text}");
}

fn whole_file() -> Vec<u8> {
    let transposed = View { name: "y", shape: &[3, 2], strides: &[1, 3], ..X };
    let pickle = Pickler::new().state_dict(&[X, transposed]).stop();
    checkpoint(&pickle, &[("data/0", &six()), ("byteorder", b"little")], Stored)
}

#[test]
fn every_truncation_is_an_error() {
    let file = whole_file();
    for n in 0..file.len() {
        let text = from_bytes(&file[..n]).expect_err(&format!("{n} bytes")).to_string();
        assert!(!text.contains('\n'), "{n}: {text}");
    }
    // The same for the pickle inside a sound archive.
    let pickle = Pickler::new().state_dict(&[X]).stop();
    for n in 0..pickle.len() {
        assert!(from_bytes(&checkpoint(&pickle[..n], &[("data/0", &six())], Stored)).is_err(), "{n} bytes of pickle");
    }
}

#[test]
fn damaged_files_never_panic_and_never_give_wrong_sizes() {
    let file = whole_file();
    let pickle = Pickler::new().state_dict(&[X]).stop();
    let mut rng = Rng::new(20, 0, Stream::Sample as u32);
    let mut refused = 0;
    for round in 0..6000 {
        let inside = round % 2 == 0;
        let mut bytes = if inside { pickle.clone() } else { file.clone() };
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u32) as usize;
            match rng.below(4) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes[at] = rng.next_u32() as u8,
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.next_u32() as u8),
            }
        }
        let bytes = if inside { checkpoint(&bytes, &[("data/0", &six())], Stored) } else { bytes };
        match from_bytes(&bytes) {
            Ok(read) => {
                for t in read.tensors {
                    assert_eq!(t.shape.iter().product::<usize>(), t.data.len(), "round {round}");
                }
            }
            Err(e) => {
                assert!(!e.to_string().contains('\n'), "round {round}: {e}");
                refused += 1;
            }
        }
    }
    assert!(refused > 3000, "{refused}");
}
