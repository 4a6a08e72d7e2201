//! One append to all members of a segment, and when to wait no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardgate_wire::journal::JournalFile;
use shardgate_wire::{CallContext, DiskId, StoreError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::fleet::Fleet;

/// A segment is given up for lateness at most this often.
pub(super) const BETWEEN_SWITCHES: Duration = Duration::from_secs(10);
/// A disk that takes no call for so long has failed.
const BUSY: Duration = Duration::from_secs(10);
/// Between two tries of a call that a disk was too busy for.
const AGAIN: Duration = Duration::from_millis(5);
/// Between two looks whether a late member can be done without.
const LOOK: Duration = Duration::from_millis(25);

/// What is written where.
pub(super) struct Append {
    /// The members; with their files, unless the segment begins.
    members: BTreeMap<DiskId, Option<JournalFile>>,
    offset: u64,
    bytes: Bytes,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All members have it durably, in these files.
    All(BTreeMap<DiskId, JournalFile>),
    /// A member failed.
    Failed,
    /// A member was late, and others can take its place.
    Late,
}

struct Answer {
    disk: DiskId,
    took: Duration,
    file: Result<JournalFile, StoreError>,
}

impl Append {
    pub(super) fn first(members: Vec<DiskId>, bytes: Bytes) -> Self {
        Self {
            members: members.into_iter().map(|disk| (disk, None)).collect(),
            offset: 0,
            bytes,
        }
    }

    pub(super) fn next(members: BTreeMap<DiskId, JournalFile>, offset: u64, bytes: Bytes) -> Self {
        let members = members.into_iter();
        Self {
            members: members.map(|(disk, file)| (disk, Some(file))).collect(),
            offset,
            bytes,
        }
    }
}

impl Fleet {
    /// Sends to all members at once. An answer that comes after this returned
    /// counts for nothing but the disk's standing.
    pub(super) async fn send(&mut self, ctx: CallContext, append: Append) -> Sent {
        let len = append.bytes.len();
        let started = Instant::now();
        let (answers, mut inbox) = mpsc::channel(append.members.len().max(1));
        let mut missing: BTreeSet<DiskId> = BTreeSet::new();
        for (disk, file) in append.members {
            missing.insert(disk);
            let at = file.map(|file| (file, append.offset));
            self.call(ctx, disk, at, append.bytes.clone(), answers.clone());
        }
        drop(answers);
        let mut files = BTreeMap::new();
        loop {
            let answer = match timeout_at(self.deadline(started, len), inbox.recv()).await {
                Ok(Some(answer)) => answer,
                // A call that ended without an answer is one that failed.
                Ok(None) => return Sent::Failed,
                Err(_) => {
                    if self.can_do_without(&missing) {
                        self.mark_late(&missing);
                        return Sent::Late;
                    }
                    continue;
                }
            };
            match answer.file {
                Ok(file) => {
                    self.latencies.record(answer.disk, answer.took);
                    missing.remove(&answer.disk);
                    files.insert(answer.disk, file);
                }
                Err(error) => {
                    tracing::warn!(disk = %answer.disk, %error, "journal member failed");
                    return Sent::Failed;
                }
            }
            if missing.is_empty() {
                return Sent::All(files);
            }
        }
    }

    /// Until when nobody is late: never in the past, so that each look waits.
    fn deadline(&self, started: Instant, len: usize) -> Instant {
        let late = started + self.latencies.late_after(len);
        let again = self.switched.map(|at| at + BETWEEN_SWITCHES);
        let look = Instant::now() + LOOK;
        late.max(again.unwrap_or(late)).max(look)
    }

    fn call(
        &self,
        ctx: CallContext,
        disk: DiskId,
        at: Option<(JournalFile, u64)>,
        bytes: Bytes,
        answers: mpsc::Sender<Answer>,
    ) {
        let slot = self.slot(disk).expect("members are journal disks");
        let (target, standing) = (Arc::clone(&slot.disk), Arc::clone(&slot.standing));
        let contact = self.contact.clone();
        standing.send_modify(|standing| standing.under_way += 1);
        tokio::spawn(async move {
            let (mut sent, begun) = (Instant::now(), Instant::now());
            // Too much to do is no failure, and the call may be made again;
            // when it is too late for the others, this is not judged here.
            let file = loop {
                let file = match at {
                    None => target.begin(&ctx, bytes.clone()).await,
                    Some((file, offset)) => {
                        let done = target.append(&ctx, file, offset, bytes.clone()).await;
                        done.map(|()| file)
                    }
                };
                if file != Err(StoreError::Busy) || begun.elapsed() > BUSY {
                    break file;
                }
                sleep(AGAIN).await;
                sent = Instant::now();
            };
            standing.send_modify(|standing| {
                standing.under_way -= 1;
                if let Err(error) = &file {
                    standing.note(error);
                }
            });
            if file.is_ok() {
                contact.answered(disk, sent);
            }
            let took = begun.elapsed();
            // A writer that waits no longer hears nothing.
            let _ = answers.try_send(Answer { disk, took, file });
        });
    }
}
