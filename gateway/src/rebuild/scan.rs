//! Reads every disk of a pool to its end: slots, notes, and the list of its
//! shards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shardgate_catalog::rebuild::Facts;
use shardgate_catalog::{CatalogError, Result};
use shardgate_wire::note::NotePage;
use shardgate_wire::store::{ListedShard, MAX_BATCH};
use shardgate_wire::{DiskId, ShardStore, SlotAssignment, StoreError};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a disk may take for one page.
const WITHIN: Duration = Duration::from_secs(60);
/// How often a page is asked for.
const TRIES: usize = 3;
/// Pages that wait to be taken in.
const WAITING: usize = 16;
/// Between two words about how far it is.
const SAY: Duration = Duration::from_secs(2);

/// Something of a disk.
enum Found {
    Slots(Vec<SlotAssignment>),
    Notes(NotePage),
    Shards(Vec<ListedShard>),
    /// Why it was not read to its end, if it was not.
    End(Option<String>),
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Notes, each as often as disks have it.
    pub notes: u64,
    /// Shards.
    pub shards: u64,
    /// Disks that were not read to their end, and why.
    pub unread: Vec<(DiskId, String)>,
}

/// Reads all of these disks at once.
///
/// # Errors
/// The scratch engine's.
pub async fn scan(disks: &[Arc<dyn ShardStore>], facts: &mut Facts) -> Result<Scanned> {
    let (sender, mut found) = mpsc::channel(WAITING);
    for disk in disks {
        let (disk, sender) = (Arc::clone(disk), sender.clone());
        tokio::spawn(async move {
            let end = read(&*disk, &sender).await.err();
            let why = end.map(|error| error.to_string());
            // Nobody listens any more where the reading was given up.
            let _ = sender.send((disk.disk(), Found::End(why))).await;
        });
    }
    drop(sender);
    let mut scanned = Scanned::default();
    let mut left = disks.len();
    let mut said = Instant::now();
    while let Some((disk, found)) = found.recv().await {
        match found {
            Found::Slots(slots) => facts.add_slots(disk, &slots),
            Found::Notes(page) => {
                scanned.notes += page.notes.len() as u64;
                facts.add_notes(disk, &page.notes, page.damaged).await?;
            }
            Found::Shards(listed) => {
                scanned.shards += listed.len() as u64;
                facts.add_shards(&listed).await?;
            }
            Found::End(why) => {
                left -= 1;
                if let Some(why) = why {
                    facts.not_read(disk);
                    scanned.unread.push((disk, why));
                }
            }
        }
        if said.elapsed() >= SAY {
            said = Instant::now();
            let (notes, shards) = (scanned.notes, scanned.shards);
            tracing::info!(notes, shards, disks_left = left, "reading disks");
        }
    }
    match left {
        0 => Ok(scanned),
        left => Err(CatalogError::Unavailable {
            why: format!("the reading of {left} disks ended without a word"),
        }),
    }
}

async fn read(
    disk: &dyn ShardStore,
    found: &mpsc::Sender<(DiskId, Found)>,
) -> Result<(), StoreError> {
    let id = disk.disk();
    let gone = |_| StoreError::Unreachable {
        why: "the reading was given up".into(),
    };
    let mut after = None;
    loop {
        let slots = page(|| disk.slots(after)).await?;
        after = slots.last().map(|slot| slot.group);
        let whole = slots.len() == MAX_BATCH;
        found.send((id, Found::Slots(slots))).await.map_err(gone)?;
        if !whole {
            break;
        }
    }
    let mut after = None;
    loop {
        let notes = page(|| disk.notes(after)).await?;
        after = notes.next;
        found.send((id, Found::Notes(notes))).await.map_err(gone)?;
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let listed = page(|| disk.list(after, MAX_BATCH)).await?;
        after = listed.last().map(|shard| shard.key);
        let whole = listed.len() == MAX_BATCH;
        found
            .send((id, Found::Shards(listed)))
            .await
            .map_err(gone)?;
        if !whole {
            return Ok(());
        }
    }
}

/// Asks for a page, more than once if need be.
async fn page<T, F>(mut ask: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut tries = 0;
    loop {
        let answer = timeout(WITHIN, ask()).await;
        match answer.unwrap_or(Err(StoreError::TimedOut(WITHIN))) {
            Err(_) if tries + 1 < TRIES => tries += 1,
            answer => return answer,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
