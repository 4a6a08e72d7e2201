//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};
use shardgate_wire::DiskId;

use crate::config::{ConfigError, Settings, Sources, load};

/// An S3-compatible object store on your own servers.
#[derive(Debug, Parser)]
#[command(name = "shardgate", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve S3 from the pool that a configuration file describes.
    Serve(Serve),
    /// Serve S3 from local folders, with nothing to configure.
    Demo(Demo),
    /// Show agents, disks, space, schemes, and what may be lost now.
    Status(Operator),
    /// Tell the pool about a disk.
    Disk(Disk),
    /// Look after the catalog: checkpoints, restore, and the last resort.
    Catalog(Catalog),
}

/// Where settings come from.
#[derive(Debug, Arguments)]
pub struct Serve {
    /// The configuration file.
    #[arg(long, env = "SHARDGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where S3 is served; as `--set gateway.listen=ADDR:PORT`.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where metrics, health and these commands are served.
    #[arg(long, value_name = "ADDR:PORT")]
    pub operator_listen: Option<SocketAddr>,
    /// Sets any value of the configuration file.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// A disk that is lost for good, where without it too few answer to
    /// start; it is never taken back.
    #[arg(long = "lost", value_name = "ID")]
    pub lost: Vec<DiskId>,
    /// Take over from another gateway that may still run; it then stops by
    /// itself. Waits 12 seconds before the first answer.
    #[arg(long)]
    pub take_over: bool,
}

/// The one-command pool.
#[derive(Debug, Arguments)]
pub struct Demo {
    /// The folder that everything is kept in.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Disks: the folders DIR/disk-1 to DIR/disk-N; six unless said. More
    /// than the pool has become new disks of it.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub disks: Option<u16>,
    /// Where S3 is served.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// Where metrics, health and the operator's commands are served; the
    /// next port of the loopback by default.
    #[arg(long, value_name = "ADDR:PORT")]
    pub operator_listen: Option<SocketAddr>,
    /// Base of virtual-host names: BUCKET.NAME.
    #[arg(long, value_name = "NAME")]
    pub host_name: Option<String>,
    /// Sets any value of the configuration file.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// A disk that is lost for good, where without it too few answer to
    /// start; it is never taken back.
    #[arg(long = "lost", value_name = "ID")]
    pub lost: Vec<DiskId>,
    /// Take over from another gateway that may still run; it then stops by
    /// itself. Waits 12 seconds before the first answer.
    #[arg(long)]
    pub take_over: bool,
}

/// Which running gateway is meant.
#[derive(Debug, Arguments)]
pub struct Operator {
    /// The configuration file of the gateway.
    #[arg(long, env = "SHARDGATE_CONFIG", conflicts_with = "data")]
    pub config: Option<PathBuf>,
    /// The folder of a demo pool.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where its operator port is, if it is not where the settings say.
    #[arg(long, value_name = "ADDR:PORT")]
    pub operator: Option<SocketAddr>,
    /// The answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Commands about disks.
#[derive(Debug, Arguments)]
pub struct Disk {
    /// What about it.
    #[command(subcommand)]
    pub command: DiskCommand,
}

/// What the pool is told of a disk.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Make the empty folder where a lost disk was a new disk. The old one is
    /// lost for good.
    Replace {
        /// The folder: PATH, or AGENT:PATH for a disk of an agent.
        place: String,
        /// Which gateway.
        #[command(flatten)]
        operator: Operator,
    },
    /// Read a whole disk that is in use, and say what is wrong with it. Stops
    /// when this command does; a second one begins anew.
    Check {
        /// Its id, as `status` shows it.
        disk: String,
        /// Write directories anew that do not say what the records do, and
        /// accept what is left of a log that was damaged. Shards are made
        /// anew from other disks without being asked to.
        #[arg(long)]
        repair: bool,
        /// Which gateway.
        #[command(flatten)]
        operator: Operator,
    },
    /// Declare a disk lost for good: it is never taken back with its data.
    Lost {
        /// Its id, as `status` shows it.
        disk: String,
        /// Which gateway.
        #[command(flatten)]
        operator: Operator,
    },
}

/// Commands about the catalog.
#[derive(Debug, Arguments)]
pub struct Catalog {
    /// What about it.
    #[command(subcommand)]
    pub command: CatalogCommand,
}

/// What is done with the catalog.
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Take a checkpoint now, without waiting until one is due.
    Checkpoint(Operator),
    /// Make the catalog anew from the newest checkpoint in the pool and the
    /// journal, on this machine. No gateway may run on the pool.
    Restore(Anew),
    /// Show why nothing is reclaimed, and what would be; or end that.
    Hold {
        /// What was deleted is reclaimed from now on: after the list was seen.
        #[arg(long)]
        end: bool,
        /// Which gateway.
        #[command(flatten)]
        operator: Operator,
    },
    /// Make the catalog anew from what the disks of the pool and its journal
    /// still have: the last resort, when nothing can be restored. No gateway
    /// may run.
    Rebuild(Rebuild),
}

/// The pool whose catalog is made anew, and what the operator says of it.
#[derive(Debug, Arguments)]
pub struct Anew {
    /// The configuration file of the gateway.
    #[arg(long, env = "SHARDGATE_CONFIG", conflicts_with = "data")]
    pub config: Option<PathBuf>,
    /// The folder of a demo pool, of which the folders disk-* are left.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Sets any value of the configuration file.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// A disk that is lost for good: its journal is not read, and it is never
    /// taken back.
    #[arg(long = "lost", value_name = "ID")]
    pub lost: Vec<DiskId>,
    /// Take over from a gateway that may still run; it then stops by itself.
    #[arg(long)]
    pub take_over: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// A catalog that is rebuilt.
#[derive(Debug, Arguments)]
pub struct Rebuild {
    /// Which, and how.
    #[command(flatten)]
    pub anew: Anew,
    /// Do it although the journal has everything.
    #[arg(long)]
    pub even_so: bool,
}

/// The environment of this process, as far as it is text.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Serve {
    /// The settings that file, environment and flags make.
    pub fn settings(self) -> Result<Settings, String> {
        let mut flags = Vec::new();
        flags.extend(self.listen.map(|addr| format!("gateway.listen={addr}")));
        flags.extend(
            self.operator_listen
                .map(|addr| format!("gateway.operator_listen={addr}")),
        );
        flags.extend(self.sets);
        let sources = Sources {
            file: self.config,
            environment: environment(),
            flags,
        };
        load(&sources).map_err(|error: ConfigError| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
