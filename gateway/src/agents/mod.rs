//! Disks behind agents: the only place of the gateway that connects to one.
//!
//! Owns the connections to each agent (`connection`, [`pool`]), the codes of
//! messages ([`session`]), the calls ([`client`]) and the [`ShardStore`] that they make
//! up ([`remote_disk`], [`put_lane`]). Invariant: an agent has at most
//! [`AgentSettings::connections`] connections from us, a disk at most
//! [`AgentSettings::calls_per_disk`] of them, so that a disk that hangs leaves
//! its neighbours theirs. Decides nothing about where shards go or when a
//! disk counts as living, and leaves the checking of blocks to their reader.
//!
//! [`ShardStore`]: shardgate_wire::ShardStore

pub mod client;
mod connection;
pub mod place;
pub mod pool;
pub mod put_lane;
pub mod remote_disk;
mod remote_journal;
pub mod session;

use std::time::Duration;

pub use client::AgentClient;
pub use remote_disk::RemoteDisk;

/// How the gateway treats its agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// Most connections to one agent, idle ones included.
    pub connections: usize,
    /// How many of them, at most an eighth, are kept for health, epochs and
    /// reports.
    pub control_connections: usize,
    /// How many of them, at most a fourth, are kept for the journal: two for
    /// each disk that hangs, and some for the others.
    pub journal_connections: usize,
    /// Most calls to one disk at once.
    pub calls_per_disk: usize,
    /// Until a connection is made.
    pub connect_timeout: Duration,
    /// Until a call is answered, from when it has its connection.
    pub call_timeout: Duration,
    /// The same for calls that answer when something is durable: what a disk
    /// has in its caches for a long shard takes longer than one call's bytes.
    pub sync_timeout: Duration,
    /// The same for health and reports.
    pub control_timeout: Duration,
    /// How long a connection may idle before it is not used again; shorter
    /// than the agent's own.
    pub idle_timeout: Duration,
    /// Most bytes of small shards that wait for one disk.
    pub put_queue_bytes: usize,
    /// Most small shards that wait for one disk.
    pub put_queue_shards: usize,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            connections: 64,
            control_connections: 8,
            journal_connections: 16,
            calls_per_disk: 12,
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(10),
            sync_timeout: Duration::from_secs(30),
            control_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(30),
            put_queue_bytes: 16 * 1024 * 1024,
            put_queue_shards: 4096,
        }
    }
}
