//! Reads: from memory on the caller's thread where possible, else on a
//! blocking thread.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, DBAccess, DBRawIteratorWithThreadMode, ErrorKind, ReadOptions};
use tokio::sync::Semaphore;

use super::empty::{Empty, Passes};
use super::sweep::{Hand, Steps};
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
    pub(super) empty: Arc<Empty>,
    sweeper: Hand,
    cold: Arc<Semaphore>,
}

impl Reads {
    pub(super) fn new(db: Arc<DB>, empty: Arc<Empty>, sweeper: Hand) -> Self {
        Self {
            db,
            empty,
            sweeper,
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
        let cached = get_many(&self.db, keys, &options::cached_reads());
        // RocksDB gives an empty value, and no error, for a key of which it
        // would have to read a block to tell (MultiGet on the block cache
        // alone): what looks so is read again.
        let doubtful = |value: &Option<Bytes>| value.as_ref().is_some_and(Bytes::is_empty);
        if let Some(found) = warm(cached)?
            && !found.iter().any(doubtful)
        {
            return Ok(found);
        }
        let keys = keys.to_vec();
        self.blocking(move |db| get_many(db, &keys, &options::reads()))
            .await
    }

    pub(super) async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError> {
        if scan.limit <= SHORT_SCAN {
            let options = options::cached_reads();
            let found = scan_now(&self.db, &self.empty, &scan, options, |_| {});
            if let Some(found) = warm(found)? {
                return Ok(found);
            }
        }
        let (empty, sweeper) = (self.empty.clone(), self.sweeper.clone());
        self.blocking(move |db| {
            let mut steps = Steps::new();
            let stepped = |from: &[u8]| steps.stepped(from);
            let found = scan_now(db, &empty, &scan, options::reads(), stepped)?;
            if let Some(place) = steps.place() {
                sweeper.look(place);
            }
            Ok(found)
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

/// Runs a scan on the iterator that `open` makes, of whatever moment.
pub(super) fn scan_rows<'d, D: DBAccess + 'd>(
    scan: &Scan,
    mut options: ReadOptions,
    open: impl FnOnce(ReadOptions) -> DBRawIteratorWithThreadMode<'d, D>,
) -> Result<Vec<Entry>, rocksdb::Error> {
    if scan.range.is_empty() || scan.limit == 0 {
        return Ok(Vec::new());
    }
    bound(&mut options, &scan.range);
    let rows = Rows {
        rows: open(options),
        passes: Passes::default(),
    };
    run(scan, rows, |_| {})
}

/// Runs a scan of what is there now; `stepped` is told where each step began
/// that may have gone over deleted rows.
pub(super) fn scan_now(
    db: &DB,
    empty: &Empty,
    scan: &Scan,
    mut options: ReadOptions,
    stepped: impl FnMut(&[u8]),
) -> Result<Vec<Entry>, rocksdb::Error> {
    if scan.range.is_empty() || scan.limit == 0 {
        return Ok(Vec::new());
    }
    bound(&mut options, &scan.range);
    let before = empty.before();
    let rows = Rows {
        rows: db.raw_iterator_opt(options),
        passes: before.opened(),
    };
    run(scan, rows, stepped)
}

fn run<D: DBAccess>(
    scan: &Scan,
    mut rows: Rows<'_, D>,
    mut stepped: impl FnMut(&[u8]),
) -> Result<Vec<Entry>, rocksdb::Error> {
    assert!(
        !(scan.reverse && scan.fold.is_some()),
        "a fold goes forward"
    );
    if scan.reverse {
        rows.rows.seek_to_last();
    } else {
        rows.seek(&scan.range.start);
        stepped(&scan.range.start);
    }
    let mut entries = Vec::with_capacity(scan.limit.min(1024));
    while let Some((key, value)) = rows.rows.item() {
        let head = scan.fold.as_ref().and_then(|fold| fold.head_len(key));
        let entry = match head {
            None => Entry::Row(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
            Some(len) => Entry::Folded(Bytes::copy_from_slice(&key[..len])),
        };
        entries.push(entry);
        if entries.len() == scan.limit {
            break;
        }
        match entries.last() {
            Some(Entry::Row(..)) if scan.reverse => rows.rows.prev(),
            Some(Entry::Row(key, _)) => {
                rows.next();
                stepped(key);
            }
            Some(Entry::Folded(head)) => match keys::successor(head) {
                Some(next) => {
                    rows.leave(head, &next);
                    stepped(&next);
                }
                None => break,
            },
            None => break,
        }
    }
    rows.rows.status()?;
    Ok(entries)
}

/// An iterator that passes what is known to be empty. At the end, or at an
/// error, which its status tells, it stands nowhere.
struct Rows<'d, D: DBAccess> {
    rows: DBRawIteratorWithThreadMode<'d, D>,
    passes: Passes,
}

impl<D: DBAccess> Rows<'_, D> {
    fn seek(&mut self, key: &[u8]) {
        match self.passes.pass(key) {
            Some(key) => self.rows.seek(key),
            None => self.end(),
        }
    }

    /// Nothing lives behind here.
    fn end(&mut self) {
        self.rows.seek_to_last();
        if self.rows.valid() {
            self.rows.next();
        }
    }

    /// Goes on from the row that it stands on.
    fn next(&mut self) {
        let key = match self.passes.is_empty() {
            true => None,
            false => self.rows.key().map(keys::after),
        };
        match key.as_deref().map(|key| (key, self.passes.pass(key))) {
            Some((key, Some(to))) if to != key => self.rows.seek(to),
            Some((_, None)) => self.end(),
            _ => self.rows.next(),
        }
    }

    /// Goes behind all rows that begin with `head`; `next` is the least key
    /// there.
    fn leave(&mut self, head: &[u8], next: &[u8]) {
        for _ in 0..STEPS {
            self.next();
            if self.rows.key().is_none_or(|key| !key.starts_with(head)) {
                return;
            }
        }
        self.seek(next);
    }
}

fn bound(options: &mut ReadOptions, range: &KeyRange) {
    options.set_iterate_lower_bound(&range.start[..]);
    if let Some(end) = &range.end {
        options.set_iterate_upper_bound(&end[..]);
    }
}
