//! New volumes, and the extents in them.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{ShardHeader, StoreError};

use super::commit::{Ending, OwnedOp};
use super::engine::{Engine, Writer};
use super::format::{
    FIRST_RECORD, HEADING_COPY, Heading, LINK_SPAN, SECTOR, encode_heading, meta_len,
    record_in_extent, zero_sectors,
};
use super::place::{VOLUMES, What, group_folder, volume_file};
use super::volume_state::{Stage, Volume};
use crate::aligned::AlignedBuffer;
use crate::condition::Doing;
use crate::io::{DiskFile, DiskIo, OpenHow};

const PAGE: u64 = 4096;

/// Space in a volume for the bytes of one shard. Given back by a commit, or
/// by [`Engine::release`].
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) group: GroupId,
    pub(crate) sequence: u64,
    /// Where in the volume.
    pub(crate) at: u64,
    /// Where the shard's bytes go, at a page; its record ends before them.
    pub(crate) data_at: u64,
    /// Length of the shard.
    pub(crate) len: u64,
    promised: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// Makes a folder that may be there.
pub(crate) fn make_folder(io: &dyn DiskIo, path: &Path) -> io::Result<()> {
    match io.create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// An extent that gives itself up when nobody needs it any more.
#[derive(Debug)]
pub(crate) struct OwnExtent {
    engine: Arc<Engine>,
    extent: Extent,
    /// Sectors of it that were written and are all zeroes.
    zeroes: u32,
    settled: bool,
}

impl OwnExtent {
    /// As [`Engine::reserve`].
    pub(crate) fn reserve(
        engine: &Arc<Engine>,
        header: &ShardHeader,
        len: u64,
    ) -> Result<Option<Self>, StoreError> {
        let extent = engine.reserve(header, len)?;
        Ok(extent.map(|extent| Self {
            engine: Arc::clone(engine),
            extent,
            zeroes: 0,
            settled: false,
        }))
    }

    /// Writes bytes of the shard, from the start of a sector on; durable with
    /// its end.
    ///
    /// Invariant: no sector is written twice with other bytes. One that a loss
    /// of power left out shows zeroes, and is known by them.
    pub(crate) fn append(
        &mut self,
        buffer: &mut AlignedBuffer,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        assert!(offset.is_multiple_of(SECTOR));
        assert!(offset + bytes.len() as u64 <= self.extent.len);
        // Whole pages can go past the page cache.
        let (pages, tail) = bytes.split_at(bytes.len() / PAGE as usize * PAGE as usize);
        if !pages.is_empty() {
            self.write(offset, buffer.fill(&[pages], pages.len()))?;
        }
        if !tail.is_empty() {
            self.write(offset + pages.len() as u64, tail)?;
        }
        self.zeroes = self.zeroes.saturating_add(zero_sectors(bytes, offset));
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let at = self.extent.data_at + offset;
        let written = self.extent.file.write_at(&[IoSlice::new(bytes)], at);
        written.map_err(|error| self.engine.refused(Doing::Writing, "write extent", &error))
    }

    /// Ends the shard, durably.
    pub(crate) fn finish(
        mut self,
        header: ShardHeader,
        end: ShardEnd,
        crcs: Vec<u32>,
    ) -> Result<(), StoreError> {
        let ending = Ending {
            extent: self.extent.clone(),
            header,
            end,
            crcs,
            zeroes: self.zeroes,
        };
        let ops = vec![OwnedOp::Finish(Box::new(ending))];
        let answers = self.engine.commit_with_others(ops);
        let answer = answers.into_iter().next().unwrap_or(Ok(()));
        self.settled = answer.is_ok();
        answer
    }
}

impl Drop for OwnExtent {
    fn drop(&mut self) {
        if !self.settled {
            self.engine.release(&self.extent);
        }
    }
}

impl Engine {
    /// Makes a volume of a group, durable and empty, and gives its number.
    pub(super) fn make_volume(
        &self,
        writer: &mut Writer,
        group: GroupId,
    ) -> Result<u64, StoreError> {
        let heading = self.new_heading(writer, group);
        // A scan looks there for the first record. How far to zero besides,
        // the first batch says.
        let zeroed_to = FIRST_RECORD + PAGE;
        let refused = |(doing, error): (Doing, io::Error)| {
            let what = "make volume";
            self.refused(doing, what, &error)
        };
        let file = self.make_file(&heading, zeroed_to).map_err(refused)?;
        let from = volume_file(group, heading.sequence, What::Output);
        let to = volume_file(group, heading.sequence, What::Volume);
        let named = self.io.rename(&from, &to);
        named.map_err(|error| refused((Doing::Writing, error)))?;
        let named = self.io.sync_dir(&group_folder(group));
        named.map_err(|error| refused((Doing::Syncing, error)))?;
        let volume = Volume::new(heading, file, zeroed_to);
        let mut state = self.state.write();
        let of = state.groups.entry(group).or_default();
        of.volumes.insert(heading.sequence, volume);
        of.open = Some(heading.sequence);
        of.arrange();
        Ok(heading.sequence)
    }

    pub(super) fn new_heading(&self, writer: &mut Writer, group: GroupId) -> Heading {
        let sequence = writer.next_volume;
        writer.next_volume += 1;
        Heading {
            cluster: self.identity.cluster,
            disk: self.identity.disk,
            group,
            sequence,
            salt: (self.random)(),
            size: self.figures.volume_bytes,
        }
    }

    /// Makes the file of a volume, zeroed up to `zeroed_to`, durably. It has
    /// a name that does not count, so that a crash leaves no volume without
    /// a heading.
    pub(super) fn make_file(
        &self,
        heading: &Heading,
        zeroed_to: u64,
    ) -> Result<Arc<dyn DiskFile>, (Doing, io::Error)> {
        let io = &*self.io;
        let folder = group_folder(heading.group);
        let writing = |error| (Doing::Writing, error);
        let syncing = |error| (Doing::Syncing, error);
        make_folder(io, &folder).map_err(writing)?;
        io.sync_dir(Path::new(VOLUMES)).map_err(syncing)?;
        let path = volume_file(heading.group, heading.sequence, What::Output);
        let file = io.open(&path, OpenHow::CreateNew).map_err(writing)?;
        let filled = || -> io::Result<()> {
            file.set_len(heading.size)?;
            file.allocate_zeroed(0, zeroed_to.min(heading.size))?;
            let bytes = encode_heading(heading);
            file.write_at(&[IoSlice::new(&bytes)], 0)?;
            file.write_at(&[IoSlice::new(&bytes)], HEADING_COPY)
        };
        if let Err(error) = filled() {
            let _ = io.remove(&path);
            return Err(writing(error));
        }
        file.sync_all().map_err(syncing)?;
        Ok(file)
    }

    /// Takes no more records into the open volume of a group.
    pub(super) fn close_volume(&self, group: GroupId) {
        let mut state = self.state.write();
        if let Some(of) = state.groups.get_mut(&group)
            && let Some(open) = of.open.take()
            && let Some(volume) = of.volumes.get_mut(&open)
        {
            volume.stage = Stage::Closed;
        }
    }

    /// Space for the bytes of a shard that comes in appends; `None` for one
    /// that belongs into a file of its own.
    pub(crate) fn reserve(
        &self,
        header: &ShardHeader,
        len: u64,
    ) -> Result<Option<Extent>, StoreError> {
        let figures = &self.figures;
        if len == 0 || len > figures.volume_max {
            return Ok(None);
        }
        let group = header.key.group;
        let head = meta_len(header, len).next_multiple_of(PAGE);
        let bytes = head + len.next_multiple_of(PAGE);
        let mut writer = self.writing();
        self.condition.check_writable()?;
        self.check_note(&self.state.read(), header.key)?;
        let mut extent = self.take_extent(group, len, head, bytes);
        if extent.is_none() {
            self.close_volume(group);
            self.make_volume(&mut writer, group)?;
            extent = self.take_extent(group, len, head, bytes);
        }
        drop(writer);
        // Space that runs out does so here, and not in the midst of a shard.
        if let Some(extent) = &extent
            && let Err(error) = extent.file.allocate(extent.at, bytes)
        {
            self.release(extent);
            return Err(self.refused(Doing::Writing, "reserve extent", &error));
        }
        Ok(extent)
    }

    /// Takes `bytes` from the volume's end, of which the first `head` are for
    /// what lies before the shard's bytes in its record.
    fn take_extent(&self, group: GroupId, len: u64, head: u64, bytes: u64) -> Option<Extent> {
        // Its link, which may begin a batch.
        let promised = LINK_SPAN + SECTOR;
        let mut state = self.state.write();
        let of = state.groups.get_mut(&group)?;
        let sequence = of.open?;
        let volume = of.volumes.get_mut(&sequence)?;
        if !volume.has_room(volume.tail, promised, bytes) {
            return None;
        }
        let at = volume.extents_from - bytes;
        volume.extents_from = at;
        volume.promised += promised;
        volume.out += 1;
        Some(Extent {
            group,
            sequence,
            at,
            data_at: at + head,
            len,
            promised,
            file: Arc::clone(volume.file.as_ref()?),
        })
    }

    /// Gives up an extent: its bytes are waste until the volume is compacted.
    pub(crate) fn release(&self, extent: &Extent) {
        let mut state = self.state.write();
        let of = state.groups.get_mut(&extent.group);
        if let Some(volume) = of.and_then(|of| of.volumes.get_mut(&extent.sequence)) {
            extent.settle(volume);
        }
    }
}

impl Extent {
    /// Where the shard's record begins, of whose bytes so many lie before the
    /// shard's; `None` if the extent has no room for them.
    pub(super) fn record_at(&self, meta_len: u64) -> Option<u64> {
        let at = record_in_extent(self.data_at, u32::try_from(meta_len).ok()?);
        at.filter(|at| *at >= self.at)
    }

    /// The extent is out no more.
    pub(super) fn settle(&self, volume: &mut Volume) {
        volume.promised = volume.promised.saturating_sub(self.promised);
        volume.out = volume.out.saturating_sub(1);
    }
}
