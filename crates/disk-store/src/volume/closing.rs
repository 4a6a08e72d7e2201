//! When volumes stop taking records: those that rest, those of a disk that
//! has too many, and all of them when the disk is closed.
//!
//! An open volume costs memory for each of its records, an open file, and a
//! start that reads all of it; and only sealed ones are compacted. A group
//! that takes no more writes never fills its last one.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shardgate_wire::StoreError;
use shardgate_wire::ids::GroupId;
use shardgate_wire::store::ShardEnd;

use super::engine::Engine;
use super::format::{Kind, LogEntry, NewRecord, SECTOR};
use super::volume_state::{Stage, Volume};
use crate::condition::Doing;
use crate::io::DiskFile;

/// A volume that takes turns with many others is not closed at each turn:
/// every one that is closed with little in it is joined with others later.
const CROWDED_REST: Duration = Duration::from_secs(10);
/// What ends have for themselves, however long all before them took: one that
/// is missing makes the next start doubt all that it reads.
const ENDS_TIME: Duration = Duration::from_secs(1);

/// A volume, by group and number.
type Place = (GroupId, u64);

/// How far the records and the extents of a volume reach.
type Filled = (u64, u64);

/// How long volumes stay open that take nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenLimits {
    /// One that took nothing for so long is closed.
    pub(crate) rest: Duration,
    /// Of more than so many, those that rest longest are closed sooner.
    pub(crate) most: usize,
}

/// What closing asks for time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To seal a volume.
    Seal,
    /// To end one that was not sealed.
    End,
}

/// How long closing goes on.
#[derive(Debug)]
pub(crate) struct ClosingTime {
    since: Instant,
    within: Duration,
    /// Since when ends are written.
    ends_since: Cell<Option<Instant>>,
}

impl ClosingTime {
    /// Counted from the begin of all that closing does.
    pub(crate) fn new(since: Instant, within: Duration) -> Self {
        Self {
            since,
            within,
            ends_since: Cell::new(None),
        }
    }

    /// Whether there is time for a step.
    pub(crate) fn is_left(&self, step: Step, now: Instant) -> bool {
        let spent = now.saturating_duration_since(self.since);
        match step {
            Step::Seal => spent < self.within,
            Step::End => {
                let begun = self.ends_since.get().unwrap_or(now);
                self.ends_since.set(Some(begun));
                let own = now.saturating_duration_since(begun);
                own < ENDS_TIME || spent < self.within + self.within / 3
            }
        }
    }
}

/// Since when each open volume takes nothing.
#[derive(Debug, Default)]
pub(crate) struct Rests(BTreeMap<Place, (Filled, Instant)>);

impl Rests {
    /// Takes note of how far the open volumes are, and gives those that are
    /// to be closed.
    fn due(&mut self, open: &[(Place, Filled)], limits: OpenLimits, now: Instant) -> Vec<Place> {
        let since = |place, filled| match self.0.get(place) {
            Some((then, since)) if then == filled => *since,
            _ => now,
        };
        self.0 = open
            .iter()
            .map(|(place, filled)| (*place, (*filled, since(place, filled))))
            .collect();
        let mut rests: Vec<_> = self
            .0
            .iter()
            .map(|(place, (_, since))| (now.saturating_duration_since(*since), *place))
            .collect();
        rests.sort_unstable();
        let rested = |(at, (rest, place)): (usize, &(Duration, Place))| {
            let crowded = at >= limits.most && *rest >= CROWDED_REST;
            (*rest >= limits.rest || crowded).then_some(*place)
        };
        rests.iter().enumerate().filter_map(rested).collect()
    }
}

fn filled(volume: &Volume) -> Filled {
    (volume.tail, volume.extents_from)
}

impl Engine {
    /// Closes the open volumes that took nothing for so long, and those that
    /// are too many; upkeep seals them. To be called every few seconds.
    pub(crate) fn close_resting(&self, rests: &mut Rests, limits: OpenLimits, now: Instant) {
        let open = self.open_volumes(|volume| volume.out == 0);
        for place in rests.due(&open, limits, now) {
            let seen = open.iter().find(|(open, _)| *open == place);
            if let Some((_, seen)) = seen {
                self.close_if(place, |volume| volume.out == 0 && filled(volume) == *seen);
            }
        }
    }

    fn open_volumes(&self, which: impl Fn(&Volume) -> bool) -> Vec<(Place, Filled)> {
        let state = self.state.read();
        let open = state.groups.iter().filter_map(|(group, of)| {
            let volume = of.volumes.get(&of.open?)?;
            which(volume).then(|| ((*group, volume.heading.sequence), filled(volume)))
        });
        open.collect()
    }

    /// Closes a volume if it is still open and fits.
    fn close_if(&self, (group, sequence): Place, fits: impl Fn(&Volume) -> bool) {
        // A batch that is being written goes on with the volume that it has.
        let _no_batch = self.writing();
        let closes = {
            let state = self.state.read();
            let of = state.groups.get(&group);
            let open = of.filter(|of| of.open == Some(sequence));
            open.and_then(|of| of.volumes.get(&sequence))
                .is_some_and(fits)
        };
        if closes {
            self.close_volume(group);
        }
    }

    /// Ends in order: what has records is sealed, so that the next start reads
    /// directories alone. `settled`: nothing else of the disk waits for what a
    /// start after a crash does; else the next one does it.
    ///
    /// Bounded in time: before each step `go_on` is asked. A volume that is
    /// not sealed by then, or is refused, stays as it is, gets an end, and is
    /// read by the next start. True if all of them have one, so that the next
    /// start need not doubt what it reads.
    pub(crate) fn close_in_time(
        &self,
        settled: bool,
        go_on: &dyn Fn(Step) -> bool,
    ) -> Result<bool, StoreError> {
        let all = self.seal_all(go_on);
        self.write_ends(settled, !all, go_on)
    }

    /// The same without a limit.
    #[cfg(test)]
    pub(crate) fn close(&self, settled: bool) -> Result<(), StoreError> {
        self.close_in_time(settled, &|_| true).map(drop)
    }

    /// Closes and seals one volume after the other: what there is no time for
    /// stays open. False if one of them is not sealed.
    fn seal_all(&self, go_on: &dyn Fn(Step) -> bool) -> bool {
        let mut refused = BTreeSet::new();
        let has_records = |volume: &Volume| volume.recorded > 0;
        let open = self.open_volumes(has_records);
        let mut all = self.seal_closed(&mut refused, go_on);
        for (place, _) in open {
            if self.condition.check_writable().is_err() || !go_on(Step::Seal) {
                return false;
            }
            self.close_if(place, has_records);
            all &= self.seal_closed(&mut refused, go_on);
        }
        all && refused.is_empty()
    }

    /// Seals what is closed. One that is refused keeps no other from it.
    fn seal_closed(&self, refused: &mut BTreeSet<u64>, go_on: &dyn Fn(Step) -> bool) -> bool {
        while self.condition.check_writable().is_ok() && go_on(Step::Seal) {
            match self.seal_next(refused) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(error) => {
                    tracing::warn!(disk = %self.identity.disk, %error, "a volume is not sealed before the next start");
                }
            }
        }
        false
    }

    /// Ends in order, and leaves open volumes open.
    #[cfg(test)]
    pub(super) fn close_as_it_is(&self) -> Result<(), StoreError> {
        while self.upkeep()? {}
        self.write_ends(true, false, &|_| true).map(drop)
    }

    /// Ends what is not sealed, and the log: what is written is proven, the
    /// next start need not doubt it. `checked`: volumes wait to be sealed, and
    /// not every one need have room for that behind an end. False if one has no
    /// end: then the log does not say that the disk was closed in order, and
    /// the next start reads it as after a crash.
    fn write_ends(
        &self,
        settled: bool,
        checked: bool,
        go_on: &dyn Fn(Step) -> bool,
    ) -> Result<bool, StoreError> {
        let mut writer = self.writing();
        if writer.log.is_none() || self.condition.check_writable().is_err() {
            return Ok(false);
        }
        let (mut all, mut written) = (settled, Ok(()));
        for end in self.ends(checked) {
            match end {
                Some(end) if go_on(Step::End) => written = written.and(self.write_end(end)),
                _ => all = false,
            }
        }
        written?;
        if all {
            let file = self.log_append(&mut writer, &[LogEntry::Clean])?;
            file.sync_data()
                .map_err(|error| self.refused(Doing::Syncing, "close log", &error))?;
        }
        // Nothing may follow: a write behind it would go unnoticed.
        writer.log = None;
        Ok(all)
    }

    /// The ends of volumes that need one; none for one that has no room for it
    /// and, later, a seal, before its extents.
    fn ends(&self, checked: bool) -> Vec<Option<End>> {
        let state = self.state.read();
        let volumes = state.groups.values().flat_map(|of| of.volumes.values());
        let needed = volumes.filter(|volume| needs_end(volume));
        let ends = needed.map(|volume| {
            let at = volume.tail.next_multiple_of(SECTOR);
            let fits = !checked || volume.has_room(at, SECTOR, 0);
            fits.then(|| end_of(volume))
        });
        ends.collect()
    }

    fn write_end(&self, (file, tail, mark, zeroed_to): End) -> Result<(), StoreError> {
        let Some(file) = file else { return Ok(()) };
        let writing = |error| self.refused(Doing::Writing, "close volume", &error);
        let syncing = |error| self.refused(Doing::Syncing, "close volume", &error);
        // Behind the mark too a scan looks for what follows.
        let needed = tail + 2 * SECTOR;
        if needed > zeroed_to {
            file.allocate_zeroed(zeroed_to, needed - zeroed_to)
                .map_err(writing)?;
            file.sync_data().map_err(syncing)?;
        }
        file.write_at(&[IoSlice::new(&mark.meta)], tail)
            .map_err(writing)?;
        file.sync_data().map_err(syncing)
    }
}

/// Without an end, a start after a clean stop takes a volume for cut; also one
/// that waits for its extents to be sealed.
fn needs_end(volume: &Volume) -> bool {
    match volume.stage {
        Stage::Open => true,
        Stage::Closed => !volume.ended && volume.file.is_some(),
        Stage::Sealed => false,
    }
}

/// File, place and mark of an end, and to where the file is zeroed.
type End = (Option<Arc<dyn DiskFile>>, u64, NewRecord, u64);

fn end_of(volume: &Volume) -> End {
    let tail = volume.tail.next_multiple_of(SECTOR);
    // What is closed stays so: a crash may have left bytes behind its tail.
    let (kind, zeroed_to, extents_from) = match volume.stage {
        Stage::Closed if volume.out == 0 => (Kind::Seal, 0, volume.heading.size),
        _ => (Kind::End, volume.zeroed_to, volume.extents_from),
    };
    let end = ShardEnd {
        shard_len: zeroed_to,
        blob_len: 0,
    };
    let salt = volume.heading.salt;
    let mark = NewRecord::mark(salt, tail, volume.tail, kind, extents_from, end);
    (volume.file.clone(), tail, mark, volume.zeroed_to)
}
