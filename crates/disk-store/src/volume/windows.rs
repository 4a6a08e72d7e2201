//! The records of a group in the order in which they lie on the disk, for
//! those who read all of them: scrub, repair, drain.
//!
//! A cursor names a place by volume and offset, so that what goes on later
//! goes on there, whatever was sealed or compacted meanwhile: a volume that
//! is gone is followed by the next, and what it held is in a later one.

use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{ShardHeader, ShardKey, StoreError};

use super::engine::Engine;
use super::files::Order;
use super::locate::Located;
use super::reading::Unread;
use crate::io::DiskFile;

/// A place among the records of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowCursor {
    /// The group.
    pub group: GroupId,
    /// Number of the volume.
    pub volume: u64,
    /// Where in it.
    pub offset: u64,
}

/// One record of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRecord {
    /// Which shard.
    pub key: ShardKey,
    /// Head, end and bytes, verified; or what is wrong with it.
    pub shard: Result<WindowShard, StoreError>,
}

/// A shard of a window, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowShard {
    /// Its head.
    pub header: ShardHeader,
    /// Its lengths.
    pub end: ShardEnd,
    /// Its bytes.
    pub bytes: bytes::Bytes,
    /// One per 64 KiB block.
    pub crcs: Vec<u32>,
}

/// Some records in order of place, and where the next window begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The records.
    pub records: Vec<WindowRecord>,
    /// `None` at the end of the group.
    pub next: Option<WindowCursor>,
    /// A volume is damaged in a stretch whose keys nobody knows.
    pub unknown: bool,
}

impl Engine {
    /// The records of the cursor's group from its place on, as many as have
    /// about `bytes`.
    pub(crate) fn window(&self, from: WindowCursor, bytes: u64) -> Result<Window, StoreError> {
        loop {
            let moves = self.state.read().moves;
            match self.window_now(from, bytes) {
                // A directory went with its volume while it was read: what it
                // named is in a later one.
                Err(_) if self.state.read().moves != moves => {}
                window => return window,
            }
        }
    }

    fn window_now(&self, from: WindowCursor, bytes: u64) -> Result<Window, StoreError> {
        let mut window = Window {
            records: Vec::new(),
            next: None,
            unknown: false,
        };
        let Some((sequence, unknown)) = self.volume_from(from) else {
            return Ok(window);
        };
        window.unknown = unknown;
        let offset = if sequence == from.volume {
            from.offset
        } else {
            0
        };
        let mut entries = self.entries_of(from.group, sequence)?;
        entries.retain(|(_, entry)| entry.offset() >= offset);
        entries.sort_by_key(|(_, entry)| entry.at);
        let mut sum = 0;
        window.next = Some(WindowCursor {
            volume: sequence + 1,
            offset: 0,
            ..from
        });
        let open = self.open_file_of(from.group, sequence);
        for (heading, entry) in entries {
            if sum >= bytes {
                window.next = Some(WindowCursor {
                    volume: sequence,
                    offset: entry.offset(),
                    ..from
                });
                break;
            }
            sum += entry.bytes();
            let key = ShardKey {
                group: from.group,
                blob: entry.blob,
                index: entry.index,
            };
            // One that cannot be opened is met where it is read.
            let sealed = || self.volume_for(&heading, Order::Rising).ok();
            let located = Located {
                heading,
                entry,
                file: open.clone().or_else(sealed),
                sure: true,
            };
            if let Some(shard) = self.window_shard(key, &located)? {
                window.records.push(WindowRecord { key, shard });
            }
        }
        Ok(window)
    }

    fn volume_from(&self, from: WindowCursor) -> Option<(u64, bool)> {
        let state = self.state.read();
        let of = state.groups.get(&from.group)?;
        let (sequence, volume) = of.volumes.range(from.volume..).next()?;
        Some((*sequence, volume.unknown > 0))
    }

    fn open_file_of(&self, group: GroupId, sequence: u64) -> Option<Arc<dyn DiskFile>> {
        let state = self.state.read();
        let volume = state.groups.get(&group)?.volumes.get(&sequence)?;
        volume.file.clone()
    }

    /// A record, or what is wrong with it; `None` if it went meanwhile.
    fn window_shard(
        &self,
        key: ShardKey,
        located: &Located,
    ) -> Result<Option<Result<WindowShard, StoreError>>, StoreError> {
        let read = self
            .open_record(key, located, located.entry.span as usize)
            .and_then(|opened| {
                let len = usize::try_from(opened.head.end.shard_len).unwrap_or(usize::MAX);
                let read = self.read_blocks(&opened, 0, len)?;
                Ok(WindowShard {
                    header: opened.meta.header,
                    end: opened.head.end,
                    bytes: read.bytes,
                    crcs: read.crcs,
                })
            });
        let error = match read {
            Ok(shard) => return Ok(Some(Ok(shard))),
            Err(Unread::Store(error)) => error,
            Err(Unread::Io(error)) => self.unread(&error),
        };
        match self.is_gone(located) {
            true => Ok(None),
            false => Ok(Some(Err(error))),
        }
    }
}
