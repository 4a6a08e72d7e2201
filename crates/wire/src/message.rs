//! The calls that gateways make to agents: targets, limits, heads.
//!
//! Owns what is said; [`crate::frame`] owns how it lies in a body and
//! [`crate::mac`] who may say it. `docs/agent-protocol.md` describes all
//! three. Invariant: a path names a disk by its id in hex and a call by one of
//! the words of [`Call`]; nothing in a message ever becomes part of a path of
//! the file system, but for [`FormatHead::folder`], which must equal a
//! configured folder.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::check::{MAX_DAMAGED, MAX_FINDING_BYTES, MAX_FINDINGS};
use crate::disk::{DiskHealth, DiskIdentity, Medium, SlotAssignment};
use crate::frame::FrameLimits;
use crate::ids::{AgentId, DiskId};
use crate::journal::{
    MAX_CHECKPOINT_ROOT_BYTES, MAX_JOURNAL_APPEND_BYTES, MAX_JOURNAL_READ_BYTES, MAX_POOL_MAP_BYTES,
};
use crate::message_notes::MAX_NOTES_HEAD_BYTES;
use crate::shard::{ShardHeader, ShardKey};
use crate::store::{
    CallContext, MAX_APPEND_BYTES, MAX_READ_BYTES, ShardEnd, ShardHandle, StoreError,
};

/// Version of the calls and their heads.
pub const PROTOCOL: u16 = 2;

/// Most shards of one put message.
pub const MAX_PUT_SHARDS: usize = 256;
/// Most data of one put message, bytes.
pub const MAX_PUT_DATA_BYTES: usize = 1024 * 1024;
/// Longest head of one put message, bytes.
pub const MAX_PUT_HEAD_BYTES: usize = 512 * 1024;

const KIB: usize = 1024;

/// What can be asked of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// `ShardStore::raise_epoch`.
    RaiseEpoch,
    /// `ShardStore::assign`.
    Assign,
    /// `ShardStore::open`.
    Open,
    /// `ShardStore::append`.
    Append,
    /// `ShardStore::finish`.
    Finish,
    /// `ShardStore::abort`.
    Abort,
    /// `ShardStore::put` of many shards at once.
    Put,
    /// `ShardStore::read`.
    Read,
    /// `ShardStore::stat`.
    Stat,
    /// `ShardStore::delete`.
    Delete,
    /// `ShardStore::list`.
    List,
    /// `ShardStore::health`.
    Health,
    /// `ShardStore::put_notes`.
    PutNotes,
    /// `ShardStore::forget_notes`.
    ForgetNotes,
    /// `ShardStore::notes`.
    Notes,
    /// `ShardStore::slots`.
    Slots,
    /// `ShardStore::damaged`.
    Damaged,
    /// `ShardStore::check`.
    Check,
    /// `JournalDisk::standing`.
    JournalStanding,
    /// `JournalDisk::raise`.
    JournalRaise,
    /// `JournalDisk::begin`.
    JournalBegin,
    /// `JournalDisk::append`.
    JournalAppend,
    /// `JournalDisk::files`.
    JournalFiles,
    /// `JournalDisk::read`.
    JournalRead,
    /// `JournalDisk::remove`.
    JournalRemove,
    /// `JournalDisk::roots`.
    JournalRoots,
    /// `JournalDisk::set_map`.
    JournalMap,
    /// `JournalDisk::set_checkpoint`.
    JournalCheckpoint,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::RaiseEpoch,
        Self::Assign,
        Self::Open,
        Self::Append,
        Self::Finish,
        Self::Abort,
        Self::Put,
        Self::Read,
        Self::Stat,
        Self::Delete,
        Self::List,
        Self::Health,
        Self::PutNotes,
        Self::ForgetNotes,
        Self::Notes,
        Self::Slots,
        Self::Damaged,
        Self::Check,
        Self::JournalStanding,
        Self::JournalRaise,
        Self::JournalBegin,
        Self::JournalAppend,
        Self::JournalFiles,
        Self::JournalRead,
        Self::JournalRemove,
        Self::JournalRoots,
        Self::JournalMap,
        Self::JournalCheckpoint,
    ];

    /// Whether it is a call of `JournalDisk`.
    pub fn is_journal(self) -> bool {
        self.path().starts_with("journal/")
    }

    /// What follows the disk in the path.
    pub fn path(self) -> &'static str {
        match self {
            Self::RaiseEpoch => "epoch",
            Self::Assign => "slots",
            Self::Open => "shards/open",
            Self::Append => "shards/append",
            Self::Finish => "shards/finish",
            Self::Abort => "shards/abort",
            Self::Put => "shards/put",
            Self::Read => "shards/read",
            Self::Stat => "shards/stat",
            Self::Delete => "shards/delete",
            Self::List => "shards/list",
            Self::Health => "health",
            Self::PutNotes => "notes/put",
            Self::ForgetNotes => "notes/forget",
            Self::Notes => "notes/list",
            Self::Slots => "slots/list",
            Self::Damaged => "damaged",
            Self::Check => "check",
            Self::JournalStanding => "journal/standing",
            Self::JournalRaise => "journal/epoch",
            Self::JournalBegin => "journal/begin",
            Self::JournalAppend => "journal/append",
            Self::JournalFiles => "journal/files",
            Self::JournalRead => "journal/read",
            Self::JournalRemove => "journal/remove",
            Self::JournalRoots => "journal/roots",
            Self::JournalMap => "journal/map",
            Self::JournalCheckpoint => "journal/checkpoint",
        }
    }

    /// The word for logs and metrics.
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.strip_prefix("shards/").unwrap_or(path)
    }

    /// Longest request.
    pub fn request_limits(self) -> FrameLimits {
        let (head, data) = match self {
            Self::Open => (40 * KIB, 0),
            Self::Append => (KIB, MAX_APPEND_BYTES),
            Self::Put => (MAX_PUT_HEAD_BYTES, MAX_PUT_DATA_BYTES),
            Self::Assign | Self::Delete | Self::ForgetNotes => (64 * KIB, 0),
            Self::PutNotes => (MAX_NOTES_HEAD_BYTES, 0),
            Self::JournalBegin | Self::JournalAppend => (KIB, MAX_JOURNAL_APPEND_BYTES),
            Self::JournalRemove => (64 * KIB, 0),
            Self::JournalMap => (KIB, MAX_POOL_MAP_BYTES),
            Self::JournalCheckpoint => (KIB, MAX_CHECKPOINT_ROOT_BYTES),
            _ => (KIB, 0),
        };
        FrameLimits { head, data }
    }

    /// Longest answer.
    pub fn answer_limits(self) -> FrameLimits {
        let (head, data) = match self {
            Self::Read => (16 * KIB, MAX_READ_BYTES),
            Self::Put => (256 * KIB, 0),
            Self::Stat => (40 * KIB, 0),
            Self::List | Self::Slots => (64 * KIB, 0),
            Self::Notes => (MAX_NOTES_HEAD_BYTES, 0),
            Self::Damaged => (MAX_DAMAGED * (MAX_FINDING_BYTES + 64) + KIB, 0),
            Self::Check => (MAX_FINDINGS * (2 * MAX_FINDING_BYTES + 64) + KIB, 0),
            Self::JournalRead => (16 * KIB, MAX_JOURNAL_READ_BYTES),
            Self::JournalFiles => (128 * KIB, 0),
            Self::JournalRoots => (KIB, MAX_POOL_MAP_BYTES + MAX_CHECKPOINT_ROOT_BYTES),
            _ => (16 * KIB, 0),
        };
        FrameLimits { head, data }
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `GET /healthz`: the process is up. Needs no secret.
    Alive,
    /// `GET /v1/agent`: an [`AgentReport`].
    Agent,
    /// `POST /v1/format`: a [`FormatHead`].
    Format,
    /// `POST /v1/disks/{disk}/{call}`.
    Disk(DiskId, Call),
}

/// A method and path that are not a call.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoTarget {
    /// There is no such path, or its disk is not an id.
    #[error("no such path")]
    Path,
    /// The path exists with another method.
    #[error("method is not {0}")]
    Method(&'static str),
}

/// Longest head of a format call, bytes.
pub const FORMAT_LIMITS: FrameLimits = FrameLimits {
    head: 8 * KIB,
    data: 0,
};
/// Longest head of an agent's report, bytes.
pub const REPORT_LIMITS: FrameLimits = FrameLimits {
    head: 1024 * KIB,
    data: 0,
};

impl Target {
    /// Reads a method and a path without its query.
    pub fn parse(method: &str, path: &str) -> Result<Self, NoTarget> {
        let target = match path {
            "/healthz" => Self::Alive,
            "/v1/agent" => Self::Agent,
            "/v1/format" => Self::Format,
            _ => {
                let rest = path.strip_prefix("/v1/disks/").ok_or(NoTarget::Path)?;
                let (disk, call) = rest.split_once('/').ok_or(NoTarget::Path)?;
                let disk = disk.parse().map_err(|_| NoTarget::Path)?;
                let known = Call::ALL.into_iter().find(|known| known.path() == call);
                Self::Disk(disk, known.ok_or(NoTarget::Path)?)
            }
        };
        match target.method() {
            expected if expected == method => Ok(target),
            expected => Err(NoTarget::Method(expected)),
        }
    }

    /// Its method.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Alive | Self::Agent => "GET",
            Self::Format | Self::Disk(..) => "POST",
        }
    }

    /// Its path.
    pub fn path(&self) -> String {
        match self {
            Self::Alive => "/healthz".to_owned(),
            Self::Agent => "/v1/agent".to_owned(),
            Self::Format => "/v1/format".to_owned(),
            Self::Disk(disk, call) => format!("/v1/disks/{disk}/{}", call.path()),
        }
    }
}

/// Head of [`Call::RaiseEpoch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaiseEpochHead {
    /// Who calls.
    pub ctx: CallContext,
}

/// Head of [`Call::Assign`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignHead {
    /// Who calls.
    pub ctx: CallContext,
    /// At most [`MAX_BATCH`](crate::store::MAX_BATCH).
    pub slots: Vec<SlotAssignment>,
}

/// Head of [`Call::Open`]; the answer is a [`ShardHandle`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenHead {
    /// Who calls.
    pub ctx: CallContext,
    /// The shard's head.
    pub header: ShardHeader,
    /// Its length, where known.
    pub shard_len: Option<u64>,
}

/// Head of [`Call::Append`]; the data are the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendHead {
    /// Who calls.
    pub ctx: CallContext,
    /// Where to.
    pub handle: ShardHandle,
    /// From which offset on.
    pub offset: u64,
    /// One per 64 KiB block of the data.
    pub crcs: Vec<u32>,
}

/// Head of [`Call::Finish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishHead {
    /// Who calls.
    pub ctx: CallContext,
    /// Which shard.
    pub handle: ShardHandle,
    /// How it ends.
    pub end: ShardEnd,
}

/// Head of [`Call::Abort`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortHead {
    /// Who calls.
    pub ctx: CallContext,
    /// Which shard.
    pub handle: ShardHandle,
}

/// Head of [`Call::Put`]; the data are the shards' bytes one after another.
/// The answer is one [`PutOutcome`] per shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutHead {
    /// Who calls.
    pub ctx: CallContext,
    /// At most [`MAX_PUT_SHARDS`].
    pub shards: Vec<PutEntry>,
}

/// One shard of a [`PutHead`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutEntry {
    /// The shard's head.
    pub header: ShardHeader,
    /// True length of the blob, bytes.
    pub blob_len: u64,
    /// How many of the data are this shard's.
    pub len: u32,
    /// One per 64 KiB block of them.
    pub crcs: Vec<u32>,
}

/// What became of one shard of a put.
pub type PutOutcome = Result<(), StoreError>;

/// Head of [`Call::Read`]; the answer is a [`ReadAnswer`] and the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadHead {
    /// Which shard.
    pub key: ShardKey,
    /// From where on.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
}

/// Answer to [`Call::Read`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAnswer {
    /// One per 64 KiB block of the data.
    pub crcs: Vec<u32>,
}

/// Head of [`Call::Stat`]; the answer is a [`ShardStat`](crate::store::ShardStat).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatHead {
    /// Which shard.
    pub key: ShardKey,
}

/// Head of [`Call::Delete`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteHead {
    /// Who calls.
    pub ctx: CallContext,
    /// At most [`MAX_BATCH`](crate::store::MAX_BATCH).
    pub keys: Vec<ShardKey>,
}

/// Head of [`Call::List`]; the answer is
/// [`ListedShard`](crate::store::ListedShard)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListHead {
    /// The last one seen.
    pub after: Option<ShardKey>,
    /// At most [`MAX_BATCH`](crate::store::MAX_BATCH).
    pub limit: u16,
}

/// Head of [`Call::Health`]; the answer is a [`DiskHealth`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthHead {}

/// Head of [`Target::Format`]: makes a blank folder a disk. The answer is the
/// new disk's [`DiskHealth`]. A repeat for the same identity is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatHead {
    /// Who calls; its epoch is the new disk's first.
    pub ctx: CallContext,
    /// The folder exactly as [`FolderReport::folder`] names it.
    pub folder: String,
    /// Who the disk is from now on; its cluster is the caller's.
    pub identity: DiskIdentity,
}

/// Head of every answer.
pub type Answer<T> = Result<T, CallError>;

/// Why a call was not done: by the disk, or before it came to one.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallError {
    /// The disk's answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent did not take the call to a disk.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why an agent does not take a call to a disk.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Not a message, or one beyond its limits.
    #[error("malformed call: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// No code, or a wrong one.
    #[error("not authentic")]
    NotAuthentic,
    /// Authentic, but meant for another run of an agent, or used before: to be
    /// stamped anew.
    #[error("meant for another run, or used before")]
    Stamp {
        /// The agent's run.
        boot: u128,
    },
    /// Authentic, but its time is not the agent's.
    #[error("clocks differ by {skew_ms} ms")]
    Skew {
        /// By how much.
        skew_ms: u64,
    },
    /// There is no such call.
    #[error("no such call")]
    NoCall,
    /// The body did not come in time.
    #[error("too slow")]
    TooSlow,
    /// Too much at once; later it may be taken.
    #[error("busy")]
    Busy,
}

impl Refusal {
    /// Its HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed { .. } => 400,
            Self::NotAuthentic | Self::Stamp { .. } | Self::Skew { .. } => 401,
            Self::NoCall => 404,
            Self::TooSlow => 408,
            Self::Busy => 503,
        }
    }
}

impl CallError {
    /// Its HTTP status: 200 where a disk answered, whatever it said.
    pub fn status(&self) -> u16 {
        match self {
            Self::Store(StoreError::Busy) => 503,
            Self::Store(_) => 200,
            Self::Refused(refusal) => refusal.status(),
        }
    }
}

/// Who an agent is and what it has: the answer to [`Target::Agent`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentReport {
    /// Its id, for ever.
    pub agent: AgentId,
    /// Number of this run of it.
    pub boot: u128,
    /// What the operator calls it.
    pub name: String,
    /// The server it runs on (a domain).
    pub server: String,
    /// Where that server is (a domain).
    pub site: String,
    /// Version of the program.
    pub version: String,
    /// [`PROTOCOL`] of the program.
    pub protocol: u16,
    /// Its clock, milliseconds since 1970.
    pub now_ms: u64,
    /// One per configured folder, in the order of the configuration.
    pub folders: Vec<FolderReport>,
}

/// One configured folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FolderReport {
    /// The path as configured.
    pub folder: String,
    /// The medium, where the operator gave one or the kernel says.
    pub medium: Option<Medium>,
    /// What is there.
    pub state: FolderState,
}

/// What is in a configured folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FolderState {
    /// A disk, open. It may be fenced: see [`DiskHealth::fenced`].
    Open(DiskHealth),
    /// The folder is there and empty: a new disk, or a lost one.
    Blank,
    /// There is no such folder.
    Missing,
    /// A disk of another cluster, left untouched.
    Foreign(DiskIdentity),
    /// It cannot be opened.
    Failed {
        /// Who it is, where that is known.
        identity: Option<DiskIdentity>,
        /// Why.
        why: String,
    },
}

#[cfg(test)]
mod tests;
