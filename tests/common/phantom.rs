//! The phantom set for tests that train.

use radiograd::data::phantom::PhantomSizes;
use radiograd::data::{CachePolicy, Dataset, LoadOptions, Source, Splits, load};

/// Images of `size` by `size`, so many for training, validation and test.
pub fn phantom(size: usize, [train, val, test]: [usize; 3]) -> Dataset {
    let options = LoadOptions {
        size: (size, size),
        splits: Splits::STUDY,
        cache: CachePolicy::Off,
        phantom: PhantomSizes { train, val, test },
        ..LoadOptions::default()
    };
    load(&Source::Phantom, &options).expect("the phantom set is drawn, not read")
}
