//! `delete`: names go, then each folder that lost one is synced once.

use std::collections::BTreeSet;

use shardgate_wire::{CallContext, ShardKey, StoreError, bounds};

use crate::core::Core;
use crate::names::FolderName;
use crate::volume::OwnedOp;

impl Core {
    pub(crate) fn delete_shards(
        &self,
        ctx: &CallContext,
        keys: &[ShardKey],
    ) -> Result<(), StoreError> {
        let _gate = self.enter(ctx)?;
        bounds::check_batch(keys.len())?;
        let mut touched = BTreeSet::new();
        for key in keys {
            let _guard = self.keys.lock(*key);
            self.handles.end(*key);
            self.cache.remove(*key);
            if !self.folders.may_be(FolderName::of(key)) {
                continue;
            }
            self.unlink(*key)?;
            // A name that was gone before may be gone in the cache only.
            touched.insert(FolderName::of(key));
        }
        for name in &touched {
            if let Some(folder) = self.folders.find(&self.condition, *name)? {
                let ticket = folder.changed();
                self.sync_folder(&folder, ticket)?;
            }
        }
        for name in touched {
            self.folders.remove_if_empty(name);
        }
        let ops = keys.iter().map(|key| OwnedOp::Delete(*key)).collect();
        let answers = self.volumes.commit_with_others(ops);
        answers.into_iter().collect::<Result<(), _>>()?;
        self.damaged.forget(keys);
        // What is large gives its space back before the answer, which does not
        // hang on it: the shards are gone, durably. A disk that closes waits for
        // no such thing; compaction gives it back.
        if !self.lanes.is_closing()
            && let Err(error) = self.volumes.punch_some()
        {
            tracing::warn!(disk = %self.identity.disk, %error, "space of deleted shards is given back later");
        }
        Ok(())
    }
}
