//! Which worker this thread is, for what keeps a part for each worker. Threads that are no workers have
//! the first seat, so whatever is kept by seat still needs a lock, though hardly anybody waits for it.

use std::cell::Cell;

/// Parts to keep; workers beyond share them.
pub(crate) const COUNT: usize = 16;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Says that this thread is worker `number`.
pub(crate) fn take(number: usize) {
    NUMBER.set(number);
}

/// The number of this thread's worker.
pub(crate) fn number() -> usize {
    NUMBER.get()
}
