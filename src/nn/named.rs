//! The named networks, each as a chain of layers.

/// The names that a model text may be.
pub const NAMES: [&str; 10] =
    ["mlp", "cnn1", "cnn2", "cnn3", "simple", "alexnet", "resnet18", "resnet34", "densenet121", "densenet161"];

/// The chain of the network of that name (upper and lower case alike) for so many classes; `None` for an unknown name.
///
/// - `mlp`: one hidden layer of 128, no convolution: what the others are compared with.
/// - `cnn1`, `cnn2`, `cnn3`: one to three times convolution 3x3 (32, 64, 128 channels), ReLU, max-pool 2; then a hidden
///   layer of 128 with dropout 0.5. The networks of the depth study.
/// - `simple`: LeNet-5's layout (LeCun et al. 1998) with ReLU and max-pools: two convolutions 5x5 without padding, hidden
///   layers of 120 and 84.
/// - `alexnet`: the one-column AlexNet (Krizhevsky 2014, arXiv 1404.5997).
/// - `resnet18`, `resnet34`: ResNets of basic blocks (He et al. 2016, arXiv 1512.03385).
/// - `densenet121`, `densenet161`: DenseNets with bottlenecks and halving transitions (Huang et al. 2017, arXiv 1608.06993).
///
/// The last three kinds have torchvision's layers, first values and parameter names, so that weights go either way.
#[must_use]
pub fn chain(name: &str, classes: usize) -> Option<String> {
    let body = match name.to_ascii_lowercase().as_str() {
        "mlp" => "flatten-dense128-relu",
        "cnn1" => "conv32-relu-pool-flatten-dense128-relu-dropout",
        "cnn2" => "conv32-relu-pool-conv64-relu-pool-flatten-dense128-relu-dropout",
        "cnn3" => "conv32-relu-pool-conv64-relu-pool-conv128-relu-pool-flatten-dense128-relu-dropout",
        "simple" => "conv6k5p0-relu-pool-conv16k5p0-relu-pool-flatten-dense120-relu-dense84-relu",
        "alexnet" => return Some(alexnet(classes)),
        "resnet18" => return Some(resnet([2, 2, 2, 2], classes)),
        "resnet34" => return Some(resnet([3, 4, 6, 3], classes)),
        "densenet121" => return Some(densenet(64, 32, [6, 12, 24, 16], classes)),
        "densenet161" => return Some(densenet(96, 48, [6, 12, 36, 24], classes)),
        _ => return None,
    };
    Some(format!("{body}-dense{classes}"))
}

/// Five convolutions, three max-pools 3x3 with stride 2, and three dense layers on 6x6 pixels. The numbers of the names are
/// positions in torchvision's lists.
fn alexnet(classes: usize) -> String {
    let features = "features.0=conv64k11s4p2-relu-pool3s2-features.3=conv192k5-relu-pool3s2-features.6=conv384-relu-\
                    features.8=conv256-relu-features.10=conv256-relu-pool3s2-adaptive6x6-flatten";
    format!(
        "{features}-dropout-classifier.1=dense4096-relu-dropout-classifier.4=dense4096-relu-classifier.6=dense{classes}"
    )
}

/// Four stages of basic blocks with 64 to 512 channels; all but the first halve the image in their first block, whose shortcut
/// is then a convolution 1x1.
fn resnet(blocks: [usize; 4], classes: usize) -> String {
    let mut text = "initout-conv64k7s2nb-bn-relu-pool3s2p1".to_owned();
    for (i, mut count) in blocks.into_iter().enumerate() {
        let (stage, c) = (i + 1, 64 << i);
        let mut number = 0;
        if i > 0 {
            text += &format!(
                "-layer{stage}.0=[[conv{c}s2nb-bn-relu-conv{c}nb-bn]+[downsample.0=conv{c}k1s2nb-downsample.1=bn]-relu]"
            );
            (number, count) = (1, count - 1);
        }
        text += &format!("-layer{stage}.{number}={}[[conv{c}nb-bn-relu-conv{c}nb-bn]+-relu]", times(count));
    }
    text + &format!("-gap-flatten-fc=dense{classes}")
}

/// Four dense blocks whose layers add `growth` channels each by way of `4 growth`; transitions between them halve channels and
/// size.
fn densenet(first: usize, growth: usize, blocks: [usize; 4], classes: usize) -> String {
    let mut text = format!("initin-features.conv0=conv{first}k7s2nb-features.norm0=bn-relu-pool3s2p1");
    let mut channels = first;
    for (i, count) in blocks.into_iter().enumerate() {
        let block = i + 1;
        text += &format!(
            "-features.denseblock{block}.denselayer1={}[norm1=bn-relu-conv{}k1nb-norm2=bn-relu-conv{growth}nb]++",
            times(count),
            4 * growth
        );
        channels += count * growth;
        if block < blocks.len() {
            channels /= 2;
            text += &format!("-features.transition{block}=[norm=bn-relu-conv=conv{channels}k1nb-avgpool]");
        }
    }
    text + &format!("-features.norm5=bn-relu-gap-flatten-classifier=dense{classes}zb")
}

/// `3x`, or nothing for one.
fn times(count: usize) -> String {
    if count == 1 { String::new() } else { format!("{count}x") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Network;

    #[test]
    fn every_name_has_a_network_that_is_a_chain() {
        for name in NAMES {
            let network = Network::parse(name, 7).expect(name);
            let text = network.to_string();
            assert_eq!(Some(&text), chain(name, 7).as_ref());
            assert_eq!(Network::parse(&text, 7).as_ref(), Ok(&network), "{name}");
            let upper = Network::parse(&name.to_uppercase(), 7).expect(name);
            assert_eq!(upper, network);
        }
        assert_eq!(chain("cnn9", 7), None);
    }
}
