//! The bounds of an agent: nothing that a caller does goes beyond them.

use std::time::Duration;

/// How much of everything at once, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections; one more is closed as soon as it is accepted.
    pub connections: usize,
    /// Calls of one disk, waiting ones included; one more is `Busy`.
    pub calls_per_disk: usize,
    /// Bytes of bodies and read answers in memory; one more is `Busy`.
    pub buffer_bytes: usize,
    /// Bytes of directories of packed shards in memory, of all disks.
    pub directory_bytes: usize,
    /// In which time each disk reads everything that it keeps; zero: never.
    pub scrub_period: Duration,
    /// How far a caller's clock may be from ours.
    pub clock_skew: Duration,
    /// Until a new connection has made its first authentic call.
    pub first_call: Duration,
    /// For one request's head, and how long a connection may idle.
    pub idle: Duration,
    /// For one request's body.
    pub body: Duration,
    /// How long a peer may take nothing of an answer.
    pub write_stall: Duration,
    /// How long a stop waits for calls that are under way.
    pub drain: Duration,
}

/// Most bytes of a request's head.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            calls_per_disk: 256,
            buffer_bytes: 256 * 1024 * 1024,
            directory_bytes: 64 * 1024 * 1024,
            scrub_period: Duration::from_secs(30 * 86_400),
            clock_skew: Duration::from_secs(300),
            first_call: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(10),
            write_stall: Duration::from_secs(30),
            drain: Duration::from_secs(20),
        }
    }
}
