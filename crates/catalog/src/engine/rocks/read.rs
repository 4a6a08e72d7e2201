//! Reads: from memory on the caller's thread where possible, else on a
//! blocking thread.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, DBAccess, DBRawIteratorWithThreadMode, ErrorKind, ReadOptions};
use tokio::sync::Semaphore;

use super::{engine_error, options};
use crate::engine::{EngineError, Entry, KeyRange, Scan};
use crate::keys;

/// Reads that wait for the disk at once; more wait for them.
const COLD_READS: usize = 32;

/// Scans up to this long are tried on the caller's thread.
const SHORT_SCAN: usize = 64;

/// Rows below a common prefix that are stepped over before the scan seeks
/// behind all of them: a seek costs as much as some twenty steps.
const STEPS: usize = 8;

#[derive(Debug)]
pub(super) struct Reads {
    db: Arc<DB>,
    cold: Arc<Semaphore>,
}

impl Reads {
    pub(super) fn new(db: Arc<DB>) -> Self {
        Self {
            db,
            cold: Arc::new(Semaphore::new(COLD_READS)),
        }
    }

    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if let Some(found) = warm(get(&self.db, key, &options::cached_reads()))? {
            return Ok(found);
        }
        let key = key.to_vec();
        self.blocking(move |db| get(db, &key, &options::reads()))
            .await
    }

    pub(super) async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError> {
        if let Some(found) = warm(get_many(&self.db, keys, &options::cached_reads()))? {
            return Ok(found);
        }
        let keys = keys.to_vec();
        self.blocking(move |db| get_many(db, &keys, &options::reads()))
            .await
    }

    pub(super) async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError> {
        if scan.limit <= SHORT_SCAN {
            let found = scan_rows(&scan, options::cached_reads(), |options| {
                self.db.raw_iterator_opt(options)
            });
            if let Some(found) = warm(found)? {
                return Ok(found);
            }
        }
        self.blocking(move |db| {
            scan_rows(&scan, options::reads(), |options| {
                db.raw_iterator_opt(options)
            })
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&DB) -> Result<T, rocksdb::Error> + Send + 'static,
    ) -> Result<T, EngineError> {
        let permit = self.cold.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let db = self.db.clone();
        let found = tokio::task::spawn_blocking(move || {
            let found = read(&db);
            drop(permit);
            found
        });
        match found.await {
            Ok(found) => found.map_err(engine_error),
            Err(error) => Err(EngineError::Unavailable(error.to_string())),
        }
    }
}

/// `None`: not in memory.
fn warm<T>(found: Result<T, rocksdb::Error>) -> Result<Option<T>, EngineError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::Incomplete => Ok(None),
        Err(error) => Err(engine_error(error)),
    }
}

fn get(db: &DB, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, rocksdb::Error> {
    let found = db.get_pinned_opt(key, options)?;
    Ok(found.map(|value| Bytes::copy_from_slice(&value)))
}

fn get_many(
    db: &DB,
    keys: &[Bytes],
    options: &ReadOptions,
) -> Result<Vec<Option<Bytes>>, rocksdb::Error> {
    db.multi_get_opt(keys, options)
        .into_iter()
        .map(|found| found.map(|value| value.map(Bytes::from)))
        .collect()
}

/// Runs a scan on the iterator that `open` makes.
pub(super) fn scan_rows<'d, D: DBAccess + 'd>(
    scan: &Scan,
    mut options: ReadOptions,
    open: impl FnOnce(ReadOptions) -> DBRawIteratorWithThreadMode<'d, D>,
) -> Result<Vec<Entry>, rocksdb::Error> {
    assert!(
        !(scan.reverse && scan.fold.is_some()),
        "a fold goes forward"
    );
    if scan.range.is_empty() || scan.limit == 0 {
        return Ok(Vec::new());
    }
    bound(&mut options, &scan.range);
    let mut rows = open(options);
    if scan.reverse {
        rows.seek_to_last();
    } else {
        rows.seek(&scan.range.start);
    }
    let mut entries = Vec::with_capacity(scan.limit.min(1024));
    while let Some((key, value)) = rows.item() {
        let head = scan.fold.as_ref().and_then(|fold| fold.head_len(key));
        match head {
            None => entries.push(Entry::Row(
                Bytes::copy_from_slice(key),
                Bytes::copy_from_slice(value),
            )),
            Some(len) => entries.push(Entry::Folded(Bytes::copy_from_slice(&key[..len]))),
        }
        if entries.len() == scan.limit {
            break;
        }
        match entries.last() {
            Some(Entry::Folded(head)) => match keys::successor(head) {
                Some(next) => pass(&mut rows, head, &next),
                None => break,
            },
            _ if scan.reverse => rows.prev(),
            _ => rows.next(),
        }
    }
    rows.status()?;
    Ok(entries)
}

/// Goes behind all rows that begin with `head`; `next` is the least key there.
fn pass<D: DBAccess>(rows: &mut DBRawIteratorWithThreadMode<'_, D>, head: &[u8], next: &[u8]) {
    for _ in 0..STEPS {
        rows.next();
        // At the end, or at an error, which the status tells.
        if rows.key().is_none_or(|key| !key.starts_with(head)) {
            return;
        }
    }
    rows.seek(next);
}

fn bound(options: &mut ReadOptions, range: &KeyRange) {
    options.set_iterate_lower_bound(&range.start[..]);
    if let Some(end) = &range.end {
        options.set_iterate_upper_bound(&end[..]);
    }
}
