//! Heads of HTTP/1 requests, as the gate and the parser behind it read them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_proxy::fuzzing::check("head", data));
