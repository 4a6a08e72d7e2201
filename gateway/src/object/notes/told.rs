//! What one disk was told of blobs: pure bookkeeping.
//!
//! Invariant: a place is only ever passed after everything before it that
//! concerns the disk is durable there; what a mark vouches for is on the disk.

use std::time::Duration;

use shardgate_catalog::{CondemnedCursor, NotePlace};
use shardgate_wire::CommitNumber;
use tokio::time::Instant;

/// How long a disk is left alone that did not take its notes.
const RETRY: Duration = Duration::from_secs(10);
/// How often a disk is told of commits that do not concern it.
const MARK_EVERY: Duration = Duration::from_secs(10);

/// How far one disk is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// The last place of the queue of notes that it is past.
    pub(super) published: Option<NotePlace>,
    /// The last condemned blob that it is past, since this start.
    pub(super) deleted: Option<CondemnedCursor>,
    /// Every note of a published blob up to here is on it.
    pub(super) published_through: CommitNumber,
    /// Every note of a deleted blob up to here is on it.
    pub(super) deleted_through: CommitNumber,
    /// But for those of blobs condemned by commits up to here: they are held
    /// back.
    pub(super) without: Option<CommitNumber>,
    /// The last mark that it has, and when it was sent.
    marked: Option<(CommitNumber, Instant)>,
    /// It has no room for notes of deleted blobs.
    pub(super) full: bool,
    /// A turn of it is under way.
    busy: bool,
    retry_at: Option<Instant>,
}

impl Told {
    /// A disk of which the catalog remembers this place.
    pub(super) fn remembered(published: Option<NotePlace>) -> Self {
        Self {
            published,
            ..Self::default()
        }
    }

    /// Whether it has the note of a blob that was condemned there.
    pub(super) fn knows_of(&self, condemned: CondemnedCursor) -> bool {
        let held_back = self.without.is_some_and(|to| condemned.commit <= to);
        !held_back && self.deleted >= Some(condemned)
    }

    /// The place behind which condemned blobs are told next, where those of
    /// commits up to `held_back` are not to be told. When that ends, all that
    /// was passed over is told.
    pub(super) fn next_deleted(
        &mut self,
        held_back: Option<CommitNumber>,
    ) -> Option<CondemnedCursor> {
        if held_back < self.without {
            (self.deleted, self.deleted_through) = (None, CommitNumber(0));
        }
        self.without = held_back;
        let passed_over = held_back.map(|commit| CondemnedCursor {
            commit,
            index: u32::MAX,
        });
        self.deleted.max(passed_over)
    }

    /// Begins a turn, if none is under way and it is time.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let may = !self.busy && self.retry_at.is_none_or(|at| at <= now);
        self.busy |= may;
        may
    }

    /// Ends the turn.
    pub(super) fn end(&mut self, done: bool, now: Instant) {
        self.busy = false;
        self.retry_at = (!done).then(|| now + RETRY);
    }

    /// Up to which commit the disk has every note.
    pub(super) fn through(&self) -> CommitNumber {
        self.published_through.min(self.deleted_through)
    }

    /// The mark that it is to be told, if any: with the notes that are `sent`
    /// anyway, else now and then.
    pub(super) fn mark(&self, sent: bool, now: Instant) -> Option<CommitNumber> {
        if self.without.is_some() {
            // It lacks some, and a mark would say that it has all.
            return None;
        }
        let through = self.through();
        let (news, late) = match self.marked {
            None => (through > CommitNumber(0), true),
            Some((marked, at)) => (through > marked, now - at >= MARK_EVERY),
        };
        (news && (sent || late)).then_some(through)
    }

    /// It has this mark.
    pub(super) fn has_mark(&mut self, mark: CommitNumber, now: Instant) {
        self.marked = Some((mark, now));
    }
}

/// What the purge asks of a disk that has shards of a condemned blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knows {
    /// It has the note that the blob was deleted.
    pub(crate) told: bool,
    /// It takes no more such notes.
    pub(crate) full: bool,
    /// There is a way to it now.
    pub(crate) there: bool,
}

/// On which of its disks a blob's shards may be deleted now: on those that
/// have the note. Where one has no room for it, a blob is deleted only on all
/// of its disks at once, so that none keeps a shard of it without a note.
pub(crate) fn may_delete(disks: &[Knows]) -> Vec<bool> {
    let without = disks.iter().any(|disk| !disk.told && disk.full);
    let all_there = disks.iter().all(|disk| disk.there);
    let may = |disk: &Knows| match without {
        true => all_there,
        false => disk.told,
    };
    disks.iter().map(may).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(commit: u64, index: u32) -> CondemnedCursor {
        CondemnedCursor {
            commit: CommitNumber(commit),
            index,
        }
    }

    #[test]
    fn a_disk_knows_what_it_is_past() {
        let mut told = Told::default();
        assert!(!told.knows_of(cursor(1, 0)));
        told.deleted = Some(cursor(5, 2));
        for (at, knows) in [
            ((5, 2), true),
            ((5, 3), false),
            ((4, 9), true),
            ((6, 0), false),
        ] {
            assert_eq!(told.knows_of(cursor(at.0, at.1)), knows, "{at:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_back_is_not_known_and_told_when_that_ends() {
        let mut told = Told::default();
        let limit = Some(CommitNumber(5));
        assert_eq!(told.next_deleted(limit), Some(cursor(5, u32::MAX)));
        told.deleted = Some(cursor(8, 0));
        told.deleted_through = CommitNumber(9);
        told.published_through = CommitNumber(9);
        assert!(!told.knows_of(cursor(5, 0)) && told.knows_of(cursor(6, 0)));
        assert_eq!(
            told.mark(true, Instant::now()),
            None,
            "it would say too much"
        );
        assert_eq!(told.next_deleted(limit), Some(cursor(8, 0)));
        assert_eq!(told.next_deleted(None), None, "all from the beginning");
        assert!(!told.knows_of(cursor(6, 0)));
        told.deleted = Some(cursor(8, 0));
        assert_eq!(told.next_deleted(None), Some(cursor(8, 0)));
        assert!(told.knows_of(cursor(5, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn marks_go_along_or_now_and_then_and_say_what_is_on_the_disk() {
        let mut told = Told::default();
        let now = Instant::now();
        assert_eq!(told.mark(true, now), None, "nothing is vouched for");
        told.published_through = CommitNumber(9);
        assert_eq!(told.mark(true, now), None, "deletes are not");
        told.deleted_through = CommitNumber(7);
        assert_eq!(
            told.mark(false, now),
            Some(CommitNumber(7)),
            "after a start"
        );
        told.has_mark(CommitNumber(7), now);
        assert_eq!(told.mark(true, now), None, "it has that one");
        told.deleted_through = CommitNumber(8);
        assert_eq!(told.mark(true, now), Some(CommitNumber(8)));
        assert_eq!(told.mark(false, now), None);
        assert_eq!(told.mark(false, now + MARK_EVERY), Some(CommitNumber(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_turn_at_a_time_and_a_pause_after_a_failure() {
        let mut told = Told::default();
        let now = Instant::now();
        assert!(told.begin(now));
        assert!(!told.begin(now), "under way");
        told.end(true, now);
        assert!(told.begin(now));
        told.end(false, now);
        assert!(!told.begin(now + RETRY / 2));
        assert!(told.begin(now + RETRY));
    }

    #[test]
    fn shards_go_where_the_note_is_or_everywhere_at_once() {
        let disk = |told, full, there| Knows { told, full, there };
        let (told, not) = (disk(true, false, true), disk(false, false, true));
        let (full, away) = (disk(false, true, true), disk(false, false, false));
        let cases = [
            (vec![told, told], vec![true, true]),
            (vec![told, not], vec![true, false]),
            (vec![told, away], vec![true, false]),
            (vec![told, full], vec![true, true]),
            (vec![full, full], vec![true, true]),
            (vec![full, away], vec![false, false]),
            (vec![told, full, away], vec![false, false, false]),
            (vec![disk(true, true, false), told], vec![true, true]),
        ];
        for (disks, may) in cases {
            assert_eq!(may_delete(&disks), may, "{disks:?}");
        }
    }
}
