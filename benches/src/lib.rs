//! Benchmarks live in `benches/`, one file per floor; this library is empty.
