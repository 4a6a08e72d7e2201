//! A view of one moment. RocksDB's snapshot borrows the database, so a thread
//! of its own holds it and answers reads; it ends with the view.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rocksdb::DB;
use shardgate_wire::CommitNumber;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::read::scan_rows;
use super::{engine_error, options};
use crate::engine::log::ChainPosition;
use crate::engine::{EngineError, Entry, Scan, Snapshot};
use crate::keys;

type Answer<T> = oneshot::Sender<Result<T, EngineError>>;

enum Ask {
    Get(Vec<u8>, Answer<Option<Bytes>>),
    Scan(Scan, Answer<Vec<Entry>>),
}

pub(super) struct RocksSnapshot {
    committed: CommitNumber,
    asks: mpsc::Sender<Ask>,
}

/// Takes a view; `permit` counts it until it ends.
pub(super) async fn take(
    db: Arc<DB>,
    permit: OwnedSemaphorePermit,
) -> Result<RocksSnapshot, EngineError> {
    let (asks, inbox) = mpsc::channel(4);
    let (ready, taken) = oneshot::channel();
    let thread = std::thread::Builder::new().name("catalog-view".to_owned());
    let serve = move || {
        serve(&db, inbox, ready);
        drop(permit);
    };
    thread
        .spawn(serve)
        .map_err(|error| EngineError::Unavailable(error.to_string()))?;
    let committed = taken.await.map_err(|_| ended())??;
    Ok(RocksSnapshot { committed, asks })
}

fn ended() -> EngineError {
    EngineError::Unavailable("the view's thread ended".to_owned())
}

fn serve(db: &DB, mut inbox: mpsc::Receiver<Ask>, ready: Answer<CommitNumber>) {
    let view = db.snapshot();
    let get = |key: &[u8]| {
        let found = view.get_pinned_opt(key, options::reads());
        let found = found.map_err(engine_error)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    };
    let position = get(keys::APPLIED).and_then(|bytes| match bytes {
        Some(bytes) => ChainPosition::from_bytes(&bytes)
            .map_err(|error| EngineError::Damaged(error.to_string())),
        None => Ok(ChainPosition::default()),
    });
    // Answers go to whoever still waits.
    let _ = ready.send(position.map(|position| position.number));
    while let Some(ask) = inbox.blocking_recv() {
        match ask {
            Ask::Get(key, answer) => drop(answer.send(get(&key))),
            Ask::Scan(scan, answer) => {
                let open = |options| view.raw_iterator_opt(options);
                let found = scan_rows(&scan, options::reads(), open);
                drop(answer.send(found.map_err(engine_error)));
            }
        }
    }
}

impl RocksSnapshot {
    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, EngineError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.asks.send(ask(answer)).await;
        sent.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

#[async_trait]
impl Snapshot for RocksSnapshot {
    fn committed(&self) -> CommitNumber {
        self.committed
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.ask(|answer| Ask::Get(key.to_vec(), answer)).await
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError> {
        self.ask(|answer| Ask::Scan(scan, answer)).await
    }
}
