//! A checkpoint that somebody trained with PyTorch; needs the folder that `RADIOGRAD_DATA` names.

use std::io::{Cursor, Read};
use std::path::PathBuf;

use radiograd::weights::{How, NamedTensor, WeightsFile, load, match_tensors};

/// The folder of real data, or a message that the test is skipped.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("RADIOGRAD_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: set RADIOGRAD_DATA to the folder of real data to run this test");
    }
    folder
}

fn checkpoint() -> Option<(PathBuf, WeightsFile)> {
    let folder = data()?;
    let file = load(folder.join("checkpoints/pneumoniamnist_cnn.pth")).unwrap();
    Some((folder, file))
}

fn model() -> Vec<(String, Vec<usize>)> {
    let shapes: [(&str, &[usize]); 8] = [
        ("conv1.weight", &[16, 1, 3, 3]),
        ("conv1.bias", &[16]),
        ("conv2.weight", &[32, 16, 3, 3]),
        ("conv2.bias", &[32]),
        ("dense1.weight", &[64, 1568]),
        ("dense1.bias", &[64]),
        ("dense2.weight", &[1, 64]),
        ("dense2.bias", &[1]),
    ];
    shapes.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect()
}

#[test]
fn the_checkpoint_matches_by_order_and_shape() {
    let Some((_, file)) = checkpoint() else { return };
    let matching = match_tensors(&model(), &file).unwrap();
    assert_eq!(matching.how, How::ByOrder);
    assert_eq!(matching.pairs.len(), 8);
    assert!(matching.ignored.is_empty() && matching.missing.is_empty() && matching.unexpected.is_empty());
    assert_eq!(
        (matching.pairs[0].file.as_str(), matching.pairs[7].file.as_str()),
        ("features.0.weight", "classifier.4.bias")
    );
    for t in &file.tensors {
        assert!(t.data.as_f32().unwrap().iter().all(|x| x.is_finite()), "{}", t.name);
    }
}

/// `out[o][y][x] = relu(bias + sum)`, 3x3, padding 1, then the largest of each 2x2.
fn conv_relu_pool(x: &[Vec<f32>], side: usize, weight: &NamedTensor, bias: &NamedTensor) -> Vec<Vec<f32>> {
    let (w, b) = (weight.data.as_f32().unwrap(), bias.data.as_f32().unwrap());
    let half = side / 2;
    let mut out = vec![vec![0.0f32; half * half]; b.len()];
    for (o, plane) in out.iter_mut().enumerate() {
        for y in 0..half * 2 {
            for xx in 0..half * 2 {
                let mut sum = f64::from(b[o]);
                for (c, input) in x.iter().enumerate() {
                    for (k, &tap) in w[(o * x.len() + c) * 9..][..9].iter().enumerate() {
                        let (row, column) = ((y + k / 3).wrapping_sub(1), (xx + k % 3).wrapping_sub(1));
                        if row < side && column < side {
                            sum += f64::from(tap) * f64::from(input[row * side + column]);
                        }
                    }
                }
                let cell = &mut plane[y / 2 * half + xx / 2];
                *cell = cell.max(sum as f32);
            }
        }
    }
    out
}

fn dense(x: &[f32], weight: &NamedTensor, bias: &NamedTensor) -> Vec<f32> {
    let (w, b) = (weight.data.as_f32().unwrap(), bias.data.as_f32().unwrap());
    let dot = |row: &[f32]| row.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    w.chunks(x.len()).zip(b).map(|(row, b)| (dot(row) + f64::from(*b)) as f32).collect()
}

#[test]
fn its_first_logits_are_those_of_pytorch() {
    let Some((folder, file)) = checkpoint() else { return };
    let npz = std::fs::read(folder.join("pneumoniamnist.npz")).unwrap();
    let mut images = Vec::new();
    zip::ZipArchive::new(Cursor::new(npz))
        .unwrap()
        .by_name("test_images.npy")
        .unwrap()
        .read_to_end(&mut images)
        .unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([images[8], images[9]]));
    let t = &file.tensors;
    for (i, want) in [14.669_208, 10.687_767, 5.002_424, -5.055_391f32].into_iter().enumerate() {
        let pixels = &images[header + i * 784..][..784];
        let x = vec![pixels.iter().map(|&p| (f32::from(p) / 255.0 - 0.5) / 0.5).collect()];
        let features = conv_relu_pool(&conv_relu_pool(&x, 28, &t[0], &t[1]), 14, &t[2], &t[3]).concat();
        let hidden: Vec<f32> = dense(&features, &t[4], &t[5]).into_iter().map(|v| v.max(0.0)).collect();
        let logit = dense(&hidden, &t[6], &t[7])[0];
        assert!((logit - want).abs() < 1e-4, "image {i}: {logit}, PyTorch has {want}");
    }
}
