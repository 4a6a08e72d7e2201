//! Groups for writes: choosing an open one, opening a resting one, making a
//! new one, sealing a full one.
//!
//! Invariant: before a group is handed out for the first time, its record is
//! durable in the catalog and then its slots on every disk of it that lives
//! (PROTOCOL.md 6); a disk that does not take its slot is out, and the group
//! is drawn again.

use std::sync::Arc;

use futures::future::join_all;
use shardgate_catalog::CatalogError;
use shardgate_catalog::model::{GroupRow, GroupState};
use shardgate_erasure::{Layout, Scheme};
use shardgate_wire::{Generation, GroupId, Medium, Purpose, StoreError};
use thiserror::Error;
use tokio::time::timeout;

use super::media::medium_profile;
use super::open_set::{Due, Entry, Fitness, Wanted, has_space};
use super::standing::Standing;
use super::state::{Pool, Snapshot};
use crate::object::ports::{ClassChoice, GroupView};
use crate::placement::open::{to_rest, wanted_open, with_room};
use crate::placement::{DiskView, PoolView, draw, fits, narrow_scheme};

/// Why there is no group for a write.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// Another gateway has taken over.
    #[error("another gateway has taken over")]
    TakenOver,
    /// Enough disks live, and too few have space.
    #[error("no space")]
    NoSpace,
    /// Too few disks live.
    #[error("{living} of {disks} disks take writes, which is too few for any scheme")]
    TooFewDisks {
        /// So many take writes.
        living: usize,
        /// Of so many.
        disks: usize,
    },
    /// The catalog has no such group.
    #[error("no group {0}")]
    NoSuchGroup(GroupId),
    /// A record contradicts itself.
    #[error("group {0} has a damaged record")]
    Damaged(GroupId),
    /// Disks kept failing while their slots were assigned.
    #[error("disks fail to take their slots")]
    Unassigned,
    /// A disk does not take what the catalog says of it.
    #[error("slot of group {group}: {source}")]
    Slot {
        /// Of which group.
        group: GroupId,
        /// What the disk says.
        source: StoreError,
    },
    /// The catalog's.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// How often a group is drawn again when disks do not take their slots.
const ATTEMPTS: usize = 4;

impl Pool {
    /// A group that can take a blob of `len` bytes now.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub async fn group_for_write(
        &self,
        class: &ClassChoice,
        len: Option<u64>,
        prefer: Option<GroupId>,
    ) -> Result<Arc<GroupView>, PlaceError> {
        if self.is_taken_over() {
            return Err(PlaceError::TakenOver);
        }
        let snapshot = self.snapshot();
        let wanted = Wanted {
            scheme: class.scheme,
            medium: class.medium,
            narrow: false,
            slot_bytes: slot_bytes(class.scheme, class.medium, len),
            purpose: Purpose::Client,
        };
        let entry = match self.preferred(&snapshot.view, &wanted, prefer) {
            Some(entry) => entry,
            None => match self.choose(&snapshot.view, &wanted, Fitness::Whole) {
                Some(entry) => {
                    if entry.is_busy() {
                        self.open_one_more(&snapshot, &wanted).await;
                    }
                    entry
                }
                None => self.find_or_make(&wanted).await?,
            },
        };
        self.account(&entry, wanted.slot_bytes).await;
        Ok(Arc::clone(&entry.group))
    }

    /// A group's record, from the cache or the catalog.
    ///
    /// # Errors
    /// [`PlaceError::NoSuchGroup`], [`PlaceError::Damaged`], the catalog's.
    pub async fn group(&self, id: GroupId) -> Result<Arc<GroupView>, PlaceError> {
        if let Some(group) = self.inner.groups.read().get(&id) {
            return Ok(Arc::clone(group));
        }
        let row = self.inner.catalog.group(id).await?;
        let row = row.ok_or(PlaceError::NoSuchGroup(id))?;
        self.learn_group(row).ok_or(PlaceError::Damaged(id))
    }

    /// A disk holds another generation of a slot: reads the record anew and
    /// tells every disk of the group that lives.
    ///
    /// # Errors
    /// A disk holds a newer one than the catalog: [`PlaceError::Slot`].
    pub async fn stale_generation(&self, id: GroupId) -> Result<(), PlaceError> {
        let _making = self.inner.making.lock().await;
        let row = self.inner.catalog.group(id).await?;
        let row = row.ok_or(PlaceError::NoSuchGroup(id))?;
        let was_open = self.inner.open.is_open(id);
        let group = self.learn_group(row).ok_or(PlaceError::Damaged(id))?;
        for (disk, outcome) in self.assign(&group).await {
            if let Err(source @ StoreError::StaleGeneration { .. }) = outcome {
                tracing::error!(%disk, group = %id, "disk holds a newer generation than the catalog");
                return Err(PlaceError::Slot { group: id, source });
            }
        }
        if let (true, Some(entry)) = (was_open, self.inner.open.find(id)) {
            self.inner.open.open(entry, self.now_ms());
        }
        Ok(())
    }

    pub(super) fn choose(
        &self,
        view: &PoolView,
        wanted: &Wanted,
        fitness: Fitness,
    ) -> Option<Arc<Entry>> {
        self.inner
            .open
            .choose(view, wanted, fitness, &mut rand::rng())
    }

    /// The group that the caller has written to before, if it still takes
    /// writes and is no worse than what it would get now.
    fn preferred(
        &self,
        view: &PoolView,
        wanted: &Wanted,
        prefer: Option<GroupId>,
    ) -> Option<Arc<Entry>> {
        let entry = self.inner.open.find(prefer?)?;
        let is_fit = self.inner.open.is_open(entry.group.row.id)
            && entry.is_of(wanted)
            && entry.takes(view, wanted.slot_bytes, Fitness::Whole);
        is_fit.then_some(entry)
    }

    /// Opens or makes one more group where few are open. Nobody waits for
    /// another who does so, and it need not succeed.
    async fn open_one_more(&self, snapshot: &Snapshot, wanted: &Wanted) {
        let candidates = candidates(&snapshot.view, wanted, None);
        if self.inner.open.count(wanted) >= wanted_open(candidates.len(), wanted.scheme) {
            return;
        }
        let Ok(_making) = self.inner.making.try_lock() else {
            return;
        };
        match self.open_whole(wanted, true).await {
            Ok(_) | Err(PlaceError::NoSpace | PlaceError::TooFewDisks { .. }) => {}
            Err(error) => tracing::warn!(%error, "no further group was opened"),
        }
    }

    /// No open group has all its disks: opens, makes, makes do or narrows.
    async fn find_or_make(&self, wanted: &Wanted) -> Result<Arc<Entry>, PlaceError> {
        let _making = self.inner.making.lock().await;
        let view = &self.snapshot().view;
        if let Some(entry) = self.choose(view, wanted, Fitness::Whole) {
            return Ok(entry);
        }
        match self.open_whole(wanted, false).await {
            Err(PlaceError::NoSpace | PlaceError::TooFewDisks { .. }) => {}
            found => return found,
        }
        // Fewer disks live than the scheme needs. A disk may have gone out
        // just now, so look again.
        let view = &self.snapshot().view;
        if let Some(entry) = self.choose(view, wanted, Fitness::Holds) {
            return Ok(entry);
        }
        if let Some(entry) = self.inner.open.resting(view, wanted, Fitness::Holds) {
            return self.activate(entry).await;
        }
        self.open_narrow(wanted).await
    }

    pub(super) async fn open_narrow(&self, wanted: &Wanted) -> Result<Arc<Entry>, PlaceError> {
        let view = &self.snapshot().view.for_purpose(wanted.purpose);
        let mut best: Option<Wanted> = None;
        for medium in self.media_for(wanted.medium, view) {
            let mut count = view.of_medium(Some(medium)).living_by_server();
            let with_space = candidates(view, wanted, Some(medium));
            let with_space = PoolView {
                disks: with_space.into_iter().cloned().collect(),
            };
            count.disks = with_space.by_server(|_| true).disks;
            let Some(scheme) = narrow_scheme(&count, wanted.scheme) else {
                continue;
            };
            if best.is_none_or(|best| scheme.slots() > best.scheme.slots()) {
                best = Some(Wanted {
                    scheme,
                    medium: Some(medium),
                    narrow: true,
                    ..*wanted
                });
            }
        }
        let Some(narrow) = best else {
            return Err(too_few(view, wanted));
        };
        if let Some(entry) = self.choose(view, &narrow, Fitness::Whole) {
            return Ok(entry);
        }
        tracing::warn!(
            wanted = %wanted.scheme,
            scheme = %narrow.scheme,
            "too few disks take writes: a narrower group is used"
        );
        self.open_whole(&narrow, false).await
    }

    /// Opens a resting group with all its disks, or makes one.
    ///
    /// `spare`: only if that needs no other group to rest.
    pub(super) async fn open_whole(
        &self,
        wanted: &Wanted,
        spare: bool,
    ) -> Result<Arc<Entry>, PlaceError> {
        for _ in 0..ATTEMPTS {
            let view = &self.snapshot().view.for_purpose(wanted.purpose);
            let resting = self.inner.open.resting(view, wanted, Fitness::Whole);
            if let Some(entry) = resting.filter(|entry| self.make_room(view, entry, spare)) {
                if let Ok(entry) = self.activate(entry).await {
                    return Ok(entry);
                }
                continue;
            }
            let (medium, slots) = self.draw_slots(view, wanted, spare)?;
            let row = GroupRow {
                id: self.inner.catalog.next_group_id().await?,
                generation: Generation(1),
                data: wanted.scheme.data(),
                parity: wanted.scheme.parity(),
                medium,
                slots,
                state: GroupState::Open,
                narrow: wanted.narrow,
                slot_bytes: 0,
            };
            self.inner.catalog.put_group(&row, None).await?;
            let id = row.id;
            self.learn_group(row).ok_or(PlaceError::Damaged(id))?;
            tracing::info!(group = %id, scheme = %wanted.scheme, narrow = wanted.narrow, "new group");
            let entry = self.inner.open.find(id);
            let entry = entry.expect("a group that was just learned as open is in the set");
            if let Ok(entry) = self.activate(entry).await {
                return Ok(entry);
            }
        }
        Err(PlaceError::Unassigned)
    }

    /// Whether the group's disks have room for one more open group, after
    /// others were put to rest where that may be. A scheme's first group is
    /// opened without room too.
    fn make_room(&self, view: &PoolView, entry: &Entry, spare: bool) -> bool {
        let slots = &entry.group.row.slots;
        let disks: Vec<&DiskView> = slots.iter().filter_map(|disk| view.disk(*disk)).collect();
        loop {
            let open = self.inner.open.facts(self.now_ms());
            if with_room(&disks, &open).len() == slots.len() {
                return true;
            }
            match to_rest(&open, entry.group.scheme) {
                Some(id) if !spare => self.inner.open.rest(id),
                _ => return !spare,
            }
        }
    }

    /// Draws a group from disks with room for one more open group; makes room
    /// for a scheme's first one.
    fn draw_slots(
        &self,
        view: &PoolView,
        wanted: &Wanted,
        spare: bool,
    ) -> Result<(Medium, Vec<shardgate_wire::DiskId>), PlaceError> {
        for medium in self.media_for(wanted.medium, view) {
            let mut candidates = candidates(view, wanted, Some(medium));
            let several = view.of_medium(Some(medium)).living_by_server().several
                || view.of_medium(Some(medium)).servers() > 1 && !wanted.narrow;
            let quick: Vec<&DiskView> = candidates
                .iter()
                .filter(|disk| !view.is_slow(disk))
                .copied()
                .collect();
            if draw(&quick, wanted.scheme, several, &mut rand::rng()).is_ok() {
                candidates = quick;
            }
            loop {
                let open = self.inner.open.facts(self.now_ms());
                let room = with_room(&candidates, &open);
                if let Ok(slots) = draw(&room, wanted.scheme, several, &mut rand::rng()) {
                    return Ok((medium, slots));
                }
                if spare || draw(&candidates, wanted.scheme, several, &mut rand::rng()).is_err() {
                    break;
                }
                match to_rest(&open, wanted.scheme) {
                    Some(id) => self.inner.open.rest(id),
                    None => {
                        let drawn = draw(&candidates, wanted.scheme, several, &mut rand::rng());
                        let slots = drawn.map_err(|_| too_few(view, wanted))?;
                        return Ok((medium, slots));
                    }
                }
            }
        }
        Err(too_few(view, wanted))
    }

    /// Tells every disk of the group that lives its slot, then opens it.
    async fn activate(&self, entry: Arc<Entry>) -> Result<Arc<Entry>, PlaceError> {
        let id = entry.group.row.id;
        let mut failed = None;
        for (disk, outcome) in self.assign(&entry.group).await {
            if let Err(error) = outcome {
                tracing::warn!(%disk, group = %id, %error, "disk did not take its slot");
                failed = Some(error);
            }
        }
        match failed {
            Some(source @ StoreError::StaleGeneration { .. }) => {
                // Never to be written to by this record; not to be met again.
                self.inner.open.remove(id);
                Err(PlaceError::Slot { group: id, source })
            }
            Some(source) => Err(PlaceError::Slot { group: id, source }),
            None => {
                self.inner.open.open(Arc::clone(&entry), self.now_ms());
                Ok(entry)
            }
        }
    }

    /// Assigns the group's slots at its living disks; those that do not take
    /// theirs are out.
    async fn assign(
        &self,
        group: &GroupView,
    ) -> Vec<(shardgate_wire::DiskId, Result<(), StoreError>)> {
        let ctx = self.context();
        let within = self.inner.settings.assign_timeout;
        let calls = (0..group.row.slots.len()).map(|slot| async move {
            let disk = group.row.slots[slot];
            let member = self.member(disk).filter(|member| member.is_living())?;
            let store = member.store()?;
            let slots = [group.assignment(slot as u8)];
            let outcome = match timeout(within, store.assign(&ctx, &slots)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(StoreError::TimedOut(within)),
            };
            match &outcome {
                Ok(()) => {}
                Err(error @ (StoreError::StaleEpoch { .. } | StoreError::TimedOut(_))) => {
                    self.note_error(disk, error);
                }
                Err(StoreError::StaleGeneration { .. }) => {}
                Err(error) => {
                    let why = error.to_string();
                    self.lapse(disk, Standing::Failed { why });
                }
            }
            Some((disk, outcome))
        });
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// Notes what the write will add, and seals the group when it is full.
    /// Neither may fail the write.
    pub(super) async fn account(&self, entry: &Entry, slot_bytes: u64) {
        let (given, state) = match entry.used(slot_bytes, self.now_ms()) {
            Due::Nothing => return,
            Due::Note(given) => (given, GroupState::Open),
            Due::Seal(given) => (given, GroupState::Sealed),
        };
        let id = entry.group.row.id;
        if state == GroupState::Sealed {
            self.inner.open.remove(id);
        }
        if let Err(error) = self.note_given(id, given, state).await {
            tracing::warn!(group = %id, %error, "the group's size was not noted");
        }
    }

    async fn note_given(
        &self,
        id: GroupId,
        given: u64,
        state: GroupState,
    ) -> Result<(), PlaceError> {
        let held = self.inner.catalog.group(id).await?;
        let held = held.ok_or(PlaceError::NoSuchGroup(id))?;
        if held.state == GroupState::Sealed {
            return Ok(());
        }
        let row = GroupRow {
            slot_bytes: given,
            state,
            ..held.clone()
        };
        match self.inner.catalog.put_group(&row, Some(&held)).await {
            // The next note says more.
            Ok(()) | Err(CatalogError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        if state == GroupState::Sealed {
            tracing::info!(group = %id, slot_bytes = given, "group is full and sealed");
            self.learn_group(row);
        }
        Ok(())
    }
}

/// Bytes that a slot takes of a blob, the largest share of any.
pub(super) fn slot_bytes(scheme: Scheme, medium: Option<Medium>, len: Option<u64>) -> u64 {
    let Some(len) = len else { return 0 };
    let target = medium_profile(medium.unwrap_or(Medium::Flash)).shard_target_bytes;
    let layout = Layout::choose(scheme, Some(len), target);
    let all = len.div_ceil(u64::from(layout.data())) * u64::from(layout.shards());
    // A blob of few shards lies in some of the slots; on average in all.
    all / u64::from(scheme.slots())
}

/// The disks that take such a write.
fn candidates<'a>(
    view: &'a PoolView,
    wanted: &Wanted,
    medium: Option<Medium>,
) -> Vec<&'a DiskView> {
    let medium = medium.or(wanted.medium);
    let takes = |disk: &&DiskView| {
        disk.living
            && medium.is_none_or(|medium| medium == disk.medium)
            && has_space(disk.free_bytes, wanted.slot_bytes)
    };
    view.disks.iter().filter(takes).collect()
}

/// Whether it is space or disks that there is too little of.
fn too_few(view: &PoolView, wanted: &Wanted) -> PlaceError {
    let of = view.of_medium(wanted.medium);
    let living = of.living_by_server();
    if fits(&living, wanted.scheme) || narrow_scheme(&living, wanted.scheme).is_some() {
        return PlaceError::NoSpace;
    }
    PlaceError::TooFewDisks {
        living: living.total(),
        disks: of.disks.len(),
    }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
