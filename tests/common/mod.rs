//! What the integration tests share.

use radiograd::gpu::{Executor, Gpu, Options, Wanted};

/// An executor on the best adapter. Without one the test fails where `RADIOGRAD_REQUIRE_GPU` is 1, and says that it was
/// skipped elsewhere.
pub fn gpu(options: Options) -> Option<Executor> {
    match Gpu::open(Wanted::Best) {
        Ok(gpu) => Some(Executor::new(gpu, options)),
        Err(e) if std::env::var("RADIOGRAD_REQUIRE_GPU").is_ok_and(|v| v == "1") => panic!("{e}"),
        Err(e) => {
            eprintln!("SKIPPED, no GPU adapter: {e}");
            None
        }
    }
}
