//! Values of header fields, and texts with holes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_proxy::fuzzing::check("words", data));
