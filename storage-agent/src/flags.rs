//! The command line, and the environment behind it.
//!
//! Every key of the configuration file has a flag and a variable, but for the
//! secret: flags are shown to every user of the machine, so that it has the
//! variable and the file only.

use std::path::PathBuf;

use clap::Parser;

/// Owns the disks of one server and serves their shards to gateways.
#[derive(Parser, Debug, Default)]
#[command(name = "shardgate-agent", version)]
pub struct Flags {
    /// Configuration file (TOML)
    #[arg(long, env = "SHARDGATE_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the disk in this folder, which no process may have open, say
    /// what is wrong, and end
    #[arg(long, value_name = "FOLDER")]
    pub fsck: Option<PathBuf>,
    /// With --fsck: write directories of volumes anew that do not say what
    /// the records do
    #[arg(long, requires = "fsck")]
    pub repair: bool,
    /// Address and port for gateways; several with commas
    #[arg(long, env = "SHARDGATE_AGENT_LISTEN", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Address and port for /metrics and /healthz
    #[arg(long, env = "SHARDGATE_AGENT_OPERATOR_LISTEN")]
    pub operator_listen: Option<String>,
    /// What the agent is called in status and logs
    #[arg(long, env = "SHARDGATE_AGENT_NAME")]
    pub name: Option<String>,
    /// The server it runs on: agents with the same name here fail together
    #[arg(long, env = "SHARDGATE_AGENT_SERVER")]
    pub server: Option<String>,
    /// Where that server is
    #[arg(long, env = "SHARDGATE_AGENT_SITE")]
    pub site: Option<String>,
    /// File that holds the cluster's secret
    #[arg(long, env = "SHARDGATE_AGENT_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<String>,
    /// Folder for the agent's own id
    #[arg(long, env = "SHARDGATE_AGENT_STATE_DIR", value_name = "FOLDER")]
    pub state_dir: Option<String>,
    /// The only cluster whose disks are opened
    #[arg(long, env = "SHARDGATE_AGENT_CLUSTER", value_name = "ID")]
    pub cluster: Option<String>,
    /// Folder on a faster disk for copies of the directories of packed shards
    #[arg(long, env = "SHARDGATE_AGENT_INDEX_DIR", value_name = "FOLDER")]
    pub index_dir: Option<String>,
    /// Folder of a disk, with its medium if given (FOLDER=flash); several with
    /// commas
    #[arg(
        long = "disk",
        env = "SHARDGATE_AGENT_DISKS",
        value_delimiter = ',',
        value_name = "FOLDER"
    )]
    pub disks: Vec<String>,
    /// Log filter, such as info or shardgate_agent=debug
    #[arg(long, env = "SHARDGATE_AGENT_LOG")]
    pub log: Option<String>,
    /// Log format: text or json
    #[arg(long, env = "SHARDGATE_AGENT_LOG_FORMAT")]
    pub log_format: Option<String>,
    /// Seconds between looks at folders that are not open
    #[arg(long, env = "SHARDGATE_AGENT_CHECK_SECS")]
    pub check_secs: Option<u64>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its doc would become the command's")]
    pub limits: LimitFlags,
}

/// The table `[limits]`.
#[derive(clap::Args, Debug, Default)]
pub struct LimitFlags {
    /// Most connections
    #[arg(long, env = "SHARDGATE_AGENT_CONNECTIONS")]
    pub connections: Option<u64>,
    /// Most calls of one disk at once
    #[arg(long, env = "SHARDGATE_AGENT_CALLS_PER_DISK")]
    pub calls_per_disk: Option<u64>,
    /// Most MiB of messages in memory
    #[arg(long, env = "SHARDGATE_AGENT_BUFFER_MIB")]
    pub buffer_mib: Option<u64>,
    /// Most MiB of directories of packed shards in memory
    #[arg(long, env = "SHARDGATE_AGENT_DIRECTORY_MIB")]
    pub directory_mib: Option<u64>,
    /// Days in which disks read everything that they keep; 0: never
    #[arg(long, env = "SHARDGATE_AGENT_SCRUB_DAYS")]
    pub scrub_days: Option<u64>,
    /// How far a gateway's clock may be from ours
    #[arg(long, env = "SHARDGATE_AGENT_CLOCK_SKEW_SECS")]
    pub clock_skew_secs: Option<u64>,
    /// Until a new connection has made its first authentic call
    #[arg(long, env = "SHARDGATE_AGENT_FIRST_CALL_SECS")]
    pub first_call_secs: Option<u64>,
    /// How long a connection may idle
    #[arg(long, env = "SHARDGATE_AGENT_IDLE_SECS")]
    pub idle_secs: Option<u64>,
    /// How long a request's body may take
    #[arg(long, env = "SHARDGATE_AGENT_BODY_SECS")]
    pub body_secs: Option<u64>,
    /// How long a peer may take nothing of an answer
    #[arg(long, env = "SHARDGATE_AGENT_WRITE_STALL_SECS")]
    pub write_stall_secs: Option<u64>,
    /// How long a stop waits for calls that are under way
    #[arg(long, env = "SHARDGATE_AGENT_DRAIN_SECS")]
    pub drain_secs: Option<u64>,
}
