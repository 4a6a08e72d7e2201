//! One shard on its way to its disk.
//!
//! Owns the order of the calls for one shard: open, appends one after the
//! other, finish; or one put where the shard is small. Invariant: at most one
//! call is under way, and blocks go out in the order in which they came.
//! Pure: it says what to call next, `writer` calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardgate_wire::store::{ShardEnd, ShardHandle};

use super::calls::Target;

/// A block that waits for its turn.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Number of the block among all of the blob.
    pub block: u64,
    /// Where it begins in the shard.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Bytes,
    /// Their checksums.
    pub crcs: Arc<[u32]>,
}

/// What to call next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Begin the shard.
    Open,
    /// Add a block.
    Append(ShardHandle, Queued),
    /// End it.
    Finish(ShardHandle, ShardEnd),
    /// Store it whole.
    Put(Queued),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Open(ShardHandle),
    /// Nothing more is called for it.
    Over,
}

/// See the module.
pub struct Lane {
    /// The group's slot.
    pub slot: u8,
    /// The disk; `None` where the pool does not have it.
    pub target: Option<Target>,
    state: State,
    queue: VecDeque<Queued>,
    busy: bool,
    /// The call under way has the block in front.
    sending: bool,
    has_stored: bool,
    /// Time of the last call that was answered.
    pub last_took: Duration,
}

impl Lane {
    /// A lane to a disk. Without one it is over from the start.
    pub fn new(slot: u8, target: Option<Target>) -> Self {
        let state = match target {
            Some(_) => State::New,
            None => State::Over,
        };
        Self {
            slot,
            target,
            state,
            queue: VecDeque::new(),
            busy: false,
            sending: false,
            has_stored: false,
            last_took: Duration::ZERO,
        }
    }

    /// Whether nothing more is called for it.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether it has done all that it was given.
    pub fn is_idle(&self) -> bool {
        !self.is_over() && !self.busy && self.queue.is_empty()
    }

    /// Whether its first block is on its way, and the open before it.
    pub fn is_beginning(&self) -> bool {
        self.busy && !self.has_stored
    }

    /// Whether a call is under way.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// The handle that its disk holds open.
    pub fn handle(&self) -> Option<ShardHandle> {
        match self.state {
            State::Open(handle) => Some(handle),
            State::New | State::Over => None,
        }
    }

    /// Adds a block. False where the lane is over.
    pub fn push(&mut self, queued: Queued) -> bool {
        if self.is_over() {
            return false;
        }
        self.queue.push_back(queued);
        true
    }

    /// What to call now; the lane is busy then, until [`Self::answered`].
    /// `whole`: the shard is one block and goes by put. `end`: all blocks
    /// have come.
    pub fn next(&mut self, whole: bool, end: Option<ShardEnd>) -> Option<Next> {
        if self.busy {
            return None;
        }
        let next = match self.state {
            State::Over => None,
            State::New if whole => self.queue.front().cloned().map(Next::Put),
            // Not before there is something for it: a client that sends
            // little holds no more handles than it has blocks.
            State::New if self.queue.is_empty() && end.is_none() => None,
            State::New => Some(Next::Open),
            State::Open(handle) => match (self.queue.front(), end) {
                (Some(queued), _) => Some(Next::Append(handle, queued.clone())),
                (None, Some(end)) => Some(Next::Finish(handle, end)),
                (None, None) => None,
            },
        };
        self.busy = next.is_some();
        self.sending = matches!(next, Some(Next::Append(..) | Next::Put(_)));
        next
    }

    /// The call under way was answered in this time.
    pub fn answered(&mut self, took: Duration) {
        (self.busy, self.sending) = (false, false);
        self.last_took = took;
    }

    /// The disk has the shard open.
    pub fn opened(&mut self, handle: ShardHandle) {
        if self.state == State::New {
            self.state = State::Open(handle);
        }
    }

    /// The block in front is on the disk, or its call has ended at last:
    /// its number.
    pub fn stored(&mut self) -> Option<u64> {
        self.has_stored = true;
        self.queue.pop_front().map(|queued| queued.block)
    }

    /// Nothing more is called for it: it is done, failed, or given up.
    /// Gives the numbers of the blocks that it lets go; the one that a call
    /// under way has stays until that has been answered.
    pub fn end(&mut self) -> Vec<u64> {
        self.state = State::Over;
        let kept = usize::from(self.sending).min(self.queue.len());
        self.queue
            .drain(kept..)
            .map(|queued| queued.block)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use shardgate_wire::disk::{DiskIdentity, Medium};
    use shardgate_wire::ids::{ClusterId, GroupId};
    use shardgate_wire::memory_store::MemoryStore;
    use shardgate_wire::{DiskId, Purpose};

    use super::*;

    fn lane() -> Lane {
        let disk = DiskId(1);
        let identity = DiskIdentity {
            cluster: ClusterId(1),
            disk,
            medium: Medium::Flash,
        };
        let store = Arc::new(MemoryStore::new(identity));
        let target = Target {
            disk,
            store,
            group: GroupId(1),
            purpose: Purpose::Client,
        };
        Lane::new(0, Some(target))
    }

    fn block(block: u64) -> Queued {
        Queued {
            block,
            offset: block * 10,
            bytes: Bytes::from_static(b"0123456789"),
            crcs: Arc::new([]),
        }
    }

    #[test]
    fn one_call_at_a_time_in_order() {
        let mut lane = lane();
        let end = ShardEnd {
            shard_len: 20,
            blob_len: 20,
        };
        assert!(lane.push(block(0)) && lane.push(block(1)));
        assert!(matches!(lane.next(false, None), Some(Next::Open)));
        assert!(lane.next(false, None).is_none(), "one call at a time");
        lane.answered(Duration::from_millis(3));
        lane.opened(ShardHandle(9));
        for number in 0..2 {
            let next = lane.next(false, Some(end));
            let Some(Next::Append(ShardHandle(9), queued)) = next else {
                panic!("{next:?}");
            };
            assert_eq!(queued.block, number);
            lane.answered(Duration::ZERO);
            assert_eq!(lane.stored(), Some(number));
        }
        assert!(lane.is_idle());
        assert!(matches!(
            lane.next(false, Some(end)),
            Some(Next::Finish(..))
        ));
        lane.answered(Duration::ZERO);
        assert!(lane.end().is_empty());
        assert!(lane.next(false, Some(end)).is_none() && !lane.push(block(2)));
    }

    #[test]
    fn a_shard_is_opened_when_there_is_something_for_it() {
        let end = ShardEnd {
            shard_len: 0,
            blob_len: 0,
        };
        let mut empty = lane();
        assert!(empty.next(false, None).is_none());
        assert!(matches!(empty.next(false, Some(end)), Some(Next::Open)));
        let mut begun = lane();
        begun.push(block(0));
        assert!(matches!(begun.next(false, None), Some(Next::Open)));
    }

    #[test]
    fn a_small_shard_is_one_put() {
        let mut lane = lane();
        assert!(lane.next(true, None).is_none());
        lane.push(block(4));
        assert!(matches!(lane.next(true, None), Some(Next::Put(_))));
        lane.answered(Duration::ZERO);
        assert_eq!(lane.end(), [4]);
    }

    #[test]
    fn a_lane_that_is_given_up_keeps_the_block_of_its_call() {
        let mut lane = lane();
        lane.push(block(0));
        lane.push(block(1));
        lane.next(false, None);
        lane.answered(Duration::ZERO);
        lane.opened(ShardHandle(9));
        assert!(matches!(lane.next(false, None), Some(Next::Append(..))));
        assert_eq!(lane.end(), [1], "block 0 is on its way");
        lane.answered(Duration::from_secs(20));
        assert_eq!((lane.stored(), lane.stored()), (Some(0), None));
    }

    #[test]
    fn without_a_disk_nothing_is_called() {
        let mut lane = Lane::new(3, None);
        assert!(!lane.push(block(0)) && !lane.is_idle());
        assert!(lane.next(true, None).is_none());
    }
}
