//! What the engine's mechanisms cost: `cargo bench -p sluice-benches`. Read ratios, not times: the
//! claim is that a look-up costs nearly the same in a table of 10 routes and of 10,000.

mod mechanisms;

use criterion::{Criterion, criterion_group, criterion_main};

fn engine(c: &mut Criterion) {
    for mechanism in mechanisms::all() {
        let mut step = (mechanism.prepare)();
        c.bench_function(mechanism.name, |b| b.iter(&mut step));
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
