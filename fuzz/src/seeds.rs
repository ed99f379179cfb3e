//! Valid inputs to begin with, small and made here.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use image::codecs::gif::GifEncoder;
use image::{DynamicImage, Frame, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use radiograd::train::TrainConfig;
use radiograd::weights::{NamedTensor, TensorData, safetensors};
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::SimpleFileOptions;

#[path = "../../tests/weights_files/mod.rs"]
pub mod weights_files;

use weights_files::{Pickler, View, checkpoint, f32s};

/// The seeds of a target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "safetensors" => vec![a_safetensors_file()],
        "pth" => vec![a_checkpoint(Stored), a_checkpoint(Deflated), a_legacy_file()],
        "pickle" => vec![a_pickle()],
        "npz" => vec![npz_of(&arrays())],
        "npz_arrays" => (0..6).map(|i| [&[i as u8], &arrays()[i].1[..]].concat()).collect(),
        "image" => images(),
        "config" => configs(),
        "grid" => grids(),
        "chain" => chains(),
        "chain_words" => vec![
            b"\x20\x00\x15\x09\x15\x03\x15\x10\x15\x11".to_vec(),
            b"\x10\x3b\x00\x15\x09\x1a\x15\x06\x15\x10\x15\x11".to_vec(),
        ],
        "predictions" => vec![
            b"split,image,patient,label,p:a,p:b\ntest,x,p1,a,0.25,0.75\ntest,\"y, \"\"z\"\"\",p2,b,1e-9,0.999999999\n"
                .to_vec(),
            b"split,image,patient,label,p:NORMAL,p:b,p:c\nval,1,1,c,0.5,0.25,0.25\ntest,1,1,b,0,1,0\n".to_vec(),
        ],
        "journal" => vec![journal()],
        _ => Vec::new(),
    }
}

/// A small network in safetensors.
fn a_safetensors_file() -> Vec<u8> {
    let tensor = |name: &str, shape: &[usize], data| NamedTensor { name: name.into(), shape: shape.into(), data };
    let tensors = [
        tensor("conv1.weight", &[2, 3], TensorData::F32((0..6).map(|i| i as f32 * 0.25).collect())),
        tensor("bn1.num_batches_tracked", &[], TensorData::I64(vec![12])),
        tensor("mask", &[3], TensorData::U8(vec![0, 1, 2])),
        tensor("none", &[0, 7], TensorData::F32(Vec::new())),
    ];
    let metadata = BTreeMap::from([("radiograd.classes".to_owned(), "[\"a\", \"b\"]".to_owned())]);
    safetensors::to_bytes(&tensors, &metadata).expect("a file")
}

const VIEWS: [View<'static>; 3] = [
    View { name: "w", storage: "FloatStorage", key: "0", len: 6, offset: 0, shape: &[2, 3], strides: &[3, 1] },
    View { name: "turned", storage: "FloatStorage", key: "0", len: 6, offset: 0, shape: &[3, 2], strides: &[1, 3] },
    View { name: "steps", storage: "LongStorage", key: "1", len: 1, offset: 0, shape: &[], strides: &[] },
];

fn a_pickle() -> Vec<u8> {
    Pickler::new().state_dict(&VIEWS).stop()
}

fn a_checkpoint(method: zip::CompressionMethod) -> Vec<u8> {
    let six = f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    checkpoint(&a_pickle(), &[("data/0", &six), ("data/1", &7i64.to_le_bytes()), ("byteorder", b"little")], method)
}

/// A checkpoint of before PyTorch 1.6.
fn a_legacy_file() -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    file.extend(Pickler::new().raw(b"M\xe9\x03").stop());
    file.extend(Pickler::new().raw(b"}(").text("little_endian").raw(b"\x88u").stop());
    file.extend(a_pickle());
    file.extend(Pickler::new().raw(b"](").text("0").text("1").raw(b"e").stop());
    file.extend(6u64.to_le_bytes());
    file.extend(f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    file.extend(1u64.to_le_bytes());
    file.extend(7i64.to_le_bytes());
    file
}

/// A `.npy` array.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The arrays of a small MedMNIST file.
#[must_use]
pub fn arrays() -> Vec<(&'static str, Vec<u8>)> {
    let pixels = |n: usize| (0..n).map(|i| (i * 37 % 251) as u8).collect::<Vec<u8>>();
    vec![
        ("train_images", npy("|u1", "4, 5, 6", &pixels(120))),
        ("train_labels", npy("|u1", "4, 1", &[0, 1, 0, 1])),
        ("val_images", npy("|u1", "2, 3, 3, 3", &pixels(54))),
        ("val_labels", npy(">i8", "2,", &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("test_images", npy("|u1", "2, 6, 5", &pixels(60))),
        ("test_labels", npy("<u2", "2, 1", &[1, 0, 0, 0])),
    ]
}

/// An archive of arrays.
#[must_use]
pub fn npz_of(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (i, (key, bytes)) in arrays.iter().enumerate() {
        let method = if i % 2 == 0 { Stored } else { Deflated };
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("{key}.npy"), options).expect("an entry");
        zip.write_all(bytes).expect("an array");
    }
    zip.finish().expect("an archive").into_inner()
}

/// Images in every format that is read, and most ways to hold pixels.
#[must_use]
pub fn images() -> Vec<Vec<u8>> {
    let encode = |image: DynamicImage, format| {
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, format).expect("an image");
        out.into_inner()
    };
    let rgb = RgbImage::from_fn(9, 7, |x, y| Rgb([(x * 25) as u8, (y * 30) as u8, 90]));
    let rgba = RgbaImage::from_fn(9, 7, |x, y| Rgba([(x * 25) as u8, (y * 30) as u8, 90, (x * y) as u8]));
    let grey16 = ImageBuffer::<Luma<u16>, _>::from_fn(9, 7, |x, y| Luma([(x * 7000 + y) as u16]));
    let float = image::Rgb32FImage::from_fn(5, 3, |x, y| Rgb([x as f32 * 0.1, y as f32 * 0.3, 2.0]));
    let grey = DynamicImage::ImageRgb8(rgb.clone()).into_luma8();
    let mut all: Vec<Vec<u8>> =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP]
            .into_iter()
            .map(|format| encode(rgb.clone().into(), format))
            .collect();
    all.push(encode(grey.clone().into(), ImageFormat::Jpeg));
    all.push(encode(grey.into(), ImageFormat::Png));
    all.push(encode(grey16.clone().into(), ImageFormat::Png));
    all.push(encode(grey16.into(), ImageFormat::Tiff));
    all.push(encode(float.into(), ImageFormat::Tiff));
    all.push(encode(rgba.clone().into(), ImageFormat::Png));
    all.push(encode(rgba.clone().into(), ImageFormat::WebP));
    all.push(animated_gif(&rgba));
    all
}

/// Two frames.
#[must_use]
pub fn animated_gif(frame: &RgbaImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    let mut second = frame.clone();
    second.pixels_mut().for_each(|p| p.0[0] = 255 - p.0[0]);
    encoder.encode_frames([Frame::new(frame.clone()), Frame::new(second)]).expect("frames");
    drop(encoder);
    bytes
}

fn configs() -> Vec<Vec<u8>> {
    let text = TrainConfig::default().to_toml().expect("a config");
    let other = "data = 'x'\nmodel = 'conv8-relu-pool-flatten-dense2'\nmean = [0.5]\nstd = [0.2]\nsampler = 'balanced'\n\
        class_weights = { values = [1, 2.5] }\noptimizer = 'sgd:momentum=0.9'\nexclude_patients = ['a']\n\
        schedule = { name = 'warmup', total_iters = 3, then = { name = 'step', step_size = 3, gamma = 0.5 } }\n\
        fold = { index = 1, of = 5 }\naugment = { flip = 0.5, rotate = 10.0 }\nkey_map = ['a=b']\ninit = 'resnet18'\n\
        [[stages]]\nepochs = 1\nfreeze = ['conv*']\nlr = 1e-3\n[[stages]]\nepochs = 2\n";
    vec![text.into_bytes(), other.into()]
}

fn grids() -> Vec<Vec<u8>> {
    let list = "[base]\nepochs = 2\nmodel = 'flatten-dense{units}-{act}-dense2'\n[grid]\nlr = [0.1, 0.01]\n\
        optimizer.weight_decay = [0, 0.1]\noptimizer.name = ['adam', 'sgd']\n[vars]\nunits = [12, 20]\nact = ['relu', 'elu']\n";
    let drawn = "[base]\nmodel = 'flatten-dense{units}-dense2'\n[grid]\nlr = { min = 1e-4, max = 1e-1, log = true }\n\
        [vars]\nunits = { min = 4, max = 64 }\n[search]\nmethod = 'random'\ntrials = 10\nseed = 1\nmetric = 'val_auc'\n";
    let halving = "[grid]\nlr = [0.1, 0.2, 0.3]\n[search]\nmethod = 'halving'\nmin_epochs = 1\nmax_epochs = 9\neta = 3\nseeds = 2\n";
    [list, drawn, halving].map(|text| text.as_bytes().to_vec()).into()
}

fn chains() -> Vec<Vec<u8>> {
    let texts = [
        "conv16-relu-pool-conv32k5s2-bn-relu-pool-flatten-dense64-relu-dropout0.5-dense2",
        "stem=conv8k3x5s2p1x2nb-bn-lrelu0.1-maxpool3s2p1-2x[[conv8-bn-relu-conv8-bn]+-relu]-gap-flatten-dense2zb",
        "initout-conv8d2-3x[bn-relu-conv4]++-block1=[conv32s2-bn]+[conv32k1s2-bn]-adaptive3x2-elu-flatten-dense2nb",
        "conv4g1-sigmoid-avgpool2s1-tanh-initin-conv8g4-softmax-flatten-dense2",
        "resnet18",
        "densenet121",
    ];
    texts.iter().map(|text| [&[40, 0], text.as_bytes()].concat()).collect()
}

fn journal() -> Vec<u8> {
    let done = r#"{"id":"0123456789abcdef","settings":{"lr":"0.1"},"seed":3,"epochs":2,"status":"done","best_epoch":1,"val_loss":0.5,"val_accuracy":0.9,"val_auc":null,"parameters":12,"seconds":1.5,"data":"ab"}"#;
    let failed =
        r#"{"id":"f","settings":{},"seed":0,"epochs":1,"status":"failed","reason":"no","seconds":0.0,"data":""}"#;
    format!("{done}\n{failed}\n{{\"torn").into_bytes()
}
