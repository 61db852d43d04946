//! Answers of services, as our client side of HTTP/1.1 and hyper's read them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_proxy::fuzzing::check("answer", data));
