//! Settings of the server, as plain data.

use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::SecretText;

/// Where to listen, and within which bounds.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where S3 is served.
    pub listen: SocketAddr,
    /// Where metrics, health and administration are served; nowhere if `None`.
    pub operator_listen: Option<SocketAddr>,
    /// What the operator port asks for as `Authorization: Bearer`, except for
    /// health. `None`: nothing, which is for loopback only.
    pub operator_token: Option<SecretText>,
    /// The bounds.
    pub limits: Limits,
    /// How long requests that run may take to end when the server stops.
    pub drain: Duration,
}

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Requests at once; more are answered 503 SlowDown.
    pub requests: usize,
    /// Bytes of one request's head, and of the buffers of one connection.
    pub buffer_bytes: usize,
    /// Headers of one request.
    pub headers: usize,
    /// Time to send the head of a request, the wait on an idle connection
    /// included.
    pub header_time: Duration,
    /// Time in which a client takes no byte of its answer.
    pub write_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            requests: 5_000,
            // One unit of the memory budget: what a slow client holds.
            buffer_bytes: 64 * 1024,
            headers: 128,
            header_time: Duration::from_secs(60),
            write_idle: Duration::from_secs(120),
        }
    }
}
