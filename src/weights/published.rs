//! The networks whose published ImageNet weights are known, and where they lie.
//!
//! They are torchvision's `IMAGENET1K_V1` weights of 1000 classes. Each file's name ends in the first 8 hexadecimal digits of its
//! SHA-256, which is what a download is checked against.

use std::path::{Path, PathBuf};

/// Where PyTorch publishes the files.
pub const OFFICIAL: &str = "https://download.pytorch.org/models";

/// The folder of published weights in the cache folder.
const FOLDER: &str = "weights";

/// Published weights of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The network's name, as `--model` takes it.
    pub network: &'static str,
    /// The file's name, in its official place and here.
    pub file: &'static str,
}

/// All that are known.
pub const PUBLISHED: [Published; 5] = [
    Published { network: "alexnet", file: "alexnet-owt-7be5be79.pth" },
    Published { network: "resnet18", file: "resnet18-f37072fd.pth" },
    Published { network: "resnet34", file: "resnet34-b627a593.pth" },
    Published { network: "densenet121", file: "densenet121-a639ec97.pth" },
    Published { network: "densenet161", file: "densenet161-8d451a50.pth" },
];

impl Published {
    /// The weights of the network of that name, upper and lower case alike.
    #[must_use]
    pub fn find(network: &str) -> Option<&'static Self> {
        PUBLISHED.iter().find(|p| p.network.eq_ignore_ascii_case(network))
    }

    /// The first digits of the file's SHA-256.
    #[must_use]
    pub fn checksum(&self) -> &'static str {
        self.file.trim_end_matches(".pth").rsplit('-').next().unwrap_or_default()
    }

    /// Where the file lies, or will, below the cache folder.
    #[must_use]
    pub fn path(&self, cache: &Path) -> PathBuf {
        cache.join(FOLDER).join(self.file)
    }

    /// Its address below `base`, which is [`OFFICIAL`] or a copy of it.
    #[must_use]
    pub fn url(&self, base: &str) -> String {
        format!("{}/{}", base.trim_end_matches('/'), self.file)
    }
}

/// The names, as messages list them.
#[must_use]
pub fn names() -> String {
    PUBLISHED.map(|p| p.network).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::named;

    #[test]
    fn every_entry_is_a_network_and_names_its_checksum() {
        for p in PUBLISHED {
            assert!(named::chain(p.network, 1000).is_some(), "{}", p.network);
            assert!(p.checksum().len() == 8 && p.checksum().bytes().all(|b| b.is_ascii_hexdigit()), "{}", p.file);
            assert_eq!(Published::find(&p.network.to_uppercase()), Some(&p));
            assert_eq!(p.url("http://a/b/"), format!("http://a/b/{}", p.file));
        }
        assert_eq!(Published::find("resnet50"), None);
    }
}
