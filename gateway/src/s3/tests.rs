//! S3 over HTTP in one process: real connections, real signatures, a store
//! in memory.

mod attacks;
mod attacks_v2;
mod bodies;
pub(crate) mod client;
mod conditional;
mod contact;
mod listings;
pub(crate) mod memory;
mod objects;
mod owners;
mod parts;
mod promises;
mod regions;
pub(crate) mod signer;
mod uploads;
