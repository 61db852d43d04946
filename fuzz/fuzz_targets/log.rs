//! Fields of the access log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_proxy::fuzzing::check("log", data));
