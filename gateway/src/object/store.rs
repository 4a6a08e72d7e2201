//! From a body to durable shards.
//!
//! Owns the three ways of a body. **Inline**: a short one is gathered and
//! goes into the catalog. **Whole**: one of at most a stripe is gathered,
//! checked, and sent; it can be sent again to another group when too many
//! disks fail meanwhile. **Streamed**: a longer one goes to its disks as it
//! comes, m+1 blocks at a time; it cannot be sent again. Invariant: a body
//! that breaks off or fails its checks leaves at most a blob that is
//! condemned.

use std::sync::Arc;

use bytes::Bytes;
use shardgate_erasure::{Geometry, Layout, MAX_DATA};
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{GroupId, ObjectRef};

use super::admission::{stream_most, stream_need, whole_need};
use super::budget::Permit;
use super::core::Core;
use super::digest::BodyDigests;
use super::error::ObjectError;
use super::intake::{Gathered, Intake};
use super::ports::{ClassChoice, GroupView};
use super::stripe::{StripeCoder, code_whole, padded_len, stripe_bytes};
use super::writer::BlobWriter;

/// How often a whole body is sent before it is given up.
const SENDINGS: usize = 3;

/// The most padding behind a whole body.
const PADDING: usize = MAX_DATA as usize * shardgate_erasure::ALIGN as usize;

/// Where a body is to go.
pub(super) struct Destination {
    pub class: ClassChoice,
    pub prefer: Option<GroupId>,
    pub object: ObjectRef,
    /// Bodies up to this many bytes stay in the catalog.
    pub inline_max: usize,
}

/// A body that was read to its end and checked.
pub(super) enum StoredBody {
    /// Short: not stored yet, the commit does it.
    Inline(Bytes),
    /// Durable on a quorum, and waiting for its commit.
    Blob(Box<BlobWriter>),
}

/// Reads a body to its end and makes it durable.
pub(super) async fn store_body(
    core: &Arc<Core>,
    to: &Destination,
    body: Intake,
) -> Result<(BodyDigests, StoredBody), ObjectError> {
    core.check_in_force()?;
    let full = Layout::full(to.class.scheme);
    match body.declared() {
        Some(len) if len <= to.inline_max as u64 => store_inline(core, body, len).await,
        Some(len) if len <= stripe_bytes(full) => {
            let layout = Layout::choose(to.class.scheme, Some(len), shard_target(core, to));
            let whole = whole_need(layout, len);
            let streamed = stream_need(layout, Some(len));
            if whole <= streamed || core.room().keeps_bodies() {
                let permit = core.admit(whole).await?;
                store_whole(core, to, body, len, permit).await
            } else {
                store_streamed(core, to, body).await
            }
        }
        Some(_) => store_streamed(core, to, body).await,
        None => store_unknown(core, to, body).await,
    }
}

/// What class and group say of the medium decides; before a group is chosen,
/// the class's medium does.
fn shard_target(core: &Core, to: &Destination) -> u64 {
    let medium = to.class.medium.unwrap_or(shardgate_wire::Medium::Flash);
    core.disks.shard_target(medium)
}

async fn store_inline(
    core: &Core,
    mut body: Intake,
    len: u64,
) -> Result<(BodyDigests, StoredBody), ObjectError> {
    let _permit = core.admit(len.max(1)).await?;
    let mut bytes = Vec::with_capacity(len as usize);
    read_all(&mut body, &mut bytes, len as usize).await?;
    let digests = body.finish(&core.metrics)?;
    Ok((digests, StoredBody::Inline(bytes.into())))
}

/// Reads a body of `len` declared bytes to its end.
async fn read_all(body: &mut Intake, bytes: &mut Vec<u8>, len: usize) -> Result<(), ObjectError> {
    // One byte more than declared is refused by the intake itself.
    match body.gather(bytes, len + 1).await? {
        Gathered::All => Ok(()),
        Gathered::More(_) => Err(ObjectError::IncompleteBody {
            declared: len as u64,
            received: body.len(),
        }),
    }
}

async fn store_whole(
    core: &Arc<Core>,
    to: &Destination,
    mut body: Intake,
    len: u64,
    permit: Permit,
) -> Result<(BodyDigests, StoredBody), ObjectError> {
    let mut bytes = Vec::with_capacity(len as usize + PADDING);
    read_all(&mut body, &mut bytes, len as usize).await?;
    let digests = body.finish(&core.metrics)?;
    let writer = send_whole(core, to, bytes, permit).await?;
    Ok((digests, StoredBody::Blob(Box::new(writer))))
}

/// Sends a body that is in memory to a group, and to another if the first
/// one loses its quorum meanwhile.
async fn send_whole(
    core: &Arc<Core>,
    to: &Destination,
    mut bytes: Vec<u8>,
    mut permit: Permit,
) -> Result<BlobWriter, ObjectError> {
    let len = bytes.len();
    bytes.resize(len + PADDING, 0);
    let padded = Bytes::from(bytes);
    let mut sendings = 1;
    loop {
        let group = core
            .disks
            .group_for_write(&to.class, Some(len as u64), to.prefer)
            .await?;
        match send_once(core, to, group, &padded, len, &mut permit).await {
            Err(ObjectError::QuorumLost { .. } | ObjectError::NoSpace) if sendings < SENDINGS => {
                sendings += 1;
                core.metrics.blobs_resent.one();
            }
            Ok(mut writer) => {
                writer.keep(permit, true);
                return Ok(writer);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn send_once(
    core: &Arc<Core>,
    to: &Destination,
    group: Arc<GroupView>,
    padded: &Bytes,
    len: usize,
    permit: &mut Permit,
) -> Result<BlobWriter, ObjectError> {
    let blob_len = len as u64;
    let target = core.disks.shard_target(group.row.medium);
    let layout = Layout::choose(group.scheme, Some(blob_len), target);
    let geometry = geometry(layout, blob_len)?;
    let mut writer = BlobWriter::begin(core, group, layout, Some(blob_len), to.object.clone())?;
    let codec = core.codec(layout);
    let mut own = None;
    if geometry.stripes() == 1 {
        let body = padded.slice(..padded_len(&geometry));
        for coded in code_whole(&codec, &geometry, &body, &core.blocks) {
            writer.send(coded);
        }
    } else {
        // A narrow group may need several stripes for it: beside the body,
        // it needs what a streamed write needs.
        let mut blocks = core.admit(stream_need(layout, Some(blob_len))).await?;
        let mut coder = StripeCoder::new(codec, Some(blob_len), core.blocks.clone());
        feed(&mut writer, &mut coder, (&mut blocks, 0), &padded[..len]).await?;
        permit.shrink_to(blob_len);
        own = Some(blocks);
    }
    let end = ShardEnd {
        shard_len: geometry.shard_len(),
        blob_len,
    };
    writer.finish(end).await?;
    if let Some(blocks) = own {
        writer.keep(blocks, false);
    }
    Ok(writer)
}

fn geometry(layout: Layout, len: u64) -> Result<Geometry, ObjectError> {
    Geometry::new(layout, len).map_err(|_too_long| ObjectError::EntityTooLarge {
        limit_bytes: shardgate_erasure::MAX_LEN,
    })
}

/// Codes bytes and hands out the blocks, waiting for room as needed.
/// `gathered`: what the caller holds of the body under the same permit.
pub(super) async fn feed(
    writer: &mut BlobWriter,
    coder: &mut StripeCoder,
    (permit, gathered): (&mut Permit, u64),
    mut bytes: &[u8],
) -> Result<(), ObjectError> {
    let most = stream_most(coder.layout()) + gathered;
    while !bytes.is_empty() {
        let room = (gathered + coder.held(), coder.needs());
        if room.1 > 0 {
            writer.room_for(room, permit, most).await?;
        }
        let (taken, coded) = coder.feed(bytes);
        bytes = &bytes[taken..];
        for block in coded {
            writer.send(block);
        }
    }
    Ok(())
}

/// The next bytes of the body; meanwhile the calls under way go on.
async fn next_frame(
    writer: &mut BlobWriter,
    body: &mut Intake,
) -> Result<Option<Bytes>, ObjectError> {
    loop {
        tokio::select! {
            biased;
            frame = body.frame() => return frame,
            () = writer.event() => {}
        }
    }
}

/// Begins a blob of `len` bytes, and takes the memory that it needs. Disks
/// may go out while memory is waited for: nothing was sent yet, so another
/// group is as good.
async fn begin_streamed(
    core: &Arc<Core>,
    to: &Destination,
    len: Option<u64>,
) -> Result<(BlobWriter, Layout, Permit), ObjectError> {
    let mut beginnings = 1;
    loop {
        let group = core
            .disks
            .group_for_write(&to.class, len, to.prefer)
            .await?;
        let target = core.disks.shard_target(group.row.medium);
        let layout = Layout::choose(group.scheme, len, target);
        let permit = core.admit(stream_need(layout, len)).await?;
        match BlobWriter::begin(core, group, layout, len, to.object.clone()) {
            Err(ObjectError::QuorumLost { .. }) if beginnings < SENDINGS => beginnings += 1,
            begun => return Ok((begun?, layout, permit)),
        }
    }
}

async fn store_streamed(
    core: &Arc<Core>,
    to: &Destination,
    mut body: Intake,
) -> Result<(BodyDigests, StoredBody), ObjectError> {
    let len = body.declared();
    let (mut writer, layout, mut permit) = begin_streamed(core, to, len).await?;
    let need = stream_need(layout, len);
    let mut coder = StripeCoder::new(core.codec(layout), len, core.blocks.clone());
    while let Some(frame) = next_frame(&mut writer, &mut body).await? {
        if writer.is_settled() {
            // The client is slower than the disks.
            permit.shrink_to(need);
        }
        feed(&mut writer, &mut coder, (&mut permit, 0), &frame).await?;
    }
    // Judged before the shards are ended: what fails here was never whole.
    let digests = body.finish(&core.metrics)?;
    let end = ShardEnd {
        shard_len: coder.shard_len(),
        blob_len: digests.len,
    };
    writer.finish(end).await?;
    writer.keep(permit, false);
    Ok((digests, StoredBody::Blob(Box::new(writer))))
}

/// A body of unknown length: gathered up to a stripe, and if it has not ended
/// by then, streamed stripe after stripe.
async fn store_unknown(
    core: &Arc<Core>,
    to: &Destination,
    mut body: Intake,
) -> Result<(BodyDigests, StoredBody), ObjectError> {
    let full = Layout::full(to.class.scheme);
    let need = stream_need(full, None);
    let mut permit = core.admit(need).await?;
    let first = stripe_bytes(full) as usize;
    let mut stripe = Vec::with_capacity(first + PADDING);
    let mut rest = match body.gather(&mut stripe, first).await? {
        Gathered::All => {
            let digests = body.finish(&core.metrics)?;
            if stripe.len() <= to.inline_max {
                return Ok((digests, StoredBody::Inline(stripe.into())));
            }
            let writer = send_whole(core, to, stripe, permit).await?;
            return Ok((digests, StoredBody::Blob(Box::new(writer))));
        }
        Gathered::More(rest) => rest,
    };
    let group = core
        .disks
        .group_for_write(&to.class, None, to.prefer)
        .await?;
    let layout = Layout::full(group.scheme);
    let mut writer = BlobWriter::begin(core, group, layout, None, to.object.clone())?;
    let mut coder = StripeCoder::new(core.codec(layout), None, core.blocks.clone());
    let most = stripe_bytes(layout) as usize;
    let gathered = first as u64;
    loop {
        // Only whole stripes are fed before the end is known.
        let whole = stripe.len() - stripe.len() % most;
        let held = (&mut permit, gathered);
        feed(&mut writer, &mut coder, held, &stripe[..whole]).await?;
        stripe.drain(..whole);
        let Some(frame) = (match rest.is_empty() {
            false => Some(std::mem::take(&mut rest)),
            true => next_frame(&mut writer, &mut body).await?,
        }) else {
            break;
        };
        if writer.is_settled() {
            // The client is slower than the disks.
            permit.shrink_to(need);
        }
        let taken = frame.len().min(most - stripe.len());
        stripe.extend_from_slice(&frame[..taken]);
        rest = frame.slice(taken..);
    }
    let len = body.len();
    coder.set_len(len);
    let held = (&mut permit, gathered);
    feed(&mut writer, &mut coder, held, &stripe).await?;
    let digests = body.finish(&core.metrics)?;
    let end = ShardEnd {
        shard_len: coder.shard_len(),
        blob_len: len,
    };
    writer.finish(end).await?;
    writer.keep(permit, false);
    Ok((digests, StoredBody::Blob(Box::new(writer))))
}
