//! The figures of the data path that an operator may set.

use std::time::Duration;

/// Settings of the object path. Data only.
#[derive(Clone, Debug)]
pub struct ObjectSettings {
    /// Objects up to this many bytes lie in the catalog; at most
    /// [`MOST_INLINE`].
    pub inline_max: usize,
    /// All memory that bodies may take.
    pub memory_bytes: u64,
    /// How long a request waits for memory before it is told to slow down.
    pub memory_wait: Duration,
    /// The longest body of one PUT or part.
    pub body_max: u64,
    /// How long a read of a disk of this process may take, and how long one
    /// that is busy is asked again. Agents have limits of their own.
    pub read_limit: Duration,
    /// How long an append to a disk of this process may take.
    pub append_limit: Duration,
    /// How long a disk of this process may take to make a shard durable.
    pub sync_limit: Duration,
    /// How often condemned blobs are looked for.
    pub purge_every: Duration,
}

/// The most that [`ObjectSettings::inline_max`] may be.
pub const MOST_INLINE: usize = 16 * 1024;

impl Default for ObjectSettings {
    fn default() -> Self {
        Self {
            inline_max: 1024,
            memory_bytes: 400 << 20,
            memory_wait: Duration::from_secs(30),
            body_max: 5 << 30,
            read_limit: Duration::from_secs(10),
            append_limit: Duration::from_secs(20),
            sync_limit: Duration::from_secs(30),
            purge_every: Duration::from_secs(3),
        }
    }
}
