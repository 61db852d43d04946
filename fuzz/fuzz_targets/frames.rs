//! The frames of an HTTP/2 client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_proxy::fuzzing::check("frames", data));
