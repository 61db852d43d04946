//! Cells by name, kept alive by whoever uses them. Snapshots hold the strong pointers, this map only
//! weak ones: a cell lives exactly as long as a snapshot, or a request on an old one, needs it.
//! Locked only while compiling a snapshot and while gathering metrics; never on the request path.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

type Key = (TypeId, String);

/// The map of cells.
#[derive(Default)]
pub(crate) struct Retained {
    cells: Mutex<HashMap<Key, Weak<dyn Any + Send + Sync>>>,
}

impl Retained {
    /// The living cell of this type and name, or a new one from `make`.
    ///
    /// Names start with the owner (a route, an upstream) and say the purpose, so that two owners
    /// never share a verdict by accident.
    pub(crate) fn cell<T: Send + Sync + 'static>(
        &self,
        name: &str,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (TypeId::of::<T>(), name.to_owned());
        let living = cells.get(&key).and_then(Weak::upgrade).and_then(|any| any.downcast().ok());
        living.unwrap_or_else(|| {
            let cell = Arc::new(make());
            let weak: Weak<dyn Any + Send + Sync> = Arc::downgrade(&cell) as _;
            cells.insert(key, weak);
            cell
        })
    }

    /// All living cells of one type.
    pub(crate) fn all<T: Send + Sync + 'static>(&self) -> Vec<Arc<T>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<(&String, Arc<T>)> = cells
            .iter()
            .filter(|((kind, _), _)| *kind == TypeId::of::<T>())
            .filter_map(|((_, name), weak)| Some((name, weak.upgrade()?.downcast().ok()?)))
            .collect();
        found.sort_by(|a, b| a.0.cmp(b.0));
        found.into_iter().map(|(_, cell)| cell).collect()
    }

    /// Forgets the names of dead cells.
    pub(crate) fn sweep(&self) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|_, weak| weak.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_lives_as_long_as_somebody_uses_it() {
        let retained = Retained::default();
        let first = retained.cell("a", || 1_u32);
        assert_eq!(*retained.cell("a", || 2_u32), 1);
        drop(first);
        retained.sweep();
        assert_eq!(*retained.cell("a", || 3_u32), 3);
    }

    #[test]
    fn types_do_not_share_names() {
        let retained = Retained::default();
        let number = retained.cell("a", || 1_u32);
        let text = retained.cell("a", || "x".to_owned());
        assert_eq!((*number, text.as_str()), (1, "x"));
        assert_eq!(retained.all::<u32>().len(), 1);
    }
}
