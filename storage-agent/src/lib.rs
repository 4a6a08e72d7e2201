//! The agent of one server: HTTP over its disks.
//!
//! Owns connections ([`server`]), what a request must pass ([`gate`]), the
//! way of a request ([`service`]) to its disk ([`lanes`], [`calls`]), the
//! bounds of all that ([`limits`]), the configured [`folders`], and what the
//! agent is told ([`config`]). The disks themselves are the disk store's, or
//! any [`ShardStore`](shardgate_wire::ShardStore). What is said is
//! `docs/agent-protocol.md`. It decides nothing: gateways do.

pub mod body;
pub mod calls;
pub mod config;
pub mod flags;
pub mod folders;
pub mod fsck;
pub mod gate;
mod journal_calls;
pub mod lanes;
pub mod limits;
pub mod metrics;
pub mod operator;
pub mod run;
pub mod server;
pub mod service;
pub mod state;
pub mod write_stall;

pub use lanes::Lanes;
pub use limits::Limits;
pub use server::serve;
pub use service::{Agent, FolderSet, Who};
