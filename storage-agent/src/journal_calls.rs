//! From an authentic message to a disk's journal and back.
//!
//! As [`crate::calls`], for the calls of
//! [`JournalDisk`](shardgate_wire::journal::JournalDisk). Does not look into
//! segments.

use shardgate_wire::StoreError;
use shardgate_wire::frame::Frame;
use shardgate_wire::journal::{DiskRoots, MAX_JOURNAL_READ_BYTES};
use shardgate_wire::message::{Answer, Call, CallError};
use shardgate_wire::message_journal::{
    JournalAppendHead, JournalBeginHead, JournalCheckpointHead, JournalCtxHead, JournalMapHead,
    JournalReadHead, JournalRemoveHead, JournalRootsAnswer, JournalRootsHead, JournalStandingHead,
};

use crate::calls::{Reply, answer, head, malformed};
use crate::lanes::Lane;

/// Carries a journal call to its disk.
pub(crate) async fn dispatch(lane: &Lane, call: Call, frame: Frame) -> Result<Reply, CallError> {
    let Some(journal) = &lane.journal else {
        let what = "this disk keeps no journal".to_owned();
        return Err(StoreError::BadCall { what }.into());
    };
    Ok(match call {
        Call::JournalStanding => {
            let JournalStandingHead {} = head(&frame)?;
            answer(journal.standing().await)
        }
        Call::JournalRaise => {
            let JournalCtxHead { ctx } = head(&frame)?;
            answer(journal.raise(&ctx).await)
        }
        Call::JournalBegin => {
            let JournalBeginHead { ctx } = head(&frame)?;
            answer(journal.begin(&ctx, frame.data).await)
        }
        Call::JournalAppend => {
            let JournalAppendHead { ctx, file, offset } = head(&frame)?;
            answer(journal.append(&ctx, file, offset, frame.data).await)
        }
        Call::JournalFiles => {
            let JournalCtxHead { ctx } = head(&frame)?;
            answer(journal.files(&ctx).await)
        }
        Call::JournalRead => {
            let ask: JournalReadHead = head(&frame)?;
            let len = ask.len as usize;
            if len > MAX_JOURNAL_READ_BYTES {
                return Err(malformed("journal read is too long"));
            }
            let read = journal.read(&ask.ctx, ask.file, ask.offset, len).await?;
            let mut reply = Reply::of(&Answer::Ok(()));
            reply.data = read;
            reply
        }
        Call::JournalRemove => {
            let JournalRemoveHead { ctx, files } = head(&frame)?;
            answer(journal.remove(&ctx, &files).await)
        }
        Call::JournalRoots => {
            let JournalRootsHead {} = head(&frame)?;
            let DiskRoots {
                map_number,
                map,
                checkpoint,
            } = journal.roots().await?;
            let map_len = u32::try_from(map.len()).expect("the disk bounds its map");
            let mut reply = Reply::of(&Answer::Ok(JournalRootsAnswer {
                map_number,
                map_len,
            }));
            reply.data = [map, checkpoint].concat().into();
            reply
        }
        Call::JournalMap => {
            let JournalMapHead { ctx, number } = head(&frame)?;
            answer(journal.set_map(&ctx, number, frame.data).await)
        }
        Call::JournalCheckpoint => {
            let JournalCheckpointHead { ctx } = head(&frame)?;
            answer(journal.set_checkpoint(&ctx, frame.data).await)
        }
        _ => return Err(malformed("no journal call")),
    })
}
