//! Opening, appending, ending, putting, deleting.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;

use super::{Case, Subject, assert_bad_call, sample};
use crate::checksum::{CHECK_BLOCK, block_crcs};
use crate::store::{
    MAX_APPEND_BYTES, MAX_PUT_BYTES, MAX_SHARD_BYTES, ShardBytes, ShardEnd, ShardHandle, StoreError,
};

const BLOCK: u64 = CHECK_BLOCK as u64;

impl<S: Subject> Case<S> {
    async fn begin(&self, blob: u128) -> ShardHandle {
        let header = sample::header(&self.ctx, blob);
        let opened = self.store.open(&self.ctx, header, None).await;
        opened.expect("opens")
    }

    async fn append(
        &self,
        handle: ShardHandle,
        offset: u64,
        bytes: &Bytes,
    ) -> Result<(), StoreError> {
        let crcs = block_crcs(bytes);
        self.store
            .append(&self.ctx, handle, offset, bytes.clone(), &crcs)
            .await
    }

    async fn finish(&self, handle: ShardHandle, shard_len: u64) -> Result<(), StoreError> {
        let end = ShardEnd {
            shard_len,
            blob_len: shard_len * 4,
        };
        self.store.finish(&self.ctx, handle, end).await
    }

    /// Writes a shard of `bytes` in appends.
    pub(super) async fn write(&self, blob: u128, bytes: &Bytes) {
        let handle = self.begin(blob).await;
        for start in (0..bytes.len()).step_by(MAX_APPEND_BYTES) {
            let block = bytes.slice(start..bytes.len().min(start + MAX_APPEND_BYTES));
            let appended = self.append(handle, start as u64, &block).await;
            appended.expect("appends");
        }
        let finished = self.finish(handle, bytes.len() as u64).await;
        finished.expect("finishes");
    }
}

fn with_crcs(bytes: Bytes) -> ShardBytes {
    ShardBytes {
        crcs: block_crcs(&bytes),
        bytes,
    }
}

pub(super) async fn appends_make_a_shard<S: Subject>(case: Case<S>) {
    for (blob, len) in [
        (1, 1),
        (2, CHECK_BLOCK),
        (3, MAX_APPEND_BYTES),
        (4, MAX_APPEND_BYTES + 1),
        (5, 3 * MAX_APPEND_BYTES + 2 * CHECK_BLOCK + 77),
    ] {
        let bytes = sample::bytes(blob, len);
        case.write(blob, &bytes).await;
        let key = sample::key(blob);
        let whole = case.store.read(key, 0, len as u32).await;
        assert_eq!(whole, Ok(with_crcs(bytes)), "{len} bytes");
        let stat = case.store.stat(key).await.expect("stats");
        assert_eq!(stat.header, sample::header(&case.ctx, blob));
        let end = ShardEnd {
            shard_len: len as u64,
            blob_len: len as u64 * 4,
        };
        assert_eq!(stat.end, Some(end));
    }
}

pub(super) async fn an_empty_shard<S: Subject>(case: Case<S>) {
    let handle = case.begin(1).await;
    case.finish(handle, 0).await.expect("ends empty");
    let stat = case.store.stat(sample::key(1)).await.expect("stats");
    assert_eq!(stat.end.map(|end| end.shard_len), Some(0));
    assert_bad_call(case.store.read(sample::key(1), 0, 1).await);
}

pub(super) async fn repeats_are_done<S: Subject>(case: Case<S>) {
    let bytes = sample::bytes(1, CHECK_BLOCK + 10);
    let first = bytes.slice(..CHECK_BLOCK);
    let last = bytes.slice(CHECK_BLOCK..);
    let handle = case.begin(1).await;
    for _ in 0..2 {
        assert_eq!(case.append(handle, 0, &first).await, Ok(()));
    }
    for _ in 0..2 {
        assert_eq!(case.append(handle, BLOCK, &last).await, Ok(()));
    }
    for _ in 0..2 {
        assert_eq!(case.finish(handle, BLOCK + 10).await, Ok(()));
    }
    assert_bad_call(case.finish(handle, BLOCK + 11).await);
    assert_bad_call(case.append(handle, BLOCK, &last).await);
    let read = case.store.read(sample::key(1), 0, bytes.len() as u32).await;
    assert_eq!(read, Ok(with_crcs(bytes)));
}

pub(super) async fn offsets_are_exact<S: Subject>(case: Case<S>) {
    let block = sample::bytes(1, CHECK_BLOCK);
    let handle = case.begin(1).await;
    let wrong = |expected, given| Err(StoreError::WrongOffset { expected, given });
    assert_eq!(case.append(handle, BLOCK, &block).await, wrong(0, BLOCK));
    case.append(handle, 0, &block).await.expect("appends");
    case.append(handle, BLOCK, &block).await.expect("appends");
    // Not the last append, and not the bytes of the last append.
    assert_eq!(case.append(handle, 0, &block).await, wrong(2 * BLOCK, 0));
    let other = sample::bytes(2, CHECK_BLOCK);
    assert_eq!(
        case.append(handle, BLOCK, &other).await,
        wrong(2 * BLOCK, BLOCK)
    );
    assert_bad_call(case.append(handle, 2 * BLOCK + 1, &block).await);
    // After a short append nothing follows.
    let short = block.slice(..100);
    case.append(handle, 2 * BLOCK, &short).await.expect("fits");
    assert_bad_call(case.append(handle, 2 * BLOCK + 100, &block).await);
    assert_eq!(
        case.append(handle, 3 * BLOCK, &block).await,
        wrong(2 * BLOCK + 100, 3 * BLOCK)
    );
    case.finish(handle, 2 * BLOCK + 100).await.expect("ends");
}

pub(super) async fn bad_bytes_are_refused<S: Subject>(case: Case<S>) {
    let bytes = sample::bytes(1, 2 * CHECK_BLOCK);
    let handle = case.begin(1).await;
    let mut crcs = block_crcs(&bytes);
    crcs[1] ^= 1;
    for wrong in [&crcs[..], &crcs[..1], &[]] {
        let appended = case
            .store
            .append(&case.ctx, handle, 0, bytes.clone(), wrong);
        assert_bad_call(appended.await);
    }
    assert_bad_call(case.append(handle, 0, &Bytes::new()).await);
    let long = sample::bytes(2, MAX_APPEND_BYTES + 1);
    assert_bad_call(case.append(handle, 0, &long).await);
    case.append(handle, 0, &bytes)
        .await
        .expect("nothing was taken before");

    let mut small = sample::small(&case.ctx, 2, 1000);
    small.crcs[0] ^= 1;
    assert_bad_call(case.store.put(&case.ctx, small).await);
    let long = sample::small(&case.ctx, 2, MAX_PUT_BYTES + 1);
    assert_bad_call(case.store.put(&case.ctx, long).await);
    let stat = case.store.stat(sample::key(2)).await;
    assert_eq!(stat, Err(StoreError::NotFound));
}

pub(super) async fn ends_are_exact<S: Subject>(case: Case<S>) {
    let header = |blob, blob_len| {
        let mut header = sample::header(&case.ctx, blob);
        header.blob_len = blob_len;
        header
    };
    let bytes = sample::bytes(1, 1000);
    let opened = case
        .store
        .open(&case.ctx, header(1, Some(4000)), Some(1000));
    let handle = opened.await.expect("opens");
    let long = sample::bytes(1, 1001);
    assert_bad_call(case.append(handle, 0, &long).await);
    case.append(handle, 0, &bytes).await.expect("appends");
    let end = |shard_len, blob_len| ShardEnd {
        shard_len,
        blob_len,
    };
    for wrong in [end(999, 4000), end(1001, 4000), end(1000, 3999)] {
        assert_bad_call(case.store.finish(&case.ctx, handle, wrong).await);
    }
    let done = case.store.finish(&case.ctx, handle, end(1000, 4000)).await;
    assert_eq!(done, Ok(()));
    let huge = case
        .store
        .open(&case.ctx, header(2, None), Some(MAX_SHARD_BYTES + 1));
    assert_bad_call(huge.await);
}

pub(super) async fn a_finished_shard_stays<S: Subject>(case: Case<S>) {
    let bytes = sample::bytes(1, 5000);
    case.write(1, &bytes).await;
    let again = case
        .store
        .open(&case.ctx, sample::header(&case.ctx, 1), None);
    assert_eq!(again.await, Err(StoreError::Exists));
    let read = case.store.read(sample::key(1), 0, 5000).await;
    assert_eq!(read, Ok(with_crcs(bytes)));
}

pub(super) async fn an_open_one_begins_anew<S: Subject>(case: Case<S>) {
    let (old, new) = (sample::bytes(1, CHECK_BLOCK), sample::bytes(2, 300));
    let first = case.begin(1).await;
    case.append(first, 0, &old).await.expect("appends");
    let second = case.begin(1).await;
    assert_ne!(first, second);
    let late = case.append(first, BLOCK, &new).await;
    assert_eq!(late, Err(StoreError::NoHandle));
    assert_eq!(case.finish(first, BLOCK).await, Err(StoreError::NoHandle));
    case.append(second, 0, &new).await.expect("appends");
    case.finish(second, 300).await.expect("ends");
    let read = case.store.read(sample::key(1), 0, 300).await;
    assert_eq!(read, Ok(with_crcs(new)));
}

pub(super) async fn abort_gives_up<S: Subject>(case: Case<S>) {
    let bytes = sample::bytes(1, 100);
    let handle = case.begin(1).await;
    case.append(handle, 0, &bytes).await.expect("appends");
    for _ in 0..2 {
        assert_eq!(case.store.abort(&case.ctx, handle).await, Ok(()));
    }
    assert_eq!(case.finish(handle, 100).await, Err(StoreError::NoHandle));
    let stat = case.store.stat(sample::key(1)).await;
    assert_eq!(stat, Err(StoreError::NotFound));
    assert_eq!(case.store.list(None, 10).await, Ok(vec![]));
    let unknown = ShardHandle(u64::MAX);
    assert_eq!(case.store.abort(&case.ctx, unknown).await, Ok(()));

    // A late abort does not take back what was finished.
    let handle = case.begin(2).await;
    case.append(handle, 0, &bytes).await.expect("appends");
    case.finish(handle, 100).await.expect("ends");
    assert_eq!(case.store.abort(&case.ctx, handle).await, Ok(()));
    let read = case.store.read(sample::key(2), 0, 100).await;
    assert_eq!(read, Ok(with_crcs(bytes)));
}

pub(super) async fn put_stores_at_once<S: Subject>(case: Case<S>) {
    for (blob, len) in [
        (1, 0),
        (2, 1),
        (3, 4096),
        (4, CHECK_BLOCK + 1),
        (5, MAX_PUT_BYTES),
    ] {
        let small = sample::small(&case.ctx, blob, len);
        let put = case.store.put(&case.ctx, small.clone()).await;
        assert_eq!(put, Ok(()), "{len} bytes");
        let stat = case.store.stat(sample::key(blob)).await.expect("stats");
        assert_eq!(stat.header, small.header);
        let end = ShardEnd {
            shard_len: len as u64,
            blob_len: small.blob_len,
        };
        assert_eq!(stat.end, Some(end));
        if len > 0 {
            let read = case.store.read(sample::key(blob), 0, len as u32).await;
            assert_eq!(read, Ok(with_crcs(small.bytes)), "{len} bytes");
        }
    }
    // It takes the place of an unfinished one.
    let handle = case.begin(9).await;
    let small = sample::small(&case.ctx, 9, 10);
    case.store.put(&case.ctx, small).await.expect("puts");
    assert_eq!(case.finish(handle, 0).await, Err(StoreError::NoHandle));
}

type PutCall<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

/// Polls all of them until all are done, so that they are in flight at once.
async fn join(mut calls: Vec<PutCall<'_>>) -> Vec<Result<(), StoreError>> {
    let mut answers: Vec<_> = calls.iter().map(|_| None).collect();
    let all = std::future::poll_fn(|cx| {
        for (call, answer) in calls.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let Poll::Ready(done) = call.as_mut().poll(cx)
            {
                *answer = Some(done);
            }
        }
        let waiting = answers.iter().any(Option::is_none);
        if waiting {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    });
    pin!(all).await;
    answers.into_iter().flatten().collect()
}

pub(super) async fn put_many_at_once<S: Subject>(case: Case<S>) {
    let mut shards: Vec<_> = (1..=20)
        .map(|blob| sample::small(&case.ctx, blob, 3000))
        .collect();
    // One bad neighbour fails alone.
    shards[7].crcs[0] ^= 1;
    // Two calls with one shard: both are done.
    shards.push(shards[3].clone());
    // The same key with other bytes at once: one of the two is refused.
    let mut other = sample::small(&case.ctx, 50, 3000);
    other.header = shards[4].header.clone();
    shards.push(other);
    let puts = shards
        .iter()
        .map(|shard| case.store.put(&case.ctx, shard.clone()) as PutCall<'_>)
        .collect();
    let answers = join(puts).await;
    for (at, answer) in answers.iter().enumerate() {
        match at {
            7 => assert_bad_call(answer.clone()),
            4 | 21 => {}
            _ => assert_eq!(answer, &Ok(()), "put {at}"),
        }
    }
    let mut pair = [answers[4].clone(), answers[21].clone()];
    pair.sort_by_key(Result::is_err);
    assert_eq!(pair, [Ok(()), Err(StoreError::Exists)]);
    let listed = case.store.list(None, 100).await.expect("lists");
    assert_eq!(listed.len(), 19);
    assert!(listed.iter().all(|entry| entry.finished));
}

pub(super) async fn put_repeats<S: Subject>(mut case: Case<S>) {
    let small = sample::small(&case.ctx, 1, 2 * CHECK_BLOCK);
    for _ in 0..2 {
        assert_eq!(case.store.put(&case.ctx, small.clone()).await, Ok(()));
    }
    case.restart().await;
    assert_eq!(case.store.put(&case.ctx, small.clone()).await, Ok(()));
    let mut other = sample::small(&case.ctx, 2, 2 * CHECK_BLOCK);
    other.header = small.header.clone();
    let refused = case.store.put(&case.ctx, other).await;
    assert_eq!(refused, Err(StoreError::Exists));
    let mut longer = small.clone();
    longer.blob_len += 1;
    let refused = case.store.put(&case.ctx, longer).await;
    assert_eq!(refused, Err(StoreError::Exists));
    // What is damaged is no repeat, and is not hidden by one.
    case.subject.damage(sample::key(1), BLOCK).await;
    let repeat = case.store.put(&case.ctx, small.clone()).await;
    assert!(
        matches!(repeat, Err(StoreError::Corrupt { .. })),
        "{repeat:?}"
    );
    case.store
        .delete(&case.ctx, &[sample::key(1)])
        .await
        .expect("deletes");
    assert_eq!(case.store.put(&case.ctx, small).await, Ok(()));
}

pub(super) async fn delete_forgets<S: Subject>(mut case: Case<S>) {
    let bytes = sample::bytes(1, 100);
    case.write(1, &bytes).await;
    case.write(3, &bytes).await;
    let handle = case.begin(2).await;
    let keys = [sample::key(1), sample::key(2), sample::key(404)];
    for _ in 0..2 {
        assert_eq!(case.store.delete(&case.ctx, &keys).await, Ok(()));
    }
    let late = case.append(handle, 0, &bytes).await;
    assert_eq!(late, Err(StoreError::NoHandle));
    case.restart().await;
    let stat = case.store.stat(sample::key(1)).await;
    assert_eq!(stat, Err(StoreError::NotFound));
    let read = case.store.read(sample::key(1), 0, 100).await;
    assert_eq!(read, Err(StoreError::NotFound));
    let left = case.store.list(None, 10).await.expect("lists");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].key, sample::key(3));
}
