//! Turns: writers of one key go one after another inside this process, so that
//! they do not fail each other's expectations. For speed only; what keeps
//! writers apart is the engine's commit.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// A fixed number of locks; names that share one wait for each other.
#[derive(Debug)]
pub(crate) struct Turns {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Turns {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            locks: (0..count).map(|_| Mutex::new(())).collect(),
            hasher: RandomState::new(),
        }
    }

    fn index(&self, name: &impl Hash) -> usize {
        let count = self.locks.len() as u64;
        usize::try_from(self.hasher.hash_one(name) % count).expect("below a usize")
    }

    /// Waits for the turn of one name.
    pub(crate) async fn one(&self, name: &impl Hash) -> MutexGuard<'_, ()> {
        self.locks[self.index(name)].lock().await
    }

    /// Waits for the turns of many names, in one order for all callers, so
    /// that no two wait for each other.
    pub(crate) async fn many<N: Hash>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Vec<MutexGuard<'_, ()>> {
        let indices: BTreeSet<_> = names.into_iter().map(|name| self.index(&name)).collect();
        let mut guards = Vec::with_capacity(indices.len());
        for index in indices {
            guards.push(self.locks[index].lock().await);
        }
        guards
    }
}
