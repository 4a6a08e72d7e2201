//! Everything that a disk keeps of a group, in the order in which it lies:
//! the records of its volumes, then its shards in files.
//!
//! Owns no thread. Invariant: a shard that is there from the begin of a
//! stream to its end comes at least once; none comes whose deletion was
//! answered before the window was asked for; nothing comes as whole that does
//! not verify.

mod files;

use shardgate_wire::StoreError;
use shardgate_wire::ids::GroupId;

use crate::aligned::AlignedBuffer;
use crate::core::Core;
use crate::volume::HeldRecords;
use crate::window::{Unread, Window, WindowCursor, WindowPlace};
use files::HeldFiles;

/// Most bytes of a window, whatever is asked for.
const MOST_BYTES: u64 = 64 << 20;

/// What a stream keeps from one window to the next, less than a MiB: no file
/// is open, and without it the same is read once more.
#[derive(Debug, Default)]
pub(crate) struct Held {
    records: HeldRecords,
    files: HeldFiles,
}

impl Core {
    /// Some pieces of shards from a place on, with about `bytes`.
    pub(crate) fn window(
        &self,
        from: WindowCursor,
        bytes: u64,
        held: &mut Held,
        buffer: &mut AlignedBuffer,
    ) -> Result<Window, Unread> {
        let present = self.condition.check_present();
        present.map_err(Unread::at(from))?;
        let bytes = bytes.min(MOST_BYTES);
        let mut place = from.place;
        if from.volume().is_some() {
            let window = self.volumes.window_with(from, bytes, &mut held.records)?;
            if window.next.is_some() {
                return Ok(window);
            }
            place = WindowPlace::FILES;
        }
        let from = WindowCursor { place, ..from };
        self.window_of_files(from, bytes, &mut held.files, buffer)
    }

    /// What [`Self::window`] panicked at: a volume, or the folder of a
    /// file that was listed; else the rest of the group.
    pub(crate) fn panicked_at(&self, from: WindowCursor, held: &Held) -> Unread {
        let error = StoreError::Io {
            what: "read what is stored".into(),
            why: "it panicked".into(),
        };
        let group = from.group;
        let volume = from.volume();
        let volume = volume.and_then(|volume| self.volumes.volume_from(group, volume));
        if let Some(volume) = volume {
            return Unread::at(WindowCursor::of_volume(group, volume))(error);
        }
        match held.files.first(from) {
            Some(place) => Unread::at(WindowCursor { group, place })(error),
            None => Unread::from(from)(error),
        }
    }

    /// The start of the first group from `from` on of which the disk keeps
    /// anything. Without those that have files alone if the folder of shards
    /// cannot be read and `all` is not asked for.
    pub(crate) fn group_from(
        &self,
        from: GroupId,
        all: bool,
    ) -> Result<Option<WindowCursor>, StoreError> {
        let of_files = match self.groups_from(None) {
            Err(StoreError::Io { .. }) if !all => Vec::new(),
            groups => groups?,
        };
        let of_files = of_files.into_iter().filter(|group| *group >= from);
        let of_volumes = self.volumes.groups_from(Some(from)).into_iter();
        Ok(of_volumes.chain(of_files).min().map(WindowCursor::start))
    }
}
