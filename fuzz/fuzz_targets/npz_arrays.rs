#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| radiograd_fuzz::npz_arrays(bytes));
