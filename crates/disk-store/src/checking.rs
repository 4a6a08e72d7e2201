//! The check of a whole disk, for the operator: everything that it keeps is
//! read from the device and compared with itself, part by part.
//!
//! Owns the order of the parts, and where each of them ends: a call reads a
//! volume or about [`PART_BYTES`], whatever the disk holds. Invariants: what
//! is deleted, sealed, compacted, rolled or written meanwhile is never found
//! wrong, because whatever does not match is looked at once more in what the
//! disk knows by then; what was there from the first part to the last is
//! passed over by none, because what replaces a file comes behind all that
//! were there. Changes nothing but directories of volumes and the acceptance
//! of a log that was lost, and those only if it was asked to.

mod cursor;
mod files;
mod folder;
mod journal;
mod records;
mod report;
#[cfg(test)]
mod tests;
mod way;

use std::time::Duration;

use shardgate_wire::{CallContext, CheckCursor, CheckPage, StoreError};

use crate::core::Core;
use crate::volume::{GiveWay, Mending, VolumePlace};
use cursor::Place;
pub(crate) use report::Report;
use way::Way;

/// A part ends once that many bytes were read; what was begun is read to its
/// end if it is a volume.
const PART_BYTES: u64 = if cfg!(test) { 2 << 20 } else { 64 << 20 };
/// A repair waits that long for a compaction that is under way.
const COMPACTION_ENDS: Duration = Duration::from_secs(1);
/// Parts that wait for it, one after the other, before it is said that a
/// directory was not repaired.
const MOST_TRIES: u8 = 60;
const FIRST_VOLUME: Place = Place::Volumes {
    after: None,
    tries: 0,
};

impl Core {
    /// Checks what begins at `from`, and gives where to go on. With `repair`,
    /// who asks for it; a fenced disk is checked all the same, and repaired
    /// in nothing.
    ///
    /// # Errors
    /// `BadCall` for a cursor that no disk gave, `Lost`, `StaleEpoch`, and
    /// `Busy` where too many files are open.
    pub(crate) fn check_part(
        &self,
        from: Option<&CheckCursor>,
        repair: Option<&CallContext>,
    ) -> Result<CheckPage, StoreError> {
        let at = from.map_or(Ok(Place::default()), Place::decode)?;
        // Without it everything would seem to be missing.
        self.check_presence()?;
        let repair = match repair.map(|ctx| self.enter(ctx)) {
            None | Some(Err(StoreError::Fenced { .. })) => None,
            Some(Ok(_)) => repair,
            Some(Err(error)) => return Err(error),
        };
        let way = Way::new(self);
        let mut report = Report::default();
        let next = self.check_from(at, repair, &way, &mut report)?;
        self.check_presence()?;
        for (key, what) in report.damaged() {
            self.found_damaged(*key, what);
        }
        Ok(report.into_page(next.map(Place::encode)))
    }

    fn check_from(
        &self,
        at: Place,
        repair: Option<&CallContext>,
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<Option<Place>, StoreError> {
        Ok(match at {
            Place::Records => {
                self.check_folder(report);
                self.check_records(report)?;
                Some(Place::Log(None))
            }
            Place::Log(from) => {
                if from.is_none() {
                    self.check_lost_log(repair, report)?;
                }
                let next = self.volumes.check_log(report, from, way)?;
                Some(next.map_or(FIRST_VOLUME, |next| Place::Log(Some(next))))
            }
            Place::Volumes { after, tries } => {
                self.check_volumes(after, tries, repair, way, report)?
            }
            Place::Files(from) => self.check_files(from, way, report)?,
            Place::Notes(file) => {
                let next = self.notes.check(report, file, way)?;
                Some(next.map_or(Place::Journal(None), Place::Notes))
            }
            Place::Journal(from) => self
                .check_journal(from, way, report)?
                .map(|next| Place::Journal(Some(next))),
        })
    }

    /// What was lost of the log before the disk was opened.
    fn check_lost_log(
        &self,
        repair: Option<&CallContext>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        if self.volumes.report_lost_log(report)
            && let Some(ctx) = repair
        {
            let _gate = self.enter(ctx)?;
            self.volumes.accept_lost_log()?;
            report.repaired();
        }
        Ok(())
    }

    /// Volumes behind `after` until enough was read.
    fn check_volumes(
        &self,
        mut after: Option<VolumePlace>,
        tries: u8,
        repair: Option<&CallContext>,
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<Option<Place>, StoreError> {
        while !way.is_spent() && !report.is_full() {
            let Some(place) = self.volumes.volume_behind(after) else {
                return Ok(Some(Place::Files(None)));
            };
            let mut of_volume = Report::default();
            if after.is_none_or(|(group, _)| group != place.0) {
                self.volumes.check_group_folder(&mut of_volume, place.0)?;
            }
            let mending = self.volumes.check_volume(&mut of_volume, place, way)?;
            if let (Some(mending), Some(ctx)) = (mending, repair) {
                match self.repair_directory(ctx, &mending)? {
                    Repair::Done => of_volume.repaired(),
                    Repair::Refused => {}
                    // What it was to be repaired by is read again.
                    Repair::Waits if tries < MOST_TRIES => {
                        let tries = tries + 1;
                        return Ok(Some(Place::Volumes { after, tries }));
                    }
                    Repair::Waits => {}
                }
            }
            report.add(of_volume);
            after = Some(place);
        }
        Ok(Some(Place::Volumes { after, tries: 0 }))
    }

    /// Only while nothing is compacted: what copies a volume's records has
    /// read its directory before, and would leave out what that did not name.
    fn repair_directory(&self, ctx: &CallContext, mending: &Mending) -> Result<Repair, StoreError> {
        let Some(_alone) = self.tidying.try_lock_for(COMPACTION_ENDS) else {
            return Ok(Repair::Waits);
        };
        let repaired = self
            .enter(ctx)
            .and_then(|_gate| self.volumes.repair_directory(mending));
        match repaired {
            Ok(()) => Ok(Repair::Done),
            Err(error @ (StoreError::Lost { .. } | StoreError::StaleEpoch { .. })) => Err(error),
            Err(error) => {
                tracing::warn!(disk = %self.identity.disk, %error, "a directory was not repaired");
                Ok(Repair::Refused)
            }
        }
    }
}

/// What became of a directory that was to be written anew.
enum Repair {
    Done,
    Refused,
    Waits,
}
