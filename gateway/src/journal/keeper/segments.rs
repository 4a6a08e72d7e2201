//! The segments of the journal on their disks: copies of those that too few
//! living disks hold, and removing what is no part of it.
//!
//! Invariant: a copy counts once it is known to be whole.

use shardgate_journal::copies::{copy, is_whole, list_segments, plan_copies, plan_looks};
use shardgate_journal::{JournalError, SegmentId};

use super::Keeper;

/// Segments that are copied, and copies that are looked at, in one turn.
const COPIES_AT_ONCE: usize = 2;

impl Keeper {
    pub(super) async fn copy_segments(&self) -> Result<(), JournalError> {
        let inner = &self.inner;
        self.look_at_copies().await?;
        let tasks = {
            let mut held = inner.journal.hold().await;
            let writer = held.writer()?;
            let closed = writer.closed();
            let tasks = plan_copies(closed, &self.living(), self.parity());
            let of = |segment| closed.iter().find(|of| of.segment == segment).cloned();
            let tasks = tasks.into_iter().take(COPIES_AT_ONCE);
            tasks
                .filter_map(|task| Some((of(task.segment)?, task)))
                .collect::<Vec<_>>()
        };
        for (closed, task) in tasks {
            let (from, to) = (task.from.0, task.to);
            let (source, target) = (
                inner.pool.inner.ways.get(from),
                inner.pool.inner.ways.get(to),
            );
            match copy(&closed, &source, &target, inner.journal.context()).await {
                Ok(file) => {
                    tracing::info!(segment = %task.segment, %from, %to, "segment copied");
                    let mut held = inner.journal.hold().await;
                    held.writer()?.copied(task.segment, to, file);
                }
                Err(error) => {
                    tracing::warn!(segment = %task.segment, %from, %to, %error, "segment not copied");
                }
            }
        }
        Ok(())
    }

    /// Looks whether copies that earlier gateways began were finished, and
    /// removes those that were not.
    async fn look_at_copies(&self) -> Result<(), JournalError> {
        let inner = &self.inner;
        let looks = {
            let mut held = inner.journal.hold().await;
            let closed = held.writer()?.closed();
            let looks = plan_looks(closed, &self.living()).into_iter();
            let of = |segment| closed.iter().find(|of| of.segment == segment).cloned();
            looks
                .take(COPIES_AT_ONCE)
                .filter_map(|(segment, disk, file)| Some((of(segment)?, disk, file)))
                .collect::<Vec<_>>()
        };
        for (closed, disk, file) in looks {
            let way = inner.pool.inner.ways.get(disk);
            let ctx = inner.journal.context();
            let whole = match is_whole(&closed, &way, file, ctx).await {
                Ok(whole) => whole,
                Err(error) => {
                    tracing::warn!(segment = %closed.segment, %disk, %error, "copy not looked at");
                    continue;
                }
            };
            let mut held = inner.journal.hold().await;
            if whole {
                held.writer()?.copied(closed.segment, disk, file);
                continue;
            }
            held.writer()?.not_copied(closed.segment, disk);
            drop(held);
            tracing::warn!(segment = %closed.segment, %disk, "a copy was never finished");
            // What is kept is removed with its segment.
            let _ = way.remove(&ctx, &[file]).await;
        }
        Ok(())
    }

    /// Removes segments that this gateway began and gave up, and those that no
    /// checkpoint needs, of which a disk that was away did not hear.
    pub(super) async fn sweep(&self) -> Result<(), JournalError> {
        let inner = &self.inner;
        for disk in inner.pool.inner.ways.open() {
            let ctx = inner.journal.context();
            let Ok(listed) = list_segments(&disk, ctx).await else {
                continue;
            };
            let void: Vec<_> = {
                let mut held = inner.journal.hold().await;
                let writer = held.writer()?;
                let is_over = |of: SegmentId| writer.is_void(of) || writer.is_trimmed(of);
                let void = listed.iter().filter(|(segment, _)| is_over(*segment));
                void.map(|(_, file)| *file).collect()
            };
            if !void.is_empty() {
                tracing::info!(disk = %disk.disk(), void = void.len(), "void segments are removed");
                // Kept ones are tried again at the next sweep.
                let _ = disk.remove(&ctx, &void).await;
            }
        }
        Ok(())
    }
}
