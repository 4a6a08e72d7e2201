//! What can be set, and what it is when it is not.
//!
//! `docs/shardgate.toml.example` is the commented form of this file; a test
//! compares the two.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use shardgate_wire::Medium;

use crate::auth::SecretText;

use super::values::{AgentUrl, ByteSize, HostName, ListenAddr, LogFormat, Period, SchemeChoice};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What clients and operators connect to.
    pub gateway: GatewaySettings,
    /// The root identity.
    pub root: RootSettings,
    /// The metadata.
    pub catalog: CatalogSettings,
    /// Disks and agents.
    pub pool: PoolSettings,
    /// Storage classes by name.
    pub classes: BTreeMap<String, ClassSettings>,
    /// Bounds.
    pub limits: LimitSettings,
    /// Logs.
    pub log: LogSettings,
}

/// What clients and operators connect to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Where S3 is served.
    pub listen: ListenAddr,
    /// Where metrics, health and the operator's commands are served.
    pub operator_listen: ListenAddr,
    /// Base names of virtual hosts.
    pub host_names: Vec<HostName>,
    /// Region that is reported.
    pub region: String,
    /// Whether Signature Version 2 is taken.
    pub signature_v2: bool,
    /// How long running requests may take after a stop was asked for.
    pub shutdown_deadline: Period,
}

/// The root identity.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RootSettings {
    /// Access key id.
    pub access_key: Option<String>,
    /// Secret access key.
    pub secret_key: Option<SecretText>,
    /// File whose first line is the secret access key.
    pub secret_key_file: Option<PathBuf>,
}

/// The metadata.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogSettings {
    /// Folder of the catalog and of the gateway's own state.
    pub path: Option<PathBuf>,
    /// Memory of its block cache.
    pub cache: ByteSize,
    /// Largest object whose bytes lie in the catalog.
    pub inline_max: ByteSize,
    /// Bytes of journal after which a checkpoint is taken; by the pool if not
    /// set.
    pub checkpoint_bytes: Option<ByteSize>,
    /// Time after which one is taken if anything was committed.
    pub checkpoint_interval: Period,
    /// Bytes that the journal may take; near it writes wait. By the pool if
    /// not set.
    pub journal_bound: Option<ByteSize>,
}

/// Disks and agents.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSettings {
    /// Folders of the gateway's own disks.
    pub disks: Vec<Folder>,
    /// Folder on a faster disk for copies of their directories.
    pub index_dir: Option<PathBuf>,
    /// Name of the server that the gateway's own disks are in.
    pub server: String,
    /// Name of its site.
    pub site: String,
    /// Addresses of agents.
    pub agents: Vec<AgentUrl>,
    /// Secret that agents and gateways share.
    pub secret: Option<SecretText>,
    /// File whose first line is that secret.
    pub secret_file: Option<PathBuf>,
    /// Most connections to one agent.
    pub connections_per_agent: usize,
}

/// A folder that is a disk: a path, or a table with its medium.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "FolderForm")]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// Its medium, where the kernel is wrong about it.
    pub medium: Option<Medium>,
    /// Its own folder on a faster disk for copies of its directories.
    pub index_dir: Option<PathBuf>,
}

/// A storage class.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSettings {
    /// How its objects are stored.
    pub scheme: SchemeChoice,
    /// Only on disks of this medium.
    #[serde(default)]
    pub medium: Option<Medium>,
}

/// Bounds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Memory for the bytes of objects in flight.
    pub memory_budget: ByteSize,
    /// Longest time that a request waits for memory before `SlowDown`.
    pub memory_wait: Period,
    /// Memory for directories of packed shards, of all disks of this process.
    pub directory_memory: ByteSize,
    /// Connections of clients at once.
    pub connections: usize,
    /// Requests in work at once.
    pub requests: usize,
    /// Bytes per second that work in the background moves to and from disks.
    pub background_rate: ByteSize,
    /// In which time the gateway's own disks read everything that they keep;
    /// 0: never.
    pub scrub_period: Period,
    /// Longest time for a request's head.
    pub header_timeout: Period,
    /// Longest time without a byte of a body, either way.
    pub body_timeout: Period,
    /// Least bytes per second of a request's body, over twice `body_timeout`.
    pub min_body_rate: ByteSize,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines: a level, or `tracing`'s directives.
    pub level: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FolderForm {
    Path(PathBuf),
    Table(FolderTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FolderTable {
    path: PathBuf,
    medium: Option<Medium>,
    index_dir: Option<PathBuf>,
}

impl From<FolderForm> for Folder {
    fn from(form: FolderForm) -> Self {
        match form {
            FolderForm::Path(path) => Self {
                path,
                medium: None,
                index_dir: None,
            },
            FolderForm::Table(table) => Self {
                path: table.path,
                medium: table.medium,
                index_dir: table.index_dir,
            },
        }
    }
}

fn seconds(seconds: u64) -> Period {
    Period(std::time::Duration::from_secs(seconds))
}

fn loopback(port: u16) -> ListenAddr {
    ListenAddr(([127, 0, 0, 1], port).into())
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listen: loopback(9000),
            operator_listen: loopback(9001),
            host_names: Vec::new(),
            region: "us-east-1".to_owned(),
            signature_v2: true,
            shutdown_deadline: seconds(30),
        }
    }
}

impl Default for CatalogSettings {
    fn default() -> Self {
        Self {
            path: None,
            cache: ByteSize(64 << 20),
            inline_max: ByteSize(1024),
            checkpoint_bytes: None,
            checkpoint_interval: seconds(6 * 3600),
            journal_bound: None,
        }
    }
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            disks: Vec::new(),
            index_dir: None,
            server: "gateway".to_owned(),
            site: "default".to_owned(),
            agents: Vec::new(),
            secret: None,
            secret_file: None,
            connections_per_agent: 64,
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            memory_budget: ByteSize(320 << 20),
            memory_wait: seconds(10),
            directory_memory: ByteSize(64 << 20),
            connections: 10_000,
            requests: 8_000,
            background_rate: ByteSize(64 << 20),
            scrub_period: seconds(30 * 86_400),
            header_timeout: seconds(10),
            body_timeout: seconds(60),
            min_body_rate: ByteSize(1024),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}
