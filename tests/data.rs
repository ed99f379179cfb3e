//! Loading from disk, end to end: folders with every kind of fault, `.npz` files, the phantom set, the cache.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat};
use radiograd::data::phantom::{PhantomSizes, write_folder};
use radiograd::data::summary::summarise;
use radiograd::data::{CachePolicy, DataError, Dataset, LoadOptions, Need, Source, Splits, load};

fn options(size: usize, splits: Splits) -> LoadOptions {
    LoadOptions { size: (size, size), splits, cache: CachePolicy::Off, ..LoadOptions::default() }
}

fn picture(path: &Path, value: u8, format: ImageFormat) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = image::GrayImage::from_fn(20, 10, |x, y| image::Luma([value.wrapping_add((x * 3 + y) as u8)]));
    DynamicImage::ImageLuma8(image).save_with_format(path, format).unwrap();
}

/// `n` patients with two images each in both classes of a split.
fn fill(root: &Path, split: &str, n: u8) {
    for p in 0..n {
        for shot in 0..2 {
            let value = p.wrapping_mul(7) + shot;
            picture(&root.join(format!("{split}/NORMAL/IM-{p:04}-{shot:04}.png")), value, ImageFormat::Png);
            picture(
                &root.join(format!("{split}/PNEUMONIA/person{p}_virus_{shot}.jpeg")),
                value + 100,
                ImageFormat::Jpeg,
            );
        }
    }
}

fn folder(dir: &Path) -> Source {
    Source::parse(dir).unwrap()
}

fn error(source: &Source, o: &LoadOptions) -> String {
    let text = load(source, o).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn patients_are_apart(data: &Dataset) {
    let (train, val) = (data.train.as_ref().unwrap(), data.val.as_ref().unwrap());
    let held: std::collections::HashSet<_> = val.patients.iter().collect();
    assert!(train.patients.iter().all(|p| !held.contains(p)));
}

#[test]
fn a_kaggle_folder_is_read_and_split_by_patient() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("chest_xray");
    for (split, n) in [("train", 20), ("val", 1), ("test", 3)] {
        fill(&root, split, n);
    }
    for junk in ["train/.DS_Store", "train/NORMAL/Thumbs.db", "train/NORMAL/._IM-0001-0001.png", "__MACOSX/x", ".git/x"]
    {
        let path = root.join(junk);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"junk").unwrap();
    }
    // The folder itself, and the one around it.
    for path in [&root, dir.path()] {
        let data = load(&folder(path), &options(8, Splits::STUDY)).unwrap();
        assert_eq!(data.classes, ["NORMAL", "PNEUMONIA"]);
        assert_eq!(
            data.splits().map(|(n, i)| (n, i.len())).collect::<Vec<_>>(),
            [("train", 68), ("val", 12), ("official_val", 4), ("test", 12)]
        );
        assert!(data.skipped.is_empty() && !data.synthetic);
        patients_are_apart(&data);
        let val = data.val.unwrap();
        assert_eq!(val.class_counts(2), [6, 6]);
        assert_eq!(val.pixels.len(), 12 * 64);
        assert!(val.names[0].starts_with("train/NORMAL/IM-"), "{}", val.names[0]);
    }
    let again = |seed| {
        let o = LoadOptions { seed, ..options(8, Splits::FIT) };
        load(&folder(&root), &o).unwrap().content_hash
    };
    assert_eq!(again(1), again(1));
    assert_ne!(again(1), again(2));
}

#[test]
fn patients_of_another_set_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    fill(&ours, "train", 20);
    fill(&ours, "test", 3);
    fill(&theirs, "test", 5);
    let load_without = |folders: &[&Path]| {
        let exclude_patients = folders.iter().map(|f| f.to_path_buf()).collect();
        load(&folder(&ours), &LoadOptions { exclude_patients, ..options(8, Splits::STUDY) })
    };
    // The whole set, one split, and both classes each by itself.
    let (normal, pneumonia) = (theirs.join("test/NORMAL"), theirs.join("test/PNEUMONIA"));
    let sets: [&[&Path]; 3] = [&[&theirs], &[&theirs.join("test")], &[&normal, &pneumonia]];
    for folders in sets {
        let data = load_without(folders).unwrap();
        let images: Vec<_> = [&data.train, &data.val].into_iter().flatten().collect();
        assert_eq!(images.iter().map(|i| i.len()).sum::<usize>(), 60);
        let gone = ["IM-0000", "IM-0004", "person0", "person4"];
        assert!(images.iter().all(|i| i.patients.iter().all(|p| !gone.contains(&p.as_str()))));
        assert_eq!(data.test.as_ref().unwrap().len(), 12, "the test images stay");
        let note = "exclude_patients: 20 of the 80 training images are left out, of 10 patients";
        assert!(data.notes.iter().any(|n| n == note), "{:?}", data.notes);
    }
    let text = |e: DataError| e.to_string();
    assert!(text(load_without(&[&ours]).unwrap_err()).contains("no images found"));
    let nameless = dir.path().join("nameless");
    picture(&nameless.join("A/1.png"), 1, ImageFormat::Png);
    assert!(text(load_without(&[&nameless]).unwrap_err()).contains("names its patient"));
    assert!(text(load_without(&[&dir.path().join("absent")]).unwrap_err()).contains("absent"));
    let phantom = LoadOptions { exclude_patients: vec![theirs.clone()], ..options(8, Splits::FIT) };
    assert!(error(&Source::Phantom, &phantom).contains("do not name their patients"));
}

#[test]
fn only_the_needed_splits_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), "test", 2);
    let source = folder(dir.path());
    let data = load(&source, &options(6, Splits::TEST)).unwrap();
    assert_eq!(data.test.unwrap().len(), 8);
    assert!(data.train.is_none());
    assert!(error(&source, &options(6, Splits::FIT)).contains("no train split; it has test"));
    assert!(error(&source, &options(6, Splits::only("official_val").unwrap())).contains("official_val"));
    assert!(Splits::only("tset").unwrap_err().to_string().contains("tset"));
    // A damaged train folder does not disturb a command that does not use it.
    fs::create_dir_all(dir.path().join("train/ODD")).unwrap();
    load(&source, &options(6, Splits::TEST)).unwrap();
}

#[test]
fn unreadable_files_are_named_and_skipped_or_fail() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), "train", 6);
    let normal = dir.path().join("train/NORMAL");
    fs::write(normal.join("bad.jpeg"), b"not an image").unwrap();
    fs::write(normal.join("empty.png"), b"").unwrap();
    let whole = fs::read(normal.join("IM-0001-0001.png")).unwrap();
    fs::write(normal.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let mut bomb = whole.clone();
    bomb[16..24].copy_from_slice(&[0, 0x7f, 0xff, 0xff, 0, 0x7f, 0xff, 0xff]);
    fs::write(normal.join("bomb.png"), bomb).unwrap();
    fs::create_dir(normal.join("folder.jpeg")).unwrap();
    let mut count = 5;
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;
        symlink("loop.jpeg", normal.join("loop.jpeg")).unwrap();
        symlink("..", normal.join("up")).unwrap();
        fs::write(normal.join(std::ffi::OsStr::from_bytes(b"\xff\xfe.jpeg")), b"x").unwrap();
        count += 3;
    }
    let data = load(&folder(dir.path()), &options(6, Splits::FIT)).unwrap();
    assert_eq!(data.skipped.len(), count, "{:?}", data.skipped);
    assert_eq!(data.train.as_ref().unwrap().len() + data.val.as_ref().unwrap().len(), 24);
    assert!(data.skipped.iter().any(|s| s.name == "train/NORMAL/bad.jpeg" && s.reason.contains("not a JPEG")));
    assert!(data.skipped.iter().any(|s| s.name == "train/NORMAL/folder.jpeg" && s.reason.contains("folder")));
    let strict = LoadOptions { strict: true, ..options(6, Splits::FIT) };
    let text = error(&folder(dir.path()), &strict);
    assert!(text.contains("NORMAL") && text.contains("cannot be decoded"), "{text}");
    let summary = summarise(&folder(dir.path()), &options(6, Splits::default())).unwrap();
    assert_eq!(summary.unreadable, data.skipped);
}

#[test]
fn folders_that_cannot_be_used_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let o = options(6, Splits::FIT);
    let source = folder(dir.path());
    assert!(error(&source, &o).contains("no images found"));
    fs::create_dir_all(dir.path().join("train")).unwrap();
    assert!(error(&source, &o).contains("no class folders"));
    picture(&dir.path().join("train/A/1.png"), 1, ImageFormat::Png);
    picture(&dir.path().join("train/A/2.png"), 1, ImageFormat::Png);
    assert!(error(&source, &o).contains("only one class, \"A\""));
    fs::create_dir_all(dir.path().join("train/B")).unwrap();
    assert!(error(&source, &o).contains("class \"B\" has no readable image (0 unreadable)"));
    fs::write(dir.path().join("train/B/1.png"), b"x").unwrap();
    assert!(error(&source, &o).contains("class \"B\" has no readable image (1 unreadable)"));
    picture(&dir.path().join("train/B/1.png"), 1, ImageFormat::Png);
    assert!(error(&source, &o).contains("class \"B\" has 1 images of 1 patients"));
    picture(&dir.path().join("train/B/2.png"), 1, ImageFormat::Png);
    assert_eq!(load(&source, &o).unwrap().val.unwrap().len(), 2);
    for class in ["A", "C"] {
        picture(&dir.path().join(format!("test/{class}/1.png")), 1, ImageFormat::Png);
    }
    assert!(error(&source, &options(6, Splits::STUDY)).contains("test has the classes A, C, train has A, B"));

    assert!(matches!(Source::parse(dir.path().join("nothing")), Err(DataError::NotFound { .. })));
    assert!(matches!(Source::parse(dir.path().join("train/A/1.png")), Err(DataError::NotData { .. })));
    assert_eq!(Source::parse("phantom").unwrap(), Source::Phantom);
    for (size, channels) in [((0, 6), 1), ((6, 100_000), 1), ((6, 6), 2)] {
        let o = LoadOptions { size, channels, ..o.clone() };
        assert!(matches!(load(&source, &o), Err(DataError::Options(_))));
    }
    let o = LoadOptions { val_fraction: f64::NAN, ..o };
    assert!(error(&source, &o).contains("validation fraction"));
}

#[test]
fn class_folders_without_splits_are_train() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), ".", 5);
    let source = folder(dir.path());
    let data = load(&source, &options(6, Splits::STUDY)).unwrap();
    patients_are_apart(&data);
    assert!(data.test.is_none() && data.train.unwrap().names[0].starts_with("NORMAL/"));
    assert!(error(&source, &options(6, Splits::TEST)).contains("no test split"));
}

#[test]
fn the_cache_gives_the_same_bytes_and_notices_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("data"), dir.path().join("cache"));
    fill(&root, "train", 4);
    fs::write(root.join("train/NORMAL/bad.jpeg"), b"x").unwrap();
    let o = LoadOptions { cache: CachePolicy::Folder(cache.clone()), ..options(6, Splits::FIT) };
    let source = folder(&root);
    let files = || -> Vec<PathBuf> { fs::read_dir(&cache).unwrap().map(|e| e.unwrap().path()).collect() };
    let same =
        |a: &Dataset, b: &Dataset| a.content_hash == b.content_hash && a.skipped == b.skipped && a.train == b.train;

    let cold = load(&source, &o).unwrap();
    assert!(same(&cold, &load(&source, &options(6, Splits::FIT)).unwrap()));
    let file = files().pop().unwrap();
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    assert!(same(&cold, &load(&source, &o).unwrap()));
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written, "a warm load writes nothing");
    // Damage is found by the checksum and the file made anew.
    let mut bytes = fs::read(&file).unwrap();
    bytes[5] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert!(same(&cold, &load(&source, &o).unwrap()));
    assert_ne!(fs::read(&file).unwrap(), bytes);
    // Same name, same length, other content.
    let image = root.join("train/NORMAL/IM-0000-0000.png");
    let other = fs::read(root.join("train/NORMAL/IM-0003-0001.png")).unwrap();
    fs::write(&image, other).unwrap();
    assert!(!same(&cold, &load(&source, &o).unwrap()));
    assert_eq!(files().len(), 2);
    // Strict looks at cached failures too, and a cache folder that cannot be is no failure.
    assert!(load(&source, &LoadOptions { strict: true, ..o.clone() }).is_err());
    let blocked = LoadOptions { cache: CachePolicy::Folder(file.join("x")), ..o };
    let data = load(&source, &blocked).unwrap();
    assert!(data.notes.iter().any(|n| n.contains("not kept")), "{:?}", data.notes);
}

#[test]
fn progress_ends_at_the_total() {
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let mut o = options(8, Splits::FIT);
    o.progress = Some(Arc::new(move |p| sink.lock().unwrap().push((p.split, p.done, p.total))));
    load(&Source::Phantom, &o).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.contains(&("train", 1200, 1200)) && seen.contains(&("val", 200, 200)));
    assert!(seen.len() < 400);
}

// ---- npz ----

struct Array<'a>(&'a str, &'a str, &'a [u64], Vec<u8>);

fn npz(path: &Path, arrays: &[Array]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for Array(key, descr, shape, data) in arrays {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        zip.start_file(format!("{key}.npy"), options).unwrap();
        let shape: String = shape.iter().map(|d| format!("{d}, ")).collect();
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
        zip.write_all(header.as_bytes()).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap();
}

fn ramp(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 37 % 251) as u8).collect()
}

#[test]
fn an_npz_is_read_with_any_integer_labels_and_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.npz");
    let labels = |l: &[i64]| l.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>();
    npz(
        &path,
        &[
            Array("train_images", "|u1", &[4, 5, 6], ramp(120)),
            Array("train_labels", "|u1", &[4, 1], vec![0, 1, 2, 1]),
            Array("val_images", "|u1", &[3, 5, 6, 3], ramp(270)),
            Array("val_labels", ">i8", &[3], labels(&[2, 1, 0])),
            Array("test_images", "|u1", &[3, 4, 4], ramp(48)),
            Array("test_labels", "<u2", &[3, 1], vec![0, 0, 1, 0, 2, 0]),
        ],
    );
    let source = Source::parse(&path).unwrap();
    let o = LoadOptions { size: (5, 6), ..options(0, Splits::STUDY) };
    let data = load(&source, &o).unwrap();
    assert_eq!(data.classes, ["0", "1", "2"]);
    let (train, val, test) = (data.train.unwrap(), data.val.unwrap(), data.test.unwrap());
    assert_eq!(train.pixels, ramp(120), "the right size is taken as it is");
    assert_eq!((val.labels.as_slice(), test.labels.as_slice()), (&[2, 1, 0][..], &[0, 1, 2][..]));
    assert_eq!((test.pixels.len(), test.names[2].as_str()), (90, "test/2"));
    let rgb = load(&source, &LoadOptions { channels: 3, ..o.clone() }).unwrap();
    let image = rgb.train.as_ref().unwrap().image(1).unwrap().to_vec();
    assert_eq!((&image[..30], &image[60..]), (&ramp(120)[30..60], &ramp(120)[30..60]), "grey three times");
    let val = rgb.val.unwrap();
    let interleaved = ramp(270);
    assert_eq!(val.pixels[30], interleaved[1], "planes, not interleaved");
    assert!(error(&source, &options(6, Splits::only("official_val").unwrap())).contains("official_val"));
    let summary = summarise(&source, &o).unwrap();
    assert_eq!(summary.splits.iter().map(|s| s.images).collect::<Vec<_>>(), [4, 3, 3]);
    assert_eq!(summary.splits[1].modes["Rgb8"], 3);
}

#[test]
fn an_npz_that_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.npz");
    let check = |arrays: &[Array], parts: &[&str]| {
        npz(&path, arrays);
        let text = error(&Source::parse(&path).unwrap(), &options(4, Splits::TEST));
        assert!(parts.iter().all(|p| text.contains(p)) && text.contains("set.npz"), "{text}");
    };
    let images = || Array("test_images", "|u1", &[3, 4, 4], ramp(48));
    let labels = |l: &[u8]| Array("test_labels", "|u1", &[3, 1], l.to_vec());
    check(&[], &["none of train_images"]);
    check(&[images()], &["test_labels: missing"]);
    check(&[labels(&[0, 1, 0])], &["test_images: missing"]);
    check(&[images(), labels(&[0, 0, 0])], &["only one class"]);
    check(&[images(), labels(&[0, 1, 7])], &["test_labels[2] is 7", "0 to 1"]);
    check(&[images(), labels(&[1, 1, 2])], &["no image has label 0"]);
    check(&[images(), Array("test_labels", "|i1", &[3], vec![0, 255, 1])], &["test_labels[1] is -1"]);
    check(&[images(), Array("test_labels", "|u1", &[2], vec![0, 1])], &["3 images, but test_labels has 2"]);
    check(&[images(), Array("test_labels", "|u1", &[3, 2], vec![0; 6])], &["2 labels an image"]);
    check(&[images(), Array("test_labels", "<f4", &[3], vec![0; 12])], &["<f4", "integers"]);
    check(&[Array("test_images", "<f4", &[1, 4, 4], vec![0; 64]), labels(&[0, 1, 0])], &["uint8"]);
    check(&[Array("test_images", "|u1", &[48], ramp(48)), labels(&[0, 1, 0])], &["(n,h,w)"]);
    check(&[Array("test_images", "|u1", &[3, 0, 4], vec![]), labels(&[0, 1, 0])], &["0x4"]);
    check(&[Array("test_images", "|u1", &[0, 4, 4], vec![]), labels(&[0, 1, 0])], &["0 images, but"]);
    check(&[Array("test_images", "|u1", &[30, 4, 4], ramp(48)), labels(&[0, 1, 0])], &["does not fit its"]);
    check(&[Array("test_images", "|u1", &[u64::MAX, 9, 9], ramp(48)), labels(&[0, 1, 0])], &["does not fit its"]);
    // The labels of train say which labels there are, whichever split is read.
    let train = Array("train_labels", "|u1", &[2], vec![0, 1]);
    check(&[train, images(), labels(&[0, 1, 2])], &["test_labels[2] is 2", "0 to 1"]);

    npz(&path, &[images(), labels(&[0, 1, 0])]);
    let whole = fs::read(&path).unwrap();
    let source = Source::parse(&path).unwrap();
    load(&source, &options(4, Splits::TEST)).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        error(&source, &options(4, Splits::TEST));
    }
    // Any damaged byte gives the same data or an error, and never a panic.
    let good = load_hash(&source, &path, &whole).unwrap();
    for i in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[i] ^= 0x55;
        if let Some(hash) = load_hash(&source, &path, &bytes) {
            assert_eq!(hash, good, "byte {i}");
        }
    }
}

fn load_hash(source: &Source, path: &Path, bytes: &[u8]) -> Option<String> {
    fs::write(path, bytes).unwrap();
    load(source, &options(4, Splits::TEST)).ok().map(|d| d.content_hash)
}

// ---- phantom ----

#[test]
fn the_phantom_set_is_a_folder_when_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("phantom");
    let sizes = PhantomSizes { train: 40, val: 6, test: 10 };
    write_folder(&out, sizes, (24, 20), 5).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    let o = LoadOptions { size: (24, 20), val_fraction: 0.0, seed: 5, phantom: sizes, ..options(0, Splits::default()) };
    let wants = Splits { train: Need::Yes, test: Need::Yes, ..Splits::default() };
    let o = LoadOptions { splits: wants, ..o };
    let (drawn, read) = (load(&Source::Phantom, &o).unwrap(), load(&folder(&out), &o).unwrap());
    assert!(drawn.synthetic && drawn.source.contains("synthetic"));
    assert_eq!(drawn.classes, read.classes);
    let (drawn, read) = (drawn.train.unwrap(), read.train.unwrap());
    for (i, name) in read.names.iter().enumerate() {
        let stem = name.rsplit('/').next().unwrap().trim_end_matches(".png");
        let j = drawn.names.iter().position(|n| n.ends_with(&format!("/{stem}"))).unwrap();
        assert_eq!(
            (read.image(i), read.labels[i], &read.patients[i]),
            (drawn.image(j), drawn.labels[j], &drawn.patients[j])
        );
    }
    let text = write_folder(&out, sizes, (24, 20), 5).unwrap_err().to_string();
    assert!(text.contains("has content"), "{text}");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    write_folder(&empty, PhantomSizes::of_total(0), (8, 8), 0).unwrap();
    assert!(load(&folder(&empty), &options(8, Splits::TEST)).is_ok());
    let blocked = out.join("README.txt").join("x");
    assert!(matches!(write_folder(&blocked, sizes, (8, 8), 0), Err(DataError::Fs(_))));
}
