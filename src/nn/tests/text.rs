//! Texts: what is read, what is refused and how that is said, and what a text needs.

use crate::nn::model::{Head, Model};
use crate::nn::spec::{Activation, Layer, Network};
use crate::nn::summary::Summary;
use crate::nn::{ModelError, named};
use crate::rng::{Rng, Stream};
use crate::store::ParamStore;

const CHAIN: &str = "conv16-relu-pool-conv32k5s2-bn-relu-pool-flatten-dense64-relu-dropout0.5-dense2";

fn problem(text: &str, input: [usize; 3], classes: usize) -> String {
    Model::new(text, input, classes).expect_err(text).to_string()
}

#[test]
fn chains_are_read_and_written_back() {
    let canonical = [
        CHAIN.replace("0.5", "").as_str(),
        "conv8k3x5s2x1p0x2d2g4nb-avgpool3s2p1-adaptive7x5-lrelu0.2-elu0.7-gap-flatten-dense3nb",
        "conv4k4s2-conv4k2s2-pool-pool3x2-pool3s1-tanh-sigmoid-softmax-dropout0.25-flatten",
        "conv1p0",
        "initin-conv8-3x[[conv8nb-bn]+-relu]-a.0=2x[b=bn-relu-conv4]++-[conv8s2]+[down=conv8k1s2]-initout-gap-flatten-fc=dense2zb",
    ]
    .map(str::to_owned);
    for text in &canonical {
        let network = Network::parse(text, 2).expect(text);
        assert_eq!(&network.to_string(), text);
    }
    // Other spellings of the same layers.
    for (text, written) in [
        ("conv16k3s1p1d1g1-dropout0.5", "conv16-dropout"),
        ("Conv16K5P2-MaxPool2-ReLU", "conv16k5-pool-relu"),
        ("conv16s2k5-adaptive1x1", "conv16k5s2-gap"),
        ("conv16k3d2p2-pool3s3", "conv16d2-pool3"),
        (" lrelu0.01-elu1.0 ", "lrelu-elu"),
        ("1x[Conv8-RELU]+-A_b = 2X[ relu ]", "[conv8-relu]+-A_b=2x[relu]"),
    ] {
        assert_eq!(Network::parse(text, 2).expect(text).to_string(), written);
    }
}

#[test]
fn default_padding_keeps_the_size_of_odd_kernels() {
    for (text, padding) in
        [("conv1", [1, 1]), ("conv1k5d2", [4, 4]), ("conv1k1x7", [0, 3]), ("conv1k2s2", [0, 0]), ("conv1k4s2", [1, 1])]
    {
        match &Network::parse(text, 2).expect(text).layers[0] {
            Layer::Conv { conv, .. } => assert_eq!(conv.padding, padding, "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn errors_say_which_layer_what_and_what_else() {
    for (text, expected) in [
        (
            "",
            "the model is empty: give a name (mlp, cnn1, cnn2, cnn3, simple, alexnet, resnet18, resnet34, densenet121, densenet161) or a chain",
        ),
        ("cnn4", "unknown model cnn4, did you mean cnn1?; known: mlp, cnn1,"),
        ("resnet19", "unknown model resnet19, did you mean resnet18?; known: mlp"),
        ("transformer", "unknown model transformer; known: mlp"),
        ("relu-[conv8-rellu]+", "layer 2.2 (rellu): unknown layer, did you mean relu?"),
        ("relu-[conv8]+[conv8k1-convk2]", "layer 2.shortcut.2 (convk2): the number of output channels is missing"),
        ("relu-[conv8-[conv8--relu]+]", "layer 2.2.2 (): nothing between two dashes"),
        (
            "relu-[conv8",
            "layer 2 ([conv8): a [ without its ]: write [layers], [layers]+, [layers]+[shortcut] or [layers]++",
        ),
        ("relu-conv8]+", "layer 2 (conv8]+): a ] without its ["),
        ("relu-[]+", "layer 2 ([]+): nothing in the brackets"),
        ("relu-[conv8]+[]", "layer 2 ([conv8]+[]): nothing in the brackets"),
        ("relu-[conv8]*", "layer 2 ([conv8]*): cannot read '*': write [layers]"),
        ("relu-[conv8]+++", "cannot read '+++'"),
        ("relu-[conv8]+[conv8]+", "cannot read '+[conv8]+'"),
        ("relu-3[conv8]", "cannot read '3': write [layers]"),
        ("relu-0x[conv8]", "layer 2 (0x[conv8]): the number of times is 0, it must be 1 to 1000"),
        ("relu-2000x[conv8]", "the number of times is 2000"),
        ("relu-a-b=conv8", "layer 2 (a): unknown layer"),
        ("relu-a..b=conv8", "layer 2 (a..b=conv8): 'a..b' cannot be a name"),
        ("relu-=conv8", "'' cannot be a name"),
        ("relu-a=b=conv8", "layer 2 (a=b=conv8): unknown layer"),
        ("[[[[[[[[[relu]]]]]]]]]", "too many brackets within each other, at most 8"),
        ("conv0-relu", "layer 1 (conv0): the number of output channels is 0, it must be 1 to 65536"),
        ("conv", "layer 1 (conv): the number of output channels is missing: write conv{out}[k{}]"),
        ("relu-conv8-pool0", "layer 3 (pool0): the window is 0, it must be 1 to 1024"),
        ("relu-dropout1.5", "layer 2 (dropout1.5): the probability is 1.5, it must be at least 0 and below 1"),
        ("relu-dropout1", "the probability is 1, it must be"),
        ("relu-dropout0.5.5", "layer 2 (dropout0.5.5): cannot read '0.5.5': write dropout[{p}]"),
        (
            "relu-dense99999999999",
            "layer 2 (dense99999999999): the number of outputs is 99999999999, it must be 1 to 65536",
        ),
        ("relu-dense99999999999999999999999", "the number of outputs is 99999999999999999999999,"),
        ("relu-convv8", "layer 2 (convv8): the number of output channels is missing"),
        ("relu-rellu", "layer 2 (rellu): unknown layer, did you mean relu?; known: conv, pool,"),
        ("relu-drpout0.5", "layer 2 (drpout0.5): unknown layer, did you mean dropout?"),
        ("relu--relu", "layer 2 (): nothing between two dashes"),
        ("relu-", "layer 2 (): nothing between two dashes"),
        ("conv8k3k5-relu", "layer 1 (conv8k3k5): k is given twice"),
        ("conv8nbnb-relu", "nb is given twice"),
        ("conv8k3x-relu", "the kernel size is missing"),
        ("conv8s0-relu", "the stride is 0, it must be 1 to 1024"),
        ("conv8q3-relu", "layer 1 (conv8q3): cannot read 'q3': write conv{out}"),
        ("conv8n-relu", "cannot read 'n'"),
        ("pool2k3-relu", "cannot read 'k3': write pool[{}][s{}][p{}]"),
        ("adaptive-relu", "the output size is missing: write adaptive{H}x{W}"),
        ("relu-bn2", "layer 2 (bn2): cannot read '2': write bn"),
        ("relu-a\nb", "layer 2 (a\\nb): unknown layer"),
        ("conv8-çonv", "layer 2 (çonv): unknown layer"),
    ] {
        let message = problem(text, [1, 64, 64], 2);
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let many = "1000x[1000x[1000x[1000x[1000x[1000x[1000x[1000x[relu]]]]]]]]";
    assert_eq!(Model::new(many, [1, 8, 8], 2), Err(ModelError::TooManyLayers { count: usize::MAX }));
    let many = vec!["relu"; 1001].join("-");
    assert_eq!(Model::new(&many, [1, 8, 8], 2), Err(ModelError::TooManyLayers { count: 1001 }));
}

#[test]
fn shapes_that_do_not_fit_name_the_layer_and_the_shape() {
    for (text, input, classes, expected) in [
        (
            "conv64-pool-pool-conv8-relu-relu-pool-flatten-dense2",
            [1, 4, 4],
            2,
            "layer 7 (pool): the input [N, 8, 1, 1] is smaller than the window 2x2: use a larger --size or fewer pools",
        ),
        (
            "conv8k5p0-flatten-dense2",
            [1, 4, 9],
            2,
            "layer 1 (conv8k5p0): the input [N, 1, 4, 9] is smaller than the window 5x5",
        ),
        ("conv8k3d4p0-flatten-dense2", [1, 8, 8], 2, "smaller than the window 9x9"),
        ("conv8g2-flatten-dense2", [1, 8, 8], 2, "2 groups must divide the 1 input channels and the 8 output channels"),
        (
            "conv8-dense2",
            [1, 8, 8],
            2,
            "layer 2 (dense2): needs rows [N, features], but [N, 8, 8, 8] reaches it: put flatten before it",
        ),
        ("flatten-conv8-dense2", [1, 8, 8], 2, "layer 2 (conv8): needs images [N, C, H, W], but [N, 64] reaches it"),
        (
            "pool3p2-flatten-dense2",
            [1, 8, 8],
            2,
            "layer 1 (pool3p2): the padding 2 must be at most half of the window 3x3",
        ),
        ("conv8", [1, 8, 8], 2, "layer 1 (conv8): ends the network with images [N, 8, 8, 8]: add flatten, then dense2"),
        (
            "flatten-dense3",
            [1, 8, 8],
            2,
            "layer 2 (dense3): ends the network with 3 outputs for 2 classes: end with dense2 (softmax) or dense1 (sigmoid)",
        ),
        ("flatten-dense1", [1, 8, 8], 3, "ends the network with 1 outputs for 3 classes: end with dense3"),
        (
            "flatten-dense2-softmax",
            [1, 8, 8],
            2,
            "layer 3 (softmax): must not end the network: the loss applies softmax itself",
        ),
        ("cnn3", [1, 4, 4], 2, "layer 9 (pool): the input [N, 128, 1, 1] is smaller than the window 2x2"),
        ("cnn1", [1, 0, 4], 2, "the input [1, 0, 4] (channels, height, width) must have 1 to 268435456 numbers"),
        ("cnn1", [3, usize::MAX, 4], 2, "must have 1 to"),
        ("cnn1", [1, 64, 64], 1, "1 classes: a classifier needs 2 to 65536"),
        (
            "conv65536-flatten-dense2",
            [1, 1024, 1024],
            2,
            "layer 1 (conv65536): its output [N, 65536, 1024, 1024] has more than 268435456 numbers",
        ),
        (
            "flatten-dense65536-dense2",
            [1, 512, 512],
            2,
            "layer 2 (dense65536): its weight [65536, 262144] has more than",
        ),
        (
            "conv64k1023-conv64k1023-flatten-dense2",
            [1, 512, 512],
            2,
            "layer 1 (conv64k1023): needs more than 10^13 operations",
        ),
        (
            "conv8-[conv16s2-bn]+-gap-flatten-dense2",
            [1, 9, 9],
            2,
            "layer 2 ([conv16s2-bn]+): [N, 16, 5, 5] and [N, 8, 9, 9] cannot be added: keep the shape, or write a shortcut behind \
             the block, ]+[conv16k1s2-bn]",
        ),
        (
            "conv8-[conv8k1x3p0-bn]+-gap-flatten-dense2",
            [1, 9, 9],
            2,
            "cannot be added: keep the shape, or write a shortcut behind the block, ]+[...]",
        ),
        ("[gap-flatten-dense4]+-dense2", [1, 9, 9], 2, "a shortcut behind the block, ]+[flatten-dense4]"),
        (
            "conv8-[conv16s2]+[conv16k1]-gap-flatten-dense2",
            [1, 8, 8],
            2,
            "[N, 16, 4, 4] and [N, 16, 8, 8] cannot be added: change the layers on the shortcut so that both are alike",
        ),
        (
            "conv8-[conv4s2]++-gap-flatten-dense2",
            [1, 8, 8],
            2,
            "layer 2 ([conv4s2]++): [N, 8, 8, 8] and [N, 4, 4, 4] cannot stand behind each other: with ++ the layers in",
        ),
        (
            "2x[a=conv4]-gap-flatten-dense2",
            [1, 8, 8],
            2,
            "layer 1.1 (a=conv4): another layer is called a already: name one of them (NAME=...), or the brackets around it",
        ),
        ("conv2=conv4-conv4-conv4-gap-flatten-dense2", [1, 8, 8], 2, "layer 3 (conv4): another layer is called conv2"),
        (
            "2x[2x[conv4-pool]]-gap-flatten-dense2",
            [1, 8, 8],
            2,
            "layer 1.1.2 (pool): the input [N, 4, 1, 1] is smaller",
        ),
        (
            "alexnet",
            [3, 62, 62],
            2,
            "(pool3s2): the input [N, 256, 2, 2] is smaller than the window 3x3: use a larger --size",
        ),
        (
            "densenet121",
            [3, 16, 16],
            2,
            "layer 11.4 (avgpool): the input [N, 512, 1, 1] is smaller than the window 2x2",
        ),
        (
            "flatten-dense16384-dense16384-dense16384-dense2",
            [1, 8, 8],
            2,
            "the model has more than 268435456 parameters",
        ),
    ] {
        let message = problem(text, input, classes);
        assert!(message.contains(expected), "{text}: {message}");
    }
}

/// Random edits of good texts: whatever comes out is read or refused, and what is read is written back the same.
#[test]
fn no_text_panics() {
    let seeds = [
        CHAIN,
        "cnn3",
        "simple",
        "conv8-bn-[conv8-relu-conv8]+-a=2x[bn-conv4]++-[conv8s2]+[c=conv8k1s2]-gap-flatten-fc=dense2",
        "3x[[conv8]+-relu]-initout-gap-flatten-dense2zb",
        "conv8k3x5s2x1p0x2d2g4nb-avgpool3s2p1-adaptive7x5-lrelu0.2-elu0.7-gap-flatten-dense3nb",
    ];
    let pieces = [
        "-",
        "0",
        "1",
        "9",
        "99999999999999999999",
        ".",
        "x",
        "k",
        "s",
        "p",
        "d",
        "g",
        "n",
        "b",
        "conv",
        "pool",
        "dense",
        "drop",
        "é",
        "\u{0}",
        "\n",
        "\u{1F600}",
        " ",
        "-flatten-",
        "K",
        "e5",
        "+",
        "İ",
        "[",
        "]",
        "]+",
        "]++",
        "]+[",
        "2x[",
        "n1=",
        "=",
    ];
    let mut rng = Rng::new(11, 0, Stream::Sample as u32);
    let (mut read, mut planned) = (0, 0);
    for _ in 0..20_000 {
        let mut text: Vec<char> = seeds[rng.below(seeds.len() as u32) as usize].chars().collect();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(text.len() as u32 + 1) as usize;
            let end = (at + rng.below(4) as usize).min(text.len());
            let piece = pieces[rng.below(pieces.len() as u32) as usize];
            match rng.below(3) {
                0 => drop(text.splice(at..end, piece.chars())),
                1 => drop(text.splice(at..at, piece.chars())),
                _ => drop(text.drain(at..end)),
            }
        }
        let text: String = text.into_iter().collect();
        match Network::parse(&text, 2) {
            Ok(network) => {
                read += 1;
                let written = network.to_string();
                assert_eq!(Network::parse(&written, 2), Ok(network), "{text:?}");
            }
            Err(e) => assert!(!e.to_string().contains('\n'), "{text:?}"),
        }
        let size = 1 << rng.below(8);
        if let Ok(model) = Model::new(&text, [1 + rng.below(3) as usize, size, size], 2) {
            planned += 1;
            Summary::new(&model, 1 + rng.below(8) as usize).expect("a planned model is recorded");
        }
    }
    assert!(read > 500 && planned > 200, "{read} read, {planned} planned: the edits are too wild");
}

/// Counted by hand for one grey channel, 64 x 64, two classes. conv: out (in 3 3) + out; dense: out in + out.
#[test]
fn parameter_counts() {
    for (name, count) in [
        // (128 4096 + 128) + (2 128 + 2) = 524,416 + 258
        ("mlp", 524_674),
        // conv1 32 9 + 32 = 320; 32 32 32 = 32,768 features: 128 32,768 + 128 = 4,194,432; 258
        ("cnn1", 4_195_010),
        // 320; conv2 64 288 + 64 = 18,496; 64 16 16 = 16,384 features: 2,097,280; 258
        ("cnn2", 2_116_354),
        // 320; 18,496; conv3 128 576 + 128 = 73,856; 128 8 8 = 8,192 features: 1,048,704; 258
        ("cnn3", 1_141_634),
        // conv1 6 25 + 6 = 156; 64 - 4 = 60, pooled 30; conv2 16 150 + 16 = 2,416; 30 - 4 = 26, pooled 13;
        // 16 13 13 = 2,704 features: 120 2,704 + 120 = 324,600; 84 120 + 84 = 10,164; 2 84 + 2 = 170
        ("simple", 337_506),
        // grey: torchvision's 57,012,034, 11,177,538, ... less two of three channels of the first convolution
        ("alexnet", 57_012_034 - 2 * 64 * 121),
        ("resnet18", 11_177_538 - 2 * 64 * 49),
        ("resnet34", 21_285_698 - 2 * 64 * 49),
        ("densenet121", 6_955_906 - 2 * 64 * 49),
        ("densenet161", 26_476_418 - 2 * 96 * 49),
    ] {
        let model = Model::new(name, [1, 64, 64], 2).expect(name);
        assert_eq!(model.trainable_numel(), count, "{name}");
        assert_eq!((model.outputs(), model.head()), (2, Head::Softmax));
        let mut store = ParamStore::new();
        model.init(&mut store, 0);
        assert_eq!(store.trainable_numel(), count, "{name}");
    }
    assert_eq!(named::NAMES.len(), 10);
}

#[test]
fn activations_are_kept_as_written() {
    let network = Network::parse("elu0.25-lrelu", 2).unwrap();
    let expected = [Activation::Elu { alpha: 0.25 }, Activation::LeakyRelu { slope: 0.01 }];
    assert_eq!(network.layers, expected.map(Layer::Activation));
}
