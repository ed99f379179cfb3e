//! Blocks: names, order, first values, tables.

use crate::nn::init::{FanMode, Init, Nonlinearity};
use crate::nn::model::Model;
use crate::nn::summary::Summary;
use crate::store::{ParamStore, Role};

/// `name shape` of each parameter and statistic.
fn params(text: &str, input: [usize; 3]) -> Vec<String> {
    let model = Model::new(text, input, 2).expect(text);
    model.params().iter().map(|p| format!("{} {}", p.name, p.shape)).collect()
}

fn steps(text: &str) -> Vec<String> {
    let model = Model::new(text, [1, 8, 8], 2).expect(text);
    let step = |s: &crate::nn::plan::Step| {
        let reads: Vec<String> = s.inputs.iter().map(ToString::to_string).collect();
        format!("{} {} <- {}", s.name, s.action, reads.join(" "))
    };
    model.steps().iter().map(step).collect()
}

#[test]
fn blocks_without_names_count_with_their_neighbours() {
    assert_eq!(
        steps("conv4-[conv4-bn-relu-conv4]+-2x[bn-conv2]++-gap-flatten-dense2"),
        [
            "conv1 conv4 <- 0",
            "conv2 conv4 <- 1",
            "bn1 bn <- 2",
            "relu1 relu <- 3",
            "conv3 conv4 <- 4",
            "add1 + <- 5 1",
            "bn2 bn <- 6",
            "conv4 conv2 <- 7",
            "concat1 ++ <- 6 8",
            "bn3 bn <- 9",
            "conv5 conv2 <- 10",
            "concat2 ++ <- 9 11",
            "gap1 gap <- 12",
            "flatten1 flatten <- 13",
            "dense1 dense2 <- 14",
        ]
    );
}

#[test]
fn names_make_levels() {
    assert_eq!(
        steps("stem=conv4-a.3=2x[[conv4-pool]+[down.0=conv4k1s2]-relu]-gap-flatten-fc=dense2"),
        [
            "stem conv4 <- 0",
            "a.3.conv1 conv4 <- 1",
            "a.3.pool1 pool <- 2",
            "a.3.down.0 conv4k1s2 <- 1",
            "a.3.add1 + <- 3 4",
            "a.3.relu1 relu <- 5",
            "a.4.conv1 conv4 <- 6",
            "a.4.pool1 pool <- 7",
            "a.4.down.0 conv4k1s2 <- 6",
            "a.4.add1 + <- 8 9",
            "a.4.relu1 relu <- 10",
            "gap1 gap <- 11",
            "flatten1 flatten <- 12",
            "fc dense2 <- 13",
        ]
    );
    // `concat` keeps the channels of the input in front.
    assert_eq!(
        params("conv4-b=[conv3nb]++-conv2nb-gap-flatten-dense2nb", [1, 8, 8])[2..],
        ["b.conv1.weight [3, 4, 3, 3]", "conv2.weight [2, 7, 3, 3]", "dense1.weight [2, 2]"]
    );
}

#[test]
fn torchvisions_names_in_torchvisions_order() {
    let names = params("resnet18", [3, 64, 64]);
    assert_eq!(
        names[..6],
        [
            "conv1.weight [64, 3, 7, 7]",
            "bn1.weight [64]",
            "bn1.bias [64]",
            "bn1.running_mean [64]",
            "bn1.running_var [64]",
            "layer1.0.conv1.weight [64, 64, 3, 3]",
        ]
    );
    for name in [
        "layer1.1.bn2.running_var [64]",
        "layer2.0.conv1.weight [128, 64, 3, 3]",
        "layer2.0.downsample.0.weight [128, 64, 1, 1]",
        "layer2.0.downsample.1.running_mean [128]",
        "layer4.1.conv2.weight [512, 512, 3, 3]",
        "fc.weight [2, 512]",
        "fc.bias [2]",
    ] {
        assert!(names.iter().any(|n| n == name), "{name}");
    }
    let names = params("densenet161", [3, 64, 64]);
    for name in [
        "features.conv0.weight [96, 3, 7, 7]",
        "features.denseblock1.denselayer1.norm1.weight [96]",
        "features.denseblock1.denselayer6.conv1.weight [192, 336, 1, 1]",
        "features.denseblock1.denselayer6.conv2.weight [48, 192, 3, 3]",
        "features.transition1.conv.weight [192, 384, 1, 1]",
        "features.denseblock4.denselayer24.norm2.running_var [192]",
        "features.norm5.bias [2208]",
        "classifier.weight [2, 2208]",
    ] {
        assert!(names.iter().any(|n| n == name), "{name}");
    }
    let names = params("alexnet", [3, 64, 64]);
    assert_eq!(
        names.iter().filter(|n| n.contains("weight")).collect::<Vec<_>>(),
        [
            "features.0.weight [64, 3, 11, 11]",
            "features.3.weight [192, 64, 5, 5]",
            "features.6.weight [384, 192, 3, 3]",
            "features.8.weight [256, 384, 3, 3]",
            "features.10.weight [256, 256, 3, 3]",
            "classifier.1.weight [4096, 9216]",
            "classifier.4.weight [4096, 4096]",
            "classifier.6.weight [2, 4096]",
        ]
    );
}

/// ResNets: normal, variance 2 / fan_out; DenseNets: normal, variance 2 / fan_in, and a head whose bias is zero; AlexNet: uniform
/// within 1 / sqrt(fan_in). All gains 1, all shifts 0.
#[test]
fn first_values_are_torchvisions() {
    for name in ["resnet18", "densenet121", "alexnet"] {
        let model = Model::new(name, [3, 64, 64], 2).unwrap();
        let mut store = ParamStore::new();
        let params = model.init(&mut store, 5);
        for (p, spec) in params.iter().zip(model.params()) {
            let (value, dims) = (store.value(p), spec.shape.dims());
            match (p.name.rsplit('.').next().unwrap_or_default(), dims) {
                ("running_mean", _) => assert!(value.iter().all(|v| *v == 0.0)),
                ("running_var", _) => assert!(value.iter().all(|v| *v == 1.0)),
                ("weight", [_]) => assert!(value.iter().all(|v| *v == 1.0), "{}", p.name),
                ("bias", [_]) if name == "densenet121" => assert!(value.iter().all(|v| *v == 0.0), "{}", p.name),
                ("weight", &[out, input, kh, kw]) => {
                    let fan_in = (input * kh * kw) as f64;
                    let wanted = match name {
                        "resnet18" => 2.0 / (out * kh * kw) as f64,
                        "densenet121" => 2.0 / fan_in,
                        _ => 1.0 / fan_in / 3.0,
                    };
                    let squares: f64 = value.iter().map(|v| f64::from(*v).powi(2)).sum();
                    let n = value.len() as f64;
                    // Six standard errors of a variance; a normal's is sqrt(2 / n) of it.
                    let error = (squares / n / wanted - 1.0).abs();
                    assert!(error < 6.0 * (2.0 / n).sqrt(), "{name} {}: {error}", p.name);
                    // A normal leaves the range of the uniform of its variance.
                    let most = value.iter().fold(0.0, |m: f64, v| m.max(f64::from(v.abs())));
                    assert_eq!(most > (3.0 * wanted).sqrt() * 1.000_01, name != "alexnet", "{}", p.name);
                }
                ("weight", &[_, input]) => {
                    let bound = 1.0 / (input as f64).sqrt();
                    let most = value.iter().fold(0.0, |m: f64, v| m.max(f64::from(v.abs())));
                    assert!(most <= bound * 1.000_01 && most > 0.9 * bound, "{name} {}: {most} of {bound}", p.name);
                }
                _ => {}
            }
        }
    }
    // The directive holds for the convolutions behind it.
    let model = Model::new("conv4-initin-conv4-flatten-dense2zb", [1, 8, 8], 2).unwrap();
    let normal = Init::KaimingNormal { mode: FanMode::FanIn, nonlinearity: Nonlinearity::Relu };
    let of = |name: &str| model.params().iter().find(|p| p.name == name).map(|p| p.init);
    assert_ne!(of("conv1.weight"), Some(normal));
    assert_eq!(of("conv2.weight"), Some(normal));
    assert_eq!(of("dense1.bias"), Some(Init::Zeros));
}

#[test]
fn tables_show_a_block_in_a_row() {
    let model = Model::new("resnet34", [3, 224, 224], 1000).unwrap();
    let s = Summary::new(&model, 1).unwrap();
    // The published figure counts a multiplication and an addition as one: 3.6 10^9.
    assert!((7.2e9..7.5e9).contains(&(s.flops as f64)), "{}", s.flops);
    assert_eq!(s.parameters, 21_797_672);
    assert_eq!(model.conv_layers(), 36);
    assert_eq!(s.blocks.len(), 16);
    assert_eq!(s.blocks[3].name, "layer2.0");
    let text = s.render();
    // Head and image; conv1, bn1, relu1, pool1, 16 blocks, gap1, flatten1, fc; sum and note.
    assert_eq!(text.lines().count(), 2 + 4 + 16 + 3 + 2, "{text}");
    let row = text.lines().find(|l| l.contains("layer2.0")).unwrap();
    // Two convolutions, the shortcut's, and three norms.
    let parameters = 128 * 64 * 9 + 128 * 128 * 9 + 128 * 64 + 6 * 128;
    assert_eq!(parameters, 230_144);
    assert!(row.contains("230,144") && row.contains("[N, 128, 28, 28]"), "{row}");
    // A shortcut sees less than the block that it passes by.
    let fields = model.steps().iter().map(|s| s.field.map(|f| f.size[0]));
    let sizes: Vec<usize> = fields.flatten().collect();
    assert!(sizes[..9].windows(2).all(|w| w[0] <= w[1]), "{sizes:?}");

    let model = Model::new("conv4-[relu]+-2x[relu-tanh]-flatten-dense2", [1, 4, 4], 2).unwrap();
    let s = Summary::new(&model, 1).unwrap();
    let names: Vec<&str> = s.blocks.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["relu1 .. add1", "relu2 .. tanh1", "relu3 .. tanh2"]);
    assert_eq!((s.blocks[1].first, s.blocks[1].last, s.blocks[1].block.as_str()), (4, 5, "[relu-tanh]"));
    assert!(model.params().iter().all(|p| p.role == Role::Trainable));
}
