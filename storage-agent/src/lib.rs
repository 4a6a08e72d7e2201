//! The agent of one server: HTTP over its disks.
//!
//! Owns connections ([`server`]), what a request must pass ([`gate`]), the
//! way of a request ([`service`]) to its disk ([`lanes`], [`calls`]) and the
//! bounds of all that ([`limits`]). The disks themselves are the disk store's,
//! or any [`ShardStore`](shardgate_wire::ShardStore). What is said is
//! `docs/agent-protocol.md`. It decides nothing: gateways do.

pub mod body;
pub mod calls;
pub mod gate;
pub mod lanes;
pub mod limits;
pub mod metrics;
pub mod server;
pub mod service;
pub mod write_stall;

pub use lanes::Lanes;
pub use limits::Limits;
pub use server::serve;
pub use service::{Agent, FolderSet, Who};
