//! Every fuzz target: the body in `xtask::fuzz` that is called as the program is.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = xtask::fuzz::check(env!("CARGO_BIN_NAME"), bytes) {
        panic!("{error:#}");
    }
});
