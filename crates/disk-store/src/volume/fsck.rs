//! Checking volumes against themselves: every record is read, and every
//! directory compared with the records it stands for.
//!
//! Says what is wrong and repairs directories, nothing else: what a record
//! holds can only come back from the other disks of its group.

use std::collections::BTreeSet;

use shardgate_wire::check::bounded;
use shardgate_wire::ids::GroupId;
use shardgate_wire::{CheckPage, Finding, ShardKey, StoreError};

use super::engine::Engine;
use super::format::{DirectoryHead, Entry};
use super::place::{What, volume_file};
use super::scan::{Scanned, name, scan};
use super::source::BadSectors;
use super::volume_state::Stage;
use super::windows::WindowCursor;
use crate::io::OpenHow;

fn find(check: &mut CheckPage, place: String, shard: Option<ShardKey>, what: impl Into<String>) {
    check.findings.push(Finding {
        place,
        shard,
        what: bounded(what.into()),
        repaired: false,
    });
}

/// A volume, by group and number.
pub(crate) type Place = (GroupId, u64);

/// A sealed volume that is checked.
struct Sealed {
    group: GroupId,
    sequence: u64,
    head: DirectoryHead,
    dead: BTreeSet<u32>,
}

impl Engine {
    /// Reads all volumes, and the log. With `repair`, directories that do not
    /// say what the records do are written anew. Nothing may be sealed or
    /// compacted meanwhile.
    #[cfg(test)]
    pub(crate) fn check(&self, repair: bool) -> Result<CheckPage, StoreError> {
        let mut check = CheckPage::default();
        self.check_log(&mut check, repair)?;
        let mut after = None;
        while let Some(place) = self.check_next(&mut check, after, repair)? {
            after = Some(place);
        }
        Ok(check)
    }

    /// Reads the volume behind `after`, and gives its place; `None` if there
    /// is none. Nothing may be sealed or compacted meanwhile. In between it
    /// may: what others were made into comes behind all of its group.
    pub(crate) fn check_next(
        &self,
        check: &mut CheckPage,
        after: Option<Place>,
        repair: bool,
    ) -> Result<Option<Place>, StoreError> {
        let Some((group, sequence, stage)) = self.volume_behind(after) else {
            return Ok(None);
        };
        check.volumes += 1;
        match (stage, self.sealed(group, sequence)) {
            (Stage::Sealed, Some(sealed)) => self.check_sealed(check, &sealed, repair)?,
            (Stage::Sealed, None) => find(
                check,
                name(group, sequence),
                None,
                "volume has no heading: its records cannot be read",
            ),
            _ => self.check_open(check, group, sequence)?,
        }
        Ok(Some((group, sequence)))
    }

    fn volume_behind(&self, after: Option<Place>) -> Option<(GroupId, u64, Stage)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (from, behind) = after.unwrap_or((GroupId(0), 0));
        let state = self.state.read();
        state.groups.range(from..).find_map(|(group, of)| {
            let first = match after {
                Some(_) if *group == from => Excluded(behind),
                _ => Unbounded,
            };
            let (sequence, volume) = of.volumes.range((first, Unbounded)).next()?;
            Some((*group, *sequence, volume.stage))
        })
    }

    /// What was lost of the log stays lost. With `repair`, what is left is
    /// taken for all there is from here on.
    pub(crate) fn check_log(&self, check: &mut CheckPage, repair: bool) -> Result<(), StoreError> {
        if !self.state.read().incomplete {
            return Ok(());
        }
        let what = "part of it was lost: deletes and notes may be missing";
        find(check, "log".into(), None, what);
        if repair {
            let mut writer = self.writing();
            self.condition.check_writable()?;
            self.state.write().incomplete = false;
            let renewed = self.renew_log(&mut writer);
            self.state.write().incomplete = renewed.is_err();
            renewed?;
            if let Some(finding) = check.findings.last_mut() {
                finding.repaired = true;
            }
        }
        Ok(())
    }

    fn sealed(&self, group: GroupId, sequence: u64) -> Option<Sealed> {
        let state = self.state.read();
        let volume = state.groups.get(&group)?.volumes.get(&sequence)?;
        let super::volume_state::Index::Directory(head) = &volume.index else {
            return None;
        };
        Some(Sealed {
            group,
            sequence,
            head: head.clone(),
            dead: volume.dead.iter().copied().collect(),
        })
    }

    fn check_sealed(
        &self,
        check: &mut CheckPage,
        sealed: &Sealed,
        repair: bool,
    ) -> Result<(), StoreError> {
        let place = name(sealed.group, sealed.sequence);
        let path = volume_file(sealed.group, sealed.sequence, What::Volume);
        let file = match self.io.open(&path, OpenHow::Read) {
            Ok(file) => file,
            Err(_) if self.sealed(sealed.group, sealed.sequence).is_none() => return Ok(()),
            Err(error) => {
                find(check, place, None, format!("volume: {error}"));
                return Ok(());
            }
        };
        let scanned = match scan(&*file, &sealed.head.heading, BadSectors::PassOver) {
            Ok(scanned) => scanned,
            Err(error) => {
                find(check, place, None, format!("volume: {error}"));
                return Ok(());
            }
        };
        if self.sealed(sealed.group, sealed.sequence).is_none() {
            return Ok(()); // it was compacted meanwhile
        }
        let lost = report_records(check, &place, sealed, &scanned);
        let differs = self.directory_differs(sealed, &scanned);
        if let Some(what) = differs {
            find(check, format!("directory of {place}"), None, what);
            if repair && !lost {
                let _no_batch = self.writing();
                self.make_anew(&sealed.head, &scanned)?;
                if let Some(finding) = check.findings.last_mut() {
                    finding.repaired = true;
                }
            }
        }
        Ok(())
    }

    /// What the directory says that the records do not, or the reverse.
    fn directory_differs(&self, sealed: &Sealed, scanned: &Scanned) -> Option<String> {
        self.files.forget_pages(sealed.sequence);
        let read = || -> Result<Vec<Entry>, StoreError> {
            let path = volume_file(sealed.group, sealed.sequence, What::Directory);
            self.io
                .open(&path, OpenHow::Read)
                .map_err(|error| self.unread(&error))?;
            let entries = self.entries_of(sealed.group, sealed.sequence)?;
            Ok(entries.into_iter().map(|(_, entry)| entry).collect())
        };
        let entries = match read() {
            Ok(entries) => entries,
            Err(error) => return Some(error.to_string()),
        };
        // How much of it there was, a record that is damaged may not tell.
        let damaged: BTreeSet<_> = scanned.damaged.iter().map(|entry| entry.at).collect();
        let place = |entry: &Entry| match damaged.contains(&entry.at) {
            true => (entry.key(), entry.at, None),
            false => (entry.key(), entry.at, Some((entry.span, entry.besides))),
        };
        let said: BTreeSet<_> = entries.iter().map(place).collect();
        let live = scanned
            .entries
            .iter()
            .filter(|entry| !sealed.dead.contains(&entry.at));
        let found: BTreeSet<_> = live.map(place).collect();
        let missing = found.difference(&said).count();
        let more = said.difference(&found).count();
        (missing + more > 0).then(|| {
            format!("{missing} records are not in it, {more} of its entries have no record")
        })
    }

    /// The records of a volume that is not sealed.
    fn check_open(
        &self,
        check: &mut CheckPage,
        group: GroupId,
        sequence: u64,
    ) -> Result<(), StoreError> {
        const WINDOW: u64 = 4 << 20;
        let start = WindowCursor::of_volume(group, sequence);
        let mut next = Some(start);
        while let Some(from) = next.filter(|next| next.volume() == Some(sequence)) {
            let window = self.window(from, WINDOW)?;
            if window.unknown && from == start {
                let what = "a stretch is damaged, and nobody knows which shards were there";
                find(check, name(group, sequence), None, what);
            }
            for record in window.records {
                match record.shard {
                    Ok(shard) => {
                        // A long one comes in pieces.
                        check.shards += u64::from(shard.offset == 0);
                        check.bytes += shard.bytes.len() as u64;
                    }
                    Err(error) => {
                        let place = name(group, sequence);
                        find(check, place, Some(record.key), error.to_string());
                    }
                }
            }
            next = window.next;
        }
        Ok(())
    }
}

/// Reports damaged records; true if one of the directory's was not found.
fn report_records(check: &mut CheckPage, place: &str, sealed: &Sealed, scanned: &Scanned) -> bool {
    let damaged: BTreeSet<u32> = scanned.damaged.iter().map(|entry| entry.at).collect();
    for entry in &scanned.entries {
        if sealed.dead.contains(&entry.at) {
            continue;
        }
        if damaged.contains(&entry.at) {
            let key = ShardKey {
                group: sealed.group,
                blob: entry.blob,
                index: entry.index,
            };
            find(check, place.to_owned(), Some(key), "record is damaged");
        } else {
            check.shards += 1;
            check.bytes += entry.bytes();
        }
    }
    if scanned.unread_bytes > 0 {
        let what = format!("{} bytes cannot be read", scanned.unread_bytes);
        find(check, place.to_owned(), None, what);
    }
    for (from, to) in &scanned.unknown {
        let what = format!("bytes {from} to {to} are no records");
        find(check, place.to_owned(), None, what);
    }
    if !scanned.sealed {
        let what = format!("volume has no seal, records end at {}", scanned.tail);
        find(check, place.to_owned(), None, what);
    }
    !scanned.unknown.is_empty() || !scanned.sealed || scanned.unread_bytes > 0
}
