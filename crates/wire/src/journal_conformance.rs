//! What every [`JournalDisk`] must do, as one suite.
//!
//! [`run`] makes a fresh disk for each case and asserts the documented
//! behaviour through the trait alone. What survives which power loss is
//! tested where the disk is written.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::conformance::sample::CLUSTER;
use crate::ids::{CommitNumber, Epoch, InstanceId, LineageId};
use crate::journal::{
    DiskRoots, JOURNAL_PAGE, JournalDisk, JournalFile, MAX_CHECKPOINT_ROOT_BYTES,
    MAX_JOURNAL_READ_BYTES, MAX_POOL_MAP_BYTES,
};
use crate::space::Purpose;
use crate::store::{CallContext, StoreError};

/// A disk of the samples' cluster that is put through the suite; its segments
/// take at least 64 pages.
#[async_trait]
pub trait JournalSubject: Send + Sync {
    /// The disk, as its callers have it.
    fn disk(&self) -> Arc<dyn JournalDisk>;

    /// Stops and starts what holds the disk; what was answered stays.
    async fn restart(&mut self);
}

fn ctx(number: u64, instance: u128) -> CallContext {
    CallContext {
        cluster: CLUSTER,
        epoch: Epoch {
            number,
            instance: InstanceId(instance),
        },
        lineage: LineageId(1),
        committed: CommitNumber(number),
        purpose: Purpose::Client,
    }
}

fn pages(count: usize, fill: u8) -> Bytes {
    Bytes::from(vec![fill; count * JOURNAL_PAGE])
}

/// What a file holds, zeroes behind its end cut off in whole pages.
async fn content(disk: &dyn JournalDisk, ctx: &CallContext, file: JournalFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let at = bytes.len() as u64;
        let read = disk.read(ctx, file, at, MAX_JOURNAL_READ_BYTES).await;
        let read = read.expect("a file of the disk is read");
        bytes.extend_from_slice(&read);
        if read.len() < MAX_JOURNAL_READ_BYTES {
            break;
        }
    }
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    bytes.truncate(end.next_multiple_of(JOURNAL_PAGE));
    bytes
}

async fn listed(disk: &dyn JournalDisk, ctx: &CallContext) -> Vec<JournalFile> {
    let files = disk.files(ctx).await.expect("files are listed");
    files.into_iter().map(|file| file.file).collect()
}

fn sorted(files: &[JournalFile]) -> Vec<JournalFile> {
    let mut files = files.to_vec();
    files.sort_unstable();
    files
}

/// Runs all cases, each on a disk of its own.
pub async fn run<F, Fut, S>(fresh: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
    S: JournalSubject,
{
    appends_come_back_after_a_restart(fresh().await).await;
    repeats_are_done_and_other_places_refused(fresh().await).await;
    older_epochs_are_refused(fresh().await).await;
    bounds_are_kept(fresh().await).await;
    files_are_removed(fresh().await).await;
    roots_are_kept(fresh().await).await;
}

async fn appends_come_back_after_a_restart(mut subject: impl JournalSubject) {
    let disk = subject.disk();
    let call = ctx(3, 7);
    assert!(listed(&*disk, &call).await.is_empty());
    let mut files = Vec::new();
    for fill in 1..=3 {
        let file = disk.begin(&call, pages(2, fill)).await.expect("begun");
        let at = 2 * JOURNAL_PAGE as u64;
        let append = disk.append(&call, file, at, pages(1, fill + 10)).await;
        append.expect("appended");
        files.push(file);
    }
    assert_eq!(listed(&*disk, &call).await, sorted(&files));
    let standing = disk.standing().await.expect("it stands");
    assert_eq!(standing.epoch, call.epoch);
    assert_eq!(standing.told, (LineageId(1), CommitNumber(3)));
    assert!(standing.last_call_ms.is_some());
    subject.restart().await;
    let disk = subject.disk();
    let standing = disk.standing().await.expect("it stands");
    assert_eq!((standing.epoch, standing.last_call_ms), (call.epoch, None));
    let next = ctx(4, 8);
    let found = listed(&*disk, &next).await;
    assert!(files.iter().all(|file| found.contains(file)));
    for (fill, file) in (1..=3).zip(files) {
        let expected = [&pages(2, fill)[..], &pages(1, fill + 10)].concat();
        assert_eq!(content(&*disk, &next, file).await, expected);
        // Its end is not known any more.
        let at = expected.len() as u64;
        let append = disk.append(&next, file, at, pages(1, 9)).await;
        assert_eq!(append, Err(StoreError::NoHandle));
    }
}

async fn repeats_are_done_and_other_places_refused(subject: impl JournalSubject) {
    let disk = subject.disk();
    let call = ctx(1, 1);
    let file = disk.begin(&call, pages(1, 1)).await.expect("begun");
    assert_eq!(disk.begin(&call, pages(1, 1)).await, Ok(file));
    let at = JOURNAL_PAGE as u64;
    for _ in 0..2 {
        assert_eq!(disk.append(&call, file, at, pages(1, 2)).await, Ok(()));
    }
    for given in [0, at, 3 * at] {
        let append = disk.append(&call, file, given, pages(1, 3)).await;
        let expected = 2 * at;
        assert_eq!(append, Err(StoreError::WrongOffset { expected, given }));
    }
    assert_eq!(listed(&*disk, &call).await, [file]);
    let expected = [&pages(1, 1)[..], &pages(1, 2)].concat();
    assert_eq!(content(&*disk, &call, file).await, expected);
    let unknown = JournalFile(file.0 + 100);
    let append = disk.append(&call, unknown, at, pages(1, 3)).await;
    assert_eq!(append, Err(StoreError::NoHandle));
    let read = disk.read(&call, unknown, 0, JOURNAL_PAGE).await;
    assert_eq!(read, Err(StoreError::NotFound));
}

async fn older_epochs_are_refused(mut subject: impl JournalSubject) {
    let disk = subject.disk();
    let (old, new) = (ctx(5, 1), ctx(6, 2));
    let file = disk.begin(&old, pages(1, 1)).await.expect("begun");
    assert_eq!(disk.raise(&new).await, Ok(()));
    assert_eq!(disk.raise(&new).await, Ok(()));
    let held = new.epoch;
    for stale in [old, ctx(6, 1)] {
        let refused = StoreError::StaleEpoch { held };
        assert_eq!(disk.raise(&stale).await, Err(refused.clone()));
        assert_eq!(disk.begin(&stale, pages(1, 2)).await, Err(refused.clone()));
        let at = JOURNAL_PAGE as u64;
        let append = disk.append(&stale, file, at, pages(1, 2)).await;
        assert_eq!(append, Err(refused.clone()));
        assert_eq!(disk.files(&stale).await, Err(refused.clone()));
        assert_eq!(disk.read(&stale, file, 0, 1).await, Err(refused.clone()));
        assert_eq!(disk.remove(&stale, &[file]).await, Err(refused));
    }
    // A file goes on in the epoch that began it, and in no other.
    let append = disk
        .append(&new, file, JOURNAL_PAGE as u64, pages(1, 2))
        .await;
    assert_eq!(append, Err(StoreError::NoHandle));
    subject.restart().await;
    let disk = subject.disk();
    assert_eq!(disk.raise(&old).await, Err(StoreError::StaleEpoch { held }));
    assert_eq!(
        content(&*disk, &new, listed(&*disk, &new).await[0]).await,
        pages(1, 1)
    );
}

async fn bounds_are_kept(subject: impl JournalSubject) {
    let disk = subject.disk();
    let call = ctx(1, 1);
    for bytes in [Bytes::new(), Bytes::from(vec![1; 100])] {
        let begun = disk.begin(&call, bytes).await;
        assert!(
            matches!(begun, Err(StoreError::BadCall { .. })),
            "{begun:?}"
        );
    }
    let file = disk.begin(&call, pages(1, 1)).await.expect("begun");
    let most = disk.standing().await.expect("it stands").segment_bytes;
    let mut at = JOURNAL_PAGE as u64;
    while at + 16 * JOURNAL_PAGE as u64 <= most.min(2 << 20) {
        let append = disk.append(&call, file, at, pages(16, 2)).await;
        assert_eq!(append, Ok(()));
        at += 16 * JOURNAL_PAGE as u64;
    }
    if most <= 2 << 20 {
        let append = disk.append(&call, file, at, pages(16, 3)).await;
        assert_eq!(append, Err(StoreError::NoSpace));
    }
    // What is refused changes nothing.
    assert_eq!(disk.append(&call, file, at, pages(1, 4)).await, Ok(()));
}

async fn files_are_removed(subject: impl JournalSubject) {
    let disk = subject.disk();
    let call = ctx(1, 1);
    let mut files = Vec::new();
    for fill in 1..=4 {
        files.push(disk.begin(&call, pages(1, fill)).await.expect("begun"));
    }
    let unknown = JournalFile(files[3].0 + 100);
    assert_eq!(disk.remove(&call, &[files[1], unknown]).await, Ok(()));
    assert_eq!(disk.remove(&call, &[files[1], files[2]]).await, Ok(()));
    assert_eq!(listed(&*disk, &call).await, sorted(&[files[0], files[3]]));
    let append = disk
        .append(&call, files[2], JOURNAL_PAGE as u64, pages(1, 1))
        .await;
    assert_eq!(append, Err(StoreError::NoHandle));
    // Numbers are not used again.
    let next = disk.begin(&call, pages(1, 9)).await.expect("begun");
    assert!(!files.contains(&next));
}

async fn roots_are_kept(mut subject: impl JournalSubject) {
    let disk = subject.disk();
    let call = ctx(2, 1);
    assert_eq!(disk.roots().await, Ok(DiskRoots::default()));
    let longest = |len| Bytes::from(vec![7; len]);
    let kept = DiskRoots {
        map_number: 5,
        map: longest(MAX_POOL_MAP_BYTES),
        checkpoint: longest(MAX_CHECKPOINT_ROOT_BYTES),
    };
    assert_eq!(disk.set_map(&call, 5, pages(1, 3)).await, Ok(()));
    assert_eq!(disk.set_map(&call, 5, kept.map.clone()).await, Ok(()));
    let set = disk.set_checkpoint(&call, kept.checkpoint.clone()).await;
    assert_eq!(set, Ok(()));
    let lower = disk.set_map(&call, 4, pages(1, 1)).await;
    let longer = disk
        .set_map(&call, 6, longest(MAX_POOL_MAP_BYTES + 1))
        .await;
    let root = longest(MAX_CHECKPOINT_ROOT_BYTES + 1);
    for refused in [lower, longer, disk.set_checkpoint(&call, root).await] {
        let bad = matches!(refused, Err(StoreError::BadCall { .. }));
        assert!(bad, "{refused:?}");
    }
    let stale = ctx(1, 9);
    let refused = StoreError::StaleEpoch { held: call.epoch };
    let map = disk.set_map(&stale, 9, pages(1, 9)).await;
    assert_eq!(map, Err(refused.clone()));
    let root = disk.set_checkpoint(&stale, pages(1, 9)).await;
    assert_eq!(root, Err(refused));
    assert_eq!(disk.roots().await, Ok(kept.clone()));
    subject.restart().await;
    assert_eq!(subject.disk().roots().await, Ok(kept));
}
