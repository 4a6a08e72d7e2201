//! What gathers, what is kept apart, what is bounded.

use proptest::prelude::*;
use shardgate_wire::conformance::sample;
use shardgate_wire::frame::{PREFIX_BYTES, encode_head};
use shardgate_wire::store::MAX_PUT_BYTES;
use shardgate_wire::{CommitNumber, Purpose};
use tokio::sync::oneshot::Receiver;

use super::*;

fn lane() -> PutLane {
    PutLane::new(16 << 20, 4096)
}

fn shard(epoch: u64, blob: u128, len: usize) -> (CallContext, SmallShard) {
    let ctx = sample::context(epoch);
    (ctx, sample::small(&ctx, blob, len))
}

fn push(
    lane: &PutLane,
    (ctx, shard): (CallContext, SmallShard),
) -> Result<(bool, Receiver<Result<(), StoreError>>), StoreError> {
    let (waiter, answer) = oneshot::channel();
    Ok((lane.push(ctx, shard, waiter)?, answer))
}

fn blobs(batch: &Batch) -> Vec<u128> {
    let shards = batch.head.shards.iter();
    shards.map(|entry| entry.header.key.blob.0).collect()
}

#[test]
fn what_comes_while_one_is_sent_goes_together() {
    let lane = lane();
    let (first, _a) = push(&lane, shard(1, 1, 100)).unwrap();
    assert!(first, "nobody sends yet");
    let sent = lane.next().unwrap();
    assert_eq!(blobs(&sent), [1]);
    let mut answers = vec![];
    for blob in 2..6 {
        let (first, answer) = push(&lane, shard(1, blob, 100)).unwrap();
        assert!(!first, "the first sends still");
        answers.push(answer);
    }
    assert_eq!(blobs(&lane.next().unwrap()), [2, 3, 4, 5]);
    assert!(lane.next().is_none());
    let (first, _b) = push(&lane, shard(1, 6, 100)).unwrap();
    assert!(first, "the sender has gone home");
}

#[test]
fn callers_of_two_epochs_do_not_share_a_message() {
    let lane = lane();
    let mut answers = vec![];
    for (epoch, blob) in [(1, 1), (1, 2), (2, 3), (1, 4)] {
        answers.push(push(&lane, shard(epoch, blob, 10)).unwrap().1);
    }
    let batches: Vec<_> = std::iter::from_fn(|| lane.next())
        .map(|batch| blobs(&batch))
        .collect();
    assert_eq!(batches, [vec![1, 2], vec![3], vec![4]]);
}

#[test]
fn those_who_may_take_other_space_do_not_share_a_message() {
    let lane = lane();
    let mut answers = vec![];
    let purposes = [Purpose::Client, Purpose::Background, Purpose::Background];
    for (blob, purpose) in (1..).zip(purposes) {
        let (ctx, shard) = shard(1, blob, 10);
        let pushed = push(&lane, (ctx.for_purpose(purpose), shard));
        answers.push(pushed.unwrap().1);
    }
    let batches: Vec<_> = std::iter::from_fn(|| lane.next())
        .map(|batch| (batch.head.ctx.purpose, blobs(&batch)))
        .collect();
    let wanted = [
        (Purpose::Client, vec![1]),
        (Purpose::Background, vec![2, 3]),
    ];
    assert_eq!(batches, wanted);
}

#[test]
fn the_highest_commit_number_goes_along() {
    let lane = lane();
    let mut answers = vec![];
    for (blob, committed) in [(1, 5), (2, 9), (3, 7)] {
        let (mut ctx, shard) = shard(1, blob, 10);
        ctx.committed = CommitNumber(committed);
        answers.push(push(&lane, (ctx, shard)).unwrap().1);
    }
    let batch = lane.next().unwrap();
    assert_eq!(batch.head.ctx.committed, CommitNumber(9));
}

#[test]
fn a_shard_whose_caller_has_gone_is_not_sent() {
    let lane = lane();
    let (_, gone) = push(&lane, shard(1, 1, 10)).unwrap();
    let (_, _waits) = push(&lane, shard(1, 2, 10)).unwrap();
    drop(gone);
    assert_eq!(blobs(&lane.next().unwrap()), [2]);
}

#[test]
fn a_full_lane_is_busy_and_an_emptied_one_is_not() {
    let lane = PutLane::new(1000, 3);
    let _a = push(&lane, shard(1, 1, 600)).unwrap();
    assert_eq!(push(&lane, shard(1, 2, 401)).unwrap_err(), StoreError::Busy);
    let _b = push(&lane, shard(1, 3, 400)).unwrap();
    let _c = push(&lane, shard(1, 4, 0)).unwrap();
    assert_eq!(push(&lane, shard(1, 5, 0)).unwrap_err(), StoreError::Busy);
    assert_eq!(lane.next().unwrap().waiters.len(), 3);
    assert!(push(&lane, shard(1, 6, 1000)).is_ok());
}

#[test]
fn an_abandoned_lane_tells_its_waiters_and_starts_anew() {
    let lane = lane();
    let (_, mut waits) = push(&lane, shard(1, 1, 10)).unwrap();
    lane.abandon();
    assert!(waits.try_recv().is_err());
    assert!(push(&lane, shard(1, 2, 10)).unwrap().0);
}

proptest! {
    /// Every message keeps the bounds that agents set, and all shards go out
    /// once, in order.
    #[test]
    fn messages_keep_their_bounds(
        sizes in prop::collection::vec((0usize..=MAX_PUT_BYTES, 0usize..16 * 1024), 1..40)
    ) {
        let lane = PutLane::new(usize::MAX, usize::MAX);
        let mut answers = vec![];
        for (blob, &(len, metadata)) in sizes.iter().enumerate() {
            let (ctx, mut shard) = shard(1, blob as u128, 0);
            shard.bytes = Bytes::from(vec![0; len]);
            shard.crcs = vec![u32::MAX; len.div_ceil(64 * 1024)];
            shard.header.object.metadata = vec![1; metadata];
            answers.push(push(&lane, (ctx, shard)).unwrap().1);
        }
        let mut sent = vec![];
        while let Some(batch) = lane.next() {
            prop_assert!(batch.waiters.len() <= MAX_PUT_SHARDS);
            let data: usize = batch.data.iter().map(Bytes::len).sum();
            prop_assert!(data <= MAX_PUT_DATA_BYTES);
            let head = encode_head(&batch.head).len() - PREFIX_BYTES;
            prop_assert!(head <= MAX_PUT_HEAD_BYTES, "{head}");
            sent.extend(blobs(&batch));
        }
        prop_assert_eq!(sent, (0..sizes.len() as u128).collect::<Vec<_>>());
    }
}
