//! Tells disks what became of the blobs whose shards they have.
//!
//! Owns the background task that sends notes (PROTOCOL.md 9), each disk in its
//! own time: one that is late or away delays itself alone. Invariants: a note
//! is repeated until its disk has it; no write waits for one; what is left to
//! send is in the catalog, and in memory are a place for each disk and a few
//! pages. The purge deletes a shard only after its disk knows that the blob
//! was deleted, and drops that note when nothing of the blob is left
//! anywhere. What a rebuild condemned no disk is told before its hold ends:
//! a note of a deletion is for ever.

mod page;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use shardgate_catalog::model::{BlobRef, CondemnedRow, Hold, LineageRow, NotePayload};
use shardgate_catalog::{CatalogError, CondemnedCursor, NotePlace};
use shardgate_wire::note::{MAX_NOTES, NO_BLOB, NO_GROUP};
use shardgate_wire::{
    BlobNote, CommitNumber, DiskId, GroupId, NoteOrder, NoteState, Purpose, StoreError,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::calls::Target;
use super::core::Core;
use super::error::ObjectError;
use page::{Pages, disks_of};
use told::Told;
pub(super) use told::{Knows, may_delete};

/// How often is looked for what disks are to be told.
const EVERY: Duration = Duration::from_secs(1);
/// How often it is recorded how far disks are: the queue is that much longer.
const RECORD_EVERY: Duration = Duration::from_secs(5);
/// Condemned blobs that are told at once.
const AT_ONCE: usize = 512;
/// Pages of one turn: between two, what has changed is looked at.
const PAGES_A_TURN: usize = 64;
/// How long a stop waits for the last notes.
const LAST: Duration = Duration::from_secs(2);

/// How far all disks are.
#[derive(Default)]
pub(super) struct Notes {
    disks: Mutex<BTreeMap<DiskId, Told>>,
    pages: Pages,
    /// The epoch in which the catalog took its lineage.
    history: Mutex<u64>,
    /// What was condemned by commits up to here is told when the hold ends.
    decided: Mutex<Option<CommitNumber>>,
}

/// Up to where disks know what became of their blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotesStanding {
    /// The last commit that there is.
    pub committed: CommitNumber,
    /// Up to which commit each disk has all notes, since this start.
    pub told: BTreeMap<DiskId, CommitNumber>,
    /// Disks that have no room for notes of deleted blobs.
    pub full: Vec<DiskId>,
}

impl Notes {
    /// What a disk knows of a blob that was condemned there.
    pub(super) fn knows(&self, disk: DiskId, condemned: CondemnedCursor) -> (bool, bool) {
        let disks = self.disks.lock();
        let of = disks.get(&disk);
        of.map_or((false, false), |of| (of.knows_of(condemned), of.full))
    }

    /// Whether a blob's deletion was told to any disk: where it was not, no
    /// disk had its turn yet.
    pub(super) fn are_out(&self, condemned: CondemnedCursor) -> bool {
        let disks = self.disks.lock();
        disks.values().any(|of| of.knows_of(condemned) || of.full)
    }

    pub(super) fn standing(&self, committed: CommitNumber) -> NotesStanding {
        let disks = self.disks.lock();
        let full = disks.iter().filter(|(_, told)| told.full);
        NotesStanding {
            committed,
            told: disks
                .iter()
                .map(|(id, told)| (*id, told.through()))
                .collect(),
            full: full.map(|(id, _)| *id).collect(),
        }
    }

    fn of(&self, disk: DiskId) -> Told {
        self.disks.lock().get(&disk).copied().unwrap_or_default()
    }

    fn change<T>(&self, disk: DiskId, change: impl FnOnce(&mut Told) -> T) -> Option<T> {
        self.disks.lock().get_mut(&disk).map(change)
    }

    /// The places that are to be recorded.
    fn places(&self) -> BTreeMap<DiskId, Option<NotePlace>> {
        let disks = self.disks.lock();
        disks
            .iter()
            .map(|(id, told)| (*id, told.published))
            .collect()
    }

    fn order(&self, commit: CommitNumber) -> NoteOrder {
        NoteOrder {
            history: *self.history.lock(),
            commit,
        }
    }
}

/// What the catalog remembers of disks.
struct Recorded {
    /// One that was told nothing yet holds all rows of the queue.
    places: BTreeMap<DiskId, Option<NotePlace>>,
    at: Instant,
}

/// Runs until the stop token is cancelled.
pub(super) async fn run(core: Arc<Core>) {
    let Some(mut recorded) = remembered(&core).await else {
        return;
    };
    let mut turns = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = core.stop.cancelled() => break,
            Some(()) = turns.next(), if !turns.is_empty() => continue,
            () = tokio::time::sleep(EVERY) => {}
        }
        if core.calls.is_fenced() {
            return;
        }
        for disk in due(&core, &recorded) {
            turns.push(turn(&core, disk));
        }
        record(&core, &mut recorded, RECORD_EVERY).await;
    }
    // What was committed last is told now, as far as that is quick.
    let last = async {
        while turns.next().await.is_some() {}
        let disks = due(&core, &recorded).into_iter();
        futures::future::join_all(disks.map(|disk| turn(&core, disk))).await;
    };
    if !core.calls.is_fenced() && tokio::time::timeout(LAST, last).await.is_ok() {
        record(&core, &mut recorded, Duration::ZERO).await;
    }
}

/// What the catalog remembers; `None` if told to stop first.
async fn remembered(core: &Core) -> Option<Recorded> {
    loop {
        match lineage_and_places(core).await {
            Ok((lineage, places)) => {
                let hold = lineage.as_ref().and_then(|lineage| lineage.hold.as_ref());
                *core.notes.decided.lock() = hold.and_then(Hold::decided);
                *core.notes.history.lock() = lineage.map_or(0, |lineage| lineage.history);
                let places = places.into_iter().map(|(disk, place)| (disk, Some(place)));
                return Some(Recorded {
                    places: places.collect(),
                    at: Instant::now(),
                });
            }
            Err(error) => warn!(%error, "the catalog does not say what disks were told"),
        }
        tokio::select! {
            () = core.stop.cancelled() => return None,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn lineage_and_places(
    core: &Core,
) -> Result<(Option<LineageRow>, BTreeMap<DiskId, NotePlace>), CatalogError> {
    let lineage = core.catalog.lineage().await?;
    Ok((lineage, core.catalog.noted().await?))
}

/// The disks whose turn it is; each has begun one.
fn due(core: &Core, recorded: &Recorded) -> Vec<DiskId> {
    let now = Instant::now();
    let pool: BTreeSet<DiskId> = core.disks.disks().into_iter().collect();
    let mut disks = core.notes.disks.lock();
    disks.retain(|disk, _| pool.contains(disk));
    for disk in &pool {
        let before = recorded.places.get(disk).copied().flatten();
        disks
            .entry(*disk)
            .or_insert_with(|| Told::remembered(before));
    }
    let due = disks.iter_mut();
    due.filter_map(|(disk, told)| told.begin(now).then_some(*disk))
        .collect()
}

/// Tells one disk what there is to tell.
async fn turn(core: &Core, disk: DiskId) {
    let outcome = match core.disks.store(disk) {
        Some(store) => {
            let to = Target {
                disk,
                store,
                group: GroupId::default(),
                purpose: Purpose::Background,
            };
            tell(core, &to).await
        }
        None => Err(ObjectError::Unavailable {
            why: "the disk is not there".into(),
        }),
    };
    if let Err(error) = &outcome {
        debug!(%disk, %error, "notes wait for a disk");
    }
    let done = outcome.is_ok();
    core.notes
        .change(disk, |told| told.end(done, Instant::now()));
}

async fn tell(core: &Core, to: &Target) -> Result<(), ObjectError> {
    for _ in 0..PAGES_A_TURN {
        let deleted = tell_deleted(core, to).await?;
        let published = tell_published(core, to).await?;
        if !deleted && !published {
            break;
        }
    }
    Ok(())
}

/// Tells a disk of a page of condemned blobs; whether there are more.
async fn tell_deleted(core: &Core, to: &Target) -> Result<bool, ObjectError> {
    let held_back = match core.reclaiming.is_held() {
        true => *core.notes.decided.lock(),
        false => None,
    };
    let next = |told: &mut Told| told.next_deleted(held_back);
    let Some(after) = core.notes.change(to.disk, next) else {
        return Ok(false);
    };
    let committed = core.catalog.committed();
    let page = core.catalog.condemned_page(after, AT_ONCE).await?;
    let more = page.rows.len() + page.damaged.len() == AT_ONCE;
    let mut notes = Vec::new();
    for condemned in &page.rows {
        let row = &condemned.row;
        match disks_of(core, &blob_of(row)).await {
            Ok(disks) if disks.contains(&to.disk) => notes.push(BlobNote {
                group: row.group,
                blob: row.blob,
                order: core.notes.order(condemned.cursor.commit),
                state: NoteState::Deleted,
            }),
            // The purge says what is damaged.
            Ok(_) | Err(ObjectError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for some in notes.chunks(MAX_NOTES) {
        match core.calls.put_notes(to, some).await {
            Ok(()) => core.metrics.notes_sent.add(some.len() as u64),
            Err(StoreError::NoSpace) => {
                core.notes.change(to.disk, |told| told.full = true);
                warn!(disk = %to.disk, "a disk has no room for notes of deleted blobs");
                return Ok(false);
            }
            Err(error) => return Err(unavailable(error)),
        }
    }
    let through = match page.last().filter(|_| more) {
        Some(last) => CommitNumber(last.commit.0.saturating_sub(1)),
        None => committed,
    };
    core.notes.change(to.disk, |told| {
        told.deleted = page.last().max(told.deleted);
        told.deleted_through = through;
        told.full = false;
    });
    Ok(more)
}

/// Tells a disk of a page of published blobs; whether there are more.
async fn tell_published(core: &Core, to: &Target) -> Result<bool, ObjectError> {
    let before = core.notes.of(to.disk);
    let page = core.notes.pages.behind(core, before.published).await?;
    let of_disk = page
        .made
        .iter()
        .filter(|made| made.disks.contains(&to.disk));
    let mut notes: Vec<BlobNote> = of_disk
        .map(|made| BlobNote {
            group: made.group,
            blob: made.blob,
            order: core.notes.order(made.commit),
            state: NoteState::Published(made.payload.clone()),
        })
        .collect();
    let sent = notes.len() as u64;
    let now = Instant::now();
    let mut then = before;
    then.published_through = page.through;
    // It goes with the last of the notes, and so is there only with all.
    let mark = then.mark(sent > 0, now);
    notes.extend(mark.map(|mark| BlobNote {
        group: NO_GROUP,
        blob: NO_BLOB,
        order: core.notes.order(mark),
        state: NoteState::Published(NotePayload::Mark.encode()),
    }));
    for some in notes.chunks(MAX_NOTES) {
        let put = core.calls.put_notes(to, some).await;
        put.map_err(unavailable)?;
    }
    core.metrics.notes_sent.add(sent);
    core.notes.change(to.disk, |told| {
        told.published = page.last.max(told.published);
        told.published_through = page.through;
        if let Some(mark) = mark {
            told.has_mark(mark, now);
        }
    });
    Ok(page.more)
}

fn unavailable(error: StoreError) -> ObjectError {
    ObjectError::Unavailable {
        why: error.to_string(),
    }
}

pub(super) fn blob_of(row: &CondemnedRow) -> BlobRef {
    BlobRef {
        group: row.group,
        blob: row.blob,
        layout: row.layout,
        len: 0,
    }
}

/// Records how far disks are, if that has changed since `every` ago.
async fn record(core: &Core, recorded: &mut Recorded, every: Duration) {
    if recorded.at.elapsed() < every {
        return;
    }
    recorded.at = Instant::now();
    let places = core.notes.places();
    if places == recorded.places || places.is_empty() {
        return;
    }
    let gone = recorded.places.keys();
    let gone: Vec<DiskId> = gone
        .filter(|disk| !places.contains_key(disk))
        .copied()
        .collect();
    match core.catalog.record_noted(&places, &gone).await {
        Ok(rows) => {
            debug!(rows, "notes are on all disks");
            recorded.places = places;
        }
        Err(error) => warn!(%error, "how far notes are is not recorded"),
    }
}
