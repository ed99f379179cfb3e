//! The named networks, each as a chain of layers.

/// The names that a model text may be.
pub const NAMES: [&str; 5] = ["mlp", "cnn1", "cnn2", "cnn3", "simple"];

/// The layers of the network of that name (upper and lower case alike) up to its last one, which is `dense{classes}`;
/// `None` for an unknown name.
///
/// - `mlp`: one hidden layer of 128, no convolution: what the others are compared with.
/// - `cnn1`, `cnn2`, `cnn3`: one to three times convolution 3x3 (32, 64, 128 channels), ReLU, max-pool 2; then a hidden
///   layer of 128 with dropout 0.5. The networks of the depth study.
/// - `simple`: LeNet-5's layout (LeCun et al. 1998) with ReLU and max-pools: two convolutions 5x5 without padding, hidden
///   layers of 120 and 84.
#[must_use]
pub fn body(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "mlp" => "flatten-dense128-relu",
        "cnn1" => "conv32-relu-pool-flatten-dense128-relu-dropout",
        "cnn2" => "conv32-relu-pool-conv64-relu-pool-flatten-dense128-relu-dropout",
        "cnn3" => "conv32-relu-pool-conv64-relu-pool-conv128-relu-pool-flatten-dense128-relu-dropout",
        "simple" => "conv6k5p0-relu-pool-conv16k5p0-relu-pool-flatten-dense120-relu-dense84-relu",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Network;

    #[test]
    fn every_name_has_a_network() {
        for name in NAMES {
            let text = Network::parse(name, 7).expect(name).to_string();
            assert_eq!(text, format!("{}-dense7", body(name).expect(name)));
            let upper = Network::parse(&name.to_uppercase(), 7).expect(name);
            assert_eq!(upper.to_string(), text);
        }
        assert_eq!(body("cnn9"), None);
    }
}
