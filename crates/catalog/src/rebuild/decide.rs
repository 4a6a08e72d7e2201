//! What became of a blob, which version of a key is the newest, which parts
//! make an object, and up to which commit all of that is known: pure.
//!
//! Invariants (PROTOCOL.md 9): order is that of commits, never of time; what
//! was deleted stays deleted; what nothing tells is undecided and not guessed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shardgate_wire::{BlobLayout, CommitNumber, DiskId, NoteOrder};

use crate::model::{
    BlobRef, Content, DetailRow, GroupRow, NotePayload, PartRow, UploadPartRow, VersionRow,
};

/// What the disks that were read say of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobFact {
    /// A bit for each of its shards that a disk has, finished.
    pub(crate) shards: u32,
    /// Whether a disk has one that was not finished.
    pub(crate) unfinished: bool,
    /// A bit for each disk that has the note that holds. Beyond 64 disks two
    /// may share one: then more are told again than need be.
    pub(crate) noted: u64,
    /// The note that holds.
    pub(crate) note: Option<(NoteOrder, Noted)>,
}

impl BlobFact {
    /// Whether a disk has anything of it.
    pub(crate) fn is_here(&self) -> bool {
        self.shards != 0 || self.unfinished
    }
}

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::large_enum_variant,
    reason = "it is made, encoded and dropped; few are alive at once"
)]
pub(crate) enum Noted {
    /// What it is.
    Is(NotePayload),
    /// It was deleted.
    Deleted,
}

/// What the journal says of a blob, where it says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JournalBlob {
    /// It has an owner.
    Owned,
    /// It has none any more, or never had.
    Gone,
}

/// What a whole catalog as of `base` says of a blob that it does not have: it
/// was published by then, as far as it was noted, and so deleted by then.
pub(crate) fn absent_since(
    noted: Option<NoteOrder>,
    base: Option<NoteOrder>,
) -> Option<JournalBlob> {
    (noted? <= base?).then_some(JournalBlob::Gone)
}

/// What a blob is in the new catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// What the note says, since that commit.
    Belongs(NoteOrder, Box<NotePayload>),
    /// What the journal's rows say.
    ByJournal,
    /// Its shards may go.
    Gone,
    /// Nothing of it is there.
    Nothing,
    /// It cannot be told.
    Undecided(Doubt),
}

/// Why something cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It has shards and no note: it was never published, or it was and no
    /// note of that had come yet.
    NoNote,
    /// It has a note and no shard, and disks that may have some are away; or
    /// the journal has it, it has no shard, and what was committed later is
    /// not known.
    NoShard,
    /// Of its object some parts are not known.
    MissingParts,
    /// Its group is not known.
    NoGroup,
    /// No shard of it tells its bucket or its details.
    NoHeader,
}

impl Doubt {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoNote => "shards without a note: never published, or not known to be",
            Self::NoShard => {
                "published once and without shards now: deleted since, or on disks that are away"
            }
            Self::MissingParts => "an object of which parts are not known",
            Self::NoGroup => "its group is not known",
            Self::NoHeader => "no shard of it can be read",
        }
    }
}

/// How many of a blob's slots were looked at, and on how many it may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Slots whose disks were read to the end.
    pub(crate) read: usize,
    /// Parity shards of the blob.
    pub(crate) parity: usize,
}

impl Looked {
    /// Whether a blob of which no shard was found has none: whatever was
    /// acknowledged lacks at most half of its parity shards.
    fn shows_absence(self) -> bool {
        self.read > self.parity / 2
    }
}

/// Decides what a blob is.
pub(crate) fn fate(fact: &BlobFact, journal: Option<JournalBlob>, looked: Looked) -> Fate {
    let here = fact.is_here();
    let gone = if here { Fate::Gone } else { Fate::Nothing };
    match (&fact.note, journal) {
        (Some((_, Noted::Deleted)), _) | (_, Some(JournalBlob::Gone)) => gone,
        (Some(_), None) if !here && looked.shows_absence() => Fate::Nothing,
        (Some(_), None) if !here => Fate::Undecided(Doubt::NoShard),
        (Some((order, Noted::Is(note))), _) => Fate::Belongs(*order, Box::new(note.clone())),
        (None, Some(JournalBlob::Owned)) => Fate::ByJournal,
        (None, None) if here => Fate::Undecided(Doubt::NoNote),
        (None, None) => Fate::Nothing,
    }
}

/// Something that was committed of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// A version was published.
    Published(Box<Candidate>),
    /// There was no version any more.
    Deleted,
}

/// A version that may be the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Candidate {
    /// Its row.
    pub(crate) row: VersionRow,
    /// The name of its class, if a note had it.
    pub(crate) class: String,
    /// Its details, as far as a note had them, and since when.
    pub(crate) detail: Option<(NoteOrder, DetailRow)>,
    /// A last part that has no blob.
    pub(crate) empty_last: Option<PartRow>,
    /// Whether the journal has its rows.
    pub(crate) in_journal: bool,
}

impl Candidate {
    /// What this one, the later, and another of the same version say together.
    pub(crate) fn merged(self, other: Self) -> Self {
        let detail = [self.detail, other.detail];
        let detail = detail.into_iter().flatten();
        Self {
            row: self.row,
            class: if self.class.is_empty() {
                other.class
            } else {
                self.class
            },
            detail: detail.max_by_key(|(order, _)| *order),
            empty_last: self.empty_last.or(other.empty_last),
            in_journal: self.in_journal || other.in_journal,
        }
    }
}

/// The version that a key has after all that was said of it: the last one.
pub(crate) fn newest(said: &[(NoteOrder, Said)]) -> Option<usize> {
    let last = said.iter().enumerate().max_by_key(|(_, (order, _))| *order);
    let (at, (_, last)) = last?;
    matches!(last, Said::Published(_)).then_some(at)
}

/// The parts of an object in order of their start, from what notes say: of
/// parts that were noted as such, and of parts whose last note is from before
/// the upload was completed. `None` if they do not make the object.
pub(crate) fn assemble(
    row: &VersionRow,
    parts: &[PartRow],
    uploaded: &[UploadPartRow],
    empty_last: Option<&PartRow>,
) -> Option<Vec<PartRow>> {
    let Content::Parts(count) = row.content else {
        return None;
    };
    let mut by_number: BTreeMap<u16, PartRow> = BTreeMap::new();
    for part in parts.iter().chain(empty_last) {
        by_number.insert(part.number, part.clone());
    }
    if by_number.len() < usize::from(count) {
        for part in uploaded {
            by_number.entry(part.number).or_insert_with(|| PartRow {
                number: part.number,
                start: u64::MAX,
                blob: part.blob,
                len: part.len,
                md5: part.md5,
                checksum: part.checksum.clone(),
            });
        }
    }
    if by_number.len() != usize::from(count) {
        return None;
    }
    let mut start = 0;
    let mut all = Vec::with_capacity(by_number.len());
    for (_, mut part) in by_number {
        if part.start != u64::MAX && part.start != start {
            return None;
        }
        part.start = start;
        start += part.len;
        all.push(part);
    }
    (start == row.size).then_some(all)
}

/// The blobs that a version has, as far as they are known.
pub(crate) fn blobs_of(row: &VersionRow, parts: &[PartRow]) -> Vec<BlobRef> {
    match &row.content {
        Content::Blob(blob) => vec![*blob],
        Content::Inline => Vec::new(),
        Content::Parts(_) => parts.iter().filter_map(|part| part.blob).collect(),
    }
}

/// Up to which commit everything that was done to blobs is known. A blob lies
/// on at least one more slot than its group has parity shards: so many of the
/// group's disks may know less, and each blob has one that knows.
///
/// `marks`: the disks that were read, and up to where each vouches.
pub(crate) fn vouched(groups: &[&GroupRow], marks: &BTreeMap<DiskId, NoteOrder>) -> NoteOrder {
    let of_group = |group: &&GroupRow| {
        let mark = |disk: &DiskId| marks.get(disk).copied().unwrap_or_default();
        let mut marks: Vec<NoteOrder> = group.slots.iter().map(mark).collect();
        marks.sort();
        let known = marks.get(usize::from(group.parity));
        known.copied().unwrap_or_default()
    };
    // Without a group there is no blob, and any disk knows that.
    let all = marks.values().max().copied().unwrap_or_default();
    groups.iter().map(of_group).min().unwrap_or(all)
}

/// Up to which commit of the last history everything is known, where it is up
/// to `vouched`: numbers of another history are of other commits, and of the
/// last one nothing is known then.
pub(crate) fn comparable(vouched: NoteOrder, last: NoteOrder) -> CommitNumber {
    match vouched.history == last.history {
        true => vouched.commit,
        false => CommitNumber(0),
    }
}

/// The shards that a blob lacks.
pub(crate) fn lacking(layout: BlobLayout, shards: u32) -> BTreeSet<u8> {
    let all = 0..layout.data.saturating_add(layout.parity);
    all.filter(|index| *index >= 32 || shards & (1 << index) == 0)
        .collect()
}

#[cfg(test)]
mod tests;
