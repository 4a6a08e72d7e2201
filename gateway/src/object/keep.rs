//! Stores bytes of the gateway's own as a blob: a file of a checkpoint.
//!
//! Owns the order. Invariants (PROTOCOL.md 4): the caller has registered the
//! blob by a commit before its first byte is sent; it goes into a group all of
//! whose disks live; it is stored only when **every** shard is durable, however
//! late. Nothing is published and nothing condemned here: both are for whoever
//! registered it. Memory is held for what is buffered, whatever the length.
//! It gives way to clients until the journal has half its bound; once their
//! writes wait for it, it keeps to no speed limit either.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use shardgate_catalog::model::BlobRef;
use shardgate_erasure::{Geometry, Layout};
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{BlobLayout, BucketIncarnation, DiskId, Generation, ObjectRef, VersionUid};

use super::admission::stream_need;
use super::error::ObjectError;
use super::ports::GroupView;
use super::rebuild::Turns;
use super::request::BodyStream;
use super::service::ObjectService;
use super::store::feed;
use super::stripe::StripeCoder;
use super::writer::{BlobWriter, Manner};

/// Calls of clients at a disk from which on it is busy.
const BUSY_CALLS: u32 = 3;

/// Where a blob is to go.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// The blob: not known to anybody yet.
    pub blob: BlobRef,
    group: Arc<GroupView>,
    layout: Layout,
}

/// A blob all of whose shards are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The blob.
    pub blob: BlobRef,
    /// The generation of its group under which it was written.
    pub generation: Generation,
    /// The disk of each shard.
    pub disks: Vec<DiskId>,
}

/// What the shards of a blob say that is the gateway's own: no bucket, and a
/// name that says what it is.
pub fn own_object(name: &str, blob: &BlobRef) -> ObjectRef {
    ObjectRef {
        bucket: String::new(),
        incarnation: BucketIncarnation(0),
        key: name.to_owned(),
        version: VersionUid(blob.blob.0),
        part: 0,
        metadata: Vec::new(),
    }
}

impl ObjectService {
    /// Chooses the group of a blob of `len` bytes, at least one, and its id.
    ///
    /// # Errors
    /// Too few disks live, or have space.
    pub async fn place_kept(&self, len: u64) -> Result<Keeping, ObjectError> {
        let core = &self.core;
        core.check_in_force()?;
        assert!(len > 0, "nothing is no blob");
        let group = core.disks.group_for_keeping(len).await?;
        let target = core.disks.shard_target(group.row.medium);
        let layout = Layout::choose(group.scheme, Some(len), target);
        let blob = BlobRef {
            group: group.row.id,
            blob: core.new_blob(),
            layout: BlobLayout {
                data: layout.data(),
                parity: layout.parity(),
            },
            len,
        };
        Ok(Keeping {
            blob,
            group,
            layout,
        })
    }

    /// Sends a blob that was registered since it was placed.
    ///
    /// # Errors
    /// Not every shard is durable, or the bytes are not as many as was said;
    /// what there is stays until it is condemned.
    pub async fn keep(
        &self,
        place: &Keeping,
        name: &str,
        mut bytes: BodyStream,
        turns: &dyn Turns,
    ) -> Result<Kept, ObjectError> {
        let core = &self.core;
        let (blob, layout) = (place.blob, place.layout);
        let geometry = Geometry::new(layout, blob.len).map_err(|_| too_long(blob.len))?;
        let mut permit = core.admit(stream_need(layout, Some(blob.len))).await?;
        let mut writer = BlobWriter::begin_as(
            core,
            Arc::clone(&place.group),
            blob,
            (layout, Some(blob.len)),
            own_object(name, &blob),
            Manner::Registered,
        )?;
        let mut coder = StripeCoder::new(core.codec(layout), Some(blob.len), core.blocks.clone());
        let mut sent = 0;
        while let Some(frame) = next(&mut writer, &mut bytes).await? {
            sent += frame.len() as u64;
            if sent > blob.len {
                break;
            }
            if writer.has_failed() {
                return Err(writer.lost());
            }
            self.turn(&place.group, frame.len() as u64, turns).await;
            core.check_in_force()?;
            feed(&mut writer, &mut coder, (&mut permit, 0), &frame).await?;
        }
        if sent != blob.len {
            return Err(ObjectError::IncompleteBody {
                declared: blob.len,
                received: sent,
            });
        }
        let end = ShardEnd {
            shard_len: geometry.shard_len(),
            blob_len: blob.len,
        };
        writer.finish_all(end).await?;
        writer.published();
        let shards = 0..layout.shards();
        Ok(Kept {
            blob,
            generation: place.group.row.generation,
            disks: shards.map(|shard| place.group.disk(&blob, shard)).collect(),
        })
    }

    /// Waits until so many bytes may be sent.
    async fn turn(&self, group: &GroupView, bytes: u64, turns: &dyn Turns) {
        let room = &self.core.catalog_room;
        if room.is_journal_full() {
            // Clients' writes wait for this, whatever else they do.
            return;
        }
        let busy = || !room.is_journal_long() && self.is_busy(group);
        turns.next(bytes, &busy).await;
    }

    /// Whether clients use the disks of a group now.
    fn is_busy(&self, group: &GroupView) -> bool {
        let disks = group.row.slots.iter();
        let loads = disks.map(|disk| self.core.calls.load(*disk));
        loads.max().unwrap_or(0) >= BUSY_CALLS
    }
}

fn too_long(len: u64) -> ObjectError {
    ObjectError::Damaged {
        why: format!("a blob of {len} bytes"),
    }
}

/// The next bytes of the source; meanwhile the calls under way go on.
async fn next(
    writer: &mut BlobWriter,
    bytes: &mut BodyStream,
) -> Result<Option<Bytes>, ObjectError> {
    loop {
        tokio::select! {
            biased;
            frame = bytes.next() => return frame.transpose().map_err(ObjectError::from),
            () = writer.event() => {}
        }
    }
}
