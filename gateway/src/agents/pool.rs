//! The connections to one agent.
//!
//! Owns the idle ones and the permits to have one. Invariant: a connection is
//! made only by the holder of a permit that found none idle, so there are
//! never more than permits, the idle ones included. Permits are given in the
//! order in which they were asked for.

use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use shardgate_wire::StoreError;
use shardgate_wire::frame_body::FrameBody;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::AgentSettings;

/// Which share of the connections a call uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Shards.
    Data,
    /// Health, epochs, reports: never behind shards.
    Control,
}

/// One connection, with the task that drives it.
pub struct Connection {
    /// Sends one request at a time.
    pub sender: SendRequest<FrameBody>,
    _driver: AbortOnDropHandle<()>,
    used: Instant,
}

/// The connections to one agent.
pub struct ConnectionPool {
    address: String,
    connect_timeout: Duration,
    idle_timeout: Duration,
    data: Arc<Semaphore>,
    control: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl ConnectionPool {
    /// No connection yet.
    pub fn new(address: String, settings: &AgentSettings) -> Self {
        let control = settings.control_connections.max(1);
        let data = settings.connections.saturating_sub(control).max(1);
        Self {
            address,
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
            data: Arc::new(Semaphore::new(data)),
            control: Arc::new(Semaphore::new(control)),
            idle: Mutex::default(),
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Leave to have a connection; the first to ask is the first to get it.
    pub async fn permit(&self, way: Way) -> OwnedSemaphorePermit {
        let permits = match way {
            Way::Data => &self.data,
            Way::Control => &self.control,
        };
        let permit = Arc::clone(permits).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// The connection that was used last, if it can still be used.
    pub fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(connection) = idle.pop() {
            let fresh = connection.used.elapsed() < self.idle_timeout;
            if fresh && !connection.sender.is_closed() {
                return Some(connection);
            }
        }
        None
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
        let stream = match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("no connection in time".to_owned())),
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let address = self.address.clone();
        // Not one of the tracker's: an idle connection outlives every call, and a
        // stop that waited for it would wait in vain. It ends with its owner.
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(agent = address, %error, "connection ended");
            }
        });
        Ok(Connection {
            sender,
            _driver: AbortOnDropHandle::new(driver),
            used: Instant::now(),
        })
    }

    /// Keeps a connection whose answer was read to its end. To be called
    /// before its permit goes.
    pub fn put_back(&self, mut connection: Connection) {
        if !connection.sender.is_closed() {
            connection.used = Instant::now();
            self.idle.lock().push(connection);
        }
    }

    /// Closes what idles: the agent was seen to have gone away.
    pub fn drop_idle(&self) {
        self.idle.lock().clear();
    }
}
