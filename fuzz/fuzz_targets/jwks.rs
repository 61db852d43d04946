//! Sets of keys, as issuers publish them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_proxy::fuzzing::check("jwks", data));
