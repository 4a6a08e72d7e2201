//! The connections to one agent.
//!
//! Owns the idle ones and the permits to have one. Invariants: a connection is
//! made only by the holder of a permit that found none idle, so there are
//! never more than permits, the idle ones included; what stores shards never
//! holds all of them, so that a read never waits for an fsync to end. Permits
//! of one kind are given in the order in which they were asked for.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shardgate_wire::StoreError;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::AgentSettings;
use super::connection::Connection;

/// Which share of the connections a call uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Shards are read.
    Read,
    /// Shards are stored, deleted, listed.
    Store,
    /// Health, epochs, reports: never behind shards.
    Control,
    /// The journal's calls: behind nothing else, so that disks that hang with
    /// other calls cost the gateway no contact.
    Journal,
}

/// Of so many places for shards, those that [`Way::Store`] may take.
pub(super) fn store_share(places: usize) -> usize {
    (places * 3 / 4).max(1)
}

/// Leave to have a connection, or to make a call.
pub struct Leave {
    _place: OwnedSemaphorePermit,
    _store: Option<OwnedSemaphorePermit>,
}

/// Places for shards, of which some are kept for reads.
pub(super) struct Places {
    all: Arc<Semaphore>,
    store: Arc<Semaphore>,
}

impl Places {
    /// So many; at least one.
    pub(super) fn new(places: usize) -> Self {
        let places = places.max(1);
        Self {
            all: Arc::new(Semaphore::new(places)),
            store: Arc::new(Semaphore::new(store_share(places))),
        }
    }

    /// The next place of this kind.
    pub(super) async fn take(&self, stores: bool) -> Leave {
        let store = match stores {
            true => Some(one_of(&self.store).await),
            false => None,
        };
        Leave {
            _place: one_of(&self.all).await,
            _store: store,
        }
    }
}

impl Leave {
    /// The next of places of one kind.
    pub(super) async fn of(places: &Arc<Semaphore>) -> Self {
        Self {
            _place: one_of(places).await,
            _store: None,
        }
    }
}

async fn one_of(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let place = Arc::clone(places).acquire_owned().await;
    place.expect("the semaphore is never closed")
}

/// The connections to one agent.
pub struct ConnectionPool {
    address: String,
    connect_timeout: Duration,
    idle_timeout: Duration,
    shards: Places,
    control: Arc<Semaphore>,
    journal: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl ConnectionPool {
    /// No connection yet.
    pub fn new(address: String, settings: &AgentSettings) -> Self {
        let most = settings.connections;
        let control = settings.control_connections.min(most / 8).max(1);
        let journal = settings.journal_connections.min(most / 4).max(1);
        Self {
            address,
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
            shards: Places::new(most.saturating_sub(control + journal)),
            control: Arc::new(Semaphore::new(control)),
            journal: Arc::new(Semaphore::new(journal)),
            idle: Mutex::default(),
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Leave to have a connection.
    pub async fn leave(&self, way: Way) -> Leave {
        match way {
            Way::Read => self.shards.take(false).await,
            Way::Store => self.shards.take(true).await,
            Way::Control => Leave::of(&self.control).await,
            Way::Journal => Leave::of(&self.journal).await,
        }
    }

    /// The connection that was used last, if it can still be used.
    pub fn take_idle(&self) -> Option<Connection> {
        loop {
            let connection = self.idle.lock().pop()?;
            if connection.is_usable(self.idle_timeout) {
                return Some(connection);
            }
        }
    }

    /// Makes a connection.
    pub async fn connect(&self) -> Result<Connection, StoreError> {
        let unreachable = |why: String| StoreError::Unreachable {
            why: format!("{}: {why}", self.address),
        };
        let connecting = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(Connection::new(stream)),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable("no connection in time".to_owned())),
        }
    }

    /// Keeps a connection whose answer was read to its end. To be called
    /// before its leave goes.
    pub fn put_back(&self, connection: Connection) {
        if connection.is_usable(self.idle_timeout) {
            self.idle.lock().push(connection);
        }
    }

    /// Closes what idles: the agent was seen to have gone away.
    pub fn drop_idle(&self) {
        self.idle.lock().clear();
    }
}
