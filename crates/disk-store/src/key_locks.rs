//! One at a time on the file of a shard: creating, replacing, removing it.
//!
//! Invariant: a thread that waits for a lock holds no other one, so there is
//! no circle; a batch that needs many only tries.

use std::collections::HashSet;

use parking_lot::{Condvar, Mutex};
use shardgate_wire::ShardKey;

#[derive(Debug, Default)]
pub(crate) struct KeyLocks {
    held: Mutex<HashSet<ShardKey>>,
    freed: Condvar,
}

#[derive(Debug)]
pub(crate) struct KeyGuard<'a> {
    locks: &'a KeyLocks,
    key: ShardKey,
}

impl KeyLocks {
    pub(crate) fn lock(&self, key: ShardKey) -> KeyGuard<'_> {
        let mut held = self.held.lock();
        while !held.insert(key) {
            self.freed.wait(&mut held);
        }
        KeyGuard { locks: self, key }
    }

    pub(crate) fn try_lock(&self, key: ShardKey) -> Option<KeyGuard<'_>> {
        let free = self.held.lock().insert(key);
        // Lazily: a guard that is made and dropped would free another's lock.
        free.then(|| KeyGuard { locks: self, key })
    }
}

impl Drop for KeyGuard<'_> {
    fn drop(&mut self) {
        self.locks.held.lock().remove(&self.key);
        self.locks.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_wire::ids::{BlobId, GroupId};

    #[test]
    fn a_lock_that_was_only_tried_stays_the_holders() {
        let key = ShardKey {
            group: GroupId(1),
            blob: BlobId(1),
            index: 0,
        };
        let locks = KeyLocks::default();
        let guard = locks.try_lock(key);
        assert!(guard.is_some());
        assert!(locks.try_lock(key).is_none());
        assert!(locks.try_lock(key).is_none());
        drop(guard);
        assert!(locks.try_lock(key).is_some());
    }
}
