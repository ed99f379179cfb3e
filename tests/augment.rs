//! Augmentation on real devices: whole pictures from one seed on CPU and GPU, and the contact sheet of `data preview`.

#[path = "common/mod.rs"]
mod common;
#[path = "common/program.rs"]
mod program;

use std::sync::Arc;

use radiograd::cpu;
use radiograd::data::{CachePolicy, Images, LoadOptions, Source, load};
use radiograd::exec::Executor;
use radiograd::gpu::Options;
use radiograd::graph::Graph;
use radiograd::ops::augment::{Augment, AugmentImages, Fill};
use radiograd::shape::Spec;
use radiograd::store::ParamStore;
use radiograd::tensor::{Data, Tensor, relative_error};

const BATCH: usize = 48;

fn images(size: usize) -> Images {
    let options = LoadOptions { size: (size, size), cache: CachePolicy::Off, ..LoadOptions::default() };
    load(&Source::Phantom, &options).unwrap().train.unwrap()
}

/// The pictures of a batch; without augmentation those of `gather_images`.
fn pictures(executor: &mut dyn Executor, images: &Images, augment: Option<&Augment>, words: [u32; 2]) -> Vec<f32> {
    let spec = Spec::u8([images.len(), images.channels, images.height, images.width]);
    let mut store = ParamStore::new();
    let value = Tensor::new(spec.shape.clone(), Data::U8(images.pixels.clone())).ok();
    let pixels = store.add_var("images", spec, value);
    let mut g = Graph::new();
    let rng = g.input("seed and step", Spec::u32([2]));
    let indices = g.input("indices", Spec::u32([BATCH]));
    let pixels = g.var("images", pixels);
    let out = match augment {
        None => g.gather_images(pixels, indices, &[0.48], &[0.24]).unwrap(),
        Some(augment) => {
            let op = AugmentImages { mean: vec![0.48], std: vec![0.24], augment: augment.clone(), repeats: None };
            g.augment_images(op, [pixels, indices, rng], None).unwrap()
        }
    };
    executor.load(&store).unwrap();
    let program = executor.compile(&Arc::new(g), &[out]).unwrap();
    executor.set(program, rng, &Tensor::new([2], Data::U32(words.to_vec())).unwrap()).unwrap();
    let chosen = (0..BATCH as u32).map(|i| 5 * i).collect();
    executor.set(program, indices, &Tensor::new([BATCH], Data::U32(chosen)).unwrap()).unwrap();
    executor.run(program).unwrap();
    executor.read(program, out).unwrap().to_f32()
}

#[test]
fn the_same_seed_gives_the_same_pictures_on_cpu_and_gpu() {
    let Some(mut gpu) = common::gpu(Options::default()) else { return };
    let mut cpu = cpu::Executor::<f32>::fast();
    for size in [28, 64] {
        let images = images(size);
        for (name, fill) in [("light", Fill::Nearest), ("strong", Fill::Constant), ("strong", Fill::Reflect)] {
            let augment = Augment { fill, ..Augment::preset(name).unwrap() };
            let mut before: Option<Vec<f32>> = None;
            for words in [[0, 0], [0, 1], [77, 12_345]] {
                let on_gpu = pictures(&mut gpu, &images, Some(&augment), words);
                let on_cpu = pictures(&mut cpu, &images, Some(&augment), words);
                let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
                let error = relative_error(&wide(&on_gpu), &wide(&on_cpu));
                assert!(error < 1e-5, "{name} at {size}: {error:.1e}");
                // No single pixel stands out, as one would where the two had decided otherwise: a grey level is 0.016.
                let worst = on_gpu.iter().zip(&on_cpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 0.002, "{name} at {size}: a pixel differs by {worst}");
                if let Some(before) = before.replace(on_gpu.clone()) {
                    assert!(relative_error(&wide(&on_gpu), &wide(&before)) > 0.05, "two steps draw alike");
                }
            }
        }
    }
}

#[test]
fn images_of_which_nothing_is_drawn_have_the_bits_of_gather_images() {
    let mut executors: Vec<Box<dyn Executor>> = vec![Box::new(cpu::Executor::<f32>::fast())];
    if let Some(gpu) = common::gpu(Options::default()) {
        executors.push(Box::new(gpu));
    }
    let images = images(32);
    let mut rare = Augment::preset("strong").unwrap();
    let p = 0.08;
    rare.hflip.iter_mut().for_each(|c| c.p = p);
    [&mut rare.rotate, &mut rare.shear].into_iter().flatten().for_each(|c| c.p = p);
    [&mut rare.zoom, &mut rare.brightness, &mut rare.contrast].into_iter().flatten().for_each(|c| c.p = p);
    rare.shift.iter_mut().for_each(|c| c.p = p);
    rare.noise.iter_mut().for_each(|c| c.p = p);
    rare.erase.iter_mut().for_each(|c| c.p = p);
    for executor in &mut executors {
        let device = executor.describe();
        let plain = pictures(executor.as_mut(), &images, None, [3, 4]);
        let same = |other: &[f32]| {
            let pairs = plain.chunks(32 * 32).zip(other.chunks(32 * 32));
            pairs.filter(|(a, b)| a.iter().zip(*b).all(|(a, b)| a.to_bits() == b.to_bits())).count()
        };
        assert_eq!(same(&pictures(executor.as_mut(), &images, Some(&Augment::default()), [3, 4])), BATCH, "{device}");
        // Nine changes of 8 % each leave 47 % of the images as they are: 22.7 of 48, with a deviation of 3.5.
        let left = same(&pictures(executor.as_mut(), &images, Some(&rare), [3, 4]));
        assert!((9..=37).contains(&left), "{device}: {left} of {BATCH} images are as they were");
    }
}

fn devices() -> Vec<&'static str> {
    let mut all = vec!["cpu"];
    if common::gpu(Options::default()).is_some() {
        all.push("gpu");
    }
    all
}

#[test]
fn preview_draws_a_contact_sheet_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = program::command(args);
        command.current_dir(dir.path());
        program::finish(command)
    };
    let sheet = |name: &str| image::open(dir.path().join(name)).unwrap().into_luma8();
    let mut sheets = Vec::new();
    for device in devices() {
        let name = format!("{device}.png");
        let args = ["data", "preview", "--data", "phantom", "--size", "32", "--augment", "strong", "--images", "3"];
        let args: Vec<&str> = args.into_iter().chain(["--draws", "4", "--device", device, "--out", &name]).collect();
        let out = run(&args);
        assert_eq!(out.status.code(), Some(0), "{}", program::text(&out.stderr));
        let text = program::text(&out.stdout);
        assert!(text.contains("rotate 15") && text.contains("PNEUMONIA") && text.contains("NORMAL"), "{text}");
        let complaint = program::complaint(&run(&args), &args);
        assert!(complaint.contains(&name) && complaint.contains("--force"), "{complaint}");
        let again: Vec<&str> = args.iter().copied().chain(["--force", "--json"]).collect();
        let before = sheet(&name);
        let report: serde_json::Value = serde_json::from_slice(&run(&again).stdout).unwrap();
        assert_eq!((report["draws"].as_u64(), report["rows"].as_array().unwrap().len()), (Some(4), 3));
        assert_eq!(sheet(&name), before);
        sheets.push(before);
    }
    let (height, width) = (4 + 3 * 132, 4 + 5 * 132 + 12);
    for sheet in &sheets {
        assert_eq!((sheet.height(), sheet.width()), (height, width));
        // A picture beside the image is another one.
        let square = |left: u32| (0..128).map(|k| sheet.get_pixel(left + k, 4 + k).0[0]).collect::<Vec<_>>();
        assert_ne!(square(4), square(4 + 132 + 12));
    }
    if let [cpu, gpu] = &sheets[..] {
        // A value that lies on the edge between two grey levels may be rounded either way.
        let worst = cpu.pixels().zip(gpu.pixels()).map(|(a, b)| a.0[0].abs_diff(b.0[0])).max();
        assert!(worst <= Some(1), "{worst:?}");
    }
    let seeded = run(&["data", "preview", "--data", "phantom", "--size", "32", "--seed", "5", "--out", "other.png"]);
    assert_eq!(seeded.status.code(), Some(0), "{}", program::text(&seeded.stderr));
}

#[test]
fn what_is_wrong_with_augmentation_is_said_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |text: &str, words: &[&str]| {
        std::fs::write(dir.path().join("c.toml"), text).unwrap();
        let args = ["train", "--config", "c.toml", "--data", "phantom", "--out", "run", "--device", "cpu"];
        let mut command = program::command(&args);
        command.current_dir(dir.path());
        let line = program::complaint(&program::finish(command), &args);
        assert!(words.iter().all(|w| line.contains(w)), "{text}: {line}");
        assert!(!dir.path().join("run").exists());
    };
    fails("[augment]\nrotate = { degrees = 400 }", &["augment", "rotate.degrees", "0 to 180", "400"]);
    fails("[augment]\nrotat = { degrees = 4 }", &["c.toml", "rotat"]);
    fails("augment = \"stronk\"", &["c.toml", "stronk", "none, light or strong"]);
    fails("augment_repeats = \"light\"", &["augment_repeats", "sampler"]);
    fails("sampler = \"even\"", &["c.toml", "even", "oversample"]);
    for args in [["--augment", "stronk"], ["--sampler", "even"]] {
        let out = program::finish(program::command(&["train", args[0], args[1]]));
        assert_eq!(out.status.code(), Some(2), "{args:?}");
    }
}
